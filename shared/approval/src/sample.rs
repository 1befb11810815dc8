//! The people that this crate's tests speak of, and what they say. Keys are fixed, so that everything is the same each
//! time. Not here: anything that isn't a test's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::envelope::EnvelopeSecret;
use wire::identity::Identity;
use wire::mailbox::{Capability, MailboxKey};

use crate::action::{
    Action, Bound, Command, Directory, Inode, Input, Limits, Mark, Operand, SecretUse, Stdin, ToolCall,
};
use crate::change::Change;
use crate::checkpoint::Checkpoint;
use crate::decision::{Answer, Decision};
use crate::device::Device;
use crate::grant::{Grant, Terms};
use crate::invite::{Invite, InviteSecret};
use crate::pairing::{Address, Join, Nonce, commitment};
use crate::policy::Policy;
use crate::request::{AskedBy, Class, Request};
use crate::revocation::Revocation;
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

/// A file in this place, of this name's contents.
pub(crate) fn bound(path: &str, number: u64) -> Bound {
    let (_, name) = path.rsplit_once('/').unwrap();
    Bound {
        path: bytes(path),
        inode: inode(number),
        sha256: Digest::of(name.as_bytes()),
    }
}

pub(crate) fn inode(number: u64) -> Inode {
    Inode { device: 0xfd01, number }
}

/// A command with everything that one can have but an interpreter: nothing of it may be granted with blanks.
pub(crate) fn command() -> Command {
    let mut command = plain_command();
    command.argv.push(ByteString::new(&b"\xff\xfe"[..]).unwrap());
    command.stdin = Stdin::Bytes(Input {
        sha256: Digest::of(b"yes\n"),
        bytes: 4,
    });
    command.operands = vec![Operand {
        argument: 2,
        file: bound("/srv/app/production", 0x3c4d),
    }];
    command.marks = vec![Mark::Odd, Mark::Writable];
    command
}

/// A command that may be granted and allowed, also with blanks.
pub(crate) fn plain_command() -> Command {
    Command {
        executable: bound("/usr/bin/deploy", 0x1a2b),
        interpreter: None,
        argv: vec![bytes("deploy"), bytes("--to"), bytes("production")],
        env: vec![
            (bytes("LANG"), bytes("C.UTF-8")),
            (bytes("PATH"), bytes("/usr/local/bin:/usr/bin:/bin")),
        ],
        directory: Directory {
            path: bytes("/srv/app"),
            inode: inode(2),
        },
        stdin: Stdin::None,
        operands: Vec::new(),
        limits: Limits {
            wall_ms: 30_000,
            output_bytes: 1 << 20,
            memory_bytes: 1 << 28,
        },
        uid: 1000,
        marks: Vec::new(),
    }
}

/// A script: the kernel starts an interpreter for it.
pub(crate) fn script() -> Command {
    Command {
        executable: bound("/srv/app/release notes.py", 0x5e6f),
        interpreter: Some(bound("/usr/bin/python3.12", 0x7a8b)),
        argv: vec![bytes("./release notes.py"), bytes("--draft")],
        marks: vec![Mark::Runner, Mark::Writable],
        ..plain_command()
    }
}

pub(crate) fn tool_call() -> ToolCall {
    ToolCall {
        server: Text::new("files").unwrap(),
        tool: Text::new("write_file").unwrap(),
        schema: Digest::of(b"schema of write_file"),
        arguments: Text::new("{\"path\":\"/srv/app/caf\u{e9}\",  \"text\":\"\u{202e}\"}").unwrap(),
    }
}

pub(crate) fn secret_use() -> SecretUse {
    SecretUse {
        name: "registry-token".parse().unwrap(),
        host: Text::new("registry.example.org").unwrap(),
        method: Text::new("PUT").unwrap(),
        path: Text::new("/v2/app/manifests/latest").unwrap(),
    }
}

/// A rule of each effect, two classes and a layer. Its largest quorum is 2.
pub(crate) const POLICY: &str = r#"mode = "allowlist"

[[layer]]
agent = "guest"
mode = "deny"

[class.deploy]
quorum = 2
veto = false
four_eyes = true
expires = "10m"

[class.careful]
number = true

[person.alice]
users = ["matrix:alice"]

[[rule]]
effect = "deny"
command = ["rm", { rest = true }]

[[rule]]
effect = "allow"
agents = ["butler"]
command = ["ls", "-l", { like = "*.log" }]
uses = 2
per = "1h"

[[rule]]
effect = "ask"
command = ["deploy", { rest = true }]
class = "deploy"

[[rule]]
effect = "ask"
secret = "registry-token"
class = "careful"

[[rule]]
effect = "allow"
tool = "files/read_file"
"#;

pub(crate) fn policy() -> Policy {
    policy_of(POLICY)
}

pub(crate) fn policy_of(text: &str) -> Policy {
    serde_json::from_value(text.into()).unwrap()
}

/// The team with this policy.
pub(crate) fn team_with(policy: &str) -> Verified<Roster> {
    let contents = team()
        .contents()
        .with(&Change::Policy(Some(policy_of(policy))))
        .unwrap();
    sign(&identity(GATE), contents.after(&genesis(), None, at(NOON)).unwrap()).unwrap()
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
        risk: None,
        need: roster.quorum.command,
        veto: true,
        four_eyes: false,
        matching: None,
        action: Action::Command(command()),
        asked_by: AskedBy {
            agent: "butler".parse().unwrap(),
            under: Vec::new(),
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
        number: None,
        grant: None,
        reason: Text::default(),
        time: at(NOON + u64::from(seed)),
        checkpoint,
    };
    sign(&identity(seed), decision).unwrap()
}

/// An approval that grants what is like it on these terms.
pub(crate) fn granting(seed: u8, request: &Verified<Request>, terms: &Terms) -> Verified<Decision> {
    let decision = Decision {
        grant: Some(terms.clone()),
        ..decision(seed, request, Answer::Approve).get().clone()
    };
    sign(&identity(seed), decision).unwrap()
}

/// Until an hour later, ten times, and only for the same user.
pub(crate) fn terms() -> Terms {
    Terms {
        blanks: vec![2],
        user: true,
        conversation: false,
        not_after: Some(at(NOON + 60 * MINUTE)),
        uses: Some(10),
    }
}

/// What these approvals grant.
pub(crate) fn grant(
    roster: &Verified<Roster>,
    request: &Verified<Request>,
    decisions: &[Verified<Decision>],
    terms: &Terms,
) -> Verified<Grant> {
    let grant = Grant {
        request: request.digest(),
        roster: roster.digest(),
        decisions: decisions.iter().map(Verified::digest).collect(),
        terms: terms.clone(),
        time: at(NOON + 4),
    };
    sign(&identity(GATE), grant).unwrap()
}

pub(crate) fn revocation(seed: u8, grant: &Verified<Grant>) -> Verified<Revocation> {
    let revocation = Revocation {
        party: identity(seed).party(),
        grant: grant.digest(),
        reason: Text::new("not any more").unwrap(),
        time: at(NOON + 6),
    };
    sign(&identity(seed), revocation).unwrap()
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
