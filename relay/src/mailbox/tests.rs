//! A mailbox alone: order, window, quotas, expiry, bundles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::memory::Memory;
use crate::outbox::outbox;

const HASH: CapabilityHash = CapabilityHash::from_bytes([1; 32]);

fn mailbox() -> Mailbox {
    let mut mailbox = Mailbox::new(1, 1, 0, None);
    mailbox.allow(HASH, 7, 100, 1 << 20);
    mailbox.reserve(1000);
    mailbox
}

fn put(mailbox: &mut Mailbox, bytes: usize, expires: u64) -> u64 {
    let fresh = Fresh {
        id: [0; 16],
        print: Print::default(),
        expires,
        content: 1,
        body: vec![0; bytes].into(),
        sender: outbox(Memory::default()).0,
        repeated: Vec::new(),
    };
    let slot = mailbox.capability(&HASH).unwrap();
    mailbox.accept(slot, 0, fresh)
}

/// Everything fresh is written and flushed, in one bundle of this number.
fn flush(mailbox: &mut Mailbox, number: i64) -> Vec<i64> {
    let (mut first, mut last) = (u64::MAX, 0);
    mailbox.write(|waiting, _| {
        (first, last) = (first.min(waiting.sequence), waiting.sequence);
    });
    mailbox.write_in(number, first, last);
    let mut empty = Vec::new();
    mailbox.written(&mut empty, drop);
    empty
}

fn acknowledge(mailbox: &mut Mailbox, sequence: u64) -> (usize, Vec<i64>) {
    let (mut gone, mut empty) = (0, Vec::new());
    mailbox.acknowledge(sequence, &mut empty, |_, _| gone += 1);
    (gone, empty)
}

fn next(mailbox: &mut Mailbox, now: u64) -> Next {
    mailbox.next(now, &mut Vec::new())
}

fn deliver_all(mailbox: &mut Mailbox) -> Vec<u64> {
    let mut sequences = Vec::new();
    while let Next::Deliver(next, _) = next(mailbox, 0) {
        sequences.push(next.sequence);
        mailbox.delivered();
    }
    sequences
}

fn expire(mailbox: &mut Mailbox, now: u64) -> usize {
    let mut gone = 0;
    let (more, _) = mailbox.expire(now, 0, usize::MAX / 2, &mut Vec::new(), |_| gone += 1);
    assert_eq!(more, None);
    gone
}

#[test]
fn delivery_is_in_order_and_within_the_window() {
    let mut mailbox = mailbox();
    for _ in 0..70 {
        put(&mut mailbox, 1024, 10);
    }
    assert_eq!(deliver_all(&mut mailbox), (1..=64).collect::<Vec<_>>());
    assert_eq!(acknowledge(&mut mailbox, 3).0, 3);
    assert_eq!(deliver_all(&mut mailbox), [65, 66, 67]);
    mailbox.rewind();
    assert_eq!(deliver_all(&mut mailbox)[0], 4);
}

#[test]
fn large_envelopes_fill_the_window_by_their_bytes() {
    let mut mailbox = mailbox();
    mailbox.allow(HASH, 7, 100, 1 << 30);
    for _ in 0..20 {
        put(&mut mailbox, 65_536, 10);
    }
    assert_eq!(deliver_all(&mut mailbox).len(), 16);
    acknowledge(&mut mailbox, 1);
    assert_eq!(deliver_all(&mut mailbox), [17]);
}

#[test]
fn a_number_is_delivered_only_when_it_is_reserved() {
    let mut mailbox = Mailbox::new(1, 1, 0, None);
    mailbox.allow(HASH, 7, 100, 1 << 20);
    put(&mut mailbox, 1024, 10);
    assert_eq!(next(&mut mailbox, 0), Next::Nothing);
    assert_eq!(mailbox.wants_reserve(), Some(2 + RESERVE));
    mailbox.reserve(2 + RESERVE);
    assert_eq!(deliver_all(&mut mailbox), [1]);
    assert_eq!(mailbox.wants_reserve(), None);
}

#[test]
fn quotas_count_what_waits_and_give_it_back() {
    let mut mailbox = mailbox();
    mailbox.allow(HASH, 99, 2, 3000);
    let slot = mailbox.capability(&HASH).unwrap();
    put(&mut mailbox, 1024, 10);
    assert_eq!(mailbox.admits(slot, 2048), Err(Reason::ByteQuota));
    put(&mut mailbox, 1024, 10);
    assert_eq!(mailbox.admits(slot, 1024), Err(Reason::EnvelopeQuota));
    acknowledge(&mut mailbox, 1);
    assert_eq!(mailbox.admits(slot, 1024), Ok(()));
    mailbox.revoke(&HASH);
    assert_eq!(mailbox.admits(slot, 1024), Err(Reason::NotAllowed));
    assert_eq!(mailbox.waiting(), 1);
}

#[test]
fn what_a_revoked_capability_put_isnt_counted_under_the_one_that_took_its_place() {
    let mut mailbox = mailbox();
    put(&mut mailbox, 1024, 10);
    mailbox.revoke(&HASH);
    let other = CapabilityHash::from_bytes([2; 32]);
    mailbox.allow(other, 8, 1, 1024);
    let slot = mailbox.capability(&other).unwrap();
    assert_eq!(mailbox.admits(slot, 1024), Ok(()));
    acknowledge(&mut mailbox, 1);
    assert_eq!(mailbox.admits(slot, 1024), Ok(()));
    assert_eq!(mailbox.waiting(), 0);
}

#[test]
fn an_envelope_lives_strictly_before_its_expiry() {
    let mut mailbox = mailbox();
    put(&mut mailbox, 1024, 10);
    put(&mut mailbox, 1024, 20);
    assert!(matches!(next(&mut mailbox, 9), Next::Deliver(first, Some(_)) if first.sequence == 1));
    assert!(matches!(next(&mut mailbox, 10), Next::Expired(first) if first.sequence == 1));
    assert!(matches!(next(&mut mailbox, 10), Next::Deliver(second, _) if second.sequence == 2));
    assert_eq!(expire(&mut mailbox, 20), 1);
    assert_eq!((mailbox.next_sequence(), mailbox.waiting()), (3, 0));
}

#[test]
fn an_envelope_in_flight_that_expires_makes_room() {
    let mut mailbox = mailbox();
    for index in 0..65 {
        put(&mut mailbox, 1024, if index == 5 { 10 } else { 20 });
    }
    assert_eq!(deliver_all(&mut mailbox).len(), 64);
    assert_eq!(expire(&mut mailbox, 10), 1);
    assert_eq!(deliver_all(&mut mailbox), [65]);
    // The tomb among those in flight isn't counted twice.
    assert_eq!(acknowledge(&mut mailbox, 65).0, 65);
    assert_eq!((mailbox.in_flight(), mailbox.waiting()), (0, 0));
}

#[test]
fn a_look_for_what_expired_goes_on_where_it_stopped() {
    let mut mailbox = mailbox();
    for index in 0..10 {
        put(&mut mailbox, 1024, 10 + index);
    }
    let mut gone = 0;
    let (more, soonest) = mailbox.expire(12, 0, 4, &mut Vec::new(), |_| gone += 1);
    assert_eq!((more, soonest, gone), (Some(5), 13, 3));
    let (more, soonest) = mailbox.expire(12, 5, 100, &mut Vec::new(), |_| gone += 1);
    assert_eq!((more, soonest, gone), (None, 14, 3));
}

#[test]
fn the_257th_capability_is_one_too_many() {
    let mut mailbox = Mailbox::new(1, 1, 0, None);
    for byte in 0..=255 {
        let hash = CapabilityHash::from_bytes([byte; 32]);
        assert!(mailbox.allow(hash, byte.into(), 1, 1).is_some());
    }
    let mut other = [0; 32];
    other[0] = 1;
    let other = CapabilityHash::from_bytes(other);
    assert_eq!(mailbox.allow(other, 300, 1, 1), None);
    assert_eq!(mailbox.allow(CapabilityHash::from_bytes([9; 32]), 300, 5, 5), Some(9));
    mailbox.revoke(&CapabilityHash::from_bytes([9; 32]));
    assert_eq!(mailbox.allow(other, 300, 1, 1), Some(300));
}

#[test]
fn a_closed_mailbox_keeps_nothing_but_its_numbering() {
    let mut mailbox = mailbox();
    put(&mut mailbox, 1024, 10);
    let mut gone = 0;
    mailbox.close(5, 2, &mut Vec::new(), |_, _| gone += 1);
    assert_eq!((gone, mailbox.capability(&HASH)), (1, None));
    assert_eq!((mailbox.waiting(), mailbox.next_sequence(), mailbox.number), (0, 2, 2));
}

#[test]
fn a_bundle_is_needed_until_the_last_of_it_is_gone() {
    let mut mailbox = mailbox();
    for _ in 0..3 {
        put(&mut mailbox, 1024, 10);
    }
    assert!(flush(&mut mailbox, 41).is_empty());
    put(&mut mailbox, 1024, 20);
    assert!(flush(&mut mailbox, 42).is_empty());
    assert_eq!(mailbox.bundles_ahead(0), [41, 42]);
    assert_eq!(mailbox.bundles_ahead(4), [42]);
    assert_eq!(acknowledge(&mut mailbox, 2), (2, vec![]));
    assert!(mailbox.is_halfway());
    assert_eq!(acknowledge(&mut mailbox, 3), (1, vec![41]));
    assert!(!mailbox.is_halfway());
    let mut empty = Vec::new();
    mailbox.expire(20, 0, 100, &mut empty, |_| {});
    assert_eq!((empty, mailbox.waiting()), (vec![42], 0));
}

#[test]
fn a_bundle_whose_last_expires_at_the_readers_hand_isnt_needed() {
    let mut mailbox = mailbox();
    put(&mut mailbox, 1024, 10);
    flush(&mut mailbox, 41);
    let mut empty = Vec::new();
    assert!(matches!(mailbox.next(10, &mut empty), Next::Expired(_)));
    assert_eq!(empty, [41]);
}

#[test]
fn what_is_acknowledged_while_it_is_written_leaves_an_empty_bundle() {
    let mut mailbox = mailbox();
    put(&mut mailbox, 1024, 10);
    mailbox.write(|_, _| {});
    mailbox.write_in(41, 1, 1);
    put(&mut mailbox, 1024, 10);
    let mut fresh = 0;
    mailbox.acknowledge(1, &mut Vec::new(), |_, gone| fresh += usize::from(gone.is_some()));
    let (mut empty, mut flushed) = (Vec::new(), 0);
    mailbox.written(&mut empty, |_| flushed += 1);
    assert_eq!((fresh, flushed, empty), (1, 0, vec![41]));
    assert_eq!(mailbox.unwritten(), 1);
}

#[test]
fn what_cant_be_stored_is_taken_back_and_what_was_stored_stays() {
    let mut mailbox = mailbox();
    put(&mut mailbox, 1024, 10);
    flush(&mut mailbox, 41);
    put(&mut mailbox, 1024, 10);
    put(&mut mailbox, 1024, 10);
    assert_eq!(deliver_all(&mut mailbox), [1, 2, 3]);
    let mut back = Vec::new();
    mailbox.refused(|waiting, _| back.push(waiting.sequence));
    assert_eq!(back, [2, 3]);
    assert_eq!((mailbox.waiting(), mailbox.in_flight()), (1, 1));
    put(&mut mailbox, 1024, 10);
    assert_eq!(deliver_all(&mut mailbox), [4]);
}

#[test]
fn a_bundle_that_the_store_lost_is_passed_over() {
    let mut mailbox = mailbox();
    for number in 1..=3 {
        put(&mut mailbox, 1024, 10);
        flush(&mut mailbox, number);
    }
    let mut lost = Vec::new();
    mailbox.lose(2, |waiting| lost.push(waiting.sequence));
    assert_eq!((lost, deliver_all(&mut mailbox)), (vec![2], vec![1, 3]));
    assert_eq!(acknowledge(&mut mailbox, 3).1, [1, 3]);
}
