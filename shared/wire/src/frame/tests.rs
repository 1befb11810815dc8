//! The frozen frames of `tests/vectors/wire/frames.json`, and any bytes at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::limits::ENVELOPE_BYTES;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/wire/frames.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &Value) -> Bytes {
    let text = text.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn client_fields(frame: &ClientFrame) -> Value {
    match frame {
        ClientFrame::Login {
            version,
            mailbox,
            signature,
        } => {
            json!({"type": "login", "version": version, "mailbox": hex(mailbox), "signature": hex(signature)})
        }
        ClientFrame::Put(put) => {
            json!({"type": "put", "id": hex(&put.id), "mailbox": hex(&put.mailbox), "capability": hex(put.capability.to_bytes().as_slice()),
                "ttl_seconds": put.ttl_seconds, "envelope": hex(&put.envelope)})
        }
        ClientFrame::Read => json!({"type": "read"}),
        ClientFrame::Ack { sequence } => json!({"type": "ack", "sequence": sequence}),
        ClientFrame::Allow {
            capability,
            max_envelopes,
            max_bytes,
        } => {
            json!({"type": "allow", "capability": hex(capability.as_bytes()), "max_envelopes": max_envelopes, "max_bytes": max_bytes})
        }
        ClientFrame::Revoke { capability } => {
            json!({"type": "revoke", "capability": hex(capability.as_bytes())})
        }
        ClientFrame::CloseMailbox => json!({"type": "close-mailbox"}),
    }
}

fn relay_fields(frame: &RelayFrame) -> Value {
    match frame {
        RelayFrame::Challenge { version, nonce } => {
            json!({"type": "challenge", "version": version, "nonce": hex(nonce)})
        }
        RelayFrame::Welcome {
            version,
            window_envelopes,
        } => json!({"type": "welcome", "version": version, "window_envelopes": window_envelopes}),
        RelayFrame::Stored { id, how } => {
            json!({"type": "stored", "id": hex(id), "how": how.code()})
        }
        RelayFrame::Refused {
            id,
            reason,
            retry_after_ms,
        } => {
            json!({"type": "refused", "id": hex(id), "reason": reason.code(), "retry_after_ms": retry_after_ms})
        }
        RelayFrame::Deliver {
            sequence,
            received,
            envelope,
        } => {
            json!({"type": "deliver", "sequence": sequence, "received": received, "envelope": hex(envelope.as_bytes())})
        }
        RelayFrame::Displaced => json!({"type": "displaced"}),
        RelayFrame::Done(done) => {
            let (request, capability) = match done {
                Done::Allow(capability) => (5, *capability.as_bytes()),
                Done::Revoke(capability) => (6, *capability.as_bytes()),
                Done::CloseMailbox => (7, [0; 32]),
            };
            json!({"type": "done", "request": request, "capability": hex(&capability)})
        }
        RelayFrame::Reading { next_sequence, waiting } => {
            json!({"type": "reading", "next_sequence": next_sequence, "waiting": waiting})
        }
        RelayFrame::Goodbye { retry_after_ms } => {
            json!({"type": "goodbye", "retry_after_ms": retry_after_ms})
        }
    }
}

#[test]
fn the_good_vectors_decode_to_their_fields_and_encode_to_their_bytes() {
    for vector in vectors()["good"].as_array().unwrap() {
        let bytes = unhex(&vector["hex"]);
        let (fields, again) = if vector["from"] == "client" {
            let frame = ClientFrame::decode(bytes.clone()).unwrap();
            (client_fields(&frame), frame.encode())
        } else {
            let frame = RelayFrame::decode(bytes.clone()).unwrap();
            (relay_fields(&frame), frame.encode())
        };
        assert_eq!(fields, vector["frame"], "{}", vector["name"]);
        assert_eq!(again, bytes, "{}", vector["name"]);
    }
}

#[test]
fn the_bad_vectors_are_refused_for_their_reason() {
    for vector in vectors()["bad"].as_array().unwrap() {
        let bytes = unhex(&vector["hex"]);
        let error = if vector["from"] == "client" {
            ClientFrame::decode(bytes).unwrap_err()
        } else {
            RelayFrame::decode(bytes).unwrap_err()
        };
        let name = match error {
            FrameError::TooLong { .. } => "too long",
            FrameError::UnknownType { .. } => "type",
            FrameError::Short => "short",
            FrameError::LeftOver => "left over",
            FrameError::OutOfBounds { .. } => "bounds",
        };
        assert_eq!(name, vector["error"], "{}", vector["name"]);
    }
}

#[test]
fn every_shorter_prefix_of_a_frame_is_refused_or_another_frame() {
    for vector in vectors()["good"].as_array().unwrap() {
        let bytes = unhex(&vector["hex"]);
        for length in 0..bytes.len() {
            let prefix = bytes.slice(..length);
            // Only a put has a field of free length: what is left of it is still a put.
            match ClientFrame::decode(prefix.clone()) {
                Ok(frame) => assert!(matches!(frame, ClientFrame::Put(_))),
                Err(_) => assert!(RelayFrame::decode(prefix).is_err()),
            }
        }
    }
}

#[test]
fn a_frame_of_128_kib_decodes_and_one_byte_more_is_refused() {
    let mut bytes = vec![0; FRAME_BYTES];
    bytes[0] = 0x02;
    assert!(ClientFrame::decode(bytes.clone().into()).is_ok());
    bytes.push(0);
    assert_eq!(
        ClientFrame::decode(bytes.clone().into()),
        Err(FrameError::TooLong { bytes: 131_073 })
    );
    assert_eq!(
        RelayFrame::decode(bytes.into()),
        Err(FrameError::TooLong { bytes: 131_073 })
    );
}

#[test]
fn an_envelope_is_a_slice_of_the_frame_and_not_a_copy() {
    let mut frame = vec![0x02; 1 + 16 + 32 + 32 + 4];
    frame.resize(frame.len() + 1024, 7);
    let frame = Bytes::from(frame);
    let ClientFrame::Put(put) = ClientFrame::decode(frame.clone()).unwrap() else {
        panic!("not a put");
    };
    assert_eq!(put.envelope.as_ptr(), frame[85..].as_ptr());
}

#[test]
fn debug_of_a_put_shows_neither_capability_nor_envelope() {
    let put = Put {
        id: [1; 16],
        mailbox: [2; 32],
        capability: Capability::from_bytes(&[0xab; 32]),
        ttl_seconds: 5,
        envelope: Bytes::from_static(b"canary"),
    };
    assert_eq!(
        format!("{:?}", ClientFrame::Put(put)),
        "Put(Put { ttl_seconds: 5, envelope: 6 bytes })"
    );
}

#[test]
fn codes_and_their_meanings_are_one_to_one() {
    for code in 0..=u8::MAX {
        assert!(Stored::from_code(code).is_none_or(|how| how.code() == code));
        assert!(Reason::from_code(code).is_none_or(|reason| reason.code() == code));
    }
    let closes: Vec<_> = (0..=u16::MAX).filter_map(Close::from_code).collect();
    assert_eq!(closes.len(), 11);
    assert!(
        closes
            .iter()
            .all(|close| Close::from_code(close.code()) == Some(*close))
    );
}

fn hash() -> impl Strategy<Value = CapabilityHash> {
    any::<[u8; 32]>().prop_map(CapabilityHash::from_bytes)
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        (any::<u16>(), any::<[u8; 32]>(), any::<[[u8; 32]; 2]>()).prop_map(|(version, mailbox, halves)| {
            ClientFrame::Login {
                version,
                mailbox,
                signature: halves.as_flattened().try_into().unwrap(),
            }
        }),
        (
            any::<[u8; 16]>(),
            any::<[u8; 32]>(),
            any::<[u8; 32]>(),
            any::<u32>(),
            proptest::collection::vec(any::<u8>(), 0..2000)
        )
            .prop_map(
                |(id, mailbox, capability, ttl_seconds, envelope)| ClientFrame::Put(Put {
                    id,
                    mailbox,
                    capability: Capability::from_bytes(&capability),
                    ttl_seconds,
                    envelope: envelope.into(),
                })
            ),
        Just(ClientFrame::Read),
        any::<u64>().prop_map(|sequence| ClientFrame::Ack { sequence }),
        (hash(), 0..=CAPABILITY_ENVELOPES_MAX, 0..=CAPABILITY_BYTES_MAX).prop_map(
            |(capability, max_envelopes, max_bytes)| ClientFrame::Allow {
                capability,
                max_envelopes,
                max_bytes,
            }
        ),
        hash().prop_map(|capability| ClientFrame::Revoke { capability }),
        Just(ClientFrame::CloseMailbox),
    ]
}

fn relay_frame() -> impl Strategy<Value = RelayFrame> {
    let envelope = (0..ENVELOPE_BYTES.len(), any::<u8>())
        .prop_map(|(size, byte)| Envelope::from_bytes(vec![byte; ENVELOPE_BYTES[size]].into()).unwrap());
    let reason = (1..=8u8).prop_map(|code| Reason::from_code(code).unwrap());
    prop_oneof![
        (any::<u16>(), any::<[u8; 32]>()).prop_map(|(version, nonce)| RelayFrame::Challenge { version, nonce }),
        (any::<u16>(), any::<u32>()).prop_map(|(version, window_envelopes)| RelayFrame::Welcome {
            version,
            window_envelopes
        }),
        (any::<[u8; 16]>(), 1..=2u8).prop_map(|(id, how)| RelayFrame::Stored {
            id,
            how: Stored::from_code(how).unwrap()
        }),
        (any::<[u8; 16]>(), reason, any::<u32>()).prop_map(|(id, reason, retry_after_ms)| {
            RelayFrame::Refused {
                id,
                reason,
                retry_after_ms,
            }
        }),
        (1..=u64::MAX, 0..=TIME_MAX, envelope).prop_map(|(sequence, received, envelope)| {
            RelayFrame::Deliver {
                sequence,
                received,
                envelope,
            }
        }),
        Just(RelayFrame::Displaced),
        prop_oneof![
            hash().prop_map(Done::Allow),
            hash().prop_map(Done::Revoke),
            Just(Done::CloseMailbox)
        ]
        .prop_map(RelayFrame::Done),
        (1..=u64::MAX, any::<u64>())
            .prop_map(|(next_sequence, waiting)| RelayFrame::Reading { next_sequence, waiting }),
        any::<u32>().prop_map(|retry_after_ms| RelayFrame::Goodbye { retry_after_ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_frame_comes_back_as_it_went(frame in client_frame()) {
        prop_assert_eq!(ClientFrame::decode(frame.encode()), Ok(frame));
    }

    /// The ways that read from somebody else's buffer take the same frames for the same.
    #[test]
    fn a_frame_in_a_borrowed_buffer_is_the_same(frame in client_frame(), cut in 0..64_usize) {
        let bytes = frame.encode();
        let put = if let ClientFrame::Put(put) = &frame { Some(put.clone()) } else { None };
        prop_assert_eq!(Put::decode_borrowed(&bytes).unwrap(), put);
        let sequence = if let ClientFrame::Ack { sequence } = &frame { Some(*sequence) } else { None };
        prop_assert_eq!(ClientFrame::acknowledges(&bytes), sequence);
        if sequence.is_some() {
            let part = bytes.get(..cut).filter(|part| part.len() < bytes.len());
            prop_assert_eq!(part.and_then(ClientFrame::acknowledges), None);
            prop_assert_eq!(ClientFrame::acknowledges(&[&bytes[..], &[0]].concat()), None);
        }
    }

    #[test]
    fn a_relay_frame_comes_back_as_it_went(frame in relay_frame()) {
        prop_assert_eq!(RelayFrame::decode(frame.encode()), Ok(frame));
    }

    #[test]
    fn what_decodes_has_one_spelling(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..=0x10u8, relay in any::<bool>()) {
        // Most random types are unknown: steer half of the tries to known ones.
        if let Some(first) = bytes.first_mut() && kind <= 0x0a {
            *first = if relay { 0x80 | kind } else { kind };
        }
        let bytes = Bytes::from(bytes);
        if let Ok(frame) = ClientFrame::decode(bytes.clone()) {
            prop_assert_eq!(frame.encode(), bytes.clone());
        }
        if let Ok(frame) = RelayFrame::decode(bytes.clone()) {
            prop_assert_eq!(frame.encode(), bytes);
        }
    }
}
