//! The queue of what one connection is to be told, bounded in frames and in bytes.
//!
//! Writing it to the socket is deliberately not here (see `session`). Whoever fills a queue never waits: a connection that
//! doesn't drain its own is cut, and what it didn't get stays in the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

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
const KEPT: usize = 4;

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

/// What a connection finds in its queue.
#[derive(Debug)]
pub(crate) enum Taken {
    Out(Out),
    /// Nothing; its task is woken when there is something.
    Nothing,
    /// It didn't drain its queue, which overflowed.
    Cut,
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
}

/// Not a channel, whose first block alone would be as large as all else of a connection at rest.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    memory: Memory,
}

#[derive(Debug, Default)]
struct Queue {
    outs: VecDeque<Out>,
    /// Frames, and bytes of the envelopes among them, that are queued or were taken and aren't written.
    frames: usize,
    bytes: usize,
    /// Nobody drains it any more.
    closed: bool,
    cut: bool,
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
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        memory,
    });
    let outbox = Outbox {
        shared: Arc::clone(&shared),
    };
    (outbox, Outgoing { shared })
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
        if queue.closed || queue.cut {
            return Err(Gone);
        }
        let fits = queue.frames < FRAMES && queue.bytes + bytes <= BYTES;
        if fits {
            queue.frames += 1;
            queue.bytes += bytes;
            if bytes > 0 {
                self.shared.memory.take(bytes);
            }
            queue.outs.push_back(out);
        } else {
            queue.cut = true;
        }
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        if fits { Ok(()) } else { Err(Gone) }
    }
}

impl Outgoing {
    /// The connection is at work and will look by itself: it needn't be woken.
    pub(crate) fn attend(&mut self) {
        self.shared.queue().waker = None;
    }

    /// What is next. What is taken counts until it is [`Outgoing::written`].
    pub(crate) fn take(&mut self, context: &mut Context<'_>) -> Taken {
        let mut queue = self.shared.queue();
        if queue.cut {
            return Taken::Cut;
        }
        if let Some(out) = queue.outs.pop_front() {
            return Taken::Out(out);
        }
        queue.outs.shrink_to(KEPT);
        queue.waker = Some(context.waker().clone());
        Taken::Nothing
    }

    /// So many frames, with so many bytes of envelopes, are written.
    pub(crate) fn written(&mut self, frames: usize, bytes: usize) {
        let mut queue = self.shared.queue();
        queue.frames = queue.frames.saturating_sub(frames);
        let bytes = bytes.min(queue.bytes);
        queue.bytes -= bytes;
        drop(queue);
        if bytes > 0 {
            self.shared.memory.give(bytes);
        }
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

    fn take(outgoing: &mut Outgoing) -> Taken {
        outgoing.take(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_overflowing_connection_is_cut() {
        let (outbox, mut outgoing) = outbox(Memory::default());
        for _ in 0..FRAMES {
            outbox.deliver(RelayFrame::Displaced, 1).unwrap();
        }
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 1), Err(Gone));
        assert!(matches!(take(&mut outgoing), Taken::Cut));
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 1), Err(Gone));
    }

    #[test]
    fn bytes_overflow_too_and_count_until_they_are_written() {
        let (outbox, mut outgoing) = outbox(Memory::default());
        outbox.deliver(RelayFrame::Displaced, BYTES).unwrap();
        assert!(matches!(take(&mut outgoing), Taken::Out(Out::Deliver(..))));
        outgoing.written(1, BYTES);
        outbox.deliver(RelayFrame::Displaced, BYTES).unwrap();
        assert!(matches!(take(&mut outgoing), Taken::Out(Out::Deliver(..))));
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 1), Err(Gone));
        assert!(matches!(take(&mut outgoing), Taken::Cut));
    }

    #[test]
    fn a_connection_that_ends_gives_back_the_memory_of_what_it_didnt_write() {
        let memory = Memory::default();
        let (outbox, mut outgoing) = outbox(memory.clone());
        for _ in 0..3 {
            outbox.deliver(RelayFrame::Displaced, 100).unwrap();
        }
        assert!(matches!(take(&mut outgoing), Taken::Out(_)));
        outgoing.written(1, 100);
        assert!(matches!(take(&mut outgoing), Taken::Out(_)));
        assert_eq!(memory.used(), 200);
        drop(outgoing);
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 100), Err(Gone));
        assert_eq!(memory.used(), 0);
    }
}
