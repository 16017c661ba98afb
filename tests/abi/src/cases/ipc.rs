//! System V semaphores and message queues.

use crate::case::Outcome;
use crate::sys;
use crate::sys::{child, good};
use crate::{cases, check, refused, same};

const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const NOWAIT: i16 = libc::IPC_NOWAIT as i16;
const UNDO: i16 = 0x1000;

fn semget(size: usize) -> sys::Sys<i32> {
    Ok(sys!(SYS_semget, libc::IPC_PRIVATE, size, 0o600)? as i32)
}

fn semop(id: i32, operations: &[(u16, i16, i16)]) -> sys::Sys {
    let raw: Vec<[u16; 3]> = operations.iter().map(|(n, change, flags)| [*n, *change as u16, *flags as u16]).collect();
    sys!(SYS_semop, id, raw.as_ptr(), raw.len())
}

fn semctl(id: i32, number: i32, command: i32, arg: usize) -> sys::Sys {
    sys!(SYS_semctl, id, number, command, arg)
}

/// Runs the test on a set, which is gone afterwards.
fn with_set(size: usize, test: impl FnOnce(i32) -> Outcome) -> Outcome {
    let id = semget(size)?;
    let result = test(id);
    let _ = semctl(id, 0, libc::IPC_RMID, 0);
    result
}

fn send(id: i32, kind: i64, text: &[u8], flags: i32) -> sys::Sys {
    let mut message = kind.to_le_bytes().to_vec();
    message.extend_from_slice(text);
    sys!(SYS_msgsnd, id, message.as_ptr(), text.len(), flags)
}

fn receive(id: i32, room: usize, kind: i64, flags: i32) -> sys::Sys<(i64, Vec<u8>)> {
    let mut message = vec![0u8; 8 + room];
    let n = sys!(SYS_msgrcv, id, message.as_mut_ptr(), room, kind, flags)? as usize;
    let kind = message.first_chunk().map_or(0, |b| i64::from_le_bytes(*b));
    Ok((kind, message.get(8..8 + n).unwrap_or_default().to_vec()))
}

fn with_queue(test: impl FnOnce(i32) -> Outcome) -> Outcome {
    let id = sys!(SYS_msgget, libc::IPC_PRIVATE, 0o600)? as i32;
    let result = test(id);
    let _ = sys!(SYS_msgctl, id, libc::IPC_RMID, 0usize);
    result
}

cases! {
    fn semaphores_count [semget, semop, semctl] {
        with_set(2, |id| {
            let shown = std::fs::read_to_string("/proc/sysvipc/sem")?;
            let of_this = |line: &&str| line.split_whitespace().nth(1) == Some(id.to_string().as_str());
            same!(shown.lines().find(of_this).and_then(|line| line.split_whitespace().nth(3)), Some("2"));
            semop(id, &[(0, 3, 0), (1, 1, 0)])?;
            same!((semctl(id, 0, GETVAL, 0)?, semctl(id, 1, GETVAL, 0)?), (3, 1));
            // All or nothing.
            refused!(semop(id, &[(0, -1, NOWAIT), (1, -2, NOWAIT)]), EAGAIN);
            same!(semctl(id, 0, GETVAL, 0)?, 3);
            semop(id, &[(0, -3, 0), (0, 0, 0)])?;
            refused!(semop(id, &[(1, 0, NOWAIT)]), EAGAIN);
            refused!(semop(id, &[(2, 1, 0)]), EFBIG);
            refused!(semop(id, &[(0, 32767, 0), (0, 1, 0)]), ERANGE);
            refused!(sys!(SYS_semop, id, 8usize, 1usize), EFAULT);
            refused!(sys!(SYS_semop, id, 8usize, 0usize), EINVAL);
            Ok(())
        })
    }

    fn semaphores_are_set_and_shown [semctl] {
        with_set(3, |id| {
            semctl(id, 1, SETVAL, 5)?;
            let mut all = [9u16; 3];
            semctl(id, 0, GETALL, all.as_mut_ptr() as usize)?;
            same!(all, [0, 5, 0]);
            semctl(id, 0, SETALL, [1u16, 2, 3].as_ptr() as usize)?;
            same!(semctl(id, 2, GETVAL, 0)?, 3);
            // SAFETY: all zeroes is a valid struct of numbers.
            let mut info: libc::semid_ds = unsafe { std::mem::zeroed() };
            semctl(id, 0, libc::IPC_STAT, (&raw mut info) as usize)?;
            same!((info.sem_nsems as usize, info.sem_perm.mode as u32 & 0o777), (3, 0o600));
            check!(info.sem_ctime > 0);
            refused!(semctl(id, 0, SETVAL, 40_000), ERANGE);
            refused!(semctl(id, 3, GETVAL, 0), EINVAL);
            refused!(semctl(id, 0, 77, 0), EINVAL);
            Ok(())
        })
    }

    fn semaphores_wait [semop, semctl] {
        with_set(2, |id| {
            let waits = child(|| {
                semop(id, &[(0, -1, 0)])?;
                semop(id, &[(1, 1, 0)])?;
                Ok(())
            })?;
            sys::until(|| semctl(id, 0, GETNCNT, 0) == Ok(1));
            semop(id, &[(0, 1, 0)])?;
            semop(id, &[(1, -1, 0)])?;
            good(waits)?;
            same!(semctl(id, 0, GETNCNT, 0)?, 0);
            semctl(id, 1, SETVAL, 1)?;
            let zero = child(|| {
                semop(id, &[(1, 0, 0)])?;
                Ok(())
            })?;
            sys::until(|| semctl(id, 1, GETZCNT, 0) == Ok(1));
            semop(id, &[(1, -1, 0)])?;
            good(zero)
        })
    }

    fn semaphores_undo_at_the_end [semop] {
        with_set(1, |id| {
            semctl(id, 0, SETVAL, 2)?;
            good(child(|| {
                semop(id, &[(0, -1, UNDO)])?;
                semop(id, &[(0, -1, UNDO)])?;
                semop(id, &[(0, 1, 0)])?;
                same!(semctl(id, 0, GETVAL, 0)?, 1);
                Ok(())
            })?)?;
            same!(semctl(id, 0, GETVAL, 0)?, 3);
            Ok(())
        })
    }

    fn semaphores_removed_and_timed [semctl, semtimedop] {
        let id = semget(1)?;
        let minus = [0u16, (-1i16) as u16, 0];
        let time = sys::ms(10);
        refused!(sys!(SYS_semtimedop, id, minus.as_ptr(), 1usize, &raw const time), EAGAIN);
        let waits = child(|| {
            refused!(semop(id, &[(0, -1, 0)]), EIDRM);
            Ok(())
        })?;
        sys::until(|| semctl(id, 0, GETNCNT, 0) == Ok(1));
        semctl(id, 0, libc::IPC_RMID, 0)?;
        good(waits)?;
        refused!(semop(id, &[(0, 1, 0)]), EINVAL);
        refused!(semget(0), EINVAL);
        Ok(())
    }

    fn semaphores_by_key [semget] {
        let key = 0x5200_0000 | sys::pid();
        refused!(sys!(SYS_semget, key, 1usize, 0o600), ENOENT);
        let id = sys!(SYS_semget, key, 2usize, 0o600 | libc::IPC_CREAT | libc::IPC_EXCL)?;
        let tests = || -> Outcome {
            same!(sys!(SYS_semget, key, 0usize, 0)?, id);
            refused!(sys!(SYS_semget, key, 3usize, 0), EINVAL);
            refused!(sys!(SYS_semget, key, 2usize, libc::IPC_CREAT | libc::IPC_EXCL), EEXIST);
            Ok(())
        };
        let result = tests();
        sys!(SYS_semctl, id, 0, libc::IPC_RMID, 0usize)?;
        result
    }

    fn messages_by_type [msgget, msgsnd, msgrcv] {
        with_queue(|id| {
            for (kind, text) in [(5, "five"), (3, "three"), (5, "more"), (1, "one")] {
                send(id, kind, text.as_bytes(), 0)?;
            }
            same!(receive(id, 10, 3, 0)?, (3, b"three".to_vec()));
            same!(receive(id, 10, -4, 0)?, (1, b"one".to_vec()));
            same!(receive(id, 10, 0, 0)?, (5, b"five".to_vec()));
            refused!(receive(id, 2, 0, 0), E2BIG);
            refused!(receive(id, 10, 9, libc::IPC_NOWAIT), ENOMSG);
            refused!(receive(id, 10, 5, libc::IPC_NOWAIT | libc::MSG_EXCEPT), ENOMSG);
            same!(receive(id, 2, 0, libc::MSG_NOERROR)?, (5, b"mo".to_vec()));
            refused!(send(id, 0, b"x", 0), EINVAL);
            refused!(send(id, 1, &[0; 8193], 0), EINVAL);
            refused!(send(-1, 1, b"x", 0), EINVAL);
            Ok(())
        })
    }

    fn messages_wait [msgsnd, msgrcv, msgctl] {
        with_queue(|id| {
            let sender = child(|| {
                // More than fits: the last waits until somebody reads.
                for n in 0..5u8 {
                    send(id, 1, &[n; 4096], 0)?;
                }
                Ok(())
            })?;
            for n in 0..5u8 {
                same!(receive(id, 5000, 0, 0)?, (1, vec![n; 4096]));
            }
            good(sender)?;
            // SAFETY: all zeroes is a valid struct of numbers.
            let mut info: libc::msqid_ds = unsafe { std::mem::zeroed() };
            sys!(SYS_msgctl, id, libc::IPC_STAT, &raw mut info)?;
            same!((info.msg_qnum as u64, info.msg_qbytes as u64, info.msg_lrpid), (0, 16384, sys::pid()));
            let fill = (0..5).map(|_| send(id, 1, &[0; 4096], libc::IPC_NOWAIT)).find_map(Result::err);
            same!(fill, Some(linux_abi::Errno::EAGAIN));
            Ok(())
        })
    }

    fn messages_of_a_queue_that_goes [msgctl, msgrcv] {
        let id = sys!(SYS_msgget, libc::IPC_PRIVATE, 0o600)? as i32;
        let (reader, writer) = sys::pipe()?;
        let waits = child(|| {
            sys::write(writer, b"x")?;
            match receive(id, 10, 0, 0) {
                // It may have been gone before the wait began.
                Err(linux_abi::Errno::EIDRM | linux_abi::Errno::EINVAL) => Ok(()),
                other => Err(crate::case::wrong(format!("{other:?}"))),
            }
        })?;
        sys::get(reader, 1)?;
        sys!(SYS_msgctl, id, libc::IPC_RMID, 0usize)?;
        good(waits)?;
        refused!(receive(id, 10, 0, 0), EINVAL);
        refused!(sys!(SYS_msgctl, id, libc::IPC_RMID, 0usize), EINVAL);
        Ok(())
    }
}
