//! What the job must compute: a plain loop over each input partition that applies each record once. It shares nothing with the engine.

use std::collections::BTreeMap;

use forebay_engine::ids::Partition;
use forebay_engine::journal::Books;

use crate::log::{InputBody, OutputBody};

/// What a record asks for, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Count it.
    Count,
    /// Count it, then fail.
    Fail,
    /// Count it, then remove its key.
    Remove,
    /// Leave it out.
    Filter,
    /// Leave it out for being too many.
    Throttle,
}

/// What a record's value asks for, and its id.
pub fn fate_of(value: &[u8]) -> (Fate, u64) {
    let fate = match value.first() {
        Some(b'f') => Fate::Fail,
        Some(b'r') => Fate::Remove,
        Some(b'-') => Fate::Filter,
        Some(b't') => Fate::Throttle,
        _ => Fate::Count,
    };
    let id = value.get(1..9).and_then(|id| id.try_into().ok()).map_or(0, u64::from_be_bytes);
    (fate, id)
}

/// What a record's value has besides.
pub fn padding_of(value: &[u8]) -> &[u8] {
    value.get(9..).unwrap_or_default()
}

/// One step of a hash that knows the order.
pub fn mix(digest: u64, id: u64) -> u64 {
    (digest ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) ^ id
}

/// The digest of one entry of state; the sum over all entries is a state's digest.
pub fn digest_of(key: &[u8], value: &[u8]) -> u64 {
    let bytes = key.iter().chain(b"=").chain(value);
    let digest = bytes.fold(0x51_7C_C1_B7_27_22_0A_95, |digest, byte| mix(digest, u64::from(*byte)));
    digest ^ (digest >> 29)
}

/// One shard's truth, as far as it was committed.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Key bytes of the state store to count, digest, the id before the last, and the last one.
    tallies: BTreeMap<Vec<u8>, (u32, u64, u64, u64)>,
    /// The sum of the digests of all entries.
    pub digest: u64,
    /// Counts.
    pub books: Books,
}

/// Where an expected output goes, and what it is; the value without the clock that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Whether it is a dead letter.
    pub dead: bool,
    /// Key, and value without the clock.
    pub body: OutputBody,
}

impl Model {
    /// Applies one record; appends what it puts out.
    pub fn apply(&mut self, partition: Partition, offset: u64, record: &InputBody, out: &mut Vec<Expected>) {
        self.books.records_in += 1;
        let bytes = record.value.as_deref().unwrap_or_default();
        let ((fate, id), padding) = (fate_of(bytes), padding_of(bytes));
        let value = |count: u32, digest: u64| [&offset.to_be_bytes()[..], &count.to_be_bytes(), &digest.to_be_bytes(), padding].concat();
        let body = |value| OutputBody { key: record.key.clone(), value };
        let dead = Expected { dead: true, body: body(Some(value(0, 0))) };
        let Some(key) = &record.key else {
            self.books.rejected += 1;
            return out.push(dead);
        };
        let key = [&[0, 1][..], &partition.get().to_be_bytes(), key].concat();
        let old = self.tallies.get(&key).copied();
        let (count, digest, _, last) = old.unwrap_or_default();
        let new = (count + 1, mix(digest, id), last, id);
        match fate {
            Fate::Filter => self.books.filtered += 1,
            Fate::Throttle => self.books.throttled += 1,
            _ if old.is_some() && last == id => self.books.duplicate += 1,
            Fate::Fail => {
                self.books.rejected += 1;
                out.push(dead);
            }
            Fate::Remove => {
                self.books.processed += 1;
                self.set(key, None);
                out.push(Expected { dead: false, body: body(Some(value(new.0, new.1))) });
                out.push(Expected { dead: false, body: body(None) });
            }
            Fate::Count => {
                self.books.processed += 1;
                self.set(key, Some(new));
                out.push(Expected { dead: false, body: body(Some(value(new.0, new.1))) });
            }
        }
    }

    fn set(&mut self, key: Vec<u8>, new: Option<(u32, u64, u64, u64)>) {
        let encoded = |(count, digest, before, last): (u32, u64, u64, u64)| {
            [&[1][..], &count.to_be_bytes(), &digest.to_be_bytes(), &before.to_be_bytes(), &last.to_be_bytes()].concat()
        };
        if let Some(old) = self.tallies.remove(&key) {
            self.digest = self.digest.wrapping_sub(digest_of(&key, &encoded(old)));
        }
        if let Some(new) = new {
            self.digest = self.digest.wrapping_add(digest_of(&key, &encoded(new)));
            self.tallies.insert(key, new);
        }
    }
}
