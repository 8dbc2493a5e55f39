//! The log port over Kafka, through librdkafka (transactions v1). It holds no state of a job and decides nothing: it carries out what the
//! engine's log port asks, gives every call a deadline, and turns librdkafka's errors into the port's.
//!
//! - [`KafkaLog`] is one job's view of a cluster; [`KafkaProducer`] is an incarnation's transactional producer; [`KafkaInput`] reads one
//!   shard's input partitions.
//! - Positions are always explicit and `auto.offset.reset` is `error`: what is gone is said, never skipped.
//! - Values of connection properties (passwords) never reach a log line or an error message.

mod admin;
mod block_on;
mod context;
mod delivery;
mod errors;
mod feed;
mod input;
mod journal;
mod kafka_log;
mod login;
mod native;
mod offsets;
mod options;
mod polling;
mod preflight;
mod producer;
mod retire;

pub use input::KafkaInput;
pub use kafka_log::KafkaLog;
pub use options::KafkaOptions;
pub use preflight::{Finding, OUTPUT_BATCH_BYTES, Severity};
pub use producer::KafkaProducer;
