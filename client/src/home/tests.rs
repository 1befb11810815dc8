//! Who is kept out of a home, and what survives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::symlink;

use super::*;

fn home() -> (tempfile::TempDir, Home) {
    let above = tempfile::tempdir().unwrap();
    let home = Home::create(Some(above.path().join("party"))).unwrap();
    (above, home)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_home_is_closed_to_others() {
    let (_above, home) = home();
    home.write_secret("identity", b"CSID-SECRET-1").unwrap();
    assert_eq!(mode(home.path()), 0o700);
    assert_eq!(mode(&home.database()), 0o600);
    assert_eq!(mode(&home.path().join("identity")), 0o600);
    assert_eq!(&**home.read_secret("identity").unwrap(), b"CSID-SECRET-1");
    assert_eq!(
        fs::read_dir(home.path()).unwrap().count(),
        2,
        "no temporary file stays behind"
    );
}

#[test]
fn a_folder_open_to_others_is_refused_with_the_command_that_closes_it() {
    let (_above, home) = home();
    chmod(home.path(), 0o755);
    let error = Home::open(Some(home.path().to_owned())).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("{} is open to others (mode 0755)", home.path().display())
    );
    assert_eq!(error.hint().unwrap(), format!("chmod 700 {}", home.path().display()));
}

#[test]
fn a_database_open_to_others_is_refused() {
    let (_above, home) = home();
    chmod(&home.database(), 0o644);
    let error = Home::open(Some(home.path().to_owned())).err().unwrap();
    assert_eq!(
        error.hint().unwrap(),
        format!("chmod 600 {}", home.database().display())
    );
}

#[test]
fn a_folder_that_is_a_link_is_refused() {
    let (above, home) = home();
    let link = above.path().join("link");
    symlink(home.path(), &link).unwrap();
    assert!(matches!(Home::open(Some(link)), Err(HomeError::Symlink { .. })));
}

#[test]
fn a_missing_home_is_told_apart() {
    let above = tempfile::tempdir().unwrap();
    assert!(matches!(
        Home::open(Some(above.path().join("none"))),
        Err(HomeError::Missing { .. })
    ));
}

#[test]
fn a_secret_others_may_read_is_refused() {
    let (_above, home) = home();
    home.write_secret("identity", b"x").unwrap();
    chmod(&home.path().join("identity"), 0o640);
    assert!(matches!(
        home.read_secret("identity"),
        Err(HomeError::Open {
            mode: 0o640,
            wanted: 0o600,
            ..
        })
    ));
}

#[test]
fn a_linked_secret_is_refused() {
    let (above, home) = home();
    home.write_secret("identity", b"x").unwrap();
    fs::hard_link(home.path().join("identity"), above.path().join("second")).unwrap();
    assert!(matches!(
        home.read_secret("identity"),
        Err(HomeError::Hardlink { links: 2, .. })
    ));
    symlink(above.path().join("second"), home.path().join("linked")).unwrap();
    assert!(matches!(home.read_secret("linked"), Err(HomeError::Symlink { .. })));
}

#[test]
fn somebody_elses_secret_is_refused() {
    let (_above, home) = home();
    let path = home.database();
    let stat = rustix::fs::stat(&path).unwrap();
    let other = stat.st_uid.wrapping_add(1);
    assert!(matches!(
        check(&path, &stat, FileType::RegularFile, other),
        Err(HomeError::Owner { .. })
    ));
}

#[test]
fn a_key_is_never_overwritten() {
    let (_above, home) = home();
    home.write_secret("identity", b"old").unwrap();
    assert!(matches!(
        home.write_secret("identity", b"new"),
        Err(HomeError::Exists { .. })
    ));
    assert_eq!(&**home.read_secret("identity").unwrap(), b"old");
    assert_eq!(
        fs::read_dir(home.path()).unwrap().count(),
        2,
        "the copy that lost is gone"
    );
}

#[test]
fn a_name_can_not_leave_the_folder() {
    let (_above, home) = home();
    for name in ["../identity", "/etc/passwd", "", ".", "a/b", "A"] {
        assert!(matches!(home.read_secret(name), Err(HomeError::Name { .. })), "{name}");
    }
}

#[test]
fn a_lock_is_had_once() {
    let (_above, home) = home();
    let lock = home.try_lock("gate.lock").unwrap();
    assert!(lock.is_some());
    assert!(home.try_lock("gate.lock").unwrap().is_none());
    drop(lock);
    assert!(home.try_lock("gate.lock").unwrap().is_some());
}

#[test]
fn a_long_path_gets_a_short_socket_that_everyone_finds() {
    let above = tempfile::tempdir().unwrap();
    let home = Home::create(Some(above.path().join("x".repeat(120)))).unwrap();
    let socket = home.socket().unwrap();
    assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES);
    assert_eq!(home.socket().unwrap(), socket);
    assert_eq!(mode(socket.parent().unwrap()) & 0o077, 0);
    if socket.starts_with("/tmp") {
        fs::remove_dir(socket.parent().unwrap()).unwrap();
        assert_ne!(home.socket().unwrap(), socket, "a folder that vanished is replaced");
        fs::remove_dir(home.socket().unwrap().parent().unwrap()).unwrap();
    }
}
