//! How the relay is: whether its office is alive, whether its store takes what is given to it, whether it's draining; and
//! with it what is counted, because whoever needs the one needs the other.
//!
//! Who may ask is deliberately not here (see `door` and `operator`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::memory::Memory;
use crate::metrics::Metrics;

/// After how long without a beat the office counts as hung. It beats every second, and a machine may be slow.
const HUNG_AFTER: Duration = Duration::from_secs(30);

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    state: Arc<State>,
    /// What the operator sees.
    pub(crate) metrics: Arc<Metrics>,
    /// What memory is left.
    pub(crate) memory: Memory,
}

#[derive(Debug)]
struct State {
    began: Instant,
    /// When the office last beat, in milliseconds since the beginning.
    beat: AtomicU64,
    well: AtomicBool,
    draining: AtomicBool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            beat: AtomicU64::new(0),
            well: AtomicBool::new(true),
            draining: AtomicBool::new(false),
        }
    }
}

/// What is wrong, in the order of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ailment {
    /// The office doesn't beat: only a restart helps.
    Hung,
    /// The relay is shutting down.
    Draining,
    /// The store takes nothing.
    Store,
    /// Memory is used up.
    Memory,
}

impl Ailment {
    /// In a word or two, for whoever asked.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Hung => "the office is hung\n",
            Self::Draining => "shutting down\n",
            Self::Store => "the store takes nothing\n",
            Self::Memory => "memory is used up\n",
        }
    }
}

impl Health {
    pub(crate) fn new(memory: Memory) -> Self {
        Self {
            memory,
            ..Self::default()
        }
    }

    /// The store takes what is given to it, or not.
    pub(crate) fn set(&self, well: bool) {
        self.state.well.store(well, Ordering::Relaxed);
    }

    /// The relay is shutting down.
    pub(crate) fn drain(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the relay is shutting down.
    pub(crate) fn is_draining(&self) -> bool {
        self.state.draining.load(Ordering::Relaxed)
    }

    /// The office is alive.
    pub(crate) fn beat(&self) {
        let now = self.state.began.elapsed().as_millis();
        self.state
            .beat
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What a restart would cure. A full disk isn't of that kind: restarting would only drop the connections.
    pub(crate) fn is_alive(&self) -> Result<(), Ailment> {
        let beat = Duration::from_millis(self.state.beat.load(Ordering::Relaxed));
        if self.state.began.elapsed().saturating_sub(beat) > HUNG_AFTER {
            Err(Ailment::Hung)
        } else {
            Ok(())
        }
    }

    /// Whether envelopes are taken now.
    pub(crate) fn is_ready(&self) -> Result<(), Ailment> {
        self.is_alive()?;
        if self.state.draining.load(Ordering::Relaxed) {
            Err(Ailment::Draining)
        } else if !self.state.well.load(Ordering::Relaxed) {
            Err(Ailment::Store)
        } else if self.memory.is_full() {
            Err(Ailment::Memory)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_relay_that_cannot_take_envelopes_is_alive_but_not_ready() {
        let health = Health::new(Memory::new(10));
        assert_eq!((health.is_alive(), health.is_ready()), (Ok(()), Ok(())));
        let _charge = health.memory.charge(10);
        assert_eq!(health.is_ready(), Err(Ailment::Memory));
        health.set(false);
        assert_eq!(health.is_ready(), Err(Ailment::Store));
        health.drain();
        assert_eq!(health.is_ready(), Err(Ailment::Draining));
        assert_eq!(health.is_alive(), Ok(()));
    }
}
