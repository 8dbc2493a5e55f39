//! How a change goes into force: defaults and limits.

use std::time::Duration;

use super::{check_count, check_range};
use crate::finding::Finding;
use crate::job::UpgradeSpec;
use crate::path::Path;
use crate::quantity::TimeSpan;

/// A few hundred commits, and time for a first checkpoint.
const UPGRADE_OBSERVE: TimeSpan = TimeSpan::from_millis(30_000);
/// Below, not even a container starts; above, a bad revision would do harm for long.
pub(crate) const UPGRADE_OBSERVE_RANGE: [TimeSpan; 2] = [TimeSpan::from_millis(1_000), TimeSpan::from_millis(3_600_000)];
/// An image is pulled and a large shard restored within.
const UPGRADE_DEADLINE: TimeSpan = TimeSpan::from_millis(600_000);
/// Above, nobody would wait for it.
pub(crate) const UPGRADE_DEADLINE_RANGE: [TimeSpan; 2] = [TimeSpan::from_millis(10_000), TimeSpan::from_millis(86_400_000)];
/// Far more than the share of bad records wavers.
const UPGRADE_DEAD_LETTERS: u32 = 10;

/// How a change goes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// For how long shards must process under the new revision before it counts as good.
    pub observe: Duration,
    /// After so long a change that is not in force is taken back.
    pub deadline: Duration,
    /// By how many percent of all records dead letters may grow.
    pub dead_letter_percent_max: u32,
}

pub(super) fn check_upgrade(spec: &UpgradeSpec, at: &Path, findings: &mut Vec<Finding>) -> Upgrade {
    let observe = spec.observe.unwrap_or(UPGRADE_OBSERVE);
    check_range(observe, UPGRADE_OBSERVE_RANGE, &at.key("observe"), findings);
    let deadline = spec.deadline.unwrap_or(UPGRADE_DEADLINE);
    check_range(deadline, UPGRADE_DEADLINE_RANGE, &at.key("deadline"), findings);
    if observe >= deadline {
        let message = format!("{observe} is not shorter than the deadline of {deadline}");
        findings.push(Finding::new(&at.key("observe"), message, "write a shorter time, or a later deadline"));
    }
    let dead_letter_percent_max = spec.dead_letter_percent_max.unwrap_or(UPGRADE_DEAD_LETTERS);
    check_count(dead_letter_percent_max, 0, 100, &at.key("deadLetterPercentMax"), findings);
    Upgrade { observe: observe.get(), deadline: deadline.get(), dead_letter_percent_max }
}
