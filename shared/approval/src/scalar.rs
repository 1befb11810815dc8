//! The small values that payloads are made of, each with its bound (PROTOCOL.md 1, 8, 14): a value of one of these
//! types is within it. Not here: the objects that hold them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a *text*, unless said otherwise.
pub const TEXT_BYTES: usize = 1024;
/// Bytes of a request's reason.
pub const REASON_BYTES: usize = 4096;
/// Characters of a *name*.
pub const NAME_CHARACTERS: usize = 64;
/// Bytes of a relay's URL.
pub const RELAY_URL_BYTES: usize = 255;
/// The latest time, in milliseconds: the largest whole number that every JSON reader holds exactly.
pub const LATEST_TIME: u64 = (1 << 53) - 1;

/// Why a small value was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// Not the required number of lower-case hex digits.
    #[error("not {0} lower-case hex digits")]
    Hex(usize),
    /// Not a name.
    #[error("not a name: 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit")]
    Name,
    /// A text longer than its bound.
    #[error("text longer than {0} bytes")]
    Text(usize),
    /// A byte string that holds a zero byte.
    #[error("byte string with a zero byte")]
    Zero,
    /// A relay URL that is empty, too long, or not printable ASCII.
    #[error("not a relay url: 1 to 255 printable ASCII characters without a space")]
    RelayUrl,
    /// A time beyond 2^53 - 1.
    #[error("time beyond 2^53 - 1 milliseconds")]
    Time,
}

/// Writes a string form for serde, and reads it back through `FromStr`.
macro_rules! as_string {
    ($($type:ty),*) => {
        $(
            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                }
            }
        )*
    };
}

/// The SHA-256 of something; of a statement's pre-authentication encoding, unless said otherwise. Written as 64 hex
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hex digits: enough for a log line, never for a decision.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        read_hex(text).map(Self)
    }
}

/// 16 random bytes that name something: a nonce, an incarnation, a proposal. Written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id16(pub [u8; 16]);

impl fmt::Display for Id16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Id16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id16({self})")
    }
}

impl FromStr for Id16 {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        read_hex(text).map(Self)
    }
}

/// The public half of a device's MLS leaf key. Written as base64; whether it is a good key is for MLS to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafKey(pub [u8; 32]);

impl fmt::Display for LeafKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl FromStr for LeafKey {
    type Err = LeafKeyError;

    fn from_str(text: &str) -> Result<Self, LeafKeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| LeafKeyError)?;
        bytes.try_into().map(Self).map_err(|_| LeafKeyError)
    }
}

/// Not the canonical base64 of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the canonical base64 of 32 bytes")]
pub struct LeafKeyError;

/// A short name that is safe to show and to type: 1 to 64 of `a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let begins = text.bytes().next().is_some_and(plain);
        let all = text
            .bytes()
            .all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'));
        if begins && all && text.len() <= NAME_CHARACTERS {
            Ok(Self(text.to_owned()))
        } else {
            Err(ScalarError::Name)
        }
    }
}

/// Where a relay is. Only its length and alphabet are checked here: whoever dials it parses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayUrl(String);

impl RelayUrl {
    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RelayUrl {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let fits = (1..=RELAY_URL_BYTES).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ScalarError::RelayUrl)
        }
    }
}

as_string!(Digest, Id16, LeafKey, Name, RelayUrl);

/// Untrusted words of at most `MAX` bytes. They may hold anything: show them only through [`crate::escape`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text<const MAX: usize = TEXT_BYTES>(String);

impl<const MAX: usize> Text<MAX> {
    /// These words.
    ///
    /// # Errors
    /// [`ScalarError::Text`] if they are longer than `MAX` bytes.
    pub fn new(text: impl Into<String>) -> Result<Self, ScalarError> {
        let text = text.into();
        if text.len() <= MAX {
            Ok(Self(text))
        } else {
            Err(ScalarError::Text(MAX))
        }
    }

    /// As much of these words as fits. For the gate's own explanations; what others say is refused, not cut.
    pub fn cut(text: &str) -> Self {
        let mut end = text.len().min(MAX);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        Self(text.get(..end).unwrap_or_default().to_owned())
    }

    /// The words as they came: not fit for a terminal.
    pub fn as_untrusted(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, at most [`LATEST_TIME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// This many milliseconds.
    ///
    /// # Errors
    /// [`ScalarError::Time`] beyond [`LATEST_TIME`].
    pub fn from_millis(millis: u64) -> Result<Self, ScalarError> {
        if millis <= LATEST_TIME {
            Ok(Self(millis))
        } else {
            Err(ScalarError::Time)
        }
    }

    /// What a clock says, at most [`LATEST_TIME`].
    pub fn of_clock(millis: u64) -> Self {
        Self(millis.min(LATEST_TIME))
    }

    /// The milliseconds.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// This time and so many milliseconds more, at most [`LATEST_TIME`].
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis).min(LATEST_TIME))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_millis(u64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Bytes as the operating system takes them: never a zero byte, not always UTF-8. In JSON a string where they are
/// UTF-8, else `{"base64":…}`; one value has one form, so that two requests that look alike are alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteString(Vec<u8>);

impl ByteString {
    /// These bytes.
    ///
    /// # Errors
    /// [`ScalarError::Zero`] if one of them is zero.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ScalarError> {
        let bytes = bytes.into();
        if bytes.contains(&0) {
            Err(ScalarError::Zero)
        } else {
            Ok(Self(bytes))
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteString(\"{}\")", self.0.escape_ascii())
    }
}

crate::json::object! {
    /// The form of a byte string that isn't UTF-8.
    struct NotText {
        base64: String,
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => NotText {
                base64: STANDARD.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or {\"base64\":…}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<u8>, A::Error> {
                let NotText { base64 } = NotText::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                let bytes = STANDARD
                    .decode(base64)
                    .map_err(|_| A::Error::custom("not canonical base64"))?;
                if std::str::from_utf8(&bytes).is_ok() {
                    return Err(A::Error::custom("UTF-8 written as base64"));
                }
                Ok(bytes)
            }
        }

        Self::new(deserializer.deserialize_any(Either)?).map_err(D::Error::custom)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Result<[u8; N], ScalarError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let mut digits = text.bytes().map(digit);
    for byte in &mut bytes {
        let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
            return Err(ScalarError::Hex(N * 2));
        };
        *byte = high << 4 | low;
    }
    if digits.next().is_some() {
        Err(ScalarError::Hex(N * 2))
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
