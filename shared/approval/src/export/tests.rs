//! Whatever is done to an export is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::replay::FindingKind;
use crate::replay::fixture::{GATE, World, export, identity, season};

fn check(file: &[u8]) -> Result<Summary, ExportError> {
    verify(file, &Expect::default())
}

fn lines(file: &[u8]) -> Vec<Vec<u8>> {
    file.split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

#[test]
fn a_season_is_summed_up() {
    let world = season();
    let summary = check(&world.export()).unwrap();
    assert_eq!((summary.size, summary.root), (world.replay.size(), world.replay.root()));
    assert_eq!(summary.checkpoint, world.checkpoint().as_str());
    assert_eq!((summary.people, summary.admins), (3, 2));
    let (ran, denied, expired, withdrawn, changed) = (7, 1, 1, 3, 4);
    let (failed, unknown, permitted, open) = (1, 3, 1, 1);
    let (by_grant, by_policy, granted) = (2, 3, 2);
    let requests = Tally {
        asked: 24,
        released: 1,
        forbidden: 1,
        unenrolled: 0,
        revoked: 1,
        by_grant,
        by_policy,
        granted,
        ran,
        failed,
        unknown,
        changed,
        denied,
        expired,
        withdrawn,
        permitted,
        open,
    };
    assert_eq!(summary.requests, requests);
    assert!(summary.first < summary.last);
}

type States<'a> = Vec<(usize, Option<ExportReader<&'a [u8]>>)>;

/// Where each line begins, and the reader that came so far.
fn states(file: &[u8]) -> States<'_> {
    let mut states = Vec::new();
    let mut start = 0;
    let mut reader = None;
    for line in lines(file) {
        states.push((start, reader.clone()));
        start += line.len();
        reader = match reader {
            None => Some(ExportReader::open(file, &Expect::default()).unwrap()),
            Some(mut reader) => {
                reader.next_step().unwrap();
                Some(reader)
            }
        };
    }
    states
}

/// Verification goes from line to line, so whatever was read before a change is the same as without it: the state at the
/// beginning of each line is kept, and each changed file is read from the changed line on. A few whole files are checked
/// below to show that this changes nothing.
#[test]
fn every_changed_byte_is_found() {
    let file = season().export();
    let states = states(&file);
    let try_bytes = |part: usize, parts: usize| {
        let mut changed = file.clone();
        let mut state = 0;
        for at in 0..file.len() {
            while states.get(state + 1).is_some_and(|(start, _)| *start <= at) {
                state += 1;
            }
            if at % parts != part {
                continue;
            }
            for other in [file[at] ^ 1, file[at] ^ 0x20, b'\n'] {
                if other == file[at] {
                    continue;
                }
                changed[at] = other;
                let (start, before) = &states[state];
                let result = match before.clone() {
                    None => check(&changed),
                    Some(mut reader) => {
                        reader.reader = &changed[*start..];
                        to_the_end(reader)
                    }
                };
                assert!(result.is_err(), "byte {at} changed to {other:#04x}");
            }
            changed[at] = file[at];
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| try_bytes(0, 2));
        try_bytes(1, 2);
    });
}

fn to_the_end<R: BufRead>(mut reader: ExportReader<R>) -> Result<Summary, ExportError> {
    loop {
        if let Next::End(summary) = reader.next_step()? {
            return Ok(*summary);
        }
    }
}

#[test]
fn a_changed_byte_is_found_in_the_whole_file_and_named() {
    let file = season().export();
    let all = lines(&file);
    for index in [0, 1, 7, 20, all.len() - 3] {
        let start: usize = all[..=index].iter().map(Vec::len).sum();
        let mut changed = file.clone();
        changed[start + all[index + 1].len() / 2] ^= 1;
        assert_eq!(check(&changed).unwrap_err().index(), Some(index as u64));
    }
}

#[test]
fn every_removed_repeated_or_swapped_line_is_found() {
    let all = lines(&season().export());
    for at in 0..all.len() {
        let mut removed = all.clone();
        removed.remove(at);
        assert!(check(&removed.concat()).is_err(), "line {at} removed");
        let mut repeated = all.clone();
        repeated.insert(at, all[at].clone());
        assert!(check(&repeated.concat()).is_err(), "line {at} repeated");
    }
    // Neighbours and pairs far apart.
    for (one, other) in (0..all.len()).flat_map(|one| (one + 1..all.len()).map(move |other| (one, other))) {
        if other - one > 2 && (one + other) % 7 != 0 {
            continue;
        }
        let mut swapped = all.clone();
        swapped.swap(one, other);
        assert!(check(&swapped.concat()).is_err(), "lines {one} and {other} swapped");
    }
}

/// Somebody who renumbers the lines, but can't sign for the gate.
#[test]
fn every_removed_repeated_or_swapped_entry_is_found_although_the_lines_are_renumbered() {
    let world = season();
    let gate = world.checkpoint().gate().to_owned();
    let renumbered = |entries: &[Signed]| {
        let mut file = header(&gate, entries.len() as u64);
        for (index, entry) in entries.iter().enumerate() {
            file += &entry_line(index as u64, entry.as_str());
        }
        file + &checkpoint_line(world.checkpoint().as_str()).unwrap()
    };
    let found = |entries: &[Signed], what: &str| {
        assert!(check(renumbered(entries).as_bytes()).is_err(), "{what}");
    };
    check(renumbered(&world.entries).as_bytes()).unwrap();
    for at in 0..world.entries.len() {
        let mut removed = world.entries.clone();
        let entry = removed.remove(at);
        found(&removed, &format!("entry {at} removed"));
        let mut repeated = world.entries.clone();
        repeated.insert(at, entry.clone());
        found(&repeated, &format!("entry {at} repeated"));
        let mut moved = removed;
        moved.push(entry);
        if at + 1 < world.entries.len() {
            found(&moved, &format!("entry {at} moved to the end"));
        }
    }
    for one in 0..world.entries.len() {
        for other in one + 1..world.entries.len().min(one + 4) {
            let mut swapped = world.entries.clone();
            swapped.swap(one, other);
            found(&swapped, &format!("entries {one} and {other} swapped"));
        }
    }
}

#[test]
fn every_cut_tail_is_found() {
    let file = season().export();
    let all = lines(&file);
    for count in 0..all.len() {
        assert!(check(&all[..count].concat()).is_err(), "{count} lines");
    }
    let (start, before) = states(&file).pop().unwrap();
    for end in start..file.len() {
        let mut reader = before.clone().unwrap();
        reader.reader = &file[start..end];
        assert!(to_the_end(reader).is_err(), "cut after byte {end}");
    }
}

/// The gate itself signs what it left out: found against any later checkpoint that somebody has.
#[test]
fn a_tail_cut_by_the_gate_is_found_by_whoever_saw_more() {
    let world = season();
    let mut cut = world.clone();
    cut.entries.truncate(30);
    let mut log = Log::new();
    cut.entries.iter().for_each(|entry| {
        log.append(entry.as_bytes());
    });
    let file = export(&cut.entries, &Checkpoint::sign(&identity(GATE), 30, log.root()));
    assert!(check(&file).is_ok());
    let seen = Expect {
        checkpoint: Some(world.checkpoint().as_str().to_owned()),
        ..Expect::default()
    };
    let error = verify(file.as_slice(), &seen).unwrap_err();
    assert!(
        matches!(error, ExportError::Shorter { known: 54.., size: 30 }),
        "{error}"
    );
    // The other way round it is a beginning, and fine.
    let earlier = Expect {
        checkpoint: Some(find_checkpoint(file.as_slice()).unwrap()),
        ..Expect::default()
    };
    verify(world.export().as_slice(), &earlier).unwrap();
}

#[test]
fn a_rewritten_history_contradicts_what_somebody_saw() {
    let world = World::two_of_three();
    let (mut one, mut other) = (world.clone(), world);
    one.ask(crate::replay::fixture::command(&[b"git", b"push"]));
    other.ask(crate::replay::fixture::command(&[b"git", b"pull"]));
    let known = find_checkpoint(one.export().as_slice()).unwrap();
    let expect = Expect {
        checkpoint: Some(known),
        ..Expect::default()
    };
    for later in 0..2 {
        let error = verify(other.export().as_slice(), &expect).unwrap_err();
        assert!(matches!(error, ExportError::Fork { size: 3 }), "{later}: {error}");
        other.ask(crate::replay::fixture::command(&[b"git"]));
    }
}

#[test]
fn what_somebody_expects_is_compared() {
    let world = season();
    let (file, own, other) = (world.export(), identity(GATE).party(), identity(77).party());
    let expect = |gate, checkpoint: Option<&str>| Expect {
        gate,
        checkpoint: checkpoint.map(str::to_owned),
    };
    verify(file.as_slice(), &expect(Some(own), Some(world.checkpoint().as_str()))).unwrap();
    assert!(matches!(
        verify(file.as_slice(), &expect(Some(other), None)),
        Err(ExportError::OtherGate { .. })
    ));
    let foreign = Checkpoint::sign(&identity(77), world.replay.size(), world.replay.root());
    let unusable = verify(file.as_slice(), &expect(None, Some(foreign.as_str()))).unwrap_err();
    assert!(matches!(unusable, ExportError::Known(CheckpointError::OtherGate)) && unusable.is_unreadable());
}

#[test]
fn what_the_gate_signed_is_what_is_in_the_file() {
    let world = World::two_of_three();
    let gate = identity(GATE);
    let file = |checkpoint: &Checkpoint| {
        let mut file = header(checkpoint.gate(), 2);
        file += &entry_line(0, world.entries[0].as_str());
        file += &entry_line(1, world.entries[1].as_str());
        file + &checkpoint_line(checkpoint.as_str()).unwrap()
    };
    check(file(&world.checkpoint()).as_bytes()).unwrap();
    let wrong = |checkpoint| check(file(&checkpoint).as_bytes()).unwrap_err();
    assert!(matches!(
        wrong(Checkpoint::sign(&gate, 2, [3; 32])),
        ExportError::CheckpointRoot
    ));
    let longer = Checkpoint::sign(&gate, 3, world.replay.root());
    assert!(matches!(
        wrong(longer),
        ExportError::CheckpointSize { signed: 3, size: 2 }
    ));
    let foreign = Checkpoint::sign(&identity(77), 2, world.replay.root());
    let text = file(&world.checkpoint());
    let (entries, _) = text.split_once("{\"checkpoint\"").unwrap();
    let swapped = entries.to_owned() + &checkpoint_line(foreign.as_str()).unwrap();
    let error = check(swapped.as_bytes()).unwrap_err();
    assert!(matches!(error, ExportError::Checkpoint(CheckpointError::OtherGate)));
    let header_of_another = text.replacen(&gate.party().to_string(), &identity(77).party().to_string(), 1);
    let error = check(header_of_another.as_bytes()).unwrap_err();
    let ExportError::Entry(finding) = &error else {
        panic!("{error}")
    };
    assert!(matches!(finding.kind, FindingKind::OtherGate { .. }) && finding.index == 0);
}

#[test]
fn other_spellings_and_other_files_are_refused() {
    let world = World::two_of_three();
    let file = String::from_utf8(world.export()).unwrap();
    for other in [
        file.replace("\"index\":1,", "\"index\":01,"),
        file.replace("\"index\":1,", "\"index\": 1,"),
        file.replace("\"size\":2}", "\"size\":02}"),
        file.replace("\"size\":2}", "\"size\":2,\"x\":1}"),
        file.replace("\"size\":2}", "\"size\":1}"),
        file.replace("\"size\":2}", "\"size\":3}"),
        file.replace("\"v\":1", "\"v\":2"),
        file.replace('\u{2014}', "\\u2014"),
        file.replace("\\n", "\\u000a"),
        file.replace('\n', "\r\n"),
        file.replace("}\n{\"index\":1", "}\n\n{\"index\":1"),
        file.clone() + "\n",
        file.clone() + "x",
        file.clone() + &file,
        file.trim_end().to_owned(),
    ] {
        assert_ne!(other, file);
        let error = check(other.as_bytes()).unwrap_err();
        assert!(!error.is_unreadable(), "{error}");
    }
    for other in ["", "\n", "{}", "\u{feff}", "{\"countersign\":\"proof\",\"v\":1}"] {
        assert!(
            matches!(check(other.as_bytes()), Err(ExportError::NotAnExport)),
            "{other}"
        );
    }
    assert!(matches!(check(&vec![b' '; 1 << 20]), Err(ExportError::NotAnExport)));
    let mut long = lines(file.as_bytes());
    long[1] = vec![b'['; LINE_BYTES + 1];
    assert!(matches!(check(&long.concat()), Err(ExportError::Line { index: 0 })));
}

#[test]
fn an_empty_transcript_has_no_gate_to_believe() {
    let nothing = Checkpoint::sign(&identity(GATE), 0, Log::new().root());
    assert!(matches!(
        check(&export(&[], &nothing)),
        Err(ExportError::Missing { index: 0, size: 0 })
    ));
}

#[test]
fn the_writer_refuses_what_no_reader_would_believe() {
    let world = World::two_of_three();
    let gate = identity(GATE).party();
    let write = |size, checkpoint: &Checkpoint| {
        let mut writer = ExportWriter::new(Vec::new(), gate, size).unwrap();
        world.entries.iter().for_each(|entry| writer.entry(entry).unwrap());
        writer.finish(checkpoint).is_ok()
    };
    assert!(write(2, &world.checkpoint()));
    assert!(!write(3, &world.checkpoint()));
    assert!(!write(2, &Checkpoint::sign(&identity(GATE), 2, [1; 32])));
    assert!(!write(2, &Checkpoint::sign(&identity(77), 2, world.replay.root())));
}

#[test]
fn a_checkpoint_is_found_alone_and_in_an_export() {
    let world = season();
    let text = world.checkpoint().as_str().to_owned();
    assert_eq!(find_checkpoint(text.as_bytes()).unwrap(), text);
    assert_eq!(find_checkpoint(world.export().as_slice()).unwrap(), text);
    for wrong in [&b""[..], &[0xff, 0xfe, b'\n'], &world.export()[..20_000]] {
        assert!(find_checkpoint(wrong).is_err());
    }
}
