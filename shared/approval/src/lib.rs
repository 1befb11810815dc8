//! What the parties say to each other end to end, and the one rule that says yes (PROTOCOL.md 7 to 15). Not here: any
//! input or output, any clock, any randomness. Whoever calls brings the time, the random bytes and the roster.
//!
//! ```text
//! payload --sign--> Signed --(channel)--> Signed --verify--> Verified --decide--> Verdict::Open(Permit) --run--> outcome
//! ```
//!
//! | to | use |
//! |---|---|
//! | say something | [`statement::sign`] |
//! | believe something | [`statement::Signed::verify`]: these bytes, this signer; never "may" |
//! | find out whether it may be done | [`decide::decide`] |
//! | check everything afterwards | [`replay`] and [`export`] |
//! | show it to a person | [`render`], [`escape`] |
//! | let a new device in | [`invite`], [`pairing`] |

mod fields;
mod json;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod vectors;

pub mod action;
pub mod change;
pub mod checkpoint;
pub mod decide;
pub mod decision;
pub mod device;
pub mod escape;
pub mod export;
pub mod grant;
pub mod invite;
pub mod message;
pub mod outcome;
pub mod pairing;
pub mod permit;
pub mod policy;
pub mod proof;
pub mod render;
pub mod replay;
pub mod request;
pub mod revocation;
pub mod roster;
pub mod scalar;
pub mod standing;
pub mod statement;
pub mod transcript;

pub use scalar::{ByteString, Digest, Id16, Name, RelayUrl, Text, Time};
pub use statement::{Signed, Statement, StatementError, Verified, sign};
