//! Rewinds: how far the one has come that the manifest asks for, and what is to be done about it. A pod does it, while there are no workers. That it was done
//! is in the object store: the pod finds out, and workers of the new timeline say so. That it has failed stands in the status first, and in the object store as
//! soon as a worker has started since: that one gives it up there, and says so.

use std::time::Duration;

use forebay_crds::IngestionJob;
use forebay_crds::job::RewindPhase;
use forebay_crds::validate::{Rewind, RewindTarget};
use k8s_openapi::jiff::Timestamp;

use super::letters;
use super::rollout::Rollout;
use super::{Action, Fleet, PodState, REPLACE_TIMEOUT, Task, Worker};

/// What is said of a rewind of which nothing but that is known any more.
const GIVEN_UP: &str = "it had failed, and the job has gone on since";

/// What is seen of rewinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sight {
    /// What the manifest asks for.
    pub asked: Option<Asked>,
    /// The pods that do one, or have done: more than one, if another is asked for meanwhile.
    pub pods: Vec<Rewinder>,
}

/// A rewind that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The request.
    pub rewind: Rewind,
    /// What was said of it before.
    pub said: Option<(RewindPhase, String)>,
    /// Since when its workers have been told to stop.
    pub age: Duration,
}

/// A pod that does a rewind.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewinder {
    /// Its name.
    pub pod: String,
    /// Which rewind.
    pub id: String,
    /// How far it is.
    pub task: Task,
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something is waited for, while the job works on.
    Pending(String),
    /// The workers end, or the pod is at work: there should be no workers.
    Rewinding {
        /// What is waited for.
        message: String,
        /// Whether the pod may begin.
        may_begin: bool,
    },
    /// It is done.
    Completed,
    /// It is not done, and why. The job goes on as it was.
    Failed(String),
}

impl Progress {
    /// In one word.
    pub fn phase(&self) -> RewindPhase {
        match self {
            Self::Pending(_) => RewindPhase::Pending,
            Self::Rewinding { .. } => RewindPhase::Rewinding,
            Self::Completed => RewindPhase::Completed,
            Self::Failed(_) => RewindPhase::Failed,
        }
    }
}

impl Fleet {
    /// How far the rewind has come that the manifest asks for, if it does.
    pub fn rewind(&self) -> Option<Progress> {
        let asked = self.rewind.asked.as_ref()?;
        let (id, said) = (&asked.rewind.id, asked.said.as_ref().map(|(phase, _)| *phase));
        let pod = self.rewind.pods.iter().find(|pod| pod.id == *id);
        let goes_on = self.workers.iter().filter_map(Worker::last).any(|said| said.rewind == *id);
        if goes_on || said == Some(RewindPhase::Completed) || pod.is_some_and(|pod| pod.task == Task::Done) {
            return Some(Progress::Completed);
        }
        if let Some((RewindPhase::Failed, message)) = &asked.said {
            return Some(Progress::Failed(message.clone()));
        }
        if self.workers.iter().filter_map(Worker::last).any(|said| said.rewinds_given_up.contains(id)) {
            return Some(Progress::Failed(GIVEN_UP.to_owned()));
        }
        if said != Some(RewindPhase::Rewinding) && pod.is_none() {
            match Rollout::of(self) {
                Rollout::Steady { .. } | Rollout::RolledBack { .. } => {}
                Rollout::First { .. } => return Some(Progress::Pending("the job has not processed on all workers yet".to_owned())),
                Rollout::Save { to, .. } | Rollout::Canary { to, .. } | Rollout::Switch { to, .. } => {
                    return Some(Progress::Pending(format!("the change to revision {to} comes first")));
                }
            }
        }
        Some(asked.under_way(self, pod))
    }

    /// The id of the rewind that the manifest asks for, if it has failed: the workers that start now give it up for good.
    pub fn failed_rewind(&self) -> Option<&str> {
        let is_failed = matches!(self.rewind(), Some(Progress::Failed(_)));
        self.rewind.asked.as_ref().filter(|_| is_failed).map(|asked| asked.rewind.id.as_str())
    }

    /// The path of the savepoint that the manifest wants the job to go back to, or has wanted it to.
    pub(super) fn goes_back_to(&self) -> Option<&str> {
        match &self.rewind.asked.as_ref()?.rewind.target {
            RewindTarget::Savepoint(path) => Some(path),
            RewindTarget::Time(_) => None,
        }
    }

    /// Whether there should be no workers because of one: of one that has failed or is no longer asked for, too, until its pod is gone, for so long it
    /// may still come to its end.
    pub fn is_rewinding(&self) -> bool {
        matches!(self.rewind(), Some(Progress::Rewinding { .. })) || self.rewind.pods.iter().any(|pod| pod.task != Task::Done)
    }
}

impl Asked {
    /// What the job's manifest asks for, with what its status says of that.
    pub fn of(rewind: &Rewind, job: &IngestionJob, now: Timestamp) -> Self {
        let said = job.status.as_ref().and_then(|status| status.rewind.as_ref()).filter(|said| said.id == rewind.id);
        let started = said.and_then(|said| said.started.as_ref());
        Self {
            rewind: rewind.clone(),
            said: said.map(|said| (said.phase, said.message.clone())),
            age: started.and_then(|started| now.duration_since(started.0).try_into().ok()).unwrap_or_default(),
        }
    }

    /// Where to, for people.
    pub fn to(&self) -> String {
        match &self.rewind.target {
            RewindTarget::Savepoint(path) => format!("savepoint {path}"),
            RewindTarget::Time(time) => format!("its state at {time}"),
        }
    }

    fn under_way(&self, fleet: &Fleet, pod: Option<&Rewinder>) -> Progress {
        let message = match pod {
            Some(Rewinder { task: Task::Refused(why), .. }) => return Progress::Failed(why.clone()),
            Some(Rewinder { task: Task::Working(restarts, Some(trouble)), .. }) if *restarts > self.rewind.retries => {
                return Progress::Failed(format!("it was tried {} times: {}", restarts + 1, trouble.words()));
            }
            Some(Rewinder { task: Task::Working(_, Some(trouble)), .. }) => format!("it is tried again: {}", trouble.words()),
            Some(Rewinder { task: Task::Lost, .. }) => "its pod is lost, and is made anew".to_owned(),
            Some(Rewinder { task: Task::Working(_, None) | Task::Done, .. }) => "the state is made ready".to_owned(),
            None => format!("{} workers release their shards", fleet.workers.len()),
        };
        if self.age > self.rewind.deadline {
            return Progress::Failed(format!("it is not done after {} s: {message}", self.rewind.deadline.as_secs()));
        }
        // A lost node is waited for a minute: the claims that end the timeline bar whoever may still run there.
        let is_waited_for = |worker: &Worker| !matches!(worker.state, PodState::Ending | PodState::Stuck) || self.age < REPLACE_TIMEOUT;
        let others = fleet.rewind.pods.iter().any(|pod| pod.id != self.rewind.id);
        Progress::Rewinding { message, may_begin: !others && !fleet.workers.iter().any(is_waited_for) }
    }
}

/// Makes the pod when there are no workers, and deletes it when it is no longer of use: not before what came of it is written down.
pub(super) fn plan(fleet: &Fleet) -> Vec<Action> {
    let asked = fleet.rewind.asked.as_ref();
    let is_over =
        asked.and_then(|asked| asked.said.as_ref()).is_some_and(|(phase, _)| matches!(phase, RewindPhase::Completed | RewindPhase::Failed));
    let is_used = |pod: &&Rewinder| !is_over && asked.is_some_and(|asked| asked.rewind.id == pod.id);
    let end = |pod: &Rewinder| match pod.task {
        Task::Lost => Some(Action::DropLost(pod.pod.clone())),
        Task::Working(..) | Task::Refused(_) | Task::Done => (!is_used(&pod)).then(|| Action::DeleteRewinder(pod.pod.clone())),
    };
    let mut actions: Vec<Action> = fleet.rewind.pods.iter().filter_map(end).collect();
    let has_pod = fleet.rewind.pods.iter().any(|pod| is_used(&pod));
    // From then on no letters are put back.
    let has_letters = !fleet.postmen.is_empty() || fleet.configs.keys().any(|template| letters::are_due(fleet, template));
    if !has_pod && !has_letters && matches!(fleet.rewind(), Some(Progress::Rewinding { may_begin: true, .. })) {
        actions.push(Action::Rewind);
    }
    actions
}
