//! A blind relay: keeps envelopes that it cannot read and forwards them to whoever holds the mailbox key
//! (`PROTOCOL.md`, sections 3 to 5).
//!
//! What is inside an envelope, who says it and what it decides is deliberately not here, and can't be: this crate depends
//! on `wire` and on nothing else of ours.
//!
//! One envelope's way: [`Relay`] accepts a socket, `door` makes a websocket of it, `session` speaks the frames, `office`
//! takes the orders, `desk` decides them over `mailbox`es, `clerks` have the `store` write and read, and an `outbox` leads
//! back to a session.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use wire::login::RelayName;

mod clerks;
pub mod cli;
mod config;
mod desk;
mod door;
mod mailbox;
mod office;
mod outbox;
mod session;
mod store;

pub use config::{Clock, Config, Store};
pub use store::StoreError;

use desk::Bounds;
use door::Addresses;
use office::{Counter, Office};
use session::House;

/// Files that a relay needs beside its connections: the store, its log and locks, the listener, the standard streams.
const OTHER_FILES: usize = 64;

/// How long the accept loop rests when the system gives it no more sockets: spinning would help nobody.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long connections may take to hear the goodbye.
const DRAIN: Duration = Duration::from_secs(5);

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
            Self::Office => "start the relay again, and report what its log says",
        }
    }
}

/// Whether the store takes what is given to it.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    well: Arc<AtomicBool>,
}

impl Health {
    fn new() -> Self {
        Self {
            well: Arc::new(AtomicBool::new(true)),
        }
    }

    pub(crate) fn set(&self, well: bool) {
        self.well.store(well, Ordering::Relaxed);
    }

    pub(crate) fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }
}

/// A relay that listens and has its store open.
pub struct Relay {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    office: Office,
    counter: Counter,
    health: Health,
}

impl Relay {
    /// Opens the store and listens. Connections wait until [`Relay::run`].
    ///
    /// # Errors
    ///
    /// [`RelayError`], if the store can't be used or the address can't be listened on.
    pub async fn bind(config: Config) -> Result<Self, RelayError> {
        let Store::Sqlite(path) = &config.store;
        let store = store::Store::open(path).await?;
        let health = Health::new();
        let bounds = Bounds {
            mailboxes: config.max_mailboxes,
            bytes: config.max_bytes,
            puts: config.max_puts,
        };
        let (office, counter) = Office::open(store, bounds, Arc::clone(&config.clock), health.clone()).await?;
        let refused = |source| RelayError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self {
            config,
            listener,
            address,
            office,
            counter,
            health,
        })
    }

    /// The address it listens on, with the port that it really has.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
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
            ..
        } = self;
        let (stop, stopping) = watch::channel(false);
        let (finish, finished) = oneshot::channel();
        let mut work = JoinSet::new();
        work.spawn(office.run(finished));
        let mut hall = Hall {
            limit: Arc::new(Semaphore::new(most_connections(config.max_connections))),
            addresses: Addresses::default(),
            most_per_address: config.max_connections_per_address,
            handshake_deadline: config.handshake_deadline,
            house: House {
                counter,
                names: with_short_names(config.names),
                login_deadline: config.login_deadline,
                keepalive: config.keepalive,
                stall_deadline: config.stall_deadline,
                stopping,
            },
            health,
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
        drop(listener);
        tracing::info!("shutting down");
        stop.send(true).ok();
        let drained = async { while hall.connections.join_next().await.is_some() {} };
        timeout(DRAIN, drained).await.ok();
        drop(hall);
        if let Some(stopped) = stopped {
            return stopped;
        }
        finish.send(()).ok();
        verdict(work.join_next().await)
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
    most_per_address: usize,
    handshake_deadline: Duration,
    house: House,
    health: Health,
    connections: JoinSet<()>,
}

impl Hall {
    fn receive(&mut self, stream: TcpStream, peer: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.limit).try_acquire_owned() else {
            // Too many to spend a task on.
            return;
        };
        let Some(counted) = self.addresses.count(peer.ip(), self.most_per_address, Instant::now()) else {
            self.connections.spawn(turn_away(stream, permit));
            return;
        };
        let (house, health) = (self.house.clone(), self.health.clone());
        let deadline = self.handshake_deadline;
        self.connections.spawn(async move {
            let _counted = (permit, counted);
            // Small messages that wait for each other would take 40 ms each.
            let prepared = stream.set_nodelay(true).and_then(|()| stream.local_addr());
            let Ok(local) = prepared else { return };
            // In boxes of their own, so that a connection at rest doesn't hold the room that its beginning needed.
            let mut stopping = house.stopping.clone();
            let socket = tokio::select! {
                socket = Box::pin(door::enter(stream, &health, deadline)) => socket,
                _ = stopping.wait_for(|stopping| *stopping) => None,
            };
            if let Some(socket) = socket {
                Box::pin(session::serve(socket, local, house)).await;
            }
        });
    }
}

async fn turn_away(stream: TcpStream, _permit: OwnedSemaphorePermit) {
    door::answer(stream, "429 Too Many Requests", "too many connections\n").await;
}
