//! The ground of the race: a folder of the agent's, two versions of one thing in it, and somebody who swaps them without pause.
//! Not here: asking and running.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use approval::action::{Command, Limits};
use approval::{ByteString, Digest};
use countersign::runner::Asking;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// The agent, where the tests run as root.
const AGENT: u32 = 65_534;

/// What is swapped, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prey {
    /// A binary, by renaming another over it.
    Program,
    /// A binary, by writing into it.
    ProgramInPlace,
    /// A script with `#!`.
    Script,
    /// The same, by writing into it.
    ScriptInPlace,
    /// The interpreter of a script.
    Interpreter,
    /// The file that a shell is given.
    Operand,
    /// The same, by writing into it.
    OperandInPlace,
    /// The folder of a script, by a link in its place.
    Parent,
    /// The working directory.
    Directory,
    /// A file that `cat` is given: checked at last, and opened once more by `cat`.
    Data,
    /// A script that only the gate's own user can change, by that user.
    OwnScript,
}

/// Of these nothing but what was approved may ever run.
pub const BOUND: &[Prey] = &[
    Prey::Program,
    Prey::ProgramInPlace,
    Prey::Script,
    Prey::ScriptInPlace,
    Prey::Interpreter,
    Prey::Operand,
    Prey::OperandInPlace,
    Prey::Parent,
    Prey::Directory,
];
/// Of these the moment between the last look and the opening remains.
pub const OPEN: &[Prey] = &[Prey::Data, Prey::OwnScript];

pub struct Ground {
    pub prey: Prey,
    _folder: tempfile::TempDir,
    path: PathBuf,
    stop: Arc<AtomicBool>,
    swapper: Option<JoinHandle<()>>,
}

const VERSIONS: [&str; 2] = ["one\n", "two\n"];

/// They differ in their first line too: what that says mustn't be taken from the one and the rest from the other.
fn script(version: usize) -> String {
    let name = VERSIONS[version].trim();
    format!(
        "#!/bin/sh{}\ncase $- in *f*) echo {name} -f;; *) echo {name};; esac\n",
        [" ", " -f"][version]
    )
}

fn put(path: &Path, contents: &[u8], owner: Option<u32>) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    chown(path, owner, owner).unwrap();
}

impl Ground {
    /// With the swapping under way.
    pub fn new(prey: Prey) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        let agents = rustix::process::geteuid().is_root() && prey != Prey::OwnScript;
        let owner = agents.then_some(AGENT);
        for version in [0, 1] {
            let (path, below) = (path.join(format!("{version}")), path.join(format!("d{version}")));
            fs::create_dir(&below).unwrap();
            match prey {
                Prey::Program | Prey::ProgramInPlace => {
                    put(&path, &fs::read(["/bin/echo", "/bin/printf"][version]).unwrap(), owner);
                }
                Prey::Interpreter => put(&path, &fs::read(["/bin/sh", "/bin/cat"][version]).unwrap(), owner),
                Prey::Directory => put(&below.join(VERSIONS[version].trim()), b"", owner),
                Prey::Parent => put(&below.join("prey"), script(version).as_bytes(), owner),
                Prey::Data => put(&path, VERSIONS[version].as_bytes(), owner),
                _ => put(&path, script(version).as_bytes(), owner),
            }
        }
        if prey == Prey::Interpreter {
            let text = format!("#!{}\necho {}", path.join("prey").display(), VERSIONS[0]);
            put(&path.join("script"), text.as_bytes(), owner);
        }
        if !matches!(prey, Prey::Directory | Prey::Parent) {
            put(&path.join("prey"), &fs::read(path.join("0")).unwrap(), owner);
        } else {
            fs::rename(path.join("d0"), path.join("prey")).unwrap();
        }
        let mode = if prey == Prey::OwnScript { 0o755 } else { 0o777 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, owner, owner).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (path, stop) = (path.clone(), Arc::clone(&stop));
            move || swap_without_end(prey, &path, owner, &stop)
        });
        Self {
            prey,
            _folder: folder,
            path,
            stop,
            swapper: Some(swapper),
        }
    }

    /// What the agent asks for.
    pub fn asking(&self) -> Asking {
        let prey = self.path.join("prey");
        let prey = prey.to_str().unwrap();
        let (argv, directory) = match self.prey {
            Prey::Program | Prey::ProgramInPlace => (vec![prey.to_owned(), "one".to_owned()], "/".into()),
            Prey::Interpreter => (vec![self.path.join("script").to_str().unwrap().to_owned()], "/".into()),
            Prey::Operand | Prey::OperandInPlace => (vec!["sh".to_owned(), prey.to_owned()], "/".into()),
            Prey::Parent => (vec![format!("{prey}/prey")], "/".into()),
            Prey::Directory => (vec!["ls".to_owned()], PathBuf::from(prey)),
            Prey::Data => (vec!["cat".to_owned(), prey.to_owned()], "/".into()),
            _ => (vec![prey.to_owned()], "/".into()),
        };
        Asking {
            argv: argv
                .into_iter()
                .map(|argument| ByteString::new(argument).unwrap())
                .collect(),
            env: Vec::new(),
            directory,
            stdin: None,
            limits: Limits {
                wall_ms: 10_000,
                output_bytes: 100_000,
                memory_bytes: 0,
            },
            hide: None,
        }
    }

    /// What the approved version says, and nothing else does. `None` for bytes that are a mixture of both, approved as such.
    pub fn expected(&self, command: &Command) -> Option<String> {
        let is = |path: &str, digest: Digest| Digest::of(&fs::read(path).unwrap()) == digest;
        let version = |digest| {
            [0, 1].into_iter().find(|version| {
                Digest::of(script(*version).as_bytes()) == digest || Digest::of(VERSIONS[*version].as_bytes()) == digest
            })
        };
        let executable = command.executable.sha256;
        let says = |version: usize| VERSIONS[version].to_owned();
        match self.prey {
            Prey::Program | Prey::ProgramInPlace if is("/bin/echo", executable) => Some("one\n".to_owned()),
            Prey::Program | Prey::ProgramInPlace if is("/bin/printf", executable) => Some("one".to_owned()),
            Prey::Program | Prey::ProgramInPlace => None,
            Prey::Interpreter => {
                let interpreter = command.interpreter.as_ref().unwrap().sha256;
                let text = format!("#!{}\necho {}", self.path.join("prey").display(), VERSIONS[0]);
                match (is("/bin/sh", interpreter), is("/bin/cat", interpreter)) {
                    (true, _) => Some(says(0)),
                    (_, true) => Some(text),
                    _ => None,
                }
            }
            Prey::Operand | Prey::OperandInPlace | Prey::Data => command.operands[0..1]
                .iter()
                .find_map(|operand| version(operand.file.sha256))
                .map(says),
            Prey::Directory => {
                use std::os::unix::fs::MetadataExt;
                let versions = ["prey", "d0", "d1"].map(|name| self.path.join(name));
                // Read while they are swapped: looked for until it is seen.
                loop {
                    for path in &versions {
                        let Ok(folder) = fs::File::open(path) else { continue };
                        if folder.metadata().unwrap().ino() == command.directory.inode.number {
                            let own = format!("/proc/self/fd/{}/{}", std::os::fd::AsRawFd::as_raw_fd(&folder), "one");
                            return Some(says(usize::from(!Path::new(&own).exists())));
                        }
                    }
                }
            }
            _ => version(executable).map(|version| ["one\n", "two -f\n"][version].to_owned()),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(swapper) = self.swapper.take() {
            swapper.join().unwrap();
        }
    }
}

/// In bursts, so that the thing is now and then the same before and after, and now and then left alone for the time of one attempt.
fn swap_without_end(prey: Prey, path: &Path, owner: Option<u32>, stop: &AtomicBool) {
    let mut random = u64::from(std::process::id()) ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = 1;
    let bytes = [0, 1].map(|version| fs::read(path.join(format!("{version}"))).unwrap_or_default());
    while !stop.load(Ordering::Relaxed) {
        // xorshift: the pace shall differ, no more.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        for _ in 0..=random % 3 {
            swap(prey, path, owner, next, &bytes);
            next = 1 - next;
        }
        std::thread::sleep(Duration::from_micros((random >> 8) % 5_000));
    }
}

fn swap(prey: Prey, path: &Path, owner: Option<u32>, version: usize, bytes: &[Vec<u8>; 2]) {
    let thing = path.join("prey");
    match prey {
        Prey::ProgramInPlace | Prey::ScriptInPlace | Prey::OperandInPlace => {
            // A program that runs can't be written to; that is the kernel's.
            if let Ok(mut file) = fs::File::options().write(true).open(&thing) {
                file.rewind().unwrap();
                file.write_all(&bytes[version]).unwrap();
                file.set_len(bytes[version].len() as u64).unwrap();
            }
        }
        Prey::Parent => {
            // Where the folder was, a link to the other one; and back.
            let (away, link) = (path.join("d0"), path.join("link"));
            if version == 1 {
                fs::rename(&thing, &away).unwrap();
                symlink(path.join("d1"), &thing).unwrap();
            } else {
                fs::rename(&thing, &link).unwrap();
                fs::rename(&away, &thing).unwrap();
                fs::remove_file(&link).unwrap();
            }
        }
        Prey::Directory => renameat_with(CWD, &thing, CWD, path.join("d1"), RenameFlags::EXCHANGE).unwrap(),
        _ => {
            let new = path.join("new");
            put(&new, &bytes[version], owner);
            fs::rename(&new, &thing).unwrap();
        }
    }
}
