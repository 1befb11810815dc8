//! The application data of the group (PROTOCOL.md 12).

use approval::message::{MESSAGE_BYTES, Message};

/// A message as a member of the group sends it.
pub fn message(bytes: &[u8]) -> bool {
    let Ok(message) = Message::decode(bytes) else {
        return false;
    };
    assert!(bytes.len() <= MESSAGE_BYTES);
    let again = message.encode().expect("what was taken can be sent");
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
    // Only the JSON of a change has more than one spelling.
    if !matches!(message, Message::Propose { .. }) {
        assert_eq!(again, bytes, "a message has one spelling");
    }
    true
}
