//! Forebay's engine: the epoch protocol, shards, claims, snapshots and restore as state machines.
//!
//! Nothing in here does I/O, reads a clock or starts a thread. Logic is handed records, times and completions and hands
//! back effects; three ports carry them: the log ([`log`]), the object store ([`store`]) and the state store ([`state`]).
//! The contract, with the numbered invariants I1 to I9 that asserts and tests cite, is `docs/design/0001-design.md`.

pub mod changes;
pub mod claim;
pub mod failure;
pub mod ids;
pub mod journal;
pub mod lifetimes;
pub mod log;
pub mod manifest;
pub mod mutants;
pub mod partitioner;
pub mod patch;
pub mod pipeline;
pub mod record;
pub mod restore;
pub mod shard;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod worker;
