//! One pod of a job, and what its worker says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_api::v1::Description;

use super::trend::Trend;
use super::trouble::Trouble;

/// One pod, and what its worker says.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// Its place among the job's pods: part of its name.
    pub slot: u32,
    /// What it was made from.
    pub template: String,
    /// What Kubernetes knows of it.
    pub state: PodState,
    /// For how long there has been the pod.
    pub age: Duration,
    /// Whether its container answered Kubernetes' own probe when its node was last heard of. One that `was_ready` and is not [`PodState::Ready`] is on a
    /// node that is not heard of any more.
    pub was_ready: bool,
    /// How often its container was started again.
    pub restarts: u32,
    /// Why it does not come up, as Kubernetes tells it.
    pub trouble: Option<Trouble>,
    /// What has become of the secrets that its environment comes from.
    pub secrets: Secrets,
    /// What the worker in it says.
    pub answer: Answer,
    /// How the lags of its shards go, while a change is under way.
    pub trends: BTreeMap<u32, Trend>,
}

/// What has become of the secrets that a pod's environment comes from, since it was made. By name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Those that were written since.
    pub changed: BTreeSet<String>,
    /// Those that are not there, without which no such pod starts.
    pub missing: BTreeSet<String>,
}

/// What Kubernetes knows of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    /// It has not answered Kubernetes' own probe yet.
    Starting,
    /// It is up.
    Ready,
    /// It is being deleted.
    Ending,
    /// It was to be gone by now. Its kubelet is not at work, say, and its worker may be.
    Stuck,
    /// It ended, and will not start again.
    Over,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Nothing, since this operator has known of it, so long ago.
    Unheard(Duration),
    /// It has just answered.
    Heard(Description),
    /// It has been silent for so long; this is the last that it said.
    Silent(Duration, Description),
}

impl Worker {
    /// What it has just said.
    pub fn heard(&self) -> Option<&Description> {
        match &self.answer {
            Answer::Heard(said) => Some(said),
            Answer::Unheard(_) | Answer::Silent(..) => None,
        }
    }

    /// The last that it said, whenever that was.
    pub fn last(&self) -> Option<&Description> {
        match &self.answer {
            Answer::Heard(said) | Answer::Silent(_, said) => Some(said),
            Answer::Unheard(_) => None,
        }
    }

    /// Whether it holds up nobody to delete it: it does not come up, or has a shard that cannot go on.
    pub fn ails(&self) -> bool {
        let never_spoke = self.state == PodState::Starting && self.last().is_none();
        never_spoke || self.trouble.is_some() || self.heard().is_some_and(|said| said.owned.iter().any(|shard| shard.stalled))
    }

    /// Whether it answers, and has a shard that does not get on, tried again now and then or not.
    pub fn fails(&self) -> bool {
        self.heard().is_some_and(|said| said.owned.iter().any(super::fails))
    }

    /// Whether its container is down after it was started again.
    pub fn crashes(&self) -> bool {
        self.trouble.is_some() && self.restarts > 0
    }

    /// Whether another one would be started with other secrets, and could be.
    pub fn is_stale(&self) -> bool {
        !self.secrets.changed.is_empty() && self.secrets.missing.is_empty()
    }

    /// Whether it is one of those that there should be.
    pub fn is_live(&self) -> bool {
        match self.state {
            PodState::Starting | PodState::Ready => true,
            PodState::Ending | PodState::Stuck | PodState::Over => false,
        }
    }
}
