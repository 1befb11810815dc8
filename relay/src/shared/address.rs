//! Where the database and the bus are. Both addresses may hold a password, so neither is ever shown.
//!
//! Speaking to them is deliberately not here (see `database` and `bus`).

use std::fmt;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// What every connection asks of the server. An acknowledged commit is on its disk; a node that died or hangs holds up the
/// others only so long; every lookup is by index, whatever the statistics of a busy queue make the planner believe.
const SETTINGS: [(&str, &str); 11] = [
    ("synchronous_commit", "on"),
    ("lock_timeout", "5s"),
    ("statement_timeout", "15s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// The address isn't one. It isn't quoted, because it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} address")]
pub struct BadAddress {
    kind: &'static str,
}

/// The address of a PostgreSQL database, `postgres://user:password@host/database`. What it leaves out comes from libpq's
/// environment variables and `.pgpass`.
#[derive(Clone)]
pub struct DatabaseUrl {
    options: Box<PgConnectOptions>,
}

impl DatabaseUrl {
    /// Whether this looks like the address of a database rather than a path.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("postgres://") || text.starts_with("postgresql://")
    }

    /// What a node connects with.
    pub(crate) fn options(&self) -> PgConnectOptions {
        *self.options.clone()
    }
}

impl FromStr for DatabaseUrl {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = BadAddress { kind: "postgres://" };
        if !Self::is_meant(text) {
            return Err(bad);
        }
        let options = PgConnectOptions::from_str(text).map_err(|_| bad)?;
        let options = options
            .application_name("countersign-relay")
            .options(SETTINGS)
            .disable_statement_logging();
        Ok(Self {
            options: Box::new(options),
        })
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("postgres://…")
    }
}

/// The address of a NATS server, `nats://user:password@host` or `tls://…`; several are separated by commas.
#[derive(Clone)]
pub struct BusUrl {
    servers: Vec<async_nats::ServerAddr>,
}

impl BusUrl {
    /// The servers to try.
    pub(crate) fn servers(&self) -> Vec<async_nats::ServerAddr> {
        self.servers.clone()
    }

    /// What the servers want to hear, which the client doesn't take from their addresses by itself: a name alone is a token.
    pub(crate) fn credentials(&self) -> async_nats::ConnectOptions {
        let options = async_nats::ConnectOptions::new();
        let named = self
            .servers
            .iter()
            .find_map(|server| Some((server.username()?, server.password())));
        match named {
            Some((user, Some(password))) => options.user_and_password(unescaped(user), unescaped(password)),
            Some((token, None)) => options.token(unescaped(token)),
            None => options,
        }
    }
}

impl FromStr for BusUrl {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = BadAddress { kind: "nats://" };
        let servers: Result<Vec<_>, _> = text
            .split(',')
            .map(|server| {
                let meant = server.starts_with("nats://") || server.starts_with("tls://");
                server
                    .parse()
                    .map_err(|_| bad)
                    .and_then(|server| meant.then_some(server).ok_or(bad))
            })
            .collect();
        Ok(Self { servers: servers? })
    }
}

impl fmt::Debug for BusUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("nats://…")
    }
}

/// With `%40` and the like as what they stand for.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high * 16 + low));
                rest = ahead;
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_password_is_taken_as_it_was_before_it_was_escaped() {
        assert_eq!(unescaped("se%3acr%C3%A9t%"), "se:crét%");
        assert_eq!(unescaped("100%2"), "100%2");
    }

    #[test]
    fn an_address_never_shows_its_password() {
        let database: DatabaseUrl = "postgres://relay:hunter2@db.example.org/relay".parse().unwrap();
        let bus: BusUrl = "nats://relay:hunter2@a.example.org,tls://b.example.org"
            .parse()
            .unwrap();
        assert!(!format!("{database:?} {bus:?}").contains("hunter2"));
        assert_eq!(bus.servers().len(), 2);
        let refused = "postgres://relay:hunter2@db.example.org:port/relay".parse::<DatabaseUrl>();
        assert!(!refused.unwrap_err().to_string().contains("hunter2"));
        assert!("/var/lib/relay.db".parse::<DatabaseUrl>().is_err());
        assert!("http://a.example.org".parse::<BusUrl>().is_err());
    }
}
