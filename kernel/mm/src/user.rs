//! The memory of the running program, as system calls use it.
//!
//! A copy stops at a page that is not there. [`User`] loops "copy, resolve the fault, go on"; it may wait in between, so it must not be used with a
//! lock held. [`UserRange`] is for objects, which may hold their lock while they move bytes: it stops short and says that it stalled; the caller
//! of the object then calls [`UserRange::resolve`] and the object once more.

use alloc::{boxed::Box, vec::Vec};

use base::{
    Errno, Error, Result,
    io::{Sink, Source},
    wait::Op,
};
use hal::{
    addr::{UserAddr, user_top},
    user::{self, StrResult},
    usermode::Access,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    object::MappedPage,
    space::{Fault, Space, Violation},
};

/// Most entries of an iovec list (`UIO_MAXIOV`).
pub const IOV_MAX: usize = 1024;
/// Most bytes that one call moves (Linux' `MAX_RW_COUNT`).
pub const RW_MAX: usize = 0x7fff_f000;

/// How a task waits for a page; what the task layer lends to [`User`].
pub trait PageWait {
    /// Sleeps until the operation ends: then the fault is tried again.
    ///
    /// # Errors
    /// `EINTR` if the task is to die; what the operation says: the page cannot be had.
    fn wait(&self, op: Box<dyn Op<MappedPage>>) -> Result<()>;
    /// Makes room when no frame is free: reclaims, kills, gives the CPU away.
    ///
    /// # Errors
    /// `ENOMEM` if nothing can be done, `EINTR` if this task is to die.
    fn no_memory(&self) -> Result<()>;
}

const fn bad_address() -> Error {
    Error::new(Errno::EFAULT, "bad user address")
}

/// The running program's memory: its space, which is active, and a way to wait.
#[derive(Clone, Copy)]
pub struct User<'a> {
    space: &'a Space,
    wait: &'a dyn PageWait,
}

impl<'a> User<'a> {
    /// The memory of the task that runs; `space` is its space and is active.
    pub fn new(space: &'a Space, wait: &'a dyn PageWait) -> Self {
        debug_assert!(space.is_active());
        Self { space, wait }
    }

    /// The space.
    pub const fn space(&self) -> &'a Space {
        self.space
    }

    /// Makes an access possible; waits if need be.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    #[cold]
    pub fn resolve(&self, at: UserAddr, access: Access) -> Result<()> {
        self.resolve_why(at, access)?.map_err(Error::from)
    }

    /// The same, for those who want to know what was wrong (a page fault of the program itself).
    ///
    /// # Errors
    /// Outer: `EINTR`, `ENOMEM`. Inner: why the access is not possible.
    pub fn resolve_why(&self, at: UserAddr, access: Access) -> Result<core::result::Result<(), Violation>> {
        match self.space.fault(at, access) {
            Ok(Fault::Resolved) => Ok(Ok(())),
            Ok(Fault::Wait(op)) => match self.wait.wait(op) {
                Ok(()) => Ok(Ok(())),
                Err(error) if error == Errno::EINTR => Err(error),
                Err(error) if error == Errno::ENOMEM => self.wait.no_memory().map(Ok),
                Err(_) => Ok(Err(Violation::NoPage)),
            },
            Ok(Fault::NoMemory) => self.wait.no_memory().map(Ok),
            Err(violation) => Ok(Err(violation)),
        }
    }

    /// Copies from the program.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    #[inline]
    pub fn read(&self, from: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        loop {
            let Some(rest) = buf.get_mut(done..) else { return Err(bad_address()) };
            let result = user::copy_in(rest, UserAddr(from) + done as u64);
            done += result.done;
            match result.fault {
                None => return Ok(()),
                Some(at) => self.resolve(at, Access::Read)?,
            }
        }
    }

    /// Copies to the program.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    #[inline]
    pub fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        loop {
            let Some(rest) = bytes.get(done..) else { return Err(bad_address()) };
            let result = user::copy_out(UserAddr(to) + done as u64, rest);
            done += result.done;
            match result.fault {
                None => return Ok(()),
                Some(at) => self.resolve(at, Access::Write)?,
            }
        }
    }

    /// Zeros memory of the program.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    pub fn zero(&self, to: u64, len: usize) -> Result<()> {
        let mut done = 0;
        while done < len {
            let result = user::zero_out(UserAddr(to) + done as u64, len - done);
            done += result.done;
            if let Some(at) = result.fault {
                self.resolve(at, Access::Write)?;
            }
        }
        Ok(())
    }

    /// Reads a struct.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    pub fn read_struct<T: FromBytes + IntoBytes>(&self, from: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read(from, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a struct.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    pub fn write_struct<T: IntoBytes + Immutable>(&self, to: u64, value: &T) -> Result<()> {
        self.write(to, value.as_bytes())
    }

    /// Reads `count` structs that lie one after the other. `limit` guards against absurd counts.
    ///
    /// # Errors
    /// `EINVAL` beyond the limit, `EFAULT`, `ENOMEM`.
    pub fn read_structs<T: FromBytes + IntoBytes>(&self, from: u64, count: usize, limit: usize) -> Result<Vec<T>> {
        if count > limit {
            return Err(Error::new(Errno::EINVAL, "too many entries"));
        }
        let mut all = Vec::new();
        all.try_reserve_exact(count).map_err(|_| Error::new(Errno::ENOMEM, "no memory for a list"))?;
        for i in 0..count {
            let at = (i * size_of::<T>()) as u64;
            all.push(self.read_struct(from.checked_add(at).ok_or(bad_address())?)?);
        }
        Ok(all)
    }

    /// Reads a string up to its NUL, which is not counted; at most `limit` bytes with the NUL. `None`: it is longer.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    pub fn string(&self, from: u64, limit: usize) -> Result<Option<Vec<u8>>> {
        const STEP: usize = 256;
        let mut all = Vec::new();
        while all.len() < limit {
            let old = all.len();
            let step = STEP.min(limit - old);
            all.try_reserve(step).map_err(|_| Error::new(Errno::ENOMEM, "no memory for a string"))?;
            all.resize(old + step, 0);
            let Some(tail) = all.get_mut(old..) else { break };
            match user::read_cstr(tail, UserAddr(from) + old as u64) {
                StrResult::Found(n) => {
                    all.truncate(old + n);
                    return Ok(Some(all));
                }
                StrResult::TooLong => {}
                StrResult::Fault { done, fault } => {
                    all.truncate(old + done);
                    self.resolve(fault, Access::Read)?;
                }
            }
        }
        Ok(None)
    }

    /// A path name.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `EFAULT`, `EINTR`, `ENOMEM`.
    pub fn path(&self, from: u64) -> Result<Vec<u8>> {
        self.string(from, 4096)?.ok_or(Error::new(Errno::ENAMETOOLONG, "path too long"))
    }

    /// A list of buffers.
    ///
    /// # Errors
    /// `EINVAL` (too many, or more bytes than a signed count holds), `EFAULT`.
    pub fn iovecs(&self, from: u64, count: usize) -> Result<Vec<IoVec>> {
        let list: Vec<[u64; 2]> = self.read_structs(from, count, IOV_MAX)?;
        let mut total: u64 = 0;
        let mut vecs = Vec::with_capacity(list.len());
        for [base, len] in list {
            total = total
                .checked_add(len)
                .filter(|sum| *sum <= i64::MAX as u64)
                .ok_or(Error::new(Errno::EINVAL, "too many bytes"))?;
            if !user_range(base, len) {
                return Err(bad_address());
            }
            vecs.push(IoVec { base, len: len as usize });
        }
        Ok(vecs)
    }

    /// Loads an aligned word atomically.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    pub fn load_u32(&self, at: u64) -> Result<u32> {
        loop {
            match user::load_u32(UserAddr(at)) {
                Ok(value) => return Ok(value),
                Err(fault) => self.resolve(fault, Access::Read)?,
            }
        }
    }

    /// Stores `new` in an aligned word if it holds `expected`; what it held.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    pub fn compare_exchange_u32(&self, at: u64, expected: u32, new: u32) -> Result<u32> {
        loop {
            match user::compare_exchange_u32(UserAddr(at), expected, new) {
                Ok(value) => return Ok(value),
                Err(fault) => self.resolve(fault, Access::Write)?,
            }
        }
    }

    /// Changes an aligned word atomically; what it held.
    ///
    /// # Errors
    /// `EFAULT`, `EINTR`, `ENOMEM`.
    pub fn fetch_update_u32(&self, at: u64, op: impl Fn(u32) -> u32) -> Result<u32> {
        loop {
            match user::fetch_update_u32(UserAddr(at), &op) {
                Ok(value) => return Ok(value),
                Err(fault) => self.resolve(fault, Access::Write)?,
            }
        }
    }
}

/// Whether `[at, at + len)` lies in the user half.
pub fn user_range(at: u64, len: u64) -> bool {
    at <= user_top() && len <= user_top() - at
}

/// One buffer of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoVec {
    /// Its address.
    pub base: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// Buffers of the running program as a sink or a source; the space must be active whenever it is used.
pub struct UserRange {
    vecs: Vec<IoVec>,
    /// The current buffer; `vecs` come after it.
    at: u64,
    here: usize,
    next: usize,
    left: usize,
    stalled: Option<UserAddr>,
}

/// A place in a [`UserRange`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: u64,
    here: usize,
    next: usize,
    left: usize,
}

impl UserRange {
    /// One buffer. At most [`RW_MAX`] bytes of it count.
    ///
    /// # Errors
    /// `EFAULT` if it is not in the user half.
    pub fn new(at: u64, len: usize) -> Result<Self> {
        if !user_range(at, len as u64) {
            return Err(bad_address());
        }
        let len = len.min(RW_MAX);
        Ok(Self { vecs: Vec::new(), at, here: len, next: 0, left: len, stalled: None })
    }

    /// A list of buffers, from [`User::iovecs`]. At most [`RW_MAX`] bytes count.
    pub fn list(vecs: Vec<IoVec>) -> Self {
        let left = vecs.iter().fold(0_usize, |sum, vec| sum.saturating_add(vec.len)).min(RW_MAX);
        Self { vecs, at: 0, here: 0, next: 0, left, stalled: None }
    }

    /// How many bytes have not been moved.
    pub const fn remaining(&self) -> usize {
        self.left
    }

    /// Where it is now.
    pub const fn mark(&self) -> Mark {
        Mark { at: self.at, here: self.here, next: self.next, left: self.left }
    }

    /// Back to where it was: what was taken from it since then was not used.
    pub const fn rewind(&mut self, to: Mark) {
        (self.at, self.here, self.next, self.left) = (to.at, to.here, to.next, to.left);
        self.stalled = None;
    }

    /// `n` bytes after `from` were used, whatever was taken from it.
    pub fn used(&mut self, from: Mark, mut n: usize) {
        if from.left.saturating_sub(self.left) == n {
            return;
        }
        self.rewind(from);
        while n > 0
            && let Some((_, len)) = self.span()
        {
            let some = len.min(n);
            self.moved(some, false);
            n -= some;
        }
    }

    /// If the last use stalled at a missing page: brings it in (may wait) and says `true`, so use the object again. `false`: it did not stall.
    ///
    /// # Errors
    /// `EFAULT` if the program gave a bad address, `EINTR`, `ENOMEM`.
    pub fn resolve(&mut self, user: &User<'_>, access: Access) -> Result<bool> {
        match self.stalled.take() {
            Some(at) => user.resolve(at, access).map(|()| true),
            None => Ok(false),
        }
    }

    /// The next piece: where, and how much of it counts.
    fn span(&mut self) -> Option<(u64, usize)> {
        if self.stalled.is_some() {
            return None;
        }
        while self.here == 0 && self.left > 0 {
            let vec = self.vecs.get(self.next)?;
            (self.at, self.here) = (vec.base, vec.len);
            self.next += 1;
        }
        (self.left > 0).then(|| (self.at, self.here.min(self.left)))
    }

    fn moved(&mut self, n: usize, stalled: bool) {
        self.at += n as u64;
        self.here = self.here.saturating_sub(n);
        self.left = self.left.saturating_sub(n);
        if stalled {
            self.stalled = Some(UserAddr(self.at));
        }
    }

    /// Whether the next `n` bytes can be had without a stall; touches a byte in each page.
    fn probe(&mut self, n: usize, access: Access) -> bool {
        if self.left < n {
            return false;
        }
        let (mut at, mut here, mut next) = (self.at, self.here, self.next);
        let mut left = n;
        while left > 0 {
            if here == 0 {
                let Some(vec) = self.vecs.get(next) else { return false };
                (at, here) = (vec.base, vec.len);
                next += 1;
                continue;
            }
            let in_page = hal::addr::PAGE_SIZE - UserAddr(at).offset();
            let step = in_page.min(here).min(left);
            let byte = user::read_array::<1>(UserAddr(at));
            let there = match (byte, access) {
                (Ok(_), Access::Read | Access::Execute) => true,
                // Writing back what was read could undo a store of another thread; an exchange of a word with itself cannot.
                (Ok(_), Access::Write) => user::fetch_update_u32(UserAddr(at & !3), |word| word).is_ok(),
                (Err(_), _) => false,
            };
            if !there {
                self.stalled = Some(UserAddr(at));
                return false;
            }
            at += step as u64;
            here -= step;
            left -= step;
        }
        true
    }
}

impl Sink for UserRange {
    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let Some((at, room)) = self.span() else { break };
            let want = rest.len().min(room);
            let n = user::copy_out(UserAddr(at), rest.get(..want).unwrap_or(rest)).done;
            self.moved(n, n < want);
            done += n;
        }
        done
    }

    fn put_zeros(&mut self, n: usize) -> usize {
        let mut done = 0;
        while done < n {
            let Some((at, room)) = self.span() else { break };
            let want = room.min(n - done);
            let moved = user::zero_out(UserAddr(at), want).done;
            self.moved(moved, moved < want);
            done += moved;
        }
        done
    }

    fn room(&self) -> usize {
        self.left
    }

    fn can_put(&mut self, n: usize) -> bool {
        self.probe(n, Access::Write)
    }

    fn stalled(&self) -> bool {
        self.stalled.is_some()
    }

    fn user_span(&mut self) -> Option<(u64, usize)> {
        self.span()
    }

    fn advance(&mut self, n: usize, stalled: bool) {
        self.moved(n, stalled);
    }
}

impl Source for UserRange {
    fn take(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some((at, left)) = self.span() else { break };
            let want = rest.len().min(left);
            let Some(piece) = rest.get_mut(..want) else { break };
            let n = user::copy_in(piece, UserAddr(at)).done;
            self.moved(n, n < want);
            done += n;
        }
        done
    }

    fn peek(&mut self, buf: &mut [u8]) -> usize {
        let before = (self.at, self.here, self.next, self.left);
        let n = self.take(buf);
        (self.at, self.here, self.next, self.left) = before;
        n
    }

    fn left(&self) -> usize {
        self.left
    }

    fn can_take(&mut self, n: usize) -> bool {
        self.probe(n, Access::Read)
    }

    fn stalled(&self) -> bool {
        self.stalled.is_some()
    }

    fn user_span(&mut self) -> Option<(u64, usize)> {
        self.span()
    }

    fn advance(&mut self, n: usize, stalled: bool) {
        self.moved(n, stalled);
    }
}
