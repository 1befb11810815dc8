//! Packets get lost between nodes and what they stand on, some or all of them, while nodes are killed, PostgreSQL crashes and
//! NATS is wiped: two nodes first, then three. Nothing may be lost, doubled or out of order, and everybody goes on within 30 seconds.
//!
//! The seed is printed; `COUNTERSIGN_NODE_SEED` repeats it and `COUNTERSIGN_NODE_ROUNDS` says how many rounds there are.

use std::time::Duration;

use tokio::time::sleep;

use crate::mischief::{Dice, Traffic, Wire, rounds};
use crate::namespaces::{Namespace, can_be_made};
use crate::servers::{Nats, Node, Postgres, bus, database};

/// One node, the cable to it, and its own wires from the end of the cable to the servers.
struct Place {
    // Ends before its network does.
    node: Node,
    namespace: Namespace,
    database: Wire,
    bus: Wire,
}

impl Place {
    async fn make(number: u32, postgres: &Postgres, nats: &Nats) -> Self {
        let namespace = Namespace::make(number);
        let at = namespace.outside();
        let (to_database, to_bus) = (Wire::lay(at, postgres.port()).await, Wire::lay(at, nats.port()).await);
        let node = Node::start_in(
            &namespace,
            &database(at, to_database.port),
            &["--bus", &bus(at, to_bus.port)],
        );
        Self {
            node,
            namespace,
            database: to_database,
            bus: to_bus,
        }
    }
}

/// Abuse cases A18, H11 and H12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_packets_get_lost_nothing_else_is() {
    if !can_be_made() {
        return;
    }
    let mut dice = Dice::thrown();
    let (mut postgres, mut nats) = (Postgres::start(), Nats::start());
    let mut places = vec![
        Place::make(0, &postgres, &nats).await,
        Place::make(1, &postgres, &nats).await,
    ];
    let addresses = places.iter().map(|place| place.node.address()).collect();
    let traffic = Traffic::begin(addresses, &mut dice).await;
    traffic.goes_on("nothing").await;
    let rounds = rounds();
    let mut all_lost = 0;
    for round in 0..rounds {
        if round == rounds / 2 {
            let third = Place::make(2, &postgres, &nats).await;
            traffic.add(third.node.address());
            places.push(third);
        }
        let mut lossy = Vec::new();
        // Every cable by itself: to the database, to the bus or to both.
        for (number, place) in places.iter().enumerate() {
            let percent = match dice.roll(4) {
                0 => continue,
                1 => 100,
                _ => 10 + dice.roll(21),
            };
            let which = dice.roll(3);
            for (port, named) in [(place.database.port, "database"), (place.bus.port, "bus")] {
                if which == 2 || (which == 0) == (named == "database") {
                    place.namespace.loses(percent, port);
                    lossy.push(format!("{percent} % between node {number} and the {named}"));
                }
            }
        }
        let pause = Duration::from_millis(500 + dice.roll(4000));
        let victim = usize::try_from(dice.roll(places.len() as u64)).unwrap();
        sleep(pause / 2).await;
        let beside = match dice.roll(6) {
            0 => {
                places[victim].node.kill();
                "a node killed"
            }
            1 => {
                postgres.crash();
                "postgres crashed"
            }
            2 => {
                nats.crash();
                "nats wiped"
            }
            _ => "nothing else",
        };
        sleep(pause / 2).await;
        let mut lost = 0;
        for place in &places {
            lost += place.namespace.lost();
            place.namespace.heal();
        }
        all_lost += lost;
        match beside {
            "a node killed" => places[victim].node.resume(),
            "postgres crashed" => postgres.resume(),
            "nats wiped" => nats.resume(),
            _ => {}
        }
        let what = format!(
            "{} nodes, {lost} packets lost ({}), {beside}",
            places.len(),
            lossy.join(", ")
        );
        let took = traffic.goes_on(&what).await;
        eprintln!("round {round}: {what} for {pause:?}, all go on after {took:?}");
    }
    assert_eq!(places.len(), 3);
    assert!(all_lost > 0, "no packet was lost in {rounds} rounds");
    traffic.end().await;
}
