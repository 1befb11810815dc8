//! What members of a group say to each other: the application data of an MLS message (PROTOCOL.md 12). Decoding says
//! that the bytes are well formed, nothing more: statements are still [`Signed`], a checkpoint is still text. Not
//! here: the group itself and who may send what (the client), what entries mean (`replay`).

use wire::envelope::EnvelopeKey;

use crate::change::Change;
use crate::checkpoint::MAX_CHECKPOINT;
use crate::fields::{Malformed, Reader, Writer};
use crate::scalar::{Digest, Id16, Text};
use crate::statement::{Signed, StatementError};

/// Bytes of a channel message: with the group's own bytes it fits the largest envelope.
pub const MESSAGE_BYTES: usize = 64_000;

const ENTRIES: u8 = 1;
const DECISION: u8 = 2;
const ACK: u8 = 3;
const REFUSAL: u8 = 4;
const PROPOSE: u8 = 5;
const ADDRESS: u8 = 6;
const REVOCATION: u8 = 7;

/// Why a channel message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Longer than [`MESSAGE_BYTES`].
    #[error("channel message too large")]
    TooLarge,
    /// Not the fields of a message of this version.
    #[error("malformed channel message")]
    Malformed,
    /// A statement in it isn't one.
    #[error("statement in a channel message: {0}")]
    Statement(#[from] StatementError),
}

impl From<Malformed> for MessageError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A channel message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the gate: a part of the transcript, and the log's head behind it.
    Entries {
        /// The index of the first entry.
        first: u64,
        /// The checkpoint of the log up to and including the last entry here (PROTOCOL.md 10.2), not yet verified.
        checkpoint: String,
        /// The entries; none for a bare head.
        leaves: Vec<Signed>,
    },
    /// From a device: an answer.
    Decision(Signed),
    /// From a device: what it has.
    Ack {
        /// The epoch of its group.
        epoch: u64,
        /// The checkpoint of all that it has, as the gate signed it; none while it has nothing.
        checkpoint: Option<String>,
    },
    /// From the gate: why a decision or proposal isn't taken.
    Refusal {
        /// The digest of what is refused.
        about: Digest,
        /// Why.
        code: RefusalCode,
        /// The same in words.
        text: Text,
    },
    /// From a device: a change of roster that it would like.
    Propose {
        /// Drawn by the device, so that sending it again doesn't propose it twice.
        id: Id16,
        /// The change.
        change: Change,
    },
    /// From either: where to seal to from now on.
    Address {
        /// The sender's new envelope key.
        envelope_key: EnvelopeKey,
    },
    /// From a device: a grant is taken back.
    Revocation(Signed),
}

/// Why the gate doesn't take a decision, a revocation or a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// Already permitted, decided or expired; no such grant, or revoked already.
    NotOpen,
    /// The signer is no admin's device.
    NotAdmin,
    /// Malformed, or its checkpoint is unusable.
    Malformed,
    /// The gate can't sign.
    CannotSign,
    /// The change can't be made.
    CannotChange,
    /// Not a refusal: the proposal became the request whose digest is the text.
    Taken,
}

impl RefusalCode {
    /// The number that stands for it on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::NotOpen => 1,
            Self::NotAdmin => 2,
            Self::Malformed => 3,
            Self::CannotSign => 4,
            Self::CannotChange => 5,
            Self::Taken => 6,
        }
    }

    fn from_number(number: u8) -> Result<Self, Malformed> {
        let all = [
            Self::NotOpen,
            Self::NotAdmin,
            Self::Malformed,
            Self::CannotSign,
            Self::CannotChange,
            Self::Taken,
        ];
        all.into_iter().find(|code| code.number() == number).ok_or(Malformed)
    }
}

impl Message {
    /// The bytes.
    ///
    /// # Errors
    /// [`MessageError::TooLarge`], also where a field is longer than its length can say.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let mut bytes = Writer::default();
        self.write(&mut bytes).map_err(|_| MessageError::TooLarge)?;
        let bytes = bytes.finish();
        if bytes.len() > MESSAGE_BYTES {
            Err(MessageError::TooLarge)
        } else {
            Ok(bytes)
        }
    }

    fn write(&self, bytes: &mut Writer) -> Result<(), Malformed> {
        match self {
            Self::Entries {
                first,
                checkpoint,
                leaves,
            } => {
                let count = u16::try_from(leaves.len()).map_err(|_| Malformed)?;
                bytes.u8(ENTRIES).u64(*first).var16(checkpoint.as_bytes())?.u16(count);
                for leaf in leaves {
                    bytes.var32(leaf.as_bytes())?;
                }
            }
            Self::Decision(signed) => {
                bytes.u8(DECISION).var32(signed.as_bytes())?;
            }
            Self::Ack { epoch, checkpoint } => {
                let checkpoint = checkpoint.as_deref().unwrap_or_default();
                bytes.u8(ACK).u64(*epoch).var16(checkpoint.as_bytes())?;
            }
            Self::Refusal { about, code, text } => {
                let text = text.as_untrusted().as_bytes();
                bytes.u8(REFUSAL).raw(about.as_bytes()).u8(code.number()).var16(text)?;
            }
            Self::Propose { id, change } => {
                let change = serde_json::to_vec(change).map_err(|_| Malformed)?;
                bytes.u8(PROPOSE).raw(&id.0).var16(&change)?;
            }
            Self::Address { envelope_key } => {
                bytes.u8(ADDRESS).raw(envelope_key.as_bytes());
            }
            Self::Revocation(signed) => {
                bytes.u8(REVOCATION).var32(signed.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_BYTES {
            return Err(MessageError::TooLarge);
        }
        let mut fields = Reader::new(bytes);
        let message = match fields.u8()? {
            ENTRIES => entries(&mut fields)?,
            DECISION => Self::Decision(Signed::parse(fields.var32()?)?),
            ACK => ack(&mut fields)?,
            REFUSAL => Self::Refusal {
                about: Digest(fields.array()?),
                code: RefusalCode::from_number(fields.u8()?)?,
                text: Text::new(text(fields.var16()?)?).map_err(|_| Malformed)?,
            },
            PROPOSE => Self::Propose {
                id: Id16(fields.array()?),
                change: serde_json::from_slice(fields.var16()?).map_err(|_| Malformed)?,
            },
            ADDRESS => Self::Address {
                envelope_key: EnvelopeKey::from_bytes(fields.array()?).map_err(|_| Malformed)?,
            },
            REVOCATION => Self::Revocation(Signed::parse(fields.var32()?)?),
            _ => return Err(MessageError::Malformed),
        };
        fields.end()?;
        Ok(message)
    }
}

/// How many of these leaves, from the first on, fit one `entries` message: the gate signs the checkpoint for as many.
pub fn fitting(leaves: &[Signed]) -> usize {
    // Kind, first, checkpoint with its length, count.
    let mut used = 1 + 8 + 2 + MAX_CHECKPOINT + 2;
    let fits = |leaf: &&Signed| {
        used += 4 + leaf.as_bytes().len();
        used <= MESSAGE_BYTES
    };
    leaves.iter().take(usize::from(u16::MAX)).take_while(fits).count()
}

fn entries(fields: &mut Reader<'_>) -> Result<Message, MessageError> {
    let first = fields.u64()?;
    let checkpoint = text(fields.var16()?)?;
    let count = fields.u16()?;
    // Grows as the bytes are there: a count alone reserves nothing.
    let mut leaves = Vec::new();
    for _ in 0..count {
        leaves.push(Signed::parse(fields.var32()?)?);
    }
    Ok(Message::Entries {
        first,
        checkpoint,
        leaves,
    })
}

fn ack(fields: &mut Reader<'_>) -> Result<Message, MessageError> {
    let epoch = fields.u64()?;
    let checkpoint = text(fields.var16()?)?;
    Ok(Message::Ack {
        epoch,
        checkpoint: Some(checkpoint).filter(|checkpoint| !checkpoint.is_empty()),
    })
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use proptest::prelude::*;

    use crate::decision::Answer;
    use crate::sample::*;

    fn all() -> Vec<Message> {
        let team = team();
        let request = request(&team);
        let leaves = vec![
            genesis().signed().clone(),
            team.signed().clone(),
            request.signed().clone(),
        ];
        vec![
            Message::Entries {
                first: 0,
                checkpoint: checkpoint(3),
                leaves,
            },
            Message::Entries {
                first: 3,
                checkpoint: checkpoint(3),
                leaves: Vec::new(),
            },
            Message::Decision(decision(ALICE, &request, Answer::Approve).signed().clone()),
            Message::Ack {
                epoch: 1,
                checkpoint: Some(checkpoint(3)),
            },
            Message::Ack {
                epoch: 1,
                checkpoint: None,
            },
            Message::Refusal {
                about: request.digest(),
                code: RefusalCode::NotOpen,
                text: Text::cut("too late"),
            },
            Message::Propose {
                id: Id16([4; 16]),
                change: Change::RemovePerson("bob".parse().unwrap()),
            },
            Message::Address {
                envelope_key: address(9).envelope_key,
            },
            Message::Revocation(revocation(BOB, &grant(&team, &request, &[], &terms())).signed().clone()),
            Message::Propose {
                id: Id16([5; 16]),
                change: Change::Policy(Some(policy())),
            },
        ]
    }

    #[test]
    fn every_message_comes_back() {
        for message in all() {
            assert_eq!(Message::decode(&message.encode().unwrap()).unwrap(), message);
        }
    }

    #[test]
    fn a_message_that_is_cut_or_longer_is_refused() {
        for message in all() {
            let bytes = message.encode().unwrap();
            for length in 0..bytes.len() {
                assert!(Message::decode(&bytes[..length]).is_err());
            }
            assert_eq!(
                Message::decode(&[bytes.as_slice(), &[0]].concat()),
                Err(MessageError::Malformed)
            );
        }
    }

    /// Abuse case A13.
    #[test]
    fn unknown_kinds_and_codes_are_refused() {
        assert_eq!(Message::decode(&[0]), Err(MessageError::Malformed));
        assert_eq!(Message::decode(&[8]), Err(MessageError::Malformed));
        for code in [0, 7] {
            let refusal = [&[REFUSAL], &[0; 32][..], &[code], &[0, 0]].concat();
            assert_eq!(Message::decode(&refusal), Err(MessageError::Malformed));
        }
        for code in 1..=6 {
            let refusal = [&[REFUSAL], &[0; 32][..], &[code], &[0, 0]].concat();
            assert_eq!(Message::decode(&refusal).unwrap().encode().unwrap(), refusal);
        }
    }

    #[test]
    fn a_count_without_its_leaves_is_refused() {
        let bytes = [&[ENTRIES], &[0; 8][..], &[0, 0], &[0xff, 0xff]].concat();
        assert_eq!(Message::decode(&bytes), Err(MessageError::Malformed));
    }

    #[test]
    fn a_leaf_that_is_no_statement_is_refused() {
        let bytes = [&[ENTRIES], &[0; 8][..], &[0, 0], &[0, 1], &[0, 0, 0, 2], b"{}"].concat();
        assert!(matches!(Message::decode(&bytes), Err(MessageError::Statement(_))));
    }

    #[test]
    fn the_bound_is_exact() {
        let zeros = |length: usize| Message::decode(&vec![0; length]);
        assert_eq!(zeros(MESSAGE_BYTES), Err(MessageError::Malformed));
        assert_eq!(zeros(MESSAGE_BYTES + 1), Err(MessageError::TooLarge));
        let text = Message::Refusal {
            about: Digest([0; 32]),
            code: RefusalCode::Malformed,
            text: Text::cut(&"a".repeat(1024)),
        };
        assert_eq!(Message::decode(&text.encode().unwrap()), Ok(text));
        let longer = [&[REFUSAL], &[0; 32][..], &[3], &[4, 1], &[b'a'; 1025]].concat();
        assert_eq!(Message::decode(&longer), Err(MessageError::Malformed));
    }

    #[test]
    fn what_fits_can_be_encoded_and_one_more_cannot() {
        let leaves = vec![request(&team()).signed().clone(); 200];
        let count = fitting(&leaves);
        assert!(count > 1 && count < 200);
        let message = |count: usize| Message::Entries {
            first: 0,
            checkpoint: "c".repeat(MAX_CHECKPOINT),
            leaves: leaves[..count].to_vec(),
        };
        assert!(message(count).encode().is_ok());
        assert_eq!(message(count + 1).encode(), Err(MessageError::TooLarge));
    }

    #[test]
    fn the_largest_statement_fits() {
        let mut payload = payload_of(&device(ALICE));
        payload.push_str(&" ".repeat(crate::statement::PAYLOAD_BYTES - payload.len()));
        let largest = Signed::parse(dsse(ALICE, "device", payload.as_bytes()).as_bytes()).unwrap();
        assert_eq!(fitting(std::slice::from_ref(&largest)), 1);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(kind in 0u8..9, bytes: Vec<u8>) {
            let _ = Message::decode(&[&[kind], bytes.as_slice()].concat());
        }

        #[test]
        fn a_damaged_message_never_panics(which in 0usize..10, at: usize, byte: u8) {
            let mut bytes = all()[which].encode().unwrap();
            let index = at % bytes.len();
            bytes[index] = byte;
            let _ = Message::decode(&bytes);
        }
    }
}
