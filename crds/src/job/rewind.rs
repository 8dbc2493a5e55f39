//! A request to go on from an earlier state. `forebay run` reads none of it: `forebay rewind` does it by hand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::TimeSpan;

/// Has the job go on, once, from an earlier state of its own: state, books and places in the inputs become those of then. What it has put out since stays
/// out, and comes out once more when the inputs are processed again.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RewindSpec {
    /// Names this rewind: one that was done, or has failed, is not done again under the same id.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub id: String,
    /// The savepoint to go back to, one of this job's own: what `status.path` of an `IngestionSavepoint` says, as in `default/flights/before-3f2a9c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 200), regex(pattern = "^[a-z0-9-]+/[a-z0-9.-]+/[a-z0-9-]+$"))]
    pub to_savepoint: Option<String>,
    /// The time to go back to: each shard to its last epoch of then or before. How far that may be is said by `spec.checkpoint.retained` and `interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Time>,
    /// It fails when it is not done so long after the workers were told to stop, and the job goes on as it was; `10m` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<TimeSpan>,
    /// How often it is tried again when something is in its way that may pass; 3 by default. What cannot work fails at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<u32>,
}
