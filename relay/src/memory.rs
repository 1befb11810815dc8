//! The ceiling on memory: what envelopes, queues and connections take is counted, and above the ceiling nothing more is
//! accepted.
//!
//! What the allocator really takes is deliberately not here: it gives back late, and a relay that refuses because of what
//! it needed yesterday would refuse for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is counted, shared by all who take memory.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    used: Arc<AtomicUsize>,
    ceiling: usize,
}

impl Default for Memory {
    /// Without a ceiling.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Memory {
    pub(crate) fn new(ceiling: usize) -> Self {
        Self {
            used: Arc::default(),
            ceiling,
        }
    }

    /// How many bytes are taken.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether no more envelopes should be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.ceiling
    }

    /// Whether not even a connection should be. An eighth above the ceiling, so that readers can still come and empty
    /// their mailboxes when envelopes have used up what there is.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.used() >= self.ceiling.saturating_add(self.ceiling / 8)
    }

    /// Counts bytes that are taken; whoever takes them gives them back.
    pub(crate) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are given back.
    pub(crate) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes until the charge is dropped.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        self.take(bytes);
        Charge {
            memory: self.clone(),
            bytes,
        }
    }
}

/// Bytes counted, until dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    memory: Memory,
    bytes: usize,
}

impl Charge {
    /// It's so many bytes now.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.memory.take(bytes - self.bytes);
        } else {
            self.memory.give(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// How many bytes are charged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it is counted.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_charge_is_given_back_whatever_it_became() {
        let memory = Memory::new(800);
        let mut charge = memory.charge(700);
        assert!(!memory.is_full());
        charge.set(899);
        assert!(memory.is_full() && !memory.is_exhausted());
        charge.set(900);
        assert!(memory.is_exhausted());
        charge.set(10);
        assert_eq!(memory.used(), 10);
        drop(charge);
        assert_eq!(memory.used(), 0);
    }
}
