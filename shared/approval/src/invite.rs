//! An invite: the link that lets one device ask to be let in, once (PROTOCOL.md 13.1). Whoever holds the link can
//! start a pairing but not finish it: the short code is confirmed by a person (`pairing`). Not here: drawing its
//! secret and keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use sha2::Sha256;
use wire::envelope::EnvelopeKey;
use wire::identity::PartyId;
use wire::label;
use wire::mailbox::{Capability, MailboxId};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::fields::{Malformed, Reader, Writer};
use crate::roster::Role;
use crate::scalar::{Digest, Name, RelayUrl, Time};

/// How long an invite lives: 10 minutes, in milliseconds.
pub const LIFE_MS: u64 = 10 * 60 * 1000;
/// Bytes of a link.
pub const LINK_BYTES: usize = 1024;

const PREFIX: &str = "countersign:1";
const SUM_BYTES: usize = 4;

/// Why a link was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Not a link of this version, or longer than [`LINK_BYTES`].
    #[error("not an invite link")]
    Malformed,
    /// Its sum is wrong: it was cut or mistyped.
    #[error("the invite link is damaged")]
    Damaged,
}

impl From<Malformed> for InviteError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The invite's one-time secret: 128 random bits. Shown to nobody but in the link.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret([u8; 16]);

impl InviteSecret {
    /// These bytes, which must be random.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever keeps the invite until it is used.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Everything that a new device needs to ask. Holds the secret, so it has no `Debug`.
#[derive(Clone)]
pub struct Invite {
    /// What the person will be allowed to do.
    pub role: Role,
    /// It lives strictly before this, by the gate's clock.
    pub expires: Time,
    /// Known to the gate and to whoever was given the link.
    pub secret: InviteSecret,
    /// The gate.
    pub gate: PartyId,
    /// The invite's own mailbox at the relay.
    pub mailbox: MailboxId,
    /// The invite's own envelope key.
    pub envelope_key: EnvelopeKey,
    /// Whose device it will be.
    pub person: Name,
    /// Where the mailbox is.
    pub relay: RelayUrl,
}

impl Invite {
    /// The link. It holds the secret: show it to the person who is invited and to nobody else.
    pub fn link(&self) -> Zeroizing<String> {
        // Room for all of it at once: growing would leave the secret behind in freed memory.
        let mut bytes = Writer::with_room(LINK_BYTES);
        let role = match self.role {
            Role::Admin => 1,
            Role::Auditor => 2,
        };
        bytes
            .u8(role)
            .u64(self.expires.millis())
            .raw(&self.secret.0)
            .raw(self.gate.as_bytes());
        bytes.raw(self.mailbox.as_bytes()).raw(self.envelope_key.as_bytes());
        for text in [self.person.as_str(), self.relay.as_str()] {
            // Both are at most 255 bytes by their types.
            bytes
                .u8(u8::try_from(text.len()).unwrap_or(u8::MAX))
                .raw(text.as_bytes());
        }
        let sum = sum(bytes.written());
        bytes.raw(&sum);
        let bytes = Zeroizing::new(bytes.finish());
        let mut link = Zeroizing::new(String::with_capacity(LINK_BYTES));
        link.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut link);
        link
    }

    /// Reads a link.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn parse(link: &str) -> Result<Self, InviteError> {
        if link.len() > LINK_BYTES {
            return Err(InviteError::Malformed);
        }
        let encoded = link.strip_prefix(PREFIX).ok_or(InviteError::Malformed)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InviteError::Malformed)?);
        let (body, given) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(InviteError::Malformed)?;
        if *given != sum(body) {
            return Err(InviteError::Damaged);
        }
        let mut fields = Reader::new(body);
        let invite = Self {
            role: match fields.u8()? {
                1 => Role::Admin,
                2 => Role::Auditor,
                _ => return Err(InviteError::Malformed),
            },
            expires: Time::from_millis(fields.u64()?).map_err(|_| Malformed)?,
            secret: InviteSecret(fields.array()?),
            gate: PartyId::from_bytes(fields.array()?).map_err(|_| Malformed)?,
            mailbox: MailboxId::from_bytes(fields.array()?).map_err(|_| Malformed)?,
            envelope_key: EnvelopeKey::from_bytes(fields.array()?).map_err(|_| Malformed)?,
            person: text(fields.var8()?)?.parse().map_err(|_| Malformed)?,
            relay: text(fields.var8()?)?.parse().map_err(|_| Malformed)?,
        };
        fields.end()?;
        Ok(invite)
    }

    /// Whether it has ended by its age.
    pub fn expired(&self, now: Time) -> bool {
        now >= self.expires
    }

    /// The capability for the invite's mailbox.
    pub fn capability(&self) -> Capability {
        Capability::from_bytes(&self.derive(label::INVITE_CAPABILITY))
    }

    /// The key of the pairing messages' MACs.
    pub(crate) fn mac_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive(label::PAIRING_MAC)
    }

    /// The gate is the salt: a secret that two gates happened to share would still give two keys.
    fn derive(&self, info: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let derived =
            Hkdf::<Sha256>::new(Some(self.gate.as_bytes()), &self.secret.0).expand(info.as_bytes(), &mut *key);
        // HKDF gives up to 8160 bytes; 32 can't fail.
        debug_assert!(derived.is_ok());
        key
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

/// Against typing and cutting, not against anybody: an attacker makes their own link.
fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let Digest([a, b, c, d, ..]) = Digest::of(bytes);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use proptest::prelude::*;

    use crate::sample::*;

    /// The link around these bytes, with a right sum.
    fn link_of(body: &[u8]) -> String {
        let bytes = [body, &sum(body)].concat();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    fn body() -> Vec<u8> {
        let link = invite().link();
        let bytes = URL_SAFE_NO_PAD.decode(link.strip_prefix(PREFIX).unwrap()).unwrap();
        bytes[..bytes.len() - SUM_BYTES].to_vec()
    }

    fn refused(link: &str) -> InviteError {
        Invite::parse(link).err().unwrap()
    }

    #[test]
    fn a_link_says_everything() {
        let (sent, link) = (invite(), invite().link());
        let read = Invite::parse(&link).unwrap();
        assert_eq!(read.link(), link);
        assert_eq!(
            (read.role, read.expires, read.gate, read.mailbox),
            (sent.role, sent.expires, sent.gate, sent.mailbox)
        );
        assert_eq!(
            (read.envelope_key, read.person, read.relay),
            (sent.envelope_key, sent.person, sent.relay)
        );
        assert_eq!(read.secret.as_bytes(), sent.secret.as_bytes());
    }

    #[test]
    fn a_mistyped_or_cut_link_is_damaged() {
        let link = invite().link().to_string();
        let typo = link.replacen("UVFR", "UVFS", 1);
        assert_ne!(typo, link);
        assert_eq!(refused(&typo), InviteError::Damaged);
        for length in 0..link.len() {
            assert!(Invite::parse(&link[..length]).is_err());
        }
    }

    #[test]
    fn only_this_form_is_a_link() {
        let link = invite().link().to_string();
        assert!(Invite::parse(&link_of(&body())).is_ok());
        for bad in [
            link.replace("countersign:1", "countersign:2"),
            link.replace("countersign:", "Countersign:"),
            format!("{link}="),
            format!(" {link}"),
            link_of(&[body(), vec![0]].concat()),
            link_of(&[&[3], &body()[1..]].concat()),
            link_of(&[&[0], &body()[1..]].concat()),
            link_of(&[&[1], &[0xff; 8][..], &body()[9..]].concat()),
            format!("{link}{}", "A".repeat(LINK_BYTES)),
            String::new(),
        ] {
            assert_eq!(refused(&bad), InviteError::Malformed, "{bad}");
        }
        let auditor = Invite::parse(&link_of(&[&[2], &body()[1..]].concat())).unwrap();
        assert_eq!(auditor.role, Role::Auditor);
    }

    #[test]
    fn the_longest_names_fit_a_link() {
        let long = Invite {
            person: "x".repeat(64).parse().unwrap(),
            relay: "y".repeat(255).parse().unwrap(),
            ..invite()
        };
        let link = long.link();
        assert!(link.len() <= LINK_BYTES);
        assert_eq!(Invite::parse(&link).unwrap().relay, long.relay);
    }

    #[test]
    fn it_lives_strictly_before_its_expiry() {
        let invite = invite();
        assert!(!invite.expired(at(invite.expires.millis() - 1)));
        assert!(invite.expired(invite.expires));
    }

    #[test]
    fn its_capability_is_bound_to_gate_and_use() {
        let invite = invite();
        let other = Invite {
            gate: identity(OTHER_GATE).party(),
            ..invite.clone()
        };
        assert!(invite.capability() == invite.clone().capability());
        assert!(invite.capability() != other.capability());
        assert_ne!(*invite.capability().to_bytes(), *invite.mac_key());
        assert_ne!(*invite.mac_key(), [0; 32]);
    }

    proptest! {
        #[test]
        fn random_links_never_panic(text: String, bytes: Vec<u8>) {
            let _ = Invite::parse(&text);
            let _ = Invite::parse(&link_of(&bytes));
        }

        #[test]
        fn a_damaged_body_never_panics(at in 0usize..200, byte: u8) {
            let mut body = body();
            let index = at % body.len();
            body[index] = byte;
            if let Ok(read) = Invite::parse(&link_of(&body)) {
                prop_assert_eq!(read.link().to_string(), link_of(&body));
            }
        }
    }
}
