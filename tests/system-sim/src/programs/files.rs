//! Several writers of one file, and names that are made, moved and removed from several kernels.

use super::{Job, any_kernel, reap, spawn};
use crate::calls::{Cpu, Excused, O_APPEND, O_CREAT, O_EXCL, O_RDWR, O_WRONLY, errno, nr};

const RECORD: usize = 16;

fn appender(cpu: &mut Cpu<'_>, path: &str, me: u64, records: u64) -> Result<(), Excused> {
    let fd = cpu.open(path, O_WRONLY | O_APPEND, 0);
    let fd = cpu.must(fd)?;
    for n in 0..records {
        let record = format!("{me:03} {n:010}\n\n");
        assert_eq!(record.len(), RECORD, "records have one length");
        let wrote = cpu.write(fd, record.as_bytes());
        let wrote = cpu.must(wrote)?;
        cpu.expect(wrote == RECORD as i64, || format!("{wrote} bytes of a record were written"))?;
    }
    let closed = cpu.close(fd);
    cpu.must(closed).map(drop)
}

/// Makes, moves and removes names in a directory of its own.
fn namer(cpu: &mut Cpu<'_>, dir: &str, rounds: u64) -> Result<(), Excused> {
    let made = cpu.path(nr::MKDIR, dir, 0o700);
    cpu.must(made)?;
    let (a, b) = (format!("{dir}/a"), format!("{dir}/b"));
    for n in 0..rounds {
        let fd = cpu.open(&a, O_RDWR | O_CREAT | O_EXCL, 0o600);
        let fd = cpu.must(fd)?;
        let text = format!("text {n}");
        let wrote = cpu.write(fd, text.as_bytes());
        cpu.must(wrote)?;
        let again = cpu.open(&a, O_RDWR | O_CREAT | O_EXCL, 0o600);
        cpu.expect(again == Err(errno::EEXIST), || format!("O_EXCL on what exists: {again:?}"))?;
        let moved = cpu.rename(&a, &b);
        cpu.must(moved)?;
        let gone = cpu.open(&a, O_RDWR, 0);
        cpu.expect(gone == Err(errno::ENOENT), || format!("the old name: {gone:?}"))?;
        let removed = cpu.path(nr::UNLINK, &b, 0);
        cpu.must(removed)?;
        // The file lives as long as it is open.
        match cpu.read_at(fd, 100, 0) {
            Ok(got) => cpu.expect(got == text.as_bytes(), || format!("a removed file says {got:?}"))?,
            Err(error) => return cpu.must(Err(error)).map(drop),
        }
        let closed = cpu.close(fd);
        cpu.must(closed)?;
    }
    let removed = cpu.path(nr::RMDIR, dir, 0);
    cpu.must(removed).map(drop)
}

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    let serial = cpu.env.serial();
    let path = format!("/tmp/log{serial}");
    let fd = cpu.open(&path, O_RDWR | O_CREAT | O_EXCL, 0o600);
    let fd = cpu.must(fd)?;
    let writers = cpu.rng.between(2, 3);
    let records = 3 * job.rounds;
    let mut children = Vec::new();
    for me in 0..writers {
        let (to, name) = (any_kernel(cpu), path.clone());
        children.push(spawn(cpu, "appender", to, move |cpu| appender(cpu, &name, me, records))?);
    }
    let (to, dir, rounds) = (any_kernel(cpu), format!("/tmp/dir{serial}"), job.rounds.div_ceil(2));
    children.push(spawn(cpu, "namer", to, move |cpu| namer(cpu, &dir, rounds))?);
    let mut result = Ok(());
    for child in children {
        result = result.and(reap(cpu, child, 0));
    }
    result?;
    let all = match cpu.read_at(fd, 60_000, 0) {
        Ok(all) => all,
        Err(error) => return cpu.must(Err(error)).map(drop),
    };
    let mut next = vec![0; writers as usize];
    for record in all.chunks(RECORD) {
        let text = String::from_utf8_lossy(record).into_owned();
        let parsed = text.trim_end().split_once(' ').and_then(|(w, n)| Some((w.parse().ok()?, n.parse().ok()?)));
        let Some((writer, n)) = parsed.filter(|(w, _): &(usize, u64)| *w < next.len()) else {
            return cpu.expect(false, || format!("a torn record: {text:?}"));
        };
        let wanted = next[writer];
        cpu.expect(n == wanted, || format!("writer {writer} has {n} where {wanted} should be"))?;
        next[writer] += 1;
    }
    cpu.expect(next.iter().all(|n| *n == records), || format!("{next:?} of {records} records each"))?;
    let closed = cpu.close(fd);
    cpu.must(closed)?;
    let removed = cpu.path(nr::UNLINK, &path, 0);
    cpu.must(removed).map(drop)
}
