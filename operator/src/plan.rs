//! From what is seen of a job to what is to be done about it. Pure: no client, no clock, no randomness; the same observation gives the same
//! plan, so an operator that was away, or starts anew, goes on where the last one stood.
//!
//! It may be wrong about who is alive: claims make that safe, and the next look puts it right.

pub mod assignment;
mod balance;
pub mod letters;
mod pods;
mod refused;
pub mod rewind;
pub mod rollout;
pub mod schedule;
pub mod trend;
mod trouble;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay_api::v1::Shard;
use forebay_crds::savepoint::SavepointPhase;
use forebay_crds::validate::Upgrade;
use k8s_openapi::jiff::Timestamp;

use letters::{Letters, Postman, ToldBy};
use rollout::{Rollout, Standing};
use schedule::Calendar;

pub use refused::{Refusal, Refused};
pub use trouble::{SERVER_AWAY, Trouble};
pub use worker::{Answer, PodState, Secrets, Worker};

/// A worker that is silent for so long loses its shards to others, long before Kubernetes takes its node for lost.
pub const WORKER_TIMEOUT: Duration = Duration::from_secs(5);
/// A worker that is silent for so long is replaced: its node may be gone, and nobody might ever say so. Long enough for a container
/// to be started again, and its shards to be restored on the same volume.
pub const REPLACE_TIMEOUT: Duration = Duration::from_secs(60);
/// For so long the last checkpoints of a job that is to rest are waited for: an object store that is down must not keep it from that.
const LAST_CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a plan is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// How many workers there should be.
    pub replicas: u32,
    /// For how long it has been on its way to rest, if there should be none.
    pub stops_for: Duration,
    /// What their pods should be made from, by the manifest: a hash of it, image and resources. Names the config map too.
    pub template: String,
    /// When a change counts as good, and when it is taken back.
    pub gate: Upgrade,
    /// The pods that there are, by name.
    pub workers: Vec<Worker>,
    /// The config maps that there are, by the template that they are for.
    pub configs: BTreeMap<String, Config>,
    /// The savepoints that were taken before changes, by the template that was to come.
    pub savepoints: BTreeMap<String, Saved>,
    /// The savepoints that are taken by a schedule.
    pub calendar: Calendar,
    /// The rewind that is asked for, and what is seen of it.
    pub rewind: rewind::Sight,
    /// The pods that put dead letters back.
    pub postmen: Vec<Postman>,
    /// That the API server does not take the pods of the manifest's revision.
    pub refused: Option<Refused>,
    /// Whether the service is there.
    pub has_service: bool,
    /// Whether the disruption budget is there.
    pub has_budget: bool,
    /// Whether the network policy is there, and is for this operator.
    pub has_policy: bool,
}

/// A config map: it holds all that a revision's pods are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is known of the revision.
    pub standing: Standing,
    /// The object's version: what it is known by is written only if nothing else was written meanwhile.
    pub version: Option<String>,
    /// The hash of what decides the job's results under it, which its dead letters bear; looked at only when it matters.
    pub results: Option<String>,
    /// What is known of its dead letters.
    pub letters: Letters,
}

/// A savepoint that was taken before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The object's name.
    pub name: String,
    /// How far it has come.
    pub phase: Option<SavepointPhase>,
    /// Where the copy is, once it is complete, whether or not that is known.
    pub path: String,
    /// When it was asked for.
    pub made: Timestamp,
    /// Whether what was copied goes when the object is deleted.
    pub takes_all: bool,
}

/// A pod that does one thing and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// At work, or on its way; started anew so many times, and what is wrong with it.
    Working(u32, Option<Trouble>),
    /// It says that it cannot work, however often it is tried, and why.
    Refused(String),
    /// Ended by Kubernetes before it was done, or on a node that is lost: it is made anew, once it is gone.
    Lost,
    /// Done.
    Done,
}

/// What to do. All of them may be done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the service that the pods' names hang on.
    ApplyService,
    /// Make the disruption budget of the pods.
    ApplyBudget,
    /// Make the network policy of the pods, or set it right.
    ApplyPolicy,
    /// Make the config map of the current template.
    ApplyConfig,
    /// Make a pod of this template in this slot.
    ApplyPod {
        /// Its place.
        slot: u32,
        /// What it is made from.
        template: String,
    },
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
    /// Write down what is known of a revision now, on its config map.
    Mark {
        /// The revision.
        template: String,
        /// What is known.
        standing: Standing,
        /// Whether it has made dead letters, perhaps, that are to be put back.
        has_letters: bool,
    },
    /// Write down what has become of the dead letters of a revision.
    MarkLetters {
        /// The revision.
        template: String,
        /// What has.
        letters: Letters,
    },
    /// Make the pod that puts back the dead letters of a revision.
    PutBack {
        /// The revision.
        template: String,
        /// By what they are told from others.
        told_by: ToldBy,
    },
    /// Delete a pod that did that.
    DeletePostman(String),
    /// Have a savepoint taken before the change to the manifest's revision.
    ApplySavepoint,
    /// Have the savepoint taken that was due by schedule then.
    TakeSavepoint(Timestamp),
    /// See to it that what was copied goes with this savepoint.
    DoomSavepoint(String),
    /// Delete it.
    DeleteSavepoint(String),
    /// Make the pod that does the rewind.
    Rewind,
    /// Delete a pod that did one, or should have.
    DeleteRewinder(String),
    /// Delete a pod that does one thing and is lost, without waiting for its node.
    DropLost(String),
    /// Have these pods' workers take checkpoints.
    Checkpoint(BTreeSet<String>),
    /// Tell a worker which shards of others it should prepare.
    Prefetch {
        /// Its pod.
        pod: String,
        /// All of them.
        shards: BTreeSet<u32>,
    },
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
    let rollout = Rollout::of(fleet);
    let mut actions = Vec::new();
    if !fleet.has_service {
        actions.push(Action::ApplyService);
    }
    if !fleet.has_budget {
        actions.push(Action::ApplyBudget);
    }
    if !fleet.has_policy {
        actions.push(Action::ApplyPolicy);
    }
    if fleet.replicas > 0 && !fleet.configs.contains_key(&fleet.template) {
        actions.push(Action::ApplyConfig);
    }
    if matches!(rollout, Rollout::Save { .. }) && fleet.replicas > 0 && !fleet.savepoints.contains_key(&fleet.template) {
        actions.push(Action::ApplySavepoint);
    }
    actions.extend(rewind::plan(fleet));
    actions.extend(letters::plan(fleet));
    actions.extend(schedule::plan(&fleet.calendar, fleet.replicas == 0, fleet.goes_back_to()));
    let last = last_checkpoints(fleet);
    let mut preparation = assignment::Preparation::default();
    match rollout.next(fleet) {
        // Work goes on meanwhile, and whoever takes the job up again has next to no journal to read.
        _ if !last.is_empty() => actions.push(Action::Checkpoint(last)),
        // What it means for the pods shows at the next look, when it is certain.
        Some(standing) => {
            let has_letters = matches!(standing, Standing::Bad(_)) && letters::may_have_some(fleet);
            actions.push(Action::Mark { template: fleet.template.clone(), standing, has_letters });
        }
        None => {
            let (of_pods, before_more) = pods::plan(fleet, &rollout);
            actions.extend(of_pods);
            preparation = before_more;
        }
    }
    let going = |worker: &Worker| actions.iter().any(|action| matches!(action, Action::DeletePod { uid, .. } if *uid == worker.uid));
    let state = |worker: &Worker| if going(worker) { PodState::Ending } else { worker.state };
    let workers: Vec<Worker> = fleet.workers.iter().map(|worker| Worker { state: state(worker), ..worker.clone() }).collect();
    let assigned = assignment::plan(&workers, rollout.canary(), &preparation);
    let is_marked = actions.iter().any(|action| matches!(action, Action::Mark { .. }));
    actions.extend(letters::note(fleet, rollout.canary().filter(|_| !is_marked), &assigned));
    actions.extend(assigned);
    let in_use = |template: &str| {
        rollout.needs(template, fleet)
            || letters::are_due(fleet, template)
            || fleet.workers.iter().any(|worker| worker.template == template)
    };
    actions.extend(rollout::outlived_savepoints(fleet, &rollout));
    actions.extend(fleet.configs.keys().filter(|template| !in_use(template)).cloned().map(Action::DeleteConfig));
    actions
}

/// The pods of a job that is to rest whose shards hold what no checkpoint holds.
fn last_checkpoints(fleet: &Fleet) -> BTreeSet<String> {
    if fleet.replicas > 0 || fleet.stops_for > LAST_CHECKPOINT_TIMEOUT || fleet.is_rewinding() {
        return BTreeSet::new();
    }
    let is_live = |pod: &String| fleet.workers.iter().any(|worker| worker.pod == *pod && worker.is_live());
    fleet.stale(fleet.stops_for).into_iter().filter(is_live).collect()
}

impl Fleet {
    /// The pods of which a shard runs whose newest checkpoint holds it as it was longer ago than this, and does not hold everything either: those that are on their
    /// way out, too.
    pub fn stale(&self, age: Duration) -> BTreeSet<String> {
        let is_fresh = |shard: &Shard| {
            let is_young = shard.checkpoint_taken_millis.is_some_and(|millis| Duration::from_millis(millis) < age);
            // At epoch 0 both are 0: it has never had a record.
            is_young || shard.checkpoint_epoch == shard.epoch || shard.phase != "running"
        };
        let is_stale = |worker: &&Worker| worker.heard().is_some_and(|said| !said.owned.iter().all(is_fresh));
        self.workers.iter().filter(is_stale).map(|worker| worker.pod.clone()).collect()
    }

    /// The shards that run and have never committed an epoch.
    pub fn empty(&self) -> BTreeSet<u32> {
        let owned = self.workers.iter().filter_map(Worker::heard).flat_map(|said| &said.owned);
        owned.filter(|shard| shard.phase == "running" && shard.epoch == 0).map(|shard| shard.shard).collect()
    }

    /// The newest history of the job that any worker has told of. Who works on another one is of no use any more.
    pub fn timeline(&self) -> u32 {
        timeline(&self.workers)
    }

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

/// A shard that does not get on: what it failed by is told until it runs again.
fn fails(shard: &Shard) -> bool {
    shard.stalled || (shard.phase != "running" && !shard.failure.is_empty())
}

fn timeline(workers: &[Worker]) -> u32 {
    workers.iter().filter_map(Worker::last).map(|said| said.timeline).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
