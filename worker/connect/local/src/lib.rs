//! What a job needs when there is no Kafka and no S3: a log and an object store in folders of one machine. For the quickstart
//! (`forebay run`) and for tests; one process at a time.
//!
//! [`LocalLog`] is one job's view of the log, for the engine. [`LogFolder`] is the log itself, for the tools that make topics, put
//! records in and print them. [`FolderStore`] is the object store.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod disk;
mod durable;
mod folder_store;
mod log;

pub use disk::{GroupOffset, LogFolder, NewRecord, OpenError, RECORD_BYTES_MAX, TopicWriter};
pub use folder_store::FolderStore;
pub use log::{LocalInput, LocalLog, LocalLogError, LocalLogOptions, LocalProducer};
