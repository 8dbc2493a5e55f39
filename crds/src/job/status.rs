//! What the operator reports. A cache: it may be deleted at any time and is built anew from what the workers say.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the job is doing, as of the last look. Fields that this version does not know are left alone: a newer one may have written them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestionJobStatus {
    /// The generation of the spec that all this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The installation of the operator that looks after the job: the namespace of its lease. Others leave the job alone. Writing another name hands the job over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The job in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// `Ready`, `Reconciling` and `Stalled`, as kstatus has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Records of the inputs that are not processed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<i64>,
    /// How long the oldest record that is not processed yet has waited, such as `350ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<String>,
    /// Workers that are ready, of those wanted: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<String>,
    /// How many worker pods there are: what the scale subresource reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// What is in force: the label `forebay.dev/template` of its pods and of its config map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The labels of the worker pods, as the scale subresource wants them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Whether workers have begun, so that there is state: from then on `spec.shards` and `spec.inputs` are frozen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_state: bool,
    /// How many shards the job has, if workers have begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// The rewind that `spec.state.rewind` asks for, or the last one that it asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind: Option<RewindStatus>,
    /// Since when the job has been on its way to rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Time>,
    /// When the oldest of the shards' newest checkpoints was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<Time>,
}

/// How far a rewind has come. What is done, or has failed, stays so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RewindStatus {
    /// Which.
    pub id: String,
    /// In one word.
    pub phase: RewindPhase,
    /// Why, for people.
    pub message: String,
    /// When the workers were told to stop for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
}

/// How far a rewind has come, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RewindPhase {
    /// A change of the job is waited for.
    Pending,
    /// The workers stop, and the state is made ready.
    Rewinding,
    /// The job goes on from there.
    Completed,
    /// It goes on as it was.
    Failed,
}

/// The job in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Workers are on their way.
    Starting,
    /// All shards process.
    Running,
    /// A change goes into force, shard by shard.
    Upgrading,
    /// A change was taken back: the job processes as before it, and not as the manifest says.
    RolledBack,
    /// It goes back to an earlier state: there are no workers meanwhile.
    Rewinding,
    /// `spec.suspend` says so, and workers are still releasing their shards.
    Suspending,
    /// `spec.suspend` says so, and there are no workers any more.
    Suspended,
    /// It cannot go on by itself; the condition `Stalled` says why and what to do.
    Stalled,
}
