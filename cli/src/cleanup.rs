//! `forebay cleanup`: deletes what a job that is over has left behind in Kafka and in the object store. Savepoints stay: they are there to outlive it.

use std::fmt;

use clap::Args;
use forebay_engine::ids::Timeline;
use forebay_engine::store::ObjectStore;
use forebay_kafka::KafkaLog;
use serde::Serialize;

use crate::Unusable;
use crate::job::{self, Loaded};
use crate::output::Output;
use crate::places::Places;
use crate::run::open_kafka;

/// Where savepoints lie, below the root of a job that has no uid of the API server.
const SAVEPOINTS: &str = "savepoints/";
/// How many shards there were is no matter here.
const SHARDS: u32 = 1;
/// For the client that deletes a topic.
const MEMORY_BYTES: usize = 64 << 20;

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay cleanup -f job.yaml                       says what would be deleted
  forebay cleanup -f job.yaml --delete              deletes the journal topic, the checkpoints, the identity and the consumer group

The job must not run: its workers would stall. Inputs, outputs, dead letters and savepoints stay. After that a job of this name begins anew.")]
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
    /// The topics of its journals, one of each of its timelines, as far as they are there.
    journals: Vec<String>,
    /// The consumer group, if it has offsets that a job of this name would take for its own.
    group: Option<String>,
    objects: usize,
    bytes: u64,
    deleted: bool,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let journal = if self.journals.is_empty() { "no journal".to_owned() } else { format!("topic {}", self.journals.join(", ")) };
        let group = self.group.as_ref().map_or("no consumer group".to_owned(), |group| format!("consumer group {group}"));
        let (objects, bytes, so) = (self.objects, self.bytes, if self.deleted { "are deleted" } else { "would be deleted" });
        write!(f, "{journal}, {objects} objects of {bytes} bytes and {group} {so}")
    }
}

impl Cleanup {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let mut loaded = job::open(&self.places)?;
        // First of all: without its journal nobody takes the checkpoints for those of a job that goes on.
        let mut journals = Vec::new();
        for timeline in 0..=loaded.timeline.get() {
            loaded.timeline = Timeline::new(timeline);
            let log = self.log(&loaded)?;
            let is_there = if self.delete { log.delete_journal()? } else { log.has_journal()? };
            journals.extend(is_there.then(|| loaded.topics(SHARDS).journal));
        }
        let log = self.log(&loaded)?;
        let root = loaded.root(&self.places)?;
        let objects: Vec<_> = root.list("")?.into_iter().filter(|object| !object.key.starts_with(SAVEPOINTS)).collect();
        if self.delete {
            delete(&*root, objects.iter().map(|object| object.key.clone()).collect())?;
        }
        // Last of all: without any state its offsets keep the job from running, until this is called again. One that is made anew in a cluster
        // has another uid, and may be at work with the same group.
        let has_offsets = loaded.job.uid.is_none() && log.has_offsets()?;
        if self.delete && has_offsets {
            log.delete_group()?;
        }
        let topics = loaded.topics(SHARDS);
        output.print(&Left {
            journals,
            group: has_offsets.then_some(topics.group),
            objects: objects.len(),
            bytes: objects.iter().map(|object| object.size).sum(),
            deleted: self.delete,
        })
    }

    fn log(&self, loaded: &Loaded) -> anyhow::Result<KafkaLog> {
        let cluster = self.places.cluster(&loaded.job)?.ok_or_else(|| {
            Unusable(
                "an embedded log is deleted with its working folder; name Kafka's brokers as spec.kafka.bootstrapServers, or by --kafka"
                    .into(),
            )
        })?;
        open_kafka(&cluster, loaded.topics(SHARDS), MEMORY_BYTES)
    }
}

/// The identity and the timelines last: until then it is known whose the rest was, and the command can be called again.
fn delete(root: &dyn ObjectStore, mut keys: Vec<String>) -> anyhow::Result<()> {
    keys.sort_by_key(|key| key.starts_with("identity/") || key.starts_with("timelines/"));
    Ok(root.delete(&keys)?)
}
