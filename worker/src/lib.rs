//! The process around the engine: threads, wiring, metrics, health.
//!
//! A worker is four kinds of threads. The *coordinator* runs the engine's [`forebay_engine::worker::Worker`] and does nothing else. The
//! *committer* has the one transactional producer opened, used and closed, on a thread that is watched. *Executors* own shards and process their records. *Helpers* do what blocks for long: reading
//! journals, barring, restoring, uploading. They talk by messages only; no lock is shared on the path of a record.

pub mod assignment;
pub mod clock;
mod committer;
pub mod control;
mod coordinator;
mod executor;
pub mod fetch;
mod freshness;
mod helpers;
pub mod http;
pub mod load;
pub mod prefetch;
mod pressure;
pub mod restorer;
mod restores;
pub mod rewind;
pub mod runtime;
pub mod savepoint;
mod snapshots;
pub mod status;
mod turns;
mod watchdog;
mod watched;

pub use runtime::{Engine, Runtime, RuntimeError, RuntimeOptions};
