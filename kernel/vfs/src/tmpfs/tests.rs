use std::{collections::BTreeMap, string::String, vec::Vec};

use base::{Errno, Try};
use proptest::prelude::{Strategy, any, prop_oneof};

use super::archive;
use crate::{
    Caller, FileKind, Follow, NewNode, OpenFile, OpenFlags, RenameFlags, SetAttr, Status, Walk,
    testing::{contents, user, walk, with_tree},
};

const RW: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

fn make(w: &Walk<'_>, path: &str) -> base::Result<std::sync::Arc<dyn OpenFile>> {
    w.open(path.as_bytes(), RW | OpenFlags::CREATE, Status::empty(), 0o644)
}

fn put(w: &Walk<'_>, path: &str, text: &str) {
    let file = make(w, path).expect("made");
    let wrote = file.write(w.caller, &mut text.as_bytes()).expect("written");
    assert!(matches!(wrote, Try::Done(n) if n == text.len()));
}

fn get(w: &Walk<'_>, path: &str) -> base::Result<String> {
    let file = w.open(path.as_bytes(), OpenFlags::READ, Status::empty(), 0)?;
    Ok(String::from_utf8(contents(&*file)).expect("text"))
}

fn names(w: &Walk<'_>, path: &str) -> Vec<String> {
    let file = w.open(path.as_bytes(), OpenFlags::READ, Status::empty(), 0).expect("a directory");
    let mut entries: Vec<crate::Entry> = Vec::new();
    assert!(matches!(file.read_dir(&mut entries), Ok(Try::Done(_))));
    entries.into_iter().map(|e| String::from_utf8(e.name).expect("text")).filter(|n| n != "." && n != "..").collect()
}

#[test]
fn paths_are_resolved_as_on_linux() {
    with_tree(|vfs| {
        let root = Caller::kernel();
        let w = walk(vfs, &root);
        w.create(b"/a", NewNode::Directory, 0o755).expect("mkdir");
        w.create(b"/a/b/", NewNode::Directory, 0o755).expect("a slash after a directory is fine");
        put(&w, "/a/b/f", "text");
        assert_eq!(get(&w, "//a/./b/../b//f").expect("found"), "text");
        assert_eq!(get(&w, "/../../a/b/f").expect("above the root is the root"), "text");
        assert_eq!(get(&w, "/a/b/f/").unwrap_err(), Errno::ENOTDIR);
        assert_eq!(get(&w, "/a/b/f/.").unwrap_err(), Errno::ENOTDIR);
        assert_eq!(get(&w, "/a/x/f").unwrap_err(), Errno::ENOENT);
        assert_eq!(get(&w, "").unwrap_err(), Errno::ENOENT);
        assert_eq!(get(&w, &"x".repeat(256)).unwrap_err(), Errno::ENAMETOOLONG);
        w.create(b"/l", NewNode::Symlink(b"a/b".to_vec()), 0).expect("symlink");
        w.create(b"/m", NewNode::Symlink(b"/l/f".to_vec()), 0).expect("symlink");
        w.create(b"/loop", NewNode::Symlink(b"loop".to_vec()), 0).expect("symlink");
        assert_eq!(get(&w, "/m").expect("through two links"), "text");
        assert_eq!(get(&w, "/loop").unwrap_err(), Errno::ELOOP);
        assert_eq!(w.find(b"/l", Follow::No).expect("the link").kind(), FileKind::Symlink);
        assert_eq!(w.find(b"/l/", Follow::No).expect("a slash follows").kind(), FileKind::Directory);
        put(&w, "/n", "");
        w.create(b"/dangling", NewNode::Symlink(b"a/new".to_vec()), 0).expect("symlink");
        put(&w, "/dangling", "made through a link");
        assert_eq!(get(&w, "/a/new").expect("there"), "made through a link");
        let exclusive = RW | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
        assert_eq!(w.open(b"/dangling", exclusive, Status::empty(), 0o600).err().expect("taken"), Errno::EEXIST);
        assert_eq!(w.open(b"/a", RW, Status::empty(), 0).err().expect("a directory"), Errno::EISDIR);
        assert_eq!(make(&w, "/a/").err().expect("a directory"), Errno::EISDIR);
        assert_eq!(w.create(b"/a", NewNode::Directory, 0o755).unwrap_err(), Errno::EEXIST);
        assert_eq!(w.create(b"/", NewNode::Directory, 0o755).unwrap_err(), Errno::EEXIST);
    });
}

#[test]
fn the_working_directory_follows_renames() {
    with_tree(|vfs| {
        let root = Caller::kernel();
        let w = walk(vfs, &root);
        for dir in ["/a", "/a/b", "/a/b/c", "/z"] {
            w.create(dir.as_bytes(), NewNode::Directory, 0o755).expect("mkdir");
        }
        let cwd = w.find(b"/a/b/c", Follow::Yes).expect("found");
        w.rename(b"/a/b", &w, b"/z/y", RenameFlags::empty()).expect("rename");
        assert_eq!(cwd.path(None), (b"/z/y/c".to_vec(), true));
        assert_eq!(w.rename(b"/z", &w, b"/z/y/c/d", RenameFlags::empty()).unwrap_err(), Errno::EINVAL);
        assert_eq!(w.unlink(b"/z", true).unwrap_err(), Errno::ENOTEMPTY);
        assert_eq!(w.unlink(b"/z", false).unwrap_err(), Errno::EISDIR);
        w.unlink(b"/z/y/c", true).expect("rmdir");
        assert!(cwd.node.is_gone());
        let inside = Walk { start: cwd, root: w.root.clone(), ..walk(vfs, &root) };
        assert_eq!(make(&inside, "new").err().expect("removed"), Errno::ENOENT);
    });
}

#[test]
fn permissions_and_sticky_directories() {
    with_tree(|vfs| {
        let (root, alice, bob) = (Caller::kernel(), user(1), user(2));
        let (r, a, b) = (walk(vfs, &root), walk(vfs, &alice), walk(vfs, &bob));
        r.create(b"/tmp", NewNode::Directory, 0o1777).expect("mkdir");
        assert_eq!(make(&a, "/mine").err().expect("not in /"), Errno::EACCES);
        put(&a, "/tmp/f", "alice");
        assert_eq!(get(&b, "/tmp/f").expect("readable"), "alice");
        assert_eq!(b.open(b"/tmp/f", RW, Status::empty(), 0).err().expect("0644"), Errno::EACCES);
        assert_eq!(b.unlink(b"/tmp/f", false).unwrap_err(), Errno::EPERM);
        assert_eq!(b.rename(b"/tmp/f", &b, b"/tmp/g", RenameFlags::empty()).unwrap_err(), Errno::EPERM);
        let place = a.find(b"/tmp/f", Follow::Yes).expect("found");
        let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        assert_eq!(place.inode().set_attr(&bob, mode).unwrap_err(), Errno::EPERM);
        assert!(place.inode().set_attr(&alice, mode).is_ok());
        assert_eq!(get(&b, "/tmp/f").unwrap_err(), Errno::EACCES);
        r.create(b"/closed", NewNode::Directory, 0o700).expect("mkdir");
        put(&r, "/closed/f", "");
        assert!(get(&r, "/closed/f").is_ok());
        assert_eq!(get(&b, "/closed/f").unwrap_err(), Errno::EACCES, "though the name is known by now");
        assert_eq!(b.find(b"/closed/..", Follow::Yes).unwrap_err(), Errno::EACCES);
    });
}

#[test]
fn mounts_are_crossed_both_ways() {
    with_tree(|vfs| {
        let root = Caller::kernel();
        let w = walk(vfs, &root);
        vfs.add_type(std::sync::Arc::new(super::TmpfsType("tmpfs")));
        w.create(b"/mnt", NewNode::Directory, 0o755).expect("mkdir");
        put(&w, "/mnt/below", "");
        let at = w.find(b"/mnt", Follow::Yes).expect("found");
        vfs.mount(&root, at, "none", "tmpfs", "mode=700,size=1m", crate::place::MountFlags::empty()).expect("mount");
        assert_eq!(get(&w, "/mnt/below").unwrap_err(), Errno::ENOENT);
        put(&w, "/mnt/f", "on it");
        assert_eq!(get(&w, "/mnt/../mnt/f").expect("up and down"), "on it");
        let place = w.find(b"/mnt/f", Follow::Yes).expect("found");
        assert_eq!(place.path(None), (b"/mnt/f".to_vec(), true));
        assert_eq!(w.rename(b"/mnt/f", &w, b"/f", RenameFlags::empty()).unwrap_err(), Errno::EXDEV);
        assert_eq!(w.unlink(b"/mnt", true).unwrap_err(), Errno::EBUSY);
        let at = w.find(b"/mnt", Follow::Yes).expect("found");
        assert_eq!(vfs.unmount(&root, at, false).unwrap_err(), Errno::EBUSY, "a place in it is held");
        drop(place);
        let at = w.find(b"/mnt", Follow::Yes).expect("found");
        vfs.unmount(&root, at, false).expect("unmount");
        assert!(get(&w, "/mnt/below").is_ok());
    });
}

#[test]
fn open_files_say_what_they_are() {
    with_tree(|vfs| {
        let root = Caller::kernel();
        let w = walk(vfs, &root);
        let (reader, _writer) = crate::pipe::Pipe::pair(vfs, &root, Status::empty());
        assert!(reader.describe().starts_with("pipe:["), "{}", reader.describe());
        w.create(b"/d", NewNode::Directory, 0o755).expect("mkdir");
        put(&w, "/d/f", "");
        let file = w.open(b"/d/f", OpenFlags::READ, Status::empty(), 0).expect("open");
        assert_eq!(file.describe(), "/d/f");
        w.rename(b"/d/f", &w, b"/g", RenameFlags::empty()).expect("rename");
        assert_eq!(file.describe(), "/g");
        w.unlink(b"/g", false).expect("unlink");
        assert_eq!(file.describe(), "/g (deleted)");
        let dir = w.open(b"/", OpenFlags::READ, Status::empty(), 0).expect("open");
        assert_eq!(dir.describe(), "/");
        let label = crate::event::EventFd::open(vfs, &root, 0, false, Status::empty()).describe();
        assert_eq!(label, "anon_inode:[eventfd]");
    });
}

#[test]
fn links_sizes_and_unlinked_files() {
    with_tree(|vfs| {
        let root = Caller::kernel();
        let w = walk(vfs, &root);
        put(&w, "/f", "0123456789");
        let place = w.find(b"/f", Follow::Yes).expect("found");
        w.link(&place, b"/g").expect("link");
        let file = w.open(b"/g", RW, Status::empty(), 0).expect("open");
        w.unlink(b"/f", false).expect("unlink");
        w.unlink(b"/g", false).expect("unlink");
        assert!(matches!(file.stat(), Ok(Try::Done(s)) if s.links == 0 && s.size == 10));
        let cut = SetAttr { size: Some(3), ..SetAttr::default() };
        assert!(file.set_attr(&root, cut).is_ok());
        assert!(file.set_attr(&root, SetAttr { size: Some(6), ..cut }).is_ok());
        assert_eq!(contents(&*file), b"012\0\0\0");
        let append = w.open(b"/log", RW | OpenFlags::CREATE, Status::APPEND, 0o600).expect("open");
        for line in ["one\n", "two\n"] {
            assert!(append.seek(crate::SeekFrom::Start(0)).is_ok());
            assert!(append.write(&root, &mut line.as_bytes()).is_ok());
        }
        assert_eq!(contents(&*append), b"one\ntwo\n");
    });
}

#[test]
fn what_is_removed_through_the_inode_is_not_kept_by_its_name() {
    with_tree(|vfs| {
        let root = Caller::kernel();
        let w = walk(vfs, &root);
        let top = w.find(b"/", Follow::Yes).expect("found").inode().clone();
        let mut files = Vec::new();
        for name in ["used", "unused"] {
            put(&w, name, "text");
            let place = w.find(name.as_bytes(), Follow::Yes).expect("found");
            files.push((std::sync::Arc::downgrade(place.inode()), (name == "used").then_some(place)));
            // As another kernel does it: past the names that this one has looked up.
            assert!(top.unlink(&root, name.as_bytes(), false).is_ok());
        }
        put(&w, "other", "text");
        assert!(w.find(b"other", Follow::Yes).is_ok());
        assert!(files[0].0.upgrade().is_some() && files[1].0.upgrade().is_none());
    });
}

/// A cpio entry as `cpio -H newc` writes it.
fn entry(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut out = std::format!(
        "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
        name.len(),
        0,
        0,
        1,
        1_600_000_000,
        content.len(),
        0,
        0,
        0,
        0,
        name.len() + 1,
        0
    )
    .into_bytes();
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

#[test]
fn the_archive_is_the_base_tree() {
    let big: Vec<u8> = (0..10_000_u32).map(|i| i as u8).collect();
    let parts = [
        entry(".", 0o40755, b""),
        entry("bin", 0o40755, b""),
        entry("bin/tool", 0o100_755, &big),
        entry("bin/link", 0o120_777, b"tool"),
        entry("etc/deep/motd", 0o100_644, b"hello"),
        entry("TRAILER!!!", 0, b""),
    ];
    let archive: &'static [u8] = Vec::leak(parts.concat());
    with_tree(|vfs| {
        let root = Caller::kernel();
        let base = archive::load(vfs, archive).expect("an archive");
        let w = walk(vfs, &root);
        w.create(b"/base", NewNode::Directory, 0o755).expect("mkdir");
        let at = w.find(b"/base", Follow::Yes).expect("found");
        vfs.attach(at, base, "archive", "rootfs", "", crate::place::MountFlags::empty());
        let file = w.open(b"/base/bin/link", OpenFlags::READ, Status::empty(), 0).expect("open");
        assert_eq!(contents(&*file), big);
        assert_eq!(get(&w, "/base/etc/deep/motd").expect("there"), "hello");
        let file = w.open(b"/base/bin/tool", RW, Status::empty(), 0).expect("open");
        assert!(file.write_at(&root, 5000, &mut &b"changed"[..]).is_ok());
        let mut now = big.clone();
        now[5000..5007].copy_from_slice(b"changed");
        assert_eq!(contents(&*file), now, "the archive stays as it is, the file does not");
        w.unlink(b"/base/etc/deep/motd", false).expect("unlink");
        assert_eq!(get(&w, "/base/etc/deep/motd").unwrap_err(), Errno::ENOENT);
        let run = w.open(b"/base/bin/link", OpenFlags::READ | OpenFlags::EXECUTE, Status::empty(), 0);
        assert_eq!(run.err().expect("open for writing"), Errno::ETXTBSY);
    });
}

#[derive(Clone, Debug)]
enum Op {
    Create(u8, u8),
    Mkdir(u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (any::<u8>(), any::<u8>()).prop_map(|(d, n)| Op::Create(d % 3, n % 4)),
        (any::<u8>(), any::<u8>()).prop_map(|(d, n)| Op::Mkdir(d % 3, n % 4)),
        (any::<u8>(), any::<u8>()).prop_map(|(d, n)| Op::Unlink(d % 3, n % 4)),
        (any::<u8>(), any::<u8>()).prop_map(|(d, n)| Op::Rmdir(d % 3, n % 4)),
        (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(a, b, c, d)| Op::Rename(
            a % 3,
            b % 4,
            c % 3,
            d % 4
        )),
    ]
}

/// Three directories of four names; `true` is an (empty) directory.
type Model = BTreeMap<(u8, u8), bool>;

fn path(dir: u8, name: u8) -> String {
    std::format!("/d{dir}/n{name}")
}

fn expect(model: &mut Model, op: &Op) -> Result<(), Errno> {
    match *op {
        Op::Create(d, n) => match model.get(&(d, n)) {
            Some(true) => return Err(Errno::EISDIR),
            _ => drop(model.insert((d, n), false)),
        },
        Op::Mkdir(d, n) => {
            if model.contains_key(&(d, n)) {
                return Err(Errno::EEXIST);
            }
            model.insert((d, n), true);
        }
        Op::Unlink(d, n) => match model.get(&(d, n)) {
            None => return Err(Errno::ENOENT),
            Some(true) => return Err(Errno::EISDIR),
            Some(false) => drop(model.remove(&(d, n))),
        },
        Op::Rmdir(d, n) => match model.get(&(d, n)) {
            None => return Err(Errno::ENOENT),
            Some(false) => return Err(Errno::ENOTDIR),
            Some(true) => drop(model.remove(&(d, n))),
        },
        Op::Rename(a, b, c, d) => {
            let from = *model.get(&(a, b)).ok_or(Errno::ENOENT)?;
            if (a, b) == (c, d) {
                return Ok(());
            }
            match (from, model.get(&(c, d))) {
                (true, Some(false)) => return Err(Errno::ENOTDIR),
                (false, Some(true)) => return Err(Errno::EISDIR),
                _ => {}
            }
            model.remove(&(a, b));
            model.insert((c, d), from);
        }
    }
    Ok(())
}

proptest::proptest! {
    // Each case is a machine of its own.
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    #[test]
    fn names_behave_like_a_map(ops in proptest::collection::vec(op(), 1..80)) {
        with_tree(|vfs| {
            let root = Caller::kernel();
            let w = walk(vfs, &root);
            for d in 0..3 {
                w.create(std::format!("/d{d}").as_bytes(), NewNode::Directory, 0o755).expect("mkdir");
            }
            let mut model = Model::new();
            for op in &ops {
                let got = match *op {
                    Op::Create(d, n) => make(&w, &path(d, n)).map(|_| ()),
                    Op::Mkdir(d, n) => w.create(path(d, n).as_bytes(), NewNode::Directory, 0o755).map(|_| ()),
                    Op::Unlink(d, n) => w.unlink(path(d, n).as_bytes(), false),
                    Op::Rmdir(d, n) => w.unlink(path(d, n).as_bytes(), true),
                    Op::Rename(a, b, c, d) => {
                        w.rename(path(a, b).as_bytes(), &w, path(c, d).as_bytes(), RenameFlags::empty())
                    }
                };
                assert_eq!(got.map_err(|e| e.errno()).err(), expect(&mut model, op).err(), "{op:?}");
                for d in 0..3 {
                    let mut there = names(&w, &std::format!("/d{d}"));
                    there.sort();
                    let want: Vec<String> =
                        model.keys().filter(|(dir, _)| *dir == d).map(|(_, n)| std::format!("n{n}")).collect();
                    assert_eq!(there, want);
                    let dirs = model.iter().filter(|((dir, _), is)| *dir == d && **is).count() as u32;
                    let place = w.find(std::format!("/d{d}").as_bytes(), Follow::Yes).expect("there");
                    assert!(matches!(place.inode().stat(), Ok(Try::Done(s)) if s.links == 2 + dirs));
                }
                for ((d, n), is) in &model {
                    let kind = w.find(path(*d, *n).as_bytes(), Follow::No).expect("there").kind();
                    assert_eq!(kind == FileKind::Directory, *is);
                }
            }
        });
    }
}
