//! Mounts that only one command sees: an empty folder in place of the gate's home, and a frozen copy in place of a script.
//!
//! Deliberately not here: which script, and where its copy goes (`code`). What is mounted over a path stays only as long as nobody renames what
//! is beneath: therefore only for paths that nobody but root and the gate's own user can change.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use approval::Digest;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::executable;

/// Where a file system of our own can be put for a moment: nothing of it stays there.
const STAGES: &[&str] = &["/tmp", "/run", "/proc", "/dev"];

/// From here on this process has mounts of its own. It must have one thread only.
///
/// Root keeps its users as they are: in a user namespace it would have no power over the files of others, and a command may need that.
pub(super) fn enter() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if user == 0 {
        unshare(CloneFlags::CLONE_NEWNS)?;
    } else {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(io::Error::from)
}

/// Puts an empty folder in place of this one.
pub(super) fn hide(folder: &Path) -> io::Result<()> {
    let over = open(folder)?;
    memory(&at(&over), MountFlags::RDONLY | MountFlags::NOEXEC)
}

/// Puts a folder in place of this one that holds nothing but a copy of this file, by this name. Gives back the digest of the copy.
pub(super) fn aside(folder: &Path, name: &Path, file: &File) -> io::Result<Digest> {
    memory(&at(&open(folder)?), MountFlags::empty())?;
    let digest = copy(file, &folder.join(name))?;
    lock(folder)?;
    Ok(digest)
}

/// Puts a copy of a file in place of `target`, which is open. Gives back the digest of the copy.
pub(super) fn over(target: &File, file: &File) -> io::Result<Digest> {
    let stage = STAGES.iter().map(Path::new).find(|path| path.is_dir());
    let stage = stage.ok_or(io::ErrorKind::NotFound)?;
    memory(stage, MountFlags::empty())?;
    let name = stage.join("approved");
    let digest = copy(file, &name)?;
    // The whole file system, because one mount of it can't be locked under a path that leads beneath it.
    lock(stage)?;
    // Both by descriptor: the stage may lie above the target.
    rustix::mount::mount_bind(&name, at(target))?;
    rustix::mount::unmount(stage, UnmountFlags::DETACH)?;
    Ok(digest)
}

fn memory(over: &Path, flags: MountFlags) -> io::Result<()> {
    let flags = flags | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("countersign", over, "tmpfs", flags, c"mode=0755").map_err(io::Error::from)
}

fn lock(folder: &Path) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount(folder, flags, c"").map_err(io::Error::from)
}

fn copy(file: &File, to: &Path) -> io::Result<Digest> {
    let mode = file.metadata()?.permissions().mode() & 0o555 | 0o400;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let digest = executable::copy(file, |piece| io::Write::write_all(&mut copy, piece))?;
    copy.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(digest)
}

fn open(folder: &Path) -> io::Result<File> {
    executable::open_directory(folder).map_err(io::Error::other)
}

fn at(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
