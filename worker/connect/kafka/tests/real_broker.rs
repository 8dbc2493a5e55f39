//! The adapter against a real broker, named by `FOREBAY_TEST_KAFKA` (`host:port`; `make test` starts one). Every test has topics of its own.

#![allow(clippy::unwrap_used, reason = "in tests a panic is how they fail")]

#[path = "real_broker/world.rs"]
mod world;

#[path = "real_broker/inputs.rs"]
mod inputs;
#[path = "real_broker/journals.rs"]
mod journals;
#[path = "real_broker/secure.rs"]
mod secure;
#[path = "real_broker/throughput.rs"]
mod throughput;
#[path = "real_broker/topics.rs"]
mod topics;
#[path = "real_broker/transactions.rs"]
mod transactions;
