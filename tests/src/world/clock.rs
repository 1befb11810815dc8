//! The gate's clock in a test's hands: it stands still until it is moved.

use std::sync::{Arc, Mutex, PoisonError};

use countersign::clock::{Source, wall};

/// The hands of the gate's clock.
#[derive(Clone)]
pub struct Hands(Arc<Mutex<(u64, u64)>>);

impl Hands {
    /// Set to the present.
    pub(super) fn now() -> Self {
        Self(Arc::new(Mutex::new((wall(), 1_000_000))))
    }

    /// Time passes: so many ms.
    pub fn passes(&self, ms: u64) {
        self.change(|(wall, boot)| (wall + ms, boot + ms));
    }

    /// The wall clock is set to this time, and no time passes.
    pub fn is_set_to(&self, wall: u64) {
        self.change(|(_, boot)| (wall, boot));
    }

    /// What the wall clock says, in ms since 1970.
    #[must_use]
    pub fn wall(&self) -> u64 {
        self.read().0
    }

    fn change(&self, how: impl FnOnce((u64, u64)) -> (u64, u64)) {
        let mut hands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *hands = how(*hands);
    }
}

impl Source for Hands {
    fn read(&self) -> (u64, u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
