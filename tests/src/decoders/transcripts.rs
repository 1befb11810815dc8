//! What an auditor reads: checkpoints, exports and proofs (PROTOCOL.md 10, 15).

use approval::checkpoint::Checkpoint;
use approval::export::{self, Expect, ExportReader, ExportWriter, Next};
use approval::proof::{self, Prover};
use approval::transcript::Log;
use approval::{Digest, Signed, Statement};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{GATE, dsse, identity};

/// Entries of a [`transcript`]: enough for every rule to be met.
const ENTRIES: usize = 32;

/// The text of a checkpoint.
pub fn checkpoint(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(is_believed)
}

/// What a gate signs as its checkpoint, whatever it is.
pub fn checkpoint_body(bytes: &[u8]) -> bool {
    let Ok(body) = std::str::from_utf8(bytes) else {
        return false;
    };
    let gate = identity(GATE);
    let origin = format!("countersign/{}", gate.party());
    let genuine = Checkpoint::sign(gate, 0, [0; 32]);
    let signature = genuine.as_str().trim_end().rsplit(' ').next().expect("a signature");
    let mut key_and_signature = STANDARD.decode(signature).expect("base64");
    key_and_signature.truncate(4);
    key_and_signature.extend_from_slice(&gate.sign(bytes));
    let signature = STANDARD.encode(key_and_signature);
    is_believed(&format!("{body}\n\u{2014} {origin} {signature}\n"))
}

fn is_believed(text: &str) -> bool {
    let gate = identity(GATE);
    let Ok(checkpoint) = Checkpoint::verify(text, &gate.party()) else {
        return false;
    };
    assert_eq!(checkpoint.as_str(), text);
    assert_eq!(
        Checkpoint::sign(gate, checkpoint.size(), checkpoint.root()),
        checkpoint,
        "another spelling"
    );
    assert!(
        Checkpoint::verify(text, &identity(super::ALICE).party()).is_err(),
        "another gate's"
    );
    true
}

/// An export as a file.
pub fn export(bytes: &[u8]) -> bool {
    let found = export::find_checkpoint(bytes);
    let Ok(summary) = export::verify(bytes, &Expect::default()) else {
        return false;
    };
    assert_eq!(found.expect("a good export has a checkpoint"), summary.checkpoint);
    let expect = Expect {
        gate: Some(summary.gate),
        checkpoint: Some(summary.checkpoint.clone()),
    };
    assert_eq!(
        export::verify(bytes, &expect).expect("it is what was expected"),
        summary
    );
    assert_eq!(
        written_again(bytes, &summary.checkpoint),
        bytes,
        "a transcript has one spelling"
    );
    true
}

fn written_again(bytes: &[u8], checkpoint: &str) -> Vec<u8> {
    let mut reader = ExportReader::open(bytes, &Expect::default()).expect("it was read before");
    let mut writer = ExportWriter::new(Vec::new(), reader.gate(), reader.size()).expect("into memory");
    let checkpoint = Checkpoint::verify(checkpoint, &reader.gate()).expect("it was believed before");
    while let Next::Entry(entry) = reader.next_step().expect("it was read before") {
        writer.entry(entry.statement().signed()).expect("into memory");
    }
    writer.finish(&checkpoint).expect("over the same entries")
}

/// An export of whatever a gate and its people sign: in each line the seed of who signs, the kind, and the payload, in
/// which `@n@` is the digest of entry n and `^n^` the checkpoint of size n.
pub fn transcript(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let gate = identity(GATE);
    let (mut log, mut roots, mut entries) = (Log::new(), vec![Log::new().root()], Vec::<Signed>::new());
    for line in text.lines().take(ENTRIES) {
        let mut words = line.splitn(3, ' ');
        let (Some(Ok(seed)), Some(kind), Some(payload)) = (words.next().map(str::parse), words.next(), words.next())
        else {
            return false;
        };
        let payload = filled(payload, '@', |at| Some(entries.get(at)?.digest().to_string()));
        let payload = filled(&payload, '^', |size| {
            let checkpoint = Checkpoint::sign(gate, size as u64, *roots.get(size)?);
            let json = serde_json::to_string(checkpoint.as_str()).expect("JSON");
            Some(json.trim_matches('"').to_owned())
        });
        let Ok(signed) = Signed::parse(dsse(seed, kind, payload.as_bytes()).as_bytes()) else {
            return false;
        };
        log.append(signed.as_bytes());
        roots.push(log.root());
        entries.push(signed);
    }
    let checkpoint = Checkpoint::sign(gate, log.size(), log.root());
    let mut writer = ExportWriter::new(Vec::new(), gate.party(), log.size()).expect("into memory");
    entries
        .iter()
        .for_each(|entry| writer.entry(entry).expect("into memory"));
    let file = writer.finish(&checkpoint).expect("over these entries");
    if !export(&file) {
        return false;
    }
    // Of a transcript that holds, every approval can be shown alone.
    let requests = entries.iter().filter(|entry| {
        matches!(
            entry.verify().expect("it was verified before").get(),
            Statement::Request(_)
        )
    });
    requests.for_each(|request| proves(&file, &checkpoint, request.digest()));
    true
}

/// The text with everything between two `mark`s filled in, where there is something to fill in.
fn filled(text: &str, mark: char, find: impl Fn(usize) -> Option<String>) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(mark) {
        done.push_str(before);
        let found = after
            .split_once(mark)
            .and_then(|(number, after)| Some((find(number.parse().ok()?)?, after)));
        if let Some((found, after)) = found {
            done.push_str(&found);
            rest = after;
        } else {
            done.push(mark);
            rest = after;
        }
    }
    done + rest
}

fn proves(file: &[u8], checkpoint: &Checkpoint, request: Digest) {
    let mut prover = Prover::new(&request.to_string()).expect("an id");
    let mut reader = ExportReader::open(file, &Expect::default()).expect("it was read before");
    while let Next::Entry(entry) = reader.next_step().expect("it was read before") {
        prover.take(&entry);
    }
    let text = prover.finish(checkpoint).expect("the request is in it");
    assert!(proof(text.as_bytes()), "a proof that doesn't hold: {text}");
}

/// A proof of one approval as a file.
pub fn proof(bytes: &[u8]) -> bool {
    let Ok(proven) = proof::verify(bytes, &Expect::default()) else {
        return false;
    };
    assert!(
        proven
            .entries()
            .iter()
            .any(|(_, statement)| statement.digest() == proven.request().digest())
    );
    assert!(
        proven
            .entries()
            .iter()
            .all(|(index, _)| *index < proven.checkpoint().size())
    );
    let known = proven.checkpoint().as_str().to_owned();
    let expect = Expect {
        gate: Some(proven.gate()),
        checkpoint: Some(known),
    };
    assert!(proof::verify(bytes, &expect).is_ok(), "it isn't what was expected");
    true
}
