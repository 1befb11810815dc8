//! HPKE (RFC 9180), as much of it as an envelope needs: base mode, single shot, DHKEM(X25519, HKDF-SHA256) 0x0020,
//! HKDF-SHA256 0x0001, ChaCha20-Poly1305 0x0003 (`PROTOCOL.md`, section 6).
//!
//! The other modes and suites, the exporter and more than one message under a context are deliberately not here: what
//! isn't there can't be negotiated.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

const KEM_SUITE: &[u8] = b"KEM\x00\x20";
const HPKE_SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x03";
const MODE_BASE: &[u8] = &[0];

/// Sealing or opening failed. Says nothing more: whoever could tell a bad key from a bad tag could ask about either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// Seals `plain` to the holder of `to`: gives the encapsulated key and the ciphertext (16 bytes longer than `plain`).
///
/// The ephemeral key must be drawn for this one seal, and is consumed by it: used twice, it would use the AEAD's nonce
/// twice.
pub(crate) fn seal(
    ephemeral: StaticSecret,
    to: &PublicKey,
    info: &[u8],
    aad: &[u8],
    plain: &[u8],
) -> Result<([u8; 32], Vec<u8>), Failed> {
    let enc = PublicKey::from(&ephemeral).to_bytes();
    let shared = shared_secret(&ephemeral.diffie_hellman(to), &enc, to)?;
    let context = Context::new(&shared, info)?;
    let sealed = context.aead.encrypt(&context.nonce, Payload { msg: plain, aad });
    Ok((enc, sealed.map_err(|_| Failed)?))
}

/// Opens what [`seal`] made for the holder of `secret` under the same `info` and `aad`.
pub(crate) fn open(
    secret: &StaticSecret,
    enc: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let exchanged = secret.diffie_hellman(&PublicKey::from(*enc));
    let shared = shared_secret(&exchanged, enc, &PublicKey::from(secret))?;
    let context = Context::new(&shared, info)?;
    let plain = context.aead.decrypt(&context.nonce, Payload { msg: ciphertext, aad });
    Ok(Zeroizing::new(plain.map_err(|_| Failed)?))
}

/// The KEM's `ExtractAndExpand` (RFC 9180, 4.1), after the check of its section 7.1.4.
fn shared_secret(exchanged: &SharedSecret, enc: &[u8; 32], to: &PublicKey) -> Result<Zeroizing<[u8; 32]>, Failed> {
    // A low-order key makes a secret that everybody knows: an envelope sealed with it would be open to the relay.
    if !exchanged.was_contributory() {
        return Err(Failed);
    }
    let prk = Labelled {
        suite: KEM_SUITE,
        salt: &[],
    }
    .extract(b"eae_prk", exchanged.as_bytes());
    expand(&prk, KEM_SUITE, b"shared_secret", &[enc, to.as_bytes()])
}

/// What the key schedule (RFC 9180, 5.1) gives for the first and only message.
struct Context {
    aead: ChaCha20Poly1305,
    nonce: Nonce,
}

impl Context {
    fn new(shared: &[u8; 32], info: &[u8]) -> Result<Self, Failed> {
        let unsalted = Labelled {
            suite: HPKE_SUITE,
            salt: &[],
        };
        let psk_id_hash = unsalted.hash(b"psk_id_hash", &[]);
        let info_hash = unsalted.hash(b"info_hash", info);
        let schedule = [MODE_BASE, &psk_id_hash, &info_hash];
        let secret = Labelled {
            suite: HPKE_SUITE,
            salt: shared,
        }
        .extract(b"secret", &[]);
        let key: Zeroizing<[u8; 32]> = expand(&secret, HPKE_SUITE, b"key", &schedule)?;
        let nonce: Zeroizing<[u8; 12]> = expand(&secret, HPKE_SUITE, b"base_nonce", &schedule)?;
        Ok(Self {
            aead: ChaCha20Poly1305::new((&*key).into()),
            nonce: (*nonce).into(),
        })
    }
}

/// `LabeledExtract` (RFC 9180, section 4) under one suite and salt.
struct Labelled<'a> {
    suite: &'a [u8],
    salt: &'a [u8],
}

impl Labelled<'_> {
    fn extract(&self, label: &[u8], material: &[u8]) -> Hkdf<Sha256> {
        Hkdf::new(Some(self.salt), &self.material(label, material))
    }

    /// The extracted key itself, where it is only hashed on.
    fn hash(&self, label: &[u8], material: &[u8]) -> [u8; 32] {
        Hkdf::<Sha256>::extract(Some(self.salt), &self.material(label, material))
            .0
            .into()
    }

    fn material(&self, label: &[u8], material: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([b"HPKE-v1", self.suite, label, material].concat())
    }
}

/// `LabeledExpand` (RFC 9180, section 4).
fn expand<const N: usize>(
    key: &Hkdf<Sha256>,
    suite: &[u8],
    label: &[u8],
    info: &[&[u8]],
) -> Result<Zeroizing<[u8; N]>, Failed> {
    let length = u16::try_from(N).map_err(|_| Failed)?.to_be_bytes();
    let mut out = Zeroizing::new([0; N]);
    let mut parts: Vec<&[u8]> = vec![&length, b"HPKE-v1", suite, label];
    parts.extend_from_slice(info);
    key.expand_multi_info(&parts, out.as_mut_slice()).map_err(|_| Failed)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::Deserialize;

    use super::*;
    use crate::vectors::{self, Hex};

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        info: Hex,
        ephemeral_secret: Hex,
        recipient_secret: Hex,
        recipient: Hex,
        enc: Hex,
        plain: Hex,
        aad: Hex,
        ciphertext: Hex,
    }

    #[test]
    fn the_vector_of_rfc_9180_a_2_1() {
        let vectors: Vec<Vector> = vectors::read("hpke.json");
        assert_eq!(vectors.len(), 1);
        for vector in vectors {
            let ephemeral = StaticSecret::from(vector.ephemeral_secret.array::<32>());
            let secret = StaticSecret::from(vector.recipient_secret.array::<32>());
            let to = PublicKey::from(vector.recipient.array::<32>());
            assert_eq!(PublicKey::from(&secret), to, "{}", vector.name);
            let (info, aad) = (&vector.info.0, &vector.aad.0);
            let (enc, sealed) = seal(ephemeral, &to, info, aad, &vector.plain.0).unwrap();
            assert_eq!(enc, vector.enc.array(), "{}", vector.name);
            assert_eq!(sealed, vector.ciphertext.0, "{}", vector.name);
            let plain = open(&secret, &enc, info, aad, &sealed).unwrap();
            assert_eq!(*plain, vector.plain.0, "{}", vector.name);
            assert_eq!(open(&secret, &enc, b"", aad, &sealed), Err(Failed), "{}", vector.name);
            assert_eq!(open(&secret, &enc, info, b"", &sealed), Err(Failed), "{}", vector.name);
        }
    }

    #[derive(Deserialize)]
    struct Keys {
        bad_points: Vec<BadPoint>,
    }

    #[derive(Deserialize)]
    struct BadPoint {
        name: String,
        public: Hex,
    }

    #[test]
    fn a_shared_secret_of_zeros_is_refused_on_both_sides() {
        let keys: Keys = vectors::read("keys.json");
        let low_order = |bad: &BadPoint| bad.name.starts_with("envelope_low_order");
        let keys: Vec<_> = keys.bad_points.into_iter().filter(low_order).collect();
        assert_eq!(keys.len(), 6);
        for key in keys {
            let key: [u8; 32] = key.public.array();
            let ephemeral = StaticSecret::from([7; 32]);
            assert_eq!(seal(ephemeral, &key.into(), b"", b"", b"secret"), Err(Failed));
            let secret = StaticSecret::from([8; 32]);
            // Sealed by an attacker who relies on the secret being zeros: without the check this would open.
            let to = PublicKey::from(&secret);
            let prk = Labelled {
                suite: KEM_SUITE,
                salt: &[],
            }
            .extract(b"eae_prk", &[0; 32]);
            let info = [key.as_slice(), to.as_bytes()];
            let shared: Zeroizing<[u8; 32]> = expand(&prk, KEM_SUITE, b"shared_secret", &info).unwrap();
            let context = Context::new(&shared, b"").unwrap();
            let forged = context.aead.encrypt(&context.nonce, b"forged".as_slice()).unwrap();
            assert_eq!(open(&secret, &key, b"", b"", &forged), Err(Failed));
        }
    }
}
