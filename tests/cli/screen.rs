//! A real terminal with a process in it: a pseudo-terminal of its own session, so that prompts, echo and ^C are the kernel's. Not here: what should be on it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::hear::Heard;

/// A terminal. Whatever runs in it ends with it.
pub struct Screen {
    child: Child,
    keys: File,
    heard: Heard,
    read: usize,
}

impl Screen {
    /// Starts a program as the leader of a new terminal's session. Only the program's arguments, folder and environment are taken from `command`.
    pub fn open(command: &Command) -> Self {
        Self::of_size(command, 60, 240)
    }

    /// The same with as many rows and columns.
    pub fn of_size(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(
            &master,
            Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )
        .unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let name = OsStr::from_bytes(name.to_bytes());
        let slave = || {
            File::from(rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap())
        };
        // A session leader with this terminal as its controlling one takes two calls between fork and exec, which safe Rust doesn't have.
        let mut child = Command::new("setsid");
        child.arg("--ctty").arg(command.get_program()).args(command.get_args());
        child.current_dir(command.get_current_dir().unwrap()).env_clear();
        child.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        child.env("TERM", "dumb");
        let child = child.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let heard = Heard::listen(File::from(master.try_clone().unwrap()));
        Self {
            child,
            keys: File::from(master),
            heard,
            read: 0,
        }
    }

    /// Types a line.
    pub fn types(&mut self, line: &str) {
        self.keys.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Presses ^D: nothing more is typed.
    pub fn closes(&mut self) {
        self.keys.write_all(&[4]).unwrap();
    }

    /// Presses ^C.
    pub fn interrupts(&mut self) {
        self.keys.write_all(&[3]).unwrap();
    }

    /// Waits until this is shown, and returns everything that was new up to it.
    pub fn shows(&mut self, text: &str) -> String {
        let found = self.heard.wait(self.read, |bytes| {
            position(bytes, text.as_bytes()).map(|at| bytes[..at + text.len()].to_vec())
        });
        let found = found.unwrap_or_else(|| panic!("{text:?} isn't shown:\n{}", self.heard.so_far()));
        self.read += found.len();
        plain(&found)
    }

    /// Waits until what is new can be understood: `understood` says of how many bytes of the *plain* text something could be made.
    /// Returns `None`, with everything that is new, when nothing more comes.
    pub fn reads<T>(&mut self, mut understood: impl FnMut(&str) -> Option<T>) -> Result<T, String> {
        let found = self.heard.wait(self.read, |bytes| understood(&plain(bytes)));
        found.ok_or_else(|| self.unread())
    }

    /// What wasn't read yet, for a failing test's words.
    pub fn unread(&self) -> String {
        plain(self.heard.so_far().as_bytes().get(self.read..).unwrap_or_default())
    }

    /// Takes a line as read.
    pub fn next_line(&mut self) {
        let length = self
            .heard
            .wait(self.read, |bytes| {
                bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
            })
            .unwrap();
        self.read += length;
    }

    /// Waits for the end. Everything that was not read yet, and the exit code.
    pub fn end(mut self) -> (String, ExitStatus) {
        let all = self.heard.to_end();
        (plain(&all[self.read..]), self.child.wait().unwrap())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The session's other processes get the kernel's hang-up when its leader is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn position(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// The text without carriage returns, bells and colours.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace(['\r', '\u{7}'], "");
    let mut pieces = text.split("\x1b[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain.push_str(piece.split_once('m').map_or(piece, |(_, rest)| rest));
    }
    plain
}
