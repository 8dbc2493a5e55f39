//! Savepoints: what is to be done about one, from what is seen of it and its job. Pure, and nothing is remembered: an operator may end between any two
//! actions. The copying is done by a pod, which needs no worker.

pub mod reconcile;

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_crds::savepoint::SavepointPhase;
use k8s_openapi::jiff::Timestamp;

use crate::plan::{Fleet, Refused, Task, Trouble};

/// A pod that failed so often will not do better.
const RESTARTS_MAX: u32 = 5;

/// A pod that is made when the time is over has so long to find that all is there: to start on a busy node, and to read one object.
const FIND_TIMEOUT: Duration = Duration::from_secs(60);

/// Shards that are restored after a loss process again within this; those of a job that does not run at all must not keep it from being changed.
const AILING_TIMEOUT: Duration = Duration::from_secs(20);

/// What is seen of a savepoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// What was said of it before: one that is over stays over.
    pub phase: Option<SavepointPhase>,
    /// Since when it has been asked for, or up to a second less.
    pub age: Duration,
    /// After so long it has failed.
    pub deadline: Duration,
    /// Whether a change of the job waits for it.
    pub is_waited_for: bool,
    /// Its job; `None` while there is none.
    pub job: Option<Fleet>,
    /// The pod that copies.
    pub pod: Option<Task>,
    /// For how long there has been that.
    pub pod_age: Duration,
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
    /// Make the one that copies, of a job without workers, what is in the journal too.
    CopyAtRest,
    /// Make one that copies nothing, and finds out whether the copy is there.
    Find,
    /// Delete it.
    CleanUp,
    /// Delete it without waiting for its node: it is lost.
    DropLost,
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

/// For how long at least there has been what is told to have been made then. That is told in whole seconds, rounded down: taken as it stands, a checkpoint from
/// the second before would pass for one from after, and what came in between would be missing from the savepoint.
fn age_at_least(made: Timestamp, now: Timestamp) -> Duration {
    let age: Duration = now.duration_since(made).try_into().unwrap_or(Duration::ZERO);
    age.saturating_sub(Duration::from_secs(1))
}

/// How it is, and what to do. `None`: it is over, and was said to be.
pub fn step(sight: &Sight) -> (Option<Progress>, Step) {
    let clean_up = match sight.pod {
        Some(Task::Lost) => Step::DropLost,
        Some(Task::Working(..) | Task::Refused(_) | Task::Done) => Step::CleanUp,
        None => Step::Wait,
    };
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
            let message = trouble.as_ref().map_or("the checkpoints are being copied".to_owned(), Trouble::words);
            if *restarts >= RESTARTS_MAX && trouble.is_some() {
                return (progress(SavepointPhase::Failed, "CopyFailed", message), Step::CleanUp);
            }
            ("Copying", message, Step::Wait)
        }
        (Some(Task::Lost), _) => ("Copying", "the pod that copies is lost, and is made anew".to_owned(), Step::DropLost),
        // It may be complete, and its status was lost.
        (None, Some(_)) if sight.phase.is_none() && sight.age > sight.deadline => {
            let message = "nothing is known of it, and its time is over: it is seen whether the copy is there";
            return (progress(SavepointPhase::Copying, "Copying", message.to_owned()), Step::Find);
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
    if sight.age > sight.deadline && (sight.pod.is_none() || sight.pod_age > FIND_TIMEOUT) {
        let message = format!("it is not complete after {} s: {message}", sight.deadline.as_secs());
        return (progress(SavepointPhase::Failed, "DeadlineExceeded", message), clean_up);
    }
    let phase = if sight.pod.is_some() || matches!(next, Step::Copy(_) | Step::CopyAtRest | Step::Find) {
        SavepointPhase::Copying
    } else {
        SavepointPhase::Pending
    };
    (progress(phase, reason, message), next)
}

/// What the pod is told besides that it should copy.
pub fn arguments(step: &Step) -> Vec<String> {
    match step {
        Step::Copy(empty) if !empty.is_empty() => {
            vec!["--empty".to_owned(), empty.iter().map(u32::to_string).collect::<Vec<_>>().join(",")]
        }
        Step::CopyAtRest => vec!["--at-rest".to_owned()],
        Step::Find => vec!["--existing".to_owned()],
        Step::Copy(_) | Step::Wait | Step::Checkpoint(_) | Step::CleanUp | Step::DropLost => Vec::new(),
    }
}

/// Checkpoints that hold all that the shards held when the savepoint was asked for. Of a job that rests the rest is in the journal.
fn waits_for(job: &Fleet, age: Duration) -> (&'static str, String, Step) {
    if job.is_rewinding() {
        return ("JobRewinds", "the job is being rewound, and the savepoint is of what it goes on from".to_owned(), Step::Wait);
    }
    if job.replicas == 0 {
        return match job.workers.len() {
            0 => ("Copying", "the checkpoints are copied, and what the journal holds behind them".to_owned(), Step::CopyAtRest),
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
