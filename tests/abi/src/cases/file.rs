//! Files: reading, writing, positions, sizes.

use crate::sys;
use crate::sys::{child, close, file, get, good, open, seek, stat_of, write};
use crate::{cases, check, old, refused, same};

cases! {
    fn file_create_write_read [openat, write, read, lseek] {
        let fd = open("f", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o640)?;
        same!(write(fd, b"hello")?, 5);
        same!(get(fd, 10)?, b"");
        same!(seek(fd, 1, libc::SEEK_SET)?, 1);
        same!(get(fd, 3)?, b"ell");
        same!(stat_of(fd)?.st_mode, libc::S_IFREG | 0o640);
        refused!(open("f", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o640), EEXIST);
        Ok(())
    }

    fn file_append [openat, write] {
        file("f", b"one")?;
        let (a, b) = (open("f", libc::O_RDWR | libc::O_APPEND, 0)?, open("f", libc::O_WRONLY | libc::O_APPEND, 0)?);
        write(a, b"two")?;
        write(b, b"three")?;
        seek(a, 0, libc::SEEK_SET)?;
        write(a, b"four")?;
        same!(std::fs::read("f")?, b"onetwothreefour");
        same!(seek(a, 0, libc::SEEK_CUR)?, 15);
        Ok(())
    }

    fn file_truncate_on_open [openat] {
        let first = file("f", b"long content")?;
        open("f", libc::O_WRONLY | libc::O_TRUNC, 0)?;
        same!(stat_of(first)?.st_size, 0);
        Ok(())
    }

    fn file_truncate_and_grow [ftruncate, truncate] {
        let fd = file("f", b"0123456789")?;
        sys!(SYS_ftruncate, fd, 4i64)?;
        sys!(SYS_ftruncate, fd, 8i64)?;
        same!(get(fd, 100)?, b"0123\0\0\0\0");
        sys!(SYS_truncate, sys::c("f").as_ptr(), 2i64)?;
        same!(stat_of(fd)?.st_size, 2);
        refused!(sys!(SYS_ftruncate, fd, -1i64), EINVAL);
        refused!(sys!(SYS_ftruncate, open("f", libc::O_RDONLY, 0)?, 0i64), EINVAL);
        Ok(())
    }

    fn file_sparse [lseek, write, fstat] {
        let fd = file("f", b"")?;
        seek(fd, 1 << 32, libc::SEEK_SET)?;
        write(fd, b"end")?;
        let stat = stat_of(fd)?;
        same!(stat.st_size, (1 << 32) + 3);
        check!(stat.st_blocks < 1000, "{} blocks", stat.st_blocks);
        seek(fd, 1 << 31, libc::SEEK_SET)?;
        same!(get(fd, 4)?, [0; 4]);
        Ok(())
    }

    fn file_seek_data_and_hole [lseek] {
        let fd = file("f", b"")?;
        sys!(SYS_pwrite64, fd, b"x".as_ptr(), 1usize, 1i64 << 20)?;
        let data = seek(fd, 0, libc::SEEK_DATA)?;
        check!(data <= 1 << 20);
        same!(seek(fd, 1 << 20, libc::SEEK_HOLE)?, (1 << 20) + 1);
        refused!(seek(fd, 1 << 21, libc::SEEK_DATA), ENXIO);
        Ok(())
    }

    fn file_seek_whence [lseek] {
        let fd = file("f", b"0123456789")?;
        same!(seek(fd, -3, libc::SEEK_END)?, 7);
        same!(seek(fd, 2, libc::SEEK_CUR)?, 9);
        refused!(seek(fd, -10, libc::SEEK_CUR), EINVAL);
        refused!(seek(fd, 0, 99), EINVAL);
        same!(seek(fd, 100, libc::SEEK_SET)?, 100);
        same!(get(fd, 1)?, b"");
        Ok(())
    }

    fn file_positioned_io [pread64, pwrite64] {
        let fd = file("f", b"0123456789")?;
        same!(sys!(SYS_pwrite64, fd, b"ab".as_ptr(), 2usize, 4i64)?, 2);
        let mut bytes = [0u8; 4];
        same!(sys!(SYS_pread64, fd, bytes.as_mut_ptr(), 4usize, 3i64)?, 4);
        same!((&bytes, seek(fd, 0, libc::SEEK_CUR)?), (b"3ab6", 0));
        refused!(sys!(SYS_pread64, fd, bytes.as_mut_ptr(), 4usize, -1i64), EINVAL);
        refused!(sys!(SYS_pread64, sys::pipe()?.0, bytes.as_mut_ptr(), 4usize, 0i64), ESPIPE);
        Ok(())
    }

    fn file_scattered_io [readv, writev, preadv, pwritev] {
        let fd = file("f", b"")?;
        let parts: [&[u8]; 3] = [b"ab", b"", b"cdef"];
        let vectors = parts.map(|p| libc::iovec { iov_base: p.as_ptr() as *mut _, iov_len: p.len() });
        same!(sys!(SYS_writev, fd, vectors.as_ptr(), 3)?, 6);
        seek(fd, 0, libc::SEEK_SET)?;
        let (mut one, mut two) = ([0u8; 1], [0u8; 9]);
        let vectors = [
            libc::iovec { iov_base: one.as_mut_ptr().cast(), iov_len: 1 },
            libc::iovec { iov_base: two.as_mut_ptr().cast(), iov_len: 9 },
        ];
        same!(sys!(SYS_readv, fd, vectors.as_ptr(), 2)?, 6);
        same!((&one, &two[..5]), (b"a", &b"bcdef"[..]));
        same!(sys!(SYS_preadv, fd, vectors.as_ptr(), 2, 4usize, 0usize)?, 2);
        same!((&one, &two[..1]), (b"e", &b"f"[..]));
        refused!(sys!(SYS_writev, fd, vectors.as_ptr(), -1), EINVAL);
        refused!(sys!(SYS_writev, fd, vectors.as_ptr(), 1025), EINVAL);
        Ok(())
    }

    fn file_write_at_the_end_of_a_page [write, read] {
        let fd = file("f", b"")?;
        let bytes: Vec<u8> = (0..20_000u32).map(|n| (n % 253) as u8).collect();
        let mut at = 0;
        for size in [1, 4094, 1, 1, 4096, 4097, 5000, 2710] {
            at += write(fd, &bytes[at..at + size])?;
        }
        seek(fd, 0, libc::SEEK_SET)?;
        check!(sys::get_all(fd, 30_000)? == bytes);
        Ok(())
    }

    fn file_size_limit [prlimit64, write] {
        let limit = [1000u64, u64::MAX];
        sys!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, limit.as_ptr(), 0usize)?;
        sys::on(libc::SIGXFSZ, sys::Do::Count, 0)?;
        let fd = file("f", b"")?;
        same!(write(fd, &[1; 1500])?, 1000);
        refused!(write(fd, b"x"), EFBIG);
        same!(sys::came(libc::SIGXFSZ), 1);
        refused!(sys!(SYS_ftruncate, fd, 2000i64), EFBIG);
        Ok(())
    }

    fn file_unlinked_but_open [unlinkat, fstat] {
        let fd = file("f", b"still here")?;
        std::fs::remove_file("f")?;
        refused!(open("f", libc::O_RDONLY, 0), ENOENT);
        same!(get(fd, 20)?, b"still here");
        same!(stat_of(fd)?.st_nlink, 0);
        write(fd, b"!")?;
        Ok(())
    }

    fn file_times_change [fstat, write, utimensat] {
        let fd = file("f", b"x")?;
        let times = [libc::timespec { tv_sec: 1000, tv_nsec: 5 }, libc::timespec { tv_sec: 2000, tv_nsec: 6 }];
        sys!(SYS_utimensat, fd, 0usize, times.as_ptr(), 0)?;
        let stat = stat_of(fd)?;
        same!((stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec), (1000, 5, 2000, 6));
        write(fd, b"y")?;
        check!(stat_of(fd)?.st_mtime > 1_000_000);
        let keep = [libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT }, libc::timespec { tv_sec: 7, tv_nsec: 0 }];
        sys!(SYS_utimensat, libc::AT_FDCWD, sys::c("f").as_ptr(), keep.as_ptr(), 0)?;
        same!((stat_of(fd)?.st_atime, stat_of(fd)?.st_mtime), (1000, 7));
        Ok(())
    }

    fn file_stat_fields [fstat, newfstatat] {
        let fd = file("f", &[1; 5000])?;
        let (stat, by_name) = (stat_of(fd)?, sys::stat("f")?);
        same!((stat.st_ino, stat.st_dev, stat.st_size), (by_name.st_ino, by_name.st_dev, 5000));
        same!((stat.st_nlink, stat.st_uid), (1, sys!(SYS_geteuid)? as u32));
        check!(stat.st_blocks >= 8 && stat.st_blksize >= 512);
        let other = file("g", b"")?;
        check!(stat_of(other)?.st_ino != stat.st_ino);
        Ok(())
    }

    fn file_statx [statx] {
        file("f", b"12345")?;
        let mut stat = linux_abi::structs::Statx::default();
        let basic = linux_abi::common::general::STATX_BASIC_STATS;
        sys!(SYS_statx, libc::AT_FDCWD, sys::c("f").as_ptr(), 0, basic, &raw mut stat)?;
        same!((stat.size, stat.nlink, stat.mode), (5, 1, (libc::S_IFREG | 0o644) as u16));
        same!(stat.mask & basic, basic);
        same!(stat.ino, sys::stat("f")?.st_ino);
        refused!(sys!(SYS_statx, libc::AT_FDCWD, sys::c("g").as_ptr(), 0, 0, &raw mut stat), ENOENT);
        Ok(())
    }

    fn file_copy_in_the_kernel [sendfile, copy_file_range] {
        let (from, to) = (file("f", b"0123456789")?, open("g", libc::O_RDWR | libc::O_CREAT, 0o600)?);
        let mut offset = 3i64;
        same!(old!(Sendfile, to, from, &raw mut offset, 4usize)?, 4);
        same!((offset, std::fs::read("g")?), (7, b"3456".to_vec()));
        let (reader, writer) = sys::pipe()?;
        same!(old!(Sendfile, writer, from, 0usize, 100usize)?, 10);
        same!(get(reader, 20)?, b"0123456789");
        let mut start = 0i64;
        same!(sys!(SYS_copy_file_range, from, &raw mut start, to, 0usize, 2usize, 0)?, 2);
        same!(std::fs::read("g")?, b"345601");
        Ok(())
    }

    fn file_allocate [fallocate] {
        let fd = file("f", b"abc")?;
        sys!(SYS_fallocate, fd, 0, 0i64, 10_000i64)?;
        same!(stat_of(fd)?.st_size, 10_000);
        sys!(SYS_fallocate, fd, libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE, 1i64, 1i64)?;
        same!(get(fd, 3)?, b"a\0c");
        Ok(())
    }

    fn file_read_a_directory_is_refused [read, openat, write] {
        let fd = open(".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        refused!(get(fd, 10), EISDIR);
        refused!(open(".", libc::O_WRONLY, 0), EISDIR);
        file("f", b"")?;
        refused!(open("f", libc::O_RDONLY | libc::O_DIRECTORY, 0), ENOTDIR);
        refused!(open("f/x", libc::O_RDONLY, 0), ENOTDIR);
        refused!(open("", libc::O_RDONLY, 0), ENOENT);
        refused!(open(&"x".repeat(256), libc::O_RDONLY, 0), ENAMETOOLONG);
        refused!(open(&"x/".repeat(2048), libc::O_RDONLY, 0), ENAMETOOLONG);
        Ok(())
    }

    fn file_tmpfile [openat, linkat] {
        let fd = open(".", libc::O_RDWR | libc::O_TMPFILE, 0o600)?;
        write(fd, b"no name")?;
        same!(stat_of(fd)?.st_nlink, 0);
        let path = format!("/proc/self/fd/{fd}");
        sys!(SYS_linkat, libc::AT_FDCWD, sys::c(&path).as_ptr(), libc::AT_FDCWD, sys::c("named").as_ptr(), libc::AT_SYMLINK_FOLLOW)?;
        same!(std::fs::read("named")?, b"no name");
        Ok(())
    }

    fn file_path_descriptor [openat] {
        file("f", b"data")?;
        let fd = open("f", libc::O_PATH, 0)?;
        refused!(get(fd, 1), EBADF);
        same!(stat_of(fd)?.st_size, 4);
        let again = open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY, 0)?;
        same!(get(again, 10)?, b"data");
        Ok(())
    }

    fn memfd_is_a_file [memfd_create, ftruncate] {
        let fd = sys!(SYS_memfd_create, sys::c("name").as_ptr(), libc::MFD_ALLOW_SEALING)? as i32;
        write(fd, b"memory")?;
        sys!(SYS_ftruncate, fd, 3i64)?;
        seek(fd, 0, libc::SEEK_SET)?;
        same!(get(fd, 10)?, b"mem");
        sys::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE.into())?;
        refused!(write(fd, b"x"), EPERM);
        Ok(())
    }

    fn device_null_zero_full [openat, read, write] {
        let null = open("/dev/null", libc::O_RDWR, 0)?;
        same!((write(null, b"gone")?, get(null, 10)?), (4, vec![]));
        let zero = open("/dev/zero", libc::O_RDWR, 0)?;
        same!(get(zero, 5)?, [0; 5]);
        let full = open("/dev/full", libc::O_RDWR, 0)?;
        refused!(write(full, b"x"), ENOSPC);
        same!(get(full, 2)?, [0; 2]);
        same!(sys::stat("/dev/null")?.st_rdev, libc::makedev(1, 3));
        Ok(())
    }

    fn device_random_differs [getrandom, openat, read] {
        let fd = open("/dev/urandom", libc::O_RDONLY, 0)?;
        let (a, b) = (get(fd, 32)?, get(fd, 32)?);
        check!(a != b && a.len() == 32);
        let mut bytes = [0u8; 64];
        same!(sys!(SYS_getrandom, bytes.as_mut_ptr(), 64usize, 0)?, 64);
        check!(bytes != [0; 64]);
        refused!(sys!(SYS_getrandom, bytes.as_mut_ptr(), 1usize, 0x100), EINVAL);
        Ok(())
    }

    fn file_two_writers_append_whole [write] {
        file("f", b"")?;
        let writers = [b'a', b'b'].map(|letter| {
            child(|| {
                let fd = open("f", libc::O_WRONLY | libc::O_APPEND, 0)?;
                for _ in 0..200 {
                    write(fd, &[letter; 100])?;
                }
                close(fd)?;
                Ok(())
            })
        });
        for writer in writers {
            good(writer?)?;
        }
        let bytes = std::fs::read("f")?;
        same!(bytes.len(), 40_000);
        check!(bytes.chunks(100).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0])));
        Ok(())
    }

    fn file_sync_calls [fsync, fdatasync, sync] {
        let fd = file("f", b"x")?;
        sys!(SYS_fsync, fd)?;
        sys!(SYS_fdatasync, fd)?;
        sys!(SYS_sync)?;
        refused!(sys!(SYS_fsync, sys::pipe()?.0), EINVAL);
        refused!(sys!(SYS_fsync, 999), EBADF);
        Ok(())
    }
}
