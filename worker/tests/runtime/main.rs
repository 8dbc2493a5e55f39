//! Promises of a whole worker, each a module: all its threads, on the embedded log and a folder as object store.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod garbage;
mod gates;
mod overlap;
mod panics;
mod preparation;
mod release;
mod support;
mod takeover;
