//! The file in which a whole transcript travels: written entry by entry, and verified entry by entry without anything
//! else at hand.
//!
//! PROTOCOL.md 15. Which entries are right is said by [`crate::replay`]; a single approval has a file of its own, in
//! [`crate::proof`]. Every byte of a file is determined by what it says, so every changed byte is found.

use std::io::{self, BufRead, Read, Write};

use thiserror::Error;
use wire::identity::PartyId;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::replay::{Entry, Finding, Replay};
use crate::scalar::Time;
use crate::statement::Signed;
use crate::transcript::Log;

mod summary;

pub use summary::{Summary, Tally};

/// Bytes of a line, its line feed included: one statement and its index.
pub const LINE_BYTES: usize = 64 * 1024;

/// How every export begins.
const BEGINNING: &str = r#"{"countersign":"transcript","#;

/// Why a file isn't believed. Only the first thing that is wrong is named.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The file can't be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Something else than an export.
    #[error("not an exported transcript")]
    NotAnExport,
    /// The checkpoint that this file was to be compared with can't be used.
    #[error("the known checkpoint cannot be used: {0}")]
    Known(CheckpointError),
    /// The first line isn't spelled as it must be.
    #[error("the first line is not spelled as it must be")]
    Header,
    /// The file is another gate's.
    #[error("a transcript of the gate {found}, not of {expected}")]
    OtherGate {
        /// The gate that was expected.
        expected: PartyId,
        /// The gate that the file names.
        found: PartyId,
    },
    /// An entry may not stand where it stands.
    #[error(transparent)]
    Entry(Finding),
    /// The line where an entry must be isn't spelled as that entry's line.
    #[error("entry {index}: the line is not spelled as this entry's")]
    Line {
        /// The entry.
        index: u64,
    },
    /// The file ends, or goes on with its checkpoint, before this entry.
    #[error("entry {index}: missing, although the first line announces {size} entries")]
    Missing {
        /// The first entry that isn't there.
        index: u64,
        /// The number that the first line says.
        size: u64,
    },
    /// The last line isn't there or isn't spelled as it must be.
    #[error("the last line is not spelled as a checkpoint's")]
    CheckpointLine,
    /// The checkpoint isn't the gate's.
    #[error("the last line: {0}")]
    Checkpoint(CheckpointError),
    /// The gate signed another number of entries.
    #[error("the checkpoint is over {signed} entries, the file holds {size}")]
    CheckpointSize {
        /// What the gate signed.
        signed: u64,
        /// What the file holds.
        size: u64,
    },
    /// The gate signed other entries.
    #[error("the entries are not those that the gate has signed")]
    CheckpointRoot,
    /// Bytes after the last line.
    #[error("the file goes on after its checkpoint")]
    Trailing,
    /// The gate signed two histories.
    #[error("the gate has signed two histories: the first {size} entries are not those of the known checkpoint")]
    Fork {
        /// The size of the known checkpoint.
        size: u64,
    },
    /// The file ends before the known checkpoint.
    #[error("the file ends after {size} entries, but the gate has signed {known}")]
    Shorter {
        /// The size of the known checkpoint.
        known: u64,
        /// What the file holds.
        size: u64,
    },
}

impl ExportError {
    /// True if nothing can be said about the transcript, because there is none to read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Read(_) | Self::NotAnExport | Self::Known(_))
    }

    /// The first wrong entry, where it is one entry that is wrong.
    #[must_use]
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::Entry(finding) => Some(finding.index),
            Self::Line { index } | Self::Missing { index, .. } => Some(*index),
            _ => None,
        }
    }
}

/// What the reader of a file knows already.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// The gate whose transcript it must be.
    pub gate: Option<PartyId>,
    /// The text of a checkpoint of the same gate: the transcript must contain the log that it was made over.
    pub checkpoint: Option<String>,
}

/// Writes an export, entry by entry.
pub struct ExportWriter<W> {
    out: W,
    gate: PartyId,
    size: u64,
    log: Log,
}

impl<W: Write> ExportWriter<W> {
    /// Begins an export of so many entries.
    ///
    /// # Errors
    /// If `out` can't be written.
    pub fn new(mut out: W, gate: PartyId, size: u64) -> io::Result<Self> {
        out.write_all(header(&gate, size).as_bytes())?;
        Ok(Self {
            out,
            gate,
            size,
            log: Log::new(),
        })
    }

    /// Writes the next entry.
    ///
    /// # Errors
    /// If `out` can't be written.
    pub fn entry(&mut self, statement: &Signed) -> io::Result<()> {
        let index = self.log.append(statement.as_bytes());
        self.out.write_all(entry_line(index, statement.as_str()).as_bytes())
    }

    /// Writes the last line and flushes.
    ///
    /// # Errors
    /// If `out` can't be written, or the checkpoint isn't over the entries that were: nobody would believe such a file.
    pub fn finish(mut self, checkpoint: &Checkpoint) -> io::Result<W> {
        let signed = (*checkpoint.gate(), checkpoint.size(), checkpoint.root());
        if signed != (self.gate, self.log.size(), self.log.root()) || self.size != self.log.size() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the checkpoint is not over the entries written",
            ));
        }
        self.out.write_all(checkpoint_line(checkpoint.as_str())?.as_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn header(gate: &PartyId, size: u64) -> String {
    format!("{BEGINNING}\"v\":1,\"gate\":\"{gate}\",\"size\":{size}}}\n")
}

fn entry_line(index: u64, statement: &str) -> String {
    format!("{{\"index\":{index},\"statement\":{statement}}}\n")
}

fn checkpoint_line(checkpoint: &str) -> io::Result<String> {
    Ok(format!("{{\"checkpoint\":{}}}\n", serde_json::to_string(checkpoint)?))
}

fn read_header(line: &str) -> Option<(PartyId, u64)> {
    let (gate, size) = line
        .strip_prefix(BEGINNING)?
        .strip_prefix("\"v\":1,\"gate\":\"")?
        .split_once("\",\"size\":")?;
    let (gate, size) = (gate.parse().ok()?, size.strip_suffix("}\n")?.parse().ok()?);
    (header(&gate, size) == line).then_some((gate, size))
}

fn read_checkpoint_line(line: &str) -> Option<String> {
    let text: String = serde_json::from_str(line.strip_prefix("{\"checkpoint\":")?.strip_suffix("}\n")?).ok()?;
    (checkpoint_line(&text).ok()? == line).then_some(text)
}

/// Verifies an export from its first to its last byte.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(reader: impl BufRead, expect: &Expect) -> Result<Summary, ExportError> {
    let mut export = ExportReader::open(reader, expect)?;
    loop {
        match export.next_step()? {
            Next::Entry(_) => {}
            Next::End(summary) => return Ok(*summary),
        }
    }
}

/// Reads and verifies an export, entry by entry. Nothing that it gives is to be believed as a whole before the end came.
#[derive(Debug, Clone)]
pub struct ExportReader<R> {
    reader: R,
    gate: PartyId,
    size: u64,
    known: Option<Checkpoint>,
    replay: Replay,
    first: Option<Time>,
    tally: Tally,
}

/// What comes next in an export.
#[derive(Debug)]
pub enum Next {
    /// An entry that may stand where it stands.
    Entry(Box<Entry>),
    /// Everything holds.
    End(Box<Summary>),
}

impl<R: BufRead> ExportReader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// [`ExportError`] if it isn't an export's, or not of the expected gate.
    pub fn open(mut reader: R, expect: &Expect) -> Result<Self, ExportError> {
        let line = read_line(&mut reader)?.ok_or(ExportError::NotAnExport)?;
        if !line.starts_with(BEGINNING) {
            return Err(ExportError::NotAnExport);
        }
        let (gate, size) = read_header(&line).ok_or(ExportError::Header)?;
        if let Some(expected) = expect.gate.filter(|expected| *expected != gate) {
            return Err(ExportError::OtherGate { expected, found: gate });
        }
        let known = match &expect.checkpoint {
            Some(text) => Some(Checkpoint::verify(text, &gate).map_err(ExportError::Known)?),
            None => None,
        };
        let replay = Replay::new(Some(gate));
        Ok(Self {
            reader,
            gate,
            size,
            known,
            replay,
            first: None,
            tally: Tally::default(),
        })
    }

    /// The gate that the file names.
    #[must_use]
    pub fn gate(&self) -> PartyId {
        self.gate
    }

    /// Number of entries that the first line announces.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The state after the entries read so far.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Reads and verifies the next entry, or everything after the last one.
    ///
    /// # Errors
    /// The first thing that is wrong; nothing after it means anything.
    pub fn next_step(&mut self) -> Result<Next, ExportError> {
        let index = self.replay.size();
        if index == self.size && index > 0 {
            return self.end().map(|summary| Next::End(Box::new(summary)));
        }
        let missing = ExportError::Missing { index, size: self.size };
        let line = match read_line(&mut self.reader) {
            Ok(Some(line)) if line.starts_with("{\"checkpoint\":") => return Err(missing),
            Ok(Some(line)) => line,
            Ok(None) => return Err(missing),
            Err(LineError::Read(error)) => return Err(error.into()),
            Err(LineError::Spelling) => return Err(ExportError::Line { index }),
        };
        let spelling = ExportError::Line { index };
        let Some(leaf) = line.strip_prefix(&format!("{{\"index\":{index},\"statement\":")) else {
            return Err(spelling);
        };
        let leaf = leaf.strip_suffix("}\n").ok_or(spelling)?;
        let entry = self.replay.next(leaf.as_bytes()).map_err(ExportError::Entry)?;
        self.tally.count(&entry);
        self.first = self.first.or(self.replay.time());
        self.compare_with_known()?;
        Ok(Next::Entry(Box::new(entry)))
    }

    fn end(&mut self) -> Result<Summary, ExportError> {
        let line = match read_line(&mut self.reader) {
            Ok(Some(line)) => line,
            Err(LineError::Read(error)) => return Err(error.into()),
            Ok(None) | Err(LineError::Spelling) => return Err(ExportError::CheckpointLine),
        };
        let text = read_checkpoint_line(&line).ok_or(ExportError::CheckpointLine)?;
        let checkpoint = Checkpoint::verify(&text, &self.gate).map_err(ExportError::Checkpoint)?;
        if checkpoint.size() != self.size {
            return Err(ExportError::CheckpointSize {
                signed: checkpoint.size(),
                size: self.size,
            });
        }
        if checkpoint.root() != self.replay.root() {
            return Err(ExportError::CheckpointRoot);
        }
        if !self.reader.fill_buf()?.is_empty() {
            return Err(ExportError::Trailing);
        }
        if let Some(known) = self.known.as_ref().filter(|known| known.size() > self.size) {
            return Err(ExportError::Shorter {
                known: known.size(),
                size: self.size,
            });
        }
        Ok(self.summary(checkpoint))
    }

    fn summary(&self, checkpoint: Checkpoint) -> Summary {
        let mut requests = self.tally;
        self.replay.open().for_each(|pending| requests.count_pending(pending));
        let (people, admins) = self
            .replay
            .roster()
            .map_or((0, 0), |roster| (roster.people.len(), roster.admins().count()));
        Summary {
            gate: self.gate,
            size: checkpoint.size(),
            root: checkpoint.root(),
            checkpoint: checkpoint.as_str().to_owned(),
            people,
            admins,
            first: self.first,
            last: self.replay.time(),
            requests,
        }
    }

    fn compare_with_known(&self) -> Result<(), ExportError> {
        match &self.known {
            Some(known) if known.size() == self.replay.size() && known.root() != self.replay.root() => {
                Err(ExportError::Fork { size: known.size() })
            }
            _ => Ok(()),
        }
    }
}

/// The text of the checkpoint in an export, or in a file that is one. Nothing is verified: whoever uses it does, against a
/// gate.
///
/// # Errors
/// [`ExportError::Read`], or [`ExportError::NotAnExport`] for any other file.
pub fn find_checkpoint(mut reader: impl BufRead) -> Result<String, ExportError> {
    let mut last = read_line(&mut reader)?.ok_or(ExportError::NotAnExport)?;
    if !last.starts_with(BEGINNING) {
        // A checkpoint, then; how long it may be is for its reader to say.
        let mut rest = String::new();
        let read = reader
            .take(crate::checkpoint::MAX_CHECKPOINT as u64 + 1)
            .read_to_string(&mut rest);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ExportError::NotAnExport,
            _ => error.into(),
        })?;
        return Ok(last + &rest);
    }
    while let Some(line) = read_line(&mut reader)? {
        last = line;
    }
    read_checkpoint_line(&last).ok_or(ExportError::NotAnExport)
}

enum LineError {
    Read(io::Error),
    /// Too long, or not UTF-8.
    Spelling,
}

impl From<LineError> for ExportError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Read(error) => Self::Read(error),
            LineError::Spelling => Self::NotAnExport,
        }
    }
}

/// One line with its line feed; `None` at the end. Never holds more than the longest line in memory.
fn read_line(reader: &mut impl BufRead) -> Result<Option<String>, LineError> {
    let mut line = Vec::new();
    let bound = LINE_BYTES as u64 + 1;
    reader
        .by_ref()
        .take(bound)
        .read_until(b'\n', &mut line)
        .map_err(LineError::Read)?;
    if line.len() > LINE_BYTES {
        return Err(LineError::Spelling);
    }
    let line = String::from_utf8(line).map_err(|_| LineError::Spelling)?;
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
