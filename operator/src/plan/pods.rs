//! Which pods to make and which to delete. A pod on a lost node does not block its replacement: its slot stays taken until it is gone, and the
//! new one takes another.

use super::{Action, Answer, Fleet, PodState, REPLACE_TIMEOUT, Worker};

pub(super) fn plan(fleet: &Fleet) -> Vec<Action> {
    let mut actions = Vec::new();
    // Those that are to stay, as far as it has come.
    let mut stay: Vec<&Worker> = Vec::new();
    for worker in &fleet.workers {
        match reason_to_replace(worker) {
            Some(reason) => actions.push(delete(worker, reason)),
            None if worker.is_live() => stay.push(worker),
            None => {}
        }
    }
    let wanted = fleet.replicas as usize;
    // The last ones first that would go: those of an old template, then those with the highest slots.
    stay.sort_by_key(|worker| (worker.template != fleet.template, worker.slot));
    for worker in stay.drain(wanted.min(stay.len())..) {
        actions.push(delete(worker, format!("{wanted} workers are wanted")));
    }
    if let Some(outdated) = next_outdated(fleet, &stay) {
        actions.push(delete(outdated, "its image, manifest or resources have changed".to_owned()));
    }
    let missing = wanted - stay.len();
    let is_free = |slot: &u32| fleet.workers.iter().all(|worker| worker.slot != *slot);
    actions.extend((0..).filter(is_free).take(missing).map(Action::ApplyPod));
    actions
}

/// `None` for one that is on its way out already.
fn reason_to_replace(worker: &Worker) -> Option<String> {
    match (&worker.state, &worker.answer) {
        (PodState::Ending, _) => None,
        (PodState::Over, _) => Some("it has ended".to_owned()),
        (PodState::Starting | PodState::Ready, Answer::Silent(since, _)) if *since >= REPLACE_TIMEOUT => {
            Some(format!("it has been silent for {} s", since.as_secs()))
        }
        (PodState::Starting | PodState::Ready, Answer::Unheard(_) | Answer::Heard(_) | Answer::Silent(..)) => None,
    }
}

/// One at a time, and only when nothing is being restored; one that has never said anything has nothing to lose.
fn next_outdated<'a>(fleet: &Fleet, stay: &[&'a Worker]) -> Option<&'a Worker> {
    let mut outdated = stay.iter().rev().filter(|worker| worker.template != fleet.template);
    let idle = outdated.clone().find(|worker| worker.state == PodState::Starting && worker.last().is_none());
    let may_go = stay.len() == fleet.replicas as usize && fleet.all_run() && stay.iter().all(|worker| worker.heard().is_some());
    idle.or_else(|| outdated.next().filter(|_| may_go)).copied()
}

fn delete(worker: &Worker, reason: String) -> Action {
    Action::DeletePod { pod: worker.pod.clone(), uid: worker.uid.clone(), reason }
}
