//! The folder of one party: where its keys, its state and the gate's socket live, and who else may look into it (nobody).
//!
//! Deliberately not here: what the files say. Design §3 (keys at rest), abuse cases J09 and H14.

mod error;

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rand_core::{OsRng, RngCore};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use error::HomeError;

/// The environment variable that names the folder when `--home` doesn't.
pub const HOME_VARIABLE: &str = "COUNTERSIGN_HOME";

/// A secret file is a few keys in bech32; anything larger isn't ours.
const SECRET_BYTES: u64 = 64 * 1024;
/// A socket's address holds a path of 108 bytes, its closing zero included, and 104 on other systems: a little less than either.
const SOCKET_PATH_BYTES: usize = 100;
const DATABASE: &str = "state.db";
const SOCKET: &str = "gate.sock";
/// Holds the socket's path when the folder's own path is too long for one.
const SOCKET_RECORD: &str = "gate.sock.path";

/// The folder of one party, checked and held open: files are reached through the descriptor, so that renaming the
/// folder away and putting another in its place changes nothing.
pub struct Home {
    path: PathBuf,
    folder: OwnedFd,
}

/// Held by one process at a time; let go when dropped or when the process ends, however it ends.
pub struct Lock {
    _file: File,
}

impl Home {
    /// Opens the folder of a party: `path` if given, else what `COUNTERSIGN_HOME` names, else `$XDG_DATA_HOME/countersign`.
    ///
    /// # Errors
    /// [`HomeError::Missing`] if there is none; otherwise whatever makes it unsafe to keep keys in.
    pub fn open(path: Option<PathBuf>) -> Result<Self, HomeError> {
        Self::at(&place(path)?)
    }

    /// Makes the folder (0700) and an empty database file (0600) where they are missing, and opens it.
    ///
    /// # Errors
    /// Those of [`Home::open`]: a folder that exists is held to the same rules, not repaired.
    pub fn create(path: Option<PathBuf>) -> Result<Self, HomeError> {
        let path = place(path)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| at(parent, source))?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at(&path, source));
            }
            _ => {}
        }
        let home = Self::at(&path)?;
        // SQLite gives its journal the mode of the database: with this file made first, the umask decides nothing.
        match home.new_file(DATABASE) {
            Ok(file) => file.sync_all().map_err(|source| at(&path, source))?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(at(&home.database(), error.into())),
        }
        home.sync()?;
        Ok(home)
    }

    fn at(path: &Path) -> Result<Self, HomeError> {
        let folder = open_folder(path)?;
        // Absolute from here on: a later change of the working directory must not move the database.
        let path = fs::canonicalize(path).map_err(|source| at(path, source))?;
        let home = Self { path, folder };
        match home.open_file(DATABASE) {
            Ok(_) | Err(HomeError::NoSecret { .. }) => Ok(home),
            Err(error) => Err(error),
        }
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database of this party. Made empty by [`Home::create`]; held to the same rules as a key when the folder is opened.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where the gate listens: in the folder, or, where that path is too long for a socket, in a 0700 folder elsewhere whose
    /// name is kept here, so that the gate and those who ask it agree whatever their environments say.
    ///
    /// # Errors
    /// [`HomeError::Io`] if no such folder can be made or the record can't be kept.
    pub fn socket(&self) -> Result<PathBuf, HomeError> {
        let near = self.path.join(SOCKET);
        if near.as_os_str().len() <= SOCKET_PATH_BYTES {
            return Ok(near);
        }
        match self.read_secret(SOCKET_RECORD) {
            Ok(bytes) => {
                let recorded = PathBuf::from(OsString::from_vec(bytes.to_vec()));
                if recorded.parent().is_some_and(|folder| open_folder(folder).is_ok()) {
                    return Ok(recorded);
                }
            }
            Err(HomeError::NoSecret { .. }) => {}
            Err(error) => return Err(error),
        }
        let far = self.far_socket()?;
        self.write(SOCKET_RECORD, far.as_os_str().as_bytes(), RenameFlags::empty())?;
        Ok(far)
    }

    fn far_socket(&self) -> Result<PathBuf, HomeError> {
        let digest = Sha256::digest(self.path.as_os_str().as_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            let socket = runtime.join(format!("countersign-{name}.sock"));
            if runtime.is_absolute() && open_folder(&runtime).is_ok() && socket.as_os_str().len() <= SOCKET_PATH_BYTES {
                return Ok(socket);
            }
        }
        let temporary = PathBuf::from("/tmp");
        let folder = tempfile::Builder::new()
            .prefix("countersign-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&temporary)
            .map_err(|source| at(&temporary, source))?;
        Ok(folder.keep().join(SOCKET))
    }

    /// Keeps a secret under a name of its own: either it is there whole and on the disk, or it isn't there.
    ///
    /// # Errors
    /// [`HomeError::Exists`] if the name is taken: losing a key is worse than not making one.
    pub fn write_secret(&self, name: &str, secret: &[u8]) -> Result<(), HomeError> {
        self.write(name, secret, RenameFlags::NOREPLACE)
    }

    /// The secret of this name.
    ///
    /// # Errors
    /// [`HomeError::NoSecret`] if there is none; otherwise why it isn't a secret any more, or may not stay one.
    pub fn read_secret(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, HomeError> {
        let file = self.open_file(name)?;
        let path = self.path.join(name);
        // Room for all of it at once: a vector that grows leaves copies behind that nobody wipes.
        let length = file.metadata().map_err(|source| at(&path, source))?.len();
        if length > SECRET_BYTES {
            return Err(HomeError::TooLarge { path });
        }
        let mut secret = Zeroizing::new(Vec::with_capacity(
            usize::try_from(length).unwrap_or(0).saturating_add(1),
        ));
        file.take(SECRET_BYTES)
            .read_to_end(&mut secret)
            .map_err(|source| at(&path, source))?;
        Ok(secret)
    }

    /// Takes the lock that the file of this name stands for (made if missing, never removed), or says at once (`None`) that another process has it.
    ///
    /// # Errors
    /// [`HomeError::Io`] if the lock file can't be made or locked at all.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, HomeError> {
        let path = self.path.join(checked(name)?);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let descriptor = rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| refused(&path, errno))?;
        check(
            &path,
            &stat(&descriptor, &path)?,
            FileType::RegularFile,
            rustix::process::geteuid().as_raw(),
        )?;
        let file = File::from(descriptor);
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(at(&path, source)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8], replace: RenameFlags) -> Result<(), HomeError> {
        let path = self.path.join(checked(name)?);
        // Drawn anew each time: two writers must never share a half-written file.
        let temporary = format!(".{name}.{:016x}", OsRng.next_u64());
        let written = self.new_file(&temporary).map_err(io::Error::from).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        let moved = written.map_err(|source| at(&path, source)).and_then(|()| {
            rustix::fs::renameat_with(&self.folder, &temporary, &self.folder, name, replace)
                .map_err(|errno| refused(&path, errno))
        });
        if let Err(error) = moved {
            // Nobody was told about this copy; if it can't be removed the error that matters is the first.
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
            return Err(error);
        }
        self.sync()
    }

    /// Opens a file of ours that exists, after all the checks.
    fn open_file(&self, name: &str) -> Result<File, HomeError> {
        let path = self.path.join(checked(name)?);
        // NONBLOCK: a pipe of that name must not hold us for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let descriptor =
            rustix::fs::openat(&self.folder, name, flags, Mode::empty()).map_err(|errno| refused(&path, errno))?;
        // Checked on the descriptor, not on the name, which could be another file by now.
        check(
            &path,
            &stat(&descriptor, &path)?,
            FileType::RegularFile,
            rustix::process::geteuid().as_raw(),
        )?;
        Ok(File::from(descriptor))
    }

    fn new_file(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// Makes what was made or renamed in the folder durable: a new name is safe from a power cut only when its folder was flushed too.
    ///
    /// # Errors
    /// [`HomeError::Io`] if the folder can't be flushed.
    pub fn sync(&self) -> Result<(), HomeError> {
        rustix::fs::fsync(&self.folder).map_err(|errno| at(&self.path, errno.into()))
    }
}

fn place(path: Option<PathBuf>) -> Result<PathBuf, HomeError> {
    let named = path.or_else(|| {
        std::env::var_os(HOME_VARIABLE)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    });
    match named {
        Some(path) => Ok(path),
        None => match etcetera::base_strategy::Xdg::new() {
            Ok(strategy) => Ok(strategy.data_dir().join("countersign")),
            Err(_) => Err(HomeError::Nowhere),
        },
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, HomeError> {
    // Looked at before it is opened, for the message alone: O_DIRECTORY on a link says "not a directory".
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_symlink()) {
        return Err(HomeError::Symlink { path: path.to_owned() });
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => HomeError::Missing { path: path.to_owned() },
        Errno::NOTDIR => HomeError::Kind {
            path: path.to_owned(),
            wanted: "folder",
        },
        errno => refused(path, errno),
    })?;
    check(
        path,
        &stat(&folder, path)?,
        FileType::Directory,
        rustix::process::geteuid().as_raw(),
    )?;
    Ok(folder)
}

fn stat(descriptor: &OwnedFd, path: &Path) -> Result<Stat, HomeError> {
    rustix::fs::fstat(descriptor).map_err(|errno| at(path, errno.into()))
}

fn check(path: &Path, stat: &Stat, kind: FileType, user: u32) -> Result<(), HomeError> {
    let path = path.to_owned();
    let folder = kind == FileType::Directory;
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return Err(HomeError::Kind {
            path,
            wanted: if folder { "folder" } else { "plain file" },
        });
    }
    if stat.st_uid != user {
        return Err(HomeError::Owner {
            path,
            owner: stat.st_uid,
            user,
        });
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(HomeError::Open {
            path,
            mode: stat.st_mode & 0o7777,
            wanted: if folder { 0o700 } else { 0o600 },
        });
    }
    if !folder && stat.st_nlink > 1 {
        // The width of `st_nlink` differs between machines.
        #[allow(clippy::useless_conversion)]
        return Err(HomeError::Hardlink {
            path,
            links: stat.st_nlink.into(),
        });
    }
    Ok(())
}

/// Names come from this program alone; this keeps it so.
fn checked(name: &str) -> Result<&str, HomeError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 64 && name.chars().all(allowed) {
        return Ok(name);
    }
    Err(HomeError::Name { name: name.to_owned() })
}

fn refused(path: &Path, errno: Errno) -> HomeError {
    let path = path.to_owned();
    match errno {
        Errno::NOENT => HomeError::NoSecret { path },
        Errno::EXIST => HomeError::Exists { path },
        Errno::LOOP => HomeError::Symlink { path },
        errno => HomeError::Io {
            path,
            source: errno.into(),
        },
    }
}

fn at(path: &Path, source: io::Error) -> HomeError {
    HomeError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
