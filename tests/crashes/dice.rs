//! Chance that can be repeated: the seed is printed, and `COUNTERSIGN_CRASH_SEED` sets it. Not for secrets.

use std::time::Duration;

/// SplitMix64.
pub(crate) struct Dice(u64);

impl Dice {
    /// Thrown from the seed in the environment, or a new one; says which.
    pub(crate) fn of(test: &str) -> Self {
        let fresh = || {
            std::time::UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.subsec_nanos().into())
        };
        let seed = std::env::var("COUNTERSIGN_CRASH_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(fresh);
        println!("{test}: COUNTERSIGN_CRASH_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Any time up to this.
    pub(crate) fn within(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros.saturating_add(1)))
    }
}
