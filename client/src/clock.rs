//! The gate's clock: wall time that never runs backwards, so that nothing expired comes back to life.
//! Everything that judges takes the time as an argument; this is where it comes from.

use rustix::time::{ClockId, clock_gettime};

use approval::scalar::Time;

/// Wall time in ms since 1970, as the system has it now.
pub fn wall() -> u64 {
    millis(ClockId::Realtime)
}

/// Time since boot in ms. Counts while the machine is suspended.
fn since_boot() -> u64 {
    millis(ClockId::Boottime)
}

fn millis(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

/// Where a clock reads from; tests put their own in.
pub trait Source: Send {
    /// (wall time, time since boot), both in ms.
    fn read(&self) -> (u64, u64);
}

/// The machine's own clocks.
pub struct System;

impl Source for System {
    fn read(&self) -> (u64, u64) {
        (wall(), since_boot())
    }
}

/// A clock that is at least as late as everything it ever said, and moves on with the time since boot even
/// when somebody sets the wall clock back.
pub struct Clock {
    source: Box<dyn Source>,
    said: u64,
    boot: u64,
}

impl Clock {
    /// A clock that starts no earlier than `floor`: the last time that was written down.
    pub fn new(source: Box<dyn Source>, floor: u64) -> Self {
        let (_, boot) = source.read();
        Self {
            source,
            said: floor,
            boot,
        }
    }

    /// The time now, in ms since 1970.
    pub fn now(&mut self) -> Time {
        let (wall, boot) = self.source.read();
        let moved = self.said.saturating_add(boot.saturating_sub(self.boot));
        self.said = wall.max(moved);
        self.boot = boot;
        Time::of_clock(self.said)
    }

    /// By how many ms this clock is ahead of the wall clock; more than a little means that the wall clock was set back.
    pub fn ahead(&mut self) -> u64 {
        let now = self.now();
        now.millis().saturating_sub(self.source.read().0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone)]
    struct Hands(Arc<Mutex<(u64, u64)>>);

    impl Source for Hands {
        fn read(&self) -> (u64, u64) {
            *self.0.lock().unwrap()
        }
    }

    #[test]
    fn a_wall_clock_set_back_revives_nothing() {
        let hands = Hands(Arc::new(Mutex::new((1_000_000, 500))));
        let mut clock = Clock::new(Box::new(hands.clone()), 0);
        assert_eq!(clock.now().millis(), 1_000_000);
        *hands.0.lock().unwrap() = (400_000, 1_500);
        assert_eq!(
            clock.now().millis(),
            1_001_000,
            "an hour back, yet a second has passed since boot"
        );
        assert_eq!(clock.ahead(), 601_000);
        *hands.0.lock().unwrap() = (2_000_000, 1_600);
        assert_eq!(
            clock.now().millis(),
            2_000_000,
            "forward is believed: requests end early, which is safe"
        );
    }

    #[test]
    fn a_restart_begins_no_earlier_than_what_was_written() {
        let hands = Hands(Arc::new(Mutex::new((10, 10))));
        assert_eq!(Clock::new(Box::new(hands), 5_000).now().millis(), 5_000);
    }
}
