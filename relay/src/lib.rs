//! A blind relay: keeps envelopes that it cannot read and forwards them to whoever holds the mailbox key
//! (`PROTOCOL.md`, sections 3 to 5).
//!
//! What is inside an envelope, who says it and what it decides is deliberately not here, and can't be: this crate depends
//! on `wire` and on nothing else of ours.
//!
//! One envelope's way: [`Relay`] accepts a connection, `door` makes a websocket of it (in `tls`, if so set), `socket` reads its
//! frames and `session` speaks them, the `office`'s counter takes the orders, `desk` decides them over `mailbox`es and what is
//! `known`, `clerks` have the `store` write and read, and an `outbox` leads back to a session. Where several nodes share a
//! database, `shared` takes the place of office, desk, clerks and store.
//!
//! Beside it: `addresses` bound what each address may cost and `memory` what all may; `health` and `metrics` say how it
//! goes, and `operator` to whom.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, interval, timeout};
use wire::login::RelayName;

mod addresses;
mod bucket;
mod clerks;
pub mod cli;
mod config;
mod desk;
mod door;
mod health;
mod known;
mod mailbox;
mod memory;
mod metrics;
mod migrate;
mod office;
mod operator;
mod outbox;
mod session;
mod shared;
mod socket;
mod store;
mod tls;

pub use config::{Clock, Config, Store};
pub use migrate::{Copied, MigrateError, migrate};
pub use shared::{BadAddress, BusUrl, DatabaseUrl};
pub use store::StoreError;
pub use tls::{Certificate, Tls, TlsError};

use addresses::{Addresses, Allowance};
use desk::Bounds;
use health::Health;
use memory::Memory;
use metrics::{Limit, Metrics, Present};
use office::{Counter, Office};
use operator::Operator;
use session::{House, Person};

/// Files that a relay needs beside its connections: the store, its log and locks, the listener, the standard streams.
const OTHER_FILES: usize = 64;

/// Connections that the system keeps until they are accepted, if it keeps so many. Whoever doesn't fit tries again only after a second,
/// and after a restart everybody comes at once.
const BACKLOG: u32 = 4096;

/// How long the accept loop rests when the system gives it no more sockets: spinning would help nobody.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long connections may take to hear their last answers and the goodbye.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the store may take for what is left.
const LAST_FLUSH: Duration = Duration::from_secs(15);

/// How often the files of a certificate are looked at.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(10);

/// What a connection takes at least, with and without TLS: its task, its buffers and its queue.
const CONNECTION_COST: usize = 16 * 1024;
const TLS_COST: usize = 24 * 1024;

/// Why a relay can't start, or has to stop.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The store can't be used, or can't be trusted any more.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store didn't take what was left when the relay was told to stop.
    #[error("the store didn't finish in time")]
    Late,
    /// The task that owns the mailboxes is gone.
    #[error("the office stopped unexpectedly")]
    Office,
}

impl RelayError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "choose another address with --listen, or stop what uses this one",
            Self::Store(error) => error.hint(),
            Self::Tls(_) => "check both files of --tls-cert and --tls-key; the key has to be the certificate's",
            Self::Late => "check the disk; everything that was said to be stored is there",
            Self::Office => "start the relay again, and report what its log says",
        }
    }
}

/// Says whether a running relay is alive: for whoever watches over it from inside the process.
#[derive(Clone, Debug)]
pub struct Pulse {
    health: Health,
}

impl Pulse {
    /// Whether the task that owns the mailboxes still works.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.health.is_alive().is_ok()
    }
}

/// A relay that listens and has its store open.
pub struct Relay {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    office: Backend,
    counter: Counter,
    health: Health,
    certificate: Option<Certificate>,
    operator: Option<Operator>,
}

impl Relay {
    /// Opens the store and listens. Connections wait until [`Relay::run`].
    ///
    /// # Errors
    ///
    /// [`RelayError`], if the store can't be used or the address can't be listened on.
    pub async fn bind(config: Config) -> Result<Self, RelayError> {
        let certificate = config.tls.clone().map(Certificate::open).transpose()?;
        let health = Health::new(Memory::new(config.memory));
        let bounds = Bounds {
            mailboxes: config.max_mailboxes,
            bytes: config.max_bytes,
            puts: config.max_puts,
            abandoned_ms: u64::try_from(config.abandoned_after.as_millis()).unwrap_or(u64::MAX),
        };
        let (office, counter) = Backend::open(&config, bounds, health.clone()).await?;
        let refused = |address| move |source| RelayError::Listen { address, source };
        let listener = listen(config.listen).map_err(refused(config.listen))?;
        let address = listener.local_addr().map_err(refused(config.listen))?;
        let operator = match config.metrics {
            Some(address) => {
                let operator = Operator::bind(address, health.clone()).await;
                Some(operator.map_err(refused(address))?)
            }
            None => None,
        };
        warn(&config, address);
        Ok(Self {
            config,
            listener,
            address,
            office,
            counter,
            health,
            certificate,
            operator,
        })
    }

    /// The address it listens on, with the port that it really has.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address for the operator, if there is one, with the port that it really has.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.operator.as_ref().map(Operator::address)
    }

    /// The certificate, if connections are by TLS. It is looked after anyway; this is for who can't wait.
    #[must_use]
    pub fn certificate(&self) -> Option<Certificate> {
        self.certificate.clone()
    }

    /// Whether it is alive, to be asked while it runs.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse {
            health: self.health.clone(),
        }
    }

    /// Serves until `shutdown` is ready; then says goodbye to everybody, flushes and closes the store. Dropping the future
    /// instead stops everything where it is, as a crash would.
    ///
    /// # Errors
    ///
    /// [`RelayError::Store`] if the store can't be trusted any more: what it says then is worth nothing, and only opening
    /// it again can tell what it holds.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RelayError> {
        let Self {
            config,
            listener,
            office,
            counter,
            health,
            certificate,
            operator,
            ..
        } = self;
        let (stop, stopping) = watch::channel(false);
        let (finish, finished) = oneshot::channel();
        let mut work = JoinSet::new();
        work.spawn(office.run(finished));
        let mut beside = JoinSet::new();
        if let Some(certificate) = certificate.clone() {
            beside.spawn(look_after(certificate, Arc::clone(&health.metrics)));
        }
        let (end, ended) = oneshot::channel();
        let operator = operator.map(|operator| JoinSet::from_iter([operator.run(ended)]));
        let mut hall = Hall {
            limit: Arc::new(Semaphore::new(most_connections(config.max_connections))),
            addresses: Addresses::new(Allowance::new(addresses::Bounds {
                connections: config.max_connections_per_address,
                failed_logins: config.failed_logins_per_address,
                new_mailboxes: config.new_mailboxes_per_address,
                frames_per_second: config.frames_per_second_per_address,
                bytes_per_second: config.bytes_per_second_per_address,
                spares_loopback: config.spares_loopback,
            })),
            certificate,
            handshake_deadline: config.handshake_deadline,
            house: House {
                counter,
                names: with_short_names(config.names),
                login_deadline: config.login_deadline,
                keepalive: config.keepalive,
                stall_deadline: config.stall_deadline,
                stopping,
                health: health.clone(),
            },
            connections: JoinSet::new(),
        };
        let mut shutdown = pin!(shutdown);
        let stopped = loop {
            tokio::select! {
                () = &mut shutdown => break None,
                stopped = work.join_next() => break Some(verdict(stopped)),
                Some(_) = hall.connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => hall.receive(stream, peer),
                    Err(error) if is_the_peers(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "can't accept connections for now");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                }
            }
        };
        health.drain();
        drop(listener);
        tracing::info!("shutting down");
        stop.send(true).ok();
        let drained = async { while hall.connections.join_next().await.is_some() {} };
        timeout(DRAIN, drained).await.ok();
        drop(hall);
        let stopped = match stopped {
            Some(stopped) => stopped,
            None => {
                finish.send(()).ok();
                let stopped = timeout(LAST_FLUSH, work.join_next()).await;
                stopped.map_or(Err(RelayError::Late), verdict)
            }
        };
        // The operator can ask until the end.
        end.send(()).ok();
        if let Some(mut operator) = operator {
            operator.join_next().await;
        }
        stopped
    }
}

/// Who takes the orders of connections: an office that keeps its store alone, or a node's.
enum Backend {
    Alone(Box<Office>),
    Shared(Box<shared::Office>),
}

impl Backend {
    async fn open(config: &Config, bounds: Bounds, health: Health) -> Result<(Self, Counter), StoreError> {
        let clock = Arc::clone(&config.clock);
        match &config.store {
            Store::Sqlite(path) => {
                let store = store::Store::open(path).await?;
                let (office, counter) = Office::open(store, bounds, clock, health).await?;
                Ok((Self::Alone(Box::new(office)), counter))
            }
            Store::Postgres(url) => {
                let (bus, poll) = (config.bus.as_ref(), config.poll);
                let (office, counter) = shared::Office::open(url, bus, poll, bounds, clock, health).await?;
                Ok((Self::Shared(Box::new(office)), counter))
            }
        }
    }

    async fn run(self, finish: oneshot::Receiver<()>) -> Result<(), StoreError> {
        match self {
            Self::Alone(office) => office.run(finish).await,
            Self::Shared(office) => office.run(finish).await,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart needn't wait for what the last connections left behind.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What the operator should know before anybody connects.
fn warn(config: &Config, address: SocketAddr) {
    if config.tls.is_none() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            "no TLS: whoever is on the way sees who talks when, and can cut in; give --tls-cert and --tls-key, or let only a proxy reach this address"
        );
    }
    if config.tls.is_some() && config.names.is_empty() {
        tracing::warn!("no name: whoever dials this relay by a name can't log in; give --name");
    }
    if config
        .metrics
        .is_some_and(|metrics| !metrics.ip().to_canonical().is_loopback())
    {
        tracing::warn!("metrics are open to whoever reaches their address");
    }
}

/// Takes a new certificate when there is one.
async fn look_after(certificate: Certificate, metrics: Arc<Metrics>) {
    let mut looks = interval(CERTIFICATE_EVERY);
    loop {
        looks.tick().await;
        let certificate = certificate.clone();
        match spawn_blocking(move || certificate.reload_if_changed()).await {
            Ok(Ok(true)) => tracing::info!("new certificate in use"),
            Ok(Err(error)) => {
                metrics.certificates_refused.inc();
                tracing::error!(%error, "the new certificate can't be used; the old one stays");
            }
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}

fn verdict(stopped: Option<Result<Result<(), StoreError>, tokio::task::JoinError>>) -> Result<(), RelayError> {
    match stopped {
        Some(Ok(result)) => Ok(result?),
        Some(Err(_)) | None => Err(RelayError::Office),
    }
}

/// An error of one connection, which says nothing about the next.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// As configured, but never so many that the store can't open its files.
fn most_connections(configured: usize) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    configured
        .min(files.saturating_sub(OTHER_FILES))
        .clamp(1, Semaphore::MAX_PERMITS)
}

/// A client leaves the default port out of the name, an operator may not have.
fn with_short_names(names: Vec<RelayName>) -> Vec<RelayName> {
    let short: Vec<_> = names.iter().filter_map(RelayName::without_default_port).collect();
    names.into_iter().chain(short).collect()
}

/// Where connections are counted and received.
struct Hall {
    limit: Arc<Semaphore>,
    addresses: Addresses,
    certificate: Option<Certificate>,
    handshake_deadline: Duration,
    house: House,
    connections: JoinSet<()>,
}

impl Hall {
    fn receive(&mut self, stream: TcpStream, peer: SocketAddr) {
        let health = &self.house.health;
        let Ok(permit) = Arc::clone(&self.limit).try_acquire_owned() else {
            // Too many to spend a task on.
            return health.metrics.limited(Limit::Connections);
        };
        if health.memory.is_exhausted() {
            health.metrics.limited(Limit::Memory);
            return self.turn_away(stream, permit, "503 Service Unavailable", "memory is used up\n");
        }
        let Some(counted) = self.addresses.count(peer.ip(), Instant::now()) else {
            health.metrics.limited(Limit::Connections);
            return self.turn_away(stream, permit, "429 Too Many Requests", "too many connections\n");
        };
        let acceptor = self.certificate.as_ref().map(Certificate::acceptor);
        let cost = if acceptor.is_some() { TLS_COST } else { CONNECTION_COST };
        let (charge, stranger) = (health.memory.charge(cost), Present::new(&health.metrics.strangers));
        let (house, deadline) = (self.house.clone(), self.handshake_deadline);
        self.connections.spawn(async move {
            // Small messages that wait for each other would take 40 ms each.
            let prepared = stream.set_nodelay(true).and_then(|()| stream.local_addr());
            let Ok(local) = prepared else { return };
            let person = Person {
                local,
                visitor: counted.visitor(),
                stranger,
            };
            let _counted = (permit, counted);
            // In boxes of their own, so that a connection at rest doesn't hold the room that its beginning needed.
            let mut stopping = house.stopping.clone();
            let socket = tokio::select! {
                socket = Box::pin(door::enter(stream, acceptor, &house.health, charge, deadline)) => socket,
                _ = stopping.wait_for(|stopping| *stopping) => None,
            };
            if let Some(socket) = socket {
                Box::pin(session::serve(socket, person, house)).await;
            }
        });
    }

    /// Says so in plain words, which in TLS would cost more than they are worth.
    fn turn_away(&mut self, stream: TcpStream, permit: OwnedSemaphorePermit, status: &'static str, why: &'static str) {
        if self.certificate.is_none() {
            self.connections.spawn(async move {
                let _permit = permit;
                door::answer(stream.into(), status, why).await;
            });
        }
    }
}
