//! That the bench works at all: a tiny load on servers inside this process. The numbers aren't looked at.

use std::net::SocketAddr;
use std::time::Duration;

use countersign_relay::{Config, Relay, Store};
use tempfile::TempDir;

use crate::away::Away;
use crate::bounds::{Bound, Verdict};
use crate::crowd::{storm, weigh};
use crate::floor::in_process;
use crate::report::{Report, Row};
use crate::server::{Kind, Server};
use crate::works::{Done, Span, exchange, stream};

const SPAN: Span = Span {
    warm: Duration::ZERO,
    measured: Duration::from_millis(20),
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

#[tokio::test]
async fn every_work_runs_to_its_end_on_ours_and_on_the_floor() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Server::within(Kind::Ours, relay(&folder).await);
    let floor = Server::within(Kind::Floor, in_process().await.expect("a floor"));
    let mut report = Report::new(&[]);
    for server in [&ours, &floor] {
        report.add(
            Row::LiveMany,
            server.kind,
            stream(server, 2, 4, Done::Delivered, SPAN).await.expect("a stream"),
        );
        report.add(
            Row::LiveOne,
            server.kind,
            exchange(server, 2, SPAN).await.expect("an exchange"),
        );
    }
    report.add(
        Row::Durable,
        Kind::Ours,
        stream(&ours, 2, 4, Done::Both, SPAN).await.expect("a durable stream"),
    );
    let mut away = Away::new(&ours, 2).await.expect("readers");
    let enqueued = away.enqueue(&ours, 100, 64).await.expect("all stored");
    let drained = away.drain(&ours).await.expect("all delivered");
    assert_eq!((enqueued.messages, drained.messages), (200, 200));
    let (_, crowd) = weigh(&ours, 64).await.expect("a crowd");
    storm(&ours, crowd).await.expect("all are back");
    let text = table::sheet(&report, Vec::new()).text();
    assert!(
        text.contains("countersign-relay, CPU") && text.contains("bare forwarder, CPU"),
        "{text}"
    );
}

#[test]
fn a_figure_is_too_bad_only_beyond_the_noise() {
    static BOUND: Bound = Bound {
        name: "a",
        unit: "x",
        most: 2.0,
        goal: 1.0,
    };
    assert!(Verdict::new(&BOUND, &[1.9, 2.0, 1.8]).holds());
    assert!(Verdict::new(&BOUND, &[2.3, 2.5, 1.9]).holds());
    assert!(!Verdict::new(&BOUND, &[2.3, 2.5, 2.4]).holds());
}
