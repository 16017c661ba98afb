//! How long a frame and its acknowledgement take, and how long to wait for one (RFC 6298).

/// Not shorter: an acknowledgement waits for company, and a peer that shares its processor may be away.
const SHORTEST: u64 = 20_000_000;
const LONGEST: u64 = 1_000_000_000;

/// See the module. Times in ns.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    smooth: u64,
    varies: u64,
    patience: u64,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { smooth: 0, varies: 0, patience: 100_000_000 }
    }
}

impl Rtt {
    /// A round trip took so long.
    pub fn took(&mut self, ns: u64) {
        if self.smooth == 0 {
            (self.smooth, self.varies) = (ns, ns / 2);
        } else {
            self.varies = (3 * self.varies + self.smooth.abs_diff(ns)) / 4;
            self.smooth = (7 * self.smooth + ns) / 8;
        }
        self.patience = self.smooth.saturating_add(4 * self.varies).clamp(SHORTEST, LONGEST);
    }

    /// After so long without an acknowledgement a frame is sent again.
    pub const fn patience(&self) -> u64 {
        self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Rtt, SHORTEST};

    #[test]
    fn patience_follows_what_was_measured() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.took(1000);
        }
        assert_eq!(rtt.patience(), SHORTEST);
        for _ in 0..50 {
            rtt.took(100_000_000);
        }
        assert!((100_000_000..140_000_000).contains(&rtt.patience()), "{}", rtt.patience());
        rtt.took(u64::MAX / 8);
        assert_eq!(rtt.patience(), LONGEST);
    }
}
