//! Capabilities; capget(2), capset(2).

use base::{Errno, Error, Result};
use task::{Cx, creds::cap};

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// The header: version and pid; how many halves the sets have.
fn header(cx: &Cx, at: u64) -> Result<(usize, u32)> {
    let [version, pid]: [u32; 2] = cx.user(|u| u.read_struct(at))?;
    let halves = match version {
        VERSION_1 => 1,
        VERSION_2 | VERSION_3 => 2,
        _ => {
            cx.user(|u| u.write(at, &VERSION_3.to_le_bytes()))?;
            return Err(Error::new(Errno::EINVAL, "unknown version of capabilities"));
        }
    };
    Ok((halves, pid))
}

/// capget(2).
pub fn capget(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [head, data, ..] = args;
    let (halves, pid) = match header(cx, head) {
        // A probe for the version has no data.
        Err(e) if e == Errno::EINVAL && data == 0 => return Ok(0),
        other => other?,
    };
    if (pid as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let creds = super::life::thread(cx, pid.into())?.process().creds();
    let mut words = [0_u32; 6];
    for (half, word) in words.chunks_exact_mut(3).enumerate() {
        let shift = 32 * half;
        for (to, set) in word.iter_mut().zip([creds.effective, creds.permitted, creds.inheritable]) {
            *to = (set >> shift) as u32;
        }
    }
    cx.user(|u| {
        for (i, word) in words.iter().take(3 * halves).enumerate() {
            u.write(data + 4 * i as u64, &word.to_le_bytes())?;
        }
        Ok(())
    })?;
    Ok(0)
}

/// capset(2), of the caller.
pub fn capset(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [head, data, ..] = args;
    let (halves, pid) = header(cx, head)?;
    if pid != 0 && pid != cx.task().tid().0 {
        return Err(Errno::EPERM.into());
    }
    let mut sets = [0_u64; 3];
    for half in 0..halves {
        for (i, set) in sets.iter_mut().enumerate() {
            let word: u32 = cx.user(|u| u.read_struct(data + 4 * (3 * half + i) as u64))?;
            *set |= u64::from(word) << (32 * half);
        }
    }
    let [effective, permitted, inheritable] = sets.map(|s| s & cap::ALL);
    cx.process().change_creds(|c| {
        let may_inherit = c.inheritable | if c.can(cap::SETPCAP) { u64::MAX } else { c.permitted };
        let allowed = permitted & !c.permitted == 0
            && effective & !permitted == 0
            && inheritable & !may_inherit == 0
            && inheritable & !(c.inheritable | c.bounding) == 0;
        if !allowed {
            return Err(Error::new(Errno::EPERM, "may not have those capabilities"));
        }
        (c.effective, c.permitted, c.inheritable) = (effective, permitted, inheritable);
        c.ambient &= permitted & inheritable;
        Ok(0)
    })
}
