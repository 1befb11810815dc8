//! The other end of the gate's socket: whoever asks on this machine, be it a command at the terminal, the HTTP door or the waker. One
//! connection is one question (`local`). Deliberately not here: what is shown of the answers.

use std::path::{Path, PathBuf};

use approval::outcome::{Ended, Exit};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::local::{Answer, MAX_LINE};

/// Exit code where Countersign itself failed, or stopped the command.
pub const FAILED: u8 = 125;
/// Exit code where something was not permitted.
pub const REFUSED: u8 = 126;

/// A connection to the gate on this machine.
pub struct Caller {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    /// The beginning of a line whose rest hasn't come: kept here, so that a `next` that is given up loses nothing.
    line: Vec<u8>,
}

/// Why the gate can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("the gate isn't running: {path}: {source}")]
    NoGate {
        /// Its socket.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Somebody else listens there.
    #[error("{path} belongs to another user's process")]
    Stranger {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the connection to the gate: {0}")]
    Broken(#[from] std::io::Error),
    /// The two programs don't understand each other.
    #[error("the gate's answer can't be read: {0}")]
    Garbled(#[from] serde_json::Error),
}

impl Caller {
    /// Connects to the gate that listens on this socket, and asks.
    ///
    /// # Errors
    /// [`CallError::NoGate`], [`CallError::Stranger`], or a connection that breaks at once.
    pub async fn open(path: &Path, question: &impl Serialize) -> Result<Self, CallError> {
        let no_gate = |source| CallError::NoGate {
            path: path.to_owned(),
            source,
        };
        let stream = UnixStream::connect(path).await.map_err(no_gate)?;
        if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
            return Err(CallError::Stranger { path: path.to_owned() });
        }
        let (read, write) = stream.into_split();
        let mut caller = Self {
            read: BufReader::new(read),
            write,
            line: Vec::new(),
        };
        caller.send(question).await?;
        Ok(caller)
    }

    /// Says something.
    ///
    /// # Errors
    /// [`CallError::Broken`].
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), CallError> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.write.write_all(&line).await?)
    }

    /// The next answer, `None` when the gate hung up. Can be given up and called again.
    ///
    /// # Errors
    /// [`CallError::Broken`] or [`CallError::Garbled`].
    pub async fn next(&mut self) -> Result<Option<Answer>, CallError> {
        // Output comes in pieces that are far smaller; a longer line isn't the gate's.
        let room = (2 * MAX_LINE).saturating_sub(self.line.len());
        (&mut self.read)
            .take(room as u64)
            .read_until(b'\n', &mut self.line)
            .await?;
        if self.line.last() != Some(&b'\n') {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.line);
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

/// What an end means to a shell: the command's own code, 128 and the signal that ended it, or why it never ran.
pub fn exit_code(result: &Ended) -> u8 {
    match result {
        Ended::Ran(ran) => match (ran.exit, ran.stopped) {
            (Exit::Code(code), None) => u8::try_from(code).unwrap_or(FAILED),
            (Exit::Signal(signal), None) => u8::try_from(signal).map_or(FAILED, |signal| signal.saturating_add(128)),
            // Our limit, not the command's own end.
            (_, Some(_)) => FAILED,
        },
        Ended::Released(_) => 0,
        Ended::Failed(_) | Ended::Unknown(_) => FAILED,
        Ended::Denied(_) | Ended::Expired(_) | Ended::Withdrawn(_) | Ended::Forbidden(_) => REFUSED,
    }
}

#[cfg(test)]
pub(crate) mod scripted;
