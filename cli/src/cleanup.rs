//! `forebay cleanup`: deletes what a job that is over has left behind in Kafka and in the object store. Savepoints stay: they are there to outlive it.

use std::fmt;

use clap::Args;
use forebay_engine::store::ObjectStore;
use serde::Serialize;

use crate::Unusable;
use crate::job::{self, Loaded};
use crate::output::Output;
use crate::places::Places;
use crate::run::open_kafka;

/// Where savepoints lie, below the root of a job that has no uid of the API server.
const SAVEPOINTS: &str = "savepoints/";
/// What one request of S3 deletes at most.
const DELETED_AT_ONCE: usize = 1000;
/// For the client that deletes a topic.
const MEMORY_BYTES: usize = 64 << 20;

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay cleanup -f job.yaml                       says what would be deleted
  forebay cleanup -f job.yaml --delete              deletes the journal topic, the checkpoints and the identity

The job must not run: its workers would stall. Inputs, outputs, dead letters and savepoints stay.")]
pub struct Cleanup {
    #[command(flatten)]
    places: Places,
    /// Delete it; without this it is only said what is there
    #[arg(long)]
    delete: bool,
}

/// What `cleanup` prints.
#[derive(Serialize)]
struct Left {
    /// The journal's topic, if it is there.
    journal: Option<String>,
    objects: usize,
    bytes: u64,
    deleted: bool,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let journal = self.journal.as_ref().map_or("no journal".to_owned(), |topic| format!("topic {topic}"));
        let (objects, bytes) = (self.objects, self.bytes);
        write!(f, "{journal} and {objects} objects of {bytes} bytes {}", if self.deleted { "are deleted" } else { "would be deleted" })
    }
}

impl Cleanup {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let loaded = job::load(&self.places.file)?;
        let journal = self.journal(&loaded)?;
        let root = loaded.root(&self.places)?;
        let objects: Vec<_> = root.list("")?.into_iter().filter(|object| !object.key.starts_with(SAVEPOINTS)).collect();
        if self.delete {
            delete(&*root, objects.iter().map(|object| object.key.clone()).collect())?;
        }
        let bytes = objects.iter().map(|object| object.size).sum();
        output.print(&Left { journal, objects: objects.len(), bytes, deleted: self.delete })
    }

    /// First of all: without its journal nobody takes the checkpoints for those of a job that goes on.
    fn journal(&self, loaded: &Loaded) -> anyhow::Result<Option<String>> {
        let cluster = self.places.cluster(&loaded.job)?;
        let cluster = cluster.ok_or_else(|| {
            Unusable(
                "an embedded log is deleted with its working folder; name Kafka's brokers as spec.kafka.bootstrapServers, or by --kafka"
                    .into(),
            )
        })?;
        let topics = loaded.topics(loaded.job.shards.unwrap_or(1));
        let journal = topics.journal.clone();
        let log = open_kafka(&cluster, topics, MEMORY_BYTES)?;
        let is_there = if self.delete { log.delete_journal()? } else { log.has_journal()? };
        Ok(is_there.then_some(journal))
    }
}

/// The identity last: until then it is known whose the rest was, and the command can be called again.
fn delete(root: &dyn ObjectStore, mut keys: Vec<String>) -> anyhow::Result<()> {
    keys.sort_by_key(|key| key.starts_with("identity/"));
    for some in keys.chunks(DELETED_AT_ONCE) {
        root.delete(some)?;
    }
    Ok(())
}
