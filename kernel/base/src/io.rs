//! Sinks and sources: how data moves between an object and whatever asked for it (a user range, pages, a message, a window).
//!
//! Neither waits. A user range whose page is not present stops early and says [`Sink::stalled`]; the caller (which holds no lock)
//! brings the page in and tries again. So an object may hold its lock while it puts or takes.

use alloc::vec::Vec;

/// Where bytes go.
pub trait Sink {
    /// Accepts bytes from the front of `bytes` and says how many. Fewer than offered means that the sink is full or stalled.
    fn put(&mut self, bytes: &[u8]) -> usize;
    /// Accepts up to `n` zero bytes and says how many.
    fn put_zeros(&mut self, n: usize) -> usize {
        const ZEROS: [u8; 256] = [0; 256];
        let mut done = 0;
        while done < n {
            let want = (n - done).min(ZEROS.len());
            let got = self.put(&ZEROS[..want]);
            done += got;
            if got < want {
                break;
            }
        }
        done
    }
    /// How many more bytes it is meant to take.
    fn room(&self) -> usize;
    /// Whether `n` bytes can be put now without a stall; for objects that must hand over all or nothing (eventfd, signalfd).
    fn can_put(&mut self, n: usize) -> bool {
        self.room() >= n
    }
    /// Whether the last `put` stopped because something must be brought in first.
    fn stalled(&self) -> bool {
        false
    }
    /// For a sink that is memory of the running program: where the next bytes go and how many fit there (at least 1), so that whoever holds
    /// frames can copy without a detour and then calls [`Sink::advance`]. `None`: use `put`.
    fn user_span(&mut self) -> Option<(u64, usize)> {
        None
    }
    /// After a direct copy to [`Sink::user_span`]: `n` bytes arrived, and it `stalled` after them or not.
    fn advance(&mut self, n: usize, stalled: bool) {
        let _ = (n, stalled);
    }
}

/// Where bytes come from.
pub trait Source {
    /// Fills `buf` from the front and says how many bytes. Fewer than asked means that the source is empty or stalled.
    fn take(&mut self, buf: &mut [u8]) -> usize;
    /// As [`Source::take`], but the bytes stay: for objects that must see what they are given before they know whether they take it (eventfd).
    fn peek(&mut self, buf: &mut [u8]) -> usize;
    /// How many bytes are left.
    fn left(&self) -> usize;
    /// Whether `n` bytes can be taken now without a stall.
    fn can_take(&mut self, n: usize) -> bool {
        self.left() >= n
    }
    /// Whether the last `take` stopped because something must be brought in first.
    fn stalled(&self) -> bool {
        false
    }
    /// For a source that is memory of the running program: where the next bytes are and how many lie together (at least 1); after a
    /// direct copy call [`Source::advance`]. `None`: use `take`.
    fn user_span(&mut self) -> Option<(u64, usize)> {
        None
    }
    /// After a direct copy from [`Source::user_span`]: `n` bytes were taken, and it `stalled` after them or not.
    fn advance(&mut self, n: usize, stalled: bool) {
        let _ = (n, stalled);
    }
}

/// A sink that grows, with a limit.
#[derive(Debug)]
pub struct VecSink {
    /// What was put.
    pub bytes: Vec<u8>,
    limit: usize,
}

impl VecSink {
    /// An empty sink for at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }
}

impl Sink for VecSink {
    fn put(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        self.bytes.extend_from_slice(&bytes[..n]);
        n
    }

    fn room(&self) -> usize {
        self.limit - self.bytes.len()
    }
}

impl Source for &[u8] {
    fn take(&mut self, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.len());
        let (head, tail) = self.split_at(n);
        buf[..n].copy_from_slice(head);
        *self = tail;
        n
    }

    fn peek(&mut self, buf: &mut [u8]) -> usize {
        let mut copy = *self;
        copy.take(buf)
    }

    fn left(&self) -> usize {
        self.len()
    }
}

/// A sink over a byte slice: what is put fills it from the front.
impl Sink for &mut [u8] {
    fn put(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.len());
        let (head, tail) = core::mem::take(self).split_at_mut(n);
        head.copy_from_slice(&bytes[..n]);
        *self = tail;
        n
    }

    fn room(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{Sink, Source, VecSink};

    #[test]
    fn a_sink_takes_up_to_its_limit() {
        let mut sink = VecSink::new(5);
        assert_eq!(sink.put(b"abc"), 3);
        assert_eq!(sink.put(b"defg"), 2);
        assert_eq!(sink.room(), 0);
        assert_eq!(sink.bytes, b"abcde");
        assert_eq!(VecSink::new(300).put_zeros(1000), 300);
    }

    #[test]
    fn a_source_gives_up_to_its_end() {
        let mut source: &[u8] = b"abcde";
        let mut buf = [0; 3];
        assert_eq!(source.peek(&mut buf), 3);
        assert_eq!((&buf[..], source.left()), (&b"abc"[..], 5));
        assert_eq!(source.take(&mut buf), 3);
        assert_eq!(source.take(&mut buf), 2);
        assert_eq!(&buf[..2], b"de");
        assert_eq!(source.left(), 0);
    }
}
