//! Which shards belong to which worker: sticky, balanced, versioned. What a worker says that it was given is the truth; nothing is kept here.
//!
//! A shard has a new owner only when nobody who answers holds it, so a planned move is a release, then a claim. Who is silent for too long
//! holds nothing.

use std::collections::{BTreeMap, BTreeSet};

use forebay_api::v1::Description;

use super::{Action, Answer, PodState, WORKER_TIMEOUT, Worker};

/// Who holds a shard: the one with the highest version of those who were given it.
struct Holding<'a> {
    version: u64,
    worker: &'a Worker,
    /// Not to be taken from it; `false` while it is releasing.
    is_assigned: bool,
}

pub(super) fn plan(workers: &[Worker]) -> Vec<Action> {
    let able: Vec<(&Worker, &Description)> = workers.iter().filter(|worker| worker.is_live()).filter_map(with_description).collect();
    let Some(shards) = able.first().map(|(_, said)| said.shards) else { return Vec::new() };
    let held = held(workers);
    let mut wanted: BTreeMap<&str, BTreeSet<u32>> = able.iter().map(|(worker, _)| (worker.pod.as_str(), BTreeSet::new())).collect();
    for (shard, holding) in held.iter().filter(|(_, holding)| holding.is_assigned) {
        if let Some(set) = wanted.get_mut(holding.worker.pod.as_str()) {
            set.insert(*shard);
        }
    }
    let free: Vec<u32> = (0..shards).filter(|shard| !held.contains_key(shard)).collect();
    let is_moving = held.values().any(|holding| !holding.is_assigned);
    if free.is_empty() && !is_moving {
        move_one(&mut wanted, &able, shards);
    } else if !workers.iter().any(may_hold_something) {
        for shard in free {
            let least = wanted.values_mut().min_by_key(|set| set.len()).expect("there is a worker that answers");
            least.insert(shard);
        }
    }
    let version = workers.iter().filter_map(Worker::last).map(highest_version).max().unwrap_or(0) + 1;
    let changed = able.iter().filter(|(worker, said)| is_news(said, &wanted[worker.pod.as_str()]));
    changed.map(|(worker, _)| Action::Assign { pod: worker.pod.clone(), version, shards: wanted[worker.pod.as_str()].clone() }).collect()
}

fn with_description(worker: &Worker) -> Option<(&Worker, &Description)> {
    worker.heard().map(|said| (worker, said))
}

fn held(workers: &[Worker]) -> BTreeMap<u32, Holding<'_>> {
    let mut held: BTreeMap<u32, Holding<'_>> = BTreeMap::new();
    for worker in workers {
        let said = match &worker.answer {
            Answer::Heard(said) => said,
            Answer::Silent(since, said) if *since < WORKER_TIMEOUT => said,
            Answer::Unheard(_) | Answer::Silent(..) => continue,
        };
        let version = said.assignment.as_ref().map_or(0, |assignment| assignment.version);
        let assigned = if worker.is_live() { given(said) } else { BTreeSet::new() };
        let owned = said.owned.iter().map(|shard| shard.shard);
        for shard in assigned.iter().copied().chain(owned).collect::<BTreeSet<_>>() {
            if held.get(&shard).is_none_or(|other| other.version < version) {
                held.insert(shard, Holding { version, worker, is_assigned: assigned.contains(&shard) });
            }
        }
    }
    held
}

/// What it was given and has not lost to a better right.
fn given(said: &Description) -> BTreeSet<u32> {
    let lost: BTreeSet<u32> = said.given_up.iter().map(|given_up| given_up.shard).collect();
    said.assignment.iter().flat_map(|assignment| &assignment.shards).copied().filter(|shard| !lost.contains(shard)).collect()
}

/// A pod that runs and has not said anything to this operator yet may have shards, for it may have been there before the operator.
fn may_hold_something(worker: &Worker) -> bool {
    matches!((worker.state, &worker.answer), (PodState::Ready, Answer::Unheard(since)) if *since < WORKER_TIMEOUT)
}

/// Takes one shard from the worker with the most, when another has two less: never during a restore, and never two at a time.
fn move_one(wanted: &mut BTreeMap<&str, BTreeSet<u32>>, able: &[(&Worker, &Description)], shards: u32) {
    let running = able.iter().flat_map(|(_, said)| &said.owned).filter(|shard| shard.phase == "running").count();
    let least = wanted.values().map(BTreeSet::len).min().unwrap_or(0);
    let Some(most) = wanted.values_mut().max_by_key(|set| set.len()) else { return };
    if running == shards as usize && most.len() >= least + 2 {
        most.pop_last();
    }
}

fn highest_version(said: &Description) -> u64 {
    let assigned = said.assignment.iter().map(|assignment| assignment.version);
    assigned.chain(said.given_up.iter().map(|given_up| given_up.version)).max().unwrap_or(0)
}

/// Whether it has to be told: something else than it has, or again what it gave up under a version that was too low.
fn is_news(said: &Description, wanted: &BTreeSet<u32>) -> bool {
    let has: BTreeSet<u32> = said.assignment.iter().flat_map(|assignment| &assignment.shards).copied().collect();
    has != *wanted || said.given_up.iter().any(|given_up| wanted.contains(&given_up.shard))
}
