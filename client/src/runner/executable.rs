//! Which file a command means, and what it holds: found before it is asked for, opened and hashed again before it runs.
//!
//! Deliberately not here: arguments (never looked into), the environment (`environment`). PROTOCOL.md 8.3, design §6.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use approval::action::Executable;
use approval::{ByteString, Digest};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Where bare names are looked up: never in the caller's `PATH`, which the agent can set.
pub const SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How much the kernel reads of a file to find out what it is (`BINPRM_BUF_SIZE`).
const HEADER_BYTES: usize = 256;

/// Why a file can't be the program of a command.
#[derive(Debug, thiserror::Error)]
pub enum ExecutableError {
    /// A bare name that is in none of the folders of [`SEARCH`].
    #[error("no program {name} in {SEARCH}")]
    NotFound {
        /// The name, as text.
        name: String,
    },
    /// A path that depends on where the asker stands.
    #[error("{} is a relative path: give an absolute one, or a bare name", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// The path now leads through a symbolic link: somebody else chooses where it ends.
    #[error("{} leads through a symbolic link", path.display())]
    Symlink {
        /// The path.
        path: PathBuf,
    },
    /// Neither a program of this machine nor a script with an absolute interpreter that is one. The C library would hand it to `/bin/sh`.
    #[error("{} is not a program of this machine, and not a script whose interpreter is one", path.display())]
    Format {
        /// The path.
        path: PathBuf,
    },
    /// The file isn't the one that was approved.
    #[error("{} changed since it was approved: its sha256 is {found}", path.display())]
    Changed {
        /// The path.
        path: PathBuf,
        /// What it holds now.
        found: Digest,
    },
    /// The system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// How the kernel starts a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A binary of this machine.
    Program,
    /// A text for an interpreter, which opens it again by its path.
    Script,
}

/// Finds the program that a command means: an absolute path as it is, a bare name in [`SEARCH`]; symbolic links are followed now, so
/// that what is approved is the file itself.
///
/// # Errors
/// If there is no such program, or it couldn't be run exactly as approved.
pub fn resolve(program: &OsStr) -> Result<Executable, ExecutableError> {
    let named = Path::new(program);
    let found = if named.is_absolute() {
        named.to_owned()
    } else if program.as_bytes().contains(&b'/') {
        return Err(ExecutableError::Relative { path: named.to_owned() });
    } else {
        search(program)?
    };
    let path = fs::canonicalize(&found).map_err(|source| at(&found, source))?;
    rustix::fs::accessat(CWD, &path, Access::EXEC_OK, AtFlags::EACCESS).map_err(|errno| at(&path, errno.into()))?;
    let (mut file, _) = open(&path)?;
    let sha256 = hash(&mut file).map_err(|source| at(&path, source))?;
    let bytes = ByteString::new(path.clone().into_os_string().into_vec())
        .map_err(|error| at(&path, io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    Ok(Executable { path: bytes, sha256 })
}

/// The folder itself that a path leads to, for the request: what is approved must not hang on a link.
///
/// # Errors
/// If it is relative, or isn't a folder.
pub fn resolve_directory(path: &Path) -> Result<PathBuf, ExecutableError> {
    if !path.is_absolute() {
        return Err(ExecutableError::Relative { path: path.to_owned() });
    }
    let folder = fs::canonicalize(path).map_err(|source| at(path, source))?;
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(at(&folder, Errno::NOTDIR.into()))
    }
}

/// Opens what was approved and makes sure that it still is that. The file stays open so that it can be run by its descriptor: putting
/// another in its place changes nothing from here on.
pub(super) fn open_approved(path: &Path, approved: Digest) -> Result<(File, Format), ExecutableError> {
    let (mut file, format) = open(path)?;
    let found = hash(&mut file).map_err(|source| at(path, source))?;
    if found == approved {
        Ok((file, format))
    } else {
        Err(ExecutableError::Changed {
            path: path.to_owned(),
            found,
        })
    }
}

/// Opens a folder to be entered, links refused.
pub(super) fn open_directory(path: &Path) -> Result<File, ExecutableError> {
    open_unlinked(path, OFlags::PATH | OFlags::DIRECTORY)
}

fn search(name: &OsStr) -> Result<PathBuf, ExecutableError> {
    let runs =
        |path: &PathBuf| path.is_file() && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    // The empty name and `.` would name the folders themselves.
    let found = SEARCH.split(':').map(|folder| Path::new(folder).join(name)).find(runs);
    found.ok_or_else(|| ExecutableError::NotFound {
        name: name.to_string_lossy().into_owned(),
    })
}

fn open(path: &Path) -> Result<(File, Format), ExecutableError> {
    // NONBLOCK: a pipe put there instead must not hold the gate.
    let mut file = open_unlinked(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| at(path, errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ExecutableError::Format { path: path.to_owned() });
    }
    let header = header(&mut file).map_err(|source| at(path, source))?;
    match format(&header) {
        Some(format) => Ok((file, format)),
        None => Err(ExecutableError::Format { path: path.to_owned() }),
    }
}

fn open_unlinked(path: &Path, flags: OFlags) -> Result<File, ExecutableError> {
    let flags = flags | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6, and in sandboxes that don't know the call: the same question asked in two steps.
        Err(Errno::NOSYS | Errno::PERM) => match fs::canonicalize(path) {
            Ok(real) if real == path => rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()),
            Ok(_) => Err(Errno::LOOP),
            Err(source) => return Err(at(path, source)),
        },
        opened => opened,
    };
    match opened {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(Errno::LOOP) => Err(ExecutableError::Symlink { path: path.to_owned() }),
        Err(errno) => Err(at(path, errno.into())),
    }
}

fn hash(file: &mut File) -> io::Result<Digest> {
    io::Seek::rewind(file)?;
    let mut hasher = Sha256::new();
    io::copy(file, &mut hasher)?;
    Ok(Digest(hasher.finalize().into()))
}

fn header(file: &mut File) -> io::Result<Vec<u8>> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    Ok(header)
}

fn format(header: &[u8]) -> Option<Format> {
    if is_program(header) {
        return Some(Format::Program);
    }
    let line = header.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let interpreter = line.trim_ascii().split(|byte| matches!(byte, b' ' | b'\t')).next()?;
    // A relative interpreter would be looked up in the working directory.
    if !interpreter.starts_with(b"/") {
        return None;
    }
    let interpreter = self::header(&mut File::open(OsStr::from_bytes(interpreter)).ok()?).ok()?;
    is_program(&interpreter).then_some(Format::Script)
}

/// Whether these are the first bytes of an ELF file of the same class, byte order and machine as this program's own.
fn is_program(header: &[u8]) -> bool {
    let kind = |header: &[u8]| Some((header.get(..6)?.to_vec(), header.get(18..20)?.to_vec()));
    let own = File::open("/proc/self/exe").and_then(|mut file| self::header(&mut file));
    header.starts_with(b"\x7fELF") && own.is_ok_and(|own| kind(&own) == kind(header))
}

fn at(path: &Path, source: io::Error) -> ExecutableError {
    ExecutableError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn program(folder: &Path, name: &str, contents: &[u8]) -> PathBuf {
        let path = fs::canonicalize(folder).unwrap().join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_bare_name_is_looked_up_in_fixed_folders_only() {
        let found = resolve(OsStr::new("env")).unwrap();
        assert!(found.path.as_bytes().starts_with(b"/"));
        assert_eq!(
            found.sha256,
            Digest::of(&fs::read(OsStr::from_bytes(found.path.as_bytes())).unwrap())
        );
        assert!(matches!(
            resolve(OsStr::new("no-such-program-anywhere")),
            Err(ExecutableError::NotFound { .. })
        ));
    }

    #[test]
    fn a_relative_path_is_refused() {
        for path in ["./env", "bin/env", "../bin/env"] {
            assert!(
                matches!(resolve(OsStr::new(path)), Err(ExecutableError::Relative { .. })),
                "{path}"
            );
        }
        for name in ["", ".", ".."] {
            assert!(
                matches!(resolve(OsStr::new(name)), Err(ExecutableError::NotFound { .. })),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_link_is_followed_when_asking_and_refused_when_running() {
        let folder = tempfile::tempdir().unwrap();
        let real = program(folder.path(), "real", b"#!/bin/sh\n");
        let link = real.with_file_name("link");
        symlink(&real, &link).unwrap();
        let found = resolve(link.as_os_str()).unwrap();
        assert_eq!(found.path.as_bytes(), real.as_os_str().as_bytes());
        assert!(matches!(
            open_approved(&link, found.sha256),
            Err(ExecutableError::Symlink { .. })
        ));
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
            Err(ExecutableError::Symlink { .. })
        ));
        assert_eq!(
            resolve_directory(&above.join("link/below")).unwrap(),
            above.join("real/below")
        );
    }

    #[test]
    fn a_program_swapped_after_the_approval_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = program(folder.path(), "deploy", b"#!/bin/sh\necho good\n");
        let approved = resolve(path.as_os_str()).unwrap();
        fs::write(&path, b"#!/bin/sh\necho evil\n").unwrap();
        assert!(matches!(
            open_approved(&path, approved.sha256),
            Err(ExecutableError::Changed { .. })
        ));
    }

    #[test]
    fn what_the_c_library_would_give_to_a_shell_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in [
            ("no_header", &b"echo hello\n"[..]),
            ("empty", b""),
            ("relative_interpreter", b"#!sh\n"),
            ("no_interpreter", b"#! \n"),
            ("missing_interpreter", b"#!/no/such/interpreter\n"),
            (
                "foreign_machine",
                b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\xff",
            ),
        ] {
            let path = program(folder.path(), name, contents);
            assert!(
                matches!(resolve(path.as_os_str()), Err(ExecutableError::Format { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn a_folder_or_a_file_without_leave_to_run_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = program(folder.path(), "data", b"#!/bin/sh\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(resolve(path.as_os_str()), Err(ExecutableError::Io { .. })));
        assert!(resolve(folder.path().as_os_str()).is_err());
    }
}
