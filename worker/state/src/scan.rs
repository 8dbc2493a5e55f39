//! Walks over state in the order of its keys: table, partition, entity key.

use std::path::Path;

use forebay_engine::ids::{Partition, TableId};
use forebay_engine::shard::decode_key;
use forebay_engine::state::StateError;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};

use crate::error::refused;
use crate::keys::KeyRange;

/// One entity of a shard's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its table.
    pub table: TableId,
    /// Its input partition.
    pub partition: Partition,
    /// The entity's key.
    pub key: Vec<u8>,
    /// As the pipeline encoded it.
    pub value: Vec<u8>,
}

/// Entries of a range, one at a time. Ends after the first error: what follows a damaged block is not shown.
pub struct Scan<'a> {
    iterator: DBRawIteratorWithThreadMode<'a, DB>,
    dir: &'a Path,
    left: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(db: &'a DB, dir: &'a Path, range: &KeyRange, limit: usize) -> Self {
        let mut read = ReadOptions::default();
        // Looking at a state must not push what the shard needs out of the cache.
        read.fill_cache(false);
        read.set_iterate_lower_bound(range.from());
        if let Some(to) = range.to() {
            read.set_iterate_upper_bound(to);
        }
        let mut iterator = db.raw_iterator_opt(read);
        iterator.seek_to_first();
        Self { iterator, dir, left: limit }
    }

    fn failure(&self) -> Option<StateError> {
        let action = || format!("scan the state in {}", self.dir.display());
        self.iterator.status().err().map(|e| refused(action(), &e))
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            let Some((key, value)) = self.iterator.item() else {
                self.left = 0;
                return self.failure().map(Err);
            };
            // Reserved keys are shorter than any state key.
            let entry = decode_key(key).map(|(table, partition, key)| Entry { table, partition, key: key.to_vec(), value: value.to_vec() });
            self.iterator.next();
            if let Some(entry) = entry {
                self.left -= 1;
                return Some(Ok(entry));
            }
        }
        None
    }
}
