//! TLS: coming in by it, a new certificate while connections go on, and what a stranger can't do before there is any.

use std::sync::Arc;

use countersign_relay::{Tls, TlsError};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::{Connector, client_async_tls_with_config};

use super::*;

const NAME: &str = "relay.example.org";

/// A certificate of its own making, and the files that it is in.
pub(super) struct Files {
    folder: TempDir,
    pub(super) pair: CertifiedKey<KeyPair>,
}

impl Files {
    pub(super) fn new() -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
            pair: pair(),
        };
        files.write(&files.pair.cert.pem(), &files.pair.signing_key.serialize_pem());
        files
    }

    pub(super) fn tls(&self) -> Tls {
        Tls {
            certificate: self.folder.path().join("cert.pem"),
            key: self.folder.path().join("key.pem"),
        }
    }

    /// As a renewal does it: each file is moved into its place.
    pub(super) fn write(&self, certificate: &str, key: &str) {
        let tls = self.tls();
        for (path, text) in [(tls.certificate, certificate), (tls.key, key)] {
            let new = path.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, path).unwrap();
        }
    }
}

pub(super) fn pair() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed([NAME.to_owned()]).unwrap()
}

/// A client that believes this certificate alone.
async fn dial(address: SocketAddr, trusted: &CertificateDer<'static>) -> Result<Client, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = Some(Connector::Rustls(Arc::new(config)));
    let dialled = client_async_tls_with_config(format!("wss://{NAME}"), stream, None, connector);
    soon(dialled).await.map(|(socket, _)| Client { socket })
}

pub(super) async fn login(address: SocketAddr, trusted: &CertificateDer<'static>, key: &MailboxKey) -> Client {
    let mut client = dial(address, trusted).await.unwrap();
    client.answer_challenge(key, &RelayName::new(NAME).unwrap()).await;
    assert!(matches!(client.next().await, RelayFrame::Welcome { .. }));
    client
}

async fn assert_distrusted(address: SocketAddr, trusted: &CertificateDer<'static>) {
    let error = dial(address, trusted).await.err().unwrap();
    assert!(error.to_string().contains("certificate"), "{error}");
}

async fn world(files: &Files) -> World {
    World::set(|config| {
        config.tls = Some(files.tls());
        config.names = vec![RelayName::new(NAME).unwrap()];
    })
    .await
}

#[tokio::test]
async fn envelopes_go_through_tls_under_the_relays_name() {
    let files = Files::new();
    let world = world(&files).await;
    let (trusted, mailbox) = (files.pair.cert.der(), Mailbox::new(1));
    let mut owner = login(world.address, trusted, &mailbox.key).await;
    owner.allow(&mailbox.capability, 10, 1 << 20).await;
    owner.read().await;
    let mut sender = login(world.address, trusted, &key(99)).await;
    let put = Put {
        envelope: vec![7; 65_536].into(),
        ..mailbox.put(7)
    };
    sender.send(ClientFrame::Put(put)).await;
    assert_eq!(owner.delivery().await, (1, 7));
    assert!(matches!(sender.next().await, RelayFrame::Stored { .. }));
}

#[tokio::test]
async fn a_new_certificate_is_taken_while_connections_go_on() {
    let files = Files::new();
    let world = world(&files).await;
    let certificate = world.certificate.clone().unwrap();
    let old = files.pair.cert.der();
    let mut before = login(world.address, old, &key(1)).await;
    assert!(!certificate.reload_if_changed().unwrap());
    let new = pair();
    files.write(&new.cert.pem(), &new.signing_key.serialize_pem());
    assert!(certificate.reload_if_changed().unwrap());
    assert!(!certificate.reload_if_changed().unwrap());
    login(world.address, new.cert.der(), &key(2)).await;
    assert_distrusted(world.address, old).await;
    assert_eq!(before.read().await, (1, 0));
}

#[tokio::test]
async fn a_broken_new_pair_keeps_the_old_and_is_reported_once() {
    let files = Files::new();
    let world = world(&files).await;
    let certificate = world.certificate.clone().unwrap();
    let (old, new) = (&files.pair, pair());
    let old_key = old.signing_key.serialize_pem();
    for (text, key, is_as_expected) in [
        (
            new.cert.pem(),
            old_key.clone(),
            (|error| matches!(error, TlsError::Unusable { .. })) as fn(&TlsError) -> bool,
        ),
        (String::new(), old_key.clone(), |error| {
            matches!(error, TlsError::Empty { .. })
        }),
        (old.cert.pem(), "not a key\n".to_owned(), |error| {
            matches!(error, TlsError::Read { .. })
        }),
    ] {
        files.write(&text, &key);
        let error = certificate.reload_if_changed().unwrap_err();
        assert!(is_as_expected(&error), "{error}");
        assert!(!certificate.reload_if_changed().unwrap());
        login(world.address, old.cert.der(), &super::key(1)).await;
    }
    std::fs::remove_file(files.tls().key).unwrap();
    certificate.reload_if_changed().unwrap_err();
    // And the next good one is taken.
    files.write(&new.cert.pem(), &new.signing_key.serialize_pem());
    assert!(certificate.reload_if_changed().unwrap());
    login(world.address, new.cert.der(), &key(1)).await;
}

#[tokio::test]
async fn a_relay_doesnt_start_with_a_key_that_isnt_the_certificates() {
    let (files, other) = (Files::new(), pair());
    files.write(&files.pair.cert.pem(), &other.signing_key.serialize_pem());
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(AtomicU64::new(0));
    let mut config = config(&folder.path().join("relay.db"), &clock, |_| ());
    config.tls = Some(files.tls());
    let error = Relay::bind(config).await.err().unwrap();
    assert!(matches!(error, RelayError::Tls(TlsError::Unusable { .. })), "{error}");
}

#[tokio::test]
async fn a_stranger_gets_nowhere_without_tls_and_cant_send_a_hello_without_end() {
    let files = Files::new();
    let world = World::set(|config| {
        config.tls = Some(files.tls());
        config.handshake_deadline = Duration::from_secs(3600);
    })
    .await;
    let answer = soon(connect_async(world.url())).await;
    assert!(answer.is_err());
    // The beginning of a hello of 16 MiB, in records of 16 KiB.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let mut record = vec![22, 3, 1, 64, 0, 1, 255, 255, 255];
    record.resize(5 + 16 * 1024, 0);
    let mut answer = Vec::new();
    soon(async {
        while stream.write_all(&record).await.is_ok() {
            record[5] = 0;
        }
        stream.read_to_end(&mut answer).await.ok();
    })
    .await;
    // No more than an alert.
    assert!(answer.len() < 16, "{answer:?}");
    // The bound ends with the handshake.
    let health = dial(world.address, files.pair.cert.der()).await;
    assert!(health.is_ok());
}
