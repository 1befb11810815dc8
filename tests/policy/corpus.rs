//! Two corpora against the default policy and against every grant that one choice makes: `corpus/abuses.txt` holds what programs
//! can be made to do (`program<TAB>function<TAB>line`), `corpus/everyday.txt` what people type. Both were written for this test.
//! An abuse that names a file names it by its absolute path, as whoever wants it would: that `cat` reads what stands in its own
//! folder is what it is for.

mod cases;
pub(super) mod gate;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use approval::action::Action;
use approval::grant::Terms;
use approval::policy::{DEFAULT, Policy, Says, is_plain};
use approval::render::{Reading, parse, render};
use approval::standing::Standing;

use gate::{Line, asked_by, command, command_of, executable, now, request};

const ABUSES: &str = include_str!("corpus/abuses.txt");
const EVERYDAY: &str = include_str!("corpus/everyday.txt");

/// Something that a program can be made to do.
struct Abuse {
    program: &'static str,
    /// `shell`, `command`, `file-read`…
    function: &'static str,
    line: Line,
}

fn abuses() -> Vec<Abuse> {
    let read = |row: &'static str| {
        let mut fields = row.splitn(3, '\t');
        let mut field = || {
            fields
                .next()
                .unwrap_or_else(|| panic!("a row without three fields: {row}"))
        };
        Abuse {
            program: field(),
            function: field(),
            line: Line::read(field()),
        }
    };
    ABUSES.lines().map(read).collect()
}

fn everyday() -> Vec<Line> {
    EVERYDAY.lines().map(Line::read).collect()
}

fn default_policy() -> Policy {
    Policy::parse(DEFAULT).unwrap()
}

fn says(policy: &Policy, line: &Line) -> Says {
    let judgement = policy.judge(&line.action(), &asked_by(), now(), &Standing::default());
    judgement.effect.says()
}

/// Every grant that one choice makes for this action: exactly this, one argument left blank, or all that can be.
fn grants(action: &Action, arguments: usize) -> Vec<Terms> {
    let blank = |blanks: Vec<u32>| Terms {
        blanks,
        ..Terms::exact()
    };
    let single: Vec<u32> = (1..u32::try_from(arguments).unwrap())
        .filter(|at| blank(vec![*at]).may_cover(action).is_ok())
        .collect();
    let mut choices = vec![Terms::exact()];
    choices.extend(single.iter().map(|at| blank(vec![*at])));
    choices.push(blank(single));
    choices.retain(|terms| terms.may_cover(action).is_ok());
    choices.dedup();
    choices
}

#[test]
fn the_corpora_are_wide() {
    let (abuses, everyday) = (abuses(), everyday());
    let programs: BTreeSet<_> = abuses.iter().map(|abuse| abuse.program).collect();
    let functions: BTreeSet<_> = abuses.iter().map(|abuse| abuse.function).collect();
    let tools: BTreeSet<_> = everyday.iter().map(|line| line.text.split(' ').next()).collect();
    println!("abuses: {} of {} programs, {functions:?}", abuses.len(), programs.len());
    println!("everyday: {} of {} programs", everyday.len(), tools.len());
    assert!(abuses.len() >= 600 && programs.len() >= 250 && functions.len() >= 10);
    assert!(everyday.len() >= 600 && tools.len() >= 200);
    for lines in [
        abuses.iter().map(|abuse| &abuse.line.text).collect::<Vec<_>>(),
        everyday.iter().map(|line| &line.text).collect(),
    ] {
        let distinct: BTreeSet<_> = lines.iter().collect();
        assert!(lines.len() - distinct.len() < 40, "hardly a line twice");
    }
}

#[test]
fn the_default_policy_lets_no_abuse_pass() {
    let (policy, abuses) = (default_policy(), abuses());
    let passed: Vec<_> = abuses
        .iter()
        .filter(|abuse| says(&policy, &abuse.line) == Says::Allow)
        .map(|abuse| format!("{} ({})", abuse.line.text, abuse.function))
        .collect();
    println!(
        "abuses that run without being asked: {} of {} (0 %)",
        passed.len(),
        abuses.len()
    );
    assert!(passed.is_empty(), "{passed:#?}");
}

#[test]
fn nine_in_ten_everyday_commands_are_shown_whole_as_their_arguments() {
    let everyday = everyday();
    let whole = everyday
        .iter()
        .filter(|line| line.plain && is_shown_whole(line))
        .count();
    let rate = whole * 1000 / everyday.len();
    println!(
        "everyday commands shown whole as argv: {whole} of {} ({}.{} %)",
        everyday.len(),
        rate / 10,
        rate % 10
    );
    assert!(rate >= 900, "{rate} in a thousand");
    let lost: Vec<_> = everyday
        .iter()
        .filter(|line| !is_shown_whole(line))
        .map(|line| &line.text)
        .collect();
    assert!(
        lost.is_empty(),
        "also what takes a shell is shown whole, in one argument: {lost:?}"
    );
}

/// Every argument stands on a line of its own, and the whole reads back as what would run.
fn is_shown_whole(line: &Line) -> bool {
    let (action, text) = (line.action(), render(&line.action()));
    let shown = text
        .lines()
        .filter(|shown| shown.trim_start().starts_with("argv["))
        .count();
    shown == line.command.argv.len() && parse(&text) == Ok(Reading::of(&action))
}

#[test]
fn everyday_commands_that_only_read_run_without_being_asked() {
    let policy = default_policy();
    let allowed: BTreeSet<_> = everyday()
        .into_iter()
        .filter(|line| says(&policy, line) == Says::Allow)
        .map(|line| line.text)
        .collect();
    println!(
        "everyday forms that run without being asked: {} {allowed:?}",
        allowed.len()
    );
    assert!(allowed.len() >= 25, "{allowed:?}");
}

#[test]
fn no_grant_that_one_choice_makes_covers_an_abuse() {
    let everyday = everyday();
    let mut of_program: BTreeMap<String, Vec<Abuse>> = BTreeMap::new();
    for abuse in abuses() {
        let path = String::from_utf8(abuse.line.command.executable.path.as_bytes().to_vec()).unwrap();
        of_program.entry(path).or_default().push(abuse);
    }
    let (mut made, mut compared, mut covered) = (0, 0, Vec::new());
    for line in &everyday {
        let action = line.action();
        let granted = request(action.clone());
        let argv0 = String::from_utf8(line.command.argv[0].as_bytes().to_vec()).unwrap();
        let path = executable(&argv0);
        for terms in grants(&action, line.command.argv.len()) {
            made += 1;
            for abuse in of_program.get(&path).into_iter().flatten() {
                // Under its own name, and under the name that the everyday command goes by.
                let mut renamed = abuse.line.command.clone();
                renamed.argv[0] = line.command.argv[0].clone();
                for asked in [abuse.line.command.clone(), renamed] {
                    compared += 1;
                    let same = asked == line.command;
                    if !same && terms.cover(&granted, &Action::Command(asked), &asked_by()) {
                        covered.push(format!(
                            "{:?} of `{}` covers `{}`",
                            terms.blanks, line.text, abuse.line.text
                        ));
                    }
                }
            }
        }
    }
    println!(
        "grants of one choice: {made} for {} everyday commands, {compared} comparisons with abuses, {} covered (0 %)",
        everyday.len(),
        covered.len()
    );
    assert!(made > everyday.len() && compared > 5_000);
    covered.sort();
    covered.dedup();
    assert!(covered.is_empty(), "{covered:#?}");
}

/// The wider question: not which everyday command stands in our corpus, but whether any command of that program could be granted
/// so that an abuse is like it.
#[test]
fn no_grant_of_any_command_covers_one_that_runs_a_shell() {
    let runs = [
        "shell",
        "command",
        "sudo",
        "suid",
        "library-load",
        "reverse-shell",
        "bind-shell",
    ];
    let mut covered = Vec::new();
    for abuse in abuses()
        .iter()
        .filter(|abuse| runs.contains(&abuse.function) && abuse.line.plain)
    {
        // The shell by its name alone: what has a slash fills no blank.
        let argv: Vec<String> = abuse
            .line
            .command
            .argv
            .iter()
            .map(|argument| without_folder(argument.as_bytes()))
            .collect();
        let asked = Action::Command(command_of(&executable(&argv[0]), &argv));
        for at in 1..argv.len() {
            let blanks_at_shell = argv[at] == "sh" || (1..argv.len()).all(|at| is_plain(argv[at].as_bytes()));
            if !blanks_at_shell || abuse.function == "suid" {
                continue;
            }
            let mut harmless = argv.clone();
            harmless[at] = "x".to_owned();
            if harmless == argv {
                continue;
            }
            let granted = request(Action::Command(command(&harmless)));
            let mut choices = grants(&granted.action, argv.len());
            choices.retain(|terms| terms.cover(&granted, &asked, &asked_by()));
            covered.extend(
                choices
                    .iter()
                    .map(|terms| format!("{}: {:?} of {harmless:?}", abuse.line.text, terms.blanks)),
            );
        }
    }
    covered.sort();
    covered.dedup();
    assert!(covered.is_empty(), "{covered:#?}");
}

fn without_folder(argument: &[u8]) -> String {
    let text = String::from_utf8(argument.to_vec()).unwrap();
    match text.as_str() {
        "/bin/sh" | "/bin/bash" => "sh".to_owned(),
        _ => text,
    }
}
