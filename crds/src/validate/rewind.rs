//! The request to go back to an earlier state: what it means, and its limits.

use std::time::Duration;

use jiff::Timestamp;

use super::{check_count, check_range, connection};
use crate::finding::Finding;
use crate::job::RewindSpec;
use crate::names;
use crate::path::Path;
use crate::quantity::TimeSpan;

/// The state of a large job is downloaded and uploaded once within.
const DEADLINE: TimeSpan = TimeSpan::from_millis(600_000);
/// Below, not even a container starts; above, nobody would wait for it.
pub(crate) const DEADLINE_RANGE: [TimeSpan; 2] = [TimeSpan::from_millis(10_000), TimeSpan::from_millis(86_400_000)];
/// With the pauses of Kubernetes between them, about two minutes.
const RETRIES: u32 = 3;
const RETRIES_MAX: u32 = 10;

/// Where a job is to go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewindTarget {
    /// A savepoint's path.
    Savepoint(String),
    /// A time.
    Time(Timestamp),
}

/// A request to go back to an earlier state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// Its name.
    pub id: String,
    /// Where to.
    pub target: RewindTarget,
    /// After so long it has failed.
    pub deadline: Duration,
    /// How often it is tried again.
    pub retries: u32,
}

/// `None` if it has findings.
pub(super) fn check_rewind(spec: &RewindSpec, at: &Path, findings: &mut Vec<Finding>) -> Option<Rewind> {
    if let Err(way_out) = names::check_label(&spec.id) {
        findings.push(Finding::new(&at.key("id"), format!("{:?} is no id for a rewind", spec.id), way_out));
    }
    let deadline = spec.deadline.unwrap_or(DEADLINE);
    check_range(deadline, DEADLINE_RANGE, &at.key("deadline"), findings);
    let retries = spec.retries.unwrap_or(RETRIES);
    check_count(retries, 0, RETRIES_MAX, &at.key("retries"), findings);
    let target = match (&spec.to_savepoint, &spec.to_time) {
        (Some(path), None) => {
            connection::check_savepoint(path, &at.key("toSavepoint"), findings);
            RewindTarget::Savepoint(path.clone())
        }
        (None, Some(time)) => RewindTarget::Time(time.0),
        (Some(_), Some(_)) | (None, None) => {
            let which = if spec.to_time.is_some() { "both toSavepoint and toTime are named" } else { "nothing is named to go back to" };
            findings.push(Finding::new(at, which, "name either `toSavepoint` or `toTime`"));
            return None;
        }
    };
    Some(Rewind { id: spec.id.clone(), target, deadline: deadline.get(), retries })
}
