//! Savepoints by schedule: which is to be taken now, and which have had their time. From those that exist and the clock, and from nothing else: who was away
//! for long takes one, and whoever looks at the same takes the same one, under the same name.

use forebay_crds::savepoint::SavepointPhase;
use forebay_crds::validate::Schedule;
use k8s_openapi::jiff::Timestamp;

use super::Action;

/// Of those that failed so many are kept, for people to see why.
const FAILED_MAX: usize = 3;

/// What is seen of a job's schedule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calendar {
    /// The schedule, if the job has one.
    pub schedule: Option<Schedule>,
    /// Now.
    pub now: Timestamp,
    /// Since when there is the job.
    pub made: Timestamp,
    /// The savepoints that its schedule has made, in any order.
    pub taken: Vec<Taken>,
}

/// A savepoint that a schedule has made.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// The object's name.
    pub name: String,
    /// When it was due.
    pub due: Timestamp,
    /// How far it has come.
    pub phase: Option<SavepointPhase>,
    /// Where the copy is, once it is complete, whether or not that is known.
    pub path: String,
    /// Whether what was copied goes when the object is deleted.
    pub takes_all: bool,
    /// Whether it is being deleted.
    pub ends: bool,
}

/// `rests`: the job has no workers, and nothing that the last savepoint did not hold. `spared`: the path of one that is left alone.
pub(super) fn plan(calendar: &Calendar, rests: bool, spared: Option<&str>) -> Vec<Action> {
    let Some(schedule) = &calendar.schedule else { return Vec::new() };
    let due = schedule.last_due(calendar.now).filter(|due| !rests && *due >= calendar.made && is_missing(calendar, *due));
    due.map(Action::TakeSavepoint).into_iter().chain(next_to_go(calendar, schedule.retain as usize, spared)).collect()
}

/// Whether neither it nor a later one is there, nor one on its way. One of a time that has not come yet is of a clock that was wrong, and does not count.
fn is_missing(calendar: &Calendar, due: Timestamp) -> bool {
    let is_under_way = |taken: &Taken| !matches!(taken.phase, Some(SavepointPhase::Completed | SavepointPhase::Failed));
    !calendar.taken.iter().any(|taken| (due..=calendar.now).contains(&taken.due) || (is_under_way(taken) && !taken.ends))
}

/// One after another, the oldest first: a pod deletes what each of them holds. Those of a time that has not come yet are the first to go, so that they never push
/// out the one that was taken just now.
fn next_to_go(calendar: &Calendar, retain: usize, spared: Option<&str>) -> Option<Action> {
    if calendar.taken.iter().any(|taken| taken.ends) {
        return None;
    }
    let outlived = |phase, kept: usize| {
        let is_spared = |taken: &Taken| Some(taken.path.as_str()) == spared;
        let mut all: Vec<&Taken> = calendar.taken.iter().filter(|taken| taken.phase == Some(phase) && !is_spared(taken)).collect();
        all.sort_by_key(|taken| (taken.due <= calendar.now, taken.due));
        all.first().copied().filter(|_| all.len() > kept)
    };
    let next = outlived(SavepointPhase::Completed, retain).or_else(|| outlived(SavepointPhase::Failed, FAILED_MAX))?;
    let name = next.name.clone();
    Some(if next.takes_all { Action::DeleteSavepoint(name) } else { Action::DoomSavepoint(name) })
}

#[cfg(test)]
mod tests;
