//! What holds a command in on this machine, and what a frozen script still knows of itself. Where something isn't allowed, the test says so
//! and shows that nothing runs without it that should have it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use approval::outcome::{Ended, Exit};
use countersign::runner::{Asking, BindError, Confinement, Launcher, bind};

use super::bound::Place;
use super::{Finished, command, finish, finish_bound, launcher, shell};

/// With all that this machine allows.
pub(super) fn confined(home: Option<&Path>) -> Launcher {
    let launcher = match home {
        Some(home) => launcher().hiding(home),
        None => launcher(),
    };
    let confinement = Confinement::probe(&launcher);
    println!("confinement: {confinement:?}");
    launcher.confined(confinement)
}

async fn finish_in(launcher: &Launcher, asking: &Asking) -> Finished {
    let (command, held) = bind(asking).unwrap();
    finish_bound(launcher, command, held).await
}

#[tokio::test]
async fn a_script_that_only_the_gates_user_can_change_knows_where_it_is() {
    let place = Place::new();
    let launcher = confined(None);
    if !launcher.confinement().mounts {
        println!("no mounts here");
        return;
    }
    let script = place.program(
        "deploy",
        "#!/bin/sh\necho $0 $1; cd \"$(dirname \"$0\")\" && pwd && echo x > written\n",
    );
    let folder = place.path.to_str().unwrap();
    let expected = format!("{script} argument\n{folder}\n");
    assert_eq!(
        finish_in(&launcher, &command(&script, &["argument"])).await.text(),
        expected
    );
    assert_eq!(
        fs::read_to_string(place.path.join("written")).unwrap(),
        "x\n",
        "the rest of its folder is as ever"
    );
    assert_eq!(
        finish_in(&launcher, &command("sh", &[&script, "argument"]))
            .await
            .text(),
        expected
    );
    // It is frozen: not even itself can change it while it runs.
    let script = place.program("changes", "#!/bin/sh\necho echo more >> $0\n");
    assert_ne!(
        finish_in(&launcher, &command(&script, &[])).await.ran().exit,
        Exit::Code(0)
    );
    assert!(!fs::read_to_string(&script).unwrap().ends_with("\necho more\n"));
}

#[tokio::test]
async fn python_finds_its_modules_beside_the_script() {
    let place = Place::new();
    let Ok(python) = fs::canonicalize("/usr/bin/python3") else {
        println!("no python here");
        return;
    };
    place.file("beside.py", "print('beside')\n");
    let script = place.file("script.py", "import sys, beside\nprint(sys.path[0], sys.argv[0])\n");
    let finished = finish_in(&confined(None), &command(python.to_str().unwrap(), &[&script])).await;
    let expected = format!("beside\n{} {script}\n", place.path.display());
    assert_eq!(finished.text(), expected);
}

#[tokio::test]
async fn a_script_that_others_can_change_runs_frozen_and_apart() {
    let (place, home) = (Place::of_others(), Place::new());
    let script = place.program("deploy", "#!/bin/sh\necho $0 $1; exit 7\n");
    let home = home.path.as_path();
    for launcher in [confined(Some(home)), confined(None), launcher()] {
        for asking in [command(&script, &["argument"]), command("sh", &[&script, "argument"])] {
            let finished = finish_in(&launcher, &asking).await;
            assert_eq!(
                finished.ran().exit,
                Exit::Code(7),
                "{}",
                String::from_utf8_lossy(&finished.stderr)
            );
            assert!(!finished.text().starts_with(&script) && finished.text().ends_with(" argument\n"));
        }
    }
}

#[tokio::test]
async fn a_program_that_others_can_write_to_runs_from_a_copy() {
    let place = Place::of_others();
    let path = place.path.join("program");
    fs::copy("/bin/readlink", &path).unwrap();
    let asking = command(path.to_str().unwrap(), &["/proc/self/exe"]);
    if rustix::process::geteuid().is_root() {
        assert_eq!(finish(asking.clone()).await.text().trim(), path.to_str().unwrap());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(finish(asking).await.text().starts_with("/memfd:"));
}

#[tokio::test]
async fn no_command_sees_the_gates_home() {
    let home = Place::new();
    let key = home.file("key", "secret");
    let launcher = confined(Some(&home.path));
    if launcher.confinement().mounts {
        let script = format!("cat {key}; ls -A {}; echo x > {key}", home.path.display());
        let finished = finish_in(&launcher, &shell(&script)).await;
        assert_eq!(finished.text(), "");
        assert_ne!(finished.ran().exit, Exit::Code(0));
        assert_eq!(fs::read_to_string(&key).unwrap(), "secret");
    } else {
        println!("no mounts here");
    }
    // What needs it is refused, mounts or not, when it is asked and when it would run.
    let mut inside = shell("ls");
    inside.directory = home.path.clone();
    let program = home.program("program", "#!/bin/sh\n");
    for mut asking in [inside, command("cat", &[&key]), command(&program, &[])] {
        assert!(finish_in(&launcher, &asking).await.failed().contains("gate's home"));
        asking.hide = Some(home.path.clone());
        assert!(matches!(bind(&asking), Err(BindError::Hidden { .. })));
    }
}

#[tokio::test]
async fn what_the_permit_says_holds_it_in_or_it_does_not_run() {
    let nowhere = Confinement {
        cgroup: Some("/no/such/group".into()),
        ..Confinement::default()
    };
    let finished = finish_in(&launcher().confined(nowhere), &shell("echo ran")).await;
    assert!(finished.failed().contains("control group"));
    let probed = confined(None).confinement().clone();
    for demanded in [
        Confinement {
            mounts: true,
            ..Confinement::default()
        },
        Confinement {
            landlock: true,
            ..Confinement::default()
        },
    ] {
        let can = probed.mounts && demanded.mounts || probed.landlock && demanded.landlock;
        let finished = finish_in(&launcher().confined(demanded), &shell("echo ran")).await;
        assert_eq!(finished.text(), if can { "ran\n" } else { "" });
        assert_eq!(matches!(finished.ended, Ended::Failed(_)), !can);
    }
}

#[tokio::test]
async fn in_a_landlock_domain_nobody_outside_gets_a_signal_and_files_move_as_ever() {
    let launcher = confined(None);
    if !launcher.confinement().landlock {
        println!("no landlock here");
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path.join("to")).unwrap();
    place.file("file", "x");
    let mut script = shell(&format!(
        "mv file to/ && ls to; kill -0 {} || echo no signal; mknod device c 1 3 || echo no device",
        std::process::id()
    ));
    script.directory = place.path.clone();
    assert_eq!(
        finish_in(&launcher, &script).await.text(),
        "file\nno signal\nno device\n"
    );
}

/// As the user that the tests of a package run as hardly ever: mounts then need a user namespace.
#[tokio::test]
async fn a_gate_that_is_not_root_can_do_the_same() {
    if !rustix::process::geteuid().is_root() || std::env::var_os("COUNTERSIGN_TEST_NOBODY").is_some() {
        return;
    }
    // Root's target folder may be closed to others.
    let place = Place::new();
    let (test, program) = (place.path.join("test"), place.path.join("countersign"));
    fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_countersign"), &program).unwrap();
    let home = place.path.join("tmp");
    fs::create_dir(&home).unwrap();
    // None of the users that stand for all others in a namespace.
    chown(&home, Some(12_345), Some(12_345)).unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=12345", "--regid=12345", "--clear-groups"])
        .arg(&test)
        .args(["script", "home", "permit_says", "--nocapture", "--test-threads=1"])
        .env("COUNTERSIGN_TEST_NOBODY", &program)
        .env("TMPDIR", &home)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert!(!text.contains("running 0 tests"));
}
