//! Every byte that a shard's database holds, but the values of state, which are the pipeline's. All of this outlives the process, in the
//! local folder and in snapshots; what is written here is never used again for something else.
//!
//! | key | value |
//! |---|---|
//! | `00` (one byte) | the stamp: format version (1 byte), then in format 1 the [`Stamp`] as JSON, as in a manifest |
//! | table (2 bytes, big-endian), partition (4 bytes, big-endian), entity key (any length) | `80`, the clock of the epoch that wrote it (8 bytes, big-endian, milliseconds), then the entity, as the pipeline encoded it |
//!
//! A value that does not begin with `80` is of before there was a clock in it: the entity alone. It counts as never too old.
//!
//! A state key has at least [`STATE_KEY_BYTES_MIN`] bytes, so no shorter key can ever equal one: the shorter ones are reserved for what
//! this crate has to say itself. JSON, because a stamp in an old snapshot must stay readable when fields join it.

use forebay_engine::ids::{Partition, TableId, Timestamp};
use forebay_engine::journal::Stamp;
use forebay_engine::shard::{decode_key, encode_key};

/// Where the stamp lies. It sorts before all state keys.
pub const STAMP_KEY: &[u8] = &[0];

/// Table and partition: what every state key begins with.
pub const STATE_KEY_BYTES_MIN: usize = 2 + 4;

/// The stamp's format that is written, and the only one that is read so far.
pub const STAMP_FORMAT: u8 = 1;

/// The stamp's value.
pub fn encode_stamp(stamp: &Stamp) -> Vec<u8> {
    let mut bytes = vec![STAMP_FORMAT];
    serde_json::to_writer(&mut bytes, stamp).expect("a stamp has string keys only, and writing to memory cannot fail");
    bytes
}

/// The inverse of [`encode_stamp`]. `Err` says what is wrong with the bytes.
pub fn decode_stamp(bytes: &[u8]) -> Result<Stamp, String> {
    match bytes {
        [] => Err("the stamp is empty".into()),
        [STAMP_FORMAT, json @ ..] => serde_json::from_slice(json).map_err(|e| format!("the stamp cannot be decoded: {e}")),
        [other, ..] => Err(format!("stamp format {other} is unknown to this version, which reads format {STAMP_FORMAT}")),
    }
}

/// What a value begins with that names its clock. No encoding of an entity begins so: theirs begin with a small version number.
const CLOCKED: u8 = 0x80;

/// Bytes in front of an entity.
pub const CLOCK_BYTES: usize = 1 + 8;

/// Writes the value of an entity that an epoch with this clock wrote.
pub fn encode_value(written: Timestamp, entity: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.push(CLOCKED);
    into.extend_from_slice(&written.as_millis().to_be_bytes());
    into.extend_from_slice(entity);
}

/// When a value's entity was last written, and the entity. `Err` says what is wrong with the bytes.
pub fn decode_value(value: &[u8]) -> Result<(Timestamp, &[u8]), String> {
    match value.split_first() {
        Some((&CLOCKED, rest)) => {
            let (clock, entity) = rest.split_first_chunk().ok_or("it ends in the middle of its clock")?;
            Ok((Timestamp::from_millis(i64::from_be_bytes(*clock)), entity))
        }
        // As long ago as never: it is not known.
        Some(_) | None => Ok((Timestamp::from_millis(i64::MAX), value)),
    }
}

/// Whether `key` is a key of state and not one of the reserved ones.
pub fn is_state_key(key: &[u8]) -> bool {
    key.len() >= STATE_KEY_BYTES_MIN
}

/// A state key in words, for messages.
pub fn describe(key: &[u8]) -> String {
    match decode_key(key) {
        Some((table, partition, key)) => format!("table {table}, partition {partition}, key {:?}", String::from_utf8_lossy(key)),
        None => format!("reserved key {key:02x?}"),
    }
}

/// A range of state keys, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    from: Vec<u8>,
    /// Behind the last key; `None`: no end.
    to: Option<Vec<u8>>,
}

impl KeyRange {
    /// All state.
    pub fn all() -> Self {
        Self { from: Vec::new(), to: None }
    }

    /// All partitions of a table.
    pub fn table(table: TableId) -> Self {
        Self::starting_with(table.get().to_be_bytes().to_vec())
    }

    /// One partition of a table.
    pub fn partition(table: TableId, partition: Partition) -> Self {
        Self::prefix(table, partition, &[])
    }

    /// The entities of a table's partition whose keys start with `prefix`.
    pub fn prefix(table: TableId, partition: Partition, prefix: &[u8]) -> Self {
        let mut key = Vec::new();
        encode_key(table, partition, prefix, &mut key);
        Self::starting_with(key)
    }

    /// The part of this range behind a key, to go on from the last one seen.
    #[must_use]
    pub fn after(mut self, table: TableId, partition: Partition, key: &[u8]) -> Self {
        let mut next = Vec::new();
        encode_key(table, partition, key, &mut next);
        next.push(0);
        self.from = self.from.max(next);
        self
    }

    /// The first key.
    pub(crate) fn from(&self) -> &[u8] {
        &self.from
    }

    /// Behind the last key.
    pub(crate) fn to(&self) -> Option<&[u8]> {
        self.to.as_deref()
    }

    fn starting_with(prefix: Vec<u8>) -> Self {
        // The smallest bytes behind all that start with the prefix: its last byte that can grow, grown.
        let to = prefix.iter().rposition(|byte| *byte < u8::MAX).map(|last| {
            let mut to = prefix[..=last].to_vec();
            to[last] += 1;
            to
        });
        Self { from: prefix, to }
    }
}

#[cfg(test)]
mod tests;
