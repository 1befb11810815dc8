//! How a gate is, as programs on its machine are told: itself, its devices and the grants that stand. The transcript says more, and is signed.

use serde::{Deserialize, Serialize};

use approval::grant::Terms;
use approval::permit::Confined;
use approval::request::AskedBy;
use approval::roster::Unenrolled;

/// How a gate is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its identity.
    pub gate: String,
    /// Its relay.
    pub relay: String,
    /// Whether it is connected to the relay now.
    pub connected: bool,
    /// Why it refuses to sign, if it does.
    pub halted: Option<String>,
    /// Entries in the transcript.
    pub size: u64,
    /// Epoch of the roster in force.
    pub epoch: u32,
    /// Requests that wait.
    pub pending: u64,
    /// Grants that stand.
    pub grants: u64,
    /// Whether a policy is in force; without one everything is asked.
    pub policy: bool,
    /// What happens while nobody is enrolled.
    pub unenrolled: Unenrolled,
    /// What holds commands in, as found at the gate's start.
    pub confined: Vec<Confined>,
    /// Whether the agent can be the gate's own user, who can read its keys.
    pub same_user: bool,
    /// By how many ms the gate's clock is ahead of a wall clock that was set back.
    pub clock_ahead_ms: u64,
    /// The devices it writes to.
    pub devices: Vec<DeviceStatus>,
}

/// How one device is, as the gate knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its identity.
    pub party: String,
    /// Whose it is.
    pub person: String,
    /// Its name.
    pub device: String,
    /// The transcript size that it acknowledged.
    pub acked: u64,
    /// When it was last heard of, ms since 1970; 0 for never.
    pub heard: u64,
}

/// A grant that stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GrantStatus {
    /// Its digest.
    pub id: String,
    /// Digest of the request whose like it covers.
    pub request: String,
    /// For whom.
    pub asked_by: AskedBy,
    /// That request's action as an admin saw it.
    pub shown: String,
    /// What else it covers, and for how long.
    pub terms: Terms,
    /// Who gave it.
    pub by: Vec<String>,
    /// Permits by it so far.
    pub used: u64,
    /// When it was given, ms since 1970.
    pub made: u64,
}
