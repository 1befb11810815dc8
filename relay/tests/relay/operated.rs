//! What an operator sees and does: metrics, health while it drains, signals, and a process out of descriptors.

use std::os::unix::net::UnixDatagram;
use std::process::ChildStderr;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::*;

async fn watched() -> World {
    World::set(|config| config.metrics = Some("127.0.0.1:0".parse().unwrap())).await
}

impl World {
    pub(super) async fn metrics(&self) -> String {
        let answer = http(self.metrics.unwrap(), "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        answer
    }

    /// One number of the metrics.
    pub(super) async fn metric(&self, name: &str) -> u64 {
        let answer = self.metrics().await;
        let line = answer.lines().find_map(|line| {
            line.strip_prefix("countersign_relay_")?
                .strip_prefix(name)?
                .strip_prefix(' ')
        });
        line.unwrap_or_else(|| panic!("no {name} in {answer}")).parse().unwrap()
    }
}

#[tokio::test]
async fn metrics_count_what_happens_and_name_nobody() {
    let world = watched().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    sender.put_stored(mailbox.put(1)).await;
    sender.put_stored(mailbox.put(2)).await;
    sender.put_stored(mailbox.put(2)).await;
    assert_eq!(world.metric("waiting_envelopes").await, 2);
    assert_eq!(world.metric("waiting_bytes").await, 2048);
    owner.read().await;
    owner.delivery().await;
    owner.delivery().await;
    owner.ack(1).await;
    owner.settle().await;
    sender.put_refused(Mailbox::new(77).put(3)).await;
    let mut stranger = Client::dial(world.address).await;
    let wrong = RelayName::new("relay.example.org").unwrap();
    stranger.answer_challenge(&key(5), &wrong).await;
    stranger.closed().await;
    let _stranger = Client::dial(world.address).await;
    for (name, value) in [
        ("accepted_total", 2),
        ("stored_total{how=\"flushed\"}", 2),
        ("delivered_total", 2),
        ("acknowledged_total", 1),
        ("expired_total", 0),
        ("refused_total{reason=\"not_allowed\"}", 1),
        ("refused_total{reason=\"busy\"}", 0),
        ("logins_failed_total", 1),
        ("waiting_envelopes", 1),
        ("waiting_bytes", 1024),
        ("queued_orders", 0),
        ("unflushed_envelopes", 0),
        ("mailboxes", 1),
        ("readers", 1),
        ("known_puts", 2),
        ("sockets{login=\"after\"}", 2),
    ] {
        assert_eq!(world.metric(name).await, value, "{name}");
    }
    assert!(world.metric("flush_seconds_count").await >= 2);
    assert!(world.metric("sockets{login=\"before\"}").await >= 1);
    assert!(world.metric("memory_counted_bytes").await >= 3 * 16 * 1024);
    let text = world.metrics().await;
    assert!(text.contains("\ncountersign_relay_group_puts_bucket{le="), "{text}");
    for id in [mailbox.key.id().as_bytes(), key(99).id().as_bytes()] {
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!text.to_lowercase().contains(&hex[..8]));
    }
    world.wait(3600);
    owner.read().await;
    assert_eq!(world.metric("expired_total").await, 1);
}

#[tokio::test]
async fn health_is_on_both_addresses_and_metrics_are_not() {
    let world = watched().await;
    for address in [world.address, world.metrics.unwrap()] {
        for path in ["/healthz", "/readyz"] {
            let answer = http(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    }
    let answer = http(world.address, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    let answer = http(world.metrics.unwrap(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn a_draining_relay_isnt_ready_and_takes_nobody_new() {
    let mut world = watched().await;
    let mut owner = world.client(&key(1)).await;
    let mut monitor = TcpStream::connect(world.metrics.unwrap()).await.unwrap();
    monitor.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    world.stop.take().unwrap().send(()).unwrap();
    assert!(matches!(owner.next().await, RelayFrame::Goodbye { .. }));
    monitor.write_all(b"\r\n").await.unwrap();
    let mut answer = String::new();
    soon(monitor.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nshutting down\n"), "{answer}");
    assert!(TcpStream::connect(world.address).await.is_err());
    soon(world.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_put_before_the_end_is_flushed_and_its_sender_told() {
    let mut world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    owner.read().await;
    for id in 0..50 {
        sender.send(ClientFrame::Put(mailbox.put(id))).await;
    }
    for _ in 0..50 {
        owner.delivery().await;
    }
    world.stop.take().unwrap().send(()).unwrap();
    for _ in 0..50 {
        assert!(matches!(sender.next().await, RelayFrame::Stored { .. }));
    }
    assert!(matches!(sender.next().await, RelayFrame::Goodbye { .. }));
    assert_eq!(sender.closed().await, Close::ShuttingDown.code());
}

/// The program with more settings, and its log.
struct Service {
    child: Child,
    address: SocketAddr,
    log: BufReader<ChildStderr>,
    _folder: TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Service {
    fn start(change: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-relay"));
        command
            .args(["--listen", "127.0.0.1:0", "--store"])
            .arg(folder.path().join("relay.db"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once('/').unwrap().1.parse().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            address,
            log,
            _folder: folder,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for a line of the log.
    fn says(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "it never said {words}");
        }
    }

    /// How many descriptors it may have.
    fn limit_files(&self, most: Option<u64>) {
        let old = rustix::process::getrlimit(Resource::Nofile);
        let current = most.or(old.current);
        let limit = Rlimit {
            current,
            maximum: old.maximum,
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }
}

/// Abuse case I16.
#[tokio::test]
async fn a_relay_out_of_descriptors_serves_whom_it_has_and_goes_on_when_it_can() {
    let mut service = Service::start(|_| ());
    let mailbox = Mailbox::new(1);
    let mut owner = Client::login(service.address, &mailbox.key).await;
    owner.allow(&mailbox.capability, 10, 1 << 20).await;
    service.limit_files(Some(3));
    let mut waiting = TcpStream::connect(service.address).await.unwrap();
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    service.says("can't accept connections for now");
    // Not just once and then stuck.
    service.says("can't accept connections for now");
    owner.read().await;
    owner.send(ClientFrame::Put(mailbox.put(3))).await;
    let frames = [owner.next().await, owner.next().await];
    assert!(frames.iter().any(|frame| matches!(frame, RelayFrame::Deliver { .. })));
    assert!(frames.iter().any(|frame| matches!(frame, RelayFrame::Stored { .. })));
    service.limit_files(None);
    let mut answer = String::new();
    soon(waiting.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    Client::login(service.address, &key(2)).await;
}

#[tokio::test]
async fn systemd_is_told_when_it_is_ready_that_it_lives_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |words: &str| {
        let mut bytes = [0; 64];
        let length = systemd.recv(&mut bytes).unwrap();
        assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap(), format!("{words}\n"));
    };
    let mut service = Service::start(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3600000000");
    });
    hears("READY=1");
    hears("WATCHDOG=1");
    service.signal(Signal::TERM);
    hears("STOPPING=1");
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn sighup_reads_the_certificate_again() {
    let files = tls::Files::new();
    let mut service = Service::start(|command| {
        let tls = files.tls();
        command
            .args(["--name", "relay.example.org", "--tls-cert"])
            .arg(tls.certificate)
            .arg("--tls-key")
            .arg(tls.key);
    });
    tls::login(service.address, files.pair.cert.der(), &key(1)).await;
    let new = tls::pair();
    files.write(&new.cert.pem(), &files.pair.signing_key.serialize_pem());
    service.signal(Signal::HUP);
    service.says("the certificate can't be used; the old one stays");
    files.write(&new.cert.pem(), &new.signing_key.serialize_pem());
    service.signal(Signal::HUP);
    service.says("certificate read again");
    tls::login(service.address, new.cert.der(), &key(1)).await;
    service.signal(Signal::TERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}
