//! How stored envelopes get to the relay: what is due is put, and what the relay says of it is noted. Shared by gate and member;
//! what is in the envelopes is not known here.

use crate::clock::wall;
use crate::link::{LinkEvent, LinkHandle};
use crate::pace::Pace;
use crate::party::{TTL_SECONDS, random16};
use crate::store::{Post, StoreError, Tx};

/// Envelopes handed to the link at a time.
const POSTS: u32 = 64;

/// Takes what is due, and notes when each is to be tried again. What was stored before goes out under a new put id: a relay that
/// says it has the old one would drop it.
pub async fn take_due(tx: &mut Tx, pace: &Pace) -> Result<Vec<Post>, StoreError> {
    let now = wall();
    let mut posts = tx.due(now, POSTS).await?;
    for post in &mut posts {
        if post.stored {
            post.put = random16();
        }
        tx.reschedule(post.id, post.put, now.saturating_add(pace.unanswered))
            .await?;
    }
    Ok(posts)
}

/// Hands envelopes to the link: after the commit, never before.
pub async fn send(link: &LinkHandle, posts: Vec<Post>) {
    for post in posts {
        link.put(post.put, &post.mailbox, &post.capability, TTL_SECONDS, post.envelope)
            .await;
    }
}

/// Notes what the relay said of an envelope.
pub async fn settle(tx: &mut Tx, event: &LinkEvent, pace: &Pace) -> Result<(), StoreError> {
    match event {
        LinkEvent::Stored { id, .. } => tx.stored(id, wall(), pace).await,
        LinkEvent::Refused {
            id,
            reason,
            retry_after_ms,
        } => {
            tracing::warn!(?reason, "the relay refused an envelope");
            tx.postpone(id, wall().saturating_add(u64::from(*retry_after_ms).max(pace.refused)))
                .await
        }
        _ => Ok(()),
    }
}
