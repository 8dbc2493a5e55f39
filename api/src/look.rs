//! What the operator tells of its last look at a job, as JSON, at [`path`] on its port for metrics. Read by `kubectl forebay`. Nothing secret is in it.
//!
//! Fields may be added. One that is missing is empty: operator and plugin may be of different versions.

use serde::{Deserialize, Serialize};

/// Where the operator serves it, besides its metrics and health.
pub const OPERATOR_PORT: u16 = 8080;
/// The lease of the operators, in their namespace; its holder is the pod that leads.
pub const LEASE: &str = "forebay-operator";

/// The path of a namespace's jobs; behind it, a job's name.
pub fn path(namespace: &str) -> String {
    format!("/jobs/{namespace}")
}

/// The last look at a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Look {
    /// The job's uid.
    pub uid: String,
    /// The generation of the spec that was looked at.
    pub generation: Option<i64>,
    /// How long ago that was.
    pub age_millis: u64,
    /// The job in one word, as in its status.
    pub phase: String,
    /// Why, as one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// How many workers there should be.
    pub replicas: u32,
    /// How many shards the job has, if any worker has said so.
    pub shards: Option<u32>,
    /// Where the job stands between two revisions; absent when its manifest cannot work.
    pub change: Option<Change>,
    /// The pods that there are.
    pub workers: Vec<Worker>,
    /// What was done, in words.
    pub actions: Vec<String>,
    /// What stands in the way of what is left to be done, in words.
    pub waits: Vec<String>,
    /// Why the last thing that was to be done could not be.
    pub error: Option<String>,
    /// The last look at which there was anything to do.
    pub decided: Option<Decision>,
}

/// A look at which there was something to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Decision {
    /// How long ago it was.
    pub age_millis: u64,
    /// What was done, in words.
    pub actions: Vec<String>,
}

/// Where a job stands between the revision in force and the one that its manifest asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Change {
    /// `first`, `steady`, `savepoint`, `canary`, `switch`, `rolledBack`.
    pub stage: String,
    /// What is in force, or would be if nothing were under way.
    pub from: String,
    /// What the manifest asks for.
    pub to: String,
}

/// A pod, and what its worker said last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Worker {
    /// The pod's name.
    pub pod: String,
    /// What it was made from.
    pub revision: String,
    /// What Kubernetes knows of it: `starting`, `ready`, `ending`, `stuck` (it was to be gone by now), `over`.
    pub state: String,
    /// How often its container was started again.
    pub restarts: u32,
    /// Why it does not come up, in Kubernetes' words.
    pub trouble: Option<String>,
    /// For how long it has been silent; 0: it has just answered; absent: it has never answered this operator.
    pub silent_millis: Option<u64>,
    /// The resident memory of its process, as it said last; absent when that is not known.
    pub memory_bytes: Option<u64>,
    /// The version of its assignment; 0: it has none.
    pub version: u64,
    /// The shards of its assignment.
    pub assigned: Vec<u32>,
    /// The shards that it works on.
    pub shards: Vec<Shard>,
    /// Shards of its assignment that somebody else had the better right to.
    pub given_up: Vec<GivenUp>,
}

/// A shard, as the worker that works on it tells. See `api/proto/worker.proto`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Shard {
    /// Its number.
    pub shard: u32,
    /// A word of the engine.
    pub phase: String,
    /// The last committed epoch.
    pub epoch: u64,
    /// Records that are not read yet.
    pub lag_records: u64,
    /// For how long the oldest record has waited that is not processed yet; 0: none waits; absent when that is not known.
    pub freshness_millis: Option<u64>,
    /// How old its newest checkpoint is; absent without one.
    pub checkpoint_age_millis: Option<u64>,
    /// For how long it has been running there; absent while it does not.
    pub running_millis: Option<u64>,
    /// What part of a processor's time it has taken lately, in thousandths; absent in its first minute.
    pub load_permille: Option<u32>,
    /// Why it does not run, if it failed.
    pub failure: Option<String>,
    /// Whether it cannot go on without help.
    pub stalled: bool,
}

/// A shard that a worker gave up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GivenUp {
    /// Its number.
    pub shard: u32,
    /// The version that was met.
    pub version: u64,
    /// Whose it is.
    pub winner: String,
}
