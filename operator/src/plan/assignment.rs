//! Which shards belong to which worker: sticky, balanced, versioned. What a worker says that it was given is the truth; nothing is kept here.
//!
//! A shard has a new owner only when nobody who answers holds it, so a planned move is a release, then a claim; before it the new owner has prepared
//! the shard. So have those who take over from a worker that is about to go. Who is silent for too long holds nothing.

use std::collections::{BTreeMap, BTreeSet};

use forebay_api::v1::{Description, Prefetched};

use super::balance;
use super::{Action, Answer, Fleet, PodState, WORKER_TIMEOUT, Worker, fails, timeline};

/// Who holds a shard: of those who may keep it, or else of those who are releasing it, the one with the highest version.
struct Holding<'a> {
    version: u64,
    worker: &'a Worker,
    /// Not to be taken from it; `false` while it is releasing.
    is_assigned: bool,
}

/// Which shards of others each worker should prepare, by its pod.
pub(super) type Preparation = BTreeMap<String, BTreeSet<u32>>;

/// What others are to prepare before these workers go. Nothing when they have, have failed to, or cannot, and when there are no others.
pub(super) fn preparation<'a>(fleet: &Fleet, leaving: impl Iterator<Item = &'a Worker>, canary: Option<&str>) -> Preparation {
    let timeline = fleet.timeline();
    let leaving: BTreeMap<&str, BTreeSet<u32>> =
        leaving.map(|worker| (worker.pod.as_str(), worker.heard().map(given).unwrap_or_default())).collect();
    let stays =
        |worker: &&Worker| worker.is_live() && !leaving.contains_key(worker.pod.as_str()) && canary != Some(worker.template.as_str());
    let stay = fleet.workers.iter().filter(stays).filter_map(with_description).filter(|(_, said)| said.timeline == timeline);
    let mut counts: BTreeMap<&str, (usize, &Description)> =
        stay.map(|(worker, said)| (worker.pod.as_str(), (given(said).len(), said))).collect();
    let (mut preparation, mut is_done) = (Preparation::new(), true);
    for shard in leaving.into_values().flatten() {
        // Whoever has begun goes on with it.
        let least = counts.iter_mut().min_by_key(|(_, (count, said))| (prefetched(said, shard).is_none(), *count));
        let Some((pod, (count, said))) = least else { return Preparation::new() };
        *count += 1;
        is_done &= is_prepared(said, shard);
        preparation.entry((*pod).to_owned()).or_default().insert(shard);
    }
    if is_done { Preparation::new() } else { preparation }
}

/// `canary`: workers of this template get one shard, as long as there are others for the rest. What is to be prepared comes before what is out of balance.
pub(super) fn plan(workers: &[Worker], canary: Option<&str>, preparation: &Preparation) -> Vec<Action> {
    let (timeline, version) = (timeline(workers), workers.iter().filter_map(Worker::last).map(highest_version).max().unwrap_or(0) + 1);
    let mut actions = releases(workers, version);
    let is_of_now = |(_, said): &(&Worker, &Description)| said.timeline == timeline;
    let able: Vec<(&Worker, &Description)> =
        workers.iter().filter(|worker| worker.is_live()).filter_map(with_description).filter(is_of_now).collect();
    let Some(shards) = able.first().map(|(_, said)| said.shards) else { return actions };
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
    if free.is_empty() && !is_moving(&held) {
        let next = next_move(&wanted, &able, &trying, shards).filter(|_| preparation.is_empty());
        if let Some(Move { shard, from, .. }) = next.as_ref().filter(|next| next.is_prepared)
            && let Some(set) = wanted.get_mut(from)
        {
            set.remove(shard);
        } else if all_run(&able, shards) {
            let of_move = next.map(|next| Preparation::from([(next.to.to_owned(), BTreeSet::from([next.shard]))])).unwrap_or_default();
            let wanted = if preparation.is_empty() { &of_move } else { preparation };
            actions.extend(able.iter().filter_map(|(worker, said)| prefetch(worker, said, wanted.get(&worker.pod))));
        }
    } else if !workers.iter().any(may_hold_something) {
        for shard in free {
            let has_prepared = |pod: &str| {
                let said = able.iter().find(|(worker, _)| worker.pod == pod).map(|(_, said)| said);
                said.is_some_and(|said| prefetched(said, shard).is_some())
            };
            let may_take = |(pod, set): &(&&str, &mut BTreeSet<u32>)| set.is_empty() || !trying.contains(*pod);
            // One that is to try a change comes first: nothing goes on before it has.
            let least = wanted.iter_mut().filter(may_take).min_by_key(|(pod, set)| (!trying.contains(*pod), !has_prepared(pod), set.len()));
            least.expect("there is a worker that answers, and it is not kept from anything unless there are others").1.insert(shard);
        }
    }
    let changed = able.iter().filter(|(worker, said)| is_news(said, &wanted[worker.pod.as_str()]));
    actions.extend(changed.map(|(worker, _)| Action::Assign {
        pod: worker.pod.clone(),
        version,
        shards: wanted[worker.pod.as_str()].clone(),
    }));
    actions
}

/// Those that were to be gone by now are told to release what they have: nobody else ends them.
fn releases(workers: &[Worker], version: u64) -> Vec<Action> {
    let stuck = workers.iter().filter(|worker| worker.state == PodState::Stuck).filter_map(with_description);
    let has_some = |said: &Description| said.assignment.as_ref().is_some_and(|assignment| !assignment.shards.is_empty());
    let told = stuck.filter(|(_, said)| has_some(said));
    told.map(|(worker, _)| Action::Assign { pod: worker.pod.clone(), version, shards: BTreeSet::new() }).collect()
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
            let is_assigned = assigned.contains(&shard);
            if held.get(&shard).is_none_or(|other| (other.is_assigned, other.version) < (is_assigned, version)) {
                held.insert(shard, Holding { version, worker, is_assigned });
            }
        }
    }
    held
}

/// What it was given and has not lost to a better right.
pub(super) fn given(said: &Description) -> BTreeSet<u32> {
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

/// One shard for a worker that is to try a change and has none, or one that evens out what they have to do: never during a restore, and never two at a time.
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
    if !all_run(able, shards) {
        return None;
    }
    let loads: BTreeMap<u32, u32> = owned().filter_map(|shard| Some((shard.shard, shard.load_permille?))).collect();
    let (shard, from, to) = match waiting {
        Some(to) => {
            let (from, most) = others.iter().max_by_key(|(_, set)| set.len())?;
            (*most.last()?, *from, to)
        }
        None => balance::next(&others, &loads)?,
    };
    let (_, said) = able.iter().find(|(worker, _)| worker.pod == to)?;
    Some(Move { shard, from, to, is_prepared: is_prepared(said, shard) })
}

/// Whether nothing is gained by waiting for it. One that failed is restored behind the claim, as after a loss.
fn is_prepared(said: &Description, shard: u32) -> bool {
    !said.can_prefetch || prefetched(said, shard).is_some_and(|prefetched| prefetched.ready || !prefetched.failure.is_empty())
}

fn prefetched(said: &Description, shard: u32) -> Option<&Prefetched> {
    said.prefetched.iter().find(|prefetched| prefetched.shard == shard)
}

/// What a worker should prepare, if that is news to it.
fn prefetch(worker: &Worker, said: &Description, wanted: Option<&BTreeSet<u32>>) -> Option<Action> {
    let has: BTreeSet<u32> = said.prefetched.iter().map(|prefetched| prefetched.shard).collect();
    let wanted = wanted.filter(|_| said.can_prefetch).cloned().unwrap_or_default();
    (has != wanted).then(|| Action::Prefetch { pod: worker.pod.clone(), shards: wanted })
}

fn all_run(able: &[(&Worker, &Description)], shards: u32) -> bool {
    let owned = able.iter().flat_map(|(_, said)| &said.owned);
    owned.filter(|shard| shard.phase == "running").count() == shards as usize
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
