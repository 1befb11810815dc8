//! The gate's side of letting a device in (PROTOCOL.md section 13): one task for each invite, from the link to the person's
//! confirmation. The roster is changed by the engine, at once while there is no admin, else by a request that the admins answer.

use rand_core::OsRng;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use approval::device::Device;
use approval::invite::{Invite, InviteSecret};
use approval::pairing::{self, Address, Challenge, Join, Pairing, Reveal};
use approval::roster::{Quorum, Role, Roster};
use approval::{Digest, Name, RelayUrl, Signed, Text, Time, Verified};
use wire::envelope::{Content, EnvelopeKey, EnvelopeSecret};
use wire::identity::PartyId;
use wire::mailbox::{Capability, CapabilityHash, MailboxId, MailboxKey};

use super::work::{Effect, Work};
use super::{Event, Gate};
use crate::channel::{Leaf, check_key_package};
use crate::clock::wall;
use crate::link::{self, LinkEvent, LinkHandle};
use crate::local::{Answer, Fault};
use crate::party::{PEER_BYTES, PEER_ENVELOPES, PartyError, random16};
use crate::store::{Outgoing, PairingRow, Peer};

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

/// A device that was paired and confirmed at the gate.
pub struct Admission {
    person: Name,
    role: Role,
    quorum: Option<Quorum>,
    device: Verified<Device>,
    key_package: Vec<u8>,
    address: Address,
    issued: CapabilityHash,
    /// The sealed refusal, for the case that the admins say no much later.
    refusal: Vec<u8>,
    done: mpsc::Sender<Admitted>,
}

/// How the engine took an admission.
#[derive(Clone, Debug)]
pub(super) enum Admitted {
    /// The device is in the roster.
    In { epoch: u32 },
    /// The admins must approve this request first.
    Waiting { request: Digest, need: u16 },
    /// It can't be.
    Refused(String),
}

/// A device that waits for the admins, as it is stored.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct WaitingDevice {
    request: Digest,
    device: Signed,
    key_package: Vec<u8>,
    mailbox: [u8; 32],
    envelope_key: [u8; 32],
    capability: [u8; 32],
    issued: [u8; 32],
    refusal: Vec<u8>,
}

impl WaitingDevice {
    pub(super) fn key_package(&self) -> &[u8] {
        &self.key_package
    }

    pub(super) fn issued(&self) -> CapabilityHash {
        CapabilityHash::from_bytes(self.issued)
    }

    pub(super) fn peer(&self) -> Result<Peer, PartyError> {
        const WHAT: PartyError = PartyError::Lacks("a readable address of a waiting device");
        let device = self.device.verify()?.device().ok_or(WHAT)?;
        Ok(Peer {
            party: device.party,
            mailbox: MailboxId::from_bytes(self.mailbox).map_err(|_| WHAT)?,
            envelope_key: EnvelopeKey::from_bytes(self.envelope_key).map_err(|_| WHAT)?,
            capability: Capability::from_bytes(&self.capability),
            issued: self.issued(),
            acked_size: 0,
            acked_epoch: 0,
            heard: 0,
        })
    }
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

impl Gate {
    /// Takes a confirmed device: into the roster at once while there is no admin, else to the admins.
    pub(super) async fn admit(&mut self, work: &mut Work, admission: &Admission) -> Result<(), PartyError> {
        let admitted = match self.try_admit(work, admission).await? {
            Ok(admitted) => admitted,
            Err(why) => Admitted::Refused(why),
        };
        work.effects.push(Effect::Admitted(admission.done.clone(), admitted));
        Ok(())
    }

    async fn try_admit(
        &mut self,
        work: &mut Work,
        admission: &Admission,
    ) -> Result<Result<Admitted, String>, PartyError> {
        if let Some(halted) = &self.halted {
            return Ok(Err(format!("the gate doesn't sign: {halted}")));
        }
        let roster = self.party.replay.roster().ok_or(PartyError::Lacks("a roster"))?;
        let mut contents =
            match roster
                .contents()
                .with_device(admission.person.clone(), admission.role, admission.device.clone())
            {
                Ok(contents) => contents,
                Err(error) => return Ok(Err(error.to_string())),
            };
        if let Some(quorum) = admission.quorum {
            contents = match contents.with(&approval::change::Change::Quorum(quorum)) {
                Ok(contents) => contents,
                Err(error) => return Ok(Err(error.to_string())),
            };
        }
        let enrolled = roster.is_enrolled();
        let mut device = WaitingDevice {
            request: Digest([0; 32]),
            device: admission.device.signed().clone(),
            key_package: admission.key_package.clone(),
            mailbox: *admission.address.mailbox.as_bytes(),
            envelope_key: *admission.address.envelope_key.as_bytes(),
            capability: *admission.address.capability.to_bytes(),
            issued: *admission.issued.as_bytes(),
            refusal: admission.refusal.clone(),
        };
        if !enrolled {
            self.keep_device(work, &device, u64::MAX >> 1).await?;
            let now = self.clock.now();
            self.change_roster(work, contents, None, now).await?;
            let epoch = self.party.replay.roster().map_or(0, |roster| roster.epoch);
            return Ok(Ok(Admitted::In { epoch }));
        }
        if self.party.replay.open().count() >= 64 {
            return Ok(Err("too many requests are pending".to_owned()));
        }
        let request = self.request_roster(work, contents, "operator").await?;
        device.request = request;
        let (expires, need) = self
            .party
            .replay
            .request(&request)
            .map_or((0, 0), |open| (open.request().expires.millis(), open.request().need));
        self.keep_device(work, &device, expires).await?;
        Ok(Ok(Admitted::Waiting { request, need }))
    }

    async fn keep_device(&self, work: &mut Work, device: &WaitingDevice, expires: u64) -> Result<(), PartyError> {
        let mailbox = MailboxId::from_bytes(device.mailbox).map_err(|_| PartyError::Lacks("a mailbox"))?;
        let state = serde_json::to_string(device).map_err(|_| PartyError::Lacks("a device that can be stored"))?;
        work.turn
            .tx
            .set_pairing(&PairingRow {
                mailbox,
                expires,
                state,
            })
            .await?;
        Ok(())
    }

    pub(super) async fn waiting_devices(&self, work: &mut Work) -> Result<Vec<WaitingDevice>, PartyError> {
        let rows = work.turn.tx.pairings().await?;
        rows.iter()
            .map(|row| serde_json::from_str(&row.state).map_err(|_| PartyError::Lacks("a readable waiting device")))
            .collect()
    }

    /// The waiting devices that a new roster lets in.
    pub(super) async fn newcomers(
        &self,
        work: &mut Work,
        next: &Verified<Roster>,
    ) -> Result<Vec<WaitingDevice>, PartyError> {
        let before = self.party.replay.roster();
        let known = |party: &PartyId| before.is_some_and(|roster| roster.person_of(party).is_some());
        let mut newcomers = Vec::new();
        for device in self.waiting_devices(work).await? {
            let party = device.peer()?.party;
            if next.person_of(&party).is_some() && !known(&party) {
                newcomers.push(device);
            }
        }
        Ok(newcomers)
    }

    /// A request ended without a permit: the device that waited for it is told, and forgotten.
    pub(super) async fn forget_device(&mut self, work: &mut Work, request: &Digest) -> Result<(), PartyError> {
        for device in self.waiting_devices(work).await? {
            if device.request == *request {
                let peer = device.peer()?;
                self.party
                    .post(
                        &mut work.turn.tx,
                        &peer,
                        Content::Pairing,
                        &device.refusal,
                        Outgoing::Fleeting,
                        0,
                    )
                    .await?;
                work.turn.tx.remove_pairing(&peer.mailbox).await?;
                work.effects.push(Effect::Revoke(peer.issued));
            }
        }
        Ok(())
    }
}
