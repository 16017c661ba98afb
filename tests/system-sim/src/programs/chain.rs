//! A process that moves from kernel to kernel and stays who it is.

use std::sync::Arc;

use super::{Job, LEAF, any_kernel, reap, status};
use crate::calls::{Cpu, Excused, O_CREAT, O_RDWR, nr};

/// Who a process is, and what it has.
struct Self_ {
    pid: i64,
    parent: i64,
    group: i64,
    session: i64,
    fd: i64,
}

fn same(cpu: &mut Cpu<'_>, me: &Self_, offset: i64) -> Result<(), Excused> {
    for (nr, wanted) in
        [(nr::GETPID, me.pid), (nr::GETPPID, me.parent), (nr::GETPGID, me.group), (nr::GETSID, me.session)]
    {
        let got = cpu.call(nr, &[0]);
        let got = cpu.must(got)?;
        cpu.expect(got == wanted, || format!("{} says {got}, was {wanted}", nr::name(nr)))?;
    }
    let at = cpu.call(nr::LSEEK, &[me.fd as u64, 0, 1]);
    let at = cpu.must(at)?;
    cpu.expect(at == offset, || format!("the offset is {at}, was {offset}"))
}

/// One stop of the way, then the next.
fn stop(cpu: &mut Cpu<'_>, me: &Arc<Self_>, left: u64, offset: i64) -> Result<(), Excused> {
    same(cpu, me, offset)?;
    let record = format!("{:04}\n", left);
    let wrote = cpu.write(me.fd, record.as_bytes());
    cpu.must(wrote)?;
    let offset = offset + record.len() as i64;
    if left == 0 {
        return Ok(());
    }
    if cpu.rng.one_in(3) {
        // A child on the way: it is that of the same process at the next stop.
        let child = cpu.fork("leaf", |_| LEAF);
        let child = cpu.must(child)?;
        let to = any_kernel(cpu);
        let me = me.clone();
        let error =
            cpu.go(to, move |cpu| status(reap(cpu, child, LEAF << 8).and_then(|()| stop(cpu, &me, left - 1, offset))));
        return cpu.must(Err(error)).map(drop);
    }
    let to = any_kernel(cpu);
    let me = me.clone();
    let error = cpu.go(to, move |cpu| status(stop(cpu, &me, left - 1, offset)));
    cpu.must(Err(error)).map(drop)
}

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    let path = format!("/tmp/chain{}", cpu.env.serial());
    let fd = cpu.open(&path, O_RDWR | O_CREAT, 0o600);
    let fd = cpu.must(fd)?;
    let parent = cpu.call(nr::GETPID, &[]);
    let parent = cpu.must(parent)?;
    let stops = job.rounds;
    let child = cpu.fork("walker", move |cpu| {
        let mut ask = |nr| cpu.call(nr, &[0]).unwrap_or(-1);
        let (pid, group, session) = (ask(nr::GETPID), ask(nr::GETPGID), ask(nr::GETSID));
        let me = Self_ { pid, parent, group, session, fd };
        status(stop(cpu, &Arc::new(me), stops, 0))
    });
    let child = cpu.must(child)?;
    reap(cpu, child, 0)?;
    // The offset is shared with us.
    let at = cpu.call(nr::LSEEK, &[fd as u64, 0, 1]);
    let at = cpu.must(at)?;
    cpu.expect(at == 5 * (stops as i64 + 1), || format!("the shared offset is {at}"))?;
    let text = cpu.read_at(fd, 4096, 0);
    let wanted: String = (0..=stops).rev().map(|n| format!("{n:04}\n")).collect();
    match text {
        Ok(text) => cpu.expect(text == wanted.as_bytes(), || format!("the file says {text:?}"))?,
        Err(error) => return cpu.must(Err(error)).map(drop),
    }
    let closed = cpu.close(fd);
    cpu.must(closed)?;
    let gone = cpu.path(nr::UNLINK, &path, 0);
    cpu.must(gone).map(drop)
}
