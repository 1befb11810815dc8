//! The gate's door for programs that speak HTTP: JSON on loopback, off unless asked for, and no wider than the unix socket behind it, to which
//! every route puts one question. What keeps a web page, another machine and another user out is in `http/guard.rs`; what is said is in
//! `http/routes.rs` and, for people and generators, in `http/openapi.json`. Decides nothing, and changes nothing about who may say yes: what can
//! be done here without an admin is to ask (abuse cases J04, J05, J08, J10, J12, J14, J15).

mod guard;
mod problem;
mod redeem;
mod routes;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use token::Token;

/// Where it listens when only told to listen: a port that is free, on this machine alone.
pub const ANYWHERE: &str = "127.0.0.1:0";

/// Longest body of a question, in bytes: as long as the question may be that it becomes.
pub const BODY_BYTES: usize = crate::local::MAX_LINE;

/// Connections at once: as many requests as may be open, each waited for, and as many again for those who ask.
const CONNECTIONS: usize = 128;

/// How long a client may take to say what it wants, and how long it may stay silent between two questions.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It would be open to other machines.
    #[error("{0} isn't an address of this machine alone")]
    NotLoopback(SocketAddr),
    /// The address is taken, or can't be had.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Its token can't be kept or read.
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    /// The file holds something else than a token.
    #[error("{} doesn't hold a token", .0.display())]
    Token(PathBuf),
}

/// A door that is open, but at which nobody answers yet.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    token: Token,
}

impl Door {
    /// Listens.
    ///
    /// # Errors
    /// [`HttpError::NotLoopback`] for an address that another machine could reach, else [`HttpError::Listen`].
    pub async fn open(address: SocketAddr, token: Token) -> Result<Self, HttpError> {
        if !guard::is_here(address) {
            return Err(HttpError::NotLoopback(address));
        }
        let failed = |source| HttpError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            token,
        })
    }

    /// Where, with the port that it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers, until it is dropped. Every question is put to the gate that listens on `socket`.
    pub async fn serve(self, socket: PathBuf) {
        let guard = Arc::new(guard::Guard::new(self.address.port(), self.token));
        let router = routes::router(routes::Gate::at(socket), guard);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Ends every connection with this future.
        let mut open = tokio::task::JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "can't take an http connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // The listening address sees to it already; this holds where the machine forwards what comes from outside.
            if !guard::is_here(peer) {
                tracing::warn!("an http connection from another machine was refused");
                continue;
            }
            let service = TowerToHyperService::new(router.clone());
            open.spawn(async move {
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_DEADLINE)
                    .max_buf_size(HEAD_BYTES)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "an http connection ended early");
                }
                drop(place);
            });
        }
    }
}

#[cfg(test)]
mod tests;
