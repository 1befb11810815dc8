//! A party's envelope keys: the newest and the one before, how they are replaced, and how peers learn of it (PROTOCOL.md section 6). The sealing
//! itself is in `wire::envelope`.

use rand_core::OsRng;
use zeroize::Zeroizing;

use approval::message::Message;
use wire::envelope::{CannotOpen, Content, Envelope, EnvelopeSecret};
use wire::identity::PartyId;

use super::{Party, PartyError, Turn, key};
use crate::store::{Outgoing, Tx};

impl Party {
    /// Replaces the envelope key when it is old enough. The one before is kept until everybody was seen using the new one (PROTOCOL.md section 6), and
    /// long enough for a device that was paired with it and still waits for the admins.
    pub async fn rotate(&mut self, tx: &mut Tx) -> Result<(), PartyError> {
        let since = tx
            .meta_text("envelope_since")
            .await?
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0);
        let now = crate::clock::wall();
        let age = now.saturating_sub(since);
        if self.envelopes.len() > 1 {
            if age >= self.pace.keep && tx.stragglers().await?.is_empty() {
                tx.remove_meta("envelope_key_before").await?;
                self.envelopes.truncate(1);
            }
            return Ok(());
        }
        if age < self.pace.rotate {
            return Ok(());
        }
        let fresh = EnvelopeSecret::generate(&mut OsRng);
        if let Some(before) = self.envelopes.first() {
            tx.set_meta("envelope_key_before", &before.to_bytes()[..]).await?;
        }
        tx.set_meta("envelope_key", &fresh.to_bytes()[..]).await?;
        tx.set_meta("envelope_since", now.to_string().as_bytes()).await?;
        tx.nobody_follows().await?;
        self.envelopes.insert(0, fresh);
        Ok(())
    }

    /// Tells the peers that haven't been seen using it what our newest envelope key is. Said again on every connection, so that nothing hangs on one message.
    pub async fn tell_address(&self, turn: &mut Turn) -> Result<(), PartyError> {
        let stragglers = turn.tx.stragglers().await?;
        let Some(newest) = self.envelopes.first() else {
            return Ok(());
        };
        if stragglers.is_empty() || turn.group.is_none() {
            return Ok(());
        }
        let sealed = turn.encrypt(
            &self.leaf,
            &Message::Address {
                envelope_key: newest.key(),
            },
        )?;
        for peer in stragglers {
            self.post(&mut turn.tx, &peer, Content::Mls, &sealed, Outgoing::Fleeting, 0)
                .await?;
        }
        Ok(())
    }

    /// Notes that a peer seals to the newest envelope key.
    pub async fn followed(&self, tx: &mut Tx, peer: &PartyId) -> Result<(), PartyError> {
        if self.envelopes.len() > 1 {
            tx.follows(peer).await?;
        }
        Ok(())
    }

    /// Opens an envelope that came to this party's own mailbox. The last value says whether it was sealed to the newest key.
    pub fn unseal(&self, envelope: &Envelope) -> Result<(Content, Zeroizing<Vec<u8>>, bool), CannotOpen> {
        let mailbox = self.mailbox.id();
        let opened = self.envelopes.iter().enumerate().find_map(|(age, secret)| {
            let (content, message) = wire::envelope::open(secret, &mailbox, envelope).ok()?;
            Some((content, message, age == 0))
        });
        opened.ok_or(CannotOpen)
    }
}

pub(super) async fn envelopes(tx: &mut Tx) -> Result<Vec<EnvelopeSecret>, PartyError> {
    let mut envelopes = vec![EnvelopeSecret::from_bytes(&*key(
        tx.meta("envelope_key").await?,
        "the envelope key",
    )?)];
    if let Some(previous) = tx.meta("envelope_key_before").await? {
        envelopes.push(EnvelopeSecret::from_bytes(&*key(
            Some(previous),
            "the envelope key before",
        )?));
    }
    Ok(envelopes)
}
