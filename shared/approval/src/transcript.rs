//! The transcript as a Merkle tree: an append-only log that keeps only its frontier, a full tree that can prove, and the
//! checks of such proofs.
//!
//! PROTOCOL.md 10.1; the hashing is RFC 6962's. Which entries a transcript may hold is in [`crate::replay`]; signed roots
//! are in [`crate::checkpoint`].

use thiserror::Error;
use tlog_tiles::tlog::{self, EMPTY_HASH, Hash, HashReader};

/// A leaf's hash, an inner node's or a root: SHA-256.
pub type TreeHash = [u8; 32];

/// Hashes in a proof at most: a tree of 2^64 entries has no more levels.
pub const MAX_PROOF: usize = 64;

/// Why a proof was not made or not believed.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ProofError {
    /// The entry or the older size isn't within the tree.
    #[error("position {position} is not in a tree of {size} entries")]
    OutOfTree {
        /// The index, or the size of the older tree.
        position: u64,
        /// The size of the tree.
        size: u64,
    },
    /// The hashes don't lead to the root.
    #[error("the proof does not lead to the root")]
    Wrong,
}

/// The hash of an entry with this exact text.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> TreeHash {
    tlog::record_hash(leaf).0
}

/// An append-only log that knows its size and root, in memory logarithmic in its size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    size: u64,
    /// Roots of the complete subtrees that the entries fall into, the largest (oldest) first: one for each bit of `size`.
    frontier: Vec<TreeHash>,
}

impl Log {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A log as it was kept, from [`Log::size`] and [`Log::frontier`]. `None` if the two can't belong together.
    #[must_use]
    pub fn restore(size: u64, frontier: Vec<TreeHash>) -> Option<Self> {
        (u64::from(size.count_ones()) == frontier.len() as u64).then_some(Self { size, frontier })
    }

    /// Adds an entry with this exact text and returns its index.
    pub fn append(&mut self, leaf: &[u8]) -> u64 {
        self.append_hash(leaf_hash(leaf))
    }

    /// Adds an entry whose [`leaf_hash`] is known and returns its index.
    pub fn append_hash(&mut self, leaf: TreeHash) -> u64 {
        let index = self.size;
        let mut node = leaf;
        // Each one bit at the end of the index is a complete subtree that the new entry makes twice as large.
        for _ in 0..index.trailing_ones() {
            if let Some(left) = self.frontier.pop() {
                node = join(left, node);
            }
        }
        self.frontier.push(node);
        self.size = index.saturating_add(1);
        index
    }

    /// Number of entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root over all entries. For an empty log the hash of nothing.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        let mut subtrees = self.frontier.iter().rev().copied();
        match subtrees.next() {
            None => EMPTY_HASH.0,
            Some(smallest) => subtrees.fold(smallest, |right, left| join(left, right)),
        }
    }

    /// What must be kept, together with the size, to go on later.
    #[must_use]
    pub fn frontier(&self) -> &[TreeHash] {
        &self.frontier
    }
}

fn join(left: TreeHash, right: TreeHash) -> TreeHash {
    tlog::node_hash(Hash(left), Hash(right)).0
}

/// A tree with all its hashes (64 bytes for each entry), able to prove.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    size: u64,
    /// In the order of [`tlog::stored_hash_index`].
    hashes: Vec<Hash>,
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry whose [`leaf_hash`] is given.
    pub fn append_hash(&mut self, leaf: TreeHash) {
        let mut node = Hash(leaf);
        self.hashes.push(node);
        for level in 0..self.size.trailing_ones() {
            // The left sibling at this level was complete when its last entry was written.
            let sibling = tlog::stored_hash_index(u8::try_from(level).unwrap_or(u8::MAX), (self.size >> level) - 1);
            if let Some(left) = usize::try_from(sibling).ok().and_then(|at| self.hashes.get(at)) {
                node = tlog::node_hash(*left, node);
                self.hashes.push(node);
            }
        }
        self.size += 1;
    }

    /// Number of entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Proof that the entry at `index` is in the tree of the first `size` entries.
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] unless `index < size` and the tree has that many entries.
    pub fn prove_inclusion(&self, size: u64, index: u64) -> Result<Vec<TreeHash>, ProofError> {
        prove_inclusion(&self.within(size)?, size, index)
    }

    /// Proof that the tree of the first `size` entries begins with those of the first `older`.
    ///
    /// # Errors
    /// [`ProofError::OutOfTree`] unless `older <= size` and the tree has that many entries.
    pub fn prove_consistency(&self, size: u64, older: u64) -> Result<Vec<TreeHash>, ProofError> {
        prove_consistency(&self.within(size)?, size, older)
    }

    fn within(&self, size: u64) -> Result<&Self, ProofError> {
        if size > self.size {
            return Err(ProofError::OutOfTree {
                position: size,
                size: self.size,
            });
        }
        Ok(self)
    }
}

impl FromIterator<TreeHash> for Tree {
    fn from_iter<I: IntoIterator<Item = TreeHash>>(leaves: I) -> Self {
        let mut tree = Self::new();
        for leaf in leaves {
            tree.append_hash(leaf);
        }
        tree
    }
}

impl HashReader for Tree {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        indexes
            .iter()
            .map(|index| {
                let at = usize::try_from(*index).map_err(|_| tlog::Error::IndexesNotInTree)?;
                self.hashes.get(at).copied().ok_or(tlog::Error::IndexesNotInTree)
            })
            .collect()
    }
}

impl HashReader for &Tree {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        (**self).read_hashes(indexes)
    }
}

/// Proof that the entry at `index` is in the tree of the first `size` entries, from hashes kept anywhere.
///
/// # Errors
/// [`ProofError::OutOfTree`] unless `index < size`; [`ProofError::Wrong`] where the hashes can't be read.
pub fn prove_inclusion(hashes: &impl HashReader, size: u64, index: u64) -> Result<Vec<TreeHash>, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree { position: index, size });
    }
    let proof = tlog::prove_record(size, index, hashes).map_err(|_| ProofError::Wrong)?;
    Ok(proof.into_iter().map(|hash| hash.0).collect())
}

/// Proof that the tree of the first `size` entries begins with those of the first `older`, from hashes kept anywhere.
/// Nothing needs to be shown for an empty beginning.
///
/// # Errors
/// [`ProofError::OutOfTree`] unless `older <= size`; [`ProofError::Wrong`] where the hashes can't be read.
pub fn prove_consistency(hashes: &impl HashReader, size: u64, older: u64) -> Result<Vec<TreeHash>, ProofError> {
    if older > size {
        return Err(ProofError::OutOfTree { position: older, size });
    }
    if older == 0 {
        return Ok(Vec::new());
    }
    let proof = tlog::prove_tree(size, older, hashes).map_err(|_| ProofError::Wrong)?;
    Ok(proof.into_iter().map(|hash| hash.0).collect())
}

/// Checks that the entry with hash `leaf` stands at `index` in the tree with this `size` and `root`.
///
/// # Errors
/// [`ProofError`] if it isn't shown.
pub fn verify_inclusion(
    proof: &[TreeHash],
    size: u64,
    root: &TreeHash,
    index: u64,
    leaf: &TreeHash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree { position: index, size });
    }
    let proof = bounded(proof)?;
    tlog::check_record(&proof, size, Hash(*root), index, Hash(*leaf)).map_err(|_| ProofError::Wrong)
}

/// Checks that the tree with `size` and `root` begins with the tree of `older` entries and `older_root`.
///
/// # Errors
/// [`ProofError`] if it isn't shown.
pub fn verify_consistency(
    proof: &[TreeHash],
    size: u64,
    root: &TreeHash,
    older: u64,
    older_root: &TreeHash,
) -> Result<(), ProofError> {
    if older > size {
        return Err(ProofError::OutOfTree { position: older, size });
    }
    if older == 0 {
        return if proof.is_empty() && *older_root == EMPTY_HASH.0 {
            Ok(())
        } else {
            Err(ProofError::Wrong)
        };
    }
    let proof = bounded(proof)?;
    tlog::check_tree(&proof, size, Hash(*root), older, Hash(*older_root)).map_err(|_| ProofError::Wrong)
}

/// The checks cost the square of a proof's length: one that no tree can have isn't looked at.
fn bounded(proof: &[TreeHash]) -> Result<Vec<Hash>, ProofError> {
    if proof.len() > MAX_PROOF {
        return Err(ProofError::Wrong);
    }
    Ok(proof.iter().map(|hash| Hash(*hash)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;
    use sha2_of_oracle::Sha256;

    fn leaf(number: u64) -> Vec<u8> {
        format!("entry {number}").into_bytes()
    }

    fn build(size: u64) -> (Log, Tree, MemoryBackedTree<Sha256, Vec<u8>>) {
        let mut log = Log::new();
        let mut tree = Tree::new();
        let mut oracle = MemoryBackedTree::new();
        for number in 0..size {
            assert_eq!(log.append(&leaf(number)), number);
            tree.append_hash(leaf_hash(&leaf(number)));
            oracle.push(leaf(number));
        }
        (log, tree, oracle)
    }

    fn flat(proof: &[TreeHash]) -> Vec<u8> {
        proof.concat()
    }

    #[test]
    fn roots_and_proofs_are_those_of_another_implementation() {
        for size in 0..=40 {
            let (log, tree, oracle) = build(size);
            assert_eq!(log.root()[..], oracle.root().as_bytes()[..], "size {size}");
            assert_eq!(log.frontier().len(), size.count_ones() as usize);
            for index in 0..size {
                let proof = tree.prove_inclusion(size, index).unwrap();
                assert_eq!(flat(&proof), oracle.prove_inclusion(index as usize).as_bytes());
                verify_inclusion(&proof, size, &log.root(), index, &leaf_hash(&leaf(index))).unwrap();
            }
            for older in 0..=size {
                let older_root = build(older).0.root();
                let proof = tree.prove_consistency(size, older).unwrap();
                if older > 0 {
                    assert_eq!(
                        flat(&proof),
                        oracle.prove_consistency((size - older) as usize).as_bytes()
                    );
                }
                verify_consistency(&proof, size, &log.root(), older, &older_root).unwrap();
            }
        }
    }

    #[test]
    fn the_empty_log_has_the_hash_of_nothing() {
        assert_eq!(Log::new().root(), EMPTY_HASH.0);
    }

    #[test]
    fn what_is_outside_the_tree_is_refused() {
        let (log, tree, _) = build(5);
        let outside = |position| ProofError::OutOfTree { position, size: 5 };
        assert_eq!(tree.prove_inclusion(5, 5), Err(outside(5)));
        assert_eq!(tree.prove_inclusion(6, 1), Err(outside(6)));
        assert_eq!(tree.prove_consistency(5, 6), Err(outside(6)));
        assert_eq!(verify_inclusion(&[], 5, &log.root(), 5, &[0; 32]), Err(outside(5)));
        assert_eq!(verify_consistency(&[], 5, &log.root(), 6, &[0; 32]), Err(outside(6)));
        assert_eq!(
            verify_consistency(&[], 5, &log.root(), 0, &[0; 32]),
            Err(ProofError::Wrong)
        );
        assert_eq!(
            verify_inclusion(&[[0; 32]; 65], u64::MAX, &[0; 32], 0, &[0; 32]),
            Err(ProofError::Wrong)
        );
        assert_eq!(
            verify_inclusion(&[[0; 32]; 64], u64::MAX, &[0; 32], u64::MAX - 1, &[0; 32]),
            Err(ProofError::Wrong)
        );
        assert_eq!(
            verify_consistency(&[[0; 32]; 64], u64::MAX, &[0; 32], 1, &[0; 32]),
            Err(ProofError::Wrong)
        );
    }

    #[test]
    fn a_frontier_of_another_size_is_refused() {
        let (log, _, _) = build(6);
        assert!(Log::restore(7, log.frontier().to_vec()).is_none());
        assert_eq!(Log::restore(6, log.frontier().to_vec()), Some(log));
    }

    proptest! {
        #[test]
        fn a_restored_log_goes_on_as_if_never_stopped(size in 0_u64..300, more in 0_u64..50) {
            let mut log = build(size).0;
            let mut restored = Log::restore(log.size(), log.frontier().to_vec()).unwrap();
            for number in size..size + more {
                log.append(&leaf(number));
                restored.append(&leaf(number));
            }
            prop_assert_eq!(restored.root(), log.root());
        }

        #[test]
        fn a_proof_with_any_change_fails(size in 1_u64..200, seed in any::<u64>(), bit in 0_usize..256, at in any::<usize>()) {
            let (log, tree, _) = build(size);
            let index = seed % size;
            let good = tree.prove_inclusion(size, index).unwrap();
            let hash = leaf_hash(&leaf(index));
            if !good.is_empty() {
                let mut bad = good.clone();
                let at = at % bad.len();
                bad[at][bit / 8] ^= 1 << (bit % 8);
                prop_assert!(verify_inclusion(&bad, size, &log.root(), index, &hash).is_err());
                prop_assert!(verify_inclusion(&good[1..], size, &log.root(), index, &hash).is_err());
            }
            let mut longer = good.clone();
            longer.push([7; 32]);
            prop_assert!(verify_inclusion(&longer, size, &log.root(), index, &hash).is_err());
            let mut other = hash;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_inclusion(&good, size, &log.root(), index, &other).is_err());
            if index + 1 < size {
                prop_assert!(verify_inclusion(&good, size, &log.root(), index + 1, &hash).is_err());
            }
        }

        #[test]
        fn a_rewritten_history_is_not_consistent(size in 2_u64..150, seed in any::<u64>()) {
            let (log, tree, _) = build(size);
            let older = 1 + seed % (size - 1);
            let mut forked = build(older - 1).0;
            forked.append(b"something else");
            let proof = tree.prove_consistency(size, older).unwrap();
            prop_assert!(verify_consistency(&proof, size, &log.root(), older, &forked.root()).is_err());
            prop_assert!(verify_consistency(&proof, size, &log.root(), older, &build(older).0.root()).is_ok());
        }
    }
}
