//! The login of a mailbox at a relay: what is signed, and under which name of the relay (`PROTOCOL.md`, section 3).
//!
//! Drawing the challenge, and that it is used once, are deliberately not here: that is the relay's connection. Nor is
//! any question of what a mailbox may do; a login proves who reads, nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::label::{LOGIN, labelled};
use crate::limits::{RELAY_NAME_BYTES, RELAY_URL_BYTES};
use crate::mailbox::{MailboxId, MailboxKey};

/// A relay by the name under which it was dialled: host in lower case, and `:port` unless it is the default of the
/// scheme. It stands in the signature, so a signature made for one relay is worthless at another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayName {
    text: String,
}

/// Why a text names no relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Neither `ws://` nor `wss://`.
    #[error("a relay's url begins with ws:// or wss://")]
    Scheme,
    /// `user@host`: what looks like the host isn't.
    #[error("a relay's url has no user name")]
    User,
    /// Empty, or with characters that no host has. International names are written in their `xn--` form.
    #[error("not a host name or address")]
    Host,
    /// Not a port from 1 to 65535.
    #[error("not a port")]
    Port,
    /// Longer than 255 bytes.
    #[error("longer than 255 bytes")]
    TooLong,
}

/// A login that proves nothing. Deliberately one error: the relay says no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("login refused")]
pub struct LoginRefused;

impl RelayName {
    /// Reads `host` or `host:port`, as an operator writes it. The port is kept whatever it is.
    ///
    /// # Errors
    ///
    /// [`NameError`].
    pub fn new(authority: &str) -> Result<Self, NameError> {
        let (host, port) = split(authority)?;
        Self::from_parts(&host, port)
    }

    /// The name of a relay that was given none: the local address of the accepted socket. Its port is never left out.
    #[must_use]
    pub fn from_address(address: SocketAddr) -> Self {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let text = match ip {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        };
        Self { text }
    }

    /// The name without `:port`, if the port is the default of one of the schemes: how a client calls a relay that its
    /// operator wrote with that port.
    #[must_use]
    pub fn without_default_port(&self) -> Option<Self> {
        let host = self
            .text
            .strip_suffix(":443")
            .or_else(|| self.text.strip_suffix(":80"))?;
        Some(Self { text: host.to_owned() })
    }

    /// The text that is signed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn from_parts(host: &str, port: Option<u16>) -> Result<Self, NameError> {
        let text = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        if text.len() > RELAY_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        Ok(Self { text })
    }
}

impl fmt::Display for RelayName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The name of the relay that a client reaches by this URL.
///
/// # Errors
///
/// [`NameError`].
pub fn authority(url: &str) -> Result<RelayName, NameError> {
    if url.len() > RELAY_URL_BYTES {
        return Err(NameError::TooLong);
    }
    let (scheme, rest) = url.split_once("://").ok_or(NameError::Scheme)?;
    let default = match scheme.to_ascii_lowercase().as_str() {
        "ws" => 80,
        "wss" => 443,
        _ => return Err(NameError::Scheme),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = split(authority)?;
    RelayName::from_parts(&host, port.filter(|port| *port != default))
}

/// Host in lower case (an IPv6 address in brackets and in its one canonical form), and the port if there is one.
fn split(authority: &str) -> Result<(String, Option<u16>), NameError> {
    if authority.contains('@') {
        return Err(NameError::User);
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(NameError::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| NameError::Host)?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or(NameError::Port)?),
        };
        (format!("[{address}]"), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        (host_name(host)?, port)
    };
    Ok((host, port.map(number).transpose()?))
}

fn host_name(host: &str) -> Result<String, NameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || !host.bytes().all(allowed) {
        return Err(NameError::Host);
    }
    Ok(host.to_ascii_lowercase())
}

fn number(port: &str) -> Result<u16, NameError> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(NameError::Port),
    }
}

/// The bytes that a login signs: `LOGIN || 0 || u16 version || var8 relay-name || [32] nonce || [32] mailbox`.
#[must_use]
pub fn signed_bytes(version: u16, relay: &RelayName, nonce: &[u8; 32], mailbox: &[u8; 32]) -> Vec<u8> {
    let name = relay.as_str().as_bytes();
    // A name is never longer than 255 bytes, by construction.
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    labelled(LOGIN, &[&version.to_be_bytes(), &[length], name, nonce, mailbox])
}

/// Signs the login of `key`'s mailbox at the relay that the *caller* dialled by this name.
#[must_use]
pub fn sign(key: &MailboxKey, version: u16, relay: &RelayName, nonce: &[u8; 32]) -> [u8; 64] {
    key.sign(&signed_bytes(version, relay, nonce, key.id().as_bytes()))
}

/// Verifies a login under any of the relay's own names, and says whose it is.
///
/// # Errors
///
/// [`LoginRefused`], for every cause: not a key, another relay's name, another nonce or version, a bad signature.
pub fn verify(
    names: &[RelayName],
    version: u16,
    nonce: &[u8; 32],
    mailbox: &[u8; 32],
    signature: &[u8; 64],
) -> Result<MailboxId, LoginRefused> {
    let id = MailboxId::from_bytes(*mailbox).map_err(|_| LoginRefused)?;
    let holds = |name: &RelayName| {
        id.verify(&signed_bytes(version, name, nonce, mailbox), signature)
            .is_ok()
    };
    if names.iter().any(holds) {
        Ok(id)
    } else {
        Err(LoginRefused)
    }
}

#[cfg(test)]
mod tests;
