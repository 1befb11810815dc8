//! The settings in force, printed as a settings file that would bring them about. Where each came from is deliberately not
//! here.

use std::fmt;

use wire::login::RelayName;

use super::size::Size;
use super::{DAY, LogFormat, LogLevel};
use crate::{Config, Store};

/// The settings in force.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) log_format: LogFormat,
    pub(super) log_level: LogLevel,
}

impl fmt::Display for InForce {
    /// As a settings file.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        let names: Vec<_> = config.names.iter().map(RelayName::as_str).collect();
        let quoted = |text: &str| toml::Value::String(text.to_owned());
        writeln!(formatter, "listen = \"{}\"", config.listen)?;
        match &config.store {
            Store::Sqlite(path) => writeln!(formatter, "store = {}", quoted(&path.to_string_lossy()))?,
            // Printed settings are pasted where others read them.
            Store::Postgres(_) => writeln!(formatter, "# store: a postgres:// address, which isn't shown")?,
        }
        if config.bus.is_some() {
            writeln!(formatter, "# bus: a nats:// address, which isn't shown")?;
        }
        writeln!(formatter, "names = {names:?}")?;
        writeln!(formatter, "poll = \"{}ms\"", config.poll.as_millis())?;
        let format = match self.log_format {
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        };
        writeln!(formatter, "log_format = \"{format}\"")?;
        writeln!(formatter, "log_level = \"{}\"", self.log_level)?;
        if let Some(tls) = &config.tls {
            writeln!(formatter, "tls_cert = {}", quoted(&tls.certificate.to_string_lossy()))?;
            writeln!(formatter, "tls_key = {}", quoted(&tls.key.to_string_lossy()))?;
        }
        if let Some(metrics) = config.metrics {
            writeln!(formatter, "metrics = \"{metrics}\"")?;
        }
        writeln!(formatter, "memory = \"{}\"", Size::from_bytes(config.memory))?;
        let days = config.abandoned_after.as_secs() / DAY.as_secs();
        let numbers = [
            ("max_connections", config.max_connections as u64),
            ("max_connections_per_address", config.max_connections_per_address as u64),
            ("failed_logins_per_address", config.failed_logins_per_address.into()),
            ("new_mailboxes_per_address", config.new_mailboxes_per_address.into()),
            (
                "frames_per_second_per_address",
                config.frames_per_second_per_address.into(),
            ),
            (
                "bytes_per_second_per_address",
                config.bytes_per_second_per_address.into(),
            ),
            ("max_mailboxes", config.max_mailboxes as u64),
            ("abandoned_after_days", days),
        ];
        for (name, number) in numbers {
            writeln!(formatter, "{name} = {number}")?;
        }
        writeln!(formatter, "spares_loopback = {}", config.spares_loopback)?;
        writeln!(formatter, "max_bytes = {}", config.max_bytes)?;
        writeln!(formatter, "max_puts = {}", config.max_puts)
    }
}
