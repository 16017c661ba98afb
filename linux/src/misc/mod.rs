//! What is left: names, entropy, power.

use alloc::string::String;

use base::{Errno, Error, Result};
use linux_abi::structs::{Sysinfo, Utsname};
use task::{Cx, Interrupted, creds::cap, kernel::Power, load::MemoryLoad};
use zerocopy::FromZeros;

/// What programs that look for features by version find: the calls in the table are those of this release or older.
const RELEASE: &[u8] = b"6.6.0-cob";

/// uname(2).
pub fn uname(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let names = cx.kernel().names.lock().clone();
    let facts = &cx.kernel().facts;
    let uts = Utsname {
        // Programs are Linux programs, and this is what they look for.
        sysname: Utsname::field(b"Linux"),
        nodename: Utsname::field(names.host.as_bytes()),
        release: Utsname::field(RELEASE),
        version: Utsname::field(facts.version.as_bytes()),
        machine: Utsname::field(facts.isa.name().as_bytes()),
        domainname: Utsname::field(names.domain.as_bytes()),
    };
    cx.user(|u| u.write_struct(args[0], &uts))?;
    Ok(0)
}

fn new_name(cx: &Cx, args: [u64; 6]) -> Result<String> {
    if !cx.process().creds().can(cap::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    if args[1] > 64 {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = alloc::vec![0; args[1] as usize];
    cx.user(|u| u.read(args[0], &mut bytes))?;
    String::from_utf8(bytes).map_err(|_| Error::new(Errno::EINVAL, "a host name in UTF-8"))
}

/// sethostname(2).
pub fn sethostname(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let name = new_name(cx, args)?;
    cx.kernel().names.lock().host = name;
    Ok(0)
}

/// setdomainname(2).
pub fn setdomainname(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let name = new_name(cx, args)?;
    cx.kernel().names.lock().domain = name;
    Ok(0)
}

/// sysinfo(2).
pub fn sysinfo(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let loads = cx.settle(cx.kernel().loads(), Interrupted::Killed)?;
    let total = |f: fn(&MemoryLoad) -> u64| loads.iter().map(|l| f(&l.memory)).sum::<u64>();
    let mut info = Sysinfo::new_zeroed();
    info.uptime = (cx.kernel().clocks.monotonic() / 1_000_000_000) as i64;
    // From 1/2048 to 1/65536.
    for load in &loads {
        for (sum, average) in info.loads.iter_mut().zip(load.averages) {
            *sum += average << 5;
        }
    }
    let bytes = |pages: u64| pages * hal::addr::PAGE_SIZE as u64;
    info.totalram = bytes(total(|m| m.total));
    info.freeram = bytes(total(|m| m.free));
    info.sharedram = bytes(total(|m| m.shared));
    // Buffers are of block devices, of which there are none; pages of files are not among them.
    info.bufferram = 0;
    info.procs = loads.iter().map(|l| l.tasks).sum::<u64>() as u16;
    info.mem_unit = 1;
    cx.user(|u| u.write_struct(args[0], &info))?;
    Ok(0)
}

/// getrandom(2). The hardware's source is ready from the start.
pub fn getrandom(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const NONBLOCK: u64 = 1;
    const RANDOM: u64 = 2;
    const INSECURE: u64 = 4;
    const CHUNK: usize = 256;
    let [at, len, flags, ..] = args;
    if flags & !(NONBLOCK | RANDOM | INSECURE) != 0 || flags & (RANDOM | INSECURE) == RANDOM | INSECURE {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(mm::user::RW_MAX as u64) as usize;
    let mut done = 0;
    while done < len {
        let mut bytes = [0_u8; CHUNK];
        let n = CHUNK.min(len - done);
        for word in bytes.chunks_exact_mut(8).take(n.div_ceil(8)) {
            word.copy_from_slice(&hal::cpu::entropy().to_le_bytes());
        }
        match cx.user(|u| u.write(at + done as u64, bytes.get(..n).unwrap_or(&bytes))) {
            Ok(()) => done += n,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        if done < len {
            cx.relax();
            if cx.task().is_interrupted() {
                break;
            }
        }
    }
    Ok(done as u64)
}

/// reboot(2).
pub fn reboot(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const MAGIC: u32 = 0xfee1_dead;
    const MAGIC_2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const RESTART: u32 = 0x0123_4567;
    const RESTART_2: u32 = 0xa1b2_c3d4;
    const HALT: u32 = 0xcdef_0123;
    const POWER_OFF: u32 = 0x4321_fedc;
    if !cx.process().creds().can(cap::SYS_BOOT) {
        return Err(Errno::EPERM.into());
    }
    if args[0] as u32 != MAGIC || !MAGIC_2.contains(&(args[1] as u32)) {
        return Err(Errno::EINVAL.into());
    }
    let what = match args[2] as u32 {
        RESTART | RESTART_2 => Power::Restart,
        HALT => Power::Halt,
        POWER_OFF => Power::Off,
        _ => return Err(Errno::EINVAL.into()),
    };
    match cx.kernel().hooks() {
        Some(hooks) => {
            hooks.power(what);
            Ok(0)
        }
        None => Err(Error::new(Errno::ENODEV, "nothing here can switch the machine off")),
    }
}

/// seccomp(2): there are no filters.
pub fn seccomp(_: &Cx, _: [u64; 6]) -> Result<u64> {
    Err(Errno::EINVAL.into())
}
