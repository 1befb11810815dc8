//! Every decoder that meets bytes from outside, one function each: it takes any bytes, says whether the decoder took
//! them, and panics if the decoder breaks a promise (what is taken is written again as the same bytes). The fuzz
//! targets in `tests/fuzz/` and the ordinary test that replays their seeds call nothing else. Not here: what a decoder
//! has to refuse (`tests/vectors/`).
//!
//! Signatures, MACs and sums keep a fuzzer out of everything behind them, but not an attacker who holds a key of their
//! own. So where bytes are authenticated there is a second function that authenticates whatever it is given.
//!
//! This file is also the root of the library of `tests/fuzz/`, which therefore needs nothing of the client to build.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::identity::Identity;

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its fuzz target and of its folder of seeds.
    pub name: &'static str,
    /// Gives bytes to the decoder and says whether it took them.
    pub run: fn(&[u8]) -> bool,
}

/// Names each module with its functions once, and from that makes the list that the test of the seeds goes through.
macro_rules! targets {
    ($($module:ident: $($name:ident)*;)*) => {
        $(
            mod $module;
            pub use $module::{$($name),*};
        )*

        /// All targets, but for those whose types are the client's.
        pub const TARGETS: &[Target] = &[$($(Target { name: stringify!($name), run: $name }),*),*];
    };
}

targets! {
    relays: client_frame relay_frame login relay_url relay_name;
    keys: key_text key_bytes;
    envelopes: envelope envelope_inside;
    statements: statement device roster request decision permit outcome grant revocation policy;
    channel: message;
    pairings: invite_link invite_body join challenge reveal answer;
    transcripts: checkpoint checkpoint_body export transcript proof;
    shown: rendered rendering escaped escaping;
}

pub use shown::local_line;

const GATE: u8 = 1;
const ALICE: u8 = 2;
const CAROL: u8 = 5;

/// The vectors' way of naming parties: the seed is one byte 32 times.
fn identity(seed: u8) -> &'static Identity {
    // A fuzzer runs some thousand times a second, if nobody makes a key each time.
    static ALL: LazyLock<Vec<Identity>> =
        LazyLock::new(|| (0..=u8::MAX).map(|seed| Identity::from_bytes(&[seed; 32])).collect());
    &ALL[usize::from(seed)]
}

/// Signs any bytes as a statement of this kind, by DSSE's own rules: what a party with a key of its own can send.
fn dsse(seed: u8, kind: &str, payload: &[u8]) -> String {
    let kind = format!("application/vnd.countersign.{kind}+json");
    let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    signed.extend_from_slice(payload);
    let identity = identity(seed);
    let (party, signature) = (identity.party(), STANDARD.encode(identity.sign(&signed)));
    let payload = STANDARD.encode(payload);
    format!(
        r#"{{"payloadType":"{kind}","payload":"{payload}","signatures":[{{"keyid":"{party}","sig":"{signature}"}}]}}"#
    )
}
