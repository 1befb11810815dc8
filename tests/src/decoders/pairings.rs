//! Invites and the four messages of a pairing (PROTOCOL.md 13), in the one pairing of `tests/vectors/approval/`.

use std::sync::LazyLock;

use approval::device::Device;
use approval::invite::{Invite, InviteSecret, LIFE_MS, LINK_BYTES};
use approval::pairing::{Address, Answer, Challenge, Join, Nonce, PairingError, Reveal, commitment, short_code};
use approval::roster::Role;
use approval::scalar::LeafKey;
use approval::{Digest, Time, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use wire::envelope::EnvelopeSecret;
use wire::label::PAIRING_MAC;
use wire::mailbox::{Capability, MailboxKey};

use super::{ALICE, GATE, identity};

const NOON: u64 = 1_800_000_000_000;
const DEVICE_NONCE: Nonce = [0x52; 16];
const GATE_NONCE: Nonce = [0x53; 16];

/// The link as a person pastes it.
pub fn invite_link(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(reads_back)
}

/// The fields of a link, with a right sum: whoever makes a link makes its sum too.
pub fn invite_body(bytes: &[u8]) -> bool {
    let Digest(sum) = Digest::of(bytes);
    let link = URL_SAFE_NO_PAD.encode([bytes, &sum[..4]].concat());
    reads_back(&format!("countersign:1{link}"))
}

fn reads_back(link: &str) -> bool {
    let Ok(invite) = Invite::parse(link) else {
        return false;
    };
    assert!(link.len() <= LINK_BYTES);
    assert_eq!(invite.link().as_str(), link, "an invite has one link");
    true
}

/// A device's first message, as it comes and with a right MAC.
pub fn join(bytes: &[u8]) -> bool {
    let Pairing { invite, .. } = &*PAIRING;
    either(bytes, |bytes| {
        let opened = Join::open(bytes, invite, now())?;
        assert!(Join::open(bytes, invite, invite.expires).is_err(), "an expired invite");
        opened.seal(invite)
    })
}

/// The gate's first message, as it comes and with a right MAC.
pub fn challenge(bytes: &[u8]) -> bool {
    let Pairing { invite, join, .. } = &*PAIRING;
    either(bytes, |bytes| {
        let code = short_code(join, bytes, &DEVICE_NONCE).to_string();
        assert!(
            code.len() == 7 && code.bytes().filter(u8::is_ascii_digit).count() == 6,
            "{code}"
        );
        Challenge::open(bytes, invite, join)?.seal(invite, join)
    })
}

/// A device's second message, as it comes and with a right MAC.
pub fn reveal(bytes: &[u8]) -> bool {
    let Pairing {
        invite,
        joined,
        challenge,
        ..
    } = &*PAIRING;
    either(bytes, |bytes| {
        let opened = Reveal::open(bytes, invite, joined, challenge)?;
        assert_eq!(opened.nonce, DEVICE_NONCE, "another nonce than the one committed to");
        opened.seal(invite, challenge)
    })
}

/// The gate's second message, as it comes and with a right MAC.
pub fn answer(bytes: &[u8]) -> bool {
    let Pairing { invite, reveal, .. } = &*PAIRING;
    either(bytes, |bytes| Answer::open(bytes, invite, reveal)?.seal(invite, reveal))
}

/// Opens and seals again, the bytes as they are and with the MAC that whoever has the link can put behind them.
fn either(bytes: &[u8], again: impl Fn(&[u8]) -> Result<Vec<u8>, PairingError>) -> bool {
    let mac = mac(bytes);
    [bytes.to_vec(), [bytes, &mac].concat()]
        .into_iter()
        .any(|message| match again(&message) {
            Ok(sealed) => {
                assert_eq!(sealed, message, "a pairing message has one spelling");
                true
            }
            Err(_) => false,
        })
}

/// The MAC by the protocol's own words, since nothing else gives it away.
fn mac(bytes: &[u8]) -> [u8; 32] {
    let Invite { secret, gate, .. } = &PAIRING.invite;
    let mut key = [0; 32];
    let derived =
        Hkdf::<Sha256>::new(Some(gate.as_bytes()), secret.as_bytes()).expand(PAIRING_MAC.as_bytes(), &mut key);
    derived.expect("32 bytes");
    let mac = Hmac::<Sha256>::new_from_slice(&key).expect("any key");
    mac.chain_update(bytes).finalize().into_bytes().into()
}

/// The pairing that the vectors hold, message by message.
struct Pairing {
    invite: Invite,
    joined: Join,
    join: Vec<u8>,
    challenge: Vec<u8>,
    reveal: Vec<u8>,
}

static PAIRING: LazyLock<Pairing> = LazyLock::new(|| {
    let (invite, joined) = (invite(), joining());
    let join = joined.seal(&invite).expect("a join");
    let challenge = Challenge {
        nonce: GATE_NONCE,
        address: address(0x55),
    };
    let challenge = challenge.seal(&invite, &join).expect("a challenge");
    let reveal = Reveal { nonce: DEVICE_NONCE }
        .seal(&invite, &challenge)
        .expect("a reveal");
    Pairing {
        invite,
        joined,
        join,
        challenge,
        reveal,
    }
});

fn now() -> Time {
    Time::from_millis(NOON).expect("a time")
}

fn invite() -> Invite {
    let Address {
        mailbox, envelope_key, ..
    } = address(0x50);
    Invite {
        role: Role::Admin,
        expires: now().plus_millis(LIFE_MS),
        secret: InviteSecret::from_bytes([0x51; 16]),
        gate: identity(GATE).party(),
        mailbox,
        envelope_key,
        person: "alice".parse().expect("a name"),
        relay: "wss://relay.example".parse().expect("a url"),
    }
}

fn joining() -> Join {
    let device = Device {
        party: identity(ALICE).party(),
        leaf: LeafKey([ALICE + 0x40; 32]),
        name: "device-2".parse().expect("a name"),
        created: now(),
    };
    Join {
        device: sign(identity(ALICE), device).expect("a device"),
        key_package: b"key package".to_vec(),
        address: address(0x54),
        commitment: commitment(&DEVICE_NONCE),
    }
}

fn address(seed: u8) -> Address {
    Address {
        mailbox: MailboxKey::from_bytes(&[seed; 32]).id(),
        envelope_key: EnvelopeSecret::from_bytes(&[seed; 32]).key(),
        capability: Capability::from_bytes(&[seed; 32]),
    }
}
