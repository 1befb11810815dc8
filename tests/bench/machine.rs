//! The machine, as Linux tells: which it is, how much processor time a process took, how much memory, how fast its disk flushes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Which machine, which versions: as pairs of name and value.
pub fn describe() -> Result<Vec<(String, String)>> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let compiler = Command::new(env!("CARGO")).arg("--version").output();
    let compiler = compiler.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    let pairs = [
        ("processor", model.trim_start_matches(['\t', ':', ' ']).to_owned()),
        ("cores", std::thread::available_parallelism()?.to_string()),
        ("linux", kernel.trim().to_owned()),
        ("load before", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
        ("compiler", compiler),
        ("countersign", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "profile",
            if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        ),
    ];
    Ok(pairs.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// Processor time of this thread, to the nanosecond.
pub fn thread_time() -> Duration {
    of(ClockId::ThreadCPUTime)
}

/// Processor time of this process and all its threads.
pub fn own_time() -> Duration {
    of(ClockId::ProcessCPUTime)
}

fn of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// Processor time of a process, user and system: its own, and that of its children that have ended.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    pub own: Duration,
    pub children: Duration,
}

impl Spent {
    /// Of the process with this number, to a hundredth of a second.
    pub fn by(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in brackets, may hold spaces.
        let (_, rest) = stat.rsplit_once(')').context("a process's stat")?;
        let fields: Vec<u64> = rest
            .split_whitespace()
            .skip(11)
            .take(4)
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let ticks = |at: usize| Duration::from_millis(10) * u32::try_from(fields[at] + fields[at + 1]).unwrap_or(0);
        Ok(Self {
            own: ticks(0),
            children: ticks(2),
        })
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            own: self.own - before.own,
            children: self.children - before.children,
        }
    }
}

/// The most memory that a process ever had, in KiB.
pub fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Median time to write 4 KiB at the end of a file and flush it, in this folder.
pub fn flush_time(folder: &Path) -> Result<Duration> {
    let path = folder.join("flush");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    fs::remove_file(path)?;
    times.sort();
    Ok(times[times.len() / 2])
}

/// Where the bench keeps its files: beside the program, so on the disk of the build and never in the source.
pub fn folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a folder")?.join("bench-files");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A process that ends with this guard, however that is dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
