//! The model's names as the product's statements: people with keys, requests, decisions, grants. Keys are fixed, so that a history is
//! the same each time. Not here: who may do what.

use approval::action::{Action, Bound, Directory, Inode, Limits, Mark, SecretUse, Stdin, ToolCall};
use approval::checkpoint::Checkpoint;
use approval::decision::{Answer as Word, Decision};
use approval::device::Device;
use approval::grant::Terms as ProductTerms;
use approval::policy::Policy;
use approval::request::{AskedBy, Class, Request, matching};
use approval::roster::{Role, Roster, Unenrolled};
use approval::scalar::LeafKey;
use approval::statement::Payload;
use approval::{ByteString, Digest, Id16, Text, Time, Verified, sign};
use wire::identity::Identity;

use super::model::{Answer, Asked, Asker, DEVICES, Terms, Thing};
use super::policies::{BEGIN, POLICIES};

pub(super) const RIGHT: &str = "417";
pub(super) const WRONG: &str = "418";

/// Everybody's keys and certificates, made once.
pub(super) struct People {
    pub(super) gate: Identity,
    pub(super) other_gate: Identity,
    pub(super) devices: Vec<Identity>,
    pub(super) certificates: Vec<Verified<Device>>,
    gate_device: Verified<Device>,
    policies: Vec<Policy>,
}

impl People {
    pub(super) fn new() -> Self {
        let identity = |seed: u8| Identity::from_bytes(&[seed; 32]);
        let certificate = |seed: u8| {
            let device = Device {
                party: identity(seed).party(),
                leaf: LeafKey([seed + 0x40; 32]),
                name: format!("device-{seed}").parse().unwrap(),
                created: at(BEGIN),
            };
            sign(&identity(seed), device).unwrap()
        };
        Self {
            gate: identity(1),
            other_gate: identity(2),
            devices: (10..16).map(identity).collect(),
            certificates: (10..16).map(certificate).collect(),
            gate_device: certificate(1),
            policies: POLICIES
                .iter()
                .map(|policy| Policy::parse(&policy.text()).unwrap())
                .collect(),
        }
    }

    pub(super) fn policy(&self, number: Option<usize>) -> Option<Policy> {
        number.map(|number| self.policies[number].clone())
    }

    pub(super) fn genesis(&self, unenrolled_allows: bool) -> Verified<Roster> {
        let relays = vec!["wss://relay.example".parse().unwrap()];
        let quorum = approval::roster::Quorum { command: 1, roster: 1 };
        let mut genesis = Roster::genesis(self.gate_device.clone(), quorum, relays, at(BEGIN));
        if unenrolled_allows {
            genesis.unenrolled = Unenrolled::Allow;
        }
        sign(&self.gate, genesis).unwrap()
    }

    /// Everybody but the stranger enrolled, with this quorum for commands and this policy.
    pub(super) fn enrolled(
        &self,
        genesis: &Verified<Roster>,
        quorum: u16,
        policy: Option<usize>,
        created: u64,
    ) -> Verified<Roster> {
        let mut contents = genesis.contents();
        for (device, person) in DEVICES.iter().enumerate().take(5) {
            let role = if *person == "dora" { Role::Auditor } else { Role::Admin };
            let name = person.parse().unwrap();
            contents = contents
                .with_device(name, role, self.certificates[device].clone())
                .unwrap();
        }
        contents.quorum = approval::roster::Quorum {
            command: quorum,
            roster: 2,
        };
        contents.policy = self.policy(policy);
        sign(&self.gate, contents.after(genesis, None, at(created)).unwrap()).unwrap()
    }

    /// What the gate says.
    pub(super) fn say<T: Payload>(&self, payload: T) -> Verified<T> {
        sign(&self.gate, payload).unwrap()
    }

    pub(super) fn decision(
        &self,
        answer: &Answer,
        request: &Verified<Request>,
        checkpoint: &str,
    ) -> Verified<Decision> {
        let number = request
            .matching
            .map(|_| if answer.right_number { RIGHT } else { WRONG });
        let identity = &self.devices[answer.device];
        let decision = Decision {
            party: identity.party(),
            request: request.digest(),
            verdict: if answer.approves { Word::Approve } else { Word::Deny },
            number: number.filter(|_| answer.approves).map(str::to_owned),
            grant: answer.grants.as_ref().map(product_terms),
            reason: Text::default(),
            time: at(BEGIN),
            checkpoint: checkpoint.to_owned(),
        };
        sign(identity, decision).unwrap()
    }

    pub(super) fn checkpoint(&self, size: u64, root: [u8; 32]) -> String {
        Checkpoint::sign(&self.gate, size, root).as_str().to_owned()
    }
}

pub(super) fn at(millis: u64) -> Time {
    Time::from_millis(millis).unwrap()
}

fn bytes(text: impl Into<Vec<u8>>) -> ByteString {
    ByteString::new(text).unwrap()
}

fn text<const MAX: usize>(words: &str) -> Text<MAX> {
    Text::new(words).unwrap()
}

pub(super) fn product_terms(terms: &Terms) -> ProductTerms {
    ProductTerms {
        blanks: terms.blanks.iter().map(|at| u32::try_from(*at).unwrap()).collect(),
        user: terms.user,
        conversation: terms.conversation,
        not_after: terms.not_after.map(at),
        uses: terms.uses,
    }
}

pub(super) fn asked_by(asker: Asker) -> AskedBy {
    AskedBy {
        agent: asker.agent.parse().unwrap(),
        under: asker.under.iter().map(|agent| agent.parse().unwrap()).collect(),
        user: asker.user.map(text),
        conversation: asker.conversation.map(text),
        platform: None,
    }
}

pub(super) fn action(thing: Thing) -> Action {
    let command = match thing {
        Thing::Tool(server, tool) => {
            return Action::Tool(ToolCall {
                server: text(server),
                tool: text(tool),
                schema: Digest::of(tool.as_bytes()),
                arguments: text("{}"),
            });
        }
        Thing::Secret(name) => {
            return Action::Secret(SecretUse {
                name: name.parse().unwrap(),
                host: text("registry.example"),
                method: text("PUT"),
                path: text("/app"),
            });
        }
        Thing::Command(command) => command,
    };
    let path = format!("/usr/bin/{}", command.words[0]);
    let inode = |number| Inode { device: 1, number };
    let mut env = vec![
        (bytes("LANG"), bytes("C")),
        (bytes("PATH"), bytes("/usr/local/bin:/usr/bin:/bin")),
    ];
    if command.poisoned {
        env.insert(1, (bytes("LD_PRELOAD"), bytes("/tmp/x.so")));
    }
    let marks = [(Mark::Runner, command.runner), (Mark::Writable, command.writable)];
    Action::Command(approval::action::Command {
        executable: Bound {
            sha256: Digest::of(path.as_bytes()),
            path: bytes(path),
            inode: inode(7),
        },
        interpreter: None,
        argv: command.words.iter().map(|word| bytes(*word)).collect(),
        env,
        directory: Directory {
            path: bytes(command.folder),
            inode: inode(8),
        },
        stdin: Stdin::None,
        operands: Vec::new(),
        limits: Limits {
            wall_ms: command.wall_ms,
            output_bytes: 1 << 20,
            memory_bytes: 0,
        },
        uid: 1000,
        marks: marks
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(mark, _)| mark)
            .collect(),
    })
}

/// The request that the gate makes of what was asked, at the end of its transcript.
pub(super) fn request(people: &People, asked: &Asked, roster: &Verified<Roster>, nonce: u64, now: u64) -> Request {
    let action = action(asked.thing);
    let nonce = Id16(u128::from(nonce).to_be_bytes());
    Request {
        gate: people.gate.party(),
        incarnation: Id16([1; 16]),
        index: asked.index,
        nonce,
        roster: roster.digest(),
        class: action.class(),
        risk: asked.demands.risk.map(|name| name.parse().unwrap()),
        need: u16::try_from(asked.demands.need).unwrap(),
        veto: asked.demands.veto,
        four_eyes: asked.demands.four_eyes,
        matching: asked.demands.number.then(|| matching(&nonce, RIGHT)),
        action,
        asked_by: asked_by(asked.asker),
        reason: Text::default(),
        created: at(now),
        expires: at(asked.expires),
    }
}

/// A change of roster, asked for at the end of the transcript.
pub(super) fn roster_request(
    people: &People,
    contents: approval::roster::RosterContents,
    roster: &Verified<Roster>,
    place: (u64, u64),
    now: u64,
) -> Request {
    let (index, nonce) = place;
    Request {
        gate: people.gate.party(),
        incarnation: Id16([1; 16]),
        index,
        nonce: Id16(u128::from(nonce).to_be_bytes()),
        roster: roster.digest(),
        class: Class::Roster,
        risk: None,
        need: roster.quorum.roster,
        veto: true,
        four_eyes: false,
        matching: None,
        action: Action::Roster(contents),
        asked_by: AskedBy {
            agent: "admin".parse().unwrap(),
            under: Vec::new(),
            user: None,
            conversation: None,
            platform: None,
        },
        reason: Text::default(),
        created: at(now),
        expires: at(now + 3_600_000),
    }
}
