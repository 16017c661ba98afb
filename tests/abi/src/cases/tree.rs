//! The file tree: directories, links, renames, permissions.

use crate::case::Fail;
use crate::sys;
use crate::sys::{c, child, file, good, open, stat, stat_at};
use crate::{cases, check, refused, same};

const HERE: i32 = libc::AT_FDCWD;

fn mkdir(path: &str, mode: u32) -> sys::Sys {
    sys!(SYS_mkdirat, HERE, c(path).as_ptr(), mode)
}

fn unlink(path: &str, flags: i32) -> sys::Sys {
    sys!(SYS_unlinkat, HERE, c(path).as_ptr(), flags)
}

fn rename(from: &str, to: &str, flags: u32) -> sys::Sys {
    sys!(SYS_renameat2, HERE, c(from).as_ptr(), HERE, c(to).as_ptr(), flags)
}

fn link(from: &str, to: &str) -> sys::Sys {
    sys!(SYS_linkat, HERE, c(from).as_ptr(), HERE, c(to).as_ptr(), 0)
}

fn symlink(target: &str, path: &str) -> sys::Sys {
    sys!(SYS_symlinkat, c(target).as_ptr(), HERE, c(path).as_ptr())
}

fn readlink(path: &str) -> sys::Sys<String> {
    let mut bytes = [0u8; 300];
    let length = sys!(SYS_readlinkat, HERE, c(path).as_ptr(), bytes.as_mut_ptr(), 300usize)?;
    Ok(String::from_utf8_lossy(&bytes[..length as usize]).into_owned())
}

/// The entries that one `getdents64` with this much room gives: (name, type).
fn entries(fd: i32, room: usize) -> sys::Sys<Vec<(String, u8)>> {
    let mut bytes = vec![0u8; room];
    let length = sys!(SYS_getdents64, fd, bytes.as_mut_ptr(), room)? as usize;
    let mut rest = &bytes[..length];
    let mut found = Vec::new();
    while rest.len() >= 20 {
        let size = u16::from_le_bytes([rest[16], rest[17]]) as usize;
        let name = rest[19..size].split(|byte| *byte == 0).next().unwrap_or_default();
        found.push((String::from_utf8_lossy(name).into_owned(), rest[18]));
        rest = &rest[size..];
    }
    Ok(found)
}

fn need_root() -> Result<(), Fail> {
    if sys!(SYS_geteuid)? == 0 { Ok(()) } else { Err(Fail::Skip("not root".into())) }
}

/// Runs as somebody without rights.
fn as_nobody(run: impl FnOnce() -> crate::case::Outcome) -> crate::case::Outcome {
    need_root()?;
    good(child(|| {
        sys!(SYS_setgroups, 0usize, 0usize)?;
        sys!(SYS_setresgid, 1234, 1234, 1234)?;
        sys!(SYS_setresuid, 1234, 1234, 1234)?;
        run()
    })?)
}

cases! {
    fn directory_make_and_remove [mkdirat, unlinkat] {
        mkdir("d", 0o755)?;
        refused!(mkdir("d", 0o755), EEXIST);
        refused!(mkdir("no/d", 0o755), ENOENT);
        same!(stat("d")?.st_mode, libc::S_IFDIR | 0o755);
        file("d/f", b"")?;
        refused!(unlink("d", libc::AT_REMOVEDIR), ENOTEMPTY);
        refused!(unlink("d", 0), EISDIR);
        refused!(unlink("d/f", libc::AT_REMOVEDIR), ENOTDIR);
        unlink("d/f", 0)?;
        unlink("d", libc::AT_REMOVEDIR)?;
        refused!(stat("d"), ENOENT);
        refused!(unlink(".", libc::AT_REMOVEDIR), EINVAL);
        Ok(())
    }

    fn directory_link_counts [mkdirat, newfstatat] {
        mkdir("d", 0o755)?;
        let before = stat("d")?.st_nlink;
        mkdir("d/a", 0o755)?;
        mkdir("d/b", 0o755)?;
        file("d/f", b"")?;
        // Two and one per subdirectory; file systems that do not count say 1.
        check!(before == 1 || (before == 2 && stat("d")?.st_nlink == 4));
        Ok(())
    }

    fn directory_listing [getdents64] {
        mkdir("d", 0o755)?;
        mkdir("d/sub", 0o755)?;
        file("d/file", b"")?;
        symlink("file", "d/link")?;
        let fd = open("d", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let mut all = entries(fd, 4096)?;
        all.sort();
        let want = [(".", 4), ("..", 4), ("file", 8), ("link", 10), ("sub", 4)].map(|(n, t)| (n.to_string(), t));
        same!(all, want);
        same!(entries(fd, 4096)?, []);
        sys::seek(fd, 0, libc::SEEK_SET)?;
        same!(entries(fd, 4096)?.len(), 5);
        refused!(entries(file("f", b"")?, 4096), ENOTDIR);
        Ok(())
    }

    fn directory_large_in_pieces [getdents64] {
        mkdir("d", 0o755)?;
        for n in 0..500 {
            file(&format!("d/file-{n:04}"), b"").and_then(sys::close)?;
        }
        let fd = open("d", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let mut names = Vec::new();
        loop {
            let part = entries(fd, 256)?;
            if part.is_empty() {
                break;
            }
            names.extend(part);
        }
        names.sort();
        names.dedup();
        same!(names.len(), 502);
        sys::seek(fd, 0, libc::SEEK_SET)?;
        refused!(entries(fd, 10), EINVAL);
        Ok(())
    }

    fn directory_removed_while_open [unlinkat, getdents64] {
        mkdir("d", 0o755)?;
        let fd = open("d", libc::O_RDONLY, 0)?;
        unlink("d", libc::AT_REMOVEDIR)?;
        same!(stat_at(fd, "", libc::AT_EMPTY_PATH)?.st_nlink, 0);
        refused!(sys!(SYS_openat, fd, c("f").as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600), ENOENT);
        Ok(())
    }

    fn link_shares_the_file [linkat, unlinkat] {
        file("a", b"content")?;
        link("a", "b")?;
        same!((stat("a")?.st_ino, stat("a")?.st_nlink), (stat("b")?.st_ino, 2));
        std::fs::write("b", b"changed")?;
        same!(std::fs::read("a")?, b"changed");
        unlink("a", 0)?;
        same!(stat("b")?.st_nlink, 1);
        refused!(link("b", "b"), EEXIST);
        mkdir("d", 0o755)?;
        refused!(link("d", "e"), EPERM);
        refused!(link("none", "e"), ENOENT);
        Ok(())
    }

    fn symlink_is_followed [symlinkat, readlinkat, openat] {
        file("target", b"data")?;
        symlink("target", "link")?;
        same!(readlink("link")?, "target");
        same!(std::fs::read("link")?, b"data");
        same!(stat_at(HERE, "link", libc::AT_SYMLINK_NOFOLLOW)?.st_mode & libc::S_IFMT, libc::S_IFLNK);
        same!(stat_at(HERE, "link", libc::AT_SYMLINK_NOFOLLOW)?.st_size, 6);
        refused!(open("link", libc::O_RDONLY | libc::O_NOFOLLOW, 0), ELOOP);
        refused!(readlink("target"), EINVAL);
        refused!(symlink("x", "link"), EEXIST);
        unlink("link", 0)?;
        check!(stat("target").is_ok());
        Ok(())
    }

    fn symlink_dangling_loops_and_paths [symlinkat, openat] {
        symlink("nowhere", "dangling")?;
        refused!(open("dangling", libc::O_RDONLY, 0), ENOENT);
        open("dangling", libc::O_RDWR | libc::O_CREAT, 0o600)?;
        check!(stat("nowhere").is_ok());
        symlink("two", "one")?;
        symlink("one", "two")?;
        refused!(open("one", libc::O_RDONLY, 0), ELOOP);
        mkdir("d", 0o755)?;
        file("d/f", b"deep")?;
        symlink("d/../d/.", "way")?;
        same!(std::fs::read("way/f")?, b"deep");
        let absolute = std::env::current_dir()?.join("d");
        symlink(&absolute.to_string_lossy(), "abs")?;
        same!(std::fs::read("abs/f")?, b"deep");
        refused!(symlink("", "empty"), ENOENT);
        Ok(())
    }

    fn symlink_chain_limit [symlinkat, openat] {
        file("l0", b"end")?;
        for n in 1..=41 {
            symlink(&format!("l{}", n - 1), &format!("l{n}"))?;
        }
        check!(open("l40", libc::O_RDONLY, 0).is_ok());
        refused!(open("l41", libc::O_RDONLY, 0), ELOOP);
        Ok(())
    }

    fn rename_replaces [renameat2] {
        file("a", b"a")?;
        let old = file("b", b"b")?;
        rename("a", "b", 0)?;
        same!(std::fs::read("b")?, b"a");
        same!(sys::get(old, 5)?, b"b");
        refused!(stat("a"), ENOENT);
        refused!(rename("a", "c", 0), ENOENT);
        rename("b", "b", 0)?;
        link("b", "c")?;
        rename("b", "c", 0)?;
        check!(stat("b").is_ok() && stat("c").is_ok());
        Ok(())
    }

    fn rename_directories [renameat2] {
        mkdir("d", 0o755)?;
        mkdir("e", 0o755)?;
        file("d/f", b"inside")?;
        rename("d", "e", 0)?;
        same!(std::fs::read("e/f")?, b"inside");
        mkdir("d", 0o755)?;
        refused!(rename("d", "e", 0), ENOTEMPTY);
        refused!(rename("e", "e/sub", 0), EINVAL);
        file("f", b"")?;
        refused!(rename("f", "d", 0), EISDIR);
        refused!(rename("d", "f", 0), ENOTDIR);
        mkdir("d/sub", 0o755)?;
        rename("d/sub", "moved", 0)?;
        same!(stat("moved/..")?.st_ino, stat(".")?.st_ino);
        Ok(())
    }

    fn rename_flags [renameat2] {
        file("a", b"a")?;
        file("b", b"b")?;
        refused!(rename("a", "b", libc::RENAME_NOREPLACE), EEXIST);
        rename("a", "b", libc::RENAME_EXCHANGE)?;
        same!((std::fs::read("a")?, std::fs::read("b")?), (b"b".to_vec(), b"a".to_vec()));
        refused!(rename("a", "none", libc::RENAME_EXCHANGE), ENOENT);
        refused!(rename("a", "b", libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE), EINVAL);
        Ok(())
    }

    fn paths_relative_to_a_descriptor [openat, mkdirat, newfstatat] {
        mkdir("d", 0o755)?;
        let dir = open("d", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        sys!(SYS_mkdirat, dir, c("sub").as_ptr(), 0o755)?;
        check!(stat("d/sub").is_ok());
        rename("d", "e", 0)?;
        check!(stat_at(dir, "sub", 0).is_ok());
        refused!(stat_at(999, "sub", 0), EBADF);
        refused!(stat_at(file("f", b"")?, "sub", 0), ENOTDIR);
        check!(stat_at(999, "/", 0).is_ok());
        Ok(())
    }

    fn working_directory [chdir, fchdir, getcwd] {
        let start = std::env::current_dir()?;
        mkdir("d", 0o755)?;
        sys!(SYS_chdir, c("d").as_ptr())?;
        let mut bytes = [0u8; 4096];
        let length = sys!(SYS_getcwd, bytes.as_mut_ptr(), 4096usize)? as usize;
        same!(String::from_utf8_lossy(&bytes[..length - 1]), start.join("d").to_string_lossy());
        refused!(sys!(SYS_getcwd, bytes.as_mut_ptr(), 3usize), ERANGE);
        let up = open("..", libc::O_RDONLY, 0)?;
        sys!(SYS_fchdir, up)?;
        same!(std::env::current_dir()?, start);
        refused!(sys!(SYS_chdir, c("none").as_ptr()), ENOENT);
        refused!(sys!(SYS_fchdir, file("f", b"")?), ENOTDIR);
        sys!(SYS_chdir, c("d").as_ptr())?;
        unlink("../d", libc::AT_REMOVEDIR)?;
        refused!(sys!(SYS_getcwd, bytes.as_mut_ptr(), 4096usize), ENOENT);
        Ok(())
    }

    fn root_directory_changes [chroot, chdir] {
        need_root()?;
        mkdir("jail", 0o755)?;
        file("jail/f", b"inside")?;
        good(child(|| {
            sys!(SYS_chroot, c("jail").as_ptr())?;
            sys!(SYS_chdir, c("/").as_ptr())?;
            same!(std::fs::read("/../../f")?, b"inside");
            refused!(stat("/dev/null"), ENOENT);
            Ok(())
        })?)
    }

    fn mode_and_umask [umask, openat, fchmodat] {
        sys!(SYS_umask, 0o027)?;
        file("f", b"").and_then(sys::close)?;
        same!(stat("f")?.st_mode & 0o7777, 0o640);
        mkdir("d", 0o777)?;
        same!(stat("d")?.st_mode & 0o7777, 0o750);
        sys!(SYS_fchmodat, HERE, c("f").as_ptr(), 0o4711)?;
        same!(stat("f")?.st_mode & 0o7777, 0o4711);
        sys!(SYS_fchmod, open("f", libc::O_RDONLY, 0)?, 0o600)?;
        same!(stat("f")?.st_mode & 0o7777, 0o600);
        Ok(())
    }

    fn owner_changes [fchownat, fchown] {
        need_root()?;
        let fd = file("f", b"")?;
        sys!(SYS_fchmod, fd, 0o6755)?;
        sys!(SYS_fchownat, HERE, c("f").as_ptr(), 12, 34, 0)?;
        let now = stat("f")?;
        same!((now.st_uid, now.st_gid, now.st_mode & 0o7777), (12, 34, 0o755));
        sys!(SYS_fchown, fd, -1, 56)?;
        same!((stat("f")?.st_uid, stat("f")?.st_gid), (12, 56));
        symlink("f", "l")?;
        sys!(SYS_fchownat, HERE, c("l").as_ptr(), 77, 77, libc::AT_SYMLINK_NOFOLLOW)?;
        same!((stat("f")?.st_uid, stat_at(HERE, "l", libc::AT_SYMLINK_NOFOLLOW)?.st_uid), (12, 77));
        Ok(())
    }

    fn permissions_are_checked [openat, faccessat] {
        sys!(SYS_fchmodat, HERE, c(".").as_ptr(), 0o755)?;
        mkdir("closed", 0o700)?;
        file("closed/f", b"")?;
        file("secret", b"")?;
        sys!(SYS_fchmodat, HERE, c("secret").as_ptr(), 0o640)?;
        file("public", b"")?;
        sys!(SYS_fchmodat, HERE, c("public").as_ptr(), 0o644)?;
        as_nobody(|| {
            refused!(open("secret", libc::O_RDONLY, 0), EACCES);
            refused!(open("public", libc::O_WRONLY, 0), EACCES);
            refused!(open("closed/f", libc::O_RDONLY, 0), EACCES);
            refused!(open("new", libc::O_CREAT | libc::O_WRONLY, 0o600), EACCES);
            refused!(unlink("public", 0), EACCES);
            refused!(sys!(SYS_fchmodat, HERE, c("public").as_ptr(), 0o777), EPERM);
            check!(open("public", libc::O_RDONLY, 0).is_ok());
            let access = |path: &str, mode: i32| sys!(SYS_faccessat, HERE, c(path).as_ptr(), mode);
            check!(access("public", libc::R_OK).is_ok());
            refused!(access("public", libc::W_OK), EACCES);
            refused!(access("secret", libc::R_OK), EACCES);
            refused!(access("none", libc::F_OK), ENOENT);
            Ok(())
        })
    }

    fn sticky_directory_protects [unlinkat, renameat2] {
        sys!(SYS_fchmodat, HERE, c(".").as_ptr(), 0o755)?;
        mkdir("t", 0o777)?;
        sys!(SYS_fchmodat, HERE, c("t").as_ptr(), 0o1777)?;
        file("t/mine", b"")?;
        as_nobody(|| {
            refused!(unlink("t/mine", 0), EPERM);
            refused!(rename("t/mine", "t/yours", 0), EPERM);
            file("t/own", b"")?;
            unlink("t/own", 0)?;
            Ok(())
        })
    }

    fn set_gid_directory_is_inherited [mkdirat, openat] {
        need_root()?;
        mkdir("d", 0o755)?;
        sys!(SYS_fchownat, HERE, c("d").as_ptr(), 0, 99, 0)?;
        sys!(SYS_fchmodat, HERE, c("d").as_ptr(), 0o2755)?;
        mkdir("d/sub", 0o755)?;
        file("d/f", b"")?;
        same!((stat("d/f")?.st_gid, stat("d/sub")?.st_gid), (99, 99));
        check!(stat("d/sub")?.st_mode & libc::S_ISGID != 0);
        Ok(())
    }

    fn trailing_slashes_and_dots [openat, mkdirat] {
        mkdir("d/", 0o755)?;
        file("f", b"")?;
        check!(stat("d/").is_ok() && stat("d/.").is_ok() && stat("./d//../d").is_ok());
        refused!(stat("f/"), ENOTDIR);
        refused!(open("new/", libc::O_CREAT | libc::O_RDWR, 0o600), EISDIR);
        refused!(unlink("f/", 0), ENOTDIR);
        refused!(rename("f", "g/", 0), ENOTDIR);
        same!(stat("/..")?.st_ino, stat("/")?.st_ino);
        Ok(())
    }

    fn file_system_status [statfs, fstatfs] {
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut status: libc::statfs = unsafe { std::mem::zeroed() };
        sys!(SYS_statfs, c(".").as_ptr(), &raw mut status)?;
        check!(status.f_bsize >= 512 && status.f_namelen >= 255);
        sys!(SYS_statfs, c("/proc").as_ptr(), &raw mut status)?;
        same!(status.f_type as i64, 0x9fa0);
        refused!(sys!(SYS_statfs, c("none").as_ptr(), &raw mut status), ENOENT);
        Ok(())
    }

    fn tmpfs_can_be_mounted [mount, umount2] {
        need_root()?;
        mkdir("m", 0o755)?;
        let mount = |data: &str| sys!(SYS_mount, c("t").as_ptr(), c("m").as_ptr(), c("tmpfs").as_ptr(), 0usize, c(data).as_ptr());
        if let Err(linux_abi::Errno::EPERM) = mount("size=1m") {
            return Err(Fail::Skip("may not mount".into()));
        }
        let fd = file("m/f", b"x")?;
        refused!(sys!(SYS_umount2, c("m").as_ptr(), 0), EBUSY);
        refused!(rename("m/f", "f", 0), EXDEV);
        let mut full = Ok(0);
        for _ in 0..300 {
            full = full.and(sys::write(fd, &[1; 8192]));
        }
        refused!(full, ENOSPC);
        sys::close(fd)?;
        sys!(SYS_umount2, c("m").as_ptr(), 0)?;
        refused!(stat("m/f"), ENOENT);
        Ok(())
    }
}
