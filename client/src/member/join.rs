//! The device's side of being let in (PROTOCOL.md section 13): from the link to the short code and the gate's answer. What
//! has begun is in the database, so that it goes on after a restart; being in is a matter of the group and the roster.

use rand_core::OsRng;
use serde::{Deserialize, Serialize};

use approval::device::Device;
use approval::invite::{Invite, InviteError};
use approval::pairing::{self, Address, Answer, Challenge, Join, Reveal, commitment};
use approval::scalar::LeafKey;
use approval::{Name, Time, sign};
use wire::envelope::{Content, EnvelopeSecret};
use wire::mailbox::{Capability, MailboxKey};

use super::work::Batch;
use super::{Member, Notice};
use crate::channel::key_package;
use crate::clock::wall;
use crate::home::Home;
use crate::party::{Birth, Kind, Party, PartyError, Turn, random16};
use crate::store::{Outgoing, PairingRow, Peer};

/// Why joining can't begin.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The link.
    #[error("{0}")]
    Invite(#[from] InviteError),
    /// Too late.
    #[error("the invite has expired")]
    Expired,
    /// The device's name.
    #[error("the device's name: {0}")]
    Name(approval::scalar::ScalarError),
    /// Folder, database, keys.
    #[error(transparent)]
    Party(#[from] PartyError),
    /// A message can't be made.
    #[error("{0}")]
    Pairing(#[from] pairing::PairingError),
}

/// What joining leads to, for the person to see before anything is sent.
pub struct Begun {
    /// The invite as the link has it.
    pub invite: Invite,
}

/// Where a pairing is, as stored.
#[derive(Serialize, Deserialize)]
struct State {
    link: String,
    nonce: [u8; 16],
    join: Vec<u8>,
    issued: [u8; 32],
    challenge: Option<Vec<u8>>,
    reveal: Option<Vec<u8>>,
    answered: bool,
}

impl Begun {
    /// Reads a link. Nothing is made or sent yet.
    pub fn read(link: &str) -> Result<Self, JoinError> {
        let invite = Invite::parse(link.trim())?;
        let now = Time::of_clock(wall());
        if invite.expired(now) {
            return Err(JoinError::Expired);
        }
        Ok(Self { invite })
    }

    /// Makes the device's keys and its join request, and puts that on its way.
    pub async fn join(self, home: Home, device: &str) -> Result<Member, JoinError> {
        let name: Name = device.parse().map_err(JoinError::Name)?;
        let invite = self.invite;
        let birth = Birth {
            kind: Kind::Member,
            gate: Some(invite.gate),
            relay: invite.relay.as_str().to_owned(),
        };
        let party = Party::create(home, birth, async move |identity, leaf, tx| {
            let mut mls = tx.mls().await?;
            let key_package = key_package(&mut mls, leaf, identity.party())?;
            tx.save_mls(&mut mls).await?;
            let stored = |bytes: Option<Vec<u8>>| {
                bytes
                    .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                    .ok_or(PartyError::Lacks("the keys just made"))
            };
            let mailbox = MailboxKey::from_bytes(&stored(tx.meta("mailbox_key").await?)?).id();
            let envelope_key = EnvelopeSecret::from_bytes(&stored(tx.meta("envelope_key").await?)?).key();
            let capability = Capability::generate(&mut OsRng);
            let issued = capability.hash();
            tx.set_meta("issued", issued.as_bytes()).await?;
            let created = Time::of_clock(wall());
            let device = sign(
                identity,
                Device {
                    party: identity.party(),
                    leaf: LeafKey(leaf.public()),
                    name,
                    created,
                },
            )?;
            let nonce = random16();
            let join = Join {
                device,
                key_package,
                address: Address {
                    mailbox,
                    envelope_key,
                    capability,
                },
                commitment: commitment(&nonce),
            };
            let join = join.seal(&invite).map_err(PartyError::Pairing)?;
            let state = State {
                link: invite.link().to_string(),
                nonce,
                join: join.clone(),
                issued: *issued.as_bytes(),
                challenge: None,
                reveal: None,
                answered: false,
            };
            let state = serde_json::to_string(&state).map_err(|_| PartyError::Lacks("a pairing that can be stored"))?;
            tx.set_pairing(&PairingRow {
                mailbox: invite.mailbox,
                expires: invite.expires.millis(),
                state,
            })
            .await?;
            let to = inviter(&invite, issued);
            let envelope = wire::envelope::seal(&to.envelope_key, &to.mailbox, Content::Pairing, &join, &mut OsRng)?;
            let post = crate::store::NewPost {
                peer: &to,
                envelope: &envelope,
                kind: Outgoing::Fleeting,
                covers: 0,
                about: &[],
                question: &[],
            };
            tx.post(random16(), &post).await?;
            Ok(())
        })
        .await?;
        let mut member = Member::load(party).await?;
        member.connect()?;
        Ok(member)
    }
}

/// The invite's own mailbox, as somebody to write to.
fn inviter(invite: &Invite, issued: wire::mailbox::CapabilityHash) -> Peer {
    Peer {
        party: invite.gate,
        mailbox: invite.mailbox,
        envelope_key: invite.envelope_key,
        capability: invite.capability(),
        issued,
        acked_size: 0,
        acked_epoch: 0,
        heard: 0,
    }
}

impl Member {
    /// Takes the pairing on by one message. What doesn't fit where it is, is dropped.
    pub(super) async fn pairing_message(
        &mut self,
        turn: &mut Turn,
        batch: &mut Batch,
        message: &[u8],
    ) -> Result<(), PartyError> {
        for row in turn.tx.pairings().await? {
            let Ok(mut state) = serde_json::from_str::<State>(&row.state) else {
                continue;
            };
            let Ok(invite) = Invite::parse(&state.link) else {
                continue;
            };
            let issued = wire::mailbox::CapabilityHash::from_bytes(state.issued);
            if state.challenge.is_none() {
                let Ok(challenge) = Challenge::open(message, &invite, &state.join) else {
                    continue;
                };
                let Address {
                    mailbox,
                    envelope_key,
                    capability,
                } = challenge.address;
                let gate = Peer {
                    party: invite.gate,
                    mailbox,
                    envelope_key,
                    capability,
                    issued,
                    acked_size: 0,
                    acked_epoch: 0,
                    heard: 0,
                };
                turn.tx.set_peer(&gate).await?;
                let reveal = Reveal { nonce: state.nonce }
                    .seal(&invite, message)
                    .map_err(PartyError::Pairing)?;
                self.party
                    .post(
                        &mut turn.tx,
                        &inviter(&invite, issued),
                        Content::Pairing,
                        &reveal,
                        Outgoing::Fleeting,
                        0,
                    )
                    .await?;
                batch.notices.push(Notice::Code(
                    pairing::short_code(&state.join, message, &state.nonce).to_string(),
                ));
                state.challenge = Some(message.to_vec());
                state.reveal = Some(reveal);
            } else if let Some(reveal) = &state.reveal {
                let Ok(answer) = Answer::open(message, &invite, reveal) else {
                    continue;
                };
                state.answered = true;
                batch.notices.push(Notice::Answered(answer));
            }
            let state = serde_json::to_string(&state).map_err(|_| PartyError::Lacks("a pairing that can be stored"))?;
            turn.tx.set_pairing(&PairingRow { state, ..row }).await?;
        }
        Ok(())
    }
}
