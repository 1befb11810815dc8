//! What OpenMLS keeps, as rows: a map in memory that is filled from rows, and tells which of them changed.
//!
//! Deliberately not here: where the rows are stored and how they are sealed. They hold the group's secrets (OpenMLS doesn't
//! erase its own copies of them in memory either, so this type doesn't pretend to).

use std::collections::HashMap;
use std::sync::PoisonError;

use openmls::prelude::GroupId;
use openmls_memory_storage::MemoryStorage;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;

type Rows = HashMap<Vec<u8>, Vec<u8>>;

/// Our own row: the id of the one group, which OpenMLS can't list.
const GROUP_ROW: &[u8] = b"countersign/group";

/// How the rows begin that `openmls_memory_storage` keeps for a key package.
const KEY_PACKAGE_ROW: &[u8] = b"KeyPackage";

/// OpenMLS's state as rows, with the cryptography that works on it. Has no text form.
pub struct Mls {
    provider: Provider,
    /// The rows as last handed out by [`Mls::take_changes`].
    flushed: Rows,
}

/// What OpenMLS's calls want to be given.
#[derive(Default)]
pub(super) struct Provider {
    crypto: RustCrypto,
    storage: MemoryStorage,
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = MemoryStorage;

    fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto
    }
}

impl Mls {
    /// Takes the rows as they were stored; none for a new device.
    pub fn new(rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let flushed: Rows = rows.into_iter().collect();
        Self {
            provider: Provider::with(flushed.clone()),
            flushed,
        }
    }

    /// The rows that changed since they were loaded or since the last call; `None` means deleted. To be written in one
    /// transaction; if that fails, this value and the group must be dropped and loaded again.
    pub fn take_changes(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let rows = self.provider.copy();
        let written = rows
            .iter()
            .filter(|(key, value)| self.flushed.get(*key) != Some(*value));
        let deleted = self.flushed.keys().filter(|key| !rows.contains_key(*key));
        let changes = written
            .map(|(key, value)| (key.clone(), Some(value.clone())))
            .chain(deleted.map(|key| (key.clone(), None)))
            .collect();
        self.flushed = rows;
        changes
    }

    pub(super) fn provider(&self) -> &Provider {
        &self.provider
    }

    /// A copy to try something on. Dropping it is the rollback that OpenMLS itself doesn't have.
    pub(super) fn scratch(&self) -> Provider {
        Provider::with(self.provider.copy())
    }

    /// A copy of the key packages alone, without any group.
    pub(super) fn scratch_without_group(&self) -> Provider {
        let mut rows = self.provider.copy();
        rows.retain(|key, _| key.starts_with(KEY_PACKAGE_ROW));
        Provider::with(rows)
    }

    /// Keeps what was tried.
    pub(super) fn keep(&mut self, scratch: Provider) {
        self.provider = scratch;
    }

    pub(super) fn group_id(&self) -> Option<GroupId> {
        self.provider.copy_of(GROUP_ROW).map(|id| GroupId::from_slice(&id))
    }
}

impl Provider {
    fn with(rows: Rows) -> Self {
        Self {
            crypto: RustCrypto::default(),
            storage: MemoryStorage { values: rows.into() },
        }
    }

    fn copy(&self) -> Rows {
        self.storage
            .values
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn copy_of(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.storage
            .values
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn rows(&mut self) -> &mut Rows {
        self.storage.values.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name_group(&mut self, id: &GroupId) {
        self.rows().insert(GROUP_ROW.to_vec(), id.to_vec());
    }

    /// Deletes every key package: after a join the ones that weren't used are only secrets to lose.
    pub(super) fn drop_key_packages(&mut self) {
        self.rows().retain(|key, _| !key.starts_with(KEY_PACKAGE_ROW));
    }
}
