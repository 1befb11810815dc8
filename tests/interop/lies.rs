//! A gate, or an admin, who signs payloads that no honest one writes: each token of each payload is replaced by others, and
//! both verifiers must say the same of what comes of it. Not here: changed bytes under an old signature.

use anyhow::{Context, Result, ensure};
use approval::Signed;
use approval::checkpoint::Checkpoint;
use approval::decision::Answer;
use approval::outcome::{Ended, Forbidden, Nothing};
use approval::roster::Unenrolled;
use approval::statement::sign;
use approval::transcript::Log;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use wire::identity::Identity;

use crate::seasons::{granted, ran, ruled, season, unenrolled};
use crate::transcript::{World, call, command, run};
use crate::{compare, some};

/// What is put in place of a value: other types, other spellings of the same, the edges of the bounds.
const VALUES: [&str; 24] = [
    "null",
    "true",
    "-0",
    "0",
    "1",
    "1.0",
    "1e0",
    "-1",
    "2",
    "65536",
    "4294967296",
    "9007199254740992",
    "18446744073709551616",
    r#""""#,
    r#""a""#,
    r#""A""#,
    r#""/\u0000""#,
    r#""/\ud800""#,
    r#""\ud83e\udd80""#,
    "[]",
    "{}",
    r#"{"command":{}}"#,
    r#"{"base64":"Lw=="}"#,
    r#"{"base64":"L/8="}"#,
];

/// How many mutants of one payload, or orders of one transcript, are tried where not all are.
const MUTANTS: usize = 600;

/// Where the tokens of a JSON text are, with whether each is the name of a field.
fn tokens(text: &str) -> Vec<(usize, usize, bool)> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let length = match byte {
            b'"' => {
                let mut escaped = false;
                let ends = |byte: &u8| {
                    let end = *byte == b'"' && !escaped;
                    escaped = *byte == b'\\' && !escaped;
                    end
                };
                rest.iter().skip(1).position(ends).map_or(rest.len(), |end| end + 2)
            }
            b'a'..=b'z' | b'0'..=b'9' | b'-' => rest
                .iter()
                .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-')
                .count(),
            _ => 0,
        };
        if length > 0 {
            found.push((at, at + length, bytes.get(at + length) == Some(&b':')));
        }
        at += length.max(1);
    }
    found
}

/// Every payload that differs from this one in one token, or in white space, with a name for people.
pub(crate) fn mutants(payload: &str) -> Vec<(String, String)> {
    let mut all = vec![
        ("white space around".to_owned(), format!(" {payload}\n")),
        ("byte order mark".to_owned(), format!("\u{feff}{payload}")),
        ("twice".to_owned(), payload.repeat(2)),
    ];
    for (start, end, is_name) in tokens(payload) {
        let (Some(before), Some(token), Some(after)) =
            (payload.get(..start), payload.get(start..end), payload.get(end..))
        else {
            continue;
        };
        let mut put = |with: &str| all.push((format!("{token} at {start}: {with}"), format!("{before}{with}{after}")));
        put(&format!("\t{token} "));
        if is_name {
            put(r#""other""#);
            put(&format!("{token}:0,{token}"));
            put(&token.replacen('e', r"\u0065", 1));
        } else {
            VALUES.iter().for_each(|value| put(value));
            put(&format!("[{token}]"));
        }
    }
    all
}

/// Signs anything as anything.
pub(crate) fn dsse(by: &Identity, kind: &str, payload: &str) -> Result<Signed> {
    let kind = format!("application/vnd.countersign.{kind}+json");
    let signature = by.sign(format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len()).as_bytes());
    let (payload, signature) = (STANDARD.encode(payload), STANDARD.encode(signature));
    let signatures = format!(r#"[{{"keyid":"{}","sig":"{signature}"}}]"#, by.party());
    let text = format!(r#"{{"payloadType":"{kind}","payload":"{payload}","signatures":{signatures}}}"#);
    Ok(Signed::parse(text.as_bytes())?)
}

pub(crate) fn payload_of(statement: &Signed) -> Result<String> {
    let (_, rest) = statement.as_str().split_once(r#""payload":""#).context("no payload")?;
    let (payload, _) = rest.split_once('"').context("no payload")?;
    Ok(String::from_utf8(STANDARD.decode(payload)?)?)
}

/// An export with whatever entries, under the gate's own checkpoint. Not with the crate's writer: it is for the honest.
fn export(gate: &Identity, entries: &[Signed]) -> Vec<u8> {
    let mut log = Log::new();
    entries.iter().for_each(|entry| {
        log.append(entry.as_bytes());
    });
    let checkpoint = Checkpoint::sign(gate, log.size(), log.root());
    export_under(gate, entries, checkpoint.as_str())
}

/// An export with whatever checkpoint.
fn export_under(gate: &Identity, entries: &[Signed], checkpoint: &str) -> Vec<u8> {
    let head = format!(
        r#"{{"countersign":"transcript","v":1,"gate":"{}","size":{}}}"#,
        gate.party(),
        entries.len()
    );
    let line = |(index, entry): (usize, &Signed)| format!("{{\"index\":{index},\"statement\":{}}}\n", entry.as_str());
    let lines: String = entries.iter().enumerate().map(line).collect();
    format!("{head}\n{lines}{}\n", json!({ "checkpoint": checkpoint })).into_bytes()
}

/// Tries every mutant of the last entry in its place.
fn compare_mutants(world: &World, by: &Identity, kind: &str) -> Result<()> {
    let (last, before) = world.entries.split_last().context("no entry")?;
    let payload = payload_of(last)?;
    let mut files = vec![("the honest one".to_owned(), export(&world.cast.gate, &world.entries))];
    for (name, mutant) in some(mutants(&payload), MUTANTS)? {
        let entries = [before, &[dsse(by, kind, &mutant)?]].concat();
        files.push((name, export(&world.cast.gate, &entries)));
    }
    let right = compare(&files)?;
    // White space and another spelling of a field's name are harmless, hardly anything else is.
    ensure!(right > 3 && right < files.len() / 2, "{right} of {} right", files.len());
    Ok(())
}

#[test]
fn rosters() -> Result<()> {
    let world = World::of_alice()?;
    compare_mutants(&world, &world.cast.gate, "roster")
}

#[test]
fn rosters_that_the_admins_agreed_to() -> Result<()> {
    let world = World::of_two()?;
    compare_mutants(&world, &world.cast.gate, "roster")
}

#[test]
fn requests() -> Result<()> {
    let mut world = World::of_alice()?;
    world.ask(command()?)?;
    compare_mutants(&world, &world.cast.gate, "request")
}

#[test]
fn decisions() -> Result<()> {
    let mut world = World::of_alice()?;
    let request = world.ask(command()?)?;
    world.decide(|cast| &cast.alice, &request, Answer::Approve)?;
    compare_mutants(&world, &world.cast.alice, "decision")
}

#[test]
fn permits() -> Result<()> {
    let mut world = World::of_alice()?;
    let request = world.ask(command()?)?;
    world.decide(|cast| &cast.alice, &request, Answer::Approve)?;
    world.permit(&request)?;
    compare_mutants(&world, &world.cast.gate, "permit")
}

#[test]
fn outcomes() -> Result<()> {
    let mut world = World::of_alice()?;
    let request = world.ask(command()?)?;
    world.decide(|cast| &cast.alice, &request, Answer::Approve)?;
    let permit = world.permit(&request)?;
    world.end(&request, Some(permit), ran())?;
    compare_mutants(&world, &world.cast.gate, "outcome")
}

#[test]
fn outcomes_without_a_permit() -> Result<()> {
    let mut world = World::of_alice()?;
    let request = world.ask(command()?)?;
    world.end(&request, None, Ended::Withdrawn(Nothing::default()))?;
    compare_mutants(&world, &world.cast.gate, "outcome")
}

#[test]
fn grants() -> Result<()> {
    let mut world = World::of_two()?;
    granted(&mut world)?;
    compare_mutants(&world, &world.cast.gate, "grant")
}

#[test]
fn decisions_that_grant() -> Result<()> {
    let mut world = World::of_two()?;
    granted(&mut world)?;
    world.entries.pop();
    compare_mutants(&world, &world.cast.bob, "decision")
}

#[test]
fn permits_by_a_grant() -> Result<()> {
    let mut world = World::of_two()?;
    granted(&mut world)?;
    let again = world.ask(run(&["deploy", "staging"])?)?;
    world.permit(&again)?;
    compare_mutants(&world, &world.cast.gate, "permit")
}

#[test]
fn revocations() -> Result<()> {
    let mut world = World::of_two()?;
    let (_, grant) = granted(&mut world)?;
    world.revoke(grant)?;
    compare_mutants(&world, &world.cast.bob, "revocation")
}

/// What a grant covers: each mutant is a request, and then a permit for it that rests on the grant.
#[test]
fn requests_like_what_was_granted() -> Result<()> {
    let mut world = World::of_two()?;
    let (_, grant) = granted(&mut world)?;
    let before = world.entries.clone();
    let request = world.ask(run(&["deploy", "staging"])?)?;
    world.permit(&request)?;
    let (Some(asked), Some(permit)) = (world.entries.get(before.len()), world.entries.last()) else {
        anyhow::bail!("no request and no permit");
    };
    ensure!(
        payload_of(permit)?.contains(&grant.to_string()),
        "rests on something else"
    );
    let (gate, permit) = (&world.cast.gate, payload_of(permit)?);
    let mut files = Vec::new();
    for (name, mutant) in some(mutants(&payload_of(asked)?), MUTANTS)? {
        let asked = dsse(gate, "request", &mutant)?;
        let permit = permit.replace(&request.digest().to_string(), &asked.digest().to_string());
        let entries = [before.as_slice(), &[asked, dsse(gate, "permit", &permit)?]].concat();
        files.push((name, export(gate, &entries)));
    }
    ensure!(compare(&files)? > 3, "hardly anything is like it");
    Ok(())
}

#[test]
fn rosters_with_a_policy() -> Result<()> {
    let world = World::of_two_under_policy()?;
    compare_mutants(&world, &world.cast.gate, "roster")
}

#[test]
fn requests_under_a_policy() -> Result<()> {
    let mut world = World::of_two_under_policy()?;
    world.ask(call()?)?;
    compare_mutants(&world, &world.cast.gate, "request")
}

#[test]
fn permits_by_a_rule() -> Result<()> {
    let mut world = World::of_two_under_policy()?;
    let list = world.ask(run(&["ls", "a.log"])?)?;
    world.permit(&list)?;
    compare_mutants(&world, &world.cast.gate, "permit")
}

#[test]
fn outcomes_that_are_forbidden() -> Result<()> {
    let mut world = World::of_two_under_policy()?;
    let never = world.ask(run(&["rm", "x"])?)?;
    world.end(&never, None, Ended::Forbidden(Forbidden { rule: Some(1) }))?;
    compare_mutants(&world, &world.cast.gate, "outcome")
}

#[test]
fn permits_without_an_admin() -> Result<()> {
    let mut world = World::unenrolled(Unenrolled::Allow)?;
    let asked = world.ask(command()?)?;
    world.permit(&asked)?;
    compare_mutants(&world, &world.cast.gate, "permit")
}

#[test]
fn a_genesis_that_allows() -> Result<()> {
    let world = World::unenrolled(Unenrolled::Allow)?;
    compare_mutants(&world, &world.cast.gate, "roster")
}

#[test]
fn everything_in_another_place() -> Result<()> {
    in_another_place(&season()?.0)
}

#[test]
fn everything_under_a_policy_in_another_place() -> Result<()> {
    in_another_place(&ruled()?)
}

#[test]
fn everything_without_an_admin_in_another_place() -> Result<()> {
    in_another_place(&unenrolled()?)
}

fn in_another_place(world: &World) -> Result<()> {
    let (entries, mut orders) = (&world.entries, Vec::new());
    for (at, entry) in entries.iter().enumerate() {
        let mut removed = entries.clone();
        removed.remove(at);
        orders.push((format!("without entry {at}"), removed.clone()));
        for to in 0..removed.len() {
            for (name, others) in [("", &removed), (" again", entries)] {
                let mut moved = others.clone();
                moved.insert(to, entry.clone());
                orders.push((format!("entry {at}{name} at {to}"), moved));
            }
        }
    }
    let files = some(orders, MUTANTS)?
        .into_iter()
        .map(|(name, entries)| (name, export(&world.cast.gate, &entries)))
        .collect::<Vec<_>>();
    compare(&files)?;
    Ok(())
}

#[test]
fn checkpoints_of_another_form() -> Result<()> {
    let world = World::of_alice()?;
    let (gate, good) = (&world.cast.gate, world.checkpoint());
    let (body, signed) = good.as_str().split_once("\n\n").context("no blank line")?;
    let (name, signature) = signed.trim_end().rsplit_once(' ').context("no signature")?;
    let signature = STANDARD.decode(signature)?;
    let (hash, _) = signature.split_at_checked(4).context("no key hash")?;
    // Signs these lines as the gate would, but with this key hash, and ends the text so.
    let note = |lines: &str, hash: &[u8], end: &str| {
        let signature = [hash, &gate.sign(lines.as_bytes())].concat();
        format!("{lines}\n{name} {}{end}", STANDARD.encode(signature))
    };
    let lines = format!("{body}\n");
    let resized = |size: &str| note(&lines.replacen("\n2\n", &format!("\n{size}\n"), 1), hash, "\n");
    assert_eq!(note(&lines, hash, "\n"), good.as_str());
    let texts = [
        note(&lines, &[0; 4], "\n"),
        note(&lines, &[hash, &[0]].concat(), "\n"),
        note(&lines, hash, ""),
        note(&lines, hash, "\n\n"),
        note(&lines, hash, " \n"),
        note(&format!("{lines}an extension\n"), hash, "\n"),
        note(&lines.replacen("\n2\n", "\n2\r\n", 1), hash, "\n"),
        note(&lines.replace("=\n", "\n"), hash, "\n"),
        resized("02"),
        resized("+2"),
        resized("2 "),
        resized("\u{662}"),
        resized("-2"),
        resized("18446744073709551618"),
        resized(""),
        format!("{}{}\n", good.as_str(), signed.trim_end()),
        good.as_str().replace("\u{2014} ", "- "),
    ];
    let bad = texts
        .into_iter()
        .map(|text| (text.clone(), export_under(gate, &world.entries, &text)))
        .collect::<Vec<_>>();
    assert_eq!(compare(&bad)?, 0);
    Ok(())
}

#[test]
fn more_open_requests_than_anybody_reads() -> Result<()> {
    let mut world = World::of_alice()?;
    for _ in 0..64 {
        world.ask(command()?)?;
    }
    let one_more = sign(&world.cast.gate, world.question(command()?)?)?;
    let entries = [world.entries.as_slice(), &[one_more.signed().clone()]].concat();
    let files = [("64", &world.entries), ("65", &entries)];
    let files = files.map(|(count, entries)| (format!("{count} open"), export(&world.cast.gate, entries)));
    assert_eq!(compare(&files)?, 1);
    Ok(())
}
