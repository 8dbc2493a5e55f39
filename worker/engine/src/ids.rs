//! The identifiers of the domain: small types that cannot be mixed up. They carry no behaviour beyond order and `next`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($repr);

        impl $name {
            /// Wraps a number that came from outside: a file, a broker, a manifest.
            pub const fn new(value: $repr) -> Self {
                Self(value)
            }

            /// The bare number, to print or to store.
            pub const fn get(self) -> $repr {
                self.0
            }

            /// The one that follows.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A fixed group of a job's input partitions: the unit of ownership, state, snapshot, failure and migration.
    ShardId(u32)
}
number! {
    /// Number of a shard's committed step. Grows by one at each commit; an epoch that is not committed gives its number back.
    /// Zero is the state before the first epoch.
    Epoch(u64)
}
number! {
    /// A position in an input partition: of a record, or of the next record to read.
    Offset(u64)
}
number! {
    /// A position in a shard's journal partition: of a record, or of the next one to read.
    JournalOffset(u64)
}
number! {
    /// A partition of a topic.
    Partition(u32)
}
number! {
    /// Which of a job's inputs: an index into [`crate::log::JobTopics::inputs`].
    InputId(u16)
}
number! {
    /// Which of a job's output topics: an index into [`crate::log::JobTopics::outputs`].
    OutputId(u16)
}
number! {
    /// Which of a job's state tables. Assigned by the pipeline, stored in every state key, never reused for another table.
    TableId(u16)
}
number! {
    /// One history of a job's state; a rewind starts the next one.
    Timeline(u32)
}
number! {
    /// Version of the assignment of shards to workers. Of two claims the higher version wins.
    AssignmentVersion(u64)
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::new)
            }
        }

        impl $name {
            /// Takes the name as it is.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name! {
    /// One pod or local process, across its restarts.
    WorkerName
}
name! {
    /// One run of one worker process with one transactional id. Unique for ever. Barred (fenced) means: can never commit again.
    Incarnation
}
name! {
    /// A hash of what decides a job's results: pipeline, inputs, keys, schemas.
    Revision
}

impl Incarnation {
    /// The name of the process that it is a run of, the worker's name included: `<worker>.<process>` of `<worker>.<process>.<number>`.
    pub fn process(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(process, _)| process)
    }
}
