//! Savepoints: what is to be done about one, from what is seen of it and its job. Pure, and nothing is remembered: an operator may end between any two
//! actions. The copying is done by a pod, which needs no worker.

pub mod reconcile;

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_crds::savepoint::SavepointPhase;

use crate::plan::{Fleet, Refused, Task};

/// A pod that failed so often will not do better.
const RESTARTS_MAX: u32 = 5;

/// Shards that are restored after a loss process again within this; those of a job that does not run at all must not keep it from being changed.
const AILING_TIMEOUT: Duration = Duration::from_secs(20);

/// What is seen of a savepoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// What was said of it before: one that is over stays over.
    pub phase: Option<SavepointPhase>,
    /// Since when it has been asked for.
    pub age: Duration,
    /// After so long it has failed.
    pub deadline: Duration,
    /// Whether a change of the job waits for it.
    pub is_waited_for: bool,
    /// Its job; `None` while there is none.
    pub job: Option<Fleet>,
    /// The pod that copies.
    pub pod: Option<Task>,
    /// That the API server does not take that pod.
    pub refused: Option<Refused>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for now.
    Wait,
    /// Have these workers take checkpoints, by the names of their pods.
    Checkpoint(BTreeSet<String>),
    /// Make the pod that copies; these shards have nothing to be copied.
    Copy(BTreeSet<u32>),
    /// Delete it.
    CleanUp,
}

/// How it is, in one word, one reason and one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The word.
    pub phase: SavepointPhase,
    /// Why, as one word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// How it is, and what to do. `None`: it is over, and was said to be.
pub fn step(sight: &Sight) -> (Option<Progress>, Step) {
    let clean_up = if sight.pod.is_some() { Step::CleanUp } else { Step::Wait };
    if matches!(sight.phase, Some(SavepointPhase::Completed | SavepointPhase::Failed)) {
        return (None, clean_up);
    }
    let progress = |phase, reason, message: String| Some(Progress { phase, reason, message });
    let (reason, message, next) = match (&sight.pod, &sight.job) {
        (Some(Task::Done), _) => {
            return (progress(SavepointPhase::Completed, "Completed", "the state of all shards is copied".to_owned()), Step::Wait);
        }
        (Some(Task::Refused(why)), _) => return (progress(SavepointPhase::Failed, "CopyFailed", why.clone()), Step::CleanUp),
        (Some(Task::Working(restarts, trouble)), _) => {
            let message = trouble.as_ref().map_or("the checkpoints are being copied".to_owned(), |trouble| trouble.message.clone());
            if *restarts >= RESTARTS_MAX && trouble.is_some() {
                return (progress(SavepointPhase::Failed, "CopyFailed", message), Step::CleanUp);
            }
            ("Copying", message, Step::Wait)
        }
        (None, None) => ("NoSuchJob", "there is no such job in this namespace, or its manifest cannot work".to_owned(), Step::Wait),
        (None, Some(job)) => waits_for(job, sight.age),
    };
    if sight.is_waited_for && reason == "ShardsStarting" && sight.age > AILING_TIMEOUT {
        let message = format!("{message}, and the change that waits for it may be what repairs them");
        return (progress(SavepointPhase::Failed, "JobAils", message), clean_up);
    }
    // A change is better off without than late; others may wait for room in a quota.
    let is_hopeless = |refused: &&Refused| if sight.is_waited_for { refused.is_final() } else { !refused.refusal.may_pass };
    let message = match &sight.refused {
        Some(refused) => format!("the API server refuses the pod that copies: {}", refused.refusal.message),
        None => message,
    };
    if sight.refused.as_ref().filter(is_hopeless).is_some() {
        return (progress(SavepointPhase::Failed, "Refused", message), clean_up);
    }
    if sight.age > sight.deadline {
        let message = format!("it is not complete after {} s: {message}", sight.deadline.as_secs());
        return (progress(SavepointPhase::Failed, "DeadlineExceeded", message), clean_up);
    }
    let phase = if sight.pod.is_some() || matches!(next, Step::Copy(_)) { SavepointPhase::Copying } else { SavepointPhase::Pending };
    (progress(phase, reason, message), next)
}

/// Checkpoints that hold all that the shards held when the savepoint was asked for. Of a job that rests there is nothing newer than its last ones.
fn waits_for(job: &Fleet, age: Duration) -> (&'static str, String, Step) {
    if job.replicas == 0 {
        return match job.workers.len() {
            0 => ("Copying", "the checkpoints are copied".to_owned(), Step::Copy(BTreeSet::new())),
            pods => ("JobStops", format!("{pods} workers are releasing their shards"), Step::Wait),
        };
    }
    if !job.all_run() {
        return ("ShardsStarting", "not all shards of the job process".to_owned(), Step::Wait);
    }
    let stale = job.stale(age);
    match stale.len() {
        0 => ("Copying", "the checkpoints are copied".to_owned(), Step::Copy(job.empty())),
        _ => ("TakingCheckpoints", "shards are taking checkpoints of what they hold now".to_owned(), Step::Checkpoint(stale)),
    }
}

#[cfg(test)]
mod tests;
