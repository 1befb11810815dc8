//! A file on this machine: which one a name means, what it holds, and whether a path still leads to it.
//!
//! Deliberately not here: what a command is bound to (`bind`), who could change it (`writable`), the environment (`environment`).
//! PROTOCOL.md 8.3, design §6.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use approval::action::{Bound, Inode};
use approval::{ByteString, Digest};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::bind::BindError;

/// Where bare names are looked up: never in the caller's `PATH`, which the agent can set.
pub const SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How much the kernel reads of a file to find out what it is (`BINPRM_BUF_SIZE`).
const HEADER_BYTES: usize = 256;
/// What is read of a file at once while it is hashed.
const PIECE_BYTES: usize = 256 * 1024;

/// How the kernel starts a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A binary of this machine.
    Program,
    /// A text for an interpreter, which opens it again by its path.
    Script(Shebang),
}

/// The first line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shebang {
    /// The interpreter as it is written there: an absolute path, maybe through links.
    pub(super) interpreter: PathBuf,
    /// What follows it: one argument, spaces and all.
    pub(super) argument: Option<OsString>,
}

/// Finds the program that a command means: an absolute path as it is, a bare name in [`SEARCH`]; symbolic links are followed now, so
/// that what is approved is the file itself.
pub(super) fn resolve(program: &OsStr) -> Result<PathBuf, BindError> {
    let named = Path::new(program);
    let found = if named.is_absolute() {
        named.to_owned()
    } else if program.as_bytes().contains(&b'/') {
        return Err(BindError::Relative { path: named.to_owned() });
    } else {
        search(program)?
    };
    let path = canonical(&found)?;
    rustix::fs::accessat(CWD, &path, Access::EXEC_OK, AtFlags::EACCESS).map_err(|errno| at(&path, errno))?;
    Ok(path)
}

fn search(name: &OsStr) -> Result<PathBuf, BindError> {
    let runs =
        |path: &PathBuf| path.is_file() && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    // The empty name and `.` would name the folders themselves.
    let found = SEARCH.split(':').map(|folder| Path::new(folder).join(name)).find(runs);
    found.ok_or_else(|| BindError::NotFound {
        name: name.to_string_lossy().into_owned(),
    })
}

/// The path without links.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, BindError> {
    fs::canonicalize(path).map_err(|source| BindError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Opens a regular file for reading, links refused.
pub(super) fn open(path: &Path) -> Result<File, BindError> {
    // NONBLOCK: a pipe put there instead must not hold the gate.
    let file = open_unlinked(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    if is_regular(&stat(path, &file)?) {
        Ok(file)
    } else {
        Err(BindError::Format { path: path.to_owned() })
    }
}

/// Opens a folder to be entered, links refused.
pub(super) fn open_directory(path: &Path) -> Result<File, BindError> {
    open_unlinked(path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Opens whatever is there, only to say which file it is: a device or a pipe notices nothing. Links refused.
pub(super) fn look(path: &Path) -> Result<File, BindError> {
    open_unlinked(path, OFlags::PATH)
}

/// Whether a path leads through what only looks like a link: descriptor, folder or program of a process (`/proc/1/exe`).
pub(super) fn is_magic(path: &Path) -> bool {
    let look = |resolve| rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    look(ResolveFlags::empty()).is_ok() && look(ResolveFlags::NO_MAGICLINKS).is_err()
}

fn open_unlinked(path: &Path, flags: OFlags) -> Result<File, BindError> {
    let flags = flags | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6, and in sandboxes that don't know the call: the same question asked in two steps.
        Err(Errno::NOSYS | Errno::PERM) => match fs::canonicalize(path) {
            Ok(real) if real == path => rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()),
            Ok(_) => Err(Errno::LOOP),
            Err(source) => {
                return Err(BindError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        },
        opened => opened,
    };
    match opened {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(Errno::LOOP) => Err(BindError::Symlink { path: path.to_owned() }),
        Err(errno) => Err(at(path, errno)),
    }
}

pub(super) fn stat(path: &Path, file: &File) -> Result<Stat, BindError> {
    rustix::fs::fstat(file).map_err(|errno| at(path, errno))
}

pub(super) fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

#[allow(clippy::unnecessary_cast)] // The fields' types differ between machines.
pub(super) fn inode(stat: &Stat) -> Inode {
    Inode {
        device: stat.st_dev as u64,
        number: stat.st_ino as u64,
    }
}

/// Where it is, which file it is and what it holds.
pub(super) fn bound(path: &Path, file: &File) -> Result<Bound, BindError> {
    Ok(Bound {
        path: bytes(path)?,
        inode: inode(&stat(path, file)?),
        sha256: hash(path, file)?,
    })
}

/// The path of something bound.
pub(super) fn path_of(path: &ByteString) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}

pub(super) fn bytes(path: &Path) -> Result<ByteString, BindError> {
    ByteString::new(path.to_owned().into_os_string().into_vec())
        .map_err(|_| BindError::Format { path: path.to_owned() })
}

/// Makes sure that an open file is what was bound and holds what it held.
pub(super) fn check(bound: &Bound, file: &File) -> Result<(), BindError> {
    let path = path_of(&bound.path);
    check_inode(&bound.path, bound.inode, file)?;
    check_bytes(bound, hash(path, file)?)
}

pub(super) fn check_inode(path: &ByteString, inode: Inode, file: &File) -> Result<(), BindError> {
    let path = path_of(path);
    if self::inode(&stat(path, file)?) == inode {
        Ok(())
    } else {
        Err(BindError::Replaced { path: path.to_owned() })
    }
}

pub(super) fn check_bytes(bound: &Bound, found: Digest) -> Result<(), BindError> {
    if found == bound.sha256 {
        Ok(())
    } else {
        Err(BindError::Changed {
            path: path_of(&bound.path).to_owned(),
            found,
        })
    }
}

/// Makes sure that a path still leads to the same file without a link: what runs may know itself by its path. Gives back that file.
pub(super) fn check_path(path: &ByteString, inode: Inode) -> Result<File, BindError> {
    let there = look(path_of(path))?;
    check_inode(path, inode, &there)?;
    Ok(there)
}

fn hash(path: &Path, file: &File) -> Result<Digest, BindError> {
    copy(file, |_| Ok(())).map_err(|source| BindError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Reads a whole file by position, whatever the position of its descriptor, and gives back the digest of exactly what `sink` got.
pub(super) fn copy(file: &File, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut position = 0;
    loop {
        let read = match file.read_at(&mut piece, position) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let Some(read @ [_, ..]) = piece.get(..read) else {
            return Ok(Digest(hasher.finalize().into()));
        };
        hasher.update(read);
        sink(read)?;
        position += read.len() as u64;
    }
}

/// How the kernel would start this file.
pub(super) fn format(path: &Path, file: &File) -> Result<Format, BindError> {
    let refused = || BindError::Format { path: path.to_owned() };
    let header = header(file).map_err(|source| BindError::Io {
        path: path.to_owned(),
        source,
    })?;
    if is_program(&header) {
        return Ok(Format::Program);
    }
    shebang(&header).map(Format::Script).ok_or_else(refused)
}

fn header(file: &File) -> io::Result<Vec<u8>> {
    let mut header = vec![0; HEADER_BYTES];
    let read = file.read_at(&mut header, 0)?;
    header.truncate(read);
    Ok(header)
}

fn shebang(header: &[u8]) -> Option<Shebang> {
    let text = header.strip_prefix(b"#!")?;
    let end = text.iter().position(|byte| *byte == b'\n');
    // A longer line is cut by the kernel, at a place that depends on its version.
    let line = match end {
        Some(end) => text.get(..end)?,
        None if header.len() < HEADER_BYTES => text,
        None => return None,
    };
    let line = line.trim_ascii();
    let cut = line
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t'))
        .unwrap_or(line.len());
    let (interpreter, argument) = line.split_at_checked(cut)?;
    let argument = argument.trim_ascii();
    // A relative interpreter would be looked up in the working directory.
    (interpreter.starts_with(b"/") && !line.contains(&0)).then(|| Shebang {
        interpreter: Path::new(OsStr::from_bytes(interpreter)).to_owned(),
        argument: (!argument.is_empty()).then(|| OsStr::from_bytes(argument).to_owned()),
    })
}

/// Whether these are the first bytes of an ELF file of the same class, byte order and machine as this program's own.
fn is_program(header: &[u8]) -> bool {
    let kind = |header: &[u8]| Some((header.get(..6)?.to_vec(), header.get(18..20)?.to_vec()));
    let own = File::open("/proc/self/exe").and_then(|file| self::header(&file));
    header.starts_with(b"\x7fELF") && own.is_ok_and(|own| kind(&own) == kind(header))
}

fn at(path: &Path, errno: Errno) -> BindError {
    BindError::Io {
        path: path.to_owned(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_bare_name_is_looked_up_in_fixed_folders_only() {
        assert!(resolve(OsStr::new("env")).unwrap().is_absolute());
        for name in ["no-such-program-anywhere", "", ".", ".."] {
            assert!(
                matches!(resolve(OsStr::new(name)), Err(BindError::NotFound { .. })),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_relative_path_is_refused() {
        for path in ["./env", "bin/env", "../bin/env"] {
            assert!(
                matches!(resolve(OsStr::new(path)), Err(BindError::Relative { .. })),
                "{path}"
            );
        }
    }

    #[test]
    fn a_linked_folder_is_not_entered() {
        let folder = tempfile::tempdir().unwrap();
        let above = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(above.join("real/below")).unwrap();
        symlink(above.join("real"), above.join("link")).unwrap();
        assert!(open_directory(&above.join("real/below")).is_ok());
        assert!(matches!(
            open_directory(&above.join("link/below")),
            Err(BindError::Symlink { .. })
        ));
    }

    #[test]
    fn a_script_names_an_absolute_interpreter_and_one_argument() {
        let read = |text: &[u8]| shebang(text);
        let script = read(b"#! /usr/bin/env\t-S  python3 -u \necho").unwrap();
        assert_eq!(script.interpreter, Path::new("/usr/bin/env"));
        assert_eq!(script.argument.as_deref(), Some(OsStr::new("-S  python3 -u")));
        assert_eq!(read(b"#!/bin/sh").unwrap().argument, None);
        for text in [&b"echo"[..], b"", b"#!sh\n", b"#! \n", b"#!", b"#!/bin/sh\0x\n"] {
            assert_eq!(read(text), None, "{}", text.escape_ascii());
        }
        let long = [b"#!/bin/sh ", &[b'x'; HEADER_BYTES][..]].concat();
        assert_eq!(read(&long[..HEADER_BYTES]), None, "the kernel would cut it");
    }

    #[test]
    fn a_program_of_another_machine_is_none() {
        assert!(!is_program(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\xff"));
    }

    #[test]
    fn the_digest_is_of_what_was_copied_wherever_the_descriptor_stands() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"some bytes").unwrap();
        let mut copied = Vec::new();
        let digest = copy(&file, |piece| {
            copied.extend_from_slice(piece);
            Ok(())
        });
        assert_eq!(
            (digest.unwrap(), copied.as_slice()),
            (Digest::of(b"some bytes"), &b"some bytes"[..])
        );
    }
}
