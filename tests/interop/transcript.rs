//! A gate, its people and the transcript that they write, with new keys each time. Everything goes through the replay. Not
//! here: the client's own gate, whose transcripts the stories give to the same verifier.

use anyhow::{Context, Result};
use approval::action::{Action, Command, Executable, Limits, Stdin};
use approval::checkpoint::Checkpoint;
use approval::decide::Verdict;
use approval::decision::{Answer, Decision};
use approval::device::Device;
use approval::export::ExportWriter;
use approval::outcome::{Ended, Exit, Nothing, Outcome, Ran, Stream};
use approval::proof::Prover;
use approval::replay::Replay;
use approval::request::{AskedBy, Request};
use approval::roster::{Quorum, Role, Roster, RosterContents};
use approval::scalar::LeafKey;
use approval::statement::{Payload, sign};
use approval::{ByteString, Digest, Id16, Signed, Text, Time, Verified};
use rand_core::{OsRng, RngCore};
use wire::identity::Identity;

const BEGINNING: u64 = 1_800_000_000_000;
const HOUR: u64 = 60 * 60 * 1000;

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

fn certificate(identity: &Identity, name: &str) -> Result<Verified<Device>> {
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

/// A command whose every field has something that could be written in two ways.
pub(crate) fn command() -> Result<Action> {
    let bytes = |bytes: &[u8]| ByteString::new(bytes);
    Ok(Action::Command(Command {
        executable: Executable {
            path: bytes(b"/usr/bin/deploy")?,
            sha256: Digest::of(b"deploy"),
        },
        argv: vec![
            bytes(b"deploy")?,
            bytes(b"")?,
            bytes("na\u{ef}ve \u{202e}\"\\\n".as_bytes())?,
            bytes(b"\xff\xfe")?,
        ],
        env: vec![(bytes(b"LANG")?, bytes(b"C.UTF-8")?), (bytes(b"\xff")?, bytes(b"=")?)],
        directory: bytes(b"/srv/app")?,
        stdin: Stdin::None,
        limits: Limits {
            wall_ms: 30_000,
            output_bytes: 1 << 20,
        },
        uid: 1000,
    }))
}

impl World {
    /// A gate without admins.
    pub(crate) fn new() -> Result<Self> {
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
        world.say(|cast| &cast.gate, genesis)?;
        Ok(world)
    }

    /// With Alice as its only admin, so that tests of single entries are short.
    pub(crate) fn of_alice() -> Result<Self> {
        let mut world = Self::new()?;
        let next =
            world
                .contents()?
                .with_device("alice".parse()?, Role::Admin, certificate(&world.cast.alice, "phone")?)?;
        world.change(next, None)?;
        Ok(world)
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

    fn contents(&self) -> Result<RosterContents> {
        Ok(self.roster()?.contents())
    }

    fn change(&mut self, contents: RosterContents, basis: Option<Digest>) -> Result<()> {
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
        let (roster, class) = (self.roster()?, action.class());
        let words = Text::new("im Auftrag \u{1f980} \u{0} \u{7f}")?;
        Ok(Request {
            gate: self.cast.gate.party(),
            incarnation: drawn(),
            index: self.replay.size(),
            nonce: drawn(),
            roster: roster.digest(),
            class,
            need: roster.quorum.of(class),
            action,
            asked_by: AskedBy {
                agent: "butler".parse()?,
                user: Some(words),
                conversation: None,
                platform: None,
            },
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
        let pending = self.replay.request(&request.digest()).context("not open")?;
        let Verdict::Open(leave) = pending.decide(self.roster()?, now) else {
            anyhow::bail!("not open");
        };
        let permit = leave.statement(now);
        Ok(self.say(|cast| &cast.gate, permit)?.digest())
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

/// What a command leaves behind.
pub(crate) fn ran() -> Ended {
    let stream = |text: &str| Stream {
        sha256: Digest::of(text.as_bytes()),
        bytes: text.len() as u64,
    };
    Ended::Ran(Ran {
        exit: Exit::Code(-1),
        stdout: stream("done\n"),
        stderr: stream(""),
        wall_ms: 1200,
        stopped: None,
    })
}

/// A transcript in which something of every kind happened; and the request that was approved across a change of roster.
pub(crate) fn season() -> Result<(World, Digest)> {
    let mut world = World::of_two()?;
    let nothing = Nothing::default;
    let approved = world.ask(command()?)?;
    world.decide(|cast| &cast.alice, &approved, Answer::Approve)?;

    let mut contents = world.contents()?;
    let carol = Identity::generate(&mut OsRng);
    contents = contents.with_device("carol".parse()?, Role::Auditor, certificate(&carol, "laptop")?)?;
    let change = world.ask(Action::Roster(contents.clone()))?;
    world.decide(|cast| &cast.bob, &change, Answer::Approve)?;
    world.decide(|cast| &cast.alice, &change, Answer::Approve)?;
    world.permit(&change)?;
    world.change(contents, Some(change.digest()))?;

    world.decide(|cast| &cast.bob, &approved, Answer::Approve)?;
    let permit = world.permit(&approved)?;
    world.end(&approved, Some(permit), ran())?;

    let denied = world.ask(command()?)?;
    world.decide(|cast| &cast.alice, &denied, Answer::Approve)?;
    world.decide(|cast| &cast.bob, &denied, Answer::Deny)?;
    world.end(&denied, None, Ended::Denied(nothing()))?;
    let (withdrawn, expired) = (world.ask(command()?)?, world.ask(command()?)?);
    world.end(&withdrawn, None, Ended::Withdrawn(nothing()))?;
    world.wait(2 * HOUR);
    world.end(&expired, None, Ended::Expired(nothing()))?;
    world.ask(command()?)?;
    Ok((world, approved.digest()))
}
