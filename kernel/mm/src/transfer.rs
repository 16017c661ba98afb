//! Bytes between frames and sinks or sources.

use base::io::{Sink, Source};
use hal::{addr::UserAddr, frame::Frame};

const BOUNCE: usize = 1024;

/// Puts `len` bytes of `frame` from `within` into the sink; how many it took. Bytes for user memory go there directly.
pub fn put(sink: &mut dyn Sink, frame: &Frame, within: usize, len: usize) -> usize {
    let mut done = 0;
    while done < len {
        if let Some((at, room)) = sink.user_span() {
            let want = room.min(len - done);
            let n = frame.copy_out(within + done, UserAddr(at), want).done;
            sink.advance(n, n < want);
            done += n;
            if n < want {
                break;
            }
            continue;
        }
        let mut bounce = [0; BOUNCE];
        let want = BOUNCE.min(len - done);
        let Some(bytes) = bounce.get_mut(..want) else { break };
        frame.read(within + done, bytes);
        let n = sink.put(bytes);
        done += n;
        if n < want {
            break;
        }
    }
    done
}

/// Takes up to `len` bytes from the source into `frame` at `within`; how many there were.
pub fn take(source: &mut dyn Source, frame: &Frame, within: usize, len: usize) -> usize {
    let mut done = 0;
    while done < len {
        if let Some((at, left)) = source.user_span() {
            let want = left.min(len - done);
            let n = frame.copy_in(within + done, UserAddr(at), want).done;
            source.advance(n, n < want);
            done += n;
            if n < want {
                break;
            }
            continue;
        }
        let mut bounce = [0; BOUNCE];
        let want = BOUNCE.min(len - done);
        let Some(bytes) = bounce.get_mut(..want) else { break };
        let n = source.take(bytes);
        if let Some(bytes) = bounce.get(..n) {
            frame.write(within + done, bytes);
        }
        done += n;
        if n < want {
            break;
        }
    }
    done
}
