//! Who reads a mailbox, and when a seat is given up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::task::{Context, Waker};

use super::*;
use crate::memory::Memory;
use crate::outbox::{Out, Outgoing, outbox};
use crate::shared::job::Reader;

const KEY: Key = [1; 32];

struct World {
    seats: Seats,
    outgoing: Outgoing,
}

impl World {
    /// Reader 7 of a mailbox in which numbers up to `next_sequence` were given out.
    fn new(next_sequence: u64) -> Self {
        let mut seats = Seats::new(Names::new([0; 32]), Health::default());
        let (sender, outgoing) = outbox(Memory::default());
        seats.read(KEY, 1, sender);
        let status = Status {
            next_sequence,
            waiting: 0,
            floor: 0,
        };
        seats.claimed(&KEY, 1, 7, status);
        let mut world = Self { seats, outgoing };
        assert!(matches!(
            world.said().as_slice(),
            [Out::Answer(RelayFrame::Reading { .. })]
        ));
        world
    }

    fn want(&mut self) -> Want {
        let [want] = std::mem::take(&mut self.seats.wants).try_into().unwrap();
        want
    }

    fn found(&mut self, numbers: impl IntoIterator<Item = u64>, next_sequence: u64, complete: bool) -> Looked {
        let want = self.want();
        let body = || Bytes::from(vec![0; 1024]);
        self.seats.found(Found {
            want,
            generation: Some(7),
            next_sequence,
            envelopes: numbers.into_iter().map(|number| (number, 0, body())).collect(),
            complete,
        })
    }

    fn said(&mut self) -> Vec<Out> {
        let mut said = VecDeque::new();
        self.outgoing.take(&mut said, &mut Context::from_waker(Waker::noop()));
        said.into()
    }

    fn delivered(&mut self) -> Vec<u64> {
        let said = self.said().into_iter();
        said.map(|out| match out {
            Out::Deliver(RelayFrame::Deliver { sequence, .. }, _) => sequence,
            other => panic!("no delivery but {other:?}"),
        })
        .collect()
    }

    fn committed(&mut self, sequence: u64, generation: i64) {
        let accepted = Accepted {
            sequence,
            received: 0,
            reader: Some(Reader { generation, node: 1 }),
        };
        self.seats.committed(&KEY, accepted, &vec![0; 1024].into());
    }
}

#[test]
fn a_full_window_waits_for_an_acknowledgement_and_nobody_asks_meanwhile() {
    let mut world = World::new(101);
    world.found(1..=64, 101, false);
    assert_eq!(world.delivered(), (1..=64).collect::<Vec<_>>());
    assert!(world.seats.wants.is_empty());
    world.seats.acknowledge(&KEY, 10);
    let want = world.want();
    assert_eq!((want.cursor, want.room), (64, 10));
}

#[test]
fn a_poll_without_room_only_looks_and_leaves_the_rest_for_later() {
    let mut world = World::new(101);
    world.found(1..=64, 101, false);
    world.seats.poll();
    assert_eq!(world.seats.wants[0].room, 0);
    world.found([], 101, false);
    assert!(world.seats.wants.is_empty());
    world.seats.acknowledge(&KEY, 1);
    assert_eq!(world.want().room, 1);
}

#[test]
fn what_this_node_took_is_delivered_at_once_but_only_if_it_is_the_next() {
    let mut world = World::new(1);
    world.found([], 1, true);
    world.committed(1, 7);
    assert_eq!(world.delivered(), [1]);
    assert!(world.seats.wants.is_empty());
    // Another node took 2; 3 has to wait for it.
    world.committed(3, 7);
    assert_eq!(world.delivered(), [0_u64; 0]);
    world.found([2, 3], 4, true);
    assert_eq!(world.delivered(), [2, 3]);
    world.committed(4, 7);
    assert_eq!(world.delivered(), [4]);
}

#[test]
fn what_came_while_the_database_was_asked_is_asked_for_again() {
    let mut world = World::new(1);
    world.committed(1, 7);
    assert_eq!(world.delivered(), [0_u64; 0]);
    world.found([], 1, true);
    world.found([1], 2, true);
    assert_eq!(world.delivered(), [1]);
    assert!(world.seats.wants.is_empty());
}

#[test]
fn the_row_in_the_database_decides_who_is_the_reader() {
    let mut world = World::new(1);
    let want = world.want();
    let found = |generation| Found {
        want,
        generation,
        next_sequence: 1,
        envelopes: Vec::new(),
        complete: true,
    };
    assert_eq!(world.seats.found(found(None)), Looked::Forgotten { connection: 1 });
    assert_eq!(world.seats.found(found(Some(8))), Looked::Well);
    assert!(matches!(world.said().as_slice(), [Out::Displaced]));
    assert_eq!(world.seats.len(), 0);
}

#[test]
fn an_answer_for_an_earlier_reader_is_passed_over() {
    let mut world = World::new(1);
    let earlier = world.want();
    world.seats.claimed(&KEY, 1, 9, Status::NONE);
    assert_eq!(world.want().generation, 9);
    let late = Found {
        want: earlier,
        generation: Some(7),
        next_sequence: 2,
        envelopes: vec![(1, 0, vec![0; 1024].into())],
        complete: true,
    };
    assert_eq!(world.seats.found(late), Looked::Well);
    assert_eq!(world.delivered(), [0_u64; 0]);
    assert_eq!(world.seats.leave(&KEY, 1), Some(9));
}

#[test]
fn a_hint_wakes_the_mailbox_that_it_means() {
    let mut world = World::new(1);
    world.found([], 1, true);
    let names = Names::new([0; 32]);
    world.seats.hinted(&names.of(&[9; 32]));
    assert!(world.seats.wants.is_empty());
    world.seats.hinted(&names.of(&KEY));
    assert_eq!(world.want().key, KEY);
}
