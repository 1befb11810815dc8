//! One child process: what it says is collected as it comes, and it doesn't outlive its guard.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How long anything may take that is waited for. Far more than it takes; a test that gets here has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Rung whenever a process says something or ends: what a test waits for instead of sleeping.
#[derive(Clone, Default)]
pub struct Bell(Arc<(Mutex<u64>, Condvar)>);

impl Bell {
    /// How often it has rung.
    pub fn count(&self) -> u64 {
        *lock(&self.0.0)
    }

    /// Waits until it has rung more than `count` times, at most `longest`. Whether it has.
    pub fn wait_beyond(&self, count: u64, longest: Duration) -> bool {
        let rung = lock(&self.0.0);
        let (rung, _) = self
            .0
            .1
            .wait_timeout_while(rung, longest, |rung| *rung <= count)
            .unwrap_or_else(PoisonError::into_inner);
        *rung > count
    }

    fn ring(&self) {
        *lock(&self.0.0) += 1;
        self.0.1.notify_all();
    }
}

/// What a process wrote to one of its streams so far.
#[derive(Default)]
struct Said {
    bytes: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
}

/// A running process, killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Said>,
    stderr: Arc<Said>,
    ended: Option<ExitStatus>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(mut stream: impl Read + Send + 'static, bell: Bell) -> Arc<Said> {
    let said = Arc::new(Said::default());
    let to = Arc::clone(&said);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).unwrap_or(0);
            let mut bytes = lock(&to.bytes);
            bytes.0.extend_from_slice(&buffer[..count]);
            bytes.1 = count == 0;
            drop(bytes);
            to.more.notify_all();
            bell.ring();
            if count == 0 {
                return;
            }
        }
    });
    said
}

impl Said {
    /// Waits for `words` after position `from`. Where they end, or `None` when the stream ended without them.
    fn find(&self, words: &str, from: usize, end: Instant) -> Result<Option<usize>, String> {
        let mut bytes = lock(&self.bytes);
        loop {
            let rest = &bytes.0[from.min(bytes.0.len())..];
            if let Some(at) = rest.windows(words.len()).position(|window| window == words.as_bytes()) {
                return Ok(Some(from + at + words.len()));
            }
            if bytes.1 {
                return Ok(None);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(String::from_utf8_lossy(&bytes.0).into_owned());
            }
            bytes = self
                .more
                .wait_timeout(bytes, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes).0).into_owned()
    }
}

impl Process {
    /// Starts a program. Nothing of this process's own Countersign settings reaches it.
    pub fn start(program: &Path, arguments: &[&OsStr], bell: &Bell) -> Self {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COUNTERSIGN")) {
            if name != "COUNTERSIGN_LOG" {
                command.env_remove(name);
            }
        }
        let name = arguments
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let stdout = listen(child.stdout.take().expect("it was piped"), bell.clone());
        let stderr = listen(child.stderr.take().expect("it was piped"), bell.clone());
        Self {
            name,
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
            ended: None,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// All that it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until it has written these words to stdout; false if it ended without.
    ///
    /// # Panics
    /// If neither happens within [`DEADLINE`].
    pub fn says(&self, words: &str) -> bool {
        match self.stdout.find(words, 0, Instant::now() + DEADLINE) {
            Ok(found) => found.is_some(),
            Err(said) => panic!(
                "`{}` never says {words:?}; stdout: {said}\nstderr: {}",
                self.name,
                self.stderr()
            ),
        }
    }

    /// Waits until it has written these words to stderr; false if it ended without.
    ///
    /// # Panics
    /// If neither happens within [`DEADLINE`].
    pub fn remarks(&self, words: &str) -> bool {
        match self.stderr.find(words, 0, Instant::now() + DEADLINE) {
            Ok(found) => found.is_some(),
            Err(said) => panic!(
                "`{}` never says {words:?}; stderr: {said}\nstdout: {}",
                self.name,
                self.stdout()
            ),
        }
    }

    /// Types a line.
    ///
    /// # Panics
    /// If this process's input was given away by [`Process::answers`].
    pub fn types(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is here");
        // A process that has just ended takes nothing, which whoever waits for it notices.
        let _ = writeln!(stdin, "{line}");
    }

    /// From now on types `line` whenever it asks with these words on stderr.
    ///
    /// # Panics
    /// If it was called before.
    pub fn answers(&mut self, words: &'static str, line: &'static str) {
        let mut stdin = self.stdin.take().expect("its input is here");
        let said = Arc::clone(&self.stderr);
        std::thread::spawn(move || {
            let mut at = 0;
            loop {
                match said.find(words, at, Instant::now() + DEADLINE) {
                    Ok(Some(next)) => at = next,
                    Ok(None) => return,
                    Err(_) => continue,
                }
                if writeln!(stdin, "{line}").is_err() {
                    return;
                }
            }
        });
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it hasn't ended within [`DEADLINE`].
    pub fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        // Both streams end with the process, so that nothing it said is missed.
        for said in [&self.stdout, &self.stderr] {
            let mut bytes = lock(&said.bytes);
            while !bytes.1 {
                let left = end.saturating_duration_since(Instant::now());
                assert!(
                    !left.is_zero(),
                    "`{}` doesn't end; stderr: {}",
                    self.name,
                    String::from_utf8_lossy(&bytes.0)
                );
                bytes = said
                    .more
                    .wait_timeout(bytes, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
        self.reap()
    }

    fn reap(&mut self) -> ExitStatus {
        match self.ended {
            Some(status) => status,
            None => *self.ended.insert(self.child.wait().expect("it is our child")),
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("it is our child");
        }
        self.ended.is_none()
    }

    /// Asks it to end, as an operator would, and waits.
    pub fn terminate(&mut self) -> ExitStatus {
        if self.runs() {
            let id = i32::try_from(self.id())
                .ok()
                .and_then(Pid::from_raw)
                .expect("a process id");
            let _ = rustix::process::kill_process(id, Signal::TERM);
        }
        self.end()
    }

    /// Kills it, which it can't notice.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            self.reap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
