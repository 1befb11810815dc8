//! A gate for tests that says what it was told to say, and keeps what it was asked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::local::{Answer, Question};

/// What it does after its answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    HangsUp,
    Waits,
}

pub(crate) struct Scripted {
    folder: TempDir,
    asked: Arc<Mutex<Vec<Question>>>,
    /// Told when somebody asked.
    pub(crate) heard: Arc<Notify>,
    /// Told when whoever asked went away.
    pub(crate) left: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Scripted {
    /// Answers each question with what `answers` makes of it.
    pub(crate) fn gate(then: Then, answers: impl Fn(&Question) -> Vec<Answer> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("gate.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (answers, kept) = (Arc::new(answers), Arc::clone(&asked));
        let (came, gone) = (Arc::clone(&heard), Arc::clone(&left));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, kept) = (Arc::clone(&answers), Arc::clone(&kept));
                let (came, gone) = (Arc::clone(&came), Arc::clone(&gone));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap();
                    let question: Question = serde_json::from_str(&line).unwrap();
                    let answers = answers(&question);
                    kept.lock().unwrap().push(question);
                    came.notify_one();
                    for answer in answers {
                        let mut line = serde_json::to_vec(&answer).unwrap();
                        line.push(b'\n');
                        if stream.write_all(&line).await.is_err() {
                            break;
                        }
                    }
                    if then == Then::Waits {
                        let _ = stream.read_u8().await;
                        gone.notify_one();
                    }
                });
            }
        });
        Self {
            folder,
            asked,
            heard,
            left,
            server,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("gate.sock")
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}
