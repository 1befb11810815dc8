//! The auditor's commands: verify a file, show it, and take one approval out of it. They need the file and nothing else:
//! no network, no state, no trust in whoever carried it.
//!
//! PROTOCOL.md 10.4 and 15. The rules are in `approval`; exporting is the party's part. Files are read once and forward, so
//! that a transcript may be larger than the memory and may come through a pipe.

mod show;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, IsTerminal, Read, Write};
use std::path::Path;

use approval::checkpoint::Checkpoint;
use approval::export::{self, Expect, ExportError, ExportReader, Next, Summary};
use approval::proof::{self, ProofFileError, ProveError, Proven, Prover};
use approval::replay::Pending;
use approval::standing::Held;
use approval::{Statement, Verified};
use serde_json::{Value, json};
use wire::identity::PartyId;

/// Exit code: everything holds.
pub const HOLDS: u8 = 0;
/// Exit code: nothing can be said, because something can't be read or written.
pub const UNREADABLE: u8 = 1;
/// Exit code: it doesn't hold; the first thing that is wrong was named.
pub const BROKEN: u8 = 3;

/// What can be checked, for the line `hint:`.
const WANTED: &str = "give a file that `countersign gate export` or `countersign audit prove` wrote";

/// What it can be compared with.
const KNOWN: &str = "give an older export, or a checkpoint alone, of the same gate";

/// Entries between two signs of life on a terminal.
const PROGRESS_STEP: u64 = 2048;

/// What the reader knows already, and how the answer is wanted.
#[derive(Default)]
struct Options<'a> {
    json: bool,
    checkpoint: Option<&'a Path>,
    gate: Option<PartyId>,
}

/// Where data and words go.
struct Terminal<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Say on `err` how far it is: only for people who watch.
    progress: bool,
}

impl<'a> Terminal<'a> {
    fn new(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self {
            out,
            err,
            progress: io::stderr().is_terminal(),
        }
    }
}

/// Why there is no answer, or only a bad one.
enum Stop {
    /// Nothing can be said: what is wrong, and what to do.
    Unreadable(String, Option<String>),
    /// It doesn't hold: the first wrong entry, where it is one, and why.
    Broken { index: Option<u64>, why: String },
    /// The answer can't be written.
    Unwritable(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Unwritable(error)
    }
}

impl From<ExportError> for Stop {
    fn from(error: ExportError) -> Self {
        if error.is_unreadable() {
            let hint = if matches!(error, ExportError::Known(_)) {
                KNOWN
            } else {
                WANTED
            };
            return Self::Unreadable(error.to_string(), Some(hint.to_owned()));
        }
        Self::Broken {
            index: error.index(),
            why: error.to_string(),
        }
    }
}

impl From<ProofFileError> for Stop {
    fn from(error: ProofFileError) -> Self {
        if error.is_unreadable() {
            let hint = if matches!(error, ProofFileError::Known(_)) {
                KNOWN
            } else {
                WANTED
            };
            return Self::Unreadable(error.to_string(), Some(hint.to_owned()));
        }
        Self::Broken {
            index: error.index(),
            why: error.to_string(),
        }
    }
}

/// `audit verify FILE`: an export or a proof, told apart by how it begins; `-` is standard input. `checkpoint` is a file
/// with a checkpoint of the same gate, or with an export that ends in one; `gate` the gate whose file it must be. Data goes
/// to `out`, words to `err`. Returns the exit code.
pub fn verify(
    file: &Path,
    checkpoint: Option<&Path>,
    gate: Option<PartyId>,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let mut terminal = Terminal::new(out, err);
    let answer = verify_any(file, &Options { json, checkpoint, gate }, &mut terminal);
    conclude(answer, json, &mut terminal)
}

/// `audit show FILE`: every entry in order, then what [`verify`] says. What was shown is to be believed only if the end
/// says that it holds. Returns the exit code.
pub fn show(file: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let mut terminal = Terminal::new(out, err);
    let answer = show_all(file, json, &mut terminal);
    conclude(answer, json, &mut terminal)
}

/// `audit prove FILE ID`: writes a proof of the one request whose digest begins with `id`. Nothing is written unless the
/// whole transcript holds. Returns the exit code.
pub fn prove(file: &Path, id: &str, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let mut terminal = Terminal::new(out, err);
    let answer = prove_one(file, id, &mut terminal);
    conclude(answer, false, &mut terminal)
}

fn verify_any(file: &Path, options: &Options<'_>, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
    let expect = expect(options)?;
    let (reader, is_proof) = open(file)?;
    if is_proof {
        let proven = proof::verify(reader, &expect)?;
        return write_proven(&proven, options.json, terminal.out);
    }
    let summary = walk(reader, &expect, terminal, |_, _, _| Ok(()))?;
    write_summary(&summary, options.json, terminal.out)
}

fn show_all(file: &Path, json: bool, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
    let expect = Expect::default();
    let (reader, is_proof) = open(file)?;
    if is_proof {
        let proven = proof::verify(reader, &expect)?;
        return show_proven(&proven, json, terminal.out);
    }
    let summary = walk(reader, &expect, terminal, |entry, replay, out| {
        let (statement, index) = (entry.statement(), entry.index());
        let shown = if json {
            ascii(&show::entry_json(index, statement)) + "\n"
        } else {
            let about = entry.request();
            let pending = about.and_then(|(_, request)| replay.request(&request));
            let granted = about
                .and_then(|(_, request)| replay.standing().get(&request))
                .map(Held::request);
            let known = show::Known {
                about: about.map(|(index, _)| index),
                roster: replay.roster(),
                pending,
                request: pending.map(Pending::request).or(granted).map(|request| request.get()),
                basis: None,
            };
            show::entry(index, statement, &known)
        };
        out.write_all(shown.as_bytes())
    })?;
    write_summary(&summary, json, terminal.out)
}

fn prove_one(file: &Path, id: &str, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
    let expect = Expect::default();
    let mut prover = Prover::new(id).map_err(not_provable)?;
    let (reader, is_proof) = open(file)?;
    if is_proof {
        let hint = "give the export that holds the request".to_owned();
        return Err(Stop::Unreadable("this is a proof already".to_owned(), Some(hint)));
    }
    let summary = walk(reader, &expect, terminal, |entry, _, _| {
        prover.take(entry);
        Ok(())
    })?;
    let checkpoint = Checkpoint::verify(&summary.checkpoint, &summary.gate).map_err(|error| Stop::Broken {
        index: None,
        why: error.to_string(),
    })?;
    let text = prover.finish(&checkpoint).map_err(not_provable)?;
    terminal.out.write_all(text.as_bytes())?;
    Ok(())
}

fn not_provable(error: ProveError) -> Stop {
    let hint = match &error {
        ProveError::Ambiguous(several) => {
            let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
            Some(format!("give more of it: {}", ids.join(", ")))
        }
        ProveError::NotFound => Some("`countersign audit show FILE` lists the requests".to_owned()),
        _ => Some("see `countersign audit prove --help`".to_owned()),
    };
    Stop::Unreadable(error.to_string(), hint)
}

/// Reads an export to its end and hands on each entry, with the state after it.
fn walk(
    reader: impl BufRead,
    expect: &Expect,
    terminal: &mut Terminal<'_>,
    mut each: impl FnMut(&approval::replay::Entry, &approval::replay::Replay, &mut dyn Write) -> io::Result<()>,
) -> Result<Summary, Stop> {
    let mut reader = ExportReader::open(reader, expect)?;
    let mut progressed = false;
    let answer = loop {
        match reader.next_step() {
            Ok(Next::Entry(entry)) => {
                each(&entry, reader.replay(), terminal.out)?;
                let done = entry.index() + 1;
                if terminal.progress && done.is_multiple_of(PROGRESS_STEP) {
                    progressed = true;
                    write!(terminal.err, "\r{done} of {} entries", reader.size())?;
                    terminal.err.flush()?;
                }
            }
            Ok(Next::End(summary)) => break Ok(*summary),
            Err(error) => break Err(error.into()),
        }
    };
    if progressed {
        // Over the counter, so that what follows stands alone on its line.
        write!(terminal.err, "\r{:48}\r", "")?;
    }
    answer
}

/// Opens the file and looks at how it begins.
fn open(file: &Path) -> Result<(Box<dyn BufRead>, bool), Stop> {
    let unreadable = |error: io::Error| {
        Stop::Unreadable(
            format!("{} cannot be read: {error}", file.display()),
            Some(WANTED.to_owned()),
        )
    };
    let mut reader: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(file).map_err(unreadable)?))
    };
    let mut beginning = Vec::new();
    reader
        .by_ref()
        .take(proof::BEGINNING.len() as u64)
        .read_to_end(&mut beginning)
        .map_err(unreadable)?;
    let is_proof = beginning == proof::BEGINNING.as_bytes();
    Ok((Box::new(Cursor::new(beginning).chain(reader)), is_proof))
}

fn expect(options: &Options<'_>) -> Result<Expect, Stop> {
    let checkpoint = match options.checkpoint {
        None => None,
        Some(file) => {
            let (reader, _) = open(file)?;
            let unusable = |error| Stop::Unreadable(format!("the known checkpoint: {error}"), Some(KNOWN.to_owned()));
            Some(export::find_checkpoint(reader).map_err(unusable)?)
        }
    };
    Ok(Expect {
        gate: options.gate,
        checkpoint,
    })
}

/// Says how it ended, and with which exit code.
fn conclude(answer: Result<(), Stop>, json: bool, terminal: &mut Terminal<'_>) -> u8 {
    let said = match answer {
        Ok(()) => terminal.out.flush().map(|()| HOLDS),
        Err(Stop::Unwritable(error)) => Err(error),
        Err(Stop::Unreadable(what, hint)) => {
            let hint = hint.map_or(String::new(), |hint| format!("hint: {hint}\n"));
            write!(terminal.err, "error: {what}\n{hint}").map(|()| UNREADABLE)
        }
        Err(Stop::Broken { index, why }) => {
            let said = if json {
                writeln!(
                    terminal.out,
                    "{}",
                    ascii(&json!({"v": 1, "holds": false, "entry": index, "why": why}))
                )
            } else {
                writeln!(terminal.out, "does not hold: {why}")
            };
            said.and_then(|()| terminal.out.flush()).map(|()| BROKEN)
        }
    };
    // Whoever closed the pipe reads nothing more; the exit code still says that it didn't go well.
    said.unwrap_or(UNREADABLE)
}

fn write_summary(summary: &Summary, json: bool, out: &mut dyn Write) -> Result<(), Stop> {
    if json {
        writeln!(out, "{}", ascii(&summary_json(summary)))?;
    } else {
        out.write_all(show::summary(summary).as_bytes())?;
    }
    Ok(())
}

fn summary_json(summary: &Summary) -> Value {
    let requests = &summary.requests;
    json!({
        "v": 1,
        "holds": true,
        "gate": summary.gate.to_string(),
        "size": summary.size,
        "root": hex(&summary.root),
        "checkpoint": summary.checkpoint,
        "first": summary.first.map(approval::Time::millis),
        "last": summary.last.map(approval::Time::millis),
        "people": summary.people,
        "admins": summary.admins,
        "requests": {
            "asked": requests.asked, "ran": requests.ran, "failed": requests.failed, "unknown": requests.unknown,
            "changed": requests.changed, "denied": requests.denied, "expired": requests.expired,
            "withdrawn": requests.withdrawn, "permitted": requests.permitted, "open": requests.open,
            "released": requests.released, "forbidden": requests.forbidden,
        },
        "unasked": {
            "by_grant": requests.by_grant, "by_policy": requests.by_policy, "unenrolled": requests.unenrolled,
        },
        "grants": {"given": requests.granted, "revoked": requests.revoked},
    })
}

fn write_proven(proven: &Proven, json: bool, out: &mut dyn Write) -> Result<(), Stop> {
    if json {
        writeln!(out, "{}", ascii(&proven_json(proven)))?;
    } else {
        out.write_all(show::proven(proven).as_bytes())?;
    }
    Ok(())
}

fn show_proven(proven: &Proven, json: bool, out: &mut dyn Write) -> Result<(), Stop> {
    let mut rosters = proven.rosters().iter().peekable();
    let mut roster = None;
    for (index, statement) in proven.entries() {
        if statement.roster().is_some() {
            roster = rosters.next();
        }
        let shown = if json {
            ascii(&show::entry_json(*index, statement)) + "\n"
        } else {
            show::entry(*index, statement, &known(proven, statement, roster))
        };
        out.write_all(shown.as_bytes())?;
    }
    write_proven(proven, json, out)
}

/// What a proof tells beside one of its entries: it may hold the request of a grant beside its own.
fn known<'a>(
    proven: &'a Proven,
    statement: &Verified<Statement>,
    roster: Option<&'a Verified<approval::roster::Roster>>,
) -> show::Known<'a> {
    let cited = match statement.get() {
        Statement::Decision(decision) => Some(decision.request),
        Statement::Grant(grant) => Some(grant.request),
        Statement::Permit(permit) => Some(permit.request),
        Statement::Outcome(outcome) => Some(outcome.request),
        _ => None,
    };
    let request = proven.entries().iter().find(|(_, entry)| Some(entry.digest()) == cited);
    show::Known {
        about: request.map(|(index, _)| *index).or(Some(proven.request().index)),
        roster,
        pending: proven.pending(),
        request: request.and_then(|(_, entry)| match entry.get() {
            Statement::Request(request) => Some(request),
            _ => None,
        }),
        basis: match statement.get() {
            Statement::Permit(permit) => Some(show::basis_of(proven, permit)),
            _ => None,
        },
    }
}

fn proven_json(proven: &Proven) -> Value {
    json!({
        "v": 1,
        "holds": true,
        "gate": proven.gate().to_string(),
        "size": proven.checkpoint().size(),
        "root": hex(&proven.checkpoint().root()),
        "checkpoint": proven.checkpoint().as_str(),
        "request": proven.request().digest().to_string(),
        "index": proven.request().index,
        "result": show::result_word(proven),
        "basis": show::basis_json(proven),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON in printable ASCII: strings may hold what others wrote, and the answer may end on a terminal.
fn ascii(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        if matches!(character, ' '..='~') {
            text.push(character);
        } else {
            // Outside strings JSON is ASCII, so this is within one.
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
