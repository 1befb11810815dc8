//! The rows of those whom this party can write to: their address, and what they acknowledged. What is on its way to them is in the outbox.

use sqlx::Row;

use wire::envelope::EnvelopeKey;
use wire::identity::PartyId;
use wire::mailbox::{Capability, CapabilityHash, MailboxId};

use super::{Outgoing, StoreError, Tx, fixed, to_i64, to_u64};

/// Somebody whom this party can write to.
#[derive(Clone)]
pub struct Peer {
    /// Their identity.
    pub party: PartyId,
    /// Where their envelopes go.
    pub mailbox: MailboxId,
    /// What their envelopes are sealed to.
    pub envelope_key: EnvelopeKey,
    /// Lets us write to their mailbox.
    pub capability: Capability,
    /// Hash of the capability that lets them write to ours.
    pub issued: CapabilityHash,
    /// The transcript size that they last acknowledged, in entries.
    pub acked_size: u64,
    /// The MLS epoch that they last acknowledged.
    pub acked_epoch: u64,
    /// When they were last heard of, wall time in ms; 0 for never.
    pub heard: u64,
}

impl Tx {
    /// Everybody whom we can write to.
    pub async fn peers(&mut self) -> Result<Vec<Peer>, StoreError> {
        let rows = sqlx::query("SELECT party, mailbox, envelope_key, capability, issued, acked_size, acked_epoch, heard FROM peer ORDER BY party")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Peer {
                    party: PartyId::from_bytes(fixed(row.get(0), "a party")?)
                        .map_err(|_| StoreError::Row { what: "a party" })?,
                    mailbox: MailboxId::from_bytes(fixed(row.get(1), "a mailbox")?)
                        .map_err(|_| StoreError::Row { what: "a mailbox" })?,
                    envelope_key: EnvelopeKey::from_bytes(fixed(row.get(2), "an envelope key")?).map_err(|_| {
                        StoreError::Row {
                            what: "an envelope key",
                        }
                    })?,
                    capability: Capability::from_bytes(&fixed(row.get(3), "a capability")?),
                    issued: CapabilityHash::from_bytes(fixed(row.get(4), "a capability")?),
                    acked_size: to_u64(row.get(5)),
                    acked_epoch: to_u64(row.get(6)),
                    heard: to_u64(row.get(7)),
                })
            })
            .collect()
    }

    /// Notes that a peer seals to our newest envelope key.
    pub async fn follows(&mut self, party: &PartyId) -> Result<(), StoreError> {
        sqlx::query("UPDATE peer SET follows = 1 WHERE party = ?")
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Notes that a peer may know an older envelope key than our newest.
    pub async fn straggles(&mut self, party: &PartyId) -> Result<(), StoreError> {
        sqlx::query("UPDATE peer SET follows = 0 WHERE party = ?")
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Notes that our envelope key is new: nobody has been seen using it.
    pub async fn nobody_follows(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE peer SET follows = 0")
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The peers that haven't been seen using our newest envelope key.
    pub async fn stragglers(&mut self) -> Result<Vec<Peer>, StoreError> {
        let rows = sqlx::query("SELECT party FROM peer WHERE follows = 0")
            .fetch_all(&mut *self.inner)
            .await?;
        let behind: Vec<Vec<u8>> = rows.into_iter().map(|row| row.get(0)).collect();
        Ok(self
            .peers()
            .await?
            .into_iter()
            .filter(|peer| behind.iter().any(|party| party == peer.party.as_bytes()))
            .collect())
    }

    /// One peer.
    pub async fn peer(&mut self, party: &PartyId) -> Result<Option<Peer>, StoreError> {
        Ok(self.peers().await?.into_iter().find(|peer| peer.party == *party))
    }

    /// Adds or replaces a peer.
    pub async fn set_peer(&mut self, peer: &Peer) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO peer (party, mailbox, envelope_key, capability, issued, acked_size, acked_epoch, heard) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (party) DO UPDATE SET mailbox = excluded.mailbox, envelope_key = excluded.envelope_key, capability = excluded.capability, \
             issued = excluded.issued, acked_size = excluded.acked_size, acked_epoch = excluded.acked_epoch, heard = excluded.heard",
        )
            .bind(&peer.party.as_bytes()[..])
            .bind(&peer.mailbox.as_bytes()[..])
            .bind(&peer.envelope_key.as_bytes()[..])
            .bind(&peer.capability.to_bytes()[..])
            .bind(&peer.issued.as_bytes()[..])
            .bind(to_i64(peer.acked_size))
            .bind(to_i64(peer.acked_epoch))
            .bind(to_i64(peer.heard))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Forgets a peer. What is on its way to them stays until the relay has it: it is how they learn that they were removed.
    pub async fn remove_peer(&mut self, party: &PartyId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM peer WHERE party = ?")
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("UPDATE outbox SET kind = ? WHERE party = ?")
            .bind(Outgoing::Fleeting.code())
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
