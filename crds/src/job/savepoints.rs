//! Savepoints that are taken by a schedule. `forebay run` takes none.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When savepoints are taken by themselves, and how many are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavepointsSpec {
    /// When, as cron has it: minute, hour, day of the month, month, day of the week; `0 3 * * *` is every day at three. Or `@hourly`, `@daily`, `@weekly`,
    /// `@monthly`, `@yearly`.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^(@[a-z]+|[0-9A-Za-z*?,/#+-]+( [0-9A-Za-z*?,/#+-]+){4})$"))]
    pub schedule: String,
    /// By which clock, such as `Europe/Berlin`; `UTC` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"))]
    pub time_zone: Option<String>,
    /// How many complete ones are kept; 7 by default. The oldest go with all that they hold. Those that were made by hand are not counted and stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub retain: Option<u32>,
}
