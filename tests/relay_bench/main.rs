//! The relay under load, beside a bare tokio-tungstenite forwarder (the floor) and the peers that Debian has (nats-server, mosquitto,
//! redis-server): the same work in the same run, in rounds taken in turn.
//!
//!     cargo run --release -p countersign-tests --bin relay-bench -- [--short] [--peers] [--json] [--svg FILE] [--relay PROGRAM]
//!
//! Leads with processor time of the server, which is the steadiest figure, and with ratios, because machines differ. Ends with 1
//! if a figure is worse than its bound by more than the noise that was measured. `--short` takes less than a minute.

mod bounds;
mod crowd;
#[path = "../bench/figures.rs"]
mod figures;
mod floor;
mod line;
#[path = "../bench/machine.rs"]
#[expect(dead_code, reason = "the other bench uses the rest")]
mod machine;
mod ours;
mod peers;
mod report;
mod server;
#[cfg(test)]
mod tests;
mod works;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use countersign_tests::program::program;

use crate::crowd::{flood, storm, weigh};
use crate::report::{Report, Row};
use crate::server::{Cores, Kind, Server};
use crate::works::{Away, Done, Round, Span, exchange, stream};

/// The argument that makes this program the floor.
const FLOOR: &str = "floor";

/// What is asked for on the command line.
#[derive(Default)]
struct Wish {
    short: bool,
    peers: bool,
    json: bool,
    svg: Option<PathBuf>,
    /// Another build of the relay than the present source's.
    relay: Option<PathBuf>,
}

impl Wish {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut wish = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--short" => wish.short = true,
                "--peers" => wish.peers = true,
                "--json" => wish.json = true,
                "--svg" => wish.svg = Some(arguments.next().context("--svg takes a file")?.into()),
                "--relay" => wish.relay = Some(arguments.next().context("--relay takes a program")?.into()),
                _ => bail!("usage: relay-bench [--short] [--peers] [--json] [--svg FILE] [--relay PROGRAM]"),
            }
        }
        Ok(wish)
    }
}

/// How much of everything.
struct Load {
    rounds: usize,
    span: Span,
    /// Pairs with many messages in flight, and how many.
    pairs: usize,
    window: u64,
    /// Pairs with one in flight.
    singles: usize,
    /// Messages left for each reader who is away.
    left: u64,
    /// Sockets of a crowd.
    crowd: usize,
    /// Honest pairs, slow sockets and how long, in a flood.
    honest: usize,
    slow: usize,
    flooded: Duration,
}

const SHORT: Load = Load {
    rounds: 3,
    span: Span {
        warm: Duration::from_millis(200),
        measured: Duration::from_millis(700),
    },
    pairs: 16,
    window: 16,
    singles: 64,
    left: 1000,
    crowd: 2000,
    honest: 100,
    slow: 500,
    flooded: Duration::from_secs(3),
};

const LONG: Load = Load {
    rounds: 5,
    span: Span {
        warm: Duration::from_millis(500),
        measured: Duration::from_secs(3),
    },
    left: 5000,
    crowd: 10_000,
    honest: 500,
    slow: 5000,
    flooded: Duration::from_secs(15),
    ..SHORT
};

/// On their way at once for each of those who write to readers who are away.
const ENQUEUED: u64 = 64;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|argument| argument == FLOOR) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
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
    let relay = wish.relay.unwrap_or_else(|| program("countersign-relay"));
    let report = runtime.block_on(measure(&load, &relay, wish.peers))?;
    let sheet = report.sheet(machine);
    print!("{}", if wish.json { sheet.json() } else { sheet.text() });
    if let Some(file) = wish.svg {
        std::fs::write(file, sheet.svg())?;
    }
    let broken = report.broken();
    for verdict in &broken {
        eprintln!(
            "error: {}: {:.2}, {}",
            verdict.bound.name,
            verdict.median,
            verdict.words()
        );
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn measure(load: &Load, relay: &Path, peers: bool) -> Result<Report> {
    let mut servers = vec![Server::ours(relay)?, Server::floor()?];
    let installed = [Kind::Nats, Kind::Mosquitto, Kind::Redis].into_iter().filter(|_| peers);
    for kind in installed {
        match Server::peer(kind)? {
            Some(server) => servers.push(server),
            None => eprintln!("note: {} isn't installed", kind.name()),
        }
    }
    let mut report = Report::new(&servers);
    for round in 0..load.rounds {
        eprintln!("round {} of {}", round + 1, load.rounds);
        for server in &servers {
            messages(load, server, &mut report).await?;
        }
    }
    drop(servers);
    crowds(load, relay, peers, &mut report).await?;
    Ok(report)
}

/// One round of everything that is about single messages.
async fn messages(load: &Load, server: &Server, report: &mut Report) -> Result<()> {
    let Load {
        pairs,
        window,
        singles,
        span,
        ..
    } = *load;
    let kind = server.kind;
    let mut add = |row, round: Round| report.add(row, kind, round);
    if kind != Kind::Redis {
        add(
            Row::LiveMany,
            stream(server, pairs, window, Done::Delivered, span).await?,
        );
        add(Row::LiveOne, exchange(server, singles, span).await?);
        add(Row::PingPong, exchange(server, 1, span).await?);
    }
    if matches!(kind, Kind::Ours | Kind::Mosquitto) {
        add(Row::Durable, stream(server, pairs, window, Done::Both, span).await?);
    }
    if matches!(kind, Kind::Ours | Kind::Mosquitto | Kind::Redis) {
        let mut away = Away::new(server, pairs).await?;
        add(Row::Enqueue, away.enqueue(server, load.left, ENQUEUED).await?);
        let drained = away.drain(server).await?;
        if kind != Kind::Redis {
            add(Row::Drain, drained);
        }
    }
    Ok(())
}

/// What is about many sockets, each with a fresh server.
async fn crowds(load: &Load, relay: &Path, peers: bool, report: &mut Report) -> Result<()> {
    eprintln!("crowds");
    let ours = Server::ours(relay)?;
    let (weight, crowd) = weigh(&ours, load.crowd).await?;
    report.weight(Kind::Ours, weight);
    let (time, cpu) = storm(&ours, crowd).await?;
    report.storm(load.crowd, time, cpu);
    drop(ours);
    let mut others = vec![Server::floor()?];
    if peers {
        others.extend(Server::peer(Kind::Nats)?);
        others.extend(Server::peer(Kind::Mosquitto)?);
    }
    for other in others {
        report.weight(other.kind, weigh(&other, load.crowd).await?.0);
    }
    eprintln!("flood");
    report.flood(&flood(&Server::ours(relay)?, load.honest, load.slow, load.flooded).await?);
    Ok(())
}
