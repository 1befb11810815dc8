//! What the text of an action tells its reader (PROTOCOL.md 11). Not here: the text (`write`), reading it (`read`).

use wire::identity::PartyId;

use crate::action::{Action, Command, SecretUse, ToolCall};
use crate::device::Certificate;
use crate::roster::{Quorum, Role, RosterContents};
use crate::scalar::{Digest, LeafKey, Name, RelayUrl, Time};

/// What the text of an action tells its reader. For a roster each device is identified by its statement's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)]
pub enum Reading {
    /// A command, whole.
    Command(Command),
    /// A tool call, whole.
    Tool(ToolCall),
    /// A use of a secret, whole.
    Secret(SecretUse),
    /// A change of roster.
    Roster(RosterReading),
}

/// A change of roster as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterReading {
    /// The gate's own certificate.
    pub gate: DeviceReading,
    /// Everybody, in the roster's order.
    pub people: Vec<PersonReading>,
    /// How many must say yes.
    pub quorum: Quorum,
    /// The policy's text. None: everything is asked.
    pub policy: Option<String>,
    /// Where the gate may be found.
    pub relays: Vec<RelayUrl>,
}

/// A person as they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonReading {
    /// Unique in the roster.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// Their devices, in the roster's order.
    pub devices: Vec<DeviceReading>,
}

/// A device as it is read. The digest stands for the whole certificate; the rest is shown for the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReading {
    /// The device's identity.
    pub party: PartyId,
    /// What its owner calls it.
    pub name: Name,
    /// The key of its leaf in the group.
    pub leaf: LeafKey,
    /// When it was made, by its own clock.
    pub created: Time,
    /// The digest of its certificate.
    pub digest: Digest,
}

impl Reading {
    /// What the reader of this action's text is told.
    #[must_use]
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Command(command) => Self::Command(command.clone()),
            Action::Tool(call) => Self::Tool(call.clone()),
            Action::Secret(secret) => Self::Secret(secret.clone()),
            Action::Roster(contents) => Self::Roster(RosterReading::of(contents)),
        }
    }
}

impl RosterReading {
    fn of(contents: &RosterContents) -> Self {
        Self {
            gate: DeviceReading::of(&contents.gate_device),
            people: contents
                .people
                .iter()
                .map(|person| PersonReading {
                    name: person.name.clone(),
                    role: person.role,
                    devices: person.devices.iter().map(DeviceReading::of).collect(),
                })
                .collect(),
            quorum: contents.quorum,
            policy: contents.policy.as_ref().map(|policy| policy.text().to_owned()),
            relays: contents.relays.clone(),
        }
    }
}

impl DeviceReading {
    fn of(device: &Certificate) -> Self {
        Self {
            party: device.party,
            name: device.name.clone(),
            leaf: device.leaf,
            created: device.created,
            digest: device.digest(),
        }
    }
}
