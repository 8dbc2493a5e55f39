//! `forebay cleanup`: deletes what a job that is over has left behind in Kafka and in the object store. Savepoints stay: they are there to outlive it.

use std::collections::BTreeSet;
use std::fmt;

use clap::Args;
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
/// What such a job has there besides the folder of its checkpoints.
const OWN: [&str; 3] = ["identity/", "timelines/", "adopted.json"];
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
    /// Folders of other jobs under this name, those with a uid of the API server: nothing in them is touched.
    others: BTreeSet<String>,
    deleted: bool,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let journal = if self.journals.is_empty() { "no journal".to_owned() } else { format!("topic {}", self.journals.join(", ")) };
        let group = self.group.as_ref().map_or("no consumer group".to_owned(), |group| format!("consumer group {group}"));
        let (objects, bytes, so) = (self.objects, self.bytes, if self.deleted { "are deleted" } else { "would be deleted" });
        write!(f, "{journal}, {objects} objects of {bytes} bytes and {group} {so}")?;
        if self.others.is_empty() {
            return Ok(());
        }
        let others = self.others.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        write!(
            f,
            "\nleft alone: what other jobs of this name have in {others}; one that is over is named by its uid, as metadata.uid in the manifest"
        )
    }
}

impl Cleanup {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let loaded = job::open(&self.places)?;
        let log = self.log(&loaded)?;
        // First of all: without its journal nobody takes the checkpoints for those of a job that goes on. Of all timelines that the cluster has, for the
        // store may know less.
        let journals = log.journals()?;
        if self.delete {
            log.delete_journals(&journals)?;
        }
        let root = loaded.root(&self.places)?;
        // Below the root of a job that has none lie the roots of those of its name that have one.
        let shares_root = loaded.job.uid.is_none().then(|| loaded.uid());
        let (objects, others): (Vec<_>, Vec<_>) =
            root.list("")?.into_iter().partition(|object| is_its(shares_root.as_deref(), &object.key));
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
            others: others.iter().filter_map(|object| other(&object.key)).collect(),
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

/// Whether an object below a job's root is that job's. `folder`: where its checkpoints lie there, if it shares the root with others; `None`: all
/// of it is its own.
fn is_its(folder: Option<&str>, key: &str) -> bool {
    let Some(folder) = folder else { return true };
    OWN.iter().any(|own| key.starts_with(own)) || key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The folder of the job that has this object, if that is no savepoint.
fn other(key: &str) -> Option<String> {
    let folder = key.split('/').next()?;
    (!key.starts_with(SAVEPOINTS)).then(|| folder.to_owned())
}

/// The identity and the timelines last: until then it is known whose the rest was, and the command can be called again.
fn delete(root: &dyn ObjectStore, mut keys: Vec<String>) -> anyhow::Result<()> {
    keys.sort_by_key(|key| key.starts_with("identity/") || key.starts_with("timelines/"));
    Ok(root.delete(&keys)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_under_a_jobs_name_and_is_another_jobs_stays() {
        let folder = Some("default.flights");
        let check = |key: &str, is_own: bool, of: Option<&str>| {
            assert_eq!(is_its(folder, key), is_own, "{key}");
            assert!(is_its(None, key), "a job with a uid has its root for itself: {key}");
            assert_eq!(other(key).filter(|_| !is_own).as_deref(), of, "{key}");
        };
        check("identity/000001.json", true, None);
        check("timelines/0000000001/begun.json", true, None);
        check("adopted.json", true, None);
        check("default.flights/0/checkpoints/0/1-w.json", true, None);
        check("default.flights/1/files/0/w-1", true, None);
        check("savepoints/before/savepoint.json", false, None);
        let uid = "5f1c2b7e-0d7a-4c39-9d8e-3a1f6d2b9c10";
        for object in ["identity/000001.json", "0/checkpoints/0/1-w.json", "timelines/0000000001/begun.json", "adopted.json"] {
            check(&format!("{uid}/{object}"), false, Some(uid));
        }
        check("default.flights-2/0/files/0/w-1", false, Some("default.flights-2"));
    }
}
