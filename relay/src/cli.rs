//! The command line of a relay: flag before environment before file before default; words on stderr, one line on stdout
//! when it is ready.
//!
//! What the settings mean is deliberately not here (see [`Config`]).

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Deserializer};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use wire::login::RelayName;

use crate::{Config, Relay, RelayError, Store};

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
    /// File to keep envelopes in [default: $XDG_DATA_HOME/countersign-relay/relay.db]
    #[arg(long, global = true, env = "COUNTERSIGN_RELAY_STORE", value_name = "FILE")]
    store: Option<PathBuf>,
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
    store: Option<PathBuf>,
    #[serde(default)]
    names: Vec<Name>,
    log_format: Option<LogFormat>,
    log_level: Option<LogLevel>,
    max_connections: Option<usize>,
    max_connections_per_address: Option<usize>,
    max_mailboxes: Option<usize>,
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
    #[error("no place to keep envelopes: neither XDG_DATA_HOME nor HOME is set")]
    NoPlace,
    #[error("can't start: {0}")]
    Start(io::Error),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl CliError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "give a readable file with --config",
            Self::Settings { .. } => "correct that line; see `countersign-relay --help` for the names",
            Self::NoPlace => "name a file with --store",
            Self::Start(_) => "check the limits of this process",
            Self::Relay(error) => error.hint(),
        }
    }
}

/// The settings in force.
struct InForce {
    config: Config,
    log_format: LogFormat,
    log_level: LogLevel,
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
    let check = args.command.is_some();
    let in_force = settle(args)?;
    if check {
        print!("{in_force}");
        return Ok(());
    }
    start_log(in_force.log_format, in_force.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Start)?;
    runtime.block_on(serve(in_force.config))
}

async fn serve(config: Config) -> Result<(), CliError> {
    // Before anything else, so that an early signal isn't lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Start)?;
    let relay = Relay::bind(config).await?;
    let mut stdout = io::stdout().lock();
    // Whoever started us may not be listening; that is no reason not to serve.
    writeln!(stdout, "listening on ws://{}", relay.local_addr()).ok();
    stdout.flush().ok();
    drop(stdout);
    let told_to_stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    relay.run(told_to_stop).await?;
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
    let store = match args.store.or(settings.store) {
        Some(path) => path,
        None => default_store(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))?,
    };
    let names = if args.names.is_empty() {
        settings.names.into_iter().map(|name| name.0).collect()
    } else {
        args.names
    };
    Ok(InForce {
        log_format: args.log_format.or(settings.log_format).unwrap_or(LogFormat::Text),
        log_level: args.log_level.or(settings.log_level).unwrap_or(LogLevel::Info),
        config: Config {
            listen: args.listen.or(settings.listen).unwrap_or(default.listen),
            store: Store::Sqlite(store),
            names,
            max_connections: settings.max_connections.unwrap_or(default.max_connections),
            max_connections_per_address: settings
                .max_connections_per_address
                .unwrap_or(default.max_connections_per_address),
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

impl fmt::Display for InForce {
    /// As a settings file.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        let Store::Sqlite(store) = &config.store;
        let names: Vec<_> = config.names.iter().map(RelayName::as_str).collect();
        let quoted = |text: &str| toml::Value::String(text.to_owned());
        writeln!(formatter, "listen = \"{}\"", config.listen)?;
        writeln!(formatter, "store = {}", quoted(&store.to_string_lossy()))?;
        writeln!(formatter, "names = {names:?}")?;
        let format = match self.log_format {
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        };
        writeln!(formatter, "log_format = \"{format}\"")?;
        writeln!(formatter, "log_level = \"{}\"", self.log_level)?;
        writeln!(formatter, "max_connections = {}", config.max_connections)?;
        writeln!(
            formatter,
            "max_connections_per_address = {}",
            config.max_connections_per_address
        )?;
        writeln!(formatter, "max_mailboxes = {}", config.max_mailboxes)?;
        writeln!(formatter, "max_bytes = {}", config.max_bytes)?;
        writeln!(formatter, "max_puts = {}", config.max_puts)
    }
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
        let Store::Sqlite(store) = &in_force.config.store;
        assert_eq!(store, Path::new("/from/flag"));
        assert_eq!(in_force.config.listen.port(), 1);
        assert_eq!(in_force.log_level, LogLevel::Debug);
        assert_eq!(in_force.log_format, LogFormat::Text);
        // What is printed is itself a settings file.
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
