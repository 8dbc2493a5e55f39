//! Which pods to make and which to delete. A pod on a lost node does not block its replacement: its slot stays taken until it is gone, and the
//! new one takes another.

use super::rollout::Rollout;
use super::{Action, Answer, Fleet, PodState, REPLACE_TIMEOUT, Worker};

const CHANGED: &str = "its image, manifest or resources have changed";

pub(super) fn plan(fleet: &Fleet, rollout: &Rollout<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    // Those that are to stay, as far as it has come.
    let mut stay: Vec<&Worker> = Vec::new();
    let timeline = fleet.timeline();
    for worker in &fleet.workers {
        match reason_to_replace(worker, timeline) {
            Some(reason) => actions.push(delete(worker, reason)),
            None if worker.is_live() => stay.push(worker),
            None => {}
        }
    }
    stay.sort_by_key(|worker| worker.slot);
    let missing = match rollout {
        Rollout::First { template } | Rollout::Steady { template } | Rollout::Save { from: template, .. } => {
            settled(fleet, template, stay, &mut actions)
        }
        Rollout::RolledBack { template, .. } => {
            let bad = stay.extract_if(.., |worker| worker.template != *template);
            actions.extend(bad.map(|worker| delete(worker, "its revision was taken back".to_owned())));
            settled(fleet, template, stay, &mut actions)
        }
        Rollout::Canary { to, .. } | Rollout::Switch { to, .. } if fleet.replicas == 0 => one_revision(fleet, to, stay, &mut actions),
        Rollout::Canary { from, to } => canary(fleet, from, to, stay, &mut actions),
        Rollout::Switch { to, .. } => switch(fleet, to, stay, &mut actions),
    };
    let slots = (0..).filter(|slot| fleet.workers.iter().all(|worker| worker.slot != *slot));
    actions.extend(slots.zip(missing).map(|(slot, template)| Action::ApplyPod { slot, template: template.to_owned() }));
    actions
}

/// `None` for one that is on its way out already.
fn reason_to_replace(worker: &Worker, timeline: u32) -> Option<String> {
    match (&worker.state, &worker.answer) {
        (PodState::Ending, _) => None,
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
fn settled<'a>(fleet: &Fleet, template: &'a str, stay: Vec<&Worker>, actions: &mut Vec<Action>) -> Vec<&'a str> {
    match fleet.replicas > 0 && stay.iter().any(|worker| worker.is_stale()) {
        true => switch(fleet, template, stay, actions),
        false => one_revision(fleet, template, stay, actions),
    }
}

/// All pods of one template. Returns what those are made from that are missing.
fn one_revision<'a>(fleet: &Fleet, template: &'a str, mut stay: Vec<&Worker>, actions: &mut Vec<Action>) -> Vec<&'a str> {
    trim(fleet, template, &mut stay, actions);
    if let Some(outdated) = next_outdated(fleet, template, &stay) {
        actions.push(delete(outdated, why_outdated(outdated, template)));
    }
    vec![template; fleet.replicas as usize - stay.len()]
}

/// One pod of `to` beside a full set of the others.
fn canary<'a>(fleet: &Fleet, from: &'a str, to: &'a str, stay: Vec<&Worker>, actions: &mut Vec<Action>) -> Vec<&'a str> {
    let (mut news, others): (Vec<&Worker>, Vec<&Worker>) = stay.into_iter().partition(|worker| worker.template == to);
    let one_too_many = news.drain(1.min(news.len())..).map(|worker| delete(worker, "one worker tries the change first".to_owned()));
    actions.extend(one_too_many);
    let mut missing = one_revision(fleet, from, others, actions);
    missing.extend(news.is_empty().then_some(to));
    missing
}

/// One pod more than wanted, until all are of `to` and have the secrets of now: one comes, then one of the others goes.
fn switch<'a>(fleet: &Fleet, to: &'a str, stay: Vec<&Worker>, actions: &mut Vec<Action>) -> Vec<&'a str> {
    let wanted = fleet.replicas as usize;
    let (mut news, others): (Vec<&Worker>, Vec<&Worker>) = stay.into_iter().partition(|worker| worker.template == to && !worker.is_stale());
    trim(fleet, to, &mut news, actions);
    let there = news.len() + others.len();
    let all_answer = news.iter().chain(&others).all(|worker| worker.heard().is_some());
    let ailing = others.iter().find(|worker| worker.ails());
    // One whose shard fails again and again is not waited for: the change may be what that needs.
    let failing = others.iter().find(|worker| worker.fails());
    let next = failing.or_else(|| others.last().filter(|_| fleet.all_run())).filter(|_| all_answer && there > wanted);
    if let Some(next) = ailing.or(next) {
        actions.push(delete(next, why_outdated(next, to)));
    }
    vec![to; (wanted - news.len()).min((wanted + 1).saturating_sub(there))]
}

/// The last ones first that would go: those of another template, then those with the highest slots.
fn trim(fleet: &Fleet, template: &str, stay: &mut Vec<&Worker>, actions: &mut Vec<Action>) {
    let wanted = fleet.replicas as usize;
    stay.sort_by_key(|worker| (worker.template != template, worker.slot));
    for worker in stay.drain(wanted.min(stay.len())..) {
        actions.push(delete(worker, format!("{wanted} workers are wanted")));
    }
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
