//! What each address costs the relay: its connections, what comes through them, its failed logins and its new mailboxes,
//! and how much of each it may.
//!
//! The bounds that hold for one connection whatever its address are deliberately not here (see `session`). An address
//! is never logged and never counted by name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};

/// How long it takes until an address that used up its new connections, or its failed logins, has all of them again.
const REFILL_SECONDS: f64 = 120.0;

/// New connections in that time, for each that it may have at once.
const ARRIVALS: f64 = 2.0;

/// How long it takes until an address that used up its new mailboxes has all of them again.
const MAILBOX_REFILL_SECONDS: f64 = 3600.0;

/// How many seconds' worth of frames and bytes may come at once.
const BURST_SECONDS: f64 = 4.0;

/// Addresses remembered before those with nothing to remember are forgotten.
const ACCOUNTS: usize = 10_000;

/// How much one address may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    connections: usize,
    arrivals: Rate,
    failures: Rate,
    mailboxes: Rate,
    frames: Rate,
    bytes: Rate,
    /// This machine's own programs, a proxy among them, may come as often as they like.
    spares_loopback: bool,
}

/// What can be set about an allowance; see [`Config`](crate::Config).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) failed_logins: u32,
    pub(crate) new_mailboxes: u32,
    pub(crate) frames_per_second: u32,
    pub(crate) bytes_per_second: u32,
    pub(crate) spares_loopback: bool,
}

impl Allowance {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let within = |most: f64, seconds: f64| Rate {
            at_once: most,
            per_second: most / seconds,
        };
        let steady = |per_second: u32| {
            let per_second = f64::from(per_second.max(1));
            within(per_second * BURST_SECONDS, BURST_SECONDS)
        };
        Self {
            connections: bounds.connections,
            arrivals: within(bounds.connections as f64 * ARRIVALS, REFILL_SECONDS),
            failures: within(f64::from(bounds.failed_logins), REFILL_SECONDS),
            mailboxes: within(f64::from(bounds.new_mailboxes), MAILBOX_REFILL_SECONDS),
            frames: steady(bounds.frames_per_second),
            bytes: steady(bounds.bytes_per_second),
            spares_loopback: bounds.spares_loopback,
        }
    }
}

/// All addresses.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    allowance: Allowance,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug)]
struct Book {
    accounts: HashMap<IpAddr, Arc<Account>>,
    /// At how many to look for those with nothing to remember. Twice what was left last time, so that looking costs
    /// little for each that comes.
    sweep_at: usize,
}

impl Book {
    fn account(&mut self, network: IpAddr, allowance: Allowance, now: Instant) -> Arc<Account> {
        if self.accounts.len() >= self.sweep_at {
            // One that a connection still holds isn't forgotten: it counts on.
            self.accounts
                .retain(|_, account| Arc::strong_count(account) > 1 || !account.tally().is_blank(&allowance, now));
            self.sweep_at = ACCOUNTS.max(self.accounts.len() * 2);
        }
        let account = self.accounts.entry(network).or_insert_with(|| {
            Arc::new(Account {
                allowance,
                tally: Mutex::new(Tally::new(now)),
            })
        });
        Arc::clone(account)
    }
}

/// One address.
#[derive(Debug)]
struct Account {
    allowance: Allowance,
    tally: Mutex<Tally>,
}

impl Account {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }
}

#[derive(Debug)]
struct Tally {
    connections: usize,
    arrivals: Bucket,
    failures: Bucket,
    mailboxes: Bucket,
    frames: Bucket,
    bytes: Bucket,
}

impl Tally {
    fn new(now: Instant) -> Self {
        let full = Bucket::full(now);
        Self {
            connections: 0,
            arrivals: full,
            failures: full,
            mailboxes: full,
            frames: full,
            bytes: full,
        }
    }

    fn is_blank(&mut self, allowance: &Allowance, now: Instant) -> bool {
        self.connections == 0
            && self.arrivals.is_full(allowance.arrivals, now)
            && self.failures.is_full(allowance.failures, now)
            && self.mailboxes.is_full(allowance.mailboxes, now)
            && self.frames.is_full(allowance.frames, now)
            && self.bytes.is_full(allowance.bytes, now)
    }
}

/// One connection counted, until dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    account: Arc<Account>,
    spared: bool,
}

/// The address behind a connection, to be asked what it may.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visitor {
    /// None for whoever has no bounds: nothing to ask, nothing to lock.
    account: Option<Arc<Account>>,
}

impl Addresses {
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            book: Arc::new(Mutex::new(Book {
                accounts: HashMap::new(),
                sweep_at: ACCOUNTS,
            })),
        }
    }

    /// Counts a connection, unless as many as may be are there, or too many came lately.
    pub(crate) fn count(&self, address: IpAddr, now: Instant) -> Option<Counted> {
        let allowance = self.allowance;
        let account = lock(&self.book).account(network(address), allowance, now);
        let spared = allowance.spares_loopback && address.to_canonical().is_loopback();
        {
            let mut tally = account.tally();
            let comes_slowly = tally.arrivals.has(allowance.arrivals, now) || spared;
            if tally.connections >= allowance.connections || !comes_slowly {
                return None;
            }
            tally.arrivals.take(allowance.arrivals, now);
            tally.connections += 1;
        }
        Some(Counted { account, spared })
    }
}

impl Counted {
    /// Who it is.
    pub(crate) fn visitor(&self) -> Visitor {
        Visitor {
            account: (!self.spared).then(|| Arc::clone(&self.account)),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut tally = self.account.tally();
        tally.connections = tally.connections.saturating_sub(1);
    }
}

impl Visitor {
    /// Counts a frame of so many bytes, and says for how long nothing more should be read.
    pub(crate) fn sends(&self, frames: usize, bytes: usize, now: Instant) -> Option<Duration> {
        let account = self.account.as_ref()?;
        let mut tally = account.tally();
        let frames = tally.frames.spend(frames as f64, account.allowance.frames, now);
        let bytes = tally.bytes.spend(bytes as f64, account.allowance.bytes, now);
        frames.max(bytes)
    }

    /// Whether another login may be looked at, which costs a signature check.
    pub(crate) fn may_log_in(&self, now: Instant) -> bool {
        let may = |account: &Arc<Account>| account.tally().failures.has(account.allowance.failures, now);
        self.account.as_ref().is_none_or(may)
    }

    /// Counts a failed login.
    pub(crate) fn failed_login(&self, now: Instant) {
        if let Some(account) = &self.account {
            account.tally().failures.take(account.allowance.failures, now);
        }
    }

    /// Counts a new mailbox, if it may be.
    pub(crate) fn opens_mailbox(&self, now: Instant) -> bool {
        let may = |account: &Arc<Account>| account.tally().mailboxes.take(account.allowance.mailboxes, now);
        self.account.as_ref().is_none_or(may)
    }
}

/// Whoever panicked with the lock left numbers behind, which are as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One IPv4 address, or the /64 that one IPv6 customer has at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let bits = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const BOUNDS: Bounds = Bounds {
        connections: 2,
        failed_logins: 3,
        new_mailboxes: 2,
        frames_per_second: 10,
        bytes_per_second: 1000,
        spares_loopback: true,
    };

    fn addresses(connections: usize) -> Addresses {
        Addresses::new(Allowance::new(Bounds { connections, ..BOUNDS }))
    }

    #[test]
    fn an_address_is_counted_until_its_connection_ends() {
        let (addresses, now) = (addresses(1), Instant::now());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let first = addresses.count(one, now).unwrap();
        assert!(addresses.count(one, now).is_none());
        let other = "192.0.2.2".parse().unwrap();
        assert!(addresses.count(other, now).is_some());
        drop(first);
        assert!(addresses.count(one, now).is_some());
    }

    #[test]
    fn an_address_that_comes_too_often_has_to_wait_but_not_this_machine() {
        let (addresses, now) = (addresses(2), Instant::now());
        let comes = |address: &str, seconds| {
            let later = now + Duration::from_secs(seconds);
            addresses.count(address.parse().unwrap(), later).is_some()
        };
        assert!((0..4).all(|_| comes("192.0.2.1", 0)));
        assert!(!comes("192.0.2.1", 0));
        assert!(comes("192.0.2.1", 30));
        assert!(!comes("192.0.2.1", 30));
        assert!((0..10).all(|_| comes("127.0.0.1", 0) && comes("::1", 0)));
    }

    #[test]
    fn connections_of_one_address_share_what_it_may_send() {
        let (addresses, now) = (addresses(2), Instant::now());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let (first, second) = (
            addresses.count(address, now).unwrap(),
            addresses.count(address, now).unwrap(),
        );
        let later = |seconds| now + Duration::from_secs(seconds);
        let (first, second) = (first.visitor(), second.visitor());
        // Four seconds' worth of frames at once.
        assert!((0..40).all(|_| first.sends(1, 1, now).is_none()));
        assert_eq!(second.sends(1, 1, now), Some(Duration::from_millis(100)));
        assert_eq!(second.sends(1, 1, later(1)), None);
        // And of bytes.
        assert_eq!(first.sends(1, 4000, later(10)), None);
        assert_eq!(first.sends(1, 500, later(10)), Some(Duration::from_millis(500)));
    }

    #[test]
    fn failed_logins_and_new_mailboxes_are_bounded_and_come_back() {
        let (addresses, now) = (addresses(2), Instant::now());
        let counted = addresses.count("192.0.2.1".parse().unwrap(), now).unwrap();
        let visitor = counted.visitor();
        for _ in 0..3 {
            assert!(visitor.may_log_in(now));
            visitor.failed_login(now);
        }
        assert!(!visitor.may_log_in(now));
        assert!(visitor.may_log_in(now + Duration::from_secs(40)));
        assert!(visitor.opens_mailbox(now) && visitor.opens_mailbox(now) && !visitor.opens_mailbox(now));
        assert!(visitor.opens_mailbox(now + Duration::from_secs(1800)));
    }

    #[test]
    fn this_machine_is_spared_unless_it_is_told_otherwise() {
        let now = Instant::now();
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let visitor = |spares_loopback| {
            let bounds = Bounds {
                spares_loopback,
                ..BOUNDS
            };
            Addresses::new(Allowance::new(bounds)).count(loopback, now).unwrap()
        };
        let (spared, bounded) = (visitor(true), visitor(false));
        assert_eq!(spared.visitor().sends(1, 1 << 20, now), None);
        assert!(bounded.visitor().sends(1, 1 << 20, now).is_some());
        assert!((0..9).all(|_| spared.visitor().opens_mailbox(now)));
    }

    #[test]
    fn addresses_with_nothing_to_remember_are_forgotten() {
        let (addresses, now) = (addresses(2), Instant::now());
        for number in 0..u32::try_from(ACCOUNTS).unwrap() {
            let address = std::net::Ipv4Addr::from(number).into();
            addresses.count(address, now);
        }
        let later = now + Duration::from_secs(120);
        let _kept = addresses.count("192.0.2.1".parse().unwrap(), later);
        assert_eq!(lock(&addresses.book).accounts.len(), 1);
    }

    #[test]
    fn an_ipv6_customer_is_one_network_and_a_mapped_address_is_ipv4() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
