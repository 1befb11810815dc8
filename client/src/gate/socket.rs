//! The gate's door on its own machine: a unix socket that only its own user gets through. Reads one question, does what is slow about it, hands it to
//! the engine, and writes the answers. Decides nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::prepare::{How, prepare, prepare_again};
use super::{Event, GateError, Prepared, pairing};
use crate::link::LinkHandle;
use crate::local::{Answer, Confirm, Fault, MAX_LINE, Question};

/// How long a local program may take to say what it wants.
const QUESTION_DEADLINE: Duration = Duration::from_secs(5);

/// Local connections at once.
const CONNECTIONS: usize = 256;

/// Answers that wait for a local program; its command's output waits with them.
const ANSWERS: usize = 64;

/// What the door leads to.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) link: LinkHandle,
    pub(super) seed: pairing::Seed,
    /// The gate's home, which no command gets to see.
    pub(super) hide: Arc<Path>,
}

/// Opens the socket, replacing one that a dead gate left: the home's lock says that there is no living one.
pub(super) fn listen(path: &Path) -> Result<UnixListener, GateError> {
    let failed = |source| GateError::Socket {
        path: path.display().to_string(),
        source,
    };
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Takes connections until it is aborted.
pub(super) async fn accept(listener: UnixListener, doors: Doors) {
    static CLIENTS: AtomicU64 = AtomicU64::new(1);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                // The folder's mode keeps others out already; this holds even where somebody loosened it.
                let own = stream
                    .peer_cred()
                    .is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw());
                if !own {
                    tracing::warn!("a connection by another user was refused");
                    continue;
                }
                let (doors, client) = (doors.clone(), CLIENTS.fetch_add(1, Ordering::Relaxed));
                tokio::spawn(async move {
                    talk(stream, doors, client).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't take a local connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk(stream: UnixStream, doors: Doors, client: u64) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let (answers, mut outgoing) = mpsc::channel::<Answer>(ANSWERS);
    let writer = tokio::spawn(async move {
        while let Some(answer) = outgoing.recv().await {
            let Ok(mut line) = serde_json::to_vec(&answer) else {
                break;
            };
            line.push(b'\n');
            if write.write_all(&line).await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    });
    let question = match tokio::time::timeout(QUESTION_DEADLINE, line::<Question>(&mut read)).await {
        Ok(Ok(Some(question))) => question,
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(message)) => {
            drop(
                answers
                    .send(Answer::Error {
                        kind: Fault::Invalid,
                        message,
                        hint: None,
                    })
                    .await,
            );
            drop(answers);
            let _ = writer.await;
            return;
        }
    };
    match question {
        Question::Invite {
            person,
            role,
            minutes,
            quorum,
        } => {
            let (confirm, confirms) = mpsc::channel(1);
            let wish = pairing::Wish {
                person,
                role,
                minutes,
                quorum,
            };
            let inviting = pairing::invite(doors.seed, doors.link, doors.events, wish, answers, confirms);
            let confirming = async {
                while let Ok(Some(Confirm { confirm: yes })) = line::<Confirm>(&mut read).await {
                    if confirm.send(yes).await.is_err() {
                        break;
                    }
                }
                // Gone: an invite that nobody can confirm ends by its own channel closing.
                drop(confirm);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = inviting => {}
                () = confirming => {}
            }
        }
        Question::Ask(_) | Question::Request(_) | Question::Explain(_) | Question::Redeem { .. } => {
            let hide = Arc::clone(&doors.hide);
            match tokio::task::spawn_blocking(move || bound(question, &hide)).await {
                Ok(Ok(question)) => wait(&mut read, &doors, client, question, answers).await,
                Ok(Err(answer)) => drop(answers.send(*answer).await),
                Err(_) => {}
            }
        }
        other => wait(&mut read, &doors, client, Prepared::Other(Box::new(other)), answers).await,
    }
    let _ = writer.await;
}

/// Does what is slow: looks programs up, reads and hashes files.
fn bound(question: Question, hide: &Path) -> Result<Prepared, Box<Answer>> {
    Ok(match question {
        Question::Ask(ask) => Prepared::Ask(Box::new(prepare(*ask, How::Waiting, hide)?)),
        Question::Request(ask) => Prepared::Request(Box::new(prepare(*ask, How::Asynchronous, hide)?)),
        Question::Explain(ask) => Prepared::Explain(Box::new(prepare(*ask, How::Asynchronous, hide)?)),
        Question::Redeem { id, what } => Prepared::Redeem(Box::new(prepare_again(id, *what, hide)?)),
        other => Prepared::Other(Box::new(other)),
    })
}

/// Hands the question over and waits for the program to hang up or for the last answer.
async fn wait(
    read: &mut (impl AsyncRead + Unpin),
    doors: &Doors,
    client: u64,
    question: Prepared,
    answers: mpsc::Sender<Answer>,
) {
    let closed = answers.clone();
    if doors
        .events
        .send(Event::Local {
            client,
            question,
            answers,
        })
        .await
        .is_err()
    {
        return;
    }
    let closed = closed.downgrade();
    let mut rest = [0; 64];
    loop {
        tokio::select! {
            got = read.read(&mut rest) => if !matches!(got, Ok(count) if count > 0) { break },
            () = tokio::time::sleep(Duration::from_millis(200)) => if closed.strong_count() == 0 { return },
        }
    }
    let _ = doors.events.send(Event::Left(client)).await;
}

/// Reads one JSON line. `None` at the end of the stream.
async fn line<T: serde::de::DeserializeOwned>(read: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Option<T>, String> {
    let mut bytes = Vec::new();
    let mut limited = read.take(MAX_LINE as u64);
    limited
        .read_until(b'\n', &mut bytes)
        .await
        .map_err(|error| error.to_string())?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() != Some(&b'\n') {
        return Err(format!("a question longer than {MAX_LINE} bytes, or cut short"));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| format!("not a question: {error}"))
}
