//! Which pods to make and which to delete. A pod on a lost node does not block its replacement: its slot stays taken until it is gone, and the
//! new one takes another. One that could go on goes when others have prepared its shards.

use super::assignment::{Preparation, preparation};
use super::rollout::Rollout;
use super::{Action, Answer, Fleet, PodState, REPLACE_TIMEOUT, Worker};

const CHANGED: &str = "its image, manifest or resources have changed";

/// What is decided so far.
#[derive(Default)]
struct Pods<'a> {
    actions: Vec<Action>,
    /// Who is to go, and why, as soon as nothing stands still for long because of it.
    leaving: Vec<(&'a Worker, String)>,
}

/// What to do, and what others are to prepare before more is done.
pub(super) fn plan(fleet: &Fleet, rollout: &Rollout<'_>) -> (Vec<Action>, Preparation) {
    let mut pods = Pods::default();
    // Those that are to stay, as far as it has come.
    let mut stay: Vec<&Worker> = Vec::new();
    let timeline = fleet.timeline();
    for worker in &fleet.workers {
        match reason_to_replace(worker, timeline) {
            Some(reason) => pods.actions.push(delete(worker, reason)),
            None if worker.is_live() => stay.push(worker),
            None => {}
        }
    }
    stay.sort_by_key(|worker| worker.slot);
    let missing = match rollout {
        Rollout::First { template } | Rollout::Steady { template } | Rollout::Save { from: template, .. } => {
            settled(fleet, template, stay, &mut pods)
        }
        Rollout::RolledBack { template, .. } => {
            let bad = stay.extract_if(.., |worker| worker.template != *template);
            pods.actions.extend(bad.map(|worker| delete(worker, "its revision was taken back".to_owned())));
            settled(fleet, template, stay, &mut pods)
        }
        Rollout::Canary { to, .. } | Rollout::Switch { to, .. } if fleet.replicas == 0 => one_revision(fleet, to, stay, &mut pods),
        Rollout::Canary { from, to } => canary(fleet, from, to, stay, &mut pods),
        Rollout::Switch { to, .. } => switch(fleet, to, stay, &mut pods),
    };
    let Pods { mut actions, leaving } = pods;
    // Never during a restore: what is to be prepared then is not known, and nobody waits for it.
    let going = leaving.iter().map(|(worker, _)| *worker);
    let waits = if fleet.all_run() { preparation(fleet, going, rollout.canary()) } else { Preparation::new() };
    if waits.is_empty() {
        actions.extend(leaving.into_iter().map(|(worker, reason)| delete(worker, reason)));
    }
    let slots = (0..).filter(|slot| fleet.workers.iter().all(|worker| worker.slot != *slot));
    actions.extend(slots.zip(missing).map(|(slot, template)| Action::ApplyPod { slot, template: template.to_owned() }));
    (actions, waits)
}

/// `None` for one that is on its way out already.
fn reason_to_replace(worker: &Worker, timeline: u32) -> Option<String> {
    match (&worker.state, &worker.answer) {
        (PodState::Ending | PodState::Stuck, _) => None,
        (PodState::Over, _) => Some("it has ended".to_owned()),
        (PodState::Starting | PodState::Ready, Answer::Silent(since, _)) if *since >= REPLACE_TIMEOUT => {
            Some(format!("it has been silent for {} s", since.as_secs()))
        }
        (PodState::Starting | PodState::Ready, Answer::Heard(said)) if said.timeline < timeline => {
            Some(format!("the job was rewound, and it works on timeline {}", said.timeline))
        }
        // An operator that came after its node was lost has never heard it, and never will. One that is only slow to come up has not been ready either.
        (PodState::Starting, Answer::Unheard(since)) if worker.was_ready && *since >= REPLACE_TIMEOUT => {
            Some(format!("it has been silent for {} s, and so has its node", since.as_secs()))
        }
        (PodState::Starting | PodState::Ready, Answer::Unheard(_) | Answer::Heard(_) | Answer::Silent(..)) => None,
    }
}

/// No change is under way. Whoever was started with other secrets is replaced as for a change: one that comes with wrong ones harms nobody.
fn settled<'a>(fleet: &Fleet, template: &'a str, stay: Vec<&'a Worker>, pods: &mut Pods<'a>) -> Vec<&'a str> {
    match fleet.replicas > 0 && stay.iter().any(|worker| worker.is_stale()) {
        true => switch(fleet, template, stay, pods),
        false => one_revision(fleet, template, stay, pods),
    }
}

/// All pods of one template. Returns what those are made from that are missing.
fn one_revision<'a>(fleet: &Fleet, template: &'a str, mut stay: Vec<&'a Worker>, pods: &mut Pods<'a>) -> Vec<&'a str> {
    trim(fleet, template, &mut stay, pods);
    if let Some(outdated) = next_outdated(fleet, template, &stay) {
        pods.actions.push(delete(outdated, why_outdated(outdated, template)));
    }
    vec![template; fleet.replicas as usize - stay.len()]
}

/// One pod of `to` beside a full set of the others.
fn canary<'a>(fleet: &Fleet, from: &'a str, to: &'a str, stay: Vec<&'a Worker>, pods: &mut Pods<'a>) -> Vec<&'a str> {
    let (mut news, others): (Vec<&Worker>, Vec<&Worker>) = stay.into_iter().partition(|worker| worker.template == to);
    let one_too_many = news.drain(1.min(news.len())..).map(|worker| delete(worker, "one worker tries the change first".to_owned()));
    pods.actions.extend(one_too_many);
    let mut missing = one_revision(fleet, from, others, pods);
    missing.extend(news.is_empty().then_some(to));
    missing
}

/// One pod more than wanted, until all are of `to` and have the secrets of now: one comes, then one of the others goes.
fn switch<'a>(fleet: &Fleet, to: &'a str, stay: Vec<&'a Worker>, pods: &mut Pods<'a>) -> Vec<&'a str> {
    let wanted = fleet.replicas as usize;
    let (mut news, mut others): (Vec<&Worker>, Vec<&Worker>) =
        stay.into_iter().partition(|worker| worker.template == to && !worker.is_stale());
    trim(fleet, to, &mut news, pods);
    let there = news.len() + others.len();
    // Fewer are wanted than before: that does not wait for one that may never come up.
    let surplus = there.saturating_sub(wanted + 1).min(others.len());
    if surplus > 0 {
        let going = others.split_off(others.len() - surplus);
        pods.leaving.extend(going.into_iter().map(|worker| (worker, unwanted(wanted))));
        return Vec::new();
    }
    let all_answer = news.iter().chain(&others).all(|worker| worker.heard().is_some());
    let may_go = all_answer && there > wanted;
    let ailing = others.iter().find(|worker| worker.ails());
    // One whose shard fails again and again is not waited for: the change may be what that needs.
    let failing = others.iter().find(|worker| worker.fails()).filter(|_| may_go);
    if let Some(next) = ailing.or(failing) {
        pods.actions.push(delete(next, why_outdated(next, to)));
    } else if let Some(next) = others.last().filter(|_| may_go && fleet.all_run()) {
        pods.leaving.push((next, why_outdated(next, to)));
    }
    vec![to; (wanted - news.len()).min((wanted + 1).saturating_sub(there))]
}

/// The last ones first that would go: those of another template, then those with the highest slots.
fn trim<'a>(fleet: &Fleet, template: &str, stay: &mut Vec<&'a Worker>, pods: &mut Pods<'a>) {
    let wanted = fleet.replicas as usize;
    stay.sort_by_key(|worker| (worker.template != template, worker.slot));
    let surplus = stay.drain(wanted.min(stay.len())..);
    pods.leaving.extend(surplus.map(|worker| (worker, unwanted(wanted))));
}

/// One at a time, and only when nothing is being restored; one that has nothing to lose at once.
fn next_outdated<'a>(fleet: &Fleet, template: &str, stay: &[&'a Worker]) -> Option<&'a Worker> {
    let mut outdated = stay.iter().rev().filter(|worker| worker.template != template);
    let ailing = stay.iter().rev().find(|worker| worker.ails() && (worker.template != template || worker.is_stale()));
    // One for which there is no room will not answer before another goes.
    let has_no_room = |worker: &Worker| worker.trouble.as_ref().is_some_and(|trouble| trouble.reason == "Unschedulable");
    let all_answer = stay.len() == fleet.replicas as usize && stay.iter().all(|worker| worker.heard().is_some() || has_no_room(worker));
    let failing = outdated.clone().find(|worker| worker.fails());
    let next = failing.or_else(|| outdated.next().filter(|_| fleet.all_run())).filter(|_| all_answer);
    ailing.or(next).copied()
}

fn unwanted(wanted: usize) -> String {
    format!("{wanted} workers are wanted")
}

fn why_outdated(worker: &Worker, template: &str) -> String {
    if worker.template != template {
        return CHANGED.to_owned();
    }
    let secrets: Vec<&str> = worker.secrets.changed.iter().map(String::as_str).collect();
    format!("it was started before this secret was changed: {}", secrets.join(", "))
}

fn delete(worker: &Worker, reason: String) -> Action {
    Action::DeletePod { pod: worker.pod.clone(), uid: worker.uid.clone(), reason }
}
