//! What was asked is what runs: each part of a command is changed while it waits, and then it doesn't run. Abuse cases D12 to D17, E15 to E17.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use approval::Digest;
use approval::action::{Mark, Stdin};
use approval::outcome::Exit;
use countersign::runner::{Asking, BindError, bind, hold};

use super::{Finished, bytes, command, finish, finish_bound, launcher, shell};

/// A folder as the gate's user has it, without links.
pub(super) struct Place {
    _folder: tempfile::TempDir,
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { _folder: folder, path }
    }

    /// A folder in which others than the gate's user can do what they like.
    pub(super) fn of_others() -> Self {
        let place = Self::new();
        fs::set_permissions(&place.path, fs::Permissions::from_mode(0o777)).unwrap();
        place
    }

    pub(super) fn file(&self, name: &str, contents: &str) -> String {
        let path = self.path.join(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(super) fn program(&self, name: &str, contents: &str) -> String {
        let path = self.file(name, contents);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// Asks, lets something happen while it waits, and runs it.
async fn after(asking: Asking, meanwhile: impl FnOnce()) -> Finished {
    let (command, held) = bind(&asking).unwrap();
    meanwhile();
    assert!(
        hold(&command, asking.stdin.as_deref()).is_err(),
        "a gate started anew notices it too"
    );
    let finished = finish_bound(&launcher(), command, held).await;
    assert_eq!((finished.text(), finished.failed().is_empty()), ("", false));
    finished
}

#[tokio::test]
async fn a_script_rewritten_after_the_approval_does_not_run() {
    let place = Place::new();
    let deploy = place.program("deploy", "#!/bin/sh\necho good\n");
    assert_eq!(finish(command(&deploy, &[])).await.text(), "good\n");
    let finished = after(command(&deploy, &[]), || {
        place.file("deploy", "#!/bin/sh\necho evil\n");
    });
    assert!(finished.await.failed().contains("changed since it was asked"));
}

#[tokio::test]
async fn another_file_with_the_same_bytes_is_another_file() {
    let place = Place::new();
    for (name, contents) in [
        ("script", "#!/bin/sh\necho good\n".to_owned()),
        ("program", String::new()),
    ] {
        let path = place.program(name, &contents);
        if contents.is_empty() {
            fs::copy("/bin/true", &path).unwrap();
        }
        let finished = after(command(&path, &[]), || {
            fs::copy(&path, place.path.join("copy")).unwrap();
            fs::rename(place.path.join("copy"), &path).unwrap();
        });
        assert!(finished.await.failed().contains("replaced"), "{name}");
    }
}

#[tokio::test]
async fn a_hard_link_put_in_its_place_does_not_run() {
    let place = Place::new();
    let (good, evil) = (
        place.program("good", "#!/bin/sh\necho good\n"),
        place.program("evil", "#!/bin/sh\necho evil\n"),
    );
    after(command(&good, &[]), || {
        fs::remove_file(&good).unwrap();
        fs::hard_link(&evil, &good).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_that_an_argument_names_is_bound() {
    let place = Place::new();
    let data = place.file("data", "good");
    let mut asking = command("cat", &["data"]);
    asking.directory = place.path.clone();
    let (bound, _) = bind(&asking).unwrap();
    assert_eq!(bound.operands.len(), 1);
    assert_eq!(bound.operands[0].argument, 1);
    assert_eq!(bound.operands[0].file.path, bytes(&data));
    assert_eq!(bound.operands[0].file.sha256, Digest::of(b"good"));
    assert_eq!(finish(asking.clone()).await.text(), "good");
    let finished = after(asking, || {
        place.file("data", "evil");
    });
    assert!(finished.await.failed().contains("data changed"));
}

#[tokio::test]
async fn a_link_in_an_argument_that_leads_elsewhere_is_noticed() {
    let place = Place::new();
    let (good, evil) = (place.file("good", "good"), place.file("evil", "evil"));
    let link = place.path.join("link");
    symlink(&good, &link).unwrap();
    let asking = command("cat", &[link.to_str().unwrap()]);
    assert_eq!(finish(asking.clone()).await.text(), "good");
    let (command, held) = bind(&asking).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&evil, &link).unwrap();
    assert!(matches!(
        hold(&command, None),
        Err(BindError::Redirected { argument: 1 })
    ));
    assert!(
        finish_bound(&launcher(), command, held)
            .await
            .failed()
            .contains("another file")
    );
}

#[tokio::test]
async fn what_a_shell_is_given_to_run_is_bound() {
    let place = Place::new();
    let script = place.file("deploy.sh", "echo good\n");
    let asking = command("sh", &[&script]);
    assert_eq!(finish(asking.clone()).await.text(), "good\n");
    after(asking, || {
        place.file("deploy.sh", "echo evil\n");
    })
    .await;
}

#[tokio::test]
async fn the_interpreter_of_a_script_is_bound() {
    let place = Place::new();
    let interpreter = place.path.join("interpreter");
    fs::copy("/bin/sh", &interpreter).unwrap();
    let script = place.program(
        "script",
        &format!("#!{} -e\necho $1; false; echo on\n", interpreter.display()),
    );
    let asking = command(&script, &["argument"]);
    assert_eq!(finish(asking.clone()).await.text(), "argument\n");
    after(asking.clone(), || {
        fs::copy("/bin/cat", place.path.join("other")).unwrap();
        fs::rename(place.path.join("other"), &interpreter).unwrap();
    })
    .await;
    after(asking, || {
        fs::remove_file(&interpreter).unwrap();
        symlink("/bin/cat", &interpreter).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_folder_moved_away_or_linked_elsewhere_is_not_entered() {
    let place = Place::new();
    let (work, other) = (place.path.join("above/work"), place.path.join("other/work"));
    fs::create_dir_all(&work).unwrap();
    fs::create_dir_all(&other).unwrap();
    let mut asking = command("pwd", &[]);
    asking.directory = work.clone();
    assert_eq!(finish(asking.clone()).await.text().trim(), work.to_str().unwrap());
    after(asking.clone(), || {
        fs::rename(&work, place.path.join("moved")).unwrap();
        fs::create_dir(&work).unwrap();
    })
    .await;
    let finished = after(asking, || {
        fs::rename(place.path.join("above"), place.path.join("away")).unwrap();
        symlink(place.path.join("other"), place.path.join("above")).unwrap();
    });
    assert!(finished.await.failed().contains("symbolic link"));
}

#[tokio::test]
async fn a_link_above_the_program_is_not_followed() {
    let place = Place::new();
    fs::create_dir_all(place.path.join("real")).unwrap();
    let program = place.program("real/deploy", "#!/bin/sh\necho good\n");
    after(command(&program, &[]), || {
        fs::rename(place.path.join("real"), place.path.join("away")).unwrap();
        symlink(place.path.join("away"), place.path.join("real")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn it_reads_the_bytes_that_were_approved_and_no_others() {
    let mut asking = command("cat", &[]);
    asking.stdin = Some(b"approved\0bytes".to_vec());
    assert_eq!(finish(asking.clone()).await.stdout, b"approved\0bytes");
    let (command, held) = bind(&asking).unwrap();
    assert!(matches!(command.stdin, Stdin::Bytes(input) if input.bytes == 14));
    assert!(hold(&command, Some(b"approved\0bytes")).is_ok());
    for other in [None, Some(&b"approved\0byteZ"[..]), Some(b"approved")] {
        assert!(matches!(hold(&command, other), Err(BindError::OtherInput)));
    }
    // The words of one request with the files of another.
    let (_, nothing) = bind(&self::command("cat", &[])).unwrap();
    let finished = finish_bound(&launcher(), command.clone(), nothing).await;
    assert!(!finished.failed().is_empty());
    let mut longer = asking.clone();
    longer.stdin = Some(b"other bytes".to_vec());
    let (_, other) = bind(&longer).unwrap();
    assert!(
        finish_bound(&launcher(), command, other)
            .await
            .failed()
            .contains("standard input")
    );
    drop(held);
    asking.stdin = Some(vec![0; (1 << 20) + 1]);
    assert!(matches!(bind(&asking), Err(BindError::Input)));
    // Nobody can change them on their way, the command least of all.
    let mut writes = shell("cat; echo more > /proc/self/fd/0");
    writes.stdin = Some(b"in ".to_vec());
    assert_ne!(finish(writes).await.ran().exit, Exit::Code(0));
}

#[test]
fn what_can_not_be_bound_is_refused_when_it_is_asked() {
    let place = Place::new();
    let mut nowhere = shell("exit 0");
    nowhere.directory = "/no/such/folder".into();
    assert!(bind(&nowhere).err().unwrap().to_string().contains("/no/such/folder"));
    nowhere.directory = "tmp".into();
    assert!(matches!(bind(&nowhere), Err(BindError::Relative { .. })));
    let names: Vec<_> = (0..65).map(|n| place.file(&format!("f{n}"), "")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(bind(&command("cat", &names[..64])).unwrap().0.operands.len(), 64);
    assert!(matches!(bind(&command("cat", &names)), Err(BindError::Operands)));
    let large = place.file("large", "");
    fs::File::options()
        .write(true)
        .open(&large)
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    assert!(matches!(
        bind(&command("cat", &[&large])),
        Err(BindError::Size { argument: 1 })
    ));
    for (name, contents) in [
        ("no_header", "echo hello\n"),
        ("empty", ""),
        ("relative", "#!sh\n"),
        ("missing", "#!/no/such/interpreter\n"),
    ] {
        let path = place.program(name, contents);
        assert!(
            matches!(bind(&command(&path, &[])), Err(BindError::Format { .. })),
            "{name}"
        );
    }
    let script = place.program("script", "#!/bin/sh\n");
    let nested = place.program("nested", &format!("#!{script}\n"));
    assert!(matches!(bind(&command(&nested, &[])), Err(BindError::Format { .. })));
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(bind(&command(&script, &[])), Err(BindError::Io { .. })));
    assert!(bind(&command(place.path.to_str().unwrap(), &[])).is_err());
    // A pipe that nobody writes to must not hold the gate.
    let pipe = place.path.join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    assert!(bind(&command(pipe.to_str().unwrap(), &[])).is_err());
    assert!(
        bind(&command(
            "cat",
            &[pipe.to_str().unwrap(), "/dev/null", "/proc/self/stat", "/proc/self/exe"]
        ))
        .unwrap()
        .0
        .operands
        .is_empty()
    );
    let passing = format!("/proc/{}/exe", std::process::id());
    assert!(matches!(
        bind(&command("cat", &[&passing])),
        Err(BindError::Passing { argument: 1 })
    ));
}

#[test]
fn the_gate_marks_what_it_sees() {
    let place = Place::new();
    let marks = |asking: &Asking| bind(asking).unwrap().0.marks;
    assert_eq!(marks(&command("true", &["plain"])), []);
    assert_eq!(marks(&command("true", &["tab\there"])), [Mark::Odd]);
    assert_eq!(marks(&shell("exit 0")), [Mark::Runner, Mark::Shell]);
    let own = place.path.join("own");
    fs::copy("/bin/true", &own).unwrap();
    let own = own.to_str().unwrap();
    assert_eq!(marks(&command(own, &[])), [Mark::Writable], "below /tmp");
    fs::set_permissions(own, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(marks(&command(own, &[])), [Mark::Setuid, Mark::Writable]);
}

/// Abuse case I13.
#[tokio::test]
async fn memory_beyond_the_limit_is_not_given() {
    let mut hog = shell("x=a; while :; do x=$x$x; done");
    hog.limits.memory_bytes = 64 << 20;
    let finished = finish(hog).await;
    assert_ne!(finished.ran().exit, Exit::Code(0));
    assert_eq!(finished.ran().stopped, None, "memory ran out before time did");
}
