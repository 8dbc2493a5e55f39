//! Pipelines in memory: what each step does, what becomes of records that it refuses, and what comes out of the example's.

#![allow(clippy::unwrap_used)]

mod deltas;
mod failures;
mod flights;
mod steps;
#[path = "../support/mod.rs"]
mod support;
