//! Why a home can't be used, in words that say what is wrong and what to type (abuse case J09).
//!
//! Deliberately not here: the checks themselves.

use std::io;
use std::path::{Path, PathBuf};

use super::HOME_VARIABLE;

/// Why a folder, or a file in it, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither `--home`, nor the variable, nor a home directory of the user is there.
    #[error("there is no folder to keep keys in: no home directory")]
    Nowhere,
    /// The folder doesn't exist yet.
    #[error("{} doesn't exist", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// Others may look into the folder or the file.
    #[error("{} is open to others (mode {mode:04o})", path.display())]
    Open {
        /// The folder or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits that it should have.
        wanted: u32,
    },
    /// Somebody else owns it, and could change it at any time.
    #[error("{} belongs to uid {owner}, not to uid {user}", path.display())]
    Owner {
        /// The folder or file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },
    /// It is a symbolic link: what it points to is chosen elsewhere.
    #[error("{} is a symbolic link", path.display())]
    Symlink {
        /// The folder or file.
        path: PathBuf,
    },
    /// The file has another name somewhere, perhaps in a folder of somebody else.
    #[error("{} has {links} hard links", path.display())]
    Hardlink {
        /// The file.
        path: PathBuf,
        /// The number of its names.
        links: u64,
    },
    /// It is something else than the folder or plain file that it should be.
    #[error("{} is not a {wanted}", path.display())]
    Kind {
        /// The folder or file.
        path: PathBuf,
        /// `folder` or `plain file`.
        wanted: &'static str,
    },
    /// The secret exists: a key is never overwritten.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no such secret.
    #[error("{} is missing", path.display())]
    NoSecret {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than any secret of ours.
    #[error("{} is larger than any key file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The name isn't 1 to 64 of `a-z 0-9 . _ -`, starting with a letter: it could leave the folder.
    #[error("{name:?} is not a name for a file here")]
    Name {
        /// The name asked for.
        name: String,
    },
    /// The system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl HomeError {
    /// What to do about it, for the line `hint:`.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Nowhere => Some(format!("set {HOME_VARIABLE} or give --home DIR")),
            Self::Missing { .. } => {
                Some("`countersign gate init` makes a gate, `countersign join LINK` a device".to_owned())
            }
            Self::Open { path, wanted, .. } => Some(format!("chmod {wanted:o} {}", quoted(path))),
            Self::Owner { path, user, .. } => Some(format!(
                "chown {user} {} if you trust what it holds, or give another --home",
                quoted(path)
            )),
            Self::Symlink { path } => Some(format!(
                "give the real path, or put the file itself at {}",
                quoted(path)
            )),
            Self::Hardlink { path, .. } => Some(format!(
                "find the other name and remove it: find / -xdev -samefile {}",
                quoted(path)
            )),
            Self::Exists { path } => Some(format!("move {} away first, or use another --home", quoted(path))),
            Self::NoSecret { path } => Some(format!(
                "restore {} from your backup, or start a new home",
                quoted(path)
            )),
            Self::Kind { .. } | Self::TooLarge { .. } | Self::Name { .. } | Self::Io { .. } => None,
        }
    }
}

/// A path as a shell would read it back, so that the hint can be pasted.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@%".contains(&byte))
    {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
