//! The queue of what one connection is to be told, bounded in frames and in bytes.
//!
//! Writing it to the socket is deliberately not here (see `session`). Whoever fills a queue never waits: a connection that
//! doesn't drain its own is cut, and what it didn't get stays in the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use wire::frame::{Close, RelayFrame};
use wire::limits::WINDOW_ENVELOPES;

use crate::memory::Memory;

/// Most requests of one connection that aren't answered yet; beyond, its socket isn't read.
pub(crate) const UNANSWERED: usize = 256;

/// Room for every answer and every delivery of a connection that keeps the rules, and a few more.
const FRAMES: usize = UNANSWERED + WINDOW_ENVELOPES as usize + 8;

/// Most bytes of envelopes queued. Twice the window: reached only by acknowledging what was never received.
const BYTES: usize = 2 * 1024 * 1024;

/// Room that an empty queue keeps. What a burst needed is given back: most connections rest most of the time.
const KEPT: usize = 16;

/// What a connection is to do.
#[derive(Debug)]
pub(crate) enum Out {
    /// Send the answer to one of its requests.
    Answer(RelayFrame),
    /// Send an envelope of so many bytes.
    Deliver(RelayFrame, usize),
    /// Say that another reader took over, and close.
    Displaced,
    /// Close.
    Close(Close),
}

/// The end that fills the queue.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

/// The end that drains it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    shared: Arc<Shared>,
    /// Notified when the queue overflowed.
    pub(crate) cut: Arc<Notify>,
}

/// Not a channel, whose first block alone would be as large as all else of a connection at rest.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    memory: Memory,
    cut: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Queue {
    outs: VecDeque<Out>,
    /// Bytes of the envelopes among them.
    bytes: usize,
    /// Nobody drains it any more.
    closed: bool,
    waker: Option<Waker>,
}

impl Shared {
    /// Nothing that could panic is done with the lock held.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection is gone, or was cut just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// A queue for one connection.
pub(crate) fn outbox(memory: Memory) -> (Outbox, Outgoing) {
    let cut = Arc::new(Notify::new());
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        memory,
        cut: Arc::clone(&cut),
    });
    let outbox = Outbox {
        shared: Arc::clone(&shared),
    };
    (outbox, Outgoing { shared, cut })
}

impl Outbox {
    /// Queues the answer to a request. A connection that is gone doesn't need it.
    pub(crate) fn answer(&self, frame: RelayFrame) {
        self.push(Out::Answer(frame)).ok();
    }

    /// Queues an envelope of so many bytes.
    pub(crate) fn deliver(&self, frame: RelayFrame, bytes: usize) -> Result<(), Gone> {
        self.push(Out::Deliver(frame, bytes))
    }

    /// Tells the connection that it isn't the reader any more.
    pub(crate) fn displaced(&self) {
        self.push(Out::Displaced).ok();
    }

    /// Tells the connection to close.
    pub(crate) fn close(&self, why: Close) {
        self.push(Out::Close(why)).ok();
    }

    fn push(&self, out: Out) -> Result<(), Gone> {
        let bytes = if let Out::Deliver(_, bytes) = &out { *bytes } else { 0 };
        let mut queue = self.shared.queue();
        if queue.closed {
            return Err(Gone);
        }
        if queue.outs.len() >= FRAMES || queue.bytes + bytes > BYTES {
            drop(queue);
            self.shared.cut.notify_one();
            return Err(Gone);
        }
        queue.bytes += bytes;
        self.shared.memory.take(bytes);
        queue.outs.push_back(out);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl Outgoing {
    /// What is next. Never ends while the connection holds its own [`Outbox`].
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Out>> {
        let mut queue = self.shared.queue();
        let Some(out) = queue.outs.pop_front() else {
            if Arc::strong_count(&self.shared) == 1 {
                return Poll::Ready(None);
            }
            queue.outs.shrink_to(KEPT);
            if !queue
                .waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
            {
                queue.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        };
        if let Out::Deliver(_, bytes) = &out {
            queue.bytes -= bytes;
            self.shared.memory.give(*bytes);
        }
        Poll::Ready(Some(out))
    }
}

impl Drop for Outgoing {
    /// What nobody takes out any more gives its memory back.
    fn drop(&mut self) {
        let closed = Queue {
            closed: true,
            ..Queue::default()
        };
        let left = std::mem::replace(&mut *self.shared.queue(), closed);
        self.shared.memory.give(left.bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[tokio::test]
    async fn an_overflowing_connection_is_cut() {
        let (outbox, outgoing) = outbox(Memory::default());
        for _ in 0..FRAMES {
            outbox.deliver(RelayFrame::Displaced, 1).unwrap();
        }
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 1), Err(Gone));
        outgoing.cut.notified().await;
    }

    #[tokio::test]
    async fn bytes_overflow_too() {
        let (outbox, mut outgoing) = outbox(Memory::default());
        outbox.deliver(RelayFrame::Displaced, BYTES).unwrap();
        std::future::poll_fn(|context| outgoing.poll_next(context)).await;
        outbox.deliver(RelayFrame::Displaced, BYTES).unwrap();
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 1), Err(Gone));
        outgoing.cut.notified().await;
    }

    #[tokio::test]
    async fn a_connection_that_ends_gives_back_the_memory_of_what_it_didnt_take() {
        let memory = Memory::default();
        let (outbox, mut outgoing) = outbox(memory.clone());
        for _ in 0..3 {
            outbox.deliver(RelayFrame::Displaced, 100).unwrap();
        }
        std::future::poll_fn(|context| outgoing.poll_next(context)).await;
        assert_eq!(memory.used(), 200);
        drop(outgoing);
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 100), Err(Gone));
        assert_eq!(memory.used(), 0);
    }
}
