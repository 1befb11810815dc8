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

/// Whoever waits for no more answers than this may be waiting for each.
const FEW: usize = 8;

/// So many answers aren't kept waiting.
const MANY: usize = 64;

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
    /// Requests that aren't answered or whose answer isn't written, and answers that can wait for others.
    owed: usize,
    waiting: usize,
    /// What is queued is to be written: there is something in it that can't wait, or enough that can.
    due: bool,
    /// Nothing waits for others any more.
    hurries: bool,
    /// Somebody will wake the connection soon.
    soon: bool,
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
        wake(self.push(Out::Answer(frame)));
    }

    /// Queues an envelope of so many bytes.
    pub(crate) fn deliver(&self, frame: RelayFrame, bytes: usize) -> Result<(), Gone> {
        self.queue(Out::Deliver(frame, bytes)).map(|waker| wake(Ok(waker)))
    }

    /// Tells the connection that it isn't the reader any more.
    pub(crate) fn displaced(&self) {
        wake(self.push(Out::Displaced));
    }

    /// Tells the connection to close.
    pub(crate) fn close(&self, why: Close) {
        wake(self.push(Out::Close(why)));
    }

    /// Queues something, and leaves it to the caller to wake the connection, when there is no more to queue.
    pub(crate) fn queue(&self, out: Out) -> Result<Option<Waker>, Gone> {
        self.push(out)
    }

    /// Queues an answer that needn't go out by itself: each write wakes the other side. To whoever waits for few it goes when half of
    /// them are there, and to whoever streams when there are many, or all, or something that can't wait. Says whom to wake, or that the
    /// queue should be [`Outbox::nudge`]d soon.
    pub(crate) fn answer_soon(&self, frame: RelayFrame) -> Soon {
        let mut queue = self.shared.queue();
        let pushed = queue.push(Out::Answer(frame), &self.shared.memory);
        if pushed.is_err() {
            return Soon::Wake(queue.waker.take());
        }
        queue.waiting += 1;
        let few = queue.owed <= FEW && queue.waiting * 2 >= queue.owed;
        if queue.due || few || queue.waiting >= MANY.min(queue.owed) {
            queue.due = true;
            return Soon::Wake(queue.waker.take());
        }
        if std::mem::replace(&mut queue.soon, true) {
            Soon::Wake(None)
        } else {
            Soon::Nudge
        }
    }

    /// What waits for others has waited long enough. Says whom to wake.
    pub(crate) fn nudge(&self) -> Option<Waker> {
        let mut queue = self.shared.queue();
        queue.soon = false;
        if queue.waiting == 0 {
            return None;
        }
        queue.due = true;
        queue.waker.take()
    }

    fn push(&self, out: Out) -> Result<Option<Waker>, Gone> {
        let mut queue = self.shared.queue();
        let pushed = queue.push(out, &self.shared.memory);
        queue.due = true;
        let waker = queue.waker.take();
        drop(queue);
        match pushed {
            Ok(()) => Ok(waker),
            Err(gone) => {
                // To hear that it is cut.
                wake(Ok(waker));
                Err(gone)
            }
        }
    }
}

/// What to do about an answer that needn't go out by itself.
#[derive(Debug)]
pub(crate) enum Soon {
    Wake(Option<Waker>),
    Nudge,
}

impl Queue {
    fn push(&mut self, out: Out, memory: &Memory) -> Result<(), Gone> {
        if self.closed || self.cut {
            return Err(Gone);
        }
        let bytes = if let Out::Deliver(_, bytes) = &out { *bytes } else { 0 };
        if self.frames >= FRAMES || self.bytes + bytes > BYTES {
            self.cut = true;
            return Err(Gone);
        }
        self.frames += 1;
        self.bytes += bytes;
        if bytes > 0 {
            memory.take(bytes);
        }
        self.outs.push_back(out);
        Ok(())
    }
}

fn wake(pushed: Result<Option<Waker>, Gone>) {
    if let Ok(Some(waker)) = pushed {
        waker.wake();
    }
}

impl Outgoing {
    /// The connection is at work and will look by itself: it needn't be woken. Says whether it was cut, because it didn't drain its
    /// queue, which overflowed.
    pub(crate) fn attend(&mut self) -> Result<(), Gone> {
        let mut queue = self.shared.queue();
        queue.waker = None;
        if queue.cut { Err(Gone) } else { Ok(()) }
    }

    /// So many requests were read that want an answer.
    pub(crate) fn owes(&mut self, requests: usize) {
        self.shared.queue().owed += requests;
    }

    /// Moves all that is queued into `taken`, which is empty, if any of it is to be written now. What is taken counts until it is
    /// [`Outgoing::written`]. If there is nothing, the connection is woken when there is.
    pub(crate) fn take(&mut self, taken: &mut VecDeque<Out>, context: &mut Context<'_>) {
        let mut queue = self.shared.queue();
        if queue.outs.is_empty() || !(queue.due || queue.hurries) {
            queue.waker = Some(context.waker().clone());
        } else {
            (queue.due, queue.waiting) = (false, 0);
            std::mem::swap(&mut queue.outs, taken);
        }
    }

    /// From now on no answer waits for others: the connection ends.
    pub(crate) fn hurry(&mut self) {
        self.shared.queue().hurries = true;
    }

    /// So many frames, so many of them answers, with so many bytes of envelopes, are written.
    pub(crate) fn written(&mut self, frames: usize, answers: usize, bytes: usize) {
        let mut queue = self.shared.queue();
        queue.frames = queue.frames.saturating_sub(frames);
        queue.owed = queue.owed.saturating_sub(answers);
        let bytes = bytes.min(queue.bytes);
        queue.bytes -= bytes;
        drop(queue);
        if bytes > 0 {
            self.shared.memory.give(bytes);
        }
    }

    /// Gives back the room that a burst needed.
    pub(crate) fn rest(&mut self) {
        self.shared.queue().outs.shrink_to(KEPT);
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

    fn take(outgoing: &mut Outgoing) -> VecDeque<Out> {
        let mut taken = VecDeque::new();
        outgoing.take(&mut taken, &mut Context::from_waker(Waker::noop()));
        taken
    }

    #[test]
    fn an_overflowing_connection_is_cut() {
        let (outbox, mut outgoing) = outbox(Memory::default());
        for _ in 0..FRAMES {
            outbox.deliver(RelayFrame::Displaced, 1).unwrap();
        }
        assert_eq!(outgoing.attend(), Ok(()));
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 1), Err(Gone));
        assert_eq!(outgoing.attend(), Err(Gone));
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 1), Err(Gone));
    }

    #[test]
    fn bytes_overflow_too_and_count_until_they_are_written() {
        let (outbox, mut outgoing) = outbox(Memory::default());
        outbox.deliver(RelayFrame::Displaced, BYTES).unwrap();
        assert_eq!(take(&mut outgoing).len(), 1);
        outgoing.written(1, 0, BYTES);
        outbox.deliver(RelayFrame::Displaced, BYTES).unwrap();
        assert_eq!(take(&mut outgoing).len(), 1);
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 1), Err(Gone));
        assert_eq!(outgoing.attend(), Err(Gone));
    }

    #[test]
    fn a_connection_that_ends_gives_back_the_memory_of_what_it_didnt_write() {
        let memory = Memory::default();
        let (outbox, mut outgoing) = outbox(memory.clone());
        for _ in 0..3 {
            outbox.deliver(RelayFrame::Displaced, 100).unwrap();
        }
        assert_eq!(take(&mut outgoing).len(), 3);
        outgoing.written(1, 0, 100);
        assert_eq!(memory.used(), 200);
        drop(outgoing);
        assert_eq!(outbox.deliver(RelayFrame::Displaced, 100), Err(Gone));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn an_answer_that_can_wait_waits_for_others_or_a_nudge() {
        let (outbox, mut outgoing) = outbox(Memory::default());
        let answer = || outbox.answer_soon(RelayFrame::Displaced);
        outgoing.owes(1);
        assert!(take(&mut outgoing).is_empty());
        // The only one, which somebody may be waiting for.
        assert!(matches!(answer(), Soon::Wake(Some(_))));
        take(&mut outgoing);
        outgoing.written(1, 1, 0);
        outgoing.owes(8);
        assert!(take(&mut outgoing).is_empty());
        assert!(matches!(answer(), Soon::Nudge));
        assert!(matches!(answer(), Soon::Wake(None)));
        // Also if the connection is at work for another reason.
        assert!(take(&mut outgoing).is_empty());
        assert!(outbox.nudge().is_some());
        assert_eq!(take(&mut outgoing).len(), 2);
        outgoing.written(2, 2, 0);
        assert!(take(&mut outgoing).is_empty());
        assert!(outbox.nudge().is_none());
        for _ in 0..2 {
            assert!(matches!(answer(), Soon::Nudge | Soon::Wake(None)));
        }
        assert!(matches!(answer(), Soon::Wake(Some(_))));
        take(&mut outgoing);
        outgoing.written(3, 3, 0);
        // Whoever streams hears of many at a time.
        outgoing.owes(MANY);
        assert!(take(&mut outgoing).is_empty());
        for _ in 1..MANY {
            assert!(matches!(answer(), Soon::Nudge | Soon::Wake(None)));
        }
        assert!(matches!(answer(), Soon::Wake(Some(_))));
        take(&mut outgoing);
        outgoing.written(MANY, MANY, 0);
        // And of the last as soon as there are no more: three were owed before.
        outgoing.owes(17);
        assert!(take(&mut outgoing).is_empty());
        for _ in 1..20 {
            assert!(matches!(answer(), Soon::Nudge | Soon::Wake(None)));
        }
        assert!(matches!(answer(), Soon::Wake(Some(_))));
    }

    #[test]
    fn an_answer_that_can_wait_goes_with_what_cant_and_at_the_end() {
        let (outbox, mut outgoing) = outbox(Memory::default());
        let answer = || outbox.answer_soon(RelayFrame::Displaced);
        outgoing.owes(100);
        assert!(take(&mut outgoing).is_empty());
        assert!(matches!(answer(), Soon::Nudge));
        outbox.deliver(RelayFrame::Displaced, 1).unwrap();
        assert_eq!(take(&mut outgoing).len(), 2);
        assert!(matches!(answer(), Soon::Wake(None)));
        assert!(take(&mut outgoing).is_empty());
        outgoing.hurry();
        assert_eq!(take(&mut outgoing).len(), 1);
    }
}
