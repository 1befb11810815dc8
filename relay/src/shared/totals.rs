//! How much the relay keeps over all nodes: measured every few seconds, and reckoned on in between.
//!
//! Exact figures are deliberately not here: one row that counts everything would have every node wait for every other.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Totals {
    mailboxes: AtomicU64,
    envelopes: AtomicU64,
    bytes: AtomicU64,
    puts: AtomicU64,
}

impl Totals {
    /// What was measured.
    pub(super) fn set(&self, [mailboxes, envelopes, bytes, puts]: [u64; 4]) {
        self.mailboxes.store(mailboxes, Ordering::Relaxed);
        self.envelopes.store(envelopes, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.puts.store(puts, Ordering::Relaxed);
    }

    /// This node accepted envelopes of these lengths.
    pub(super) fn add(&self, lengths: impl Iterator<Item = u64>) {
        for length in lengths {
            self.envelopes.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(length, Ordering::Relaxed);
            self.puts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Readers of this node acknowledged envelopes.
    pub(super) fn acknowledged(&self, envelopes: u64, bytes: u64) {
        let less = |total: &AtomicU64, gone: u64| {
            total
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
                    Some(value.saturating_sub(gone))
                })
                .ok();
        };
        less(&self.envelopes, envelopes);
        less(&self.bytes, bytes);
    }

    pub(super) fn mailboxes(&self) -> u64 {
        self.mailboxes.load(Ordering::Relaxed)
    }

    pub(super) fn envelopes(&self) -> u64 {
        self.envelopes.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn puts(&self) -> u64 {
        self.puts.load(Ordering::Relaxed)
    }
}
