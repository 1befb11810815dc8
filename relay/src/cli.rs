//! The command line of a relay: flag before environment before file before default; words on stderr, one line on stdout
//! when it is ready.
//!
//! What the settings mean is deliberately not here (see [`Config`]).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Deserializer};
use tracing_subscriber::EnvFilter;
use wire::login::RelayName;

mod in_force;
mod place;
mod service;
mod size;

use crate::{BadAddress, Certificate, Config, MigrateError, RelayError, Store, Tls, migrate};
use in_force::InForce;
use place::{Place, Span};
use size::Size;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A blind relay: keeps and forwards envelopes that it cannot read
#[derive(Debug, Parser)]
#[command(name = "countersign-relay", version)]
pub struct Cli {
    #[command(flatten)]
    args: Args,
}

/// The settings of a relay, as given on a command line or in the environment.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on [default: 127.0.0.1:7447]
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// File to keep envelopes in, or postgres:// address of a database for several nodes; what the address leaves out
    /// comes from PGPASSWORD and the like [default: $XDG_DATA_HOME/countersign-relay/relay.db]
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_RELAY_STORE",
        hide_env_values = true,
        value_name = "PLACE"
    )]
    store: Option<Place>,
    /// File that holds what --store would say, so that a password in it isn't seen in the list of processes
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_STORE_FILE", value_name = "FILE")]
    store_file: Option<PathBuf>,
    /// NATS server over which nodes that share a database wake each other, nats:// or tls:// [default: none, they poll]
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_RELAY_BUS",
        hide_env_values = true,
        value_name = "ADDRESS"
    )]
    bus: Option<Place>,
    /// How often a node looks for what other nodes took for its readers [default: 1s]
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_POLL", value_name = "TIME")]
    poll: Option<Span>,
    /// Certificate to speak TLS with, and those that lead to its authority, in PEM [default: none, plain websocket]
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM; both files are read again when they change
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Address to answer /metrics, /healthz and /readyz on, to anyone who reaches it [default: none]
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_METRICS", value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Most memory for envelopes, queues and connections [default: 512MiB]
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_MEMORY", value_name = "SIZE")]
    memory: Option<Size>,
    /// Name that clients dial, host or host:port; repeatable [default: the address they reach]
    #[arg(long = "name", global = true, env = "COUNTERSIGN_RELAY_NAMES", value_name = "NAME", value_delimiter = ',', value_parser = RelayName::new)]
    names: Vec<RelayName>,
    /// Settings in TOML; flags and environment go before it
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the log is written [default: text]
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// How much is logged [default: info]
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy all that a stopped relay keeps, from a file to an empty postgres:// database or back
    Migrate {
        /// Where it is
        from: Place,
        /// Where it is to go
        to: Place,
    },
    /// Look at the settings without serving
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings and print what is in force
    Check,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what stops envelopes.
    Error,
    /// What somebody should look at.
    Warn,
    /// Starts and stops.
    Info,
    /// Each connection's end.
    Debug,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

/// The settings file. Unknown keys are refused: a mistyped bound would be no bound.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: Option<SocketAddr>,
    store: Option<Place>,
    store_file: Option<PathBuf>,
    bus: Option<Place>,
    poll: Option<Span>,
    #[serde(default)]
    names: Vec<Name>,
    log_format: Option<LogFormat>,
    log_level: Option<LogLevel>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    metrics: Option<SocketAddr>,
    memory: Option<Size>,
    max_connections: Option<usize>,
    max_connections_per_address: Option<usize>,
    failed_logins_per_address: Option<u32>,
    new_mailboxes_per_address: Option<u32>,
    frames_per_second_per_address: Option<u32>,
    bytes_per_second_per_address: Option<u32>,
    spares_loopback: Option<bool>,
    max_mailboxes: Option<usize>,
    abandoned_after_days: Option<u32>,
    max_bytes: Option<u64>,
    max_puts: Option<usize>,
}

#[derive(Debug)]
struct Name(RelayName);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        RelayName::new(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Why the program doesn't serve.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("settings {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("settings {}: {detail}", path.display())]
    Settings { path: PathBuf, detail: String },
    #[error("a certificate without its key, or a key without its certificate")]
    HalfTls,
    #[error("no place to keep envelopes: neither XDG_DATA_HOME nor HOME is set")]
    NoPlace,
    #[error("can't start: {0}")]
    Start(io::Error),
    #[error("store file {}: {source}", path.display())]
    StoreFile { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Address(#[from] BadAddress),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl CliError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "give a readable file with --config",
            Self::Settings { .. } => "correct that line; see `countersign-relay --help` for the names",
            Self::HalfTls => "give both --tls-cert and --tls-key, or neither",
            Self::NoPlace => "name a file with --store",
            Self::Start(_) => "check the limits of this process",
            Self::StoreFile { .. } => "give a readable file with --store-file",
            Self::Address(_) => "write it like postgres://user@host/database or nats://host",
            Self::Migrate(error) => error.hint(),
            Self::Relay(error) => error.hint(),
        }
    }
}

/// Runs the program `countersign-relay`.
#[must_use]
pub fn main() -> ExitCode {
    run(Cli::parse().args)
}

/// Runs a relay by these settings until it is told to stop.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    match obey(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("hint: {}", error.hint());
            ExitCode::FAILURE
        }
    }
}

fn obey(args: Args) -> Result<(), CliError> {
    if let Some(Command::Migrate { from, to }) = args.command {
        return copy(from, to);
    }
    let check = args.command.is_some();
    let in_force = settle(args)?;
    let words = in_force.to_string();
    if check {
        if let Some(tls) = in_force.config.tls {
            Certificate::open(tls).map_err(RelayError::from)?;
        }
        print!("{words}");
        return Ok(());
    }
    start_log(in_force.log_format, in_force.log_level);
    // On one core, one thread for all: whoever is woken has their turn after those who were there, so that much is read before
    // much is written, and nothing is handed from thread to thread.
    let is_alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut runtime = if is_alone {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.enable_all().build().map_err(CliError::Start)?;
    runtime.block_on(service::serve(in_force.config))
}

fn copy(from: Place, to: Place) -> Result<(), CliError> {
    let (from, to) = (from.store()?, to.store()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Start)?;
    let copied = runtime.block_on(migrate(&from, &to, |copied| {
        eprintln!("copied {} envelopes and {} puts", copied.envelopes, copied.puts);
    }))?;
    println!(
        "copied {} mailboxes, {} capabilities, {} envelopes and {} puts; the first store is left as it was",
        copied.mailboxes, copied.capabilities, copied.envelopes, copied.puts
    );
    Ok(())
}

/// Only our own words: other crates would log frames.
fn start_log(format: LogFormat, level: LogLevel) {
    let filter = EnvFilter::new(format!("off,countersign_relay={level}"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false);
    // Whoever embeds this may have set up a log already.
    match format {
        LogFormat::Json => log.json().try_init().ok(),
        LogFormat::Text => log.with_ansi(false).try_init().ok(),
    };
}

fn settle(args: Args) -> Result<InForce, CliError> {
    let settings = match &args.config {
        Some(path) => read_settings(path)?,
        None => Settings::default(),
    };
    let default = Config::default();
    let store = match (args.store, args.store_file, settings.store, settings.store_file) {
        (Some(place), ..) | (None, None, Some(place), _) => place.store()?,
        (None, Some(path), ..) | (None, None, None, Some(path)) => match Place::read(&path) {
            Ok(place) => place.store()?,
            Err(source) => return Err(CliError::StoreFile { path, source }),
        },
        (None, None, None, None) => {
            let path = default_store(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))?;
            Store::Sqlite(path)
        }
    };
    let bus = args.bus.or(settings.bus);
    let poll = args.poll.or(settings.poll);
    let names = if args.names.is_empty() {
        settings.names.into_iter().map(|name| name.0).collect()
    } else {
        args.names
    };
    let tls = match (args.tls_cert.or(settings.tls_cert), args.tls_key.or(settings.tls_key)) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
        (None, None) => None,
        _ => return Err(CliError::HalfTls),
    };
    let memory = args.memory.or(settings.memory).map(Size::bytes);
    let days = settings.abandoned_after_days.map(|days| DAY * days);
    Ok(InForce {
        log_format: args.log_format.or(settings.log_format).unwrap_or(LogFormat::Text),
        log_level: args.log_level.or(settings.log_level).unwrap_or(LogLevel::Info),
        config: Config {
            listen: args.listen.or(settings.listen).unwrap_or(default.listen),
            store,
            bus: bus.map(|bus| bus.address()).transpose()?,
            poll: poll.map_or(default.poll, |Span(poll)| poll),
            names,
            tls,
            metrics: args.metrics.or(settings.metrics),
            memory: memory.unwrap_or(default.memory),
            max_connections: settings.max_connections.unwrap_or(default.max_connections),
            max_connections_per_address: settings
                .max_connections_per_address
                .unwrap_or(default.max_connections_per_address),
            failed_logins_per_address: settings
                .failed_logins_per_address
                .unwrap_or(default.failed_logins_per_address),
            new_mailboxes_per_address: settings
                .new_mailboxes_per_address
                .unwrap_or(default.new_mailboxes_per_address),
            frames_per_second_per_address: settings
                .frames_per_second_per_address
                .unwrap_or(default.frames_per_second_per_address),
            bytes_per_second_per_address: settings
                .bytes_per_second_per_address
                .unwrap_or(default.bytes_per_second_per_address),
            spares_loopback: settings.spares_loopback.unwrap_or(default.spares_loopback),
            abandoned_after: days.unwrap_or(default.abandoned_after),
            max_mailboxes: settings.max_mailboxes.unwrap_or(default.max_mailboxes),
            max_bytes: settings.max_bytes.unwrap_or(default.max_bytes),
            max_puts: settings.max_puts.unwrap_or(default.max_puts),
            ..default
        },
    })
}

fn read_settings(path: &Path) -> Result<Settings, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| CliError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse_settings(&text).map_err(|detail| CliError::Settings {
        path: path.to_owned(),
        detail,
    })
}

/// What is wrong comes with its line.
fn parse_settings(text: &str) -> Result<Settings, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    })
}

fn default_store(data: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, CliError> {
    // The XDG rules: a relative path is to be ignored.
    let data = data.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|home| !home.is_empty()).map(PathBuf::from);
    let folder = data
        .or_else(|| home.map(|home| home.join(".local/share")))
        .ok_or(CliError::NoPlace)?;
    Ok(folder.join("countersign-relay").join("relay.db"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = parse_settings("listen = \"127.0.0.1:1\"\nmax_conections = 5\n").unwrap_err();
        assert!(error.starts_with("line 2: unknown field `max_conections`"), "{error}");
        let error = parse_settings("names = [\"user@host\"]").unwrap_err();
        assert!(error.starts_with("line 1: "), "{error}");
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        std::fs::write(
            &file,
            "listen = \"127.0.0.1:1\"\nstore = \"/from/file\"\nlog_level = \"debug\"\n",
        )
        .unwrap();
        let line = [
            "countersign-relay",
            "--store",
            "/from/flag",
            "--config",
            file.to_str().unwrap(),
        ];
        let in_force = settle(Cli::try_parse_from(line).unwrap().args).unwrap();
        assert!(matches!(&in_force.config.store, Store::Sqlite(store) if store == Path::new("/from/flag")));
        assert_eq!(in_force.config.listen.port(), 1);
        assert_eq!(in_force.log_level, LogLevel::Debug);
        assert_eq!(in_force.log_format, LogFormat::Text);
        assert_eq!(in_force.config.memory, 512 * 1024 * 1024);
        // What is printed is itself a settings file.
        parse_settings(&in_force.to_string()).unwrap();
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let line = [
            "countersign-relay",
            "--store",
            "/nowhere",
            "--tls-cert",
            "/nowhere/cert.pem",
        ];
        let settled = settle(Cli::try_parse_from(line).unwrap().args);
        assert!(matches!(settled, Err(CliError::HalfTls)));
        let settings =
            "tls_cert = \"a\"\ntls_key = \"b\"\nmetrics = \"[::1]:9447\"\nmemory = \"2GiB\"\nspares_loopback = false\n";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        std::fs::write(&file, settings).unwrap();
        let line = [
            "countersign-relay",
            "--store",
            "/nowhere",
            "--memory",
            "64MiB",
            "--config",
            file.to_str().unwrap(),
        ];
        let in_force = settle(Cli::try_parse_from(line).unwrap().args).unwrap();
        assert_eq!(in_force.config.tls.as_ref().unwrap().key, Path::new("b"));
        assert_eq!(in_force.config.memory, 64 * 1024 * 1024);
        assert!(
            in_force
                .to_string()
                .contains("metrics = \"[::1]:9447\"\nmemory = \"64MiB\"\n")
        );
        parse_settings(&in_force.to_string()).unwrap();
    }

    #[test]
    fn envelopes_are_kept_where_the_xdg_rules_say() {
        let store =
            |data: Option<&str>, home: Option<&str>| default_store(data.map(Into::into), home.map(Into::into)).ok();
        let at_home = PathBuf::from("/home/a/.local/share/countersign-relay/relay.db");
        assert_eq!(
            store(Some("/data"), Some("/home/a")),
            Some("/data/countersign-relay/relay.db".into())
        );
        assert_eq!(store(Some("data"), Some("/home/a")), Some(at_home.clone()));
        assert_eq!(store(None, Some("/home/a")), Some(at_home));
        assert_eq!(store(None, None), None);
    }
}
