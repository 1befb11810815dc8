//! The two programs in `interop/` that are built on other people's code: the verifier in Python (PROTOCOL.md 2, 7 to 10, 15)
//! and the HPKE in JavaScript (6). They are set up here, once, without a manual step. Not here: what they must agree with.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Where the programs are kept in the source.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop");

/// The verifier written in Python from the protocol's page.
#[derive(Debug, Clone)]
pub struct Python {
    interpreter: PathBuf,
}

/// What the verifier says of a file by its first word.
const RIGHT: &str = "ok ";

impl Python {
    /// Finds the verifier's libraries in this folder, usually `env!("CARGO_TARGET_TMPDIR")`, or installs them there.
    ///
    /// # Errors
    /// If Python is missing or the libraries can't be installed; says what to do.
    pub fn set_up(folder: impl AsRef<Path>) -> Result<Self> {
        let hint = "install it: apt-get install python3 python3-venv";
        let environment = prepared(folder.as_ref(), "python", &["requirements.txt"], |environment| {
            run(Command::new("python3").args(["-m", "venv"]).arg(environment), hint)?;
            let mut install = Command::new(environment.join("bin/python"));
            install.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ]);
            run(
                install.arg(environment.join("requirements.txt")),
                "are the packages within reach?",
            )
        })?;
        Ok(Self {
            interpreter: environment.join("bin/python"),
        })
    }

    /// The verdict on each of these transcripts and proofs: `ok …` or `wrong: …`.
    ///
    /// # Errors
    /// If the verifier itself fails.
    pub fn verify(&self, files: &[PathBuf]) -> Result<Vec<String>> {
        let said = self.ask(files)?;
        let lines: Vec<_> = said.lines().map(str::to_owned).collect();
        ensure!(
            lines.len() == files.len(),
            "{} files, but the verifier says: {said}",
            files.len()
        );
        Ok(lines)
    }

    /// Compares the verifier's verdicts on the frozen vectors in this folder with the expected ones; the last line sums up.
    ///
    /// # Errors
    /// If the verifier itself fails.
    pub fn compare_vectors(&self, folder: &Path) -> Result<String> {
        self.ask(&[Path::new("--vectors"), folder])
    }

    fn ask(&self, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
        let mut verify = Command::new(&self.interpreter);
        verify
            .arg("-B")
            .arg(Path::new(SOURCE).join("verify.py"))
            .args(arguments);
        let Output { status, stdout, stderr } = verify.output()?;
        ensure!(
            matches!(status.code(), Some(0 | 3)),
            "the verifier failed: {}",
            String::from_utf8_lossy(&stderr)
        );
        Ok(String::from_utf8(stdout)?)
    }
}

/// Asks the verifier written in Python about one transcript or proof. `folder` is as in [`Python::set_up`].
///
/// # Errors
/// The verdict, if the file is wrong; or why the verifier can't be asked.
pub fn verify_with_python(folder: impl AsRef<Path>, file: impl Into<PathBuf>) -> Result<String> {
    let verdict = Python::set_up(folder)?.verify(&[file.into()])?.concat();
    ensure!(verdict.starts_with(RIGHT), "{verdict}");
    Ok(verdict)
}

/// Somebody else's HPKE, behind a pipe. It ends when this is dropped.
#[derive(Debug)]
pub struct Hpke {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Hpke {
    /// Finds the library in this folder, usually `env!("CARGO_TARGET_TMPDIR")`, or installs it there, and starts it.
    ///
    /// # Errors
    /// If Node.js is missing or the library can't be installed; says what to do.
    pub fn set_up(folder: impl AsRef<Path>) -> Result<Self> {
        let hint = "install it: apt-get install nodejs npm";
        let files = ["hpke.mjs", "package.json", "package-lock.json"];
        let package = prepared(folder.as_ref(), "node", &files, |package| {
            let mut install = Command::new("npm");
            install.args(["ci", "--loglevel=error", "--no-audit", "--no-fund", "--ignore-scripts"]);
            run(install.current_dir(package), hint)
        })?;
        let mut node = Command::new("node");
        node.arg("hpke.mjs")
            .current_dir(package)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = node.spawn().with_context(|| format!("node doesn't start; {hint}"))?;
        let (Some(questions), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("node without a pipe");
        };
        Ok(Self {
            process,
            questions,
            answers: BufReader::new(answers),
        })
    }

    /// Its answer to a question; the form of both is said in `hpke.mjs`.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub fn ask(&mut self, question: &Value) -> Result<Value> {
        writeln!(self.questions, "{question}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer).with_context(|| format!("node answered {answer:?}"))
    }
}

impl Drop for Hpke {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder with copies of these files in which `install` has once succeeded. Its name follows from what the files say, so
/// that it is never an old one; a lock keeps tests that run at once from installing into each other.
fn prepared(folder: &Path, what: &str, files: &[&str], install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let contents: Vec<_> = files
        .iter()
        .map(|file| fs::read(Path::new(SOURCE).join(file)))
        .collect::<Result<_, _>>()?;
    let name: String = Sha256::digest(contents.concat())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (place, done) = (
        folder.join(format!("{what}-{name}")),
        folder.join(format!("{what}-{name}.done")),
    );
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join(format!("{what}.lock")))?;
    lock.lock()?;
    if !done.exists() {
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::create_dir(&place)?;
        for (file, content) in files.iter().zip(contents) {
            fs::write(place.join(file), content)?;
        }
        install(&place)?;
        File::create(done)?;
    }
    Ok(place)
}

/// Runs a command to its end; a failure says what it said, and the hint.
fn run(command: &mut Command, hint: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("{program} doesn't start; {hint}"))?;
    if !output.status.success() {
        let (said, complained) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        bail!("{program} failed; {hint}\n{said}{complained}");
    }
    Ok(())
}
