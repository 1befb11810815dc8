//! A number of bytes as a person writes it: `512MiB`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(usize);

/// Not a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a size such as 512MiB or 2GiB")]
pub(super) struct SizeError;

impl Size {
    pub(super) fn from_bytes(bytes: usize) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(self) -> usize {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let units = UNITS.iter();
        let split = units.filter_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
        let (number, bytes) = split.take(1).next().ok_or(SizeError)?;
        let number: u64 = number.parse().map_err(|_| SizeError)?;
        let bytes = number.checked_mul(*bytes).ok_or(SizeError)?;
        usize::try_from(bytes).map(Self).map_err(|_| SizeError)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as u64;
        let whole = UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
        let (name, unit) = whole.unwrap_or(&("", 1));
        write!(formatter, "{}{name}", bytes / unit)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_size_is_read_as_it_is_written() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("2GiB", 2 << 30),
            ("3KiB", 3072),
            ("1000", 1000),
            ("0", 0),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, text));
        }
        for text in ["", "MiB", "-1MiB", "1MB", "1.5GiB", "99999999999GiB", "1 MiB"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError), "{text}");
        }
    }
}
