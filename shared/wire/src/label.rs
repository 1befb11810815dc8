//! The labels that keep one use of a key or hash from being mistaken for another (`PROTOCOL.md`, 2.1).
//!
//! All of them stand here, also those that only `approval` uses, so that nobody can choose one twice. The beginnings of
//! what an identity signs (`DSSEv1 `, `countersign/`) are given by their own standards and are not labels.

/// Before what a mailbox key signs to log in at a relay.
pub const LOGIN: &str = "countersign/v1 relay login";

/// The HPKE `info` of every envelope (there without the zero byte).
pub const ENVELOPE: &str = "countersign/v1 envelope";

/// Before a capability where the relay's hash of it is made.
pub const CAPABILITY: &str = "countersign/v1 capability";

/// The HKDF `info` that makes an invite's capability out of its secret.
pub const INVITE_CAPABILITY: &str = "countersign/v1 invite capability";

/// The HKDF `info` that makes the key of the pairing messages' MACs out of an invite's secret.
pub const PAIRING_MAC: &str = "countersign/v1 pairing mac";

/// Before a joining device's nonce where its commitment is made.
pub const PAIRING_COMMITMENT: &str = "countersign/v1 pairing commitment";

/// Before the pairing transcript where the short code is made.
pub const PAIRING_CODE: &str = "countersign/v1 pairing code";

/// Before a request's nonce and the number that its approvals must repeat.
pub const NUMBER: &str = "countersign/v1 number";

/// Every label: two that were equal, or one that began another before its zero byte, would undo their purpose.
pub const ALL: [&str; 8] = [
    LOGIN,
    ENVELOPE,
    CAPABILITY,
    INVITE_CAPABILITY,
    PAIRING_MAC,
    PAIRING_COMMITMENT,
    PAIRING_CODE,
    NUMBER,
];

/// `label || 0 || parts…`: the bytes to sign or hash. The zero byte ends the label, so no label can run into what
/// follows it; the parts must be self-delimiting (of fixed or stated length) by their own rules.
#[must_use]
pub fn labelled(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let length = label.len() + 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(label.as_bytes());
    bytes.push(0);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_used_twice_or_holds_a_zero_byte() {
        for (index, label) in ALL.iter().enumerate() {
            assert!(
                label.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '),
                "{label}"
            );
            assert!(label.starts_with("countersign/v1 "), "{label}");
            assert!(ALL.iter().skip(index + 1).all(|other| other != label), "{label}");
        }
    }

    #[test]
    fn a_label_ends_with_one_zero_byte() {
        assert_eq!(
            labelled(CAPABILITY, &[b"ab", b"", b"c"]),
            b"countersign/v1 capability\0abc"
        );
        assert_eq!(labelled(LOGIN, &[]), b"countersign/v1 relay login\0");
    }

    #[test]
    fn no_label_begins_like_anything_that_an_identity_signs() {
        // A gate signs checkpoints, whose text starts with `countersign/` and the gate's own csid1…: no label does.
        for label in ALL {
            assert!(!label.starts_with("DSSEv1 "));
            assert!(!label.starts_with("countersign/csid1"));
        }
    }
}
