//! What can be set about a relay, with its defaults. This struct is the manual; the command line and the file fill it in.
//!
//! The bounds of the protocol are deliberately not here: they are the same for everyone (`wire::limits`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wire::limits::{HANDSHAKE_DEADLINE, LOGIN_DEADLINE};
use wire::login::RelayName;

use crate::{BusUrl, DatabaseUrl, Tls};

/// Says what time it is, in milliseconds since 1970. Tests bring their own.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where envelopes are kept.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this SQLite file, which is made if there is none.
    Sqlite(PathBuf),
    /// In this PostgreSQL database, which several relays may share as nodes of one.
    Postgres(DatabaseUrl),
}

/// A relay's settings.
#[derive(Clone)]
pub struct Config {
    /// The address to listen on; port 0 takes any free one. Default `127.0.0.1:7447`.
    pub listen: SocketAddr,
    /// Where envelopes are kept. Default `countersign-relay.db` in the working directory.
    pub store: Store,
    /// The NATS servers over which nodes that share a database wake each other. Default none: then they only poll.
    pub bus: Option<BusUrl>,
    /// How often a node looks for what other nodes took for its readers, hint or not. Default 1 s.
    pub poll: Duration,
    /// The names that clients dial. Default none: then it is the local address of each accepted socket.
    pub names: Vec<RelayName>,
    /// The certificate to speak TLS with. Default none: then it speaks plain websocket, for loopback or behind a proxy.
    pub tls: Option<Tls>,
    /// Where `/metrics`, `/healthz` and `/readyz` are answered over plain HTTP, to anyone. Default nowhere; the two about
    /// health are answered on the first address too.
    pub metrics: Option<SocketAddr>,
    /// Most bytes of memory for envelopes, queues and connections, as counted; about what the process takes beyond its
    /// first 30 MiB. Above it puts are refused as busy, an eighth above it connections too. Default 512 MiB.
    pub memory: usize,
    /// Most connections at once; fewer if the process may open fewer files. Default 10,000.
    pub max_connections: usize,
    /// Most connections at once from one IPv4 address or one IPv6 /64; twice as many may come within two minutes, and this
    /// machine's own as often as they like. Default 256; raise it behind a proxy elsewhere, which is one address for
    /// everybody.
    pub max_connections_per_address: usize,
    /// Most failed logins of one address within two minutes; then none is looked at. Default 20.
    pub failed_logins_per_address: u32,
    /// Most new mailboxes of one address within an hour. Default 600.
    pub new_mailboxes_per_address: u32,
    /// Most frames of one address each second, four times as many at once; beyond, it is read more slowly. Default 5,000.
    pub frames_per_second_per_address: u32,
    /// The same for bytes. Default 16 MiB.
    pub bytes_per_second_per_address: u32,
    /// Whether this machine's own addresses may come, fail, open and send as much as they like; a proxy on it would
    /// otherwise be one address for everybody. How many connections they have at once is bounded anyway. Default true.
    pub spares_loopback: bool,
    /// Most mailboxes, those closed within 30 days included. Default 100,000.
    pub max_mailboxes: usize,
    /// After how long a mailbox is closed whose owner hasn't come and in which nothing waits. Default 365 days: an admin may stay away
    /// for long, and nobody would let it in again by itself.
    pub abandoned_after: Duration,
    /// Most bytes of waiting envelopes over all mailboxes. Default 8 GiB.
    pub max_bytes: u64,
    /// Most puts remembered over all mailboxes: about 24 bytes of memory and 100 of disk each. Default 20,000,000.
    pub max_puts: usize,
    /// How long a connection may take to become a websocket. Default 5 s.
    pub handshake_deadline: Duration,
    /// How long a connection may take to log in. Default 10 s.
    pub login_deadline: Duration,
    /// After how long a silence a connection is asked whether it lives; after 2.5 times that it is dead. Default 30 s.
    pub keepalive: Duration,
    /// How long writing to a connection may stand still. Default 10 s.
    pub stall_deadline: Duration,
    /// The clock that ttl and receipt go by. Default: the system's.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7447)),
            store: Store::Sqlite("countersign-relay.db".into()),
            bus: None,
            poll: Duration::from_secs(1),
            names: Vec::new(),
            tls: None,
            metrics: None,
            memory: 512 * 1024 * 1024,
            max_connections: 10_000,
            max_connections_per_address: 256,
            failed_logins_per_address: 20,
            new_mailboxes_per_address: 600,
            frames_per_second_per_address: 5000,
            bytes_per_second_per_address: 16 * 1024 * 1024,
            spares_loopback: true,
            abandoned_after: Duration::from_secs(365 * 24 * 3600),
            max_mailboxes: 100_000,
            max_bytes: 8 * 1024 * 1024 * 1024,
            max_puts: 20_000_000,
            handshake_deadline: HANDSHAKE_DEADLINE,
            login_deadline: LOGIN_DEADLINE,
            keepalive: Duration::from_secs(30),
            stall_deadline: Duration::from_secs(10),
            clock: Arc::new(system_time),
        }
    }
}

fn system_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
