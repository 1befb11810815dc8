//! TLS: the certificate and its key, and taking new ones while connections go on.
//!
//! Where they come from is deliberately not here: whoever renews them writes two files. Nor is which names they are for:
//! a login is bound to the relay's names, not to a certificate (`PROTOCOL.md`, section 3).

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The two files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and those that lead to its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or isn't PEM.
    #[error("certificate {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("certificate {}: there is none in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The key isn't the certificate's, or one of them is of no use.
    #[error("certificate {} with key {}: {source}", tls.certificate.display(), tls.key.display())]
    Unusable {
        /// The files.
        tls: Tls,
        /// Why.
        source: rustls::Error,
    },
}

/// The certificate in use. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Certificate {
    tls: Tls,
    state: Arc<Mutex<State>>,
}

struct State {
    config: Arc<ServerConfig>,
    /// What the files looked like when they were read last, for better or worse.
    looks: Looks,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub(crate) fn open(tls: Tls) -> Result<Self, TlsError> {
        let looks = Looks::of(&tls);
        let config = read(&tls)?;
        let state = State { config, looks };
        Ok(Self {
            tls,
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Reads the files again. New connections get what is in them; those there are keep what they have.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: then everything stays as it is, because an old certificate is better than none.
    pub fn reload(&self) -> Result<(), TlsError> {
        // Looked at first: what changes while it is read will look different the next time.
        let looks = Looks::of(&self.tls);
        let config = read(&self.tls);
        let mut state = self.state();
        state.looks = looks;
        state.config = config?;
        Ok(())
    }

    /// Reads the files again if they look different. Says whether they did.
    ///
    /// # Errors
    ///
    /// As [`Certificate::reload`]; once for each change.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if self.state().looks == Looks::of(&self.tls) {
            return Ok(false);
        }
        self.reload()?;
        Ok(true)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.state().config))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tells a file from another of the same name: written again, or another one moved into its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Looks {
    files: [Option<Look>; 2],
}

/// Device, inode, time in seconds and nanoseconds, length.
type Look = (u64, u64, i64, i64, u64);

impl Looks {
    fn of(tls: &Tls) -> Self {
        Self {
            files: [&tls.certificate, &tls.key].map(|path| look(path).ok()),
        }
    }
}

fn look(path: &Path) -> io::Result<Look> {
    let about = std::fs::metadata(path)?;
    Ok((
        about.dev(),
        about.ino(),
        about.mtime(),
        about.mtime_nsec(),
        about.size(),
    ))
}

fn read(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |source| TlsError::Read { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect)
        .map_err(unreadable(&tls.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty {
            path: tls.certificate.clone(),
        });
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(unreadable(&tls.key))?;
    let unusable = |source| TlsError::Unusable {
        tls: tls.clone(),
        source,
    };
    // 1.3 alone: both ends are ours, and it is what a proxy speaks too.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // When ten thousand come back at once, resuming spares most of the signatures. Its keys go with the certificate.
    config.ticketer = ring::Ticketer::new().map_err(unusable)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
