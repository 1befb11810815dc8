//! Which place at the desk a mailbox's key has.

use std::collections::HashMap;

/// Keys found lately that are at hand.
const AT_HAND: usize = 1024;

/// A map, and in front of it the keys that were looked for lately: whoever writes or reads does so again, and the map's keyed hash
/// and two places in memory cost more than a comparison.
pub(super) struct Keys {
    all: HashMap<[u8; 32], usize>,
    /// By the leading bytes of the key. Whoever makes theirs meet another's only makes both use the map.
    at_hand: Vec<Option<([u8; 32], usize)>>,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            all: HashMap::new(),
            at_hand: vec![None; AT_HAND],
        }
    }

    pub(super) fn find(&mut self, key: &[u8; 32]) -> Option<usize> {
        let slot = self.at_hand.get_mut(slot(key))?;
        if let Some((known, at)) = slot
            && known == key
        {
            return Some(*at);
        }
        let at = *self.all.get(key)?;
        *slot = Some((*key, at));
        Some(at)
    }

    pub(super) fn insert(&mut self, key: [u8; 32], at: usize) {
        self.drop_from_hand(&key);
        self.all.insert(key, at);
    }

    pub(super) fn remove(&mut self, key: &[u8; 32]) {
        self.drop_from_hand(key);
        self.all.remove(key);
    }

    fn drop_from_hand(&mut self, key: &[u8; 32]) {
        if let Some(slot) = self.at_hand.get_mut(slot(key)) {
            slot.take_if(|(known, _)| known == key);
        }
    }
}

fn slot(key: &[u8; 32]) -> usize {
    let leading = key.first_chunk().map_or(0, |leading| u16::from_le_bytes(*leading));
    usize::from(leading) % AT_HAND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_was_put_last_and_not_after_it_is_gone() {
        let mut keys = Keys::new();
        // All of them want the same slot.
        let key = |last: u8| {
            let mut key = [0; 32];
            key[31] = last;
            key
        };
        assert_eq!(keys.find(&key(0)), None);
        for last in 0..100 {
            keys.insert(key(last), usize::from(last));
            assert_eq!(keys.find(&key(last)), Some(usize::from(last)));
        }
        assert_eq!((keys.find(&key(7)), keys.find(&key(7))), (Some(7), Some(7)));
        keys.insert(key(7), 700);
        assert_eq!((keys.find(&key(7)), keys.find(&key(8))), (Some(700), Some(8)));
        keys.remove(&key(8));
        keys.remove(&key(7));
        assert_eq!((keys.find(&key(7)), keys.find(&key(8))), (None, None));
        assert_eq!(keys.find(&key(9)), Some(9));
    }
}
