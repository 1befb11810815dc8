//! A gate and its people with fixed keys and a fixed clock, who write transcripts for the tests of this crate. What they
//! write goes through the replay; what tests write behind its back is tried without being kept.

use wire::identity::{Identity, PartyId};

use super::{Entry, Finding, Replay};
use crate::action::{Action, Bound, Command, Directory, Inode, Limits, Stdin, ToolCall};
use crate::checkpoint::Checkpoint;
use crate::decide::Verdict;
use crate::decision::{Answer, Decision};
use crate::device::{Certificate, Device};
use crate::export::ExportWriter;
use crate::grant::{Grant, Terms};
use crate::outcome::{Ended, Exit, Failed, Forbidden, Nothing, Outcome, Ran, Stopped, Stream};
use crate::permit::{Confined, Permission};
use crate::policy::Policy;
use crate::request::{AskedBy, Request, matching};
use crate::revocation::Revocation;
use crate::roster::{Person, Quorum, Role, Roster, RosterContents, Unenrolled};
use crate::scalar::{ByteString, Digest, Id16, LeafKey, Text, Time};
use crate::statement::{Payload, Signed, Verified, sign};

/// 2026-11-20 14:00:00Z.
const BEGINNING: u64 = 1_795_183_200_000;

pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_bytes(&[seed; 32])
}

fn party(seed: u8) -> PartyId {
    identity(seed).party()
}

pub(crate) fn certificate(seed: u8, name: &str) -> Certificate {
    let device = Device {
        party: party(seed),
        leaf: LeafKey([seed; 32]),
        name: name.parse().unwrap(),
        created: Time::from_millis(BEGINNING).unwrap(),
    };
    sign(&identity(seed), device).unwrap().into()
}

pub(crate) fn person(name: &str, role: Role, devices: &[(u8, &str)]) -> Person {
    Person {
        name: name.parse().unwrap(),
        role,
        devices: devices.iter().map(|(seed, name)| certificate(*seed, name)).collect(),
    }
}

pub(crate) fn bytes(text: impl AsRef<[u8]>) -> ByteString {
    ByteString::new(text.as_ref()).unwrap()
}

pub(crate) fn command(argv: &[&[u8]]) -> Action {
    Action::Command(Command {
        executable: Bound {
            path: bytes("/usr/bin/git"),
            inode: Inode {
                device: 0xfd01,
                number: 7,
            },
            sha256: Digest::of(b"git"),
        },
        interpreter: None,
        argv: argv.iter().map(bytes).collect(),
        env: vec![
            (bytes("LANG"), bytes("C.UTF-8")),
            (bytes("PATH"), bytes("/usr/local/bin:/usr/bin:/bin")),
        ],
        directory: Directory {
            path: bytes("/srv/site"),
            inode: Inode {
                device: 0xfd01,
                number: 2,
            },
        },
        stdin: Stdin::None,
        operands: Vec::new(),
        limits: Limits {
            wall_ms: 30_000,
            output_bytes: 1 << 20,
            memory_bytes: 0,
        },
        uid: 1000,
        marks: Vec::new(),
    })
}

pub(crate) fn tool(arguments: &str) -> Action {
    Action::Tool(ToolCall {
        server: Text::new("issues").unwrap(),
        tool: Text::new("close").unwrap(),
        schema: Digest::of(b"close"),
        arguments: Text::new(arguments).unwrap(),
    })
}

/// Any such command with one argument at the end.
pub(crate) fn last_blank(argument: u32) -> Terms {
    Terms {
        blanks: vec![argument],
        ..Terms::exact()
    }
}

pub(crate) fn stream(text: &str) -> Stream {
    Stream {
        sha256: Digest::of(text.as_bytes()),
        bytes: text.len() as u64,
    }
}

pub(crate) fn ran(exit: Exit, stopped: Option<Stopped>) -> Ended {
    Ended::Ran(Ran {
        exit,
        stdout: stream("done\n"),
        stderr: stream(""),
        wall_ms: 1200,
        stopped,
    })
}

/// What the gate shows where a number is wanted.
pub(crate) const NUMBER: &str = "042";

pub(crate) const GATE: u8 = 1;
pub(crate) const ALICE: u8 = 11;
pub(crate) const ALICE_TABLET: u8 = 12;
pub(crate) const BOB: u8 = 21;
pub(crate) const CAROL: u8 = 31;
pub(crate) const DORA: u8 = 41;

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) replay: Replay,
    pub(crate) entries: Vec<Signed>,
    pub(crate) now: u64,
    drawn: u8,
}

impl World {
    /// With the genesis and nobody to ask.
    pub(crate) fn new() -> Self {
        Self::unenrolled(Unenrolled::Refuse)
    }

    pub(crate) fn unenrolled(unenrolled: Unenrolled) -> Self {
        let replay = Replay::new(Some(party(GATE)));
        let mut world = Self {
            replay,
            entries: Vec::new(),
            now: BEGINNING,
            drawn: 0,
        };
        let genesis = Roster {
            gate: party(GATE),
            epoch: 0,
            previous: None,
            basis: None,
            gate_device: certificate(GATE, "gate"),
            people: Vec::new(),
            quorum: Quorum { command: 1, roster: 1 },
            policy: None,
            unenrolled,
            relays: vec!["wss://relay.example.org".parse().unwrap()],
            created: world.time(),
        };
        world.say(GATE, genesis);
        world
    }

    /// With these admins and quorum, on the gate's word.
    pub(crate) fn with(people: Vec<Person>, command: u16, roster: u16) -> Self {
        let mut world = Self::new();
        let next = world.next_roster(&world.contents(people, command, roster), None);
        world.say(GATE, next);
        world
    }

    /// Alice, Bob and Carol, of whom two must approve.
    pub(crate) fn two_of_three() -> Self {
        Self::with(three(), 2, 2)
    }

    /// The same under this policy.
    pub(crate) fn two_of_three_under(policy: &str) -> Self {
        let mut world = Self::new();
        let mut contents = world.contents(three(), 2, 2);
        contents.policy = Some(Policy::parse(policy).unwrap());
        let next = world.next_roster(&contents, None);
        world.say(GATE, next);
        world
    }

    pub(crate) fn time(&self) -> Time {
        Time::from_millis(self.now).unwrap()
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += millis;
    }

    /// Signs and appends; it must be right.
    pub(crate) fn say<T: Payload>(&mut self, by: u8, payload: T) -> Digest {
        let said = sign(&identity(by), payload).unwrap();
        self.replay.next(said.signed().as_bytes()).unwrap();
        self.entries.push(said.signed().clone());
        self.wait(700);
        said.digest()
    }

    /// What would come of it if it were said.
    pub(crate) fn judge<T: Payload>(&self, by: u8, payload: T) -> Result<Entry, Finding> {
        self.replay
            .clone()
            .next(sign(&identity(by), payload).unwrap().signed().as_bytes())
    }

    pub(crate) fn roster(&self) -> &Verified<Roster> {
        self.replay.roster().unwrap()
    }

    pub(crate) fn contents(&self, people: Vec<Person>, command: u16, roster: u16) -> RosterContents {
        RosterContents {
            people,
            quorum: Quorum { command, roster },
            ..self.roster().contents()
        }
    }

    pub(crate) fn next_roster(&self, contents: &RosterContents, basis: Option<Digest>) -> Roster {
        contents.clone().after(self.roster(), basis, self.time()).unwrap()
    }

    /// As the gate would ask it.
    pub(crate) fn request(&self, action: Action) -> Request {
        self.request_of(action, "builder", "Maria")
    }

    pub(crate) fn request_of(&self, action: Action, agent: &str, user: &str) -> Request {
        let asked_by = AskedBy {
            agent: agent.parse().unwrap(),
            under: Vec::new(),
            user: Some(Text::new(user).unwrap()),
            conversation: None,
            platform: None,
        };
        let nonce = Id16([self.drawn; 16]);
        let demands = self.replay.terms_for(&action, &asked_by, self.time()).unwrap();
        Request {
            gate: party(GATE),
            incarnation: Id16([9; 16]),
            index: self.replay.size(),
            nonce,
            roster: self.roster().digest(),
            class: action.class(),
            risk: demands.risk,
            need: demands.need,
            veto: demands.veto,
            four_eyes: demands.four_eyes,
            matching: demands.number.then(|| matching(&nonce, NUMBER)),
            action,
            asked_by,
            reason: Text::new("the release is ready").unwrap(),
            created: self.time(),
            expires: self.time().plus_millis(demands.life_ms.min(600_000)),
        }
    }

    pub(crate) fn ask(&mut self, action: Action) -> Digest {
        self.drawn += 1;
        let request = self.request(action);
        self.say(GATE, request)
    }

    pub(crate) fn ask_of(&mut self, action: Action, agent: &str, user: &str) -> Digest {
        self.drawn += 1;
        let request = self.request_of(action, agent, user);
        self.say(GATE, request)
    }

    pub(crate) fn decision(&self, by: u8, request: Digest, verdict: Answer) -> Decision {
        Decision {
            party: identity(by).party(),
            request,
            verdict,
            number: None,
            grant: None,
            reason: Text::default(),
            time: self.time(),
            checkpoint: self.checkpoint().as_str().to_owned(),
        }
    }

    pub(crate) fn approve(&mut self, by: u8, request: Digest) -> Digest {
        let decision = self.decision(by, request, Answer::Approve);
        self.say(by, decision)
    }

    /// Yes, and to what is like it from now on.
    pub(crate) fn approve_for_good(&mut self, by: u8, request: Digest, terms: &Terms) -> Digest {
        let mut decision = self.decision(by, request, Answer::Approve);
        decision.grant = Some(terms.clone());
        self.say(by, decision)
    }

    /// The grant that the gate would give.
    pub(crate) fn grantable(&self, request: Digest) -> Option<Grant> {
        self.replay.grantable(&request, self.time())
    }

    /// Asked, approved by Alice and Bob on these terms, granted, permitted and run: what it is granted by.
    pub(crate) fn granted(&mut self, action: Action, terms: &Terms) -> Digest {
        let request = self.ask(action);
        self.approve_for_good(ALICE, request, terms);
        self.approve_for_good(BOB, request, terms);
        let grant = self.grantable(request).unwrap();
        let grant = self.say(GATE, grant);
        self.permit(request);
        self.end(request, Ended::Unknown(Nothing {}));
        grant
    }

    pub(crate) fn revocation(&self, by: u8, grant: Digest) -> Revocation {
        Revocation {
            party: party(by),
            grant,
            reason: Text::default(),
            time: self.time(),
        }
    }

    pub(crate) fn revoke(&mut self, by: u8, grant: Digest) -> Digest {
        let revocation = self.revocation(by, grant);
        self.say(by, revocation)
    }

    pub(crate) fn deny(&mut self, by: u8, request: Digest) -> Digest {
        let decision = self.decision(by, request, Answer::Deny);
        self.say(by, decision)
    }

    pub(crate) fn permission(&self, request: Digest) -> Permission {
        match self.verdict(request) {
            Verdict::Open(leave) => leave.statement(vec![Confined::Cgroup], self.time()),
            verdict => panic!("{verdict:?}"),
        }
    }

    pub(crate) fn verdict(&self, request: Digest) -> Verdict {
        self.replay.decide(&request, self.time()).unwrap()
    }

    pub(crate) fn permit(&mut self, request: Digest) -> Digest {
        let permission = self.permission(request);
        self.say(GATE, permission)
    }

    pub(crate) fn outcome(&self, request: Digest, result: Ended) -> Outcome {
        let permit = self
            .replay
            .request(&request)
            .and_then(|pending| pending.permit().map(Verified::digest));
        Outcome {
            request,
            permit,
            result,
            time: self.time(),
        }
    }

    pub(crate) fn end(&mut self, request: Digest, result: Ended) -> Digest {
        let outcome = self.outcome(request, result);
        self.say(GATE, outcome)
    }

    /// Asks for a roster, has it approved by these, and puts it in force.
    pub(crate) fn change(&mut self, contents: RosterContents, approvers: &[u8]) {
        let request = self.ask(Action::Roster(contents.clone()));
        for approver in approvers {
            self.approve(*approver, request);
        }
        self.permit(request);
        let next = self.next_roster(&contents, Some(request));
        self.say(GATE, next);
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::sign(&identity(GATE), self.replay.size(), self.replay.root())
    }

    pub(crate) fn export(&self) -> Vec<u8> {
        export(&self.entries, &self.checkpoint())
    }
}

pub(crate) fn export(entries: &[Signed], checkpoint: &Checkpoint) -> Vec<u8> {
    let mut writer = ExportWriter::new(Vec::new(), *checkpoint.gate(), entries.len() as u64).unwrap();
    entries.iter().for_each(|entry| writer.entry(entry).unwrap());
    writer.finish(checkpoint).unwrap()
}

pub(crate) fn three() -> Vec<Person> {
    vec![
        person("alice", Role::Admin, &[(ALICE, "phone"), (ALICE_TABLET, "tablet")]),
        person("bob", Role::Admin, &[(BOB, "laptop")]),
        person("carol", Role::Admin, &[(CAROL, "phone")]),
    ]
}

/// Two uses of one command, one that is never done, one tool allowed for good.
const RULES: &str = r#"
[[rule]]
effect = "allow"
command = ["git", "status"]
uses = 2
[[rule]]
effect = "deny"
command = ["git", "filter-branch", { rest = true }]
[[rule]]
effect = "allow"
tool = "issues/close"
agents = ["closer"]
"#;

/// A season of a small team: everything that may happen in a transcript happens in it at least once.
pub(crate) fn season() -> World {
    let mut world = World::new();
    let alone = world.contents(vec![person("alice", Role::Admin, &[(ALICE, "phone")])], 1, 1);
    let next = world.next_roster(&alone, None);
    world.say(GATE, next);
    let with_bob = [alone.people[0].clone(), three()[1].clone()].to_vec();
    world.change(world.contents(with_bob, 1, 2), &[ALICE]);

    let run = world.ask(command(&[b"git", b"push", b"origin", b"v1.0"]));
    world.approve(BOB, run);
    world.permit(run);
    world.end(run, ran(Exit::Code(0), None));

    let mut all = three();
    all.push(person("dora", Role::Auditor, &[(DORA, "desk")]));
    world.change(world.contents(all.clone(), 2, 2), &[ALICE, BOB]);

    // Two at once; one is denied while the other waits, and each person counts once.
    let odd = world.ask(command(&[
        b"git",
        b"commit",
        b"-m",
        b"caf\xc3\xa9  \xff\xfe\x1b[2J",
        b"",
    ]));
    let waiting = world.ask(command(&[b"git", b"fetch"]));
    world.approve(ALICE, odd);
    world.approve(ALICE_TABLET, odd);
    world.deny(CAROL, waiting);
    world.end(waiting, Ended::Denied(Nothing {}));
    world.approve(CAROL, odd);
    world.permit(odd);
    world.end(odd, ran(Exit::Signal(9), Some(Stopped::WallLimit)));

    let nobody = world.ask(command(&[b"git", b"gc"]));
    world.approve(ALICE, nobody);
    world.wait(600_000);
    world.end(nobody, Ended::Expired(Nothing {}));

    let regretted = world.ask(command(&[b"git", b"clean", b"-fdx"]));
    world.end(regretted, Ended::Withdrawn(Nothing {}));

    let gone = world.ask(command(&[b"git", b"pull"]));
    world.approve(BOB, gone);
    world.approve(CAROL, gone);
    world.permit(gone);
    world.end(
        gone,
        Ended::Failed(Failed {
            error: Text::new("the program is gone").unwrap(),
        }),
    );

    let crashed = world.ask(command(&[b"git", b"push"]));
    world.approve(BOB, crashed);
    world.approve(ALICE, crashed);
    world.permit(crashed);
    world.end(crashed, Ended::Unknown(Nothing {}));

    // Granted for good, used twice, taken back, and asked again.
    let fetch = world.granted(command(&[b"git", b"fetch", b"upstream"]), &last_blank(2));
    for remote in [&b"mirror"[..], b"backup"] {
        let again = world.ask(command(&[b"git", b"fetch", remote]));
        world.permit(again);
        world.end(again, ran(Exit::Code(0), None));
    }
    world.revoke(CAROL, fetch);
    let late = world.ask(command(&[b"git", b"fetch", b"mirror"]));
    world.end(late, Ended::Withdrawn(Nothing {}));

    // What nobody needs to be asked, and what nobody may.
    let mut ruled = world.contents(all.clone(), 2, 2);
    ruled.policy = Some(Policy::parse(RULES).unwrap());
    world.change(ruled, &[ALICE, BOB]);
    for _ in 0..2 {
        let status = world.ask(command(&[b"git", b"status"]));
        world.permit(status);
        world.end(status, ran(Exit::Code(0), None));
    }
    let third = world.ask(command(&[b"git", b"status"]));
    world.end(third, Ended::Withdrawn(Nothing {}));
    let never = world.ask(command(&[b"git", b"filter-branch"]));
    world.end(never, Ended::Forbidden(Forbidden { rule: Some(1) }));
    let call = world.ask_of(tool("{}"), "closer", "Maria");
    world.permit(call);
    world.end(call, Ended::Released(Nothing {}));
    world.granted(tool(r#"{"id":1}"#), &Terms::exact());

    // Bob leaves while a request is open that he approved: it is judged anew.
    let across = world.ask(command(&[b"git", b"tag", b"v1.1"]));
    world.approve(BOB, across);
    let without_bob = [all[0].clone(), all[2].clone(), all[3].clone()].to_vec();
    world.change(world.contents(without_bob, 2, 2), &[ALICE, CAROL]);
    world.approve(CAROL, across);
    world.approve(ALICE, across);
    world.permit(across);
    world.end(across, ran(Exit::Code(1), None));

    let running = world.ask(command(&[b"git", b"bisect", b"run", b"make"]));
    world.approve(ALICE, running);
    world.approve(CAROL, running);
    world.permit(running);
    let open = world.ask(command(&[b"git", b"push", b"--tags"]));
    world.approve(CAROL, open);
    assert!(world.entries.len() >= 50, "{}", world.entries.len());
    world
}
