//! One partition: records and markers by offset, a start that only moves up, and the last stable offset.

use std::collections::BTreeMap;

use super::TxnId;

/// What lies at an offset.
#[derive(Clone, Debug)]
pub enum Slot<T> {
    /// A record of a transaction.
    Record(TxnId, T),
    /// The end of a transaction.
    Marker {
        /// Which one.
        txn: TxnId,
        /// Whether it was committed.
        commit: bool,
    },
}

/// A partition.
#[derive(Debug)]
pub struct PartitionLog<T> {
    start: u64,
    slots: Vec<Slot<T>>,
    /// Transactions without a marker, and where each began.
    open: BTreeMap<TxnId, u64>,
}

impl<T> Default for PartitionLog<T> {
    fn default() -> Self {
        Self { start: 0, slots: Vec::new(), open: BTreeMap::new() }
    }
}

impl<T> PartitionLog<T> {
    /// The oldest offset that is left.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The high watermark.
    pub fn end(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The last stable offset.
    pub fn stable_end(&self) -> u64 {
        self.open.values().copied().min().unwrap_or(self.end())
    }

    /// The transaction that keeps the last stable offset where it is.
    pub fn first_open(&self) -> Option<TxnId> {
        self.open.iter().min_by_key(|(_, from)| **from).map(|(txn, _)| *txn)
    }

    /// Adds a record.
    pub fn append(&mut self, txn: TxnId, body: T) {
        self.open.entry(txn).or_insert(self.slots.len() as u64);
        self.slots.push(Slot::Record(txn, body));
    }

    /// Adds a marker.
    pub fn mark(&mut self, txn: TxnId, commit: bool) {
        self.open.remove(&txn);
        self.slots.push(Slot::Marker { txn, commit });
    }

    /// The records of a transaction without a marker, with their offsets.
    pub fn of(&self, txn: TxnId) -> impl Iterator<Item = (u64, &T)> {
        let from = self.open.get(&txn).copied().unwrap_or(self.end());
        self.records(from, self.end()).filter(move |(_, of, _)| *of == txn).map(|(offset, _, body)| (offset, body))
    }

    /// Everything, deleted records too.
    pub fn slots(&self) -> &[Slot<T>] {
        &self.slots
    }

    /// Deletes what lies before `before`.
    pub fn cut(&mut self, before: u64) {
        self.start = self.start.max(before.min(self.end()));
    }

    /// Records, with their offsets and transactions, of a range.
    pub fn records(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, TxnId, &T)> {
        let (from, to) = (from.min(self.end()) as usize, to.min(self.end()) as usize);
        let slots = self.slots[from..to.max(from)].iter().zip(from as u64..);
        slots.filter_map(|(slot, offset)| match slot {
            Slot::Record(txn, body) => Some((offset, *txn, body)),
            Slot::Marker { .. } => None,
        })
    }
}
