//! What the decision about one permit costs beside its cryptography, and how that grows with the rules and the grants there are.
//! A roster's policy has at most 16 KiB, so the rules are judged by themselves, beyond that bound; the grants stand in a real
//! transcript. One permit is then: the policy judged, `decide` with the oldest grant that covers the request, the permit signed and
//! taken into the transcript, and the checkpoint signed; nothing is written to a disk. Given in processor time of one thread, and
//! judged: this is the one part of the bench that fails if it is too slow.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use approval::action::{Action, Bound, Command, Directory, Inode, Limits, Stdin};
use approval::checkpoint::Checkpoint;
use approval::decide::Verdict;
use approval::decision::{Answer, Decision};
use approval::device::Device;
use approval::grant::Terms;
use approval::outcome::{Ended, Nothing, Outcome};
use approval::permit::Basis;
use approval::policy::{Effect, Policy};
use approval::replay::Replay;
use approval::request::{AskedBy, Class, Request};
use approval::roster::{Quorum, Role, Roster};
use approval::scalar::LeafKey;
use approval::statement::Payload;
use approval::{ByteString, Digest, Id16, Text, Time, Verified, sign};
use wire::identity::Identity;

use crate::figures::Sheet;
use crate::floor::Floor;
use crate::machine::thread_time;

const BEGINNING: u64 = 1_800_000_000_000;

/// The most that the median may cost on top of the cryptography, with 10,000 rules and as many grants.
const MOST: Duration = Duration::from_millis(5);
/// How much more 10,000 may cost than 100: a logarithm grows twofold there.
const GROWTH: f64 = 2.5;

pub fn measure(sheet: &mut Sheet, quick: bool) -> Result<()> {
    let rounds = if quick { 60 } else { 400 };
    let floor = Floor::measure()?;
    let floor = floor.verify + 2 * floor.sign;
    sheet.part("one permit by a grant, processor time, nothing flushed");
    sheet.put(
        "cryptography: 1 verified, 2 signed",
        micros(floor),
        "us",
        "the floor, alone, in this run",
    );
    let (mut tops, mut bars) = (Vec::new(), Vec::new());
    for many in [10, 100, 1_000, 10_000] {
        let judge = judging(&plain_rules(many), rounds)?;
        let permit = Gate::with_grants(many)?.permits(rounds)?;
        let top = (judge + permit).saturating_sub(floor);
        sheet.put(
            format!("{many} rules and grants, on top of it"),
            micros(top),
            "us",
            "median",
        );
        sheet.put(
            format!("{many} rules, the policy alone"),
            micros(judge),
            "us",
            "part of it",
        );
        tops.push(top);
        bars.push((format!("{many} rules and grants"), micros(top)));
    }
    let globs = judging(&glob_rules(10_000), rounds)?;
    sheet.put(
        "10000 globs for one argument of one program",
        micros(globs),
        "us",
        "the policy alone; looked through one by one",
    );
    sheet.chart("one permit on top of its cryptography", "us", bars);
    let [_, hundred, _, most] = tops[..] else {
        bail!("four sizes");
    };
    let growth = most.as_secs_f64() / hundred.as_secs_f64();
    sheet.put("growth from 100 to 10000", growth, "times", format!("{GROWTH} at most"));
    if cfg!(debug_assertions) {
        return Ok(());
    }
    ensure!(
        most <= MOST && globs <= MOST,
        "a permit costs {most:?} on top of its cryptography, globs {globs:?}; {MOST:?} at most"
    );
    ensure!(
        growth <= GROWTH,
        "10,000 rules and grants cost {growth:.1} times what 100 cost, {GROWTH} at most"
    );
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Rules for as many programs, and for as many arguments of one.
fn plain_rules(many: u32) -> String {
    let mut text = String::new();
    for number in 0..many {
        let _ = match number % 2 {
            0 => writeln!(
                text,
                "[[rule]]\neffect = \"allow\"\ncommand = [\"deploy\", \"other-{number}\"]"
            ),
            _ => writeln!(
                text,
                "[[rule]]\neffect = \"ask\"\ncommand = [\"tool-{number}\", {{ rest = true }}]"
            ),
        };
    }
    text
}

/// Rules that must be looked through one by one: each may match.
fn glob_rules(many: u32) -> String {
    let mut text = String::new();
    for number in 0..many {
        let _ = writeln!(
            text,
            "[[rule]]\neffect = \"allow\"\ncommand = [\"deploy\", {{ like = \"x-{number}-*\" }}]"
        );
    }
    text
}

fn judging(text: &str, rounds: usize) -> Result<Duration> {
    let policy = Policy::parse_unbounded(text)?;
    let (action, asked_by, now) = (command("service-0")?, asked_by()?, time(BEGINNING)?);
    let standing = approval::standing::Standing::default();
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let began = thread_time();
        let judgement = black_box(policy.judge(black_box(&action), &asked_by, now, &standing));
        times.push(thread_time() - began);
        ensure!(judgement.effect == Effect::Ask { rule: None }, "another judgement");
    }
    Ok(median(times))
}

/// A gate's transcript with an admin, in memory.
struct Gate {
    identity: Identity,
    admin: Identity,
    replay: Replay,
    clock: u64,
    nonce: u128,
}

impl Gate {
    fn with_grants(many: u32) -> Result<Self> {
        let (identity, admin) = (Identity::from_bytes(&[1; 32]), Identity::from_bytes(&[2; 32]));
        let relays = vec!["wss://relay.example.org".parse()?];
        let quorum = Quorum { command: 1, roster: 1 };
        let genesis = Roster::genesis(device(&identity, 1, "gate")?, quorum, relays, time(BEGINNING)?);
        let genesis = sign(&identity, genesis)?;
        let mut gate = Self {
            replay: Replay::new(Some(identity.party())),
            identity,
            admin,
            clock: BEGINNING,
            nonce: 0,
        };
        gate.replay.next(genesis.signed().as_bytes())?;
        let contents =
            genesis
                .contents()
                .with_device("alice".parse()?, Role::Admin, device(&gate.admin, 2, "laptop")?)?;
        let roster = contents.after(&genesis, None, time(BEGINNING)?)?;
        gate.says(roster)?;
        for number in 0..many {
            gate.grant(&format!("service-{number}"))?;
        }
        ensure!(
            gate.replay.standing().len() == many as usize,
            "another number of grants"
        );
        Ok(gate)
    }

    fn says<T: Payload>(&mut self, payload: T) -> Result<Verified<T>> {
        let statement = sign(&self.identity, payload)?;
        self.replay.next(statement.signed().as_bytes())?;
        Ok(statement)
    }

    fn now(&mut self) -> Result<Time> {
        self.clock += 1;
        time(self.clock)
    }

    fn ask(&mut self, service: &str) -> Result<Verified<Request>> {
        let created = self.now()?;
        self.nonce += 1;
        let request = Request {
            gate: self.identity.party(),
            incarnation: Id16([1; 16]),
            index: self.replay.size(),
            nonce: Id16(self.nonce.to_be_bytes()),
            roster: self.replay.roster().context("a roster")?.digest(),
            class: Class::Command,
            risk: None,
            need: 1,
            veto: true,
            four_eyes: false,
            matching: None,
            action: command(service)?,
            asked_by: asked_by()?,
            reason: Text::default(),
            created,
            expires: created.plus_millis(60_000),
        };
        self.says(request)
    }

    /// Asked, approved with a grant, granted, and taken back: a grant more.
    fn grant(&mut self, service: &str) -> Result<()> {
        let request = self.ask(service)?;
        let checkpoint = Checkpoint::sign(&self.identity, self.replay.size(), self.replay.root());
        let decision = Decision {
            party: self.admin.party(),
            request: request.digest(),
            verdict: Answer::Approve,
            number: None,
            grant: Some(Terms::exact()),
            reason: Text::default(),
            time: time(BEGINNING)?,
            checkpoint: checkpoint.as_str().to_owned(),
        };
        let decision = sign(&self.admin, decision)?;
        self.replay.next(decision.signed().as_bytes())?;
        let now = self.now()?;
        let grant = self.replay.grantable(&request.digest(), now).context("a grant")?;
        self.says(grant)?;
        self.end(&request, None, Ended::Withdrawn(Nothing {}))
    }

    fn end(&mut self, request: &Verified<Request>, permit: Option<Digest>, result: Ended) -> Result<()> {
        let time = self.now()?;
        let request = request.digest();
        self.says(Outcome {
            request,
            permit,
            result,
            time,
        })?;
        Ok(())
    }

    /// The median of so many permits, each by the first of the grants.
    fn permits(mut self, rounds: usize) -> Result<Duration> {
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let request = self.ask("service-0")?;
            let now = self.now()?;
            let began = thread_time();
            let Some(Verdict::Open(leave)) = self.replay.decide(&request.digest(), now) else {
                bail!("a request that isn't open");
            };
            let permit = self.says(leave.statement(Vec::new(), now))?;
            black_box(Checkpoint::sign(&self.identity, self.replay.size(), self.replay.root()));
            times.push(thread_time() - began);
            ensure!(matches!(permit.basis, Basis::Grant(_)), "another basis");
            self.end(&request, Some(permit.digest()), Ended::Unknown(Nothing {}))?;
        }
        Ok(median(times))
    }
}

fn time(millis: u64) -> Result<Time> {
    Ok(Time::from_millis(millis)?)
}

fn device(identity: &Identity, seed: u8, name: &str) -> Result<Verified<Device>> {
    let device = Device {
        party: identity.party(),
        leaf: LeafKey([seed + 0x40; 32]),
        name: name.parse()?,
        created: time(BEGINNING)?,
    };
    Ok(sign(identity, device)?)
}

fn asked_by() -> Result<AskedBy> {
    Ok(AskedBy {
        agent: "butler".parse()?,
        under: Vec::new(),
        user: None,
        conversation: None,
        platform: None,
    })
}

fn command(service: &str) -> Result<Action> {
    let inode = |number| Inode { device: 1, number };
    Ok(Action::Command(Command {
        executable: Bound {
            path: ByteString::new("/usr/bin/deploy")?,
            inode: inode(7),
            sha256: Digest::of(b"deploy"),
        },
        interpreter: None,
        argv: vec![ByteString::new("deploy")?, ByteString::new(service)?],
        env: vec![(
            ByteString::new("PATH")?,
            ByteString::new("/usr/local/bin:/usr/bin:/bin")?,
        )],
        directory: Directory {
            path: ByteString::new("/srv/app")?,
            inode: inode(8),
        },
        stdin: Stdin::None,
        operands: Vec::new(),
        limits: Limits {
            wall_ms: 60_000,
            output_bytes: 1 << 20,
            memory_bytes: 0,
        },
        uid: 1000,
        marks: Vec::new(),
    }))
}
