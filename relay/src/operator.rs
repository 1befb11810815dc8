//! The operator's own address: `/healthz`, `/readyz` and `/metrics` over plain HTTP.
//!
//! Strangers are deliberately not here: it's off unless asked for, and is meant for loopback or a network of the
//! operator's. It answers until the relay has stopped, also while it drains.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::door::{Stream, answer, answer_as, page, read_request};
use crate::health::Health;

/// Most who are answered at a time: a monitor or two, and somebody at a terminal.
const AT_ONCE: usize = 16;

/// How long a request may take to come.
const DEADLINE: Duration = Duration::from_secs(5);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long to rest when the system gives no more sockets.
const REST: Duration = Duration::from_millis(100);

/// The address, listened on.
pub(crate) struct Operator {
    listener: TcpListener,
    address: SocketAddr,
    health: Health,
}

impl Operator {
    pub(crate) async fn bind(address: SocketAddr, health: Health) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            health,
        })
    }

    /// The address it listens on, with the port that it really has.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until told that it's the end, and then whoever is asking.
    pub(crate) async fn run(self, mut end: oneshot::Receiver<()>) {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut answers = JoinSet::new();
        loop {
            while answers.try_join_next().is_some() {}
            let accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepted => accepted,
                _ = &mut end => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let health = self.health.clone();
                    answers.spawn(async move {
                        let _permit = permit;
                        reply(stream.into(), &health).await;
                    });
                }
                Err(_) => sleep(REST).await,
            }
        }
        drop(self.listener);
        while answers.join_next().await.is_some() {}
    }
}

async fn reply(mut stream: Stream, health: &Health) {
    let Ok(Ok(request)) = timeout(DEADLINE, read_request(&mut stream)).await else {
        return;
    };
    let path = request.uri().path();
    if path == "/metrics" {
        let text = health.metrics.text(health.memory.used());
        return answer_as(stream, "200 OK", OPENMETRICS, &text).await;
    }
    let nothing = ("404 Not Found", "there are /metrics, /healthz and /readyz\n");
    let (status, words) = page(path, health).unwrap_or(nothing);
    answer(stream, status, words).await;
}
