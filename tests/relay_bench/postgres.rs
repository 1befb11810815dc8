//! A PostgreSQL server of the bench's own, in an empty folder, that flushes as it does out of the box: what our relay stands on as a
//! node.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;
use tempfile::TempDir;

use crate::line::PATIENCE;
use crate::machine::{Running, Spent};
use crate::server::{find, first_line, spawn};

/// See the module.
pub struct Postgres {
    process: Running,
    pub url: String,
    pub version: String,
    _folder: TempDir,
}

impl Postgres {
    /// None if it isn't installed.
    pub fn start() -> Result<Option<Self>> {
        let Some(initdb) = find("initdb") else { return Ok(None) };
        let bin = initdb.parent().context("its folder")?;
        let folder = home()?;
        let data = folder.path().join("data");
        let mut init = as_nobody(&initdb)?;
        init.args([
            "--auth=trust",
            "--username=relay",
            "--encoding=UTF8",
            "--locale=C",
            "--pgdata",
        ]);
        let made = init.arg(&data).output()?;
        ensure!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = as_nobody(&bin.join("postgres"))?;
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let process = spawn(command.stdout(Stdio::null()), folder.path())?;
        let url = format!("postgres://relay@127.0.0.1:{port}/postgres?sslmode=disable");
        let answers = || {
            let mut psql = Command::new(bin.join("psql"));
            psql.args(["-XAtq", "-c", "SELECT 1", &url]).stderr(Stdio::null());
            psql.output().is_ok_and(|output| output.status.success())
        };
        let end = Instant::now() + PATIENCE;
        while !answers() {
            if Instant::now() > end {
                let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                bail!("postgres doesn't start: {log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(Self {
            process,
            url,
            version: first_line(&bin.join("postgres"), "--version")?,
            _folder: folder,
        }))
    }

    /// Processor time of the server, of those of its processes that ended, and of those that are there.
    pub fn spent(&self) -> Result<Duration> {
        let pid = self.process.0.id();
        let Spent { own, children } = Spent::by(pid)?;
        let mut sum = own + children;
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // It may end while one looks.
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            if parent.is_some_and(|parent| parent.trim().parse() == Ok(pid)) {
                sum += Spent::by(number).map_or(Duration::ZERO, |spent| spent.own);
            }
        }
        Ok(sum)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // By its own way, so that its children end with it.
        let pid = rustix::process::Pid::from_child(&self.process.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.process.0.wait();
    }
}

/// A folder that its user may reach and write: the disk is the one of the bench's other files.
fn home() -> Result<TempDir> {
    let folder = tempfile::tempdir_in(place()?)?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    if let Some((user, group)) = unprivileged()? {
        chown(folder.path(), Some(user), Some(group))?;
    }
    Ok(folder)
}

/// Beside the bench's other files, unless another user couldn't get there.
fn place() -> Result<PathBuf> {
    let folder = crate::machine::folder()?;
    let open = |folder: &Path| fs::metadata(folder).is_ok_and(|data| data.permissions().mode() & 0o1 != 0);
    let reached = unprivileged()?.is_none() || folder.ancestors().all(open);
    Ok(if reached { folder } else { std::env::temp_dir() })
}

/// PostgreSQL doesn't run as root.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let of = |name: &str| users.lines().find(|line| line.split(':').next() == Some(name));
    let line = of("postgres")
        .or_else(|| of("nobody"))
        .context("a user who isn't root")?;
    let fields: Vec<_> = line.split(':').collect();
    Ok(Some((fields[2].parse()?, fields[3].parse()?)))
}

fn as_nobody(program: &Path) -> Result<Command> {
    let mut command = match unprivileged()? {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command.args([
                format!("--reuid={user}"),
                format!("--regid={group}"),
                "--clear-groups".to_owned(),
            ]);
            command.arg(program);
            command
        }
    };
    command
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C");
    Ok(command)
}
