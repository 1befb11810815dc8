//! An error, a short write or a death at every system call of one full cycle that touches the store, by strace's fault
//! injection: first one cycle is watched, then it is gone through again for each call. All of them in CI, some otherwise;
//! `COUNTERSIGN_FAULTS` says how many, or `all`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::cycle::Promised;
use crate::program::{Program, has, in_ci};

/// The calls by which a store comes to be and changes. Those that this machine's libraries don't use don't occur.
const CALLS: &[&str] = &[
    "openat",
    "mkdir",
    "flock",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
];

/// Stops at no other call. A signal doesn't get through then.
const FAST: &str = "--seccomp-bpf";

/// Cycles at a time.
const AT_ONCE: usize = 2;

const MISSED: &str = "it never came to it";

/// What a plain run tries of all that CI does.
const SAMPLE: usize = 24;

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    call: String,
    /// Which one, of those of a thread.
    number: usize,
    what: &'static str,
}

impl Fault {
    fn words(&self) -> String {
        format!("inject={}:{}:when={}", self.call, self.what, self.number)
    }

    fn is_flush(&self) -> bool {
        ["fsync", "fdatasync"].contains(&self.call.as_str())
    }

    fn is_death(&self) -> bool {
        self.what.starts_with("signal=")
    }
}

/// Everything that can happen to a call.
fn mishaps(call: &str) -> Vec<&'static str> {
    let mut mishaps = vec!["signal=SIGKILL", "error=EIO", "error=ENOSPC"];
    match call {
        "pwrite64" => mishaps.extend(["error=EINTR", "error=EDQUOT", "retval=0"]),
        "openat" => mishaps.extend(["error=EINTR", "error=EMFILE"]),
        "fsync" | "fdatasync" => mishaps.push("error=EDQUOT"),
        _ => {}
    }
    mishaps
}

/// What a cycle does to the store: how often a thread makes each call at most, and which paths there are.
struct Seen {
    counts: BTreeMap<String, usize>,
    paths: BTreeSet<String>,
}

async fn watch() -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let (store, trace) = (folder.path().join("s/relay.db"), folder.path().join("trace"));
    let words = [
        FAST.to_owned(),
        "-y".to_owned(),
        "-o".to_owned(),
        trace.to_str().unwrap().to_owned(),
        "-e".to_owned(),
        format!("trace={}", CALLS.join(",")),
    ];
    let program = Program::start(&store, &words);
    let mut promised = Promised::default();
    promised.cycle(program.address().unwrap()).await;
    assert!(promised.allowed && promised.stored.len() == 6, "{promised:?}");
    program.signal(Signal::TERM);
    assert!(program.end().is_well());
    promised.holds(&store).await;
    let store = store.parent().unwrap().to_str().unwrap();
    let mut seen = Seen {
        counts: BTreeMap::new(),
        paths: BTreeSet::from([store.to_owned()]),
    };
    let mut threads: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let text = std::fs::read_to_string(&trace).unwrap();
    for line in text.lines().filter(|line| line.contains(store)) {
        let (thread, rest) = line.split_once(' ').unwrap();
        let Some((call, arguments)) = rest.trim_start().split_once('(') else {
            continue;
        };
        *threads.entry((thread, call)).or_default() += 1;
        for (at, _) in arguments.match_indices(store) {
            let path = arguments[at..].split(['"', '>', ' ', '(']).next().unwrap();
            seen.paths.insert(path.to_owned());
        }
    }
    for ((_, call), count) in threads {
        let most = seen.counts.entry(call.to_owned()).or_default();
        *most = count.max(*most);
    }
    seen
}

/// One cycle in which one call fails, and what comes after it.
async fn suffer(fault: &Fault, names: &[String]) -> Result<&'static str, String> {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("s/relay.db");
    let own = store.parent().unwrap().to_str().unwrap();
    let mut words = vec![
        "-y".to_owned(),
        "-o".to_owned(),
        folder.path().join("trace").to_str().unwrap().to_owned(),
    ];
    if !fault.is_death() {
        words.push(FAST.to_owned());
    }
    for name in names {
        words.extend(["-P".to_owned(), format!("{own}{name}")]);
    }
    words.extend([
        "-e".to_owned(),
        format!("trace={}", fault.call),
        "-e".to_owned(),
        fault.words(),
    ]);
    let mut program = Program::start(&store, &words);
    let mut promised = Promised::default();
    let started = program.address();
    let whole = match started {
        Some(address) => promised.cycle(address).await,
        None => false,
    };
    // Who hung up on everybody is about to end.
    let by_itself = !whole && program.ends_by_itself().await;
    program.signal(Signal::TERM);
    let ending = program.end();
    let trace = std::fs::read_to_string(folder.path().join("trace")).unwrap_or_default();
    let injected = injected(&trace);
    let happened = ending.is_kill() || injected.is_some();
    let outcome = match () {
        () if ending.is_kill() && fault.is_death() => "killed",
        () if ending.is_refusal() && started.is_none() => "didn't start",
        () if ending.is_refusal() && by_itself => "ended by itself",
        () if ending.is_refusal() => "ended with an error when told to end",
        () if ending.is_well() && promised.refused > 0 => "refused puts and went on",
        () if ending.is_well() && whole => "went on",
        () => return Err(format!("it ended with {}: {}", ending.status, ending.words)),
    };
    // Whatever became of the data, nobody can know: only the end is right (abuse case H03). But of the folder SQLite doesn't ask
    // when it makes a journal; the relay does when the store is in its place.
    let of_folder = injected.is_some_and(|line| line.contains(&format!("<{own}>")));
    let asked = fault.is_flush() && !fault.is_death() && !of_folder;
    if asked && happened && started.is_some() && !(by_itself || (whole && ending.is_refusal())) {
        return Err(format!("a flush failed and it went on: {}", ending.words));
    }
    if promised.holds(&store).await.is_some() {
        return Ok("never promised anything, and doesn't start again");
    }
    Ok(if happened { outcome } else { MISSED })
}

/// The line with the arguments of the first call that was made to fail.
fn injected(trace: &str) -> Option<&str> {
    let mut before = trace.lines();
    let failed = before.find(|line| line.contains("(INJECTED)"))?;
    let (thread, words) = failed.split_once(' ')?;
    if !words.contains(" resumed>") {
        return Some(failed);
    }
    let unfinished = trace.lines().take_while(|line| *line != failed);
    unfinished
        .filter(|line| line.starts_with(thread) && line.contains("<unfinished"))
        .last()
}

/// Abuse cases H01, H02 and H03.
#[test]
fn whatever_call_fails_nothing_stored_is_lost() {
    if !has("strace", "strace") {
        return;
    }
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let seen = runtime().block_on(watch());
    eprintln!("calls of a thread: {:?}", seen.counts);
    for needed in ["openat", "pwrite64"] {
        assert!(seen.counts.contains_key(needed), "no {needed} was seen");
    }
    let own = seen.paths.first().unwrap().clone();
    let names: Vec<String> = seen
        .paths
        .iter()
        .map(|path| path.strip_prefix(&own).unwrap().to_owned())
        .collect();
    let mut all = Vec::new();
    for (call, count) in &seen.counts {
        for number in 1..=*count {
            all.extend(mishaps(call).into_iter().map(|what| Fault {
                call: call.clone(),
                number,
                what,
            }));
        }
    }
    let faults = sample(all);
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::<_, usize>::new());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = std::panic::catch_unwind(|| runtime().block_on(suffer(fault, &names)));
                    let outcome = match tried {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(words)) => {
                            wrong.lock().unwrap().push(format!("{}: {words}", fault.words()));
                            "wrong"
                        }
                        // The panic has said what.
                        Err(_) => {
                            wrong.lock().unwrap().push(format!("{}: see above", fault.words()));
                            "wrong"
                        }
                    };
                    if std::env::var_os("COUNTERSIGN_FAULTS").is_some() {
                        eprintln!("{}: {outcome}", fault.words());
                    }
                    *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
                }
            });
        }
    });
    let (wrong, outcomes) = (wrong.into_inner().unwrap(), outcomes.into_inner().unwrap());
    eprintln!("{} faults: {outcomes:?}", faults.len());
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        faults.len(),
        wrong.join("\n")
    );
}

/// All of them, or some that are spread evenly and begin elsewhere each time.
fn sample(all: Vec<Fault>) -> Vec<Fault> {
    let asked = std::env::var("COUNTERSIGN_FAULTS").ok();
    let most = match asked.as_deref() {
        Some("all") => all.len(),
        Some(number) => number.parse().expect("COUNTERSIGN_FAULTS is a number or `all`"),
        None if in_ci() => all.len(),
        None => SAMPLE,
    };
    let count = most.min(all.len());
    let begin = usize::try_from(std::process::id()).unwrap();
    (0..count)
        .map(|number| all[(begin + number * all.len() / count) % all.len()].clone())
        .collect()
}
