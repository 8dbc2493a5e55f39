//! From what is seen of a job to what is to be done about it. Pure: no client, no clock, no randomness; the same observation gives the same
//! plan, so an operator that was away, or starts anew, goes on where the last one stood.
//!
//! It may be wrong about who is alive: claims make that safe, and the next look puts it right.

mod assignment;
mod pods;

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_api::v1::Description;

/// A worker that is silent for so long loses its shards to others, long before Kubernetes takes its node for lost.
pub const WORKER_TIMEOUT: Duration = Duration::from_secs(5);
/// A worker that is silent for so long is replaced: its node may be gone, and nobody might ever say so. Long enough for a container
/// to be started again, and its shards to be restored on the same volume.
pub const REPLACE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a plan is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// How many workers there should be.
    pub replicas: u32,
    /// What their pods should be made from: a hash of image, manifest and resources. Names the config map too.
    pub template: String,
    /// The pods that there are, by name.
    pub workers: Vec<Worker>,
    /// The config maps that there are, by the template that they are for.
    pub configs: BTreeSet<String>,
    /// Whether the service is there.
    pub has_service: bool,
    /// Whether the disruption budget is there.
    pub has_budget: bool,
}

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
    /// What the worker in it says.
    pub answer: Answer,
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

/// What to do. All of them may be done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the service that the pods' names hang on.
    ApplyService,
    /// Make the disruption budget of the pods.
    ApplyBudget,
    /// Make the config map of the current template.
    ApplyConfig,
    /// Make a pod of the current template in this slot.
    ApplyPod(u32),
    /// Delete a pod.
    DeletePod {
        /// Its name.
        pod: String,
        /// Its uid: another one of this name is left alone.
        uid: String,
        /// Why, for people.
        reason: String,
    },
    /// Delete the config map of a template that no pod is made from any more.
    DeleteConfig(String),
    /// Tell a worker which shards are its own.
    Assign {
        /// Its pod.
        pod: String,
        /// Above every version that any worker has met.
        version: u64,
        /// All of its shards.
        shards: BTreeSet<u32>,
    },
}

/// What is to be done, in this order.
pub fn plan(fleet: &Fleet) -> Vec<Action> {
    let mut actions = Vec::new();
    if !fleet.has_service {
        actions.push(Action::ApplyService);
    }
    if !fleet.has_budget {
        actions.push(Action::ApplyBudget);
    }
    if !fleet.configs.contains(&fleet.template) {
        actions.push(Action::ApplyConfig);
    }
    actions.extend(pods::plan(fleet));
    actions.extend(assignment::plan(&fleet.workers));
    let in_use = |config: &String| *config == fleet.template || fleet.workers.iter().any(|worker| worker.template == *config);
    actions.extend(fleet.configs.iter().filter(|config| !in_use(config)).cloned().map(Action::DeleteConfig));
    actions
}

impl Fleet {
    /// How many shards the job has, if any worker has said so.
    pub fn shards(&self) -> Option<u32> {
        self.workers.iter().find_map(|worker| worker.last().map(|said| said.shards))
    }

    /// The shards that run, each counted once.
    pub fn running(&self) -> BTreeSet<u32> {
        let said = self.workers.iter().filter_map(Worker::heard);
        said.flat_map(|said| &said.owned).filter(|shard| shard.phase == "running").map(|shard| shard.shard).collect()
    }

    /// Whether every shard is known to run.
    pub fn all_run(&self) -> bool {
        self.shards().is_some_and(|shards| self.running().len() == shards as usize)
    }
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

    /// Whether it is one of those that there should be.
    pub fn is_live(&self) -> bool {
        match self.state {
            PodState::Starting | PodState::Ready => true,
            PodState::Ending | PodState::Over => false,
        }
    }
}

#[cfg(test)]
mod tests;
