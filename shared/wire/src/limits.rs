//! Every bound on what the relay sees, each with its unit and reason (`PROTOCOL.md`, section 14).
//!
//! The bounds on statements, people, commands and channel messages are deliberately not here: the relay can't see what
//! they bound. They stand in `approval`.

use std::time::Duration;

/// Longest frame before login, in bytes: all that a stranger can make a relay hold.
pub const FRAME_BYTES_BEFORE_LOGIN: usize = 4 * 1024;

/// Longest frame after login, in bytes: twice the largest envelope, so that the fields around it always fit.
pub const FRAME_BYTES: usize = 128 * 1024;

/// How long a connection may take to become a websocket (TLS included): slow sockets are free for who opens them.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection may take to log in, and so how long a challenge lives.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(10);

/// The lengths of an envelope, in bytes, in ascending order: few, so that a length says little about what is inside.
pub const ENVELOPE_BYTES: [usize; 5] = [1024, 2048, 4096, 16_384, 65_536];

/// What an envelope adds to the padded plain text, in bytes: the encapsulated key (32) and the AEAD's tag (16).
pub const ENVELOPE_SEAL_BYTES: usize = 32 + 16;

/// What stands before a message inside an envelope, in bytes: its content type (1) and length (4).
pub const ENVELOPE_HEADER_BYTES: usize = 1 + 4;

/// Longest message that fits an envelope, in bytes: the largest envelope without seal and header.
pub const ENVELOPE_MESSAGE_BYTES: usize = 65_536 - ENVELOPE_SEAL_BYTES - ENVELOPE_HEADER_BYTES;

/// Shortest life of an envelope at a relay, in seconds: zero would be stored to be deleted.
pub const TTL_SECONDS_MIN: u32 = 1;

/// Longest life of an envelope at a relay, in seconds: 30 days, a reader on holiday.
pub const TTL_SECONDS_MAX: u32 = 30 * 24 * 60 * 60;

/// Capabilities of one mailbox: more than the members of any group (64), and a bound on what a mailbox costs.
pub const CAPABILITIES_PER_MAILBOX: usize = 256;

/// Most envelopes that may wait at once under one capability: a peer can't fill a disk with small ones…
pub const CAPABILITY_ENVELOPES_MAX: u32 = 10_000;

/// …nor with large ones: most bytes that may wait at once under one capability.
pub const CAPABILITY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Envelopes delivered to a reader and not yet acknowledged: bounds the memory of a connection (64 × 64 KiB).
pub const WINDOW_ENVELOPES: u32 = 64;

/// Longest relay name (the authority dialled), in bytes: it is a `var8` in the signed login.
pub const RELAY_NAME_BYTES: usize = 255;

/// Longest relay URL, in bytes: it is a `var8` in an invite.
pub const RELAY_URL_BYTES: usize = 255;

// The relations that the reasons above rest on, checked by the compiler.
const _: () = {
    assert!(FRAME_BYTES == 2 * 65_536);
    assert!(RELAY_NAME_BYTES == u8::MAX as usize && RELAY_URL_BYTES == u8::MAX as usize);
    // A login frame (type, version, key, signature) must be sendable before login.
    assert!(1 + 2 + 32 + 64 <= FRAME_BYTES_BEFORE_LOGIN);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelope_lengths_ascend_and_the_largest_gives_the_longest_message() {
        assert!(ENVELOPE_BYTES.is_sorted_by(|a, b| a < b));
        assert_eq!(
            ENVELOPE_BYTES.last().copied(),
            Some(ENVELOPE_MESSAGE_BYTES + ENVELOPE_SEAL_BYTES + ENVELOPE_HEADER_BYTES)
        );
    }
}
