//! Who the processes are: the gate, an admin who watches, and whoever asks; and a world of them with its relay, which is in `relay`.

use std::ffi::OsStr;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use super::child::{Bell, Process};
use super::relay::Relay;
use crate::program::program;

const PROGRAMS: [&str; 2] = ["countersign", "countersign-relay"];

/// What `countersign watch` asks with.
const PROMPT: &str = "[q]uit: ";

/// A gate's home, and its process while it serves.
pub struct Gate {
    /// Its home.
    pub home: PathBuf,
    bell: Bell,
    process: Option<Process>,
    log: String,
}

/// An admin's home, and the process that watches.
pub struct Admin {
    /// The admin's home.
    pub home: PathBuf,
    bell: Bell,
    process: Option<Process>,
    log: String,
}

/// Somebody who asks for one command and waits.
pub struct Asking {
    /// The process `countersign run`.
    pub process: Process,
}

/// A relay, a gate and one enrolled admin, all in one folder.
pub struct World {
    /// The relay, running.
    pub relay: Relay,
    /// The gate, serving.
    pub gate: Gate,
    /// The admin, enrolled and not watching.
    pub admin: Admin,
    /// Rung by all processes of this world.
    pub bell: Bell,
    // Last: the processes end before their folders go.
    folder: TempDir,
    _programs: Arc<TempDir>,
}

/// Further names of the programs, for as long as a world is there: a build that replaces them meanwhile changes nothing here.
pub(super) fn programs() -> Arc<TempDir> {
    static HELD: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = held.upgrade() {
        return folder;
    }
    let originals = PROGRAMS.map(program);
    let [first, _] = &originals;
    let folder = tempfile::Builder::new()
        .prefix("held-")
        .tempdir_in(first.parent().expect("a program is in a folder"))
        .expect("a folder beside the programs");
    for (name, original) in PROGRAMS.iter().zip(&originals) {
        std::fs::hard_link(original, folder.path().join(name)).expect("another name for a program");
    }
    let folder = Arc::new(folder);
    *held = Arc::downgrade(&folder);
    folder
}

pub(super) fn close(
    process: &mut Option<Process>,
    log: &mut String,
    how: impl FnOnce(&mut Process) -> Option<ExitStatus>,
) -> Option<ExitStatus> {
    let mut process = process.take()?;
    let status = how(&mut process);
    log.push_str(&process.stdout());
    log.push_str(&process.stderr());
    status
}

pub(super) fn kill(process: &mut Process) -> Option<ExitStatus> {
    process.kill();
    None
}

pub(super) fn terminate(process: &mut Process) -> Option<ExitStatus> {
    Some(process.terminate())
}

/// `countersign` with a home.
pub fn countersign(home: &Path, arguments: &[&str], bell: &Bell) -> Process {
    let mut all = vec![OsStr::new("--home"), home.as_os_str()];
    all.extend(arguments.iter().map(OsStr::new));
    Process::start(&programs().path().join("countersign"), &all, bell)
}

/// Runs `countersign` to its end, which must be a good one; gives its stdout.
fn done(home: &Path, arguments: &[&str]) -> String {
    let mut process = countersign(home, arguments, &Bell::default());
    let status = process.end();
    assert!(
        status.success(),
        "{arguments:?}: {status}\n{}{}",
        process.stdout(),
        process.stderr()
    );
    process.stdout()
}

/// A database file and what SQLite keeps beside it, as far as they are there.
pub fn beside(database: &Path) -> Vec<PathBuf> {
    let named = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    ["", "-wal", "-shm", "-journal"]
        .into_iter()
        .map(named)
        .filter(|path| path.exists())
        .collect()
}

impl Gate {
    fn new(folder: &Path, relay: &str, name: &str, bell: &Bell) -> Self {
        let home = folder.join("gate");
        done(&home, &["gate", "init", "--relay", relay, "--name", name]);
        let mut gate = Self {
            home,
            bell: bell.clone(),
            process: None,
            log: String::new(),
        };
        gate.start();
        gate
    }

    /// Starts it and doesn't wait.
    pub fn begin(&mut self) {
        self.process = Some(countersign(&self.home, &["gate", "serve"], &self.bell));
    }

    /// Starts it and waits until it listens.
    pub fn start(&mut self) {
        self.begin();
        assert!(
            self.process().says("gate listening on"),
            "the gate doesn't start: {}",
            self.process().stderr()
        );
    }

    /// Its running process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the gate runs")
    }

    /// SIGKILL.
    pub fn crash(&mut self) {
        close(&mut self.process, &mut self.log, kill);
    }

    /// SIGTERM; how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        close(&mut self.process, &mut self.log, terminate).expect("the gate runs")
    }

    /// All that it ever wrote to stdout and stderr.
    pub fn log(&self) -> String {
        let now = self
            .process
            .as_ref()
            .map_or(String::new(), |process| process.stdout() + &process.stderr());
        format!("{}{now}", self.log)
    }

    /// `gate status`, as JSON; `None` while it isn't running.
    pub fn status(&self) -> Option<serde_json::Value> {
        let mut process = countersign(&self.home, &["--json", "gate", "status"], &Bell::default());
        process.end();
        serde_json::from_str(&process.stdout()).ok()
    }

    /// The transcript as an export file, verified.
    pub fn export(&self) -> Vec<u8> {
        exported(&self.home)
    }
}

fn exported(home: &Path) -> Vec<u8> {
    let text = done(home, &["gate", "export"]).into_bytes();
    let expect = approval::export::Expect::default();
    if let Err(error) = approval::export::verify(BufReader::new(text.as_slice()), &expect) {
        panic!("the transcript in {} doesn't hold: {error}", home.display());
    }
    text
}

impl Admin {
    /// Pairs a device with the gate, through both programs; whoever runs the gate compares the codes.
    pub fn enrol(folder: &Path, gate: &Gate, person: &str, device: &str, bell: &Bell) -> Self {
        let mut inviting = countersign(&gate.home, &["--json", "gate", "invite", "--person", person], bell);
        assert!(inviting.says("\"link\""), "no invite: {}", inviting.stderr());
        let link = field(&inviting.stdout(), "link");
        let home = folder.join("admin");
        let mut joining = countersign(&home, &["--json", "join", &link, "--yes", "--name", device], bell);
        assert!(
            joining.says("\"code\"") && inviting.says("\"code\""),
            "no code: {}{}",
            joining.stderr(),
            inviting.stderr()
        );
        assert_eq!(
            field(&joining.stdout(), "code"),
            field(&inviting.stdout(), "code"),
            "the codes differ"
        );
        inviting.types("y");
        assert!(
            joining.end().success() && inviting.end().success(),
            "not enrolled: {}{}",
            joining.stderr(),
            inviting.stderr()
        );
        Self {
            home,
            bell: bell.clone(),
            process: None,
            log: String::new(),
        }
    }

    /// Watches, and answers every request with this line as soon as it is shown.
    pub fn watch(&mut self, answer: &'static str) {
        let mut process = countersign(&self.home, &["watch"], &self.bell);
        process.answers(PROMPT, answer);
        self.process = Some(process);
    }

    /// Watches, and answers what is typed with [`Admin::types`].
    pub fn attend(&mut self) {
        self.process = Some(countersign(&self.home, &["watch"], &self.bell));
    }

    /// Types a line where the admin watches.
    pub fn types(&mut self, line: &str) {
        self.process.as_mut().expect("the admin watches").types(line);
    }

    /// Watches, and answers nothing.
    pub fn look_on(&mut self) {
        self.process = Some(countersign(&self.home, &["watch", "--no-ask"], &self.bell));
    }

    /// The running process that watches.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the admin watches")
    }

    /// SIGKILL.
    pub fn crash(&mut self) {
        close(&mut self.process, &mut self.log, kill);
    }

    /// SIGTERM; how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        close(&mut self.process, &mut self.log, terminate).expect("the admin watches")
    }

    /// All that the watching processes ever wrote.
    pub fn log(&self) -> String {
        let now = self
            .process
            .as_ref()
            .map_or(String::new(), |process| process.stdout() + &process.stderr());
        format!("{}{now}", self.log)
    }

    /// This admin's copy of the transcript as an export file, verified.
    pub fn export(&self) -> Vec<u8> {
        exported(&self.home)
    }
}

/// The first value of this name in lines of JSON.
fn field(lines: &str, name: &str) -> String {
    let values = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut found = values.filter_map(|value| value.get(name).and_then(|value| value.as_str()).map(str::to_owned));
    found.next().unwrap_or_else(|| panic!("no {name} in {lines}"))
}

impl Asking {
    /// Asks a gate for a command, with options of `countersign run` before it.
    pub fn of(gate: &Path, options: &[&str], command: &[&str], bell: &Bell) -> Self {
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.push("--");
        arguments.extend(command);
        Self {
            process: countersign(gate, &arguments, bell),
        }
    }

    /// Waits until the gate has taken the request; false if that never happened.
    pub fn is_pending(&self) -> bool {
        self.process.remarks("waiting for")
    }

    /// Waits until it is permitted; false if that never happened.
    pub fn is_permitted(&self) -> bool {
        self.process.remarks("approved by")
    }

    /// Waits for its end: the exit code.
    pub fn code(&mut self) -> Option<i32> {
        self.process.end().code()
    }
}

impl World {
    /// A world whose parties have plain names.
    pub fn new() -> Self {
        Self::named("gate", "alice", "laptop", |_| Vec::new())
    }

    /// A world with these names of the gate, its admin and the admin's device, and further arguments for the relay, made of its address.
    pub fn named(gate: &str, person: &str, device: &str, relay: impl FnOnce(&str) -> Vec<String>) -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new()
            .prefix("cs-")
            .tempdir()
            .expect("a temporary folder");
        let bell = Bell::default();
        let relay = Relay::new(folder.path(), relay, &bell);
        let gate = Gate::new(folder.path(), &relay.url(), gate, &bell);
        let admin = Admin::enrol(folder.path(), &gate, person, device, &bell);
        Self {
            relay,
            gate,
            admin,
            bell,
            folder,
            _programs: programs,
        }
    }

    /// A folder in which all of it is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks the gate for a command.
    pub fn ask(&self, options: &[&str], command: &[&str]) -> Asking {
        Asking::of(&self.gate.home, options, command, &self.bell)
    }

    /// Waits until nothing is pending and the admin has the whole transcript.
    pub fn settle(&self, pending: u64) {
        super::until("the admin has what the gate has", || {
            let Some(status) = self.gate.status() else { return false };
            let acked = status.pointer("/devices/0/acked").and_then(serde_json::Value::as_u64);
            let size = status.get("size").and_then(serde_json::Value::as_u64);
            size.is_some()
                && acked == size
                && status.get("pending").and_then(serde_json::Value::as_u64) <= Some(pending)
        });
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
