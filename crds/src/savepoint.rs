//! The `IngestionSavepoint` resource as a user writes it and the API server keeps it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::TimeSpan;

/// Uploading the state of a large job, and a few attempts.
const DEADLINE: Duration = Duration::from_secs(600);

/// A savepoint: a copy of a job's state that needs nothing of the job, outlives it, and can be the beginning of another one.
#[allow(clippy::duplicated_attributes, reason = "each column of a table has its own type")]
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "forebay.dev",
    version = "v1alpha1",
    kind = "IngestionSavepoint",
    plural = "ingestionsavepoints",
    shortname = "isp",
    category = "forebay",
    namespaced,
    status = "IngestionSavepointStatus",
    derive = "PartialEq",
    doc = "A savepoint: a copy of a job's state that needs nothing of the job, outlives it, and can be the beginning of another one.",
    printcolumn(name = "Job", type_ = "string", json_path = ".spec.job", description = "Whose state it holds"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "How far it has come"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why, in one word"
    ),
    printcolumn(name = "Path", type_ = "string", json_path = ".status.path", description = "What another job names it by"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestionSavepointSpec {
    /// The name of the job, in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    pub job: String,
    /// It fails when it is not complete after so long; `10m` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<TimeSpan>,
    /// What becomes of the copy when this object is deleted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deletion_policy: SavepointDeletionPolicy,
}

/// What becomes of the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SavepointDeletionPolicy {
    /// It stays in the bucket.
    #[default]
    Retain,
    /// It is deleted, by a pod of the job's image, if the job is still there. The savepoint has a finalizer then, and goes after 5 minutes in any case.
    Delete,
}

/// How far it has come. What is complete, or has failed, stays so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestionSavepointStatus {
    /// The generation of the spec that all this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// In one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SavepointPhase>,
    /// `Ready`, `Reconciling` and `Stalled`, as kstatus has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What another job names it by, in `spec.state.fromSavepoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Time>,
}

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SavepointPhase {
    /// The job is waited for: that it is there, and that its shards have checkpoints of what they hold now.
    Pending,
    /// The checkpoints are copied.
    Copying,
    /// It is there, whatever becomes of the job.
    Completed,
    /// There is none; the conditions say why. Make another one.
    Failed,
}

impl IngestionSavepointSpec {
    /// After so long it has failed.
    pub fn deadline(&self) -> Duration {
        self.deadline.map_or(DEADLINE, TimeSpan::get)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
