//! The queue of what one connection is to be told, bounded in frames and in bytes.
//!
//! Writing it to the socket is deliberately not here (see `session`). Whoever fills a queue never waits: a connection that
//! doesn't drain its own is cut, and what it didn't get stays in the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, mpsc};
use wire::frame::{Close, RelayFrame};
use wire::limits::WINDOW_ENVELOPES;

use crate::memory::Memory;

/// Most requests of one connection that aren't answered yet; beyond, its socket isn't read.
pub(crate) const UNANSWERED: usize = 256;

/// Room for every answer and every delivery of a connection that keeps the rules, and a few more.
const FRAMES: usize = UNANSWERED + WINDOW_ENVELOPES as usize + 8;

/// Most bytes of envelopes queued. Twice the window: reached only by acknowledging what was never received.
const BYTES: usize = 2 * 1024 * 1024;

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
    queue: mpsc::Sender<Out>,
    bytes: Arc<AtomicUsize>,
    memory: Memory,
    cut: Arc<Notify>,
}

/// The end that drains it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: mpsc::Receiver<Out>,
    bytes: Arc<AtomicUsize>,
    memory: Memory,
    /// Notified when the queue overflowed.
    pub(crate) cut: Arc<Notify>,
}

/// The connection is gone, or was cut just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// A queue for one connection.
pub(crate) fn outbox(memory: Memory) -> (Outbox, Outgoing) {
    let (sender, receiver) = mpsc::channel(FRAMES);
    let bytes = Arc::new(AtomicUsize::new(0));
    let cut = Arc::new(Notify::new());
    let outbox = Outbox {
        queue: sender,
        bytes: Arc::clone(&bytes),
        memory: memory.clone(),
        cut: Arc::clone(&cut),
    };
    let outgoing = Outgoing {
        queue: receiver,
        bytes,
        memory,
        cut,
    };
    (outbox, outgoing)
}

impl Outbox {
    /// Queues the answer to a request. A connection that is gone doesn't need it.
    pub(crate) fn answer(&self, frame: RelayFrame) {
        self.push(Out::Answer(frame)).ok();
    }

    /// Queues an envelope of so many bytes.
    pub(crate) fn deliver(&self, frame: RelayFrame, bytes: usize) -> Result<(), Gone> {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > BYTES {
            self.cut.notify_one();
            return Err(Gone);
        }
        self.memory.take(bytes);
        self.push(Out::Deliver(frame, bytes))
            .inspect_err(|_| self.memory.give(bytes))
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
        self.queue.try_send(out).map_err(|error| {
            if matches!(error, mpsc::error::TrySendError::Full(_)) {
                self.cut.notify_one();
            }
            Gone
        })
    }
}

impl Outgoing {
    /// What is next. Never ends while the connection holds its own [`Outbox`].
    pub(crate) fn poll_next(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Out>> {
        let next = self.queue.poll_recv(context);
        if let std::task::Poll::Ready(Some(Out::Deliver(_, bytes))) = &next {
            self.bytes.fetch_sub(*bytes, Ordering::Relaxed);
            self.memory.give(*bytes);
        }
        next
    }
}

impl Drop for Outgoing {
    /// What nobody takes out any more gives its memory back.
    fn drop(&mut self) {
        self.queue.close();
        while let Ok(out) = self.queue.try_recv() {
            if let Out::Deliver(_, bytes) = out {
                self.memory.give(bytes);
            }
        }
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
