//! A gate, its people and the transcript that they write, with new keys each time. Everything goes through the replay. Not
//! here: what happens to them (`seasons`); the client's own gate, whose transcripts the stories give to the same verifier.

use anyhow::{Context, Result, bail};
use approval::action::{Action, Bound, Command, Directory, Inode, Input, Limits, Mark, Operand, Stdin, ToolCall};
use approval::checkpoint::Checkpoint;
use approval::decide::Verdict;
use approval::decision::{Answer, Decision};
use approval::device::Device;
use approval::export::ExportWriter;
use approval::grant::Terms;
use approval::outcome::{Ended, Outcome};
use approval::permit::Confined;
use approval::policy::Policy;
use approval::proof::Prover;
use approval::replay::Replay;
use approval::request::{AskedBy, Request, matching};
use approval::revocation::Revocation;
use approval::roster::{Quorum, Role, Roster, RosterContents, Unenrolled};
use approval::scalar::LeafKey;
use approval::statement::{Payload, sign};
use approval::{ByteString, Digest, Id16, Signed, Text, Time, Verified};
use rand_core::{OsRng, RngCore};
use wire::identity::Identity;

pub(crate) const BEGINNING: u64 = 1_800_000_000_000;
pub(crate) const HOUR: u64 = 60 * 60 * 1000;

/// Who has a say, or at least a key.
pub(crate) struct Cast {
    pub(crate) gate: Identity,
    pub(crate) alice: Identity,
    pub(crate) bob: Identity,
}

/// The transcript so far.
pub(crate) struct World {
    pub(crate) cast: Cast,
    pub(crate) replay: Replay,
    pub(crate) entries: Vec<Signed>,
    now: u64,
}

pub(crate) fn certificate(identity: &Identity, name: &str) -> Result<Verified<Device>> {
    let mut leaf = [0; 32];
    OsRng.fill_bytes(&mut leaf);
    let created = Time::from_millis(BEGINNING)?;
    let device = Device {
        party: identity.party(),
        leaf: LeafKey(leaf),
        name: name.parse()?,
        created,
    };
    Ok(sign(identity, device)?)
}

fn drawn() -> Id16 {
    let mut id = [0; 16];
    OsRng.fill_bytes(&mut id);
    Id16(id)
}

fn bytes(bytes: impl AsRef<[u8]>) -> Result<ByteString> {
    Ok(ByteString::new(bytes.as_ref())?)
}

fn file(path: &str) -> Result<Bound> {
    Ok(Bound {
        path: bytes(path)?,
        inode: Inode {
            device: 0xfd01,
            number: 0x1a2b,
        },
        sha256: Digest::of(path.as_bytes()),
    })
}

/// A command whose every field has something that could be written in two ways.
pub(crate) fn command() -> Result<Action> {
    let Action::Command(plain) = run(&["deploy"])? else {
        bail!("not a command");
    };
    Ok(Action::Command(Command {
        interpreter: Some(file("/usr/bin/py thon")?),
        argv: vec![
            bytes("deploy")?,
            bytes("")?,
            bytes("na\u{ef}ve \u{202e}\"\\\n")?,
            bytes(b"\xff\xfe")?,
        ],
        env: vec![(bytes("LANG")?, bytes("C.UTF-8")?), (bytes(b"\xff")?, bytes("=")?)],
        stdin: Stdin::Bytes(Input {
            sha256: Digest::of(b"yes\n"),
            bytes: 4,
        }),
        operands: vec![Operand {
            argument: 2,
            file: file("/srv/app/na\u{ef}ve")?,
        }],
        marks: vec![Mark::Odd, Mark::Runner],
        ..plain
    }))
}

/// A command that a rule may allow.
pub(crate) fn run(argv: &[&str]) -> Result<Action> {
    let program = argv.first().context("no program")?;
    Ok(Action::Command(Command {
        executable: file(&format!("/usr/bin/{program}"))?,
        interpreter: None,
        argv: argv.iter().map(bytes).collect::<Result<_>>()?,
        env: vec![(bytes("PATH")?, bytes("/usr/local/bin:/usr/bin:/bin")?)],
        directory: Directory {
            path: bytes("/srv/app")?,
            inode: Inode { device: 0, number: 2 },
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
    }))
}

/// A call whose arguments are JSON that this protocol wouldn't write.
pub(crate) fn call() -> Result<Action> {
    Ok(Action::Tool(ToolCall {
        server: Text::new("files")?,
        tool: Text::new("write \u{202e}")?,
        schema: Digest::of(b"schema"),
        arguments: Text::new("{ \"a\": 1.50, \"b\": [null, \"\\u00e9\"] }")?,
    }))
}

/// The number that is shown where something is asked.
const NUMBER: &str = "042";

/// Something for each rule of section 16.
const POLICY: &str = r#"
[[layer]]
agent = "guest"
mode = "deny"
[class.careful]
quorum = 2
veto = false
four_eyes = true
number = true
expires = "1h"
[person.alice]
users = ["matrix:alice"]
[[rule]]
effect = "allow"
command = ["ls", { like = "*.log" }]
agents = ["butler"]
until = 2030-01-01T00:00:00+01:00
uses = 2
per = "1h"
[[rule]]
effect = "deny"
command = ["rm", { rest = true }]
[[rule]]
effect = "ask"
tool = "files/"
class = "careful"
"#;

impl World {
    /// A gate without admins.
    pub(crate) fn new() -> Result<Self> {
        Self::unenrolled(Unenrolled::Refuse)
    }

    /// A gate without admins that does this until it has one.
    pub(crate) fn unenrolled(unenrolled: Unenrolled) -> Result<Self> {
        let [gate, alice, bob] = std::array::from_fn(|_| Identity::generate(&mut OsRng));
        let replay = Replay::new(Some(gate.party()));
        let cast = Cast { gate, alice, bob };
        let mut world = Self {
            cast,
            replay,
            entries: Vec::new(),
            now: BEGINNING,
        };
        let relays = vec!["wss://relay.example".parse()?];
        let quorum = Quorum { command: 1, roster: 1 };
        let genesis = Roster::genesis(certificate(&world.cast.gate, "gate")?, quorum, relays, world.time()?);
        world.say(|cast| &cast.gate, Roster { unenrolled, ..genesis })?;
        Ok(world)
    }

    /// With Alice as its only admin, so that tests of single entries are short.
    pub(crate) fn of_alice() -> Result<Self> {
        let mut world = Self::new()?;
        world.enrol_alice()?;
        Ok(world)
    }

    pub(crate) fn enrol_alice(&mut self) -> Result<()> {
        let world = self;
        let next =
            world
                .contents()?
                .with_device("alice".parse()?, Role::Admin, certificate(&world.cast.alice, "phone")?)?;
        world.change(next, None)
    }

    /// With Alice and Bob, who must both say yes.
    pub(crate) fn of_two() -> Result<Self> {
        let mut world = Self::of_alice()?;
        let next =
            world
                .contents()?
                .with_device("bob".parse()?, Role::Admin, certificate(&world.cast.bob, "tablet")?)?;
        let quorum = Quorum { command: 2, roster: 2 };
        let request = world.ask(Action::Roster(RosterContents { quorum, ..next.clone() }))?;
        world.decide(|cast| &cast.alice, &request, Answer::Approve)?;
        world.permit(&request)?;
        world.change(RosterContents { quorum, ..next }, Some(request.digest()))?;
        Ok(world)
    }

    /// The same two under the policy.
    pub(crate) fn of_two_under_policy() -> Result<Self> {
        let mut world = Self::of_two()?;
        let policy = Some(Policy::parse(POLICY)?);
        let next = RosterContents {
            policy,
            ..world.contents()?
        };
        let request = world.ask(Action::Roster(next.clone()))?;
        world.both(&request, Answer::Approve)?;
        world.permit(&request)?;
        world.change(next, Some(request.digest()))?;
        Ok(world)
    }

    pub(crate) fn both(&mut self, request: &Verified<Request>, verdict: Answer) -> Result<()> {
        self.decide(|cast| &cast.alice, request, verdict)?;
        self.decide(|cast| &cast.bob, request, verdict)
    }

    pub(crate) fn time(&self) -> Result<Time> {
        Ok(Time::from_millis(self.now)?)
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += millis;
    }

    /// Signs and appends. Only what the replay takes.
    pub(crate) fn say<T: Payload>(&mut self, who: impl Fn(&Cast) -> &Identity, payload: T) -> Result<Verified<T>> {
        let said = sign(who(&self.cast), payload)?;
        self.replay.next(said.signed().as_bytes())?;
        self.entries.push(said.signed().clone());
        self.now += 1;
        Ok(said)
    }

    fn roster(&self) -> Result<&Verified<Roster>> {
        self.replay.roster().context("no genesis")
    }

    pub(crate) fn contents(&self) -> Result<RosterContents> {
        Ok(self.roster()?.contents())
    }

    pub(crate) fn change(&mut self, contents: RosterContents, basis: Option<Digest>) -> Result<()> {
        let next = contents.after(self.roster()?, basis, self.time()?)?;
        self.say(|cast| &cast.gate, next)?;
        Ok(())
    }

    pub(crate) fn ask(&mut self, action: Action) -> Result<Verified<Request>> {
        let request = self.question(action)?;
        self.say(|cast| &cast.gate, request)
    }

    /// What the gate would ask next.
    pub(crate) fn question(&self, action: Action) -> Result<Request> {
        let asked_by = AskedBy {
            agent: "butler".parse()?,
            under: Vec::new(),
            user: Some(Text::new("im Auftrag \u{1f980} \u{0} \u{7f}")?),
            conversation: None,
            platform: None,
        };
        self.question_of(action, asked_by)
    }

    pub(crate) fn question_of(&self, action: Action, asked_by: AskedBy) -> Result<Request> {
        let terms = self
            .replay
            .terms_for(&action, &asked_by, self.time()?)
            .context("no genesis")?;
        let nonce = drawn();
        Ok(Request {
            gate: self.cast.gate.party(),
            incarnation: drawn(),
            index: self.replay.size(),
            nonce,
            roster: self.roster()?.digest(),
            class: action.class(),
            risk: terms.risk,
            need: terms.need,
            veto: terms.veto,
            four_eyes: terms.four_eyes,
            matching: terms.number.then(|| matching(&nonce, NUMBER)),
            action,
            asked_by,
            reason: Text::new("the tests are green")?,
            created: self.time()?,
            expires: Time::from_millis(self.now + HOUR)?,
        })
    }

    pub(crate) fn answer(
        &self,
        who: impl Fn(&Cast) -> &Identity,
        request: &Verified<Request>,
        verdict: Answer,
    ) -> Result<Decision> {
        let (party, checkpoint) = (who(&self.cast).party(), self.checkpoint().as_str().to_owned());
        let reason = Text::new("looks right")?;
        Ok(Decision {
            party,
            request: request.digest(),
            verdict,
            number: (verdict == Answer::Approve && request.matching.is_some()).then(|| NUMBER.to_owned()),
            grant: None,
            reason,
            time: self.time()?,
            checkpoint,
        })
    }

    pub(crate) fn decide(
        &mut self,
        who: impl Fn(&Cast) -> &Identity,
        request: &Verified<Request>,
        verdict: Answer,
    ) -> Result<()> {
        let decision = self.answer(&who, request, verdict)?;
        self.say(who, decision)?;
        Ok(())
    }

    pub(crate) fn permit(&mut self, request: &Verified<Request>) -> Result<Digest> {
        let now = self.time()?;
        let Some(Verdict::Open(leave)) = self.replay.decide(&request.digest(), now) else {
            bail!("not open");
        };
        let permit = leave.statement(vec![Confined::Landlock, Confined::Cgroup], now);
        Ok(self.say(|cast| &cast.gate, permit)?.digest())
    }

    /// Asks for what is allowed without anybody, and has it done.
    pub(crate) fn allowed(&mut self, action: Action, result: Ended) -> Result<Digest> {
        let request = self.ask(action)?;
        let permit = self.permit(&request)?;
        self.end(&request, Some(permit), result)?;
        Ok(request.digest())
    }

    /// Alice and Bob grant what is like this on these terms. The request is still open.
    pub(crate) fn grant(&mut self, request: &Verified<Request>, terms: &Terms) -> Result<Digest> {
        let both: [fn(&Cast) -> &Identity; 2] = [|cast| &cast.alice, |cast| &cast.bob];
        for who in both {
            let grant = Some(terms.clone());
            let decision = Decision {
                grant,
                ..self.answer(who, request, Answer::Approve)?
            };
            self.say(who, decision)?;
        }
        let grant = self
            .replay
            .grantable(&request.digest(), self.time()?)
            .context("not granted")?;
        Ok(self.say(|cast| &cast.gate, grant)?.digest())
    }

    pub(crate) fn revoke(&mut self, grant: Digest) -> Result<()> {
        let revocation = Revocation {
            party: self.cast.bob.party(),
            grant,
            reason: Text::new("no more \u{202e}")?,
            time: self.time()?,
        };
        self.say(|cast| &cast.bob, revocation)?;
        Ok(())
    }

    pub(crate) fn end(&mut self, request: &Verified<Request>, permit: Option<Digest>, result: Ended) -> Result<()> {
        let outcome = Outcome {
            request: request.digest(),
            permit,
            result,
            time: self.time()?,
        };
        self.say(|cast| &cast.gate, outcome)?;
        Ok(())
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::sign(&self.cast.gate, self.replay.size(), self.replay.root())
    }

    pub(crate) fn export(&self) -> Result<Vec<u8>> {
        let mut writer = ExportWriter::new(Vec::new(), self.cast.gate.party(), self.replay.size())?;
        self.entries.iter().try_for_each(|entry| writer.entry(entry))?;
        Ok(writer.finish(&self.checkpoint())?)
    }

    /// The proof of one request alone.
    pub(crate) fn prove(&self, request: Digest) -> Result<String> {
        let (mut prover, mut replay) = (Prover::new(&request.to_string())?, Replay::new(None));
        for entry in &self.entries {
            prover.take(&replay.next(entry.as_bytes())?);
        }
        Ok(prover.finish(&self.checkpoint())?)
    }
}
