//! That the bench works at all: tiny loads, on servers inside this process and on those that are installed. The numbers aren't looked
//! at.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use countersign_relay::{Config, Relay, Store};
use countersign_tests::program::program;
use tempfile::TempDir;

use crate::away::Away;
use crate::bounds::{Bound, Verdict, at_least, at_most};
use crate::crowd::{Stranger, storm, weigh, weigh_strangers};
use crate::deep::{Deep, deep};
use crate::flood::{Flood, flood};
use crate::floor::in_process;
use crate::report::{Report, Row, Storm};
use crate::server::{Kind, Server};
use crate::start::Programs;
use crate::table;
use crate::works::{Done, Round, Span, exchange, stream};

const SPAN: Span = Span {
    warm: Duration::ZERO,
    measured: Duration::from_millis(20),
};

const LITTLE: Deep = Deep {
    shallow: 100,
    deep: 11_000,
    rounds: 1,
    turns: 2,
    each: 300,
};

const SPRINKLE: Flood = Flood {
    honest: 2,
    slow: 2,
    huge: 2,
    junk: 128,
    junkers: 2,
    least: Duration::ZERO,
};

async fn relay(folder: &TempDir) -> SocketAddr {
    let store = Store::Sqlite(folder.path().join("relay.db"));
    let relay = Relay::bind(Config {
        listen: ([127, 0, 0, 1], 0).into(),
        store,
        ..Config::default()
    })
    .await
    .expect("a relay");
    let address = relay.local_addr();
    tokio::spawn(relay.run(std::future::pending()));
    address
}

fn programs() -> Programs {
    Programs {
        relay: program("countersign-relay"),
        nats: None,
    }
}

#[tokio::test]
async fn every_work_runs_to_its_end_on_ours_and_on_the_floor() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Server::within(Kind::Ours, relay(&folder).await);
    let floor = Server::within(Kind::Floor, in_process().await?);
    let mut report = Report::new(&[]);
    report.flushes.push(Duration::from_millis(1));
    for server in [&ours, &floor] {
        let many = stream(server, 2, 4, Done::Delivered, SPAN).await?;
        report.add(Row::LiveMany, server.kind, many);
        report.add(Row::LiveOne, server.kind, exchange(server, 2, SPAN).await?);
        report.add(Row::PingPong, server.kind, exchange(server, 1, SPAN).await?);
    }
    report.add(Row::Durable, Kind::Ours, stream(&ours, 2, 4, Done::Both, SPAN).await?);
    let mut away = Away::new(&ours, 2).await?;
    let enqueued = away.enqueue(&ours, 100, 64).await?;
    let drained = away.drain(&ours).await?;
    assert_eq!((enqueued.messages, drained.messages), (200, 200));
    report.add(Row::Enqueue, Kind::Ours, enqueued);
    report.add(Row::Drain, Kind::Ours, drained);
    let (weight, crowd) = weigh(&ours, 64).await?;
    report.weights.push((Kind::Ours, weight));
    let (time, cpu) = storm(&ours, crowd).await?;
    report.storm = Some(Storm { clients: 64, time, cpu });
    for how in [Stranger::Connected, Stranger::Upgraded] {
        report.strangers.push((how, weigh_strangers(&ours, 64, how).await?));
    }
    let felt = flood(&ours, SPRINKLE).await?;
    assert!(felt.junk >= 128 && felt.huge >= 2);
    report.felt = Some(felt);
    let sheet = table::sheet(&report, Vec::new());
    let text = sheet.text();
    assert!(
        text.contains("countersign-relay, CPU") && text.contains("bare forwarder, CPU"),
        "{text}"
    );
    // Every goal has its line, also without any peer.
    assert_eq!(report.verdicts().len(), 7 + 3 + 1 + 2, "{text}");
    let picture = sheet.svg();
    assert!(picture.contains("class=\"goal\"") && picture.contains("prefers-color-scheme:dark"));
    Ok(())
}

#[tokio::test]
async fn a_mailbox_is_filled_measured_and_found_full_after_a_start() -> Result<()> {
    let mut ours = programs().start(Kind::Ours)?.expect("ours is there");
    let depth = deep(&mut ours, LITTLE).await?;
    assert_eq!(depth.filled.messages, 10_900);
    assert!(depth.deep.take[0].messages >= 600);
    assert!(depth.disk > 1024.0, "{}", depth.disk);
    Ok(())
}

#[tokio::test]
async fn ours_is_measured_with_tls_and_on_postgresql_too() -> Result<()> {
    for kind in [Kind::OursTls, Kind::OursPostgres] {
        let Some(server) = programs().start(kind)? else {
            continue;
        };
        assert!(exchange(&server, 2, SPAN).await?.messages > 0);
        let mut away = Away::new(&server, 2).await?;
        assert_eq!(away.enqueue(&server, 50, 16).await?.messages, 100);
        assert_eq!(away.drain(&server).await?.messages, 100);
    }
    Ok(())
}

#[tokio::test]
async fn the_peers_that_are_installed_do_the_same_work() -> Result<()> {
    for kind in [
        Kind::Nats,
        Kind::JetStream,
        Kind::JetStreamAlways,
        Kind::Mosquitto,
        Kind::Redis,
    ] {
        let Some(server) = programs().start(kind)? else {
            continue;
        };
        if matches!(kind, Kind::Nats | Kind::Mosquitto) {
            stream(&server, 2, 4, Done::Delivered, SPAN).await?;
            exchange(&server, 2, SPAN).await?;
        }
        if kind != Kind::Nats {
            let mut away = Away::new(&server, 2).await?;
            assert_eq!(away.enqueue(&server, 50, 16).await?.messages, 100);
            away.forget().await?;
        }
    }
    Ok(())
}

/// So many messages in a second.
fn rate(messages: u64) -> Round {
    Round {
        messages,
        cpu: Duration::from_millis(10),
        wall: Duration::from_secs(1),
        times: Vec::new(),
    }
}

#[test]
fn a_jetstream_that_flushes_is_compared_with_or_else_one_with_a_flush_for_each() {
    let mut report = Report::default();
    report.flushes.push(Duration::from_micros(900));
    report.add(Row::LiveOne, Kind::Floor, rate(1000));
    report.add(Row::Enqueue, Kind::Ours, rate(20_000));
    report.add(Row::Enqueue, Kind::JetStream, rate(10_000));
    let verdict = |report: &Report| report.verdicts_of(Row::Enqueue)[1].clone();
    // 100 us of its own, and 900.
    let stands_in = verdict(&report);
    assert!((stands_in.median - 20.0).abs() < 0.01, "{}", stands_in.median);
    report.add(Row::Enqueue, Kind::JetStreamAlways, rate(500));
    assert!((verdict(&report).median - 40.0).abs() < 0.01);
}

#[test]
fn a_figure_is_too_bad_only_beyond_the_noise() {
    static MOST: Bound = at_most("a", 1.0, "x").until(2.0);
    assert!(Verdict::new(&MOST, &[1.9, 2.0, 1.8]).holds());
    assert!(Verdict::new(&MOST, &[2.3, 2.5, 1.9]).holds());
    assert!(!Verdict::new(&MOST, &[2.3, 2.5, 2.4]).holds());
    static LEAST: Bound = at_least("a", 2.0, "x");
    assert!(Verdict::new(&LEAST, &[1.9, 2.2, 1.8]).holds());
    assert!(!Verdict::new(&LEAST, &[1.7, 1.8, 1.7]).holds());
    assert!(Verdict::new(&LEAST, &[2.1, 2.2, 2.3]).reaches());
}
