//! What is counted for the operator, in the format of OpenMetrics.
//!
//! Mailboxes, keys, addresses and whatever else tells people apart are deliberately not here: each label has few values,
//! all of them in this file. Who may ask is in `operator`.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};
use wire::frame::Reason;

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) accepted: Counter,
    pub(crate) stored_flushed: Counter,
    pub(crate) stored_acknowledged: Counter,
    pub(crate) delivered: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) expired: Counter,
    refused: [Counter; REASONS.len()],
    pub(crate) flush_seconds: Histogram,
    pub(crate) group_puts: Histogram,
    pub(crate) queued: Gauge,
    pub(crate) unflushed: Gauge,
    pub(crate) waiting_envelopes: Gauge,
    pub(crate) waiting_bytes: Gauge,
    pub(crate) mailboxes: Gauge,
    pub(crate) readers: Gauge,
    pub(crate) puts_known: Gauge,
    pub(crate) strangers: Gauge,
    pub(crate) members: Gauge,
    pub(crate) logins_failed: Counter,
    limited: [Counter; LIMITS.len()],
    pub(crate) certificates_refused: Counter,
    counted: Gauge,
    resident: Gauge,
}

/// What somebody had too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections at once or in a time.
    Connections,
    /// Frames or bytes in a time, or refused puts.
    Traffic,
    /// Failed logins.
    Logins,
    /// New mailboxes.
    Mailboxes,
    /// Memory, which all share.
    Memory,
}

const LIMITS: [(Limit, &str); 5] = [
    (Limit::Connections, "connections"),
    (Limit::Traffic, "traffic"),
    (Limit::Logins, "logins"),
    (Limit::Mailboxes, "mailboxes"),
    (Limit::Memory, "memory"),
];

const REASONS: [(Reason, &str); 8] = [
    (Reason::NotAllowed, "not_allowed"),
    (Reason::EnvelopeQuota, "envelope_quota"),
    (Reason::ByteQuota, "byte_quota"),
    (Reason::Length, "length"),
    (Reason::NotStored, "not_stored"),
    (Reason::Ttl, "ttl"),
    (Reason::Busy, "busy"),
    (Reason::IdUsed, "id_used"),
];

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("countersign_relay"),
            accepted: Counter::default(),
            stored_flushed: Counter::default(),
            stored_acknowledged: Counter::default(),
            delivered: Counter::default(),
            acknowledged: Counter::default(),
            expired: Counter::default(),
            refused: Default::default(),
            // From 100 µs, a good disk, to 13 s, a dying one.
            flush_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            group_puts: Histogram::new(exponential_buckets(1.0, 4.0, 7)),
            queued: Gauge::default(),
            unflushed: Gauge::default(),
            waiting_envelopes: Gauge::default(),
            waiting_bytes: Gauge::default(),
            mailboxes: Gauge::default(),
            readers: Gauge::default(),
            puts_known: Gauge::default(),
            strangers: Gauge::default(),
            members: Gauge::default(),
            logins_failed: Counter::default(),
            limited: Default::default(),
            certificates_refused: Counter::default(),
            counted: Gauge::default(),
            resident: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register("accepted", "Puts accepted", self.accepted.clone());
        let stored = Parts {
            label: "how",
            parts: vec![
                ("flushed", self.stored_flushed.clone()),
                ("acknowledged", self.stored_acknowledged.clone()),
            ],
        };
        registry.register("stored", "Envelopes said to be stored, by how", stored);
        registry.register("delivered", "Envelopes given to readers", self.delivered.clone());
        registry.register(
            "acknowledged",
            "Envelopes acknowledged by their readers",
            self.acknowledged.clone(),
        );
        registry.register("expired", "Envelopes deleted unread", self.expired.clone());
        let refused = parts("reason", &REASONS, &self.refused);
        registry.register("refused", "Refusals sent, by reason", refused);
        registry.register_with_unit(
            "flush",
            "Time to flush a group of puts",
            Unit::Seconds,
            self.flush_seconds.clone(),
        );
        registry.register("group_puts", "Puts flushed together", self.group_puts.clone());
        registry.register(
            "queued_orders",
            "Requests that wait to be looked at",
            self.queued.clone(),
        );
        registry.register(
            "unflushed_envelopes",
            "Envelopes accepted and not yet flushed",
            self.unflushed.clone(),
        );
        registry.register(
            "waiting_envelopes",
            "Envelopes that wait to be acknowledged",
            self.waiting_envelopes.clone(),
        );
        registry.register("waiting_bytes", "Their bytes", self.waiting_bytes.clone());
        registry.register(
            "mailboxes",
            "Mailboxes, those closed lately included",
            self.mailboxes.clone(),
        );
        registry.register("readers", "Mailboxes that are being read", self.readers.clone());
        registry.register(
            "known_puts",
            "Puts remembered, so that none counts twice",
            self.puts_known.clone(),
        );
        let sockets = Parts {
            label: "login",
            parts: vec![("before", self.strangers.clone()), ("after", self.members.clone())],
        };
        registry.register("sockets", "Connections, before and after login", sockets);
        registry.register("logins_failed", "Logins refused", self.logins_failed.clone());
        registry.register(
            "rate_limited",
            "Times that somebody was turned away or slowed down, by what there was too much of",
            parts("limit", &LIMITS, &self.limited),
        );
        registry.register(
            "certificates_refused",
            "Times that a changed certificate couldn't be used",
            self.certificates_refused.clone(),
        );
        registry.register(
            "memory_counted_bytes",
            "Memory that envelopes, queues and connections take, as counted for the ceiling",
            self.counted.clone(),
        );
        registry.register(
            "memory_resident_bytes",
            "Memory that the process has from the system",
            self.resident.clone(),
        );
    }

    /// A refusal is sent.
    pub(crate) fn refused(&self, reason: Reason) {
        count(&REASONS, &self.refused, reason);
    }

    /// Somebody is turned away or slowed down.
    pub(crate) fn limited(&self, limit: Limit) {
        count(&LIMITS, &self.limited, limit);
    }

    /// Everything, as OpenMetrics text.
    pub(crate) fn text(&self, counted: usize) -> String {
        self.counted.set(measure(counted));
        self.resident.set(resident_bytes().unwrap_or(0));
        let mut text = String::new();
        // Writing to a string doesn't fail.
        text::encode(&mut text, &self.registry).ok();
        text
    }
}

/// One more in a gauge, until dropped.
#[derive(Debug)]
pub(crate) struct Present {
    gauge: Gauge,
}

impl Present {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self { gauge: gauge.clone() }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// A gauge's value.
pub(crate) fn measure(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count<K: PartialEq>(names: &[(K, &str)], counters: &[Counter], what: K) {
    let mut found = names.iter().zip(counters).filter(|((known, _), _)| *known == what);
    if let Some((_, counter)) = found.next() {
        counter.inc();
    }
}

fn parts<K>(label: &'static str, names: &[(K, &'static str)], counters: &[Counter]) -> Parts<Counter> {
    let parts = names.iter().zip(counters);
    Parts {
        label,
        parts: parts.map(|((_, name), counter)| (*name, counter.clone())).collect(),
    }
}

/// Metrics of one name that a label tells apart. All of them are there from the start, so that a rate can be told from
/// the first event on.
#[derive(Debug)]
struct Parts<M> {
    label: &'static str,
    parts: Vec<(&'static str, M)>,
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Parts<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (value, metric) in &self.parts {
            let label = [(self.label, *value)];
            metric.encode(encoder.encode_family(&label)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// The second number of this file is the resident set, in pages.
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn every_count_is_there_from_the_start_and_goes_to_its_own_line() {
        let metrics = Metrics::default();
        metrics.refused(Reason::Busy);
        metrics.limited(Limit::Logins);
        metrics.stored_flushed.inc();
        let text = metrics.text(77);
        for line in [
            "countersign_relay_refused_total{reason=\"busy\"} 1",
            "countersign_relay_refused_total{reason=\"id_used\"} 0",
            "countersign_relay_rate_limited_total{limit=\"logins\"} 1",
            "countersign_relay_stored_total{how=\"flushed\"} 1",
            "countersign_relay_stored_total{how=\"acknowledged\"} 0",
            "countersign_relay_flush_seconds_count 0",
            "countersign_relay_memory_counted_bytes 77",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let resident = text
            .lines()
            .find_map(|line| line.strip_prefix("countersign_relay_memory_resident_bytes "));
        assert!(resident.unwrap().parse::<u64>().unwrap() > 1 << 20);
    }
}
