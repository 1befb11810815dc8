//! What a process has written so far, and waiting for more of it without sleeping. Not here: who wrote it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything from one stream, as a thread of its own reads it.
#[derive(Clone, Default)]
pub struct Heard {
    inner: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Heard {
    /// Begins to read.
    pub fn listen(mut from: impl Read + Send + 'static) -> Self {
        let heard = Self::default();
        let told = heard.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last process is gone answers with an error: that is its end.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                told.note(|state| state.bytes.extend_from_slice(&buffer[..count]));
            }
            told.note(|state| state.ended = true);
        });
        heard
    }

    fn note(&self, what: impl FnOnce(&mut State)) {
        what(&mut self.inner.0.lock().unwrap());
        self.inner.1.notify_all();
    }

    /// Waits until `found` makes something of the bytes from `from` on. `None` when the stream ended or patience did.
    pub fn wait<T>(&self, from: usize, mut found: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.inner.0.lock().unwrap();
        loop {
            if let Some(found) = found(&state.bytes[from..]) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.inner.1.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Everything, once the stream has ended.
    pub fn to_end(&self) -> Vec<u8> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.inner.0.lock().unwrap();
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "it doesn't end: {}",
                String::from_utf8_lossy(&state.bytes)
            );
            state = self.inner.1.wait_timeout(state, left).unwrap().0;
        }
        state.bytes.clone()
    }

    /// What there is until now, for a failing test's words.
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.inner.0.lock().unwrap().bytes).into_owned()
    }
}
