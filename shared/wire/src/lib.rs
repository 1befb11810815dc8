//! All that the Countersign relay may see: keys, mailbox login, frames and sealed envelopes
//! (`PROTOCOL.md`, sections 2 to 6).
//!
//! What is said inside an envelope, who may say it and what is approved is deliberately not here but in the crate
//! `approval`, which the relay can't even name. Nothing here opens a socket, a file or a clock; randomness is an
//! argument.
//!
//! Start with [`identity::PartyId`] (who), [`mailbox::MailboxId`] (where) and [`envelope::Envelope`] (what travels).

pub mod envelope;
pub mod frame;
mod hpke;
pub mod identity;
pub mod key;
pub mod label;
pub mod limits;
pub mod login;
pub mod mailbox;

#[cfg(test)]
#[path = "../tests/vectors/mod.rs"]
mod vectors;
