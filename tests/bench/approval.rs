//! One approval over loopback, from the question to the permit and to the end: relay and gate are processes of their own, an
//! admin who always says yes is in this one. Measured by whoever asks, at the gate's own socket.

use std::fs::{self, File};
use std::io::{BufRead, BufReader as Lines};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use approval::decision::Answer as Vote;
use approval::outcome::{Ended, Exit};
use approval::replay::Did;
use approval::roster::Role;
use approval::scalar::ByteString;
use countersign::gate::{Init, init};
use countersign::home::Home;
use countersign::local::{Answer, Ask, AskCommand, Confirm, Question, What};
use countersign::member::{Begun, Member, Notice};
use countersign_tests::program::program;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::figures::{Sheet, ms, percentile, spread, us};
use crate::floor::Floor;
use crate::machine::{Running, Spent, flush_time, folder, own_time};

/// Rounds, whose spread says how much the machine was disturbed.
const ROUNDS: usize = 5;

/// How long one approval may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a round came to.
#[derive(Default)]
struct Round {
    permitted: Vec<Duration>,
    ended: Vec<Duration>,
    gate: Duration,
    relay: Duration,
    admin: Duration,
    command: Duration,
}

pub fn measure(sheet: &mut Sheet, quick: bool) -> Result<()> {
    let (warm, each) = if quick { (5, 10) } else { (50, 100) };
    let folder = tempfile::tempdir_in(folder()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rounds = runtime.block_on(approve_all(folder.path(), warm, each))?;
    report(sheet, &rounds, &Floor::measure()?, flush_time(folder.path())?);
    Ok(())
}

fn report(sheet: &mut Sheet, rounds: &[Round], floor: &Floor, flush: Duration) {
    let all = |pick: fn(&Round) -> &Vec<Duration>| {
        rounds
            .iter()
            .flat_map(|round| pick(round).iter().copied())
            .collect::<Vec<_>>()
    };
    let (mut permitted, mut ended) = (all(|round| &round.permitted), all(|round| &round.ended));
    let count = u32::try_from(permitted.len()).unwrap_or(1);
    let sum = |pick: fn(&Round) -> Duration| rounds.iter().map(pick).sum::<Duration>() / count;
    let (gate, relay, admin, command) = (
        sum(|round| round.gate),
        sum(|round| round.relay),
        sum(|round| round.admin),
        sum(|round| round.command),
    );
    let ours = gate + relay + admin;
    let least = floor.of_approval();
    let medians: Vec<f64> = rounds
        .iter()
        .map(|round| ms(percentile(&mut round.permitted.clone(), 50)))
        .collect();
    let ratio = |round: &Round| {
        let time = (round.gate + round.relay + round.admin) / u32::try_from(round.permitted.len()).unwrap_or(1);
        time.as_secs_f64() / least.as_secs_f64()
    };
    let ratios: Vec<f64> = rounds.iter().map(ratio).collect();

    sheet.part(format!(
        "one approval over loopback, 1 admin, {count} times in {} rounds",
        rounds.len()
    ));
    sheet.put(
        "question to permit, median",
        ms(percentile(&mut permitted, 50)),
        "ms",
        spread(&medians, "ms"),
    );
    sheet.put("question to permit, p99", ms(percentile(&mut permitted, 99)), "ms", "");
    sheet.put(
        "question to the command's end, median",
        ms(percentile(&mut ended, 50)),
        "ms",
        "with /bin/true",
    );
    sheet.put(
        "question to the command's end, p99",
        ms(percentile(&mut ended, 99)),
        "ms",
        "",
    );
    sheet.put(
        "disk: 4 KiB written and flushed, median",
        us(flush),
        "us",
        "the path has several flushes",
    );
    sheet.put("processor time, gate", us(gate), "us", "user and system, all threads");
    sheet.put("processor time, relay", us(relay), "us", "");
    sheet.put("processor time, admin and asker", us(admin), "us", "");
    sheet.put("processor time, all three", us(ours), "us", "");
    sheet.put(
        "processor time, launcher and command",
        us(command),
        "us",
        "fork, exec, hashing /bin/true: not in the ratio",
    );
    sheet.put("floor: 4 signatures made", us(4 * floor.sign), "us", "Ed25519");
    sheet.put(
        "floor: 4 signatures verified",
        us(4 * floor.verify),
        "us",
        "verify_strict",
    );
    sheet.put(
        "floor: 2 group messages, both ways",
        us(2 * (floor.encrypt + floor.decrypt)),
        "us",
        "MLS, 2 members",
    );
    sheet.put(
        "floor: 2 envelopes, both ways",
        us(2 * (floor.seal + floor.open)),
        "us",
        "HPKE, 2 KiB",
    );
    sheet.put("floor, all", us(least), "us", "");
    sheet.put(
        "processor time over floor",
        ours.as_secs_f64() / least.as_secs_f64(),
        "times",
        spread(&ratios, "times"),
    );
    let bars = [
        ("cryptographic floor", least),
        ("gate", gate),
        ("relay", relay),
        ("admin and asker", admin),
    ];
    sheet.chart(
        "processor time of one approval",
        "us",
        bars.map(|(name, time)| (name.to_owned(), us(time))).to_vec(),
    );
    let latency = [("question to permit, median", 50), ("question to permit, p99", 99)]
        .map(|(name, at)| (name.to_owned(), ms(percentile(&mut permitted, at))));
    sheet.chart("latency of one approval over loopback", "ms", latency.to_vec());
}

async fn approve_all(folder: &Path, warm: usize, each: usize) -> Result<Vec<Round>> {
    let store = folder.join("relay.db");
    let mut relay = Command::new(program("countersign-relay"));
    relay.args(["--listen", "127.0.0.1:0", "--store"]).arg(store);
    let (relay, listening) = start(relay, &folder.join("relay.log"))?;
    let url = listening.rsplit(' ').next().unwrap_or_default().to_owned();
    let home = folder.join("gate");
    init(
        Home::create(Some(home.clone()))?,
        Init {
            relay: url,
            name: "bench-gate".to_owned(),
            policy: None,
            unenrolled: approval::roster::Unenrolled::Refuse,
        },
    )
    .await?
    .store
    .close()
    .await;
    let mut gate = Command::new(program("countersign"));
    gate.arg("--home").arg(&home).args(["gate", "serve"]);
    let (gate, _) = start(gate, &folder.join("gate.log"))?;
    let socket = Home::open(Some(home))?.socket()?;
    let member = enrol(folder, &socket).await?;
    let (stop, stopped) = watch::channel(false);
    let admin = tokio::spawn(say_yes(member, stopped));
    let asked = async {
        for _ in 0..warm {
            ask(&socket).await?;
        }
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let (gate_before, relay_before, own_before) =
                (Spent::by(gate.0.id())?, Spent::by(relay.0.id())?, own_time());
            let mut round = Round::default();
            for _ in 0..each {
                let (permitted, ended) = ask(&socket).await?;
                round.permitted.push(permitted);
                round.ended.push(ended);
            }
            let spent = Spent::by(gate.0.id())?.since(gate_before);
            (round.gate, round.command) = (spent.own, spent.children);
            round.relay = Spent::by(relay.0.id())?.since(relay_before).own;
            round.admin = own_time() - own_before;
            rounds.push(round);
        }
        Ok(rounds)
    };
    let rounds = asked.await;
    let _ = stop.send(true);
    let admin = admin.await?;
    // The cause of a question without an answer is the admin's, if there is one.
    admin.context("the admin")?;
    rounds
}

/// Starts a process and reads its first line.
fn start(mut command: Command, log: &Path) -> Result<(Running, String)> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(log)?)
        .spawn()?;
    let mut running = Running(child);
    let stdout = running.0.stdout.take().context("an output")?;
    let mut line = String::new();
    Lines::new(stdout).read_line(&mut line)?;
    ensure!(!line.is_empty(), "it doesn't start: {}", fs::read_to_string(log)?);
    Ok((running, line.trim().to_owned()))
}

/// A connection to the gate's socket: JSON lines.
struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    async fn open(socket: &Path, question: &Question) -> Result<Self> {
        let mut connection = Self {
            stream: BufReader::new(UnixStream::connect(socket).await?),
        };
        connection.send(question).await?;
        Ok(connection)
    }

    async fn send(&mut self, message: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.stream.get_mut().write_all(&line).await?)
    }

    async fn next(&mut self) -> Result<Answer> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        ensure!(read.context("the gate is silent")?? > 0, "the gate hung up");
        Ok(serde_json::from_str(&line)?)
    }
}

/// Asks for `/bin/true`; how long until it was permitted, and until it ended.
async fn ask(socket: &Path) -> Result<(Duration, Duration)> {
    let bytes = |text: &str| ByteString::new(text.as_bytes());
    let directory = PathBuf::from("/");
    let ask = Ask {
        reason: "the bench asks".to_owned(),
        agent: Some("bench".to_owned()),
        ..Ask::of(What::Command(AskCommand {
            argv: vec![bytes("/bin/true")?],
            directory: ByteString::new(directory.as_os_str().as_bytes())?,
            env: Vec::new(),
            stdin: None,
            wall_ms: None,
            output_bytes: None,
            memory_bytes: None,
        }))
    };
    let began = Instant::now();
    let mut connection = Connection::open(socket, &Question::Ask(Box::new(ask))).await?;
    let mut permitted = None;
    loop {
        match connection.next().await? {
            Answer::Permitted { .. } => permitted = Some(began.elapsed()),
            Answer::Ended {
                result: Ended::Ran(ran),
                ..
            } => {
                ensure!(ran.exit == Exit::Code(0), "/bin/true failed");
                return Ok((permitted.context("ended without a permit")?, began.elapsed()));
            }
            Answer::Ended { result, .. } => bail!("not permitted: {result:?}"),
            Answer::Error { message, .. } => bail!("{message}"),
            _ => {}
        }
    }
}

/// Pairs the one admin.
async fn enrol(folder: &Path, socket: &Path) -> Result<Member> {
    let invite = Question::Invite {
        person: "alice".to_owned(),
        role: Role::Admin,
        minutes: 10,
        quorum: None,
    };
    let mut inviting = Connection::open(socket, &invite).await?;
    let Answer::Invite { link, .. } = inviting.next().await? else {
        bail!("no invite")
    };
    let mut member = Begun::read(&link)?
        .join(Home::create(Some(folder.join("alice")))?, "alice-laptop")
        .await?;
    let until = Instant::now() + PATIENCE;
    let mut confirmed = false;
    while !(member.enrolled() && member.in_group().await?) {
        ensure!(Instant::now() < until, "pairing takes too long");
        let woken = member.wait().await;
        for notice in member.take(woken).await? {
            if let (Notice::Code(device), false) = (notice, confirmed) {
                let Answer::Code { code, .. } = inviting.next().await? else {
                    bail!("no code")
                };
                ensure!(code == device, "another code");
                inviting.send(&Confirm { confirm: true }).await?;
                confirmed = true;
            }
        }
    }
    Ok(member)
}

/// The admin: says yes to everything, until told to stop.
async fn say_yes(mut member: Member, mut stopped: watch::Receiver<bool>) -> Result<()> {
    loop {
        let woken = tokio::select! {
            _ = stopped.changed() => break,
            woken = member.wait() => woken,
        };
        for notice in member.take(woken).await? {
            match notice {
                Notice::Entry(entry) if entry.did() == Did::Asked => {
                    member.decide(&entry.statement().digest(), Vote::Approve, "").await?;
                }
                Notice::Evidence(what) => bail!("{what}"),
                _ => {}
            }
        }
    }
    member.close().await;
    Ok(())
}
