//! The state store on RocksDB: one small database per shard, one memory budget for all shards of a worker.
//!
//! [`RocksState`] is the engine's [`StateStore`](forebay_engine::state::StateStore); [`StateReader`] shows a database's or a checkpoint's
//! content to people. RocksDB's own write-ahead log is off: the journal is the shard's log. There is one column family, so that what
//! survives a crash is a clean prefix of the applied epochs (I2). Nothing in here decides which epoch counts, talks to the object store,
//! or repairs anything: bytes that cannot be what was written are [`StateError::Corrupt`](forebay_engine::state::StateError), and the
//! caller falls back to a snapshot.

mod checkpoint;
mod error;
mod expiry;
pub mod keys;
mod memory;
mod reader;
mod rocks;
mod scan;

pub use memory::{MEMORY_BYTES_MIN, MemoryUsage, SharedMemory};
pub use reader::StateReader;
pub use rocks::RocksState;
pub use scan::{Entry, Scan};
