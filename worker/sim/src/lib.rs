//! Development only: Forebay's engine in a simulated world, where a seed decides everything.
//!
//! Several worker processes run the real state machines, shards, restores and snapshots against a log, a store and disks in memory. Crashes,
//! stalls, lost and late requests, fences, moves and damaged files happen between any two steps; what was sent outlives who sent it. An oracle
//! checks the invariants of design.md section 9 at every commit, upload, deletion and restore, and a run is only worth what it covered.
//!
//! A seed gives the same run every time: one actor acts at a time, maps are ordered, and helper threads only run while the world waits for them.

pub mod claims;
pub mod coverage;
pub mod disk;
pub mod jobs;
pub mod log;
pub mod model;
pub mod mutant;
pub mod oracle;
pub mod panics;
pub mod pipeline;
pub mod rng;
pub mod run;
pub mod store;
pub mod task;
pub mod world;
