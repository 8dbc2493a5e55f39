//! The object store port: S3, or a folder. It holds snapshots; it is never locked and never decides who owns a shard.

use std::path::{Path, PathBuf};

use crate::ids::Timestamp;

/// What a put uploads.
#[derive(Clone, Debug)]
pub enum Body {
    /// Small things that are in memory: manifests.
    Bytes(Vec<u8>),
    /// A file; the adapter uploads large ones in parts.
    File(PathBuf),
    /// Small files, one behind the other; the adapter may hold them in memory.
    Pack(Vec<PathBuf>),
}

/// What became of a create-only put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is there and is ours.
    Created,
    /// An object of that name was there before; it was left as it is.
    AlreadyThere,
}

/// What a download brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Bytes written.
    pub size: u64,
    /// Their CRC-32 (IEEE), taken on the way.
    pub crc32: u32,
}

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Full key, as `get` takes it.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// By the store's own clock.
    pub modified: Timestamp,
}

/// Why the object store did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No object of that name.
    #[error("{action}: there is no object {key}")]
    NotFound {
        /// What was attempted.
        action: &'static str,
        /// The object.
        key: String,
    },
    /// Refused: credentials, policy, bucket.
    #[error("{action} {key}: refused: {reason}")]
    Denied {
        /// What was attempted.
        action: &'static str,
        /// The object or bucket.
        key: String,
        /// The store's words, and the way out.
        reason: String,
    },
    /// Anything that may pass: time-outs, broken connections, 5xx, a full disk. The adapter has retried already.
    #[error("{action} {key}: {reason}")]
    Unavailable {
        /// What was attempted.
        action: &'static str,
        /// The object or bucket.
        key: String,
        /// The store's words.
        reason: String,
    },
}

/// A flat space of immutable objects under the job's root. All keys are relative to that root and use `/`.
///
/// Calls block, have deadlines of their own, and may come from several threads at once. An object that `put` reported as
/// created is durable and visible to every later `get` and `list`, whoever asks (S3 and folders both promise this).
pub trait ObjectStore: Send + Sync {
    /// Creates an object; one that exists is left alone. Atomic: nobody sees a part of it.
    fn put(&self, key: &str, body: &Body) -> Result<Put, StoreError>;

    /// The whole object, in memory: for manifests. `StoreError::NotFound` when it does not exist.
    fn get(&self, key: &str) -> Result<Vec<u8>, StoreError>;

    /// Writes the object into a new file at `to` (created or truncated), durably.
    fn download(&self, key: &str, to: &Path) -> Result<Downloaded, StoreError>;

    /// All objects whose key starts with `prefix`, in the order of their keys.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;

    /// Deletes objects; one that does not exist counts as deleted.
    fn delete(&self, keys: &[String]) -> Result<(), StoreError>;
}
