//! Which program a name means on a kernel of another ISA: the programs of every ISA are in `/usr/TRIPLET`, as Debian names ISAs, and those of the ISA of
//! the machine's first board have the plain names too.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use plan::Isa;

/// Folders whose programs have a twin of every ISA.
const PLAIN: [&str; 4] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin"];

/// The folders with programs of an ISA.
fn folders(isa: Isa) -> [PathBuf; 2] {
    ["bin", "sbin"].map(|folder| Path::new("/usr").join(isa.triplet()).join(folder))
}

/// Whether programs of several ISAs are there.
pub fn is_mixed() -> bool {
    Isa::ALL.into_iter().filter(|isa| folders(*isa)[0].is_dir()).count() > 1
}

/// The search path for an ISA: its own programs first, those of others only by what else was in the path.
pub fn search_path(isa: &str, path: &OsStr) -> OsString {
    let Some(isa) = Isa::from_name(isa) else { return path.to_owned() };
    let own = folders(isa);
    let of_some_isa: Vec<PathBuf> = Isa::ALL.into_iter().flat_map(folders).collect();
    let rest = std::env::split_paths(path).filter(|folder| !of_some_isa.contains(folder));
    // A folder with a colon in its name cannot be in a path.
    std::env::join_paths(own.into_iter().chain(rest)).unwrap_or_else(|_| path.to_owned())
}

/// The twin of a program in one of the plain folders, if there is one.
pub fn twin(isa: &str, program: &OsStr, exists: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let path = Path::new(program);
    let folder = path.parent()?;
    if !PLAIN.iter().any(|plain| Path::new(plain) == folder) {
        return None;
    }
    folders(Isa::from_name(isa)?)
        .into_iter()
        .map(|own| own.join(path.file_name().unwrap_or_default()))
        .find(|own| exists(own))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::{Path, PathBuf};

    use super::{search_path, twin};

    #[test]
    fn programs_of_the_isa_come_first_and_those_of_others_go() {
        let path = search_path("riscv64", OsStr::new("/usr/aarch64-linux-gnu/bin:/bin:/root/bin"));
        assert_eq!(path, OsStr::new("/usr/riscv64-linux-gnu/bin:/usr/riscv64-linux-gnu/sbin:/bin:/root/bin"));
        assert_eq!(search_path("vax", OsStr::new("/bin")), OsStr::new("/bin"));
    }

    #[test]
    fn plain_names_have_twins_and_others_mean_themselves() {
        let there = |path: &Path| path == Path::new("/usr/aarch64-linux-gnu/bin/sh");
        assert_eq!(twin("aarch64", OsStr::new("/bin/sh"), there), Some(PathBuf::from("/usr/aarch64-linux-gnu/bin/sh")));
        assert_eq!(twin("aarch64", OsStr::new("/bin/vi"), there), None);
        assert_eq!(twin("aarch64", OsStr::new("/root/sh"), there), None);
        assert_eq!(twin("aarch64", OsStr::new("sh"), there), None);
    }
}
