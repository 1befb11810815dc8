//! The relay as a process, on a port that stays the same, and what lies in its store.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::child::{Bell, Process};
use super::party::{beside, close, kill, programs, terminate};

/// A relay: its store stays when it doesn't.
pub struct Relay {
    /// Where it keeps envelopes.
    pub store: PathBuf,
    /// Its address, the same after each start.
    pub address: String,
    arguments: Vec<String>,
    bell: Bell,
    process: Option<Process>,
    log: String,
}

/// A port that stays free while a relay is restarted: outside of the range from which the system takes the ports of outgoing connections, one of which
/// could even be connected to itself.
/// None is given twice in this process: one may look free because its relay is being restarted.
fn quiet_port() -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes of other tests begin elsewhere.
    let own = 20_000 + u16::try_from(std::process::id() % 400).unwrap_or(0) * 30;
    let port = (next.unwrap_or(own)..32_500)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port");
    *next = Some(port + 1);
    port
}

impl Relay {
    pub(super) fn new(folder: &Path, arguments: impl FnOnce(&str) -> Vec<String>, bell: &Bell) -> Self {
        let address = format!("127.0.0.1:{}", quiet_port());
        let arguments = arguments(&address);
        let mut relay = Self {
            store: folder.join("relay").join("relay.db"),
            address,
            arguments,
            bell: bell.clone(),
            process: None,
            log: String::new(),
        };
        relay.start();
        relay
    }

    /// Its url.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Starts it and doesn't wait.
    pub fn begin(&mut self) {
        let mut arguments = vec![
            OsStr::new("--listen"),
            OsStr::new(&self.address),
            OsStr::new("--store"),
            self.store.as_os_str(),
        ];
        arguments.extend(self.arguments.iter().map(OsStr::new));
        self.process = Some(Process::start(
            &programs().path().join("countersign-relay"),
            &arguments,
            &self.bell,
        ));
    }

    /// Starts it and waits until it listens.
    pub fn start(&mut self) {
        self.begin();
        assert!(
            self.process().says("listening on"),
            "the relay doesn't start: {}",
            self.process().stderr()
        );
    }

    /// Its running process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the relay runs")
    }

    /// SIGKILL.
    pub fn crash(&mut self) {
        close(&mut self.process, &mut self.log, kill);
    }

    /// SIGTERM; how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        close(&mut self.process, &mut self.log, terminate).expect("the relay runs")
    }

    /// All that it ever wrote to stdout and stderr.
    pub fn log(&self) -> String {
        let now = self
            .process
            .as_ref()
            .map_or(String::new(), |process| process.stdout() + &process.stderr());
        format!("{}{now}", self.log)
    }

    /// The lengths of all envelopes that lie here.
    pub fn lengths(&self) -> Vec<i64> {
        self.envelopes().into_values().collect()
    }

    /// The envelopes that lie here, each by its mailbox and its number there, which no other ever had, with its length.
    pub fn envelopes(&self) -> BTreeMap<(i64, i64), i64> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(&self.store).read_only(true);
            let mut connection = SqliteConnection::connect_with(&options)
                .await
                .expect("the relay's store");
            let bundles: Vec<(i64, Vec<u8>, i64)> = sqlx::query_as(
                "SELECT b.mailbox, b.heads, m.acknowledged FROM bundles b JOIN mailboxes m ON m.number = b.mailbox",
            )
            .fetch_all(&mut connection)
            .await
            .expect("its envelopes");
            connection.close().await.expect("it is only read");
            let waiting = bundles.iter().flat_map(|(mailbox, heads, acknowledged)| {
                heads.as_chunks::<36>().0.iter().filter_map(move |head| {
                    // Sequence first, length last.
                    let sequence = i64::from_be_bytes(head[..8].try_into().ok()?);
                    let length = i64::from(u32::from_be_bytes(head[32..].try_into().ok()?));
                    (sequence > *acknowledged).then_some(((*mailbox, sequence), length))
                })
            });
            waiting.collect()
        })
    }

    /// The store's files: the database and what SQLite keeps beside it.
    pub fn files(&self) -> Vec<PathBuf> {
        beside(&self.store)
    }
}
