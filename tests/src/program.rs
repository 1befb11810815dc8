//! The programs under test, built as this program was. What is done with them is in the tests.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The path of `countersign` or `countersign-relay`, built once from the present source in this program's own profile.
///
/// # Panics
/// If they can't be built.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(build).join(name);
    assert!(path.exists(), "{} was not built", path.display());
    path
}

/// Builds both and returns where they are.
fn build() -> PathBuf {
    let own = env::current_exe().expect("this program's own path");
    // `<target>/<profile>/bench`, or `<target>/<profile>/deps/<test>`.
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .expect("a profile's folder");
    let target = folder.parent().expect("the target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "-p",
            "countersign",
            "-p",
            "countersign-relay",
            "--target-dir",
        ])
        .arg(target);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the programs under test don't build");
    folder.to_owned()
}
