//! Starting on what must not be used: folders and files open to others, files that aren't ours or aren't whole, a home that another gate uses. Each is
//! refused in these words, and left as it was.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use countersign_tests::process::{Bell, World, countersign};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

/// Two homes at rest: a gate's with what serves it, an admin's with what watches it.
struct Rest {
    world: World,
}

const GATE: [&str; 2] = ["gate", "serve"];
const ADMIN: [&str; 1] = ["watch"];

impl Rest {
    fn new() -> Self {
        let mut world = World::new();
        assert!(world.gate.stop().success() && world.relay.stop().success());
        Self { world }
    }

    /// Copies of both homes, each with the command that uses it.
    fn copies(&self, name: &str) -> [(PathBuf, &'static [&'static str]); 2] {
        let copy = |home: &Path, kind: &str| {
            let to = self.world.folder().join(format!("{name}-{kind}"));
            std::fs::create_dir(&to).expect("a new folder");
            std::fs::set_permissions(&to, PermissionsExt::from_mode(0o700)).expect("its mode");
            for file in std::fs::read_dir(home).expect("a home") {
                let file = file.expect("a file");
                std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
            }
            to
        };
        [
            (copy(&self.world.gate.home, "gate"), &GATE),
            (copy(&self.world.admin.home, "admin"), &ADMIN),
        ]
    }
}

/// Every file of a home with what it holds, without the locks, which are always empty.
fn contents(home: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(home)
        .expect("a home")
        .map(|file| file.expect("a file"));
    let named = files.map(|file| {
        (
            file.file_name().to_string_lossy().into_owned(),
            std::fs::read(file.path()).expect("its contents"),
        )
    });
    named.filter(|(name, _)| !name.ends_with(".lock")).collect()
}

/// Runs the command, which must end with 1 and exactly these words, and leave everything as it was.
fn refused(home: &Path, command: &[&str], words: &str) {
    let before = contents(home);
    let mut process = countersign(home, command, &Bell::default());
    let status = process.end();
    assert_eq!(
        (process.stderr().as_str(), status.code(), process.stdout().as_str()),
        (words, Some(1), ""),
        "{command:?}"
    );
    let after = contents(home);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "{command:?}: files came or went");
    assert!(before == after, "{command:?}: a file was changed");
}

#[test]
fn a_home_that_others_can_open_is_refused() {
    let rest = Rest::new();
    for (home, command) in rest.copies("open") {
        let path = home.display();
        for mode in [0o750, 0o755, 0o777] {
            std::fs::set_permissions(&home, PermissionsExt::from_mode(mode)).expect("its mode");
            refused(
                &home,
                command,
                &format!("error: {path} is open to others (mode {mode:04o})\nhint: chmod 700 {path}\n"),
            );
        }
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).expect("its mode");
        for name in ["state.db", "identity.key"] {
            let file = home.join(name);
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("its mode");
            refused(
                &home,
                command,
                &format!(
                    "error: {0} is open to others (mode 0644)\nhint: chmod 600 {0}\n",
                    file.display()
                ),
            );
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("its mode");
        }
    }
}

#[test]
fn a_database_that_is_not_ours_or_not_whole_is_refused_and_left_as_it_was() {
    let rest = Rest::new();
    for (home, command) in rest.copies("files") {
        let database = home.join("state.db");
        let path = database.display();
        let whole = std::fs::read(&database).expect("the database");
        let foreign = format!("error: {path} is not a countersign database\n");
        let missing = format!(
            "error: {path} has no state: nothing was set up here\nhint: set one up: `countersign gate init` beside an agent, `countersign join LINK` on an admin's machine\n"
        );
        let cases = [
            (b"".to_vec(), &missing),
            (b"not a database at all\n".repeat(500), &foreign),
            (whole[..40].to_vec(), &foreign),
            (another_programs_database(&home), &foreign),
        ];
        for (bytes, words) in cases {
            std::fs::write(&database, bytes).expect("a bad database");
            refused(&home, command, words);
        }
        // Cut within the first page, and between pages, where all that is there is well-formed.
        for length in [99, 4096, whole.len() / 2 / 4096 * 4096, whole.len() - 4096] {
            std::fs::write(&database, &whole[..length]).expect("half a database");
            refused(
                &home,
                command,
                &format!("error: {path} is damaged: {length} bytes long, of {}\n", whole.len()),
            );
        }
        // As long as it should be, with a page overwritten: found by SQLite, and said in its words.
        let mut overwritten = whole.clone();
        overwritten[4096..8192].fill(0xaa);
        std::fs::write(&database, overwritten).expect("a damaged database");
        let before = contents(&home);
        let mut process = countersign(&home, command, &Bell::default());
        assert_eq!((process.end().code(), process.stdout()), (Some(1), String::new()));
        assert!(
            process.stderr().starts_with(&format!("error: {path} is damaged: ")),
            "{}",
            process.stderr()
        );
        assert!(before == contents(&home), "something was changed");
    }
}

/// The bytes of a small SQLite database with a table of its own.
fn another_programs_database(home: &Path) -> Vec<u8> {
    let path = home.with_extension("other");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .disable_statement_logging();
        let mut connection = SqliteConnection::connect_with(&options).await.expect("a new database");
        sqlx::query("CREATE TABLE recipes (name TEXT)")
            .execute(&mut connection)
            .await
            .expect("a table");
        connection.close().await.expect("it can be closed");
    });
    std::fs::read(&path).expect("the database")
}

#[test]
fn a_second_gate_on_the_same_home_is_refused_and_the_first_goes_on() {
    let mut world = World::new();
    world.admin.watch("y");
    let mut second = countersign(&world.gate.home, &GATE, &Bell::default());
    assert_eq!(second.end().code(), Some(1));
    let words = format!(
        "error: another gate is already running on {}\nhint: use that one, or stop it first\n",
        world.gate.home.display()
    );
    assert_eq!((second.stderr(), second.stdout()), (words, String::new()));
    let mut asking = world.ask(&[], &["/bin/echo", "first"]);
    assert_eq!((asking.code(), asking.process.stdout().as_str()), (Some(0), "first\n"));
}
