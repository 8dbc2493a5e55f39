//! What a job means: the raw spec with its defaults filled in and its contradictions found. [`ValidatedJob`] can come from nowhere else, and
//! nobody behind this reads the raw spec.

mod connection;
pub(crate) mod limits;
mod pods;
mod rewind;
mod savepoints;
mod tables;
mod topics;
mod upgrade;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimTemplate, PodTemplateSpec};

use crate::finding::Finding;
use crate::job::{
    CheckpointSpec, CommitSpec, DeletionPolicy, IngestionJob, InputPartitioner, InputSpec, StartFrom, StoreSpec, WorkersSpec,
};
use crate::names;
use crate::path::Path;
use crate::pipeline::Step;
use crate::quantity::{ByteSize, TimeSpan};

pub use connection::{Kafka, Property, check_savepoint_name};
pub use rewind::{Rewind, RewindTarget};
pub use savepoints::Schedule;
pub use topics::topic_field;
pub use upgrade::Upgrade;

/// The ordinary delay of a result. Half of it is what a record waits on average; a broker's commit takes about as long.
const COMMIT_INTERVAL: TimeSpan = TimeSpan::from_millis(100);
/// Below, a commit takes longer than its interval; above, a transaction comes close to the 30 s after which the broker ends it, when one is late.
pub(crate) const COMMIT_INTERVAL_RANGE: [TimeSpan; 2] = [TimeSpan::from_millis(10), TimeSpan::from_millis(10_000)];
/// Flushed within about 100 ms by one producer; larger epochs delay the next commit.
const COMMIT_BYTES: ByteSize = ByteSize::from_bytes(8 << 20);
/// Below, a commit would carry only a few records of usual size; above, larger epochs gain nothing.
pub(crate) const COMMIT_BYTES_RANGE: [ByteSize; 2] = [ByteSize::from_bytes(64 << 10), ByteSize::from_bytes(16 << 20)];
/// The journal of half a minute is read again in a second or two.
const CHECKPOINT_INTERVAL: TimeSpan = TimeSpan::from_millis(30_000);
/// Below, uploads never end; above, the journal outgrows the brokers' disks unnoticed.
pub(crate) const CHECKPOINT_INTERVAL_RANGE: [TimeSpan; 2] = [TimeSpan::from_millis(1_000), TimeSpan::from_millis(86_400_000)];
/// One uploads while the next flushes.
const CHECKPOINT_CONCURRENT: u32 = 2;
/// One that is damaged must have a predecessor.
const CHECKPOINTS_RETAINED: u32 = 2;
/// RocksDB's smallest useful write buffer, and as much for its cache.
pub const STATE_MEMORY_RANGE: [ByteSize; 2] = [ByteSize::from_bytes(16 << 20), ByteSize::from_bytes(1 << 40)];
const SHARDS_MAX: u32 = 1024;
const INPUTS_MAX: usize = 16;
const STEPS_MAX: usize = 100;

/// A job that makes sense. All that later phases need, in their types, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ValidatedJob {
    /// The job's name.
    pub name: String,
    /// Its namespace; `default` where the manifest names none.
    pub namespace: String,
    /// The uid that the API server gave it; `None` for a manifest from a file.
    pub uid: Option<String>,
    /// What it reads, in the order of the manifest. At least one.
    pub inputs: Vec<Input>,
    /// Into how many shards it is divided; `None`: [`default_shards`] of the partition count.
    pub shards: Option<u32>,
    /// The cluster; `None`: named by whoever runs the job.
    pub kafka: Option<Kafka>,
    /// The consumer group whose offsets show the job's progress.
    pub consumer_group: String,
    /// When results become visible.
    pub commit: Commit,
    /// When the state is copied.
    pub checkpoint: Checkpoint,
    /// Where snapshots go; `None`: named by whoever runs the job.
    pub store: Option<StoreSpec>,
    /// The savepoint that a job without state begins with: namespace, job and name, with `/` between them.
    pub from_savepoint: Option<String>,
    /// The state of another job that a job without state goes on with: namespace, job and uid, with `/` between them.
    pub adopt: Option<String>,
    /// The earlier state that it is to go on from, once.
    pub rewind: Option<Rewind>,
    /// Bytes of memory for the state of one worker; `None`: derived from the container's limit.
    pub state_memory_bytes: Option<u64>,
    /// The topic of dead letters.
    pub dead_letter: String,
    /// The steps, in order. At least one.
    pub pipeline: Vec<Step>,
    /// All topics that it writes, each once: those of the steps in the order of the manifest, then the dead letters'.
    pub output_topics: Vec<String>,
    /// The names of its state tables, each once, in the order of the manifest. Their ids: [`crate::JobIdentity::assign_tables`].
    pub tables: Vec<String>,
    /// How long after its last change an entity is gone, by table; those that are not here keep theirs. A table that only remembers for
    /// `dedup: {within: …}` is here without being told: what it holds is of no use any longer then.
    pub table_ttls: BTreeMap<String, Duration>,
    /// The worker pods.
    pub workers: Workers,
    /// How a change goes into force.
    pub upgrade: Upgrade,
    /// When savepoints are taken by themselves, if at all.
    pub savepoints: Option<Schedule>,
    /// Whether there should be no workers for now.
    pub suspend: bool,
    /// What becomes of journal and checkpoints when it is deleted.
    pub deletion_policy: DeletionPolicy,
}

/// One topic to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The name by which metrics and messages call it.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// Where a job without any state starts to read.
    pub start_from: StartFrom,
    /// How its producers choose a record's partition.
    pub partitioner: InputPartitioner,
}

/// When results become visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The time between commits at the head of the inputs.
    pub interval: Duration,
    /// A shard's bytes that end an epoch before its time.
    pub bytes_max: u64,
}

/// When the state is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The time between the starts of a shard's checkpoints.
    pub interval: Duration,
    /// The least time between the end of one and the start of the next.
    pub min_pause: Duration,
    /// How many shards of one worker upload at the same time.
    pub concurrent_max: u32,
    /// How many checkpoints of a shard are kept. At least 2.
    pub retained: u32,
}

/// The worker pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Workers {
    /// How many there should be.
    pub replicas: u32,
    /// What they run; `None`: whatever the operator is set up with.
    pub image: Option<String>,
    /// Secrets whose entries become environment variables.
    pub env_from_secrets: Vec<String>,
    /// What the scheduler keeps for each of them, as the manifest has it.
    pub requests: BTreeMap<String, String>,
    /// What each of them may use.
    pub limits: BTreeMap<String, String>,
    /// What is merged into each pod. It names nothing that the operator relies on.
    pub pod_template: Option<Box<PodTemplateSpec>>,
    /// The claim for the state's volume; `None`: it is on the node's own disk.
    pub volume_claim_template: Option<Box<PersistentVolumeClaimTemplate>>,
    /// Another value has all of them replaced.
    pub restarted_at: Option<String>,
}

/// Checks a job and fills in its defaults. `Err` lists everything that is wrong with it, without places in a file
/// ([`crate::Manifest::validate`] adds them).
pub fn validate(job: &IngestionJob) -> Result<ValidatedJob, Vec<Finding>> {
    let spec = &job.spec;
    let at = Path::spec();
    let mut findings = Vec::new();
    let (name, namespace) = check_metadata(job, &mut findings);
    let inputs = check_inputs(&spec.inputs, &at.key("inputs"), &mut findings);
    if let Some(shards) = spec.shards {
        check_count(shards, 1, SHARDS_MAX, &at.key("shards"), &mut findings);
    }
    let consumer_group = check_group(job, &name, &namespace, &mut findings);
    let kafka = spec.kafka.as_ref().map(|kafka| connection::check_kafka(kafka, &at.key("kafka"), &mut findings));
    let commit = check_commit(&spec.commit, &at.key("commit"), &mut findings);
    let checkpoint = check_checkpoint(&spec.checkpoint, &at.key("checkpoint"), &mut findings);
    if let Some(store) = &spec.state.store {
        connection::check_store(store, &at.key("state").key("store"), &mut findings);
    }
    if let Some(path) = &spec.state.from_savepoint {
        connection::check_savepoint(path, &at.key("state").key("fromSavepoint"), &mut findings);
    }
    connection::check_adopt(&spec.state, &at.key("state"), &mut findings);
    let at_rewind = at.key("state").key("rewind");
    let rewind = spec.state.rewind.as_ref().and_then(|rewind| rewind::check_rewind(rewind, &at_rewind, &mut findings));
    if let Some(memory) = spec.state.memory {
        check_range(memory, STATE_MEMORY_RANGE, &at.key("state").key("memory"), &mut findings);
    }
    let table_ttls = tables::check_ttls(spec, &at.key("state").key("tables"), &mut findings);
    let workers = check_workers(&spec.workers, &at.key("workers"), &mut findings);
    let savepoints =
        spec.savepoints.as_ref().and_then(|savepoints| savepoints::check_schedule(savepoints, &at.key("savepoints"), &mut findings));
    let upgrade = upgrade::check_upgrade(&spec.upgrade, &at.key("upgrade"), &mut findings);
    check_pipeline(&spec.pipeline, &at.key("pipeline"), &mut findings);
    let output_topics = topics::check_topics(spec, &mut findings);
    if !findings.is_empty() {
        return Err(findings);
    }
    Ok(ValidatedJob {
        name,
        namespace,
        uid: job.metadata.uid.clone(),
        inputs,
        shards: spec.shards,
        kafka,
        consumer_group,
        commit,
        checkpoint,
        store: spec.state.store.clone(),
        from_savepoint: spec.state.from_savepoint.clone(),
        adopt: spec.state.adopt.clone(),
        rewind,
        state_memory_bytes: spec.state.memory.map(ByteSize::get),
        dead_letter: spec.dead_letter.topic.clone(),
        pipeline: spec.pipeline.clone(),
        output_topics,
        tables: distinct(spec.pipeline.iter().filter_map(Step::table).map(|(table, _)| table)),
        table_ttls,
        workers,
        upgrade,
        savepoints,
        suspend: spec.suspend,
        deletion_policy: spec.deletion_policy,
    })
}

/// The number of shards of a job that names none: the largest divisor of its partition count that is at most 32. Every partition belongs to
/// a shard, and no shard has more partitions than another.
pub fn default_shards(partitions: u32) -> u32 {
    (1..=32).rev().find(|shards| partitions.is_multiple_of(*shards)).unwrap_or(1)
}

fn check_metadata(job: &IngestionJob, findings: &mut Vec<Finding>) -> (String, String) {
    let at = Path::root().key("metadata");
    let name = job.metadata.name.clone().unwrap_or_default();
    if name.is_empty() {
        findings.push(Finding::new(&at, "the field `name` is missing", "add `name:`"));
    } else if let Err(way_out) = names::check_job(&name) {
        findings.push(Finding::new(&at.key("name"), format!("{name:?} is no name for a job"), way_out));
    }
    let namespace = job.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    if let Err(way_out) = names::check_label(&namespace) {
        findings.push(Finding::new(&at.key("namespace"), format!("{namespace:?} is no namespace"), way_out));
    }
    (name, namespace)
}

fn check_inputs(specs: &[InputSpec], at: &Path, findings: &mut Vec<Finding>) -> Vec<Input> {
    if specs.is_empty() || specs.len() > INPUTS_MAX {
        findings.push(Finding::new(at, format!("{} inputs", specs.len()), format!("write 1 to {INPUTS_MAX}")));
    }
    let mut names = BTreeMap::new();
    let mut topics = BTreeMap::new();
    for (index, input) in specs.iter().enumerate() {
        let at = at.index(index);
        if let Err(way_out) = names::check_label(&input.name) {
            findings.push(Finding::new(&at.key("name"), format!("{:?} is no name for an input", input.name), way_out));
        }
        if let Err(way_out) = names::check_topic(&input.topic) {
            findings.push(Finding::new(&at.key("topic"), format!("{:?} is no name for a topic", input.topic), way_out));
        }
        if let Some(first) = names.insert(&input.name, index) {
            let message = format!("{:?} is the name of spec.inputs[{first}] already", input.name);
            findings.push(Finding::new(&at.key("name"), message, "give each input a name of its own"));
        }
        if let Some(first) = topics.insert(&input.topic, index) {
            let message = format!("{:?} is read by spec.inputs[{first}] already", input.topic);
            findings.push(Finding::new(&at.key("topic"), message, "delete one of the two inputs"));
        }
    }
    let input = |spec: &InputSpec| Input {
        name: spec.name.clone(),
        topic: spec.topic.clone(),
        start_from: spec.start_from,
        partitioner: spec.partitioner,
    };
    specs.iter().map(input).collect()
}

fn check_group(job: &IngestionJob, name: &str, namespace: &str, findings: &mut Vec<Finding>) -> String {
    let at = Path::spec();
    if let Some(group) = &job.spec.consumer_group {
        if group.is_empty() || group.len() > 249 {
            let message = format!("a name of {} bytes is no name for a consumer group", group.len());
            findings.push(Finding::new(&at.key("consumerGroup"), message, "write 1 to 249"));
        }
        return group.clone();
    }
    for (index, input) in job.spec.inputs.iter().enumerate().filter(|(_, input)| input.start_from == StartFrom::Group) {
        let message = format!("input {:?} starts where a consumer group stands, and no group is named", input.name);
        let help = "name the group to take over as `spec.consumerGroup`, or start from earliest or latest";
        findings.push(Finding::new(&at.key("inputs").index(index).key("startFrom"), message, help));
    }
    format!("forebay.{namespace}.{name}")
}

fn check_commit(spec: &CommitSpec, at: &Path, findings: &mut Vec<Finding>) -> Commit {
    let interval = spec.interval.unwrap_or(COMMIT_INTERVAL);
    check_range(interval, COMMIT_INTERVAL_RANGE, &at.key("interval"), findings);
    let bytes_max = spec.bytes_max.unwrap_or(COMMIT_BYTES);
    check_range(bytes_max, COMMIT_BYTES_RANGE, &at.key("bytesMax"), findings);
    Commit { interval: interval.get(), bytes_max: bytes_max.get() }
}

fn check_checkpoint(spec: &CheckpointSpec, at: &Path, findings: &mut Vec<Finding>) -> Checkpoint {
    let interval = spec.interval.unwrap_or(CHECKPOINT_INTERVAL);
    check_range(interval, CHECKPOINT_INTERVAL_RANGE, &at.key("interval"), findings);
    let min_pause = spec.min_pause.unwrap_or(TimeSpan::from_millis(0));
    if min_pause > interval {
        let message = format!("{min_pause} is longer than the interval of {interval}");
        findings.push(Finding::new(&at.key("minPause"), message, "write a shorter pause, or a longer interval"));
    }
    let concurrent_max = spec.max_concurrent.unwrap_or(CHECKPOINT_CONCURRENT);
    check_count(concurrent_max, 1, 64, &at.key("maxConcurrent"), findings);
    let retained = spec.retained.unwrap_or(CHECKPOINTS_RETAINED);
    check_count(retained, CHECKPOINTS_RETAINED, 100, &at.key("retained"), findings);
    Checkpoint { interval: interval.get(), min_pause: min_pause.get(), concurrent_max, retained }
}

fn check_workers(spec: &WorkersSpec, at: &Path, findings: &mut Vec<Finding>) -> Workers {
    let replicas = spec.replicas.unwrap_or(1);
    check_count(replicas, 1, SHARDS_MAX, &at.key("replicas"), findings);
    Workers {
        replicas,
        image: spec.image.clone(),
        env_from_secrets: spec.env_from.iter().map(|source| source.secret_ref.name.clone()).collect(),
        requests: spec.resources.requests.clone(),
        limits: spec.resources.limits.clone(),
        pod_template: spec
            .pod_template
            .as_ref()
            .and_then(|template| pods::check_template(template, &at.key("podTemplate"), findings))
            .map(Box::new),
        volume_claim_template: spec
            .volume_claim_template
            .as_ref()
            .and_then(|claim| pods::check_claim(claim, &at.key("volumeClaimTemplate"), findings))
            .map(Box::new),
        restarted_at: spec.restarted_at.clone(),
    }
}

fn check_pipeline(steps: &[Step], at: &Path, findings: &mut Vec<Finding>) {
    match steps.len() {
        0 => findings.push(Finding::new(at, "there are no steps", "start with `- parse: {format: json}`")),
        1..=STEPS_MAX => findings.extend(crate::pipeline::check_steps(steps, &at.to_string()).into_iter().map(from_pipeline)),
        count => findings.push(Finding::new(at, format!("{count} steps"), format!("write at most {STEPS_MAX}"))),
    }
}

fn from_pipeline(finding: crate::pipeline::Finding) -> Finding {
    Finding::new(&Path::parse(&finding.path), finding.message, finding.help)
}

fn check_count(number: u32, min: u32, max: u32, at: &Path, findings: &mut Vec<Finding>) {
    if number < min {
        findings.push(Finding::new(at, format!("{number} is too small"), format!("write {min} or more")));
    } else if number > max {
        findings.push(Finding::new(at, format!("{number} is too large"), format!("write {max} or less")));
    }
}

fn check_range<T: Ord + std::fmt::Display>(value: T, [min, max]: [T; 2], at: &Path, findings: &mut Vec<Finding>) {
    if value < min {
        findings.push(Finding::new(at, format!("{value} is too small"), format!("write {min} or more")));
    } else if value > max {
        findings.push(Finding::new(at, format!("{value} is too large"), format!("write {max} or less")));
    }
}

/// Each once, where it comes first.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_default_to_the_largest_divisor_up_to_32() {
        for (partitions, shards) in [(1, 1), (12, 12), (32, 32), (48, 24), (64, 32), (37, 1), (100, 25)] {
            assert_eq!(default_shards(partitions), shards, "{partitions} partitions");
        }
    }
}
