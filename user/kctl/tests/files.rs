//! The program against a directory that looks like procfs.

use std::path::PathBuf;
use std::process::{Command, Output};

const KERNELS: &str = "\
id incarnation isa cpus memory_bytes state uptime_ms here
0 1 x86_64 0-1 268435456 up 61500 1
1 3 aarch64 2 134217728 dead - 0
";
const LINKS: &str = "\
from to transport state messages bytes doorbells polls delayed rtt_ns
0 1 shm+ipi down 1000 64000 7 11 3 900
";
const LANES: &str = "\
from to lane sent sent_bytes received received_bytes depth_bytes waiting answered p50_ns p99_ns p999_ns
0 1 control 10 640 9 576 0 0 0 - - -
0 1 request 990 63360 0 0 4096 2 980 900 20000 300000
0 2 request 1 64 0 0 0 0 0 - - -
";
const RESOURCES: &str = "\
kind name owner access holder
cpu 0 0 direct -
device ttyS0 0 proxied -
device cdrom - leased 1
";

/// A procfs of our own.
struct Proc(PathBuf);

impl Proc {
    fn new(name: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(root.join("cob")).unwrap();
        std::fs::create_dir_all(root.join("self/cob")).unwrap();
        for (file, text) in [
            ("cob/kernels", KERNELS),
            ("cob/links", LINKS),
            ("cob/lanes", LANES),
            ("cob/resources", RESOURCES),
            ("cob/control", ""),
            ("self/cob/placement", ""),
        ] {
            std::fs::write(root.join(file), text).unwrap();
        }
        Self(root)
    }

    fn kctl(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kctl")).env("KCTL_PROC", &self.0).args(words).output().unwrap()
    }

    fn text(&self, words: &[&str]) -> String {
        let output = self.kctl(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.text(words)).unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }
}

#[test]
fn kernels_for_people_and_programs() {
    let proc = Proc::new("kernels");
    assert_eq!(
        proc.text(&["kernels"]),
        "ID  ISA      CPUS   MEMORY  STATE    UPTIME\n \
         0  x86_64   0-1   256 MiB  up     1:01 min  *\n \
         1  aarch64  2     128 MiB  dead          -\n"
    );
    let json = proc.json(&["kernels", "--json"]);
    assert_eq!(json[0]["cpus"], serde_json::json!([0, 1]));
    assert_eq!(json[0]["uptime"], 61.5);
    assert_eq!(json[1]["memory_bytes"], 134_217_728);
    assert_eq!((&json[1]["id"], &json[1]["isa"], &json[1]["state"]), (&1.into(), &"aarch64".into(), &"dead".into()));
    assert!(json[1]["uptime"].is_null());
}

#[test]
fn links_resources_topo() {
    let proc = Proc::new("others");
    assert!(proc.text(&["links"]).contains("shm+ipi    down       1000  64000          7     11        3  900 ns"));
    let lanes = proc.text(&["links", "--lanes"]);
    assert_eq!(lanes.lines().count(), 3, "{lanes}");
    assert!(
        lanes.contains("request   990  63360         0      0   4096        2       980  900 ns  20.0 µs  300.0 µs"),
        "{lanes}"
    );
    let json = proc.json(&["links", "--json"]);
    assert_eq!((&json[0]["polls"], &json[0]["lanes"][1]["p99_ns"]), (&11.into(), &20000.into()));
    assert!(json[0]["lanes"][0]["p50_ns"].is_null());
    assert_eq!(proc.json(&["resources", "--json"])[2]["holder"], 1);
    assert_eq!(
        proc.text(&["topo"]),
        "2 kernels, 3 CPUs, 384 MiB\n\
         ├─ kernel 0: up, x86_64, CPU 0-1, 256 MiB, here\n\
         │  └─ to 1: shm+ipi (down), 900 ns\n\
         └─ kernel 1: dead, aarch64, CPU 2, 128 MiB\n"
    );
    assert_eq!(proc.json(&["topo", "--json"])["links"][0]["doorbells"], 7);
}

#[test]
fn commands_are_single_writes() {
    let proc = Proc::new("control");
    for (words, want) in [
        (&["boot", "1"][..], "boot 1\n"),
        (&["stop", "1"], "stop 1\n"),
        (&["crash", "1", "--yes"], "crash 1\n"),
        (&["hang", "1", "--yes"], "hang 1\n"),
    ] {
        std::fs::write(proc.0.join("cob/control"), "").unwrap();
        proc.text(words);
        assert_eq!(proc.file("cob/control"), want);
    }
}

#[test]
fn run_places_and_becomes_the_command() {
    let proc = Proc::new("run");
    let output = proc.kctl(&["run", "-k", "1", "sh", "-c", "echo $0; exit 5", "x y"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), &b"x y\n"[..]));
    assert_eq!(proc.file("self/cob/placement"), "1\n");
    assert_eq!(proc.kctl(&["run", "-k", "1", "/no/such/program"]).status.code(), Some(127));
    std::fs::remove_file(proc.0.join("self/cob/placement")).unwrap();
    assert_eq!(proc.kctl(&["run", "-k", "1", "true"]).status.code(), Some(126));
}

#[test]
fn plans_are_checked() {
    let proc = Proc::new("plans");
    let bad = proc.0.join("bad.toml");
    std::fs::write(&bad, "nonsense = 1\n").unwrap();
    let output = proc.kctl(&["plan", "check", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.toml: line "));
    let output = proc.kctl(&["plan", "check", "--json", bad.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
}

#[test]
fn failures_are_told() {
    let proc = Proc::new("failures");
    std::fs::write(proc.0.join("cob/kernels"), "id\n").unwrap();
    std::fs::remove_file(proc.0.join("cob/links")).unwrap();
    assert_eq!(proc.kctl(&["kernels"]).stdout, b"ID  ISA  CPUS  MEMORY  STATE  UPTIME\n");
    let output = proc.kctl(&["links"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cob/links: No such file"));
    assert_eq!(proc.kctl(&["bot", "1"]).status.code(), Some(2));
}
