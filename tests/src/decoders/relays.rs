//! What passes between a relay and its clients (PROTOCOL.md 3, 4), and the names of relays. Not here: the envelopes.

use bytes::Bytes;
use wire::frame::{ClientFrame, RelayFrame};
use wire::login::{self, RelayName, authority};

/// A frame as the relay takes it from a client.
pub fn client_frame(bytes: &[u8]) -> bool {
    let Ok(frame) = ClientFrame::decode(Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    assert_eq!(frame.encode(), bytes, "a frame has one spelling");
    true
}

/// A frame as a client takes it from the relay.
pub fn relay_frame(bytes: &[u8]) -> bool {
    let Ok(frame) = RelayFrame::decode(Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    assert_eq!(frame.encode(), bytes, "a frame has one spelling");
    true
}

/// A login as the relay judges it: the nonce that it sent, then the frame that came.
pub fn login(bytes: &[u8]) -> bool {
    let Some((nonce, frame)) = bytes.split_first_chunk::<32>() else {
        return false;
    };
    let frame = ClientFrame::decode(Bytes::copy_from_slice(frame));
    let Ok(ClientFrame::Login {
        version,
        mailbox,
        signature,
    }) = frame
    else {
        return false;
    };
    let names = ["relay.example.org", "127.0.0.1:7447"].map(|name| RelayName::new(name).expect("a name"));
    let Ok(id) = login::verify(&names, version, nonce, &mailbox, &signature) else {
        return false;
    };
    assert_eq!(id.as_bytes(), &mailbox);
    let mut other = *nonce;
    other[31] ^= 1;
    assert!(
        login::verify(&names, version, &other, &mailbox, &signature).is_err(),
        "good for another challenge"
    );
    assert!(
        login::verify(&[], version, nonce, &mailbox, &signature).is_err(),
        "good for a relay without a name"
    );
    true
}

/// The URL by which a client reaches a relay.
pub fn relay_url(bytes: &[u8]) -> bool {
    let Some(Ok(name)) = std::str::from_utf8(bytes).ok().map(authority) else {
        return false;
    };
    is_signable(&name);
    true
}

/// The name that a relay's operator writes.
pub fn relay_name(bytes: &[u8]) -> bool {
    let Some(Ok(name)) = std::str::from_utf8(bytes).ok().map(RelayName::new) else {
        return false;
    };
    is_signable(&name);
    // Whoever dials this name arrives at it, but for the port that the scheme leaves out.
    for scheme in ["ws", "wss"] {
        if let Ok(dialled) = authority(&format!("{scheme}://{name}/path")) {
            assert!(dialled == name || Some(dialled) == name.without_default_port());
        }
    }
    true
}

/// A name has one spelling, which a login's `var8` holds.
fn is_signable(name: &RelayName) {
    let text = name.as_str();
    assert!((1..=255).contains(&text.len()));
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
    );
    assert!(!text.contains(['/', '@', '?', '#', '\\']));
    assert_eq!(RelayName::new(text).as_ref(), Ok(name));
}
