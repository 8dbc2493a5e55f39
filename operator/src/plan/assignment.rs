//! Which shards belong to which worker: sticky, balanced, versioned. What a worker says that it was given is the truth; nothing is kept here.
//!
//! A shard has a new owner only when nobody who answers holds it, so a planned move is a release, then a claim; before it the new owner has prepared
//! the shard. Who is silent for too long holds nothing.

use std::collections::{BTreeMap, BTreeSet};

use forebay_api::v1::Description;

use super::{Action, Answer, Fleet, PodState, WORKER_TIMEOUT, Worker, fails, timeline};

/// Who holds a shard: the one with the highest version of those who were given it.
struct Holding<'a> {
    version: u64,
    worker: &'a Worker,
    /// Not to be taken from it; `false` while it is releasing.
    is_assigned: bool,
}

/// `canary`: workers of this template get one shard, as long as there are others for the rest.
pub(super) fn plan(workers: &[Worker], canary: Option<&str>) -> Vec<Action> {
    let timeline = timeline(workers);
    let is_of_now = |(_, said): &(&Worker, &Description)| said.timeline == timeline;
    let able: Vec<(&Worker, &Description)> =
        workers.iter().filter(|worker| worker.is_live()).filter_map(with_description).filter(is_of_now).collect();
    let Some(shards) = able.first().map(|(_, said)| said.shards) else { return Vec::new() };
    let is_canary = |worker: &Worker| canary == Some(worker.template.as_str());
    let has_others = able.iter().any(|(worker, _)| !is_canary(worker));
    let trying: BTreeSet<&str> =
        able.iter().filter(|(worker, _)| has_others && is_canary(worker)).map(|(worker, _)| worker.pod.as_str()).collect();
    let held = held(workers, timeline);
    let mut wanted: BTreeMap<&str, BTreeSet<u32>> = able.iter().map(|(worker, _)| (worker.pod.as_str(), BTreeSet::new())).collect();
    for (shard, holding) in held.iter().filter(|(_, holding)| holding.is_assigned) {
        if let Some(set) = wanted.get_mut(holding.worker.pod.as_str()) {
            set.insert(*shard);
        }
    }
    let free: Vec<u32> = (0..shards).filter(|shard| !held.contains_key(shard)).collect();
    let mut actions = Vec::new();
    if free.is_empty() && !is_moving(&held) {
        let next = next_move(&wanted, &able, &trying, shards);
        if let Some(Move { shard, from, .. }) = next.as_ref().filter(|next| next.is_prepared)
            && let Some(set) = wanted.get_mut(from)
        {
            set.remove(shard);
        } else {
            actions.extend(able.iter().filter_map(|(worker, said)| prefetch(worker, said, next.as_ref())));
        }
    } else if !workers.iter().any(may_hold_something) {
        for shard in free {
            let has_prepared = |pod: &str| {
                let said = able.iter().find(|(worker, _)| worker.pod == pod).map(|(_, said)| said);
                said.is_some_and(|said| said.prefetched.iter().any(|prefetched| prefetched.shard == shard))
            };
            let may_take = |(pod, set): &(&&str, &mut BTreeSet<u32>)| set.is_empty() || !trying.contains(*pod);
            // One that is to try a change comes first: nothing goes on before it has.
            let least = wanted.iter_mut().filter(may_take).min_by_key(|(pod, set)| (!trying.contains(*pod), set.len(), !has_prepared(pod)));
            least.expect("there is a worker that answers, and it is not kept from anything unless there are others").1.insert(shard);
        }
    }
    let version = workers.iter().filter_map(Worker::last).map(highest_version).max().unwrap_or(0) + 1;
    let changed = able.iter().filter(|(worker, said)| is_news(said, &wanted[worker.pod.as_str()]));
    actions.extend(changed.map(|(worker, _)| Action::Assign {
        pod: worker.pod.clone(),
        version,
        shards: wanted[worker.pod.as_str()].clone(),
    }));
    actions
}

/// Whether a worker that answers is on its way to release a shard: what follows should not wait.
pub fn is_under_way(fleet: &Fleet) -> bool {
    is_moving(&held(&fleet.workers, fleet.timeline()))
}

fn is_moving(held: &BTreeMap<u32, Holding<'_>>) -> bool {
    held.values().any(|holding| !holding.is_assigned)
}

fn with_description(worker: &Worker) -> Option<(&Worker, &Description)> {
    worker.heard().map(|said| (worker, said))
}

/// What somebody holds of an earlier timeline is not the same shard.
fn held(workers: &[Worker], timeline: u32) -> BTreeMap<u32, Holding<'_>> {
    let mut held: BTreeMap<u32, Holding<'_>> = BTreeMap::new();
    for worker in workers {
        let said = match &worker.answer {
            Answer::Heard(said) => said,
            Answer::Silent(since, said) if *since < WORKER_TIMEOUT => said,
            Answer::Unheard(_) | Answer::Silent(..) => continue,
        };
        if said.timeline != timeline {
            continue;
        }
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

/// A planned move.
struct Move<'a> {
    shard: u32,
    from: &'a str,
    to: &'a str,
    /// The new owner has the shard's state on its disk, or cannot have it there before.
    is_prepared: bool,
}

/// One shard of the worker with the most, for one that is to try a change and has none, or when another has two less: never during a
/// restore, and never two at a time.
fn next_move<'a>(
    wanted: &BTreeMap<&'a str, BTreeSet<u32>>,
    able: &[(&'a Worker, &'a Description)],
    trying: &BTreeSet<&'a str>,
    shards: u32,
) -> Option<Move<'a>> {
    let owned = || able.iter().flat_map(|(_, said)| &said.owned);
    let waiting = trying.iter().find(|pod| wanted[*pod].is_empty()).copied();
    let others: Vec<(&str, &BTreeSet<u32>)> =
        wanted.iter().filter(|(pod, _)| !trying.contains(*pod)).map(|(pod, set)| (*pod, set)).collect();
    // A change may be what a shard needs that cannot go on. Nothing is gained by preparing what stands still.
    if let Some(to) = waiting
        && let Some(shard) = owned().find(|shard| fails(shard)).map(|shard| shard.shard)
        && let Some((from, _)) = others.iter().find(|(_, set)| set.contains(&shard))
    {
        return Some(Move { shard, from, to, is_prepared: true });
    }
    let running = owned().filter(|shard| shard.phase == "running").count();
    let (least, few) = others.iter().min_by_key(|(_, set)| set.len())?;
    let (from, most) = others.iter().max_by_key(|(_, set)| set.len())?;
    if running != shards as usize || (waiting.is_none() && most.len() < few.len() + 2) {
        return None;
    }
    let (shard, to) = (*most.last()?, waiting.unwrap_or(least));
    let (_, said) = able.iter().find(|(worker, _)| worker.pod == to)?;
    let prefetched = said.prefetched.iter().find(|prefetched| prefetched.shard == shard);
    // One that failed is restored behind the claim, as after a loss.
    let is_prepared = !said.can_prefetch || prefetched.is_some_and(|prefetched| prefetched.ready || !prefetched.failure.is_empty());
    Some(Move { shard, from, to, is_prepared })
}

/// What a worker should prepare, if that is news to it.
fn prefetch(worker: &Worker, said: &Description, next: Option<&Move<'_>>) -> Option<Action> {
    let has: BTreeSet<u32> = said.prefetched.iter().map(|prefetched| prefetched.shard).collect();
    let wanted: BTreeSet<u32> = next.filter(|next| next.to == worker.pod && said.can_prefetch).map(|next| next.shard).into_iter().collect();
    (has != wanted).then(|| Action::Prefetch { pod: worker.pod.clone(), shards: wanted })
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
