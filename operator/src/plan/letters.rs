//! What a revision that was taken back has made dead letters of is put back, once, when none of its workers is left: by a pod, which ends. The letters name
//! their revision, and what their worker was made from, so those of others stay; and how far the pod has come is committed with what it puts back, so that it may be made as often as one likes.

use super::{Action, Fleet, Task, Worker};
use crate::plan::rollout::{Rollout, Standing};

/// A pod that failed so often will not do better.
const RESTARTS_MAX: u32 = 5;

/// What is known of the dead letters of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    /// There are none to be put back, as far as is known.
    None,
    /// It has processed, and is not in force: if it is taken back, there may be some.
    Possible,
    /// It was taken back after it had processed: there may be some.
    Due,
    /// They are put back.
    PutBack,
    /// They are left to people: its config map does not tell them from others, the job is rewound, or putting them back has failed.
    Left,
}

/// What letters bear by which those of a revision are told from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToldBy {
    /// This hash of what decides results, which those of the revision in force do not bear.
    Results(String),
    /// The template itself: results are decided by the same, and the image differs, say.
    Template,
}

/// A pod that puts letters back.
#[derive(Clone, Debug, PartialEq)]
pub struct Postman {
    /// Its name.
    pub pod: String,
    /// Those of this revision.
    pub template: String,
    /// How far it is.
    pub task: Task,
}

/// That the change which is tried processes from now on: written down first, for its worker and whoever has heard it may be gone when it is taken back.
/// `assigned`: the pods that get shards now.
pub(super) fn note(fleet: &Fleet, canary: Option<&str>, assigned: &[Action]) -> Option<Action> {
    let letters = fleet.configs.get(canary?).map(|config| config.letters)?;
    let is_canary = |pod: &str| fleet.workers.iter().any(|worker| worker.pod == pod && Some(worker.template.as_str()) == canary);
    let gets_some = |action: &Action| matches!(action, Action::Assign { pod, shards, .. } if !shards.is_empty() && is_canary(pod));
    let is_news = letters == Letters::None && (may_have_some(fleet) || assigned.iter().any(gets_some));
    is_news.then(|| Action::MarkLetters { template: fleet.template.clone(), letters: Letters::Possible })
}

/// Whether a revision that is taken back now has ever processed, by what is written down of it or its workers have said.
pub(super) fn may_have_some(fleet: &Fleet) -> bool {
    if fleet.configs.get(&fleet.template).is_some_and(|config| config.letters == Letters::Possible) {
        return true;
    }
    let mut said = fleet.workers.iter().filter(|worker| worker.template == fleet.template).filter_map(Worker::last);
    said.any(|said| !said.owned.is_empty())
}

/// Whether its config map is needed for them still.
pub(super) fn are_due(fleet: &Fleet, template: &str) -> bool {
    let is_due = |config: &super::Config| matches!(config.standing, Standing::Bad(_)) && config.letters == Letters::Due;
    fleet.configs.get(template).is_some_and(is_due)
}

pub(super) fn plan(fleet: &Fleet) -> Vec<Action> {
    let due = fleet.configs.keys().filter(|template| are_due(fleet, template));
    let next = due.filter_map(|template| next(fleet, template));
    let idle = fleet.postmen.iter().filter(|postman| !are_due(fleet, &postman.template));
    let end = |postman: &Postman| match postman.task {
        Task::Lost => Action::DropLost(postman.pod.clone()),
        Task::Working(..) | Task::Refused(_) | Task::Done => Action::DeletePostman(postman.pod.clone()),
    };
    next.chain(idle.map(end)).collect()
}

fn next(fleet: &Fleet, template: &str) -> Option<Action> {
    let results = |template: &str| fleet.configs.get(template).and_then(|config| config.results.as_ref());
    let mark = |letters| Some(Action::MarkLetters { template: template.to_owned(), letters });
    // What it refused is read again from the inputs then, and copies of it would be processed besides.
    if fleet.is_rewinding() {
        return mark(Letters::Left);
    }
    let Some(its) = results(template) else { return mark(Letters::Left) };
    let is_same = results(Rollout::of(fleet).in_force()) == Some(its);
    let told_by = if is_same { ToldBy::Template } else { ToldBy::Results(its.clone()) };
    match fleet.postmen.iter().find(|postman| postman.template == template).map(|postman| &postman.task) {
        Some(Task::Done) => mark(Letters::PutBack),
        Some(Task::Refused(_)) => mark(Letters::Left),
        Some(Task::Working(restarts, Some(_))) if *restarts >= RESTARTS_MAX => mark(Letters::Left),
        Some(Task::Working(..)) => None,
        Some(Task::Lost) => {
            fleet.postmen.iter().find(|postman| postman.template == template).map(|postman| Action::DropLost(postman.pod.clone()))
        }
        None => {
            // One that still answers may refuse more.
            let is_at_work = |worker: &Worker| worker.template == template && (worker.is_live() || worker.heard().is_some());
            let may_begin = fleet.replicas > 0 && fleet.all_run() && !fleet.workers.iter().any(is_at_work);
            may_begin.then(|| Action::PutBack { template: template.to_owned(), told_by })
        }
    }
}
