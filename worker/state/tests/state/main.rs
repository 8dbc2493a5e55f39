//! The RocksDB adapter against a model, on a real disk: what `StateStore` promises, checkpoints, damage, crashes, limits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod checkpoint;
mod contract;
mod crash;
mod damage;
mod expiry;
mod limits;
mod model;
