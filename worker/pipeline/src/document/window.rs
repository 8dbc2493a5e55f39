//! What a `dedup` step remembers: hashes of ids, oldest first.
//!
//! An id is kept as 64 bits of SipHash-2-4. A false duplicate needs a new id to collide with one of the N that its key remembers: with N = 64
//! that is one in 3·10¹⁷ records, far rarer than an undetected memory error. An id of arbitrary length would cost as much as the entity itself.

use std::collections::VecDeque;

use super::json::write_integer;

/// The last N ids of a record key.
#[derive(Clone, Debug, Default)]
pub struct LastWindow {
    /// A ring once it is full.
    ids: Vec<u64>,
    /// The oldest.
    first: usize,
}

impl LastWindow {
    /// Whether it remembers `id`.
    pub fn contains(&self, id: u64) -> bool {
        // No early exit inside a chunk, so that it is compared with vector instructions.
        let (chunks, rest) = self.ids.as_chunks::<8>();
        chunks.iter().any(|chunk| chunk.iter().fold(false, |found, there| found | (*there == id))) || rest.contains(&id)
    }

    /// Remembers `id`, and `len_max` ids in all; it must be at least 1, and may differ from what it was before.
    pub fn push(&mut self, id: u64, len_max: usize) {
        if self.ids.len() == len_max {
            self.ids[self.first] = id;
            self.first = (self.first + 1) % len_max;
            return;
        }
        self.ids.rotate_left(self.first);
        self.first = 0;
        if self.ids.len() > len_max {
            self.ids.drain(..=self.ids.len() - len_max);
        }
        self.ids.push(id);
    }

    /// How many it remembers.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// How many of the oldest of `old` were forgotten while others came; `None`: this one does not follow from it.
    pub(super) fn dropped_since(&self, old: &Self) -> Option<usize> {
        let oldest = self.iter().next();
        let dropped = old.iter().position(|id| Some(id) == oldest).unwrap_or(old.len());
        old.iter().skip(dropped).eq(self.iter().take(old.len() - dropped)).then_some(dropped)
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let (newer, older) = self.ids.split_at(self.first);
        older.iter().chain(newer).copied()
    }

    pub(super) fn from_oldest_first(ids: Vec<u64>) -> Self {
        Self { ids, first: 0 }
    }

    pub(super) fn write_json(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(b"{\"last\":[");
        for (index, id) in self.iter().enumerate() {
            into.extend_from_slice(if index > 0 { b",\"" } else { b"\"" });
            into.extend_from_slice(format!("{id:016x}\"").as_bytes());
        }
        into.extend_from_slice(b"]}");
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<u64>()
    }
}

impl PartialEq for LastWindow {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// The ids of a record key, with the clock (milliseconds) at which each was first seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WithinWindow(VecDeque<(u64, i64)>);

impl WithinWindow {
    /// Whether it saw `id` at `since` or later.
    pub fn contains(&self, id: u64, since: i64) -> bool {
        self.0.iter().any(|(there, seen)| *there == id && *seen >= since)
    }

    /// Remembers `id`, seen at `now`; forgets what it saw before `since`, and the oldest of more than `len_max`.
    pub fn push(&mut self, id: u64, now: i64, since: i64, len_max: usize) {
        while self.0.front().is_some_and(|(_, seen)| *seen < since) || self.0.len() >= len_max {
            self.0.pop_front();
        }
        self.0.push_back((id, now));
    }

    /// How many it remembers.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many of the oldest of `old` were forgotten while others came; `None`: this one does not follow from it.
    pub(super) fn dropped_since(&self, old: &Self) -> Option<usize> {
        let oldest = self.0.front();
        let dropped = old.0.iter().position(|entry| Some(entry) == oldest).unwrap_or(old.len());
        old.0.iter().skip(dropped).eq(self.0.iter().take(old.len() - dropped)).then_some(dropped)
    }

    /// Oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, i64)> {
        self.0.iter().copied()
    }

    pub(super) fn from_oldest_first(entries: VecDeque<(u64, i64)>) -> Self {
        Self(entries)
    }

    pub(super) fn write_json(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(b"{\"within\":[");
        for (index, (id, seen)) in self.iter().enumerate() {
            into.extend_from_slice(if index > 0 { b",[\"" } else { b"[\"" });
            into.extend_from_slice(format!("{id:016x}\",").as_bytes());
            write_integer(seen, into);
            into.push(b']');
        }
        into.extend_from_slice(b"]}");
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u64, i64)>()
    }
}
