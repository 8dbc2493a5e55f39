//! Walks over state in the order of its keys: table, partition, entity key.

use std::path::Path;

use forebay_engine::ids::{Partition, TableId, Timestamp};
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::shard::decode_key;
use forebay_engine::state::StateError;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};

use crate::error::{corrupt, refused};
use crate::keys::{KeyRange, decode_value};

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
    /// The clock of the epoch that wrote it; the end of time where a value is older than clocks in values.
    pub written: Timestamp,
}

/// Entries of a range, one at a time. Ends after the first error: what follows a damaged block is not shown.
pub struct Scan<'a> {
    iterator: DBRawIteratorWithThreadMode<'a, DB>,
    dir: &'a Path,
    left: usize,
    /// What is over by this clock is not shown.
    hidden: Option<(Lifetimes, Timestamp)>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(db: &'a DB, dir: &'a Path, range: &KeyRange, limit: usize, hidden: Option<(Lifetimes, Timestamp)>) -> Self {
        let mut read = ReadOptions::default();
        // Looking at a state must not push what the shard needs out of the cache.
        read.fill_cache(false);
        read.set_iterate_lower_bound(range.from());
        if let Some(to) = range.to() {
            read.set_iterate_upper_bound(to);
        }
        let mut iterator = db.raw_iterator_opt(read);
        iterator.seek_to_first();
        Self { iterator, dir, left: limit, hidden }
    }

    fn is_hidden(&self, entry: &Entry) -> bool {
        self.hidden.as_ref().is_some_and(|(lifetimes, clock)| lifetimes.is_over(entry.table, entry.written, *clock))
    }

    fn failure(&self) -> Option<StateError> {
        let action = || format!("scan the state in {}", self.dir.display());
        self.iterator.status().err().map(|e| refused(action(), &e))
    }
}

fn entry((table, partition, key): (TableId, Partition, &[u8]), value: &[u8]) -> Result<Entry, String> {
    let (written, value) = decode_value(value)?;
    Ok(Entry { table, partition, key: key.to_vec(), value: value.to_vec(), written })
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
            let entry = decode_key(key).map(|state_key| entry(state_key, value));
            self.iterator.next();
            match entry {
                Some(Ok(entry)) if self.is_hidden(&entry) => {}
                None => {}
                Some(Ok(entry)) => {
                    self.left -= 1;
                    return Some(Ok(entry));
                }
                Some(Err(reason)) => {
                    self.left = 0;
                    return Some(Err(corrupt(format!("scan the state in {}", self.dir.display()), reason)));
                }
            }
        }
        None
    }
}
