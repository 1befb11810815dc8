//! Reads the vectors in `tests/vectors/wire/` for the tests of this crate, inside and outside `src/`.

#![allow(clippy::unwrap_used, clippy::panic)]
// Every test file compiles its own copy and uses a part of it.
#![allow(dead_code)]

use std::path::PathBuf;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};

/// The contents of a JSON file of vectors.
pub(crate) fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&read_bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The bytes of a file of vectors.
pub(crate) fn read_bytes(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/wire");
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Bytes that stand in a vector as lower-case hex.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl Hex {
    /// The bytes, where the vector promises so many.
    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
            _ => None,
        };
        text.as_bytes()
            .chunks(2)
            .map(byte)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| D::Error::custom("not hex"))
    }
}
