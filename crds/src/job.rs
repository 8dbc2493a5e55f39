//! The resource as a user writes it and the API server keeps it. Raw: nobody but [`crate::validate()`] reads it.
//!
//! A field exists when something reads it. Fields that decide nothing by default are left out when written, so that a default that
//! changes later changes jobs that never named it.

mod connection;
mod input;
mod pods;
mod rewind;
mod savepoints;
mod status;
mod upgrade;
mod workers;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use connection::{FolderStore, KafkaSpec, PropertySource, S3Store, SecretKey, StateSpec, StoreSpec, TableSpec};
pub(crate) use input::START_FROM;
pub use input::{InputPartitioner, InputSpec, StartFrom};
pub use pods::{AddedMetadata, PodTemplate, VolumeClaimTemplate};
pub use rewind::RewindSpec;
pub use savepoints::SavepointsSpec;
pub use status::{IngestionJobStatus, Phase, RewindPhase, RewindStatus};
pub use upgrade::UpgradeSpec;
pub use workers::{EnvSource, ResourcesSpec, SecretName, WorkersSpec};

use crate::pipeline::Step;
use crate::quantity::{ByteSize, TimeSpan};

/// A job reads events from Kafka, validates, deduplicates and enriches them against state per entity, and hands them on, exactly once.
#[allow(clippy::duplicated_attributes, reason = "each column of a table has its own type")]
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "forebay.dev",
    version = "v1alpha1",
    kind = "IngestionJob",
    plural = "ingestionjobs",
    shortname = "ij",
    category = "forebay",
    namespaced,
    status = "IngestionJobStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.workers.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    doc = "A job reads events from Kafka, validates, deduplicates and enriches them against state per entity, and hands them on, exactly once.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "What the job is doing"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether all shards process"
    ),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lagRecords", description = "Records not processed yet"),
    printcolumn(
        name = "Freshness",
        type_ = "string",
        json_path = ".status.freshness",
        description = "Age of the oldest record not processed yet"
    ),
    printcolumn(
        name = "Workers",
        type_ = "string",
        json_path = ".status.workers",
        description = "Workers that are ready, of those wanted"
    ),
    printcolumn(
        name = "Checkpoint",
        type_ = "date",
        json_path = ".status.lastCheckpoint",
        description = "Age of the oldest shard's newest checkpoint"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestionJobSpec {
    /// The topics to read. All have the same number of partitions.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub inputs: Vec<InputSpec>,
    /// Into how many shards the input's partitions are divided: partition p belongs to shard p mod shards. It should divide the number of
    /// partitions: otherwise shards get uneven parts, and with more shards than partitions some have nothing to do. By default the largest divisor
    /// that is at most 32. Frozen at the first start, which `status.shards` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub shards: Option<u32>,
    /// The Kafka cluster. `forebay run` may name it on the command line instead, or use its embedded log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSpec>,
    /// The consumer group that the offsets are committed to, for everybody's tools to see the lag, and the one that
    /// `startFrom: group` takes over. By default `forebay.<namespace>.<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249))]
    pub consumer_group: Option<String>,
    /// When results become visible.
    #[serde(default, skip_serializing_if = "is_default")]
    pub commit: CommitSpec,
    /// When the state is copied to the object store.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpoint: CheckpointSpec,
    /// Where the state lies and how much memory it takes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: StateSpec,
    /// Where records go that a step refuses, whole and with the reason.
    pub dead_letter: DeadLetterSpec,
    /// What happens to each record, step by step.
    #[schemars(length(min = 1, max = 100))]
    pub pipeline: Vec<Step>,
    /// The worker pods.
    #[serde(default, skip_serializing_if = "is_default")]
    // The scale subresource finds nothing at its path otherwise.
    #[schemars(extend("default" = serde_json::json!({})))]
    pub workers: WorkersSpec,
    /// How a change of the pipeline, the image or the resources goes into force, and when it is taken back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub upgrade: UpgradeSpec,
    /// Savepoints that are taken by themselves; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoints: Option<SavepointsSpec>,
    /// Stops the job: its worker pods go, its state, its journal and its offsets stay. Without it, it goes on where it stopped. `forebay run`
    /// runs the job all the same.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,
    /// What becomes of the job's journal topic and of its checkpoints when the job is deleted. Savepoints, inputs and outputs stay in any case.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deletion_policy: DeletionPolicy,
}

/// What becomes of what a job leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted. The job has a finalizer then, which the operator takes away when that is done, or after 5 minutes in vain, or at once when the
    /// whole namespace is being deleted.
    Delete,
}

/// When results become visible.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommitSpec {
    /// How often results are committed at most; `100ms` by default. Shorter: fresher results for more work of the broker. While all
    /// shards that have records are behind, commits are up to `1s` apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<TimeSpan>,
    /// Commits before the interval is over once a shard holds this many bytes since the last commit, or its share of the memory if that is less: those of the
    /// records that came in, of what they put out, and of the entities that they change, as these were before. `8Mi` by default, `16Mi` at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<ByteSize>,
}

/// When the state is copied to the object store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckpointSpec {
    /// How often a shard's state is copied; `30s` by default. Longer: less to upload, and a longer journal to read after a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<TimeSpan>,
    /// The least time between the end of a shard's checkpoint and the start of its next, when uploads take long; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_pause: Option<TimeSpan>,
    /// How many shards of one worker upload at the same time; 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent: Option<u32>,
    /// How many checkpoints of each shard are kept, with the journal behind the oldest; 2 by default. At least 2: one that is damaged must
    /// have a predecessor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 100))]
    pub retained: Option<u32>,
}

/// Where records go that a step refuses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetterSpec {
    /// The topic. Neither an input nor an output of the pipeline.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub topic: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
