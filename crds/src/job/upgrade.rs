//! How a change goes into force. `forebay run` reads none of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::TimeSpan;

/// How a change goes into force: one worker more gets one shard under the new revision, and if that goes well the others follow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeSpec {
    /// For how long shards must process under the new revision before it counts as good; `30s` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observe: Option<TimeSpan>,
    /// A change whose first shard does not process well after so long is taken back; `10m` by default. Each worker that follows has as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<TimeSpan>,
    /// A change is taken back when the share of records that become dead letters grows by more than so many percent of all records, and
    /// more than under the revision before meanwhile; 10 by default. With 100 dead letters alone never do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub dead_letter_percent_max: Option<u32>,
}
