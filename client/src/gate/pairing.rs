//! The gate's side of letting a device in (PROTOCOL.md section 13): one task for each invite, from the link to the person's
//! confirmation. What becomes of the confirmed device is in `admission`.

use rand_core::OsRng;
use tokio::sync::{mpsc, watch};

use approval::invite::{Invite, InviteSecret};
use approval::pairing::{self, Address, Challenge, Join, Pairing, Reveal};
use approval::roster::{Quorum, Role};
use approval::{Name, RelayUrl, Text, Time};
use wire::envelope::{Content, EnvelopeKey, EnvelopeSecret};
use wire::identity::PartyId;
use wire::mailbox::{Capability, MailboxId, MailboxKey};

use super::Event;
use super::admission::{Admission, Admitted};
use crate::channel::{Leaf, check_key_package};
use crate::clock::wall;
use crate::link::{self, LinkEvent, LinkHandle};
use crate::local::{Answer, Fault};
use crate::party::{PEER_BYTES, PEER_ENVELOPES, random16};

/// What the relay keeps of a pairing's messages, in seconds: as long as an invite lives.
const TTL_SECONDS: u32 = 10 * 60;

/// Longest life of an invite, in minutes.
const MAX_MINUTES: u64 = 10;

/// What a pairing needs to know of the gate.
#[derive(Clone)]
pub(crate) struct Seed {
    pub(super) gate: PartyId,
    pub(super) relay: String,
    pub(super) mailbox: MailboxId,
    pub(super) envelope_key: watch::Receiver<EnvelopeKey>,
}

fn fault(kind: Fault, message: impl std::fmt::Display) -> Answer {
    Answer::Error {
        kind,
        message: message.to_string(),
        hint: None,
    }
}

/// What an invite is asked to be.
pub(super) struct Wish {
    pub(super) person: String,
    pub(super) role: Role,
    pub(super) minutes: u64,
    pub(super) quorum: Option<Quorum>,
}

/// Runs one invite for a local program: link, code, confirmation, admission. Ends when the program goes away.
pub(super) async fn invite(
    seed: Seed,
    main: LinkHandle,
    events: mpsc::Sender<Event>,
    wish: Wish,
    answers: mpsc::Sender<Answer>,
    mut confirms: mpsc::Receiver<bool>,
) {
    let key = MailboxKey::generate(&mut OsRng);
    let (link, mut incoming) = link::spawn(&seed.relay, MailboxKey::from_bytes(&key.to_bytes()));
    let ended = Inviting {
        seed,
        main,
        link: link.clone(),
        key,
        secret: EnvelopeSecret::generate(&mut OsRng),
        events,
    }
    .run(wish, &answers, &mut incoming, &mut confirms)
    .await;
    if let Err(answer) = ended {
        drop(answers.send(*answer).await);
    }
    // The invite's mailbox dies with the invite, used or not.
    link.close_mailbox().await;
    link.finish().await;
}

struct Inviting {
    seed: Seed,
    main: LinkHandle,
    link: LinkHandle,
    key: MailboxKey,
    secret: EnvelopeSecret,
    events: mpsc::Sender<Event>,
}

type Ended<T> = Result<T, Box<Answer>>;

impl Inviting {
    async fn run(
        &self,
        wish: Wish,
        answers: &mpsc::Sender<Answer>,
        incoming: &mut mpsc::Receiver<LinkEvent>,
        confirms: &mut mpsc::Receiver<bool>,
    ) -> Ended<()> {
        let invite = self.offer(&wish)?;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(wish.minutes * 60);
        self.open_mailbox(&invite, incoming, deadline).await?;
        let said = Answer::Invite {
            link: invite.link().to_string(),
            expires: invite.expires.millis(),
        };
        answers
            .send(said)
            .await
            .map_err(|_| fault(Fault::Invalid, "whoever invited has left"))?;

        let (join_bytes, join) = self.joined(&invite, incoming, answers, deadline).await?;
        let leaf = Leaf {
            party: join.device.party,
            leaf: join.device.leaf.0,
        };
        check_key_package(&join.key_package, &leaf)
            .map_err(|error| fault(Fault::Invalid, format!("the device's key package: {error}")))?;
        let capability = Capability::generate(&mut OsRng);
        let issued = capability.hash();
        self.main.allow(issued, PEER_ENVELOPES, PEER_BYTES).await;
        let address = Address {
            mailbox: self.seed.mailbox,
            envelope_key: *self.seed.envelope_key.borrow(),
            capability,
        };
        let challenge = Challenge {
            nonce: random16(),
            address,
        };
        let sealed = challenge
            .seal(&invite, &join_bytes)
            .map_err(|error| fault(Fault::Invalid, error))?;
        self.send(&join.address, &sealed).await?;

        let (reveal_bytes, reveal) = self
            .revealed(&invite, &join, &sealed, incoming, answers, deadline)
            .await?;
        let code = pairing::short_code(&join_bytes, &sealed, &reveal.nonce);
        let shown = Answer::Code {
            code: code.to_string(),
            device: join.device.name.to_string(),
            party: join.device.party.to_string(),
        };
        answers
            .send(shown)
            .await
            .map_err(|_| fault(Fault::Invalid, "whoever invited has left"))?;
        let confirmed = tokio::time::timeout_at(deadline, confirms.recv())
            .await
            .ok()
            .flatten()
            .unwrap_or(false);
        let answer = |verdict, text: &str| {
            pairing::Answer {
                verdict,
                text: Text::cut(text),
            }
            .seal(&invite, &reveal_bytes)
            .map_err(|error| Box::new(fault(Fault::Invalid, error)))
        };
        let refusal = answer(Pairing::Refused, "refused")?;
        if !confirmed {
            self.send(
                &join.address,
                &answer(Pairing::Refused, "the codes were not confirmed at the gate")?,
            )
            .await?;
            self.main.revoke(issued).await;
            return Err(Box::new(fault(
                Fault::Refused,
                "not confirmed: the invite is dead, nothing was added",
            )));
        }

        let (done, mut outcome) = mpsc::channel(1);
        let person = invite.person.clone();
        let address = join.address.clone();
        let admission = Admission {
            person: person.clone(),
            role: wish.role,
            quorum: wish.quorum,
            device: join.device,
            key_package: join.key_package,
            address: join.address,
            issued,
            refusal,
            done,
        };
        self.events
            .send(Event::Admit(Box::new(admission)))
            .await
            .map_err(|_| fault(Fault::Broken, "the gate is shutting down"))?;
        let (sealed, last) = match outcome.recv().await {
            Some(Admitted::In { epoch }) => (
                answer(Pairing::Confirmed, "")?,
                Answer::Joined {
                    person: person.to_string(),
                    epoch,
                },
            ),
            Some(Admitted::Waiting { request, need }) => (
                answer(
                    Pairing::Waiting,
                    &format!(
                        "{} must approve request {}",
                        crate::show::persons(need),
                        request.short()
                    ),
                )?,
                Answer::Proposed {
                    id: request.to_string(),
                    need,
                },
            ),
            Some(Admitted::Refused(why)) => (answer(Pairing::Refused, &why)?, fault(Fault::Refused, why)),
            None => (
                answer(Pairing::Refused, "the gate can't keep it")?,
                fault(Fault::Broken, "the gate couldn't keep the new device"),
            ),
        };
        self.send(&address, &sealed).await?;
        drop(answers.send(last).await);
        // The last message goes out before the connection ends.
        self.flushed(incoming).await;
        Ok(())
    }

    fn offer(&self, wish: &Wish) -> Ended<Invite> {
        if wish.minutes == 0 || wish.minutes > MAX_MINUTES {
            return Err(Box::new(fault(
                Fault::Invalid,
                format!("an invite lives 1 to {MAX_MINUTES} minutes"),
            )));
        }
        let person: Name = wish
            .person
            .parse()
            .map_err(|error| fault(Fault::Invalid, format!("the person's name: {error}")))?;
        let relay: RelayUrl = self
            .seed
            .relay
            .parse()
            .map_err(|error| fault(Fault::Invalid, format!("the relay's url: {error}")))?;
        let expires = Time::of_clock(wall().saturating_add(wish.minutes * 60_000));
        Ok(Invite {
            role: wish.role,
            expires,
            secret: InviteSecret::from_bytes(random16()),
            gate: self.seed.gate,
            mailbox: self.key.id(),
            envelope_key: self.secret.key(),
            person,
            relay,
        })
    }

    /// Opens the invite's own mailbox at the relay; only then is there something to hand over.
    async fn open_mailbox(
        &self,
        invite: &Invite,
        incoming: &mut mpsc::Receiver<LinkEvent>,
        deadline: tokio::time::Instant,
    ) -> Ended<()> {
        loop {
            let event = tokio::time::timeout_at(deadline, incoming.recv()).await.ok().flatten();
            match event.ok_or_else(|| fault(Fault::Broken, "the relay can't be reached"))? {
                LinkEvent::Connected => self.link.allow(invite.capability().hash(), 8, 512 * 1024).await,
                LinkEvent::Allowed(_) => {
                    self.link.read().await;
                    return Ok(());
                }
                LinkEvent::Disconnected { reason } => {
                    return Err(Box::new(fault(
                        Fault::Broken,
                        format!("the relay can't be reached: {reason}"),
                    )));
                }
                _ => {}
            }
        }
    }

    /// The first join that this invite authenticates ends it for all others, whatever becomes of it.
    async fn joined(
        &self,
        invite: &Invite,
        incoming: &mut mpsc::Receiver<LinkEvent>,
        answers: &mpsc::Sender<Answer>,
        deadline: tokio::time::Instant,
    ) -> Ended<(Vec<u8>, Join)> {
        loop {
            let message = self.message(incoming, answers, deadline).await?;
            let now = Time::of_clock(wall());
            match Join::open(&message, invite, now) {
                Ok(join) => return Ok((message, join)),
                // A stranger without the secret: not this invite's end.
                Err(pairing::PairingError::Unauthentic) => {}
                Err(error) => {
                    return Err(Box::new(fault(
                        Fault::Refused,
                        format!("the device's answer: {error}; the invite is dead"),
                    )));
                }
            }
        }
    }

    async fn revealed(
        &self,
        invite: &Invite,
        join: &Join,
        challenge: &[u8],
        incoming: &mut mpsc::Receiver<LinkEvent>,
        answers: &mpsc::Sender<Answer>,
        deadline: tokio::time::Instant,
    ) -> Ended<(Vec<u8>, Reveal)> {
        loop {
            let message = self.message(incoming, answers, deadline).await?;
            match Reveal::open(&message, invite, join, challenge) {
                Ok(reveal) => return Ok((message, reveal)),
                Err(pairing::PairingError::Unauthentic) => {}
                Err(error) => {
                    return Err(Box::new(fault(
                        Fault::Refused,
                        format!("the device's answer: {error}; the invite is dead"),
                    )));
                }
            }
        }
    }

    async fn message(
        &self,
        incoming: &mut mpsc::Receiver<LinkEvent>,
        answers: &mpsc::Sender<Answer>,
        deadline: tokio::time::Instant,
    ) -> Ended<Vec<u8>> {
        loop {
            let event = tokio::select! {
                event = tokio::time::timeout_at(deadline, incoming.recv()) => event,
                () = answers.closed() => return Err(Box::new(fault(Fault::Refused, "whoever invited has left"))),
            };
            match event
                .map_err(|_| fault(Fault::Refused, "the invite has expired"))?
                .ok_or_else(|| fault(Fault::Broken, "the link ended"))?
            {
                LinkEvent::Connected => self.link.read().await,
                LinkEvent::Delivered { sequence, envelope } => {
                    self.link.ack(sequence).await;
                    if let Ok((Content::Pairing, message)) =
                        wire::envelope::open(&self.secret, &self.key.id(), &envelope)
                    {
                        return Ok(message.to_vec());
                    }
                }
                _ => {}
            }
        }
    }

    async fn send(&self, to: &Address, message: &[u8]) -> Ended<()> {
        let envelope = wire::envelope::seal(&to.envelope_key, &to.mailbox, Content::Pairing, message, &mut OsRng)
            .map_err(|error| fault(Fault::Invalid, error))?;
        self.link
            .put(random16(), &to.mailbox, &to.capability, TTL_SECONDS, envelope)
            .await;
        Ok(())
    }

    async fn flushed(&self, incoming: &mut mpsc::Receiver<LinkEvent>) {
        let stored = async {
            while let Some(event) = incoming.recv().await {
                if matches!(event, LinkEvent::Stored { .. } | LinkEvent::Refused { .. }) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), stored).await;
    }
}
