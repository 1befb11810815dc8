//! A steady stream of askers: each asks for one command that leaves one new file with its own token in the name each time it runs, so that the
//! number of files is the number of runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use countersign_tests::process::{Asking, Bell};

/// What an asker was told at the end.
pub(crate) struct Told {
    /// Which command it was.
    pub(crate) token: u64,
    /// Whether the gate took the request.
    pub(crate) pending: bool,
    /// The exit code of `countersign run`.
    pub(crate) code: Option<i32>,
    /// Its words.
    pub(crate) stderr: String,
}

struct Shared {
    gate: PathBuf,
    marks: PathBuf,
    bell: Bell,
    next: AtomicU64,
    stop: AtomicBool,
    told: Mutex<Vec<Told>>,
}

/// The askers, until they are stopped.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    askers: Vec<JoinHandle<()>>,
}

/// How a token is written in a command and in a file's name.
pub(crate) fn mark(token: u64) -> String {
    format!("token{token:06}")
}

impl Stream {
    /// Starts so many askers at a time of one gate.
    pub(crate) fn begin(gate: &Path, marks: &Path, bell: &Bell, askers: usize) -> Self {
        std::fs::create_dir_all(marks).expect("a folder for the marks");
        let shared = Arc::new(Shared {
            gate: gate.to_owned(),
            marks: marks.to_owned(),
            bell: bell.clone(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            told: Mutex::default(),
        });
        let askers = (0..askers)
            .map(|_| Arc::clone(&shared))
            .map(|shared| std::thread::spawn(move || shared.ask_on()))
            .collect();
        Self { shared, askers }
    }

    /// The token that is asked for next.
    pub(crate) fn next(&self) -> u64 {
        self.shared.next.load(Ordering::SeqCst)
    }

    /// Whether a command that was asked for from this token on has run and its asker knows.
    pub(crate) fn has_run_since(&self, token: u64) -> bool {
        // An asker that gave up found a bug and says so.
        assert!(
            self.askers.iter().all(|asker| !asker.is_finished()),
            "an asker ended by itself"
        );
        let told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().any(|told| told.token >= token && told.code == Some(0))
    }

    /// Lets everybody wait for their last answer, and gives all that was told.
    pub(crate) fn finish(self) -> Vec<Told> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for asker in self.askers {
            if let Err(cause) = asker.join() {
                std::panic::resume_unwind(cause);
            }
        }
        std::mem::take(&mut *self.shared.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    fn ask_on(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let token = self.next.fetch_add(1, Ordering::SeqCst);
            let file = format!("{}.XXXXXX", mark(token));
            let marks = self.marks.to_string_lossy();
            let before = self.bell.count();
            // An admin who never answers would be noticed long before this expiry; a request whose asker never heard of it ends by it.
            let mut asking = Asking::of(
                &self.gate,
                &["--expires", "60"],
                &["/usr/bin/mktemp", &format!("--tmpdir={marks}"), &file],
                &self.bell,
            );
            let code = asking.code();
            let stderr = asking.process.stderr();
            let pending = stderr.contains("waiting for");
            if !pending {
                // The gate is away: something has to happen before it is worth asking again.
                self.bell
                    .wait_beyond(before.saturating_add(2), Duration::from_millis(20));
            }
            self.told.lock().unwrap_or_else(PoisonError::into_inner).push(Told {
                token,
                pending,
                code,
                stderr,
            });
        }
    }
}
