//! A paired device on its way into the roster (PROTOCOL.md section 13): at once while there is no admin, else by a request that the admins answer,
//! while the device waits. How it was paired is in `pairing`.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use approval::device::Device;
use approval::pairing::Address;
use approval::roster::{Quorum, Role, Roster};
use approval::{Digest, Name, Signed, Verified};
use wire::envelope::{Content, EnvelopeKey};
use wire::identity::PartyId;
use wire::mailbox::{Capability, CapabilityHash, MailboxId};

use super::Gate;
use super::work::{Effect, Work};
use crate::party::PartyError;
use crate::store::{Outgoing, PairingRow, Peer};

/// A device that was paired and confirmed at the gate.
pub struct Admission {
    pub(super) person: Name,
    pub(super) role: Role,
    pub(super) quorum: Option<Quorum>,
    pub(super) device: Verified<Device>,
    pub(super) key_package: Vec<u8>,
    pub(super) address: Address,
    pub(super) issued: CapabilityHash,
    /// The sealed refusal, for the case that the admins say no much later.
    pub(super) refusal: Vec<u8>,
    pub(super) done: mpsc::Sender<Admitted>,
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
