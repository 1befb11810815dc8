//! The first words of a connection: challenge, login, welcome (`PROTOCOL.md`, section 3).

use std::future::poll_fn;

use bytes::Bytes;
use rand_core::{OsRng, RngCore};
use tokio::time::Instant;
use wire::frame::{ClientFrame, Close, RelayFrame, VERSION};
use wire::limits::{FRAME_BYTES_BEFORE_LOGIN, WINDOW_ENVELOPES};
use wire::login::{self, RelayName};
use wire::mailbox::MailboxId;

use super::{End, PINGS, Person, send};
use crate::bucket::Bucket;
use crate::socket::{Message, Socket};

/// Challenge and login.
pub(super) async fn greet(socket: &mut Socket, person: &Person, names: &[RelayName]) -> Result<MailboxId, End> {
    let mut nonce = [0; 32];
    OsRng.fill_bytes(&mut nonce);
    let challenge = RelayFrame::Challenge {
        version: VERSION,
        nonce,
    };
    send(socket, &challenge).await?;
    let mut pings = Bucket::full(Instant::now());
    let bytes = loop {
        let (mut first, mut end) = (None, None);
        poll_fn(|context| {
            socket.poll_take(context, |message| {
                match message {
                    Message::Binary(bytes) => first = Some(Bytes::copy_from_slice(bytes)),
                    Message::Text => end = Some(End::Close(Close::Unsupported)),
                    Message::Heartbeat if pings.take(PINGS, Instant::now()) => {}
                    Message::Heartbeat => end = Some(End::Close(Close::TooMany)),
                }
                Ok(false)
            })
        })
        .await?;
        if let Some(end) = end {
            return Err(end);
        }
        if let Some(bytes) = first {
            break bytes;
        }
        socket.flush().await.map_err(|_| End::Gone)?;
    };
    if bytes.len() > FRAME_BYTES_BEFORE_LOGIN {
        return Err(End::Close(Close::TooLong));
    }
    let frame = ClientFrame::decode(bytes).map_err(|_| End::Close(Close::Malformed))?;
    let ClientFrame::Login {
        version,
        mailbox,
        signature,
    } = frame
    else {
        return Err(End::Close(Close::Login));
    };
    if version != VERSION {
        return Err(End::Close(Close::Login));
    }
    // The last of the checks, because it is the one that costs.
    if !person.visitor.may_log_in(Instant::now()) {
        return Err(End::Close(Close::TooMany));
    }
    let own = [RelayName::from_address(person.local)];
    let names = if names.is_empty() { &own } else { names };
    let mailbox = login::verify(names, version, &nonce, &mailbox, &signature).map_err(|_| End::Close(Close::Login))?;
    let welcome = RelayFrame::Welcome {
        version,
        window_envelopes: WINDOW_ENVELOPES,
    };
    send(socket, &welcome).await?;
    Ok(mailbox)
}
