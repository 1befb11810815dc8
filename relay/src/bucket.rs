//! A token bucket: so much at once, and so much more each second.
//!
//! What a token is, and what happens to whoever has none, is deliberately not here.

use std::time::Duration;

use tokio::time::Instant;

/// How much a bucket holds and how fast it is filled again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) at_once: f64,
    pub(crate) per_second: f64,
}

/// See the module. It starts full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Missing from a full bucket; more than it holds is a debt.
    missing: f64,
    since: Instant,
}

impl Bucket {
    pub(crate) fn full(now: Instant) -> Self {
        Self {
            missing: 0.0,
            since: now,
        }
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        let there = self.missing + 1.0 <= rate.at_once;
        if there {
            self.missing += 1.0;
        }
        there
    }

    /// Whether a token is there.
    pub(crate) fn has(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.missing + 1.0 <= rate.at_once
    }

    /// Takes tokens whether they are there or not, and says how long it takes until the debt is paid.
    pub(crate) fn spend(&mut self, tokens: f64, rate: Rate, now: Instant) -> Option<Duration> {
        self.fill(rate, now);
        self.missing += tokens;
        let debt = self.missing - rate.at_once;
        (debt > 0.0).then(|| Duration::try_from_secs_f64(debt / rate.per_second).unwrap_or(Duration::MAX))
    }

    /// Puts one back.
    pub(crate) fn give(&mut self) {
        self.missing = (self.missing - 1.0).max(0.0);
    }

    /// Whether nothing is missing.
    pub(crate) fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.missing <= 0.0
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let since = now.saturating_duration_since(self.since).as_secs_f64();
        self.missing = (self.missing - since * rate.per_second).max(0.0);
        self.since = self.since.max(now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const RATE: Rate = Rate {
        at_once: 4.0,
        per_second: 2.0,
    };

    #[test]
    fn a_bucket_gives_what_it_holds_and_is_filled_with_time() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut bucket = Bucket::full(now);
        assert!((0..4).all(|_| bucket.take(RATE, now)));
        assert!(!bucket.take(RATE, now));
        assert!(bucket.take(RATE, later(1)) && bucket.take(RATE, later(1)) && !bucket.take(RATE, later(1)));
        bucket.give();
        assert!(bucket.take(RATE, later(1)));
        // However long it takes, it never holds more.
        assert!(bucket.is_full(RATE, later(1000)));
        assert!((0..4).all(|_| bucket.take(RATE, later(1000))) && !bucket.has(RATE, later(1000)));
        // A clock that stands still, or an older reading of it, gives nothing.
        assert!(!bucket.take(RATE, now));
    }

    #[test]
    fn a_debt_says_how_long_to_wait() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        assert_eq!(bucket.spend(4.0, RATE, now), None);
        assert_eq!(bucket.spend(3.0, RATE, now), Some(Duration::from_millis(1500)));
        assert_eq!(bucket.spend(1.0, RATE, now + Duration::from_secs(2)), None);
    }
}
