//! The reckoning after the last round: what askers were told, what really ran, and what the transcripts of gate and admin say, held against each other.

use std::collections::HashMap;
use std::io::BufReader;
use std::path::Path;

use approval::Digest;
use approval::action::Action;
use approval::export::{Expect, ExportReader, Next, Summary};
use approval::outcome::{Ended, Exit};
use approval::statement::Statement;

use crate::stream::{Told, mark};

/// What the transcript says of one command.
#[derive(Default)]
struct Entry {
    permitted: bool,
    ended: Option<Ended>,
}

/// What it came to.
pub(crate) struct Reckoning {
    /// Of the whole transcript.
    pub(crate) summary: Summary,
    /// Commands whose asker never heard that the gate had taken them.
    pub(crate) unheard: usize,
}

fn read(export: &[u8]) -> (HashMap<String, Entry>, Summary) {
    let mut reader = ExportReader::open(BufReader::new(export), &Expect::default()).expect("it is an export");
    let (mut commands, mut names) = (HashMap::<String, Entry>::new(), HashMap::<Digest, String>::new());
    loop {
        let entry = match reader.next_step().expect("the transcript holds") {
            Next::Entry(entry) => entry,
            Next::End(summary) => return (commands, *summary),
        };
        match entry.statement().get() {
            Statement::Request(request) => {
                let Action::Command(command) = &request.action else {
                    continue;
                };
                let last = command.argv.last().expect("a command has arguments").as_bytes();
                let name = String::from_utf8_lossy(last).trim_end_matches(".XXXXXX").to_owned();
                names.insert(entry.statement().digest(), name.clone());
                assert!(
                    commands.insert(name.clone(), Entry::default()).is_none(),
                    "{name} was asked once and is two requests"
                );
            }
            Statement::Permit(permit) => {
                if let Some(name) = names.get(&permit.request) {
                    commands.entry(name.clone()).or_default().permitted = true;
                }
            }
            Statement::Outcome(outcome) => {
                if let Some(name) = names.get(&outcome.request) {
                    commands.entry(name.clone()).or_default().ended = Some(outcome.result.clone());
                }
            }
            _ => {}
        }
    }
}

/// How often each command ran.
fn runs(marks: &Path) -> HashMap<String, usize> {
    let mut runs = HashMap::new();
    for file in std::fs::read_dir(marks).expect("the marks' folder") {
        let name = file.expect("a mark").file_name().to_string_lossy().into_owned();
        let name = name.split('.').next().unwrap_or_default().to_owned();
        *runs.entry(name).or_insert(0) += 1;
    }
    runs
}

/// Holds a copy that may be behind against the gate's transcript, entry by entry.
pub(crate) fn is_beginning(copy: &[u8], gate: &[u8]) -> bool {
    let entries = |export: &[u8]| -> Vec<Vec<u8>> {
        let lines = export
            .split(|byte| *byte == b'\n')
            .filter(|line| line.starts_with(b"{\"index\":"));
        lines.map(<[u8]>::to_vec).collect()
    };
    let (copy, gate) = (entries(copy), entries(gate));
    !copy.is_empty() && gate.starts_with(&copy)
}

/// Holds everything against everything. `gate` and `admin` are their exports, after everything came to rest.
pub(crate) fn reckon(told: &[Told], marks: &Path, gate: &[u8], admin: &[u8]) -> Reckoning {
    assert!(
        gate == admin,
        "the admin's copy isn't the gate's transcript:\n{}\n{}",
        String::from_utf8_lossy(gate),
        String::from_utf8_lossy(admin)
    );
    let (commands, summary) = read(gate);
    let runs = runs(marks);
    for (name, count) in &runs {
        assert_eq!(*count, 1, "{name} ran {count} times");
        assert!(
            commands.get(name).is_some_and(|entry| entry.permitted),
            "{name} ran without a permit in the transcript"
        );
    }
    let mut unheard = 0;
    for told in told {
        let name = mark(told.token);
        let ran = runs.contains_key(&name);
        let entry = commands.get(&name);
        let context = format!("{name}: exit {:?}, ran: {ran}\n{}", told.code, told.stderr);
        if !told.pending {
            // The gate was away, or went before it could say that it had taken the request: then nobody would take the output, and it isn't run.
            assert_eq!(told.code, Some(125), "{context}");
            let fine = matches!(
                entry,
                None | Some(Entry {
                    ended: None | Some(Ended::Expired(_) | Ended::Unknown(_)),
                    ..
                })
            );
            assert!(fine, "{context}");
            unheard += usize::from(entry.is_some());
            continue;
        }
        let entry = entry.unwrap_or_else(|| panic!("accepted and lost: {context}"));
        match &entry.ended {
            Some(Ended::Ran(outcome)) => {
                assert_eq!((outcome.exit, outcome.stopped), (Exit::Code(0), None), "{context}");
                assert!(ran && told.code == Some(0), "{context}");
            }
            // Permitted when the gate died: it may have run or not, and whoever asked is told exactly that.
            Some(Ended::Unknown(_)) => {
                assert_eq!(told.code, Some(125), "{context}");
                assert!(told.stderr.contains("the gate can't say what happened"), "{context}");
            }
            other => panic!("{other:?}: {context}"),
        }
    }
    assert_eq!(
        commands.len(),
        told.iter().filter(|told| told.pending).count() + unheard,
        "requests that nobody asked"
    );
    Reckoning { summary, unheard }
}
