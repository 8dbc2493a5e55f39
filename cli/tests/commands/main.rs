//! Promises of the command line, each a module: `forebay` as a child process on an embedded log, no servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod checkpoints;
mod crashes;
mod credentials;
mod documents;
mod full_disk;
mod metrics;
mod output;
mod progress;
mod refusals;
mod replay;
mod rewind;
mod steps;
mod stopping;
mod support;
