//! The people that this crate's tests speak of, and what they say. Keys are fixed, so that everything is the same each
//! time. Not here: anything that isn't a test's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::envelope::EnvelopeSecret;
use wire::identity::Identity;
use wire::mailbox::{Capability, MailboxKey};

use crate::action::{Action, Command, Executable, Limits, Stdin};
use crate::change::Change;
use crate::checkpoint::Checkpoint;
use crate::decision::{Answer, Decision};
use crate::device::Device;
use crate::invite::{Invite, InviteSecret};
use crate::pairing::{Address, Join, Nonce, commitment};
use crate::request::{AskedBy, Class, Request};
use crate::roster::{Quorum, Role, Roster};
use crate::scalar::{ByteString, Digest, Id16, LeafKey, Text, Time};
use crate::statement::{Verified, sign};

/// Seeds: an identity's secret is its seed 32 times.
pub(crate) const GATE: u8 = 1;
pub(crate) const ALICE: u8 = 2;
pub(crate) const ALICES_PHONE: u8 = 3;
pub(crate) const BOB: u8 = 4;
pub(crate) const CAROL: u8 = 5;
pub(crate) const AUDITOR: u8 = 6;
pub(crate) const STRANGER: u8 = 7;
pub(crate) const OTHER_GATE: u8 = 8;

pub(crate) const NOON: u64 = 1_800_000_000_000;
pub(crate) const MINUTE: u64 = 60_000;

pub(crate) fn at(millis: u64) -> Time {
    Time::from_millis(millis).unwrap()
}

pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_bytes(&[seed; 32])
}

pub(crate) fn device(seed: u8) -> Verified<Device> {
    let identity = identity(seed);
    let device = Device {
        party: identity.party(),
        leaf: LeafKey([seed + 0x40; 32]),
        name: format!("device-{seed}").parse().unwrap(),
        created: at(NOON),
    };
    sign(&identity, device).unwrap()
}

pub(crate) fn quorum(command: u16, roster: u16) -> Quorum {
    Quorum { command, roster }
}

pub(crate) fn genesis_of(gate: u8) -> Verified<Roster> {
    let relays = vec!["wss://relay.example".parse().unwrap()];
    sign(
        &identity(gate),
        Roster::genesis(device(gate), quorum(1, 1), relays, at(NOON)),
    )
    .unwrap()
}

pub(crate) fn genesis() -> Verified<Roster> {
    genesis_of(GATE)
}

/// Epoch 1 with these devices, each with its person and role.
pub(crate) fn roster(devices: &[(&str, Role, u8)], quorum: Quorum) -> Verified<Roster> {
    let genesis = genesis();
    let mut contents = genesis.contents();
    for (name, role, seed) in devices {
        contents = contents
            .with_device(name.parse().unwrap(), *role, device(*seed))
            .unwrap();
    }
    let contents = contents.with(&Change::Quorum(quorum)).unwrap();
    sign(&identity(GATE), contents.after(&genesis, None, at(NOON)).unwrap()).unwrap()
}

/// Alice with two devices, Bob and Carol, and an auditor; two of three for a command, all three for the roster.
pub(crate) fn team() -> Verified<Roster> {
    roster(&TEAM, quorum(2, 3))
}

pub(crate) const TEAM: [(&str, Role, u8); 5] = [
    ("alice", Role::Admin, ALICE),
    ("alice", Role::Admin, ALICES_PHONE),
    ("bob", Role::Admin, BOB),
    ("carol", Role::Admin, CAROL),
    ("dora", Role::Auditor, AUDITOR),
];

pub(crate) fn bytes(text: &str) -> ByteString {
    ByteString::new(text).unwrap()
}

pub(crate) fn command() -> Command {
    Command {
        executable: Executable {
            path: bytes("/usr/bin/deploy"),
            sha256: Digest::of(b"deploy"),
        },
        argv: vec![
            bytes("deploy"),
            bytes("--to"),
            bytes("production"),
            ByteString::new(&b"\xff\xfe"[..]).unwrap(),
        ],
        env: vec![
            (bytes("LANG"), bytes("C.UTF-8")),
            (bytes("PATH"), bytes("/usr/bin:/bin")),
        ],
        directory: bytes("/srv/app"),
        stdin: Stdin::None,
        limits: Limits {
            wall_ms: 30_000,
            output_bytes: 1 << 20,
        },
        uid: 1000,
    }
}

/// A request of a minute's life at index 2, changed by `edit` before it is signed.
pub(crate) fn request_with(roster: &Verified<Roster>, edit: impl FnOnce(&mut Request)) -> Verified<Request> {
    let mut request = Request {
        gate: roster.gate,
        incarnation: Id16([0x11; 16]),
        index: 2,
        nonce: Id16([0x22; 16]),
        roster: roster.digest(),
        class: Class::Command,
        need: roster.quorum.command,
        action: Action::Command(command()),
        asked_by: AskedBy {
            agent: "butler".parse().unwrap(),
            user: Some(Text::new("Erin \u{202e}").unwrap()),
            conversation: None,
            platform: Some(Text::new("matrix").unwrap()),
        },
        reason: Text::new("the tests are green").unwrap(),
        created: at(NOON),
        expires: at(NOON + MINUTE),
    };
    edit(&mut request);
    sign(&identity(GATE), request).unwrap()
}

pub(crate) fn request(roster: &Verified<Roster>) -> Verified<Request> {
    request_with(roster, |_| {})
}

/// The gate's checkpoint at this size.
pub(crate) fn checkpoint(size: u64) -> String {
    Checkpoint::sign(&identity(GATE), size, [0x33; 32]).as_str().to_owned()
}

/// An answer with the first checkpoint that holds the request.
pub(crate) fn decision(seed: u8, request: &Verified<Request>, verdict: Answer) -> Verified<Decision> {
    decision_quoting(seed, request, verdict, checkpoint(request.index + 1))
}

pub(crate) fn decision_quoting(
    seed: u8,
    request: &Verified<Request>,
    verdict: Answer,
    checkpoint: String,
) -> Verified<Decision> {
    let decision = Decision {
        party: identity(seed).party(),
        request: request.digest(),
        verdict,
        reason: Text::default(),
        time: at(NOON + u64::from(seed)),
        checkpoint,
    };
    sign(&identity(seed), decision).unwrap()
}

/// Signs any payload as any type, by DSSE's own rules and nothing of this crate: how others, and liars, make
/// statements.
pub(crate) fn dsse(seed: u8, kind: &str, payload: &[u8]) -> String {
    let kind = format!("application/vnd.countersign.{kind}+json");
    let pae = [
        format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(),
        payload,
    ]
    .concat();
    let (party, signature) = (identity(seed).party(), identity(seed).sign(&pae));
    let (payload, signature) = (STANDARD.encode(payload), STANDARD.encode(signature));
    format!(
        r#"{{"payloadType":"{kind}","payload":"{payload}","signatures":[{{"keyid":"{party}","sig":"{signature}"}}]}}"#
    )
}

/// The payload of a statement, as its author wrote it.
pub(crate) fn payload_of<T>(statement: &Verified<T>) -> String {
    let text = statement.signed().as_str();
    let (_, rest) = text.split_once(r#""payload":""#).unwrap();
    let (payload, _) = rest.split_once('"').unwrap();
    String::from_utf8(STANDARD.decode(payload).unwrap()).unwrap()
}

pub(crate) fn address(seed: u8) -> Address {
    Address {
        mailbox: MailboxKey::from_bytes(&[seed; 32]).id(),
        envelope_key: EnvelopeSecret::from_bytes(&[seed; 32]).key(),
        capability: Capability::from_bytes(&[seed; 32]),
    }
}

pub(crate) fn invite() -> Invite {
    let Address {
        mailbox, envelope_key, ..
    } = address(0x50);
    Invite {
        role: Role::Admin,
        expires: at(NOON + crate::invite::LIFE_MS),
        secret: InviteSecret::from_bytes([0x51; 16]),
        gate: identity(GATE).party(),
        mailbox,
        envelope_key,
        person: "alice".parse().unwrap(),
        relay: "wss://relay.example".parse().unwrap(),
    }
}

pub(crate) const DEVICE_NONCE: Nonce = [0x52; 16];
pub(crate) const GATE_NONCE: Nonce = [0x53; 16];

pub(crate) fn join() -> Join {
    Join {
        device: device(ALICE),
        key_package: b"key package".to_vec(),
        address: address(0x54),
        commitment: commitment(&DEVICE_NONCE),
    }
}
