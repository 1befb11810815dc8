//! Rows that hold many: a bundle of neighbours in one mailbox, and the memory of many puts. A row for each envelope or put cost
//! several times as much: an entry in an index for each, and a statement's values for each.

use bytes::{Buf, BufMut, Bytes};
use wire::frame::{PutId, Stored};
use xxhash_rust::xxh3::xxh3_64;

/// Most envelopes in a bundle: as many as a reader is given at once.
pub(crate) const BUNDLE_ENVELOPES: usize = 64;

/// Most bytes in a bundle of more than one envelope: it is read as a whole.
pub(crate) const BUNDLE_BYTES: usize = 64 * 1024;

/// A row of puts of so many bytes takes no more.
const ROW_BYTES: usize = 128 * 1024;

/// An envelope's place, times and length, as they stand before the bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) capability: i64,
    pub(crate) received: u64,
    pub(crate) expires: u64,
    pub(crate) bytes: u32,
}

impl Head {
    const BYTES: usize = 8 + 8 + 8 + 8 + 4;

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.sequence);
        out.put_i64(self.capability);
        out.put_u64(self.received);
        out.put_u64(self.expires);
        out.put_u32(self.bytes);
    }
}

/// Neighbours in one mailbox, and how long they live about: what lives long doesn't keep what doesn't.
#[derive(Debug)]
pub(crate) struct BundleRow {
    pub(crate) number: i64,
    pub(crate) mailbox: i64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    heads: Vec<u8>,
    pub(crate) bodies: Vec<Bytes>,
    bytes: usize,
    lives: u32,
}

impl BundleRow {
    pub(crate) fn new(number: i64, mailbox: i64, head: &Head, body: Bytes) -> Self {
        let mut row = Self {
            number,
            mailbox,
            first: head.sequence,
            last: head.sequence,
            heads: Vec::new(),
            bodies: Vec::new(),
            bytes: 0,
            lives: lives(head.received, head.expires),
        };
        row.add(head, body);
        row
    }

    /// Whether this envelope of the same mailbox belongs into it, too.
    pub(crate) fn admits(&self, head: &Head) -> bool {
        self.bodies.len() < BUNDLE_ENVELOPES
            && self.bytes + usize::try_from(head.bytes).unwrap_or(usize::MAX) <= BUNDLE_BYTES
            && self.lives == lives(head.received, head.expires)
    }

    pub(crate) fn add(&mut self, head: &Head, body: Bytes) {
        head.write(&mut self.heads);
        self.last = head.sequence;
        self.bytes += body.len();
        self.bodies.push(body);
    }

    /// The heads as they are written.
    pub(crate) fn heads(&self) -> Vec<u8> {
        checked(self.heads.clone())
    }

    /// The bodies as they are written, one after the other.
    pub(crate) fn joined(&self) -> Vec<u8> {
        let mut joined = Vec::with_capacity(self.bytes + CHECKSUM_BYTES);
        for body in &self.bodies {
            joined.extend_from_slice(body);
        }
        checked(joined)
    }
}

/// A life's length in powers of two.
fn lives(received: u64, expires: u64) -> u32 {
    expires.saturating_sub(received).checked_ilog2().unwrap_or(0)
}

/// The row isn't what we wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row isn't as it was written")]
pub(crate) struct BadRow;

/// Behind what a column holds: SQLite notices a page that can't be, not one bit that is another.
const CHECKSUM_BYTES: usize = 8;

fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = xxh3_64(&bytes);
    bytes.put_u64(checksum);
    bytes
}

/// What was `checked`, without its checksum.
fn unchecked(bytes: &[u8]) -> Result<&[u8], BadRow> {
    let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(BadRow)?;
    if u64::from_be_bytes(*checksum) == xxh3_64(bytes) {
        Ok(bytes)
    } else {
        Err(BadRow)
    }
}

/// The heads of a bundle.
pub(crate) fn heads(bytes: &[u8]) -> Result<Vec<Head>, BadRow> {
    let mut bytes = unchecked(bytes)?;
    if !bytes.len().is_multiple_of(Head::BYTES) {
        return Err(BadRow);
    }
    let mut heads = Vec::with_capacity(bytes.len() / Head::BYTES);
    while bytes.has_remaining() {
        heads.push(Head {
            sequence: bytes.get_u64(),
            capability: bytes.get_i64(),
            received: bytes.get_u64(),
            expires: bytes.get_u64(),
            bytes: bytes.get_u32(),
        });
    }
    Ok(heads)
}

/// The heads of a bundle whose bodies are as they were written.
pub(crate) fn heads_of(head_bytes: &[u8], bodies: &[u8]) -> Result<Vec<Head>, BadRow> {
    let heads = heads(head_bytes)?;
    let bytes: u64 = heads.iter().map(|head| u64::from(head.bytes)).sum();
    if u64::try_from(unchecked(bodies)?.len()) == Ok(bytes) {
        Ok(heads)
    } else {
        Err(BadRow)
    }
}

/// A bundle taken apart: each envelope's head and body.
pub(crate) fn apart(head_bytes: &[u8], mut bodies: Bytes) -> Result<Vec<(Head, Bytes)>, BadRow> {
    bodies.truncate(unchecked(&bodies)?.len());
    let mut envelopes = Vec::new();
    for head in heads(head_bytes)? {
        let bytes = usize::try_from(head.bytes).unwrap_or(usize::MAX);
        if bodies.len() < bytes {
            return Err(BadRow);
        }
        envelopes.push((head, bodies.split_to(bytes)));
    }
    if bodies.is_empty() { Ok(envelopes) } else { Err(BadRow) }
}

/// What is remembered of one put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutRecord {
    pub(crate) mailbox: i64,
    pub(crate) id: PutId,
    pub(crate) content: u64,
    pub(crate) expires: u64,
    pub(crate) how: Stored,
}

/// The memory of puts that were answered alike and expire about the same time, for one row.
#[derive(Debug)]
pub(crate) struct PutsRow {
    /// When the last of them does.
    pub(crate) expires: u64,
    pub(crate) how: Stored,
    /// Runs of one mailbox: its number (8 bytes), how many (4), and for each id (16) and content (8).
    records: Vec<u8>,
    /// The mailbox of the last run, and where its count is.
    run: Option<(i64, usize)>,
}

impl PutsRow {
    /// The puts as they are written.
    pub(crate) fn records(&self) -> Vec<u8> {
        checked(self.records.clone())
    }

    fn add(&mut self, put: &PutRecord) {
        self.expires = self.expires.max(put.expires);
        let run = self.run.filter(|(mailbox, _)| *mailbox == put.mailbox);
        let (_, count) = *self.run.insert(run.unwrap_or_else(|| {
            self.records.put_i64(put.mailbox);
            let count = self.records.len();
            self.records.put_u32(0);
            (put.mailbox, count)
        }));
        if let Some(count) = self.records.get_mut(count..).and_then(<[u8]>::first_chunk_mut) {
            *count = (u32::from_be_bytes(*count) + 1).to_be_bytes();
        }
        self.records.put_slice(&put.id);
        self.records.put_u64(put.content);
    }
}

/// Rows of puts as they come: those that live about as long share one.
#[derive(Debug, Default)]
pub(crate) struct PutsRows {
    rows: Vec<(u32, PutsRow)>,
    count: usize,
}

impl PutsRows {
    /// Remembers a put, at this time.
    pub(crate) fn add(&mut self, put: &PutRecord, now: u64) {
        let lives = lives(now, put.expires);
        let fits =
            |(other, row): &(u32, PutsRow)| *other == lives && row.how == put.how && row.records.len() < ROW_BYTES;
        let at = self.rows.iter().rposition(fits).unwrap_or_else(|| {
            let row = PutsRow {
                expires: put.expires,
                how: put.how,
                records: Vec::new(),
                run: None,
            };
            self.rows.push((lives, row));
            self.rows.len() - 1
        });
        if let Some((_, row)) = self.rows.get_mut(at) {
            row.add(put);
            self.count += 1;
        }
    }

    /// All that others remember, too.
    pub(crate) fn extend(&mut self, others: Self) {
        self.rows.extend(others.rows);
        self.count += others.count;
    }

    /// How many puts there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &PutsRow> {
        self.rows.iter().map(|(_, row)| row)
    }
}

/// The puts of a row.
pub(crate) fn records(bytes: &[u8], expires: u64, how: Stored) -> Result<Vec<PutRecord>, BadRow> {
    const PUT: usize = 16 + 8;
    let mut bytes = unchecked(bytes)?;
    let mut records = Vec::with_capacity(bytes.len() / PUT);
    while bytes.has_remaining() {
        let mailbox = bytes.try_get_i64().map_err(|_| BadRow)?;
        let count = bytes.try_get_u32().map_err(|_| BadRow)?;
        for _ in 0..count {
            let mut id = PutId::default();
            bytes.try_copy_to_slice(&mut id).map_err(|_| BadRow)?;
            records.push(PutRecord {
                mailbox,
                id,
                content: bytes.try_get_u64().map_err(|_| BadRow)?,
                expires,
                how,
            });
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn head(sequence: u64, expires: u64, bytes: u32) -> Head {
        Head {
            sequence,
            capability: 3,
            received: 1000,
            expires,
            bytes,
        }
    }

    fn rows(puts: &[PutRecord]) -> Vec<PutsRow> {
        let mut rows = PutsRows::default();
        for put in puts {
            rows.add(put, 0);
        }
        rows.rows.into_iter().map(|(_, row)| row).collect()
    }

    fn body(bytes: u32) -> Bytes {
        vec![7; bytes as usize].into()
    }

    #[test]
    fn a_bundle_is_taken_apart_as_it_was_put_together() {
        let (first, second) = (head(5, 9000, 1024), head(6, 9000, 2048));
        let mut row = BundleRow::new(1, 2, &first, body(1024));
        assert!(row.admits(&second));
        row.add(&second, body(2048));
        let apart = apart(&row.heads(), row.joined().into()).unwrap();
        assert_eq!(apart, [(first, body(1024)), (second, body(2048))]);
        assert_eq!((row.first, row.last), (5, 6));
    }

    #[test]
    fn a_bundle_has_its_bounds_and_keeps_nothing_for_much_longer_than_its_ttl() {
        let mut row = BundleRow::new(1, 2, &head(1, 2000, 65_536), body(65_536));
        assert!(!row.admits(&head(2, 2000, 1024)));
        row = BundleRow::new(1, 2, &head(1, 2000, 1024), body(1024));
        assert!(!row.admits(&head(2, 20_000, 1024)));
        for sequence in 2..=64 {
            assert!(row.admits(&head(sequence, 2000, 1024)));
            row.add(&head(sequence, 2000, 1024), body(1024));
        }
        assert!(!row.admits(&head(65, 2000, 1024)));
    }

    #[test]
    fn a_row_with_one_bit_turned_is_refused() {
        let row = BundleRow::new(1, 2, &head(1, 2000, 1024), body(1024));
        let (row_heads, bodies) = (row.heads(), row.joined());
        for turned in [0, 40, 43] {
            let mut bytes = row_heads.clone();
            bytes[turned] ^= 1;
            assert_eq!(heads(&bytes), Err(BadRow));
        }
        let mut bytes = bodies.clone();
        bytes[500] ^= 1;
        assert_eq!(apart(&row_heads, bytes.into()), Err(BadRow));
        assert_eq!(apart(&row_heads, bodies[1..].to_vec().into()), Err(BadRow));
        // Another bundle's bodies.
        let other = BundleRow::new(1, 2, &head(1, 2000, 2048), body(2048));
        assert_eq!(apart(&row_heads, other.joined().into()), Err(BadRow));
        assert_eq!(heads(&checked(vec![0; 35])), Err(BadRow));
        assert_eq!(records(&checked(vec![1; 40]), 1, Stored::Flushed), Err(BadRow));
    }

    #[test]
    fn puts_that_live_as_long_share_a_row() {
        let put = |id: u8, expires| PutRecord {
            mailbox: 1,
            id: [id; 16],
            content: 8,
            expires,
            how: Stored::Acknowledged,
        };
        let puts = [put(1, 5000), put(2, 500_000), put(3, 5001)];
        let rows = rows(&puts);
        assert_eq!((rows.len(), rows[0].expires), (2, 5001));
        let read = records(&rows[0].records(), rows[0].expires, rows[0].how).unwrap();
        assert_eq!(read, [put(1, 5001), put(3, 5001)]);
        // One run of 24 bytes for each after the mailbox and the count.
        assert_eq!(rows[0].records.len(), 12 + 2 * 24);
        let other = PutRecord {
            mailbox: 2,
            ..put(4, 5000)
        };
        let mixed = self::rows(&[put(1, 5000), other, put(5, 5000)]);
        let read = records(&mixed[0].records(), 5000, Stored::Acknowledged).unwrap();
        assert_eq!(read, [put(1, 5000), other, put(5, 5000)]);
        let many = vec![put(1, 5000); ROW_BYTES / 24 + 1];
        assert_eq!(self::rows(&many).len(), 2);
    }
}
