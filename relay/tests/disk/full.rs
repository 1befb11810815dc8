//! A disk that is full for a while, or can't be written: puts are refused, nothing stored is lost, and it goes on by itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use wire::frame::{Put, Reason};

use crate::client::{Client, put};
use crate::program::{Program, has, in_ci};

/// A small disk of its own.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Nothing where only root may mount; that is a failure in CI.
    fn of_mib(size: u32) -> Option<Self> {
        if !geteuid().is_root() {
            assert!(!in_ci(), "only root can mount a small disk");
            eprintln!("skipped: only root can mount a small disk");
            return None;
        }
        let disk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(disk.path()).unwrap();
        let options = std::ffi::CString::new(format!("size={size}m,mode=0700")).unwrap();
        mount(
            "tmpfs",
            disk.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        Some(disk)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn store(&self) -> PathBuf {
        self.path().join("relay.db")
    }

    /// Takes up all that is left.
    fn fill(&self) {
        let mut ballast = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path().join("ballast"))
            .unwrap();
        for piece in [64 * 1024, 4096, 1] {
            while ballast.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }

    fn read_only(&self, on: bool) {
        let flags = if on { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_remount(self.path(), flags, "").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(self.path(), UnmountFlags::DETACH).ok();
    }
}

/// A sender of mailbox 1 who notes what it was told, and holds the relay to it.
struct Sender {
    put: Vec<u8>,
    stored: Vec<u8>,
}

impl Sender {
    /// With a mailbox that it may put into.
    async fn begin(program: &Program) -> (Self, Client) {
        let mut owner = Client::login(program.address().unwrap(), 1).await.unwrap();
        owner.allow(1, 1000).await.unwrap();
        let sender = Client::login(program.address().unwrap(), 2).await.unwrap();
        let own = Self {
            put: Vec::new(),
            stored: Vec::new(),
        };
        (own, sender)
    }

    /// Large ones, so that a little room for something small doesn't count.
    fn envelope(id: u8) -> Put {
        let mut put = put(1, [id; 16], &[id]);
        put.envelope = vec![id; 65_536].into();
        put
    }

    /// Whether it was stored. The only other answer is that it wasn't.
    async fn put(&mut self, client: &mut Client, id: u8) -> bool {
        self.put.push(id);
        let answer = client.put(Self::envelope(id)).await;
        match answer.unwrap_or_else(|_| panic!("no answer to {id}")) {
            Ok(()) => {
                self.stored.push(id);
                true
            }
            Err(reason) => {
                assert_eq!(reason, Reason::NotStored);
                false
            }
        }
    }

    /// Everything that was stored is there, in order and once, and nothing that was never put.
    async fn is_served(&self, program: &Program) {
        let mut owner = Client::login(program.address().unwrap(), 1).await.unwrap();
        let (_, waiting) = owner.read().await.unwrap();
        let mut here = Vec::new();
        for _ in 0..waiting {
            let (sequence, bytes) = owner.delivery().await.unwrap();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            here.push(bytes[0]);
            owner.ack(sequence).await.unwrap();
        }
        let mut once = here.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), here.len(), "some came twice: {here:?}");
        here.retain(|id| self.stored.contains(id));
        assert_eq!(here, self.stored);
    }
}

/// Abuse case H13.
#[tokio::test]
async fn a_full_disk_refuses_and_when_it_is_freed_all_goes_on_by_itself() {
    let Some(disk) = Disk::of_mib(16) else {
        return;
    };
    let mut program = Program::start(&disk.store(), &[]);
    let (mut sender, mut client) = Sender::begin(&program).await;
    for id in 0..10 {
        assert!(sender.put(&mut client, id).await);
    }
    assert_eq!(program.get("/readyz"), 200);
    disk.fill();
    let mut id = 10;
    while sender.put(&mut client, id).await {
        id += 1;
        assert!(id < 100, "the disk isn't full");
    }
    program.until("/readyz", 503).await;
    assert_eq!(program.get("/healthz"), 200);
    // It goes on refusing, and lives.
    for more in 1..=5 {
        assert!(!sender.put(&mut client, id + more).await, "there was room");
    }
    assert!(!program.has_ended(), "{}", program.words());
    disk.free();
    program.until("/readyz", 200).await;
    // What was refused is put again under its own id, and now it is taken.
    for again in id..=id + 5 {
        assert!(sender.put(&mut client, again).await, "{again} is refused still");
    }
    drop(client);
    sender.is_served(&program).await;
    program.signal(Signal::TERM);
    assert!(program.end().is_well());
}

/// Abuse case H13, where the relay itself doesn't live through it.
#[tokio::test]
async fn a_relay_that_dies_on_a_full_disk_has_everything_when_there_is_room() {
    let Some(disk) = Disk::of_mib(16) else {
        return;
    };
    let program = Program::start(&disk.store(), &[]);
    let (mut sender, mut client) = Sender::begin(&program).await;
    for id in 0..10 {
        assert!(sender.put(&mut client, id).await);
    }
    disk.fill();
    let mut id = 10;
    while sender.put(&mut client, id).await {
        id += 1;
    }
    program.signal(Signal::KILL);
    assert!(program.end().is_kill());
    // Without room it starts or says why not.
    let program = Program::start(&disk.store(), &[]);
    if program.address().is_some() {
        program.signal(Signal::KILL);
        assert!(program.end().is_kill());
    } else {
        let ending = program.end();
        assert!(ending.is_refusal(), "{}", ending.words);
    }
    disk.free();
    let program = Program::start(&disk.store(), &[]);
    assert!(program.address().is_some(), "{}", program.words());
    let mut client = Client::login(program.address().unwrap(), 2).await.unwrap();
    assert!(sender.put(&mut client, id).await);
    sender.is_served(&program).await;
}

/// Abuse case H08.
#[tokio::test]
async fn a_disk_that_cant_be_written_is_refused_at_the_start() {
    let Some(disk) = Disk::of_mib(16) else {
        return;
    };
    let refused = |store: &Path| {
        let program = Program::start(store, &[]);
        assert!(program.address().is_none(), "it starts and can't write");
        let ending = program.end();
        assert!(ending.is_refusal(), "{}", ending.words);
        assert!(ending.words.contains("Read-only"), "{}", ending.words);
    };
    disk.read_only(true);
    refused(&disk.store());
    disk.read_only(false);
    let program = Program::start(&disk.store(), &[]);
    let (mut sender, mut client) = Sender::begin(&program).await;
    for id in 0..10 {
        assert!(sender.put(&mut client, id).await);
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let program = Program::start(&disk.path().join("other.db"), &[]);
        program.signal(signal);
        program.end();
    }
    program.signal(Signal::KILL);
    program.end();
    disk.read_only(true);
    refused(&disk.store());
    disk.read_only(false);
    let program = Program::start(&disk.store(), &[]);
    assert!(program.address().is_some(), "{}", program.words());
    sender.is_served(&program).await;
}

/// A strace that lets every write of a running relay fail as it does on a disk that the kernel has made read-only.
struct Spell {
    strace: Child,
}

impl Spell {
    async fn cast(program: &Program, store: &Path) -> Self {
        let store = store.to_str().unwrap();
        let calls = "write,pwrite64,pwritev,ftruncate,fallocate";
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &program.id().to_string()]);
        for name in ["", "-wal", "-journal"] {
            command.args(["-P", &format!("{store}{name}")]);
        }
        let strace = command
            .args([
                "-e",
                &format!("trace={calls}"),
                "-e",
                &format!("inject={calls}:error=EROFS"),
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let spell = Self { strace };
        let threads = PathBuf::from(format!("/proc/{}/task", program.id()));
        let is_held = |status: String| !status.contains("TracerPid:\t0\n");
        let mut patience = 0..1000;
        while !std::fs::read_dir(&threads)
            .unwrap()
            .flatten()
            .all(|thread| std::fs::read_to_string(thread.path().join("status")).is_ok_and(is_held))
        {
            patience.next().expect("strace doesn't get hold of the relay");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        spell
    }

    fn lift(mut self) {
        kill_process(Pid::from_child(&self.strace), Signal::INT).unwrap();
        self.strace.wait().unwrap();
    }
}

impl Drop for Spell {
    fn drop(&mut self) {
        self.strace.kill().ok();
        self.strace.wait().ok();
    }
}

/// Abuse case H08, while it runs: what can't be written is refused, or the relay ends and says why. A manager that starts it
/// again then finds it refuse, or well.
#[tokio::test]
async fn a_disk_that_turns_read_only_is_refused_or_the_end_and_nothing_is_lost() {
    if !has("strace", "strace") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("s/relay.db");
    let mut program = Program::start(&store, &[]);
    let (mut sender, mut client) = Sender::begin(&program).await;
    for id in 0..10 {
        assert!(sender.put(&mut client, id).await);
    }
    let spell = Spell::cast(&program, &store).await;
    for id in 10..15 {
        sender.put.push(id);
        match client.put(Sender::envelope(id)).await {
            Ok(answer) => assert_eq!(answer, Err(Reason::NotStored), "{id} was written nowhere"),
            Err(_) => break,
        }
    }
    let ends = !matches!(client.put(Sender::envelope(15)).await, Ok(Err(_)));
    spell.lift();
    if ends {
        let ending = program.end();
        assert!(ending.is_refusal(), "{}", ending.words);
        program = Program::start(&store, &[]);
    }
    program.until("/readyz", 200).await;
    let mut client = Client::login(program.address().unwrap(), 2).await.unwrap();
    for id in 10..15 {
        assert!(sender.put(&mut client, id).await);
    }
    sender.is_served(&program).await;
    program.signal(Signal::TERM);
    assert!(program.end().is_well());
}
