//! Copies between the kernel and the memory of the program whose address space is active.
//!
//! They never fault the kernel and never call up: a copy stops at the first page that is absent or does not allow the access and says where;
//! `mm` resolves the fault (which may sleep) and the caller goes on from there. Addresses outside the user half fault at once.

use core::mem::MaybeUninit;

use hal_api::{NotMapped, Platform, UserAddr};

use crate::P;
use crate::addr::{is_user_range, user_top};

/// How far a copy came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct CopyResult {
    /// Bytes copied.
    pub done: usize,
    /// The address that could not be accessed, if that was not all.
    pub fault: Option<UserAddr>,
}

impl CopyResult {
    /// `Ok` if everything was copied, else the address of the fault.
    pub fn all(self) -> Result<(), UserAddr> {
        self.fault.map_or(Ok(()), Err)
    }
}

#[inline]
fn result(at: UserAddr, len: usize, done: usize) -> CopyResult {
    CopyResult { done, fault: (done < len).then(|| at + done as u64) }
}

/// How much of `[at, at + len)` lies in the user half.
#[inline]
fn clip(at: UserAddr, len: usize) -> usize {
    if is_user_range(at, len) { len } else { user_top().saturating_sub(at.0).min(len as u64) as usize }
}

/// Copies user memory to `buf`.
#[inline]
pub fn copy_in(buf: &mut [u8], from: UserAddr) -> CopyResult {
    // SAFETY: `buf` is writable.
    unsafe { copy_in_raw(buf.as_mut_ptr(), from, buf.len()) }
}

/// Copies `bytes` to user memory.
#[inline]
pub fn copy_out(to: UserAddr, bytes: &[u8]) -> CopyResult {
    // SAFETY: `bytes` is readable.
    unsafe { copy_out_raw(bytes.as_ptr(), to, bytes.len()) }
}

/// # Safety
/// `to` is writable for `len` bytes.
#[inline]
pub(crate) unsafe fn copy_in_raw(to: *mut u8, from: UserAddr, len: usize) -> CopyResult {
    // SAFETY: by the contract; the range is in the user half.
    result(from, len, unsafe { P::user_read(to, from, clip(from, len)) })
}

/// # Safety
/// `from` is readable for `len` bytes.
#[inline]
pub(crate) unsafe fn copy_out_raw(from: *const u8, to: UserAddr, len: usize) -> CopyResult {
    // SAFETY: by the contract; the range is in the user half.
    result(to, len, unsafe { P::user_write(to, from, clip(to, len)) })
}

/// Fills user memory with zeros.
#[inline]
pub fn zero_out(to: UserAddr, len: usize) -> CopyResult {
    result(to, len, P::user_zero(to, clip(to, len)))
}

/// Reads `N` bytes: words and small structs. `Err` is the address of the fault.
#[inline]
pub fn read_array<const N: usize>(from: UserAddr) -> Result<[u8; N], UserAddr> {
    if !is_user_range(from, N) {
        return Err(from);
    }
    let mut buf = [MaybeUninit::<u8>::uninit(); N];
    // SAFETY: `buf` is writable for N bytes; the range is in the user half.
    let done = unsafe { P::user_read(buf.as_mut_ptr().cast(), from, N) };
    if done == N {
        // SAFETY: all N bytes were written.
        Ok(unsafe { buf.as_ptr().cast::<[u8; N]>().read() })
    } else {
        Err(from + done as u64)
    }
}

/// Reads a little-endian `u32` (atomically if aligned only by [`load_u32`]).
#[inline]
pub fn read_u32(from: UserAddr) -> Result<u32, UserAddr> {
    read_array(from).map(u32::from_le_bytes)
}

/// Reads a little-endian `u64`.
#[inline]
pub fn read_u64(from: UserAddr) -> Result<u64, UserAddr> {
    read_array(from).map(u64::from_le_bytes)
}

/// Writes a little-endian `u32`.
#[inline]
pub fn write_u32(to: UserAddr, value: u32) -> Result<(), UserAddr> {
    copy_out(to, &value.to_le_bytes()).all()
}

/// Writes a little-endian `u64`.
#[inline]
pub fn write_u64(to: UserAddr, value: u64) -> Result<(), UserAddr> {
    copy_out(to, &value.to_le_bytes()).all()
}

/// What became of reading a string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StrResult {
    /// The string is `buf[..n]`, its NUL not counted.
    Found(usize),
    /// `buf` is full and no NUL was seen.
    TooLong,
    /// `buf[..done]` was read, then came a fault. To go on, read from `fault` to the rest of `buf`.
    Fault {
        /// Bytes read, none of them NUL.
        done: usize,
        /// Where it stopped.
        fault: UserAddr,
    },
}

/// Reads a NUL-terminated string.
pub fn read_cstr(buf: &mut [u8], from: UserAddr) -> StrResult {
    let len = clip(from, buf.len());
    // SAFETY: `buf` is writable for `len` bytes; the range is in the user half.
    match unsafe { P::user_read_str(buf.as_mut_ptr(), from, len) } {
        Ok(Some(n)) => StrResult::Found(n),
        Ok(None) if len < buf.len() => StrResult::Fault { done: len, fault: from + len as u64 },
        Ok(None) => StrResult::TooLong,
        Err(done) => StrResult::Fault { done, fault: from + done as u64 },
    }
}

#[inline]
fn word(at: UserAddr) -> Result<(), UserAddr> {
    if is_user_range(at, 4) && at.0.is_multiple_of(4) { Ok(()) } else { Err(at) }
}

/// Loads a word atomically. A misaligned address is a fault (callers have said EINVAL before).
#[inline]
pub fn load_u32(at: UserAddr) -> Result<u32, UserAddr> {
    word(at)?;
    P::user_load_u32(at).map_err(|NotMapped| at)
}

/// Stores `new` if the word is `expected`; the value that was there.
#[inline]
pub fn compare_exchange_u32(at: UserAddr, expected: u32, new: u32) -> Result<u32, UserAddr> {
    word(at)?;
    P::user_cas_u32(at, expected, new).map_err(|NotMapped| at)
}

/// Changes a word atomically by `op`; the value that was there. `op` may be called more than once.
pub fn fetch_update_u32(at: UserAddr, op: impl Fn(u32) -> u32) -> Result<u32, UserAddr> {
    let mut old = load_u32(at)?;
    loop {
        let found = compare_exchange_u32(at, old, op(old))?;
        if found == old {
            return Ok(old);
        }
        old = found;
    }
}
