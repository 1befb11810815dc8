//! Where a store or a bus is, as somebody gave it: a path or an address, which may hold a password and so is never shown,
//! not even when it is wrong.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::{BadAddress, DatabaseUrl, Store};

/// What was given.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub(super) struct Place(OsString);

impl From<OsString> for Place {
    fn from(given: OsString) -> Self {
        Self(given)
    }
}

impl From<String> for Place {
    fn from(given: String) -> Self {
        Self(given.into())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

impl Place {
    /// What stands in a file, but for the end of its line: that is how secrets are handed to services.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        Ok(std::fs::read_to_string(path)?
            .trim_end_matches(['\r', '\n'])
            .to_owned()
            .into())
    }

    /// The store at this place.
    pub(super) fn store(self) -> Result<Store, BadAddress> {
        match self.0.to_str().filter(|text| DatabaseUrl::is_meant(text)) {
            Some(address) => address.parse().map(Store::Postgres),
            None => Ok(Store::Sqlite(PathBuf::from(self.0))),
        }
    }

    /// The address that it is.
    pub(super) fn address<T: std::str::FromStr<Err = BadAddress>>(&self) -> Result<T, BadAddress> {
        self.0.to_string_lossy().parse()
    }
}

/// A time as `250ms` or `2s`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub(super) Duration);

impl std::str::FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| "not a time like 250ms or 2s");
        let span = match text.strip_suffix("ms") {
            Some(digits) => Duration::from_millis(number(digits)?.into()),
            None => Duration::from_secs(number(text.strip_suffix('s').unwrap_or("no"))?.into()),
        };
        if span.is_zero() {
            Err("longer than 0, please")
        } else {
            Ok(Self(span))
        }
    }
}

impl TryFrom<String> for Span {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_place_is_a_path_or_an_address_and_shows_neither() {
        let place = |text: &str| Place::from(text.to_owned());
        let store = place("/var/lib/relay.db").store().unwrap();
        assert!(matches!(store, Store::Sqlite(path) if path == Path::new("/var/lib/relay.db")));
        let address = place("postgres://relay:hunter2@localhost/relay");
        assert!(!format!("{address:?}").contains("hunter2"));
        assert!(matches!(address.store(), Ok(Store::Postgres(_))));
        assert!(place("postgres://relay:hunter2@localhost:port/relay").store().is_err());
    }

    #[test]
    fn a_span_has_a_unit() {
        let span = |text: &str| text.parse().map(|Span(span)| span);
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("2s"), Ok(Duration::from_secs(2)));
        assert!(span("2").is_err() && span("0s").is_err() && span("-1s").is_err());
    }
}
