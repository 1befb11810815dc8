//! How each server is started: with which settings, so that all do the same and none is held back by a default. Not here: what a
//! running server is (`server`).

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use crate::door::Door;
use crate::line::PATIENCE;
use crate::machine::folder;
use crate::postgres::Postgres;
use crate::server::{Kind, Server, find, first_line, spawn};

/// Most sockets in any work, and some room.
const SOCKETS: usize = 30_000;

/// What is said about our relay's settings beside the numbers.
pub const SETTINGS: &str =
    "memory 2GiB and 30,000 connections of one address where nothing else is said, all else as out of the box";

/// Ends of a run must not meet "busy"; what a flood may take is the default's.
const MEMORY: &str = "2GiB";

/// Which programs are measured.
pub struct Programs {
    pub relay: PathBuf,
    /// Another nats-server than the installed one, if it is given.
    pub nats: Option<PathBuf>,
}

impl Programs {
    fn of(&self, kind: Kind) -> Option<PathBuf> {
        match kind {
            Kind::Nats | Kind::JetStream | Kind::JetStreamAlways => self.nats.clone().or_else(|| find("nats-server")),
            Kind::Mosquitto | Kind::Redis => find(kind.name()),
            Kind::OursPostgres => find("initdb"),
            Kind::Floor => std::env::current_exe().ok(),
            Kind::Ours | Kind::OursTls => Some(self.relay.clone()),
        }
    }

    /// The server, started; none if it isn't installed, or can't do this.
    pub fn start(&self, kind: Kind) -> Result<Option<Server>> {
        let Some(program) = self.of(kind) else { return Ok(None) };
        match kind {
            Kind::Ours | Kind::OursTls => self.ours(kind, MEMORY, None).map(Some),
            Kind::OursPostgres => Postgres::start()?
                .map(|postgres| self.ours(kind, MEMORY, Some(postgres)))
                .transpose(),
            Kind::Floor => floor(&program).map(Some),
            _ => peer(kind, &program),
        }
    }

    /// Ours with the memory that it has out of the box.
    pub fn frugal(&self) -> Result<Server> {
        self.ours(Kind::Ours, "512MiB", None)
    }

    fn ours(&self, kind: Kind, memory: &str, database: Option<Postgres>) -> Result<Server> {
        let folder = tempfile::tempdir_in(folder()?)?;
        let settings = folder.path().join("relay.toml");
        // All come from one address here.
        fs::write(
            &settings,
            format!("max_connections = {SOCKETS}\nmax_connections_per_address = {SOCKETS}\n"),
        )?;
        let mut command = Command::new(&self.relay);
        command.args(["--listen", "127.0.0.1:0", "--log-level", "warn", "--memory", memory]);
        command.arg("--config").arg(settings).arg("--store");
        let mut version = first_line(&self.relay, "--version")?;
        if let Some(postgres) = &database {
            command.arg(&postgres.url);
            version = format!("{version}, {}", postgres.version);
        } else {
            command.arg(folder.path().join("relay.db"));
        }
        let tls = (kind == Kind::OursTls)
            .then(|| certificate(&mut command, folder.path()))
            .transpose()?;
        let mut server = Server::telling(kind, version, command, folder)?.standing_on(database);
        server.door.tls = tls;
        Ok(server)
    }
}

/// Gives the relay a certificate, and the clients that trust in it.
fn certificate(command: &mut Command, folder: &Path) -> Result<TlsConnector> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&certificate, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The floor: this program again, in its other role.
fn floor(program: &Path) -> Result<Server> {
    let mut command = Command::new(program);
    command.arg(crate::FLOOR);
    let version = "tokio-tungstenite 0.30".to_owned();
    Server::telling(Kind::Floor, version, command, tempfile::tempdir_in(folder()?)?)
}

fn peer(kind: Kind, program: &Path) -> Result<Option<Server>> {
    let argument = if kind == Kind::Mosquitto { "-h" } else { "--version" };
    let version = first_line(program, argument)?;
    let folder = tempfile::tempdir_in(folder()?)?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let port = address.port().to_string();
    let mut command = Command::new(program);
    match kind {
        Kind::Nats => {
            command.args(["-a", "127.0.0.1", "-p", &port]);
        }
        Kind::JetStream | Kind::JetStreamAlways => {
            let Some(settings) = jetstream(kind, program, &folder, &port)? else {
                return Ok(None);
            };
            command.arg("-c").arg(settings);
        }
        Kind::Mosquitto => {
            let settings = folder.path().join("mosquitto.conf");
            let lines = "allow_anonymous true\nuser root\nmax_queued_messages 0\nmax_inflight_messages 64\nset_tcp_nodelay true\n";
            fs::write(&settings, format!("listener {port} 127.0.0.1\n{lines}"))?;
            command.arg("-c").arg(settings);
        }
        Kind::Redis => {
            command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]);
            command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]);
            command.arg(folder.path());
        }
        _ => bail!("not a peer"),
    }
    let running = spawn(command.stdout(Stdio::null()), folder.path())?;
    await_port(address).with_context(|| format!("{} doesn't start", kind.name()))?;
    Ok(Some(Server::running(
        kind,
        version,
        Door::plain(address),
        running,
        command,
        folder,
    )))
}

/// The settings of JetStream, if this nats-server knows them: to flush always, it must be of 2.10 or newer.
fn jetstream(kind: Kind, program: &Path, folder: &TempDir, port: &str) -> Result<Option<PathBuf>> {
    let store = folder.path().join("jetstream");
    let always = if kind == Kind::JetStreamAlways {
        "sync_interval: always"
    } else {
        ""
    };
    let settings = folder.path().join("nats.conf");
    let lines = format!("host: 127.0.0.1\nport: {port}\njetstream {{\n store_dir: {store:?}\n {always}\n}}\n");
    fs::write(&settings, lines)?;
    let tried = Command::new(program).arg("-t").arg("-c").arg(&settings).output()?;
    Ok(tried.status.success().then_some(settings))
}

fn await_port(address: SocketAddr) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < end, "nobody listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
