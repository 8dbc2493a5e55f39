//! The state store port: one small database per shard, called synchronously by the thread that owns the shard.

use std::path::Path;

use crate::ids::Timestamp;
use crate::journal::Stamp;

/// A set of puts and deletes in one arena; a later change of a key wins over an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateBatch {
    arena: Vec<u8>,
    /// Ends of key and value in the arena; each starts where the one before ended. `deleted` has no value.
    entries: Vec<BatchEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BatchEntry {
    key_end: u32,
    value_end: u32,
    deleted: bool,
}

impl StateBatch {
    /// Sets `key` to what `write` appends, and shows it.
    pub fn put_with(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.arena.extend_from_slice(key);
        let key_end = self.end();
        write(&mut self.arena);
        let value_end = self.end();
        self.entries.push(BatchEntry { key_end, value_end, deleted: false });
        &self.arena[key_end as usize..]
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.put_with(key, |arena| arena.extend_from_slice(value));
    }

    /// Removes `key`; a key that is not there is no error.
    pub fn delete(&mut self, key: &[u8]) {
        self.arena.extend_from_slice(key);
        let key_end = self.end();
        self.entries.push(BatchEntry { key_end, value_end: key_end, deleted: true });
    }

    /// Key and new value (`None`: deleted), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut from = 0;
        self.entries.iter().map(move |entry| {
            let key = &self.arena[from..entry.key_end as usize];
            let value = &self.arena[entry.key_end as usize..entry.value_end as usize];
            from = entry.value_end as usize;
            (key, (!entry.deleted).then_some(value))
        })
    }

    /// Forgets all changes and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    fn end(&self) -> u32 {
        u32::try_from(self.arena.len()).expect("an epoch's state changes are far below 4 GiB")
    }
}

/// Why the state store did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk or the database refused: full disk, I/O error.
    #[error("{action}: {reason}")]
    Io {
        /// What was attempted, with the path.
        action: String,
        /// The database's words, and the way out where there is one.
        reason: String,
    },
    /// Bytes that cannot be what was written: a checksum, a format version, a decode error. Fail closed.
    #[error("{action}: corrupt: {reason}")]
    Corrupt {
        /// What was attempted, with the key or path.
        action: String,
        /// What is wrong with the bytes.
        reason: String,
    },
}

/// A file of a checkpoint, as it lies in the checkpoint's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Name inside the folder. A table file of a given name never changes its content within one database.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Whether a file of this name, once uploaded by this database, never changes (table files do not, MANIFEST and CURRENT do).
    pub immutable: bool,
}

/// A consistent copy of the database in a folder (hard links where possible).
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The committed epoch whose state the files hold: read from the files themselves.
    pub stamp: Stamp,
    /// All files, sorted by name.
    pub files: Vec<CheckpointFile>,
}

/// Takes a checkpoint into a folder that must not exist yet; may run on another thread while applies go on. What it holds is a prefix of the
/// applied epochs: the one its stamp names.
pub type Checkpointer = Box<dyn FnOnce(&Path) -> Result<Checkpoint, StateError> + Send>;

/// A shard's state at an applied (hence committed) epoch.
///
/// `apply` is atomic: after a crash the store holds the state of one of the applied epochs, whole, with its stamp; possibly an older one
/// (there is no write-ahead log of its own: the journal is it).
pub trait StateStore: Send {
    /// Reads one value into `into` (cleared first), and says by the clock of which epoch it was written; `None` when there is none.
    fn get_written(&self, key: &[u8], into: &mut Vec<u8>) -> Result<Option<Timestamp>, StateError>;

    /// The same, without the clock; false when there is none.
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Result<bool, StateError> {
        Ok(self.get_written(key, into)?.is_some())
    }

    /// Applies an epoch's changes and its stamp as one batch.
    fn apply(&mut self, changes: &StateBatch, stamp: &Stamp) -> Result<(), StateError>;

    /// The epoch that the store holds; `None` for a new one.
    fn stamp(&self) -> Result<Option<Stamp>, StateError>;

    /// A handle that takes a checkpoint.
    fn checkpointer(&self) -> Checkpointer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_its_changes_in_order() {
        let mut batch = StateBatch::default();
        batch.put(b"a", b"1");
        batch.delete(b"b");
        batch.put(b"", b"");
        let all: Vec<_> = batch.iter().collect();
        assert_eq!(all, vec![(&b"a"[..], Some(&b"1"[..])), (&b"b"[..], None), (&b""[..], Some(&b""[..]))]);
    }
}
