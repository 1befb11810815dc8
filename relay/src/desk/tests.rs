//! The desk alone: what is said before a flush, after it, and when there is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use tokio::sync::mpsc;
use wire::frame::Done;
use wire::mailbox::Capability;

use super::sweep::SWEPT;
use super::*;
use crate::addresses::Visitor;
use crate::clerks::Question;
use crate::known::content;
use crate::mailbox::RESERVE;
use crate::memory::Memory;
use crate::outbox::{Out, Outgoing, outbox};
use crate::store::Change;
use crate::store::rows::{PutRecord, PutsRow, apart, records};

const KEY: [u8; 32] = [1; 32];

struct World {
    desk: Desk,
    questions: mpsc::UnboundedReceiver<Question>,
    owner: (Outbox, Outgoing),
    sender: (Outbox, Outgoing),
}

impl World {
    /// A mailbox with one capability, flushed.
    fn new() -> Self {
        let bounds = Bounds {
            mailboxes: 10,
            bytes: 1 << 30,
            puts: 100_000,
            abandoned_ms: 90 * 24 * 3600 * 1000,
        };
        let (sender, questions) = mpsc::unbounded_channel();
        let mut world = Self {
            desk: Desk::new(bounds, Arc::new(|| 1_000_000), Health::default(), sender),
            questions,
            owner: outbox(Memory::default()),
            sender: outbox(Memory::default()),
        };
        world.owner(OwnerOrder::Allow {
            capability: capability().hash(),
            max_envelopes: 10_000,
            max_bytes: 1 << 30,
            visitor: Visitor::default(),
        });
        world.flush();
        assert_eq!(
            said(&mut world.owner.1),
            [RelayFrame::Done(Done::Allow(capability().hash()))]
        );
        world
    }

    fn owner(&mut self, order: OwnerOrder) {
        let order = Order::Owner {
            mailbox: KEY,
            connection: 1,
            outbox: self.owner.0.clone(),
            order,
        };
        self.desk.take(&mut vec![order]);
    }

    fn put(&mut self, id: u8) {
        self.put_as([id; 16], id);
    }

    fn put_as(&mut self, id: PutId, byte: u8) {
        let envelope = Envelope::from_bytes(vec![byte; 1024].into()).unwrap();
        let order = Order::Put(PutOrder {
            outbox: self.sender.0.clone(),
            id,
            mailbox: KEY,
            capability: capability().hash(),
            ttl_seconds: 60,
            content: content(envelope.as_bytes()),
            envelope,
            sought: None,
        });
        self.desk.take(&mut vec![order]);
    }

    fn flush(&mut self) {
        let batch = self.desk.next_batch(true).unwrap();
        self.desk.written(&batch);
    }

    fn fail(&mut self) {
        let batch = self.desk.next_batch(true).unwrap();
        self.desk.refused(*batch);
    }
}

fn capability() -> Capability {
    Capability::from_bytes(&[7; 32])
}

fn said(outgoing: &mut Outgoing) -> Vec<RelayFrame> {
    let mut taken = VecDeque::new();
    outgoing.take(&mut taken, &mut Context::from_waker(Waker::noop()));
    let frame = |out| match out {
        Out::Answer(frame) => {
            outgoing.written(1, 1, 0);
            frame
        }
        Out::Deliver(frame, bytes) => {
            outgoing.written(1, 0, bytes);
            frame
        }
        other => panic!("{other:?}"),
    };
    taken.into_iter().map(frame).collect()
}

fn remembered<'a>(rows: impl Iterator<Item = &'a PutsRow>) -> Vec<PutRecord> {
    rows.flat_map(|row| records(&row.records(), row.expires, row.how).unwrap())
        .collect()
}

/// Which puts a batch remembers that were acknowledged before they were flushed.
fn acknowledged(batch: &Batch) -> Vec<PutId> {
    let puts = remembered(batch.acknowledged_puts.rows()).into_iter();
    puts.map(|put| put.id).collect()
}

fn stored(id: u8, how: Stored) -> RelayFrame {
    RelayFrame::Stored { id: [id; 16], how }
}

fn not_stored(id: u8) -> RelayFrame {
    RelayFrame::Refused {
        id: [id; 16],
        reason: Reason::NotStored,
        retry_after_ms: NEXT_SWEEP_MS,
    }
}

#[test]
fn stored_is_said_after_the_flush_and_not_before() {
    let mut world = World::new();
    world.put(1);
    assert_eq!(said(&mut world.sender.1), []);
    let batch = world.desk.next_batch(true).unwrap();
    world.put(1);
    assert_eq!(said(&mut world.sender.1), []);
    world.desk.written(&batch);
    // Once for the put, once for its repeat.
    assert_eq!(
        said(&mut world.sender.1),
        [stored(1, Stored::Flushed), stored(1, Stored::Flushed)]
    );
    assert!(world.desk.next_batch(true).is_none());
}

#[test]
fn a_live_reader_has_it_before_the_flush_and_its_acknowledgement_is_as_good() {
    let mut world = World::new();
    world.owner(OwnerOrder::Read);
    said(&mut world.owner.1);
    world.put(1);
    assert!(matches!(
        said(&mut world.owner.1)[..],
        [RelayFrame::Deliver { sequence: 1, .. }]
    ));
    world.owner(OwnerOrder::Ack { sequence: 1 });
    assert_eq!(said(&mut world.sender.1), [stored(1, Stored::Acknowledged)]);
    // The envelope is never written, the memory of its put is.
    assert!(world.desk.gathers() && !world.desk.is_urgent());
    let batch = world.desk.next_batch(true).unwrap();
    assert_eq!((batch.bundles.len(), acknowledged(&batch)), (0, vec![[1; 16]]));
    world.desk.written(&batch);
    assert_eq!(said(&mut world.sender.1), []);
    assert_eq!((world.desk.held.fresh_bytes, world.desk.held.waiting_bytes), (0, 0));
}

#[test]
fn an_acknowledgement_while_it_is_written_deletes_it_in_the_next_batch() {
    let mut world = World::new();
    world.owner(OwnerOrder::Read);
    world.put(1);
    let batch = world.desk.next_batch(true).unwrap();
    world.owner(OwnerOrder::Ack { sequence: 1 });
    assert_eq!(said(&mut world.sender.1), [stored(1, Stored::Acknowledged)]);
    world.desk.written(&batch);
    assert_eq!(said(&mut world.sender.1), []);
    assert_eq!(world.desk.next_batch(true).unwrap().empty, [batch.bundles[0].number]);
}

#[test]
fn a_full_disk_refuses_what_it_didnt_take_and_recovers() {
    let mut world = World::new();
    world.put(1);
    let batch = world.desk.next_batch(true).unwrap();
    world.put(2);
    world.desk.refused(*batch);
    assert_eq!(said(&mut world.sender.1), [not_stored(1), not_stored(2)]);
    world.put(3);
    assert_eq!(said(&mut world.sender.1), [not_stored(3)]);
    // Not tried again before the next sweep, which probes.
    assert!(world.desk.next_batch(true).is_none());
    world.desk.sweep();
    let probe = world.desk.next_batch(true).unwrap();
    assert!(probe.probe);
    world.desk.written(&probe);
    // The same ids again are the same puts, not known ones.
    world.put(1);
    world.flush();
    assert_eq!(said(&mut world.sender.1), [stored(1, Stored::Flushed)]);
    world.owner(OwnerOrder::Read);
    assert!(matches!(
        said(&mut world.owner.1)[..],
        [RelayFrame::Reading {
            next_sequence: 4,
            waiting: 1
        }]
    ));
}

#[test]
fn a_revocation_survives_a_full_disk_and_is_done_when_it_is_flushed() {
    let mut world = World::new();
    let hash = capability().hash();
    world.owner(OwnerOrder::Revoke { capability: hash });
    world.fail();
    assert_eq!(said(&mut world.owner.1), []);
    world.put(1);
    assert!(matches!(
        said(&mut world.sender.1)[..],
        [RelayFrame::Refused {
            reason: Reason::NotAllowed,
            ..
        }]
    ));
    world.desk.sweep();
    let batch = world.desk.next_batch(true).unwrap();
    assert!(matches!(batch.changes[..], [Change::Revoke { .. }]));
    world.desk.written(&batch);
    assert_eq!(said(&mut world.owner.1), [RelayFrame::Done(Done::Revoke(hash))]);
}

#[test]
fn what_was_acknowledged_before_the_disk_was_full_is_remembered_later() {
    let mut world = World::new();
    world.owner(OwnerOrder::Read);
    world.put(1);
    let batch = world.desk.next_batch(true).unwrap();
    world.owner(OwnerOrder::Ack { sequence: 1 });
    said(&mut world.sender.1);
    world.desk.refused(*batch);
    world.put(1);
    assert_eq!(said(&mut world.sender.1), [stored(1, Stored::Acknowledged)]);
    world.desk.sweep();
    let batch = world.desk.next_batch(true).unwrap();
    assert_eq!((batch.bundles.len(), acknowledged(&batch)), (0, vec![[1; 16]]));
}

#[test]
fn no_number_beyond_the_reserve_is_delivered_before_it_is_flushed() {
    let mut world = World::new();
    world.owner(OwnerOrder::Read);
    let mut last = 0;
    for id in 0..=RESERVE {
        world.put_as(u128::from(id).to_be_bytes(), 1);
        for frame in said(&mut world.owner.1) {
            if let RelayFrame::Deliver { sequence, .. } = frame {
                last = sequence;
            }
        }
        world.owner(OwnerOrder::Ack { sequence: last });
    }
    assert_eq!(last, RESERVE);
    let batch = world.desk.next_batch(true).unwrap();
    assert!(batch.reserved.values().all(|reserved| *reserved > RESERVE + 1));
    world.desk.written(&batch);
    assert!(matches!(
        said(&mut world.owner.1)[..],
        [RelayFrame::Deliver { sequence, .. }] if sequence == RESERVE + 1
    ));
}

#[test]
fn closing_while_a_put_is_written_deletes_it_and_a_new_put_of_that_id_is_new() {
    let mut world = World::new();
    world.put(1);
    let first = world.desk.next_batch(true).unwrap();
    world.owner(OwnerOrder::Close);
    assert_eq!(said(&mut world.sender.1), [stored(1, Stored::Acknowledged)]);
    world.owner(OwnerOrder::Allow {
        capability: capability().hash(),
        max_envelopes: 1,
        max_bytes: 1024,
        visitor: Visitor::default(),
    });
    world.put(1);
    world.desk.written(&first);
    assert_eq!(said(&mut world.sender.1), []);
    let second = world.desk.next_batch(true).unwrap();
    assert_eq!((second.empty.len(), second.bundles.len()), (1, 1));
    assert!(second.bundles[0].mailbox > first.bundles[0].mailbox);
    world.desk.written(&second);
    assert_eq!(said(&mut world.sender.1), [stored(1, Stored::Flushed)]);
}

#[test]
fn too_much_that_isnt_flushed_is_busy() {
    let mut world = World::new();
    for index in 0..UNFLUSHED {
        world.put_as((index as u128).to_be_bytes(), 0);
    }
    world.put(255);
    assert!(matches!(
        said(&mut world.sender.1)[..],
        [RelayFrame::Refused {
            reason: Reason::Busy,
            ..
        }]
    ));
}

/// What the store would answer to the question that was asked.
fn answer(world: &mut World, batches: &[Box<Batch>]) {
    let Question::Bundles {
        mailbox,
        connection,
        numbers,
    } = world.questions.try_recv().unwrap()
    else {
        panic!("something else was asked");
    };
    let rows = batches.iter().flat_map(|batch| &batch.bundles);
    let found = rows
        .filter(|row| numbers.contains(&row.number))
        .map(|row| (row.number, apart(&row.heads(), row.joined().into()).unwrap()));
    world.desk.bundles(&mailbox, connection, &numbers, found.collect());
}

fn delivered(world: &mut World) -> Vec<u64> {
    let frames = said(&mut world.owner.1).into_iter();
    let sequences = frames.filter_map(|frame| match frame {
        RelayFrame::Deliver { sequence, .. } => Some(sequence),
        _ => None,
    });
    sequences.collect()
}

#[test]
fn what_waits_in_the_store_is_read_by_the_bundle_within_the_window() {
    let mut world = World::new();
    let mut batches = Vec::new();
    for round in 0..3 {
        for id in 0..50u128 {
            world.put_as((id + 50 * round).to_be_bytes(), 1);
        }
        batches.push(world.desk.next_batch(true).unwrap());
        world.desk.written(&batches[batches.len() - 1]);
    }
    world.owner(OwnerOrder::Read);
    assert!(delivered(&mut world).is_empty());
    answer(&mut world, &batches);
    assert_eq!(delivered(&mut world), (1..=64).collect::<Vec<_>>());
    world.owner(OwnerOrder::Ack { sequence: 60 });
    assert_eq!(delivered(&mut world), (65..=124).collect::<Vec<_>>());
    let batch = world.desk.next_batch(true).unwrap();
    assert_eq!(batch.empty, [batches[0].bundles[0].number]);
    assert_eq!(batch.acknowledged.values().collect::<Vec<_>>(), [&60]);
}

#[test]
fn an_envelope_that_the_store_lost_is_passed_over() {
    let mut world = World::new();
    let mut batches = Vec::new();
    for id in 1..=3 {
        world.put(id);
        batches.push(world.desk.next_batch(true).unwrap());
        world.desk.written(&batches[batches.len() - 1]);
    }
    world.owner(OwnerOrder::Read);
    batches.remove(1);
    answer(&mut world, &batches);
    assert_eq!(delivered(&mut world), [1, 3]);
    assert!(world.questions.try_recv().is_err());
    assert_eq!(world.desk.held.waiting, 2);
}

#[test]
fn a_start_takes_up_what_was_there() {
    let mut world = World::new();
    for id in 1..=3 {
        world.put(id);
    }
    let batch = world.desk.next_batch(true).unwrap();
    world.desk.written(&batch);
    let number = batch.bundles[0].mailbox;
    let mut again = World::new();
    let mut numbers = HashMap::new();
    let mut load = |record| again.desk.load(record, &mut numbers);
    load(Record::Mailbox {
        number,
        key: [9; 32],
        next_sequence: 100,
        acknowledged: 1,
        closed: None,
        seen: 5,
    });
    let bundle = &batch.bundles[0];
    load(Record::Bundle {
        number: bundle.number,
        mailbox: number,
        heads: crate::store::rows::heads(&bundle.heads()).unwrap(),
    });
    load(Record::Bundle {
        number: 77,
        mailbox: 4711,
        heads: Vec::new(),
    });
    load(Record::Puts {
        records: remembered(batch.puts.rows()),
    });
    assert_eq!(again.desk.batch.empty, [77]);
    let (at, mailbox) = again.desk.find(&[9; 32]).unwrap();
    assert_eq!((mailbox.waiting(), mailbox.next_sequence()), (2, 100));
    assert_eq!(again.desk.known.count(), 3);
    again.desk.pump(at);
    assert_eq!(again.desk.next_bundle, 78);
}

#[test]
fn what_expires_is_taken_out_some_at_a_time() {
    let (mut world, clock) = aging(200);
    for id in 0..3 * SWEPT as u128 {
        world.put_as((1000 + id).to_be_bytes(), 1);
        if id % 100 == 0 {
            world.flush();
            said(&mut world.sender.1);
        }
    }
    world.flush();
    said(&mut world.sender.1);
    clock.fetch_add(61_000, Ordering::Relaxed);
    let (mut look, mut looks) = (world.desk.expire(None), 1);
    while look.is_some() {
        (look, looks) = (world.desk.expire(look), looks + 1);
    }
    assert!(looks > 3, "{looks}");
    assert_eq!((world.desk.held.waiting, world.desk.held.waiting_bytes), (0, 0));
    // Their bundles go, too, and what was remembered of them.
    assert!(world.desk.next_batch(true).unwrap().empty.len() > 90);
    (0..32).for_each(|_| world.desk.sweep());
    assert_eq!(world.desk.known.count(), 0);
}

#[test]
fn a_put_repeated_past_its_ttl_isnt_called_stored_because_the_first_is() {
    let (mut world, clock) = aging(0);
    world.put(1);
    let slow = world.desk.next_batch(true).unwrap();
    clock.fetch_add(61_000, Ordering::Relaxed);
    world.put(1);
    world.desk.written(&slow);
    assert_eq!(said(&mut world.sender.1).len(), 1);
    world.put(1);
    assert!(said(&mut world.sender.1).is_empty());
    world.flush();
    assert_eq!(said(&mut world.sender.1).len(), 2);
}

/// A desk whose clock can be moved, with a mailbox in which envelopes `waiting` wait.
fn aging(waiting: u8) -> (World, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let mut world = World::new();
    let hand = Arc::clone(&clock);
    world.desk.clock = Arc::new(move || hand.load(Ordering::Relaxed));
    for id in 0..waiting {
        world.put(id);
    }
    while let Some(batch) = world.desk.next_batch(true) {
        world.desk.written(&batch);
    }
    said(&mut world.sender.1);
    (world, clock)
}

const DAY: u64 = 24 * 3600 * 1000;

fn pass(world: &mut World, clock: &AtomicU64, days: u64) -> Vec<Change> {
    let now = clock.fetch_add(days * DAY, Ordering::Relaxed) + days * DAY;
    world.desk.close_abandoned(now);
    world.desk.next_batch(true).map_or(Vec::new(), |batch| batch.changes)
}

#[test]
fn a_mailbox_is_closed_when_its_owner_stays_away_and_nothing_waits() {
    let (mut world, clock) = aging(0);
    assert!(pass(&mut world, &clock, 89).is_empty());
    assert!(matches!(pass(&mut world, &clock, 1)[..], [Change::Close { .. }]));
    // Once.
    assert!(pass(&mut world, &clock, 1).is_empty());
    world.put(1);
    assert!(matches!(
        said(&mut world.sender.1)[..],
        [RelayFrame::Refused {
            reason: Reason::NotAllowed,
            ..
        }]
    ));
}

#[test]
fn a_mailbox_in_which_something_waits_is_kept() {
    let (mut world, clock) = aging(1);
    assert!(pass(&mut world, &clock, 1000).is_empty());
}

#[test]
fn an_owner_that_comes_is_noted_once_a_day_and_keeps_its_mailbox() {
    let (mut world, clock) = aging(0);
    assert!(pass(&mut world, &clock, 89).is_empty());
    world.owner(OwnerOrder::Read);
    world.owner(OwnerOrder::Read);
    assert!(matches!(pass(&mut world, &clock, 0)[..], [Change::Seen { .. }]));
    // One that stays is there, too.
    assert!(matches!(pass(&mut world, &clock, 200)[..], [Change::Seen { .. }]));
    world.owner(OwnerOrder::Leave);
    assert!(pass(&mut world, &clock, 89).is_empty());
    assert!(matches!(pass(&mut world, &clock, 1)[..], [Change::Close { .. }]));
}

#[test]
fn what_is_held_is_counted_and_given_back() {
    let mut world = World::new();
    world.desk.report();
    let before = world.desk.health.memory.used();
    world.put(1);
    world.desk.report();
    assert!(world.desk.health.memory.used() >= before + 1024);
    world.owner(OwnerOrder::Close);
    world.flush();
    world.desk.report();
    // The mailbox's numbering is kept, its capability isn't.
    assert!(world.desk.health.memory.used() < before);
}

#[test]
fn a_reader_with_something_to_acknowledge_waits_while_memory_is_used_up() {
    let mut world = World::new();
    world.desk.health.memory = Memory::new(1000);
    world.owner(OwnerOrder::Read);
    said(&mut world.owner.1);
    let elsewhere = world.desk.health.memory.charge(1000);
    // The first always goes: else nobody could ever give memory back.
    world.put(1);
    world.put(2);
    assert_eq!(said(&mut world.owner.1).len(), 1);
    world.owner(OwnerOrder::Ack { sequence: 1 });
    assert_eq!(said(&mut world.owner.1).len(), 1);
    world.put(3);
    assert_eq!(said(&mut world.owner.1).len(), 0);
    drop(elsewhere);
    world.owner(OwnerOrder::Ack { sequence: 2 });
    assert_eq!(said(&mut world.owner.1).len(), 1);
}

#[test]
fn what_its_reader_may_still_acknowledge_isnt_written_with_what_somebody_waits_for() {
    let mut world = World::new();
    world.owner(OwnerOrder::Read);
    world.put(1);
    assert!(!world.desk.is_urgent() && !world.desk.is_overdue());
    assert!(world.desk.next_batch(false).is_none());
    // Still there at the next look: its sender has waited long enough.
    assert!(world.desk.is_overdue());
    assert_eq!(world.desk.next_batch(false).unwrap().bundles.len(), 1);
}
