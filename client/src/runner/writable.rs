//! Who can put something else in a file's place: by writing to it, or to a folder above it. Abuse case E17.
//!
//! Deliberately not here: what follows from it (the mark in `bind`, how a script is frozen in `launcher`). Access control lists aren't read:
//! what they allow shows in the group's bits, which count.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const GROUP_OR_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
const DIRECTORY: u32 = 0o040_000;
const KIND: u32 = 0o170_000;

/// Users who can change what is found at a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Writers {
    /// The user that the gate runs as.
    pub(super) own: bool,
    /// Anybody else who isn't root.
    pub(super) others: bool,
    /// Anybody can write to a folder above, even if not to what is in it already (`/tmp`).
    pub(super) sticky: bool,
}

impl Writers {
    /// Of a path without links: of the file and every folder above it.
    pub(super) fn of(path: &Path, own: u32) -> io::Result<Self> {
        path.ancestors().try_fold(Self::default(), |writers, path| {
            let metadata = fs::symlink_metadata(path)?;
            Ok(writers.and(Self::of_one(metadata.mode(), metadata.uid(), own)))
        })
    }

    /// Of the bytes of one file or the entries of one folder.
    pub(super) fn of_one(mode: u32, owner: u32, own: u32) -> Self {
        let wide = mode & GROUP_OR_OTHERS != 0;
        let sticky = mode & KIND == DIRECTORY && mode & STICKY != 0;
        Self {
            // Whoever owns it can give themselves leave.
            own: owner == own,
            others: owner != 0 && owner != own || wide && !sticky,
            sticky: wide && sticky,
        }
    }

    /// Whether anybody but root can: the mark (PROTOCOL.md 8.3).
    pub(super) fn marked(self, own: u32) -> bool {
        self.others || self.sticky || (self.own && own != 0)
    }

    fn and(self, other: Self) -> Self {
        Self {
            own: self.own || other.own,
            others: self.others || other.others,
            sticky: self.sticky || other.sticky,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_roots_own_things_are_nobody_elses() {
        assert!(!Writers::of_one(0o100_755, 0, 1000).marked(1000));
        assert!(Writers::of_one(0o100_555, 1000, 1000).own);
        assert!(Writers::of_one(0o100_555, 1001, 1000).others);
        assert!(Writers::of_one(0o100_775, 0, 1000).others);
        assert!(Writers::of_one(0o100_757, 0, 0).others);
        assert!(!Writers::of_one(0o100_755, 0, 0).marked(0));
    }

    #[test]
    fn a_sticky_folder_is_marked_though_what_is_in_it_stays() {
        let tmp = Writers::of_one(0o041_777, 0, 1000);
        assert!(!tmp.others && tmp.marked(1000));
    }

    #[test]
    fn a_folder_above_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap().join("file");
        fs::write(&path, "").unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(!Writers::of(&path, own).unwrap().others);
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Writers::of(&path, own).unwrap().others);
    }
}
