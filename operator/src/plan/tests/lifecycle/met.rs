//! What the runs met: one that meets nothing proves nothing.

use super::*;

/// How often.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Met(pub BTreeMap<String, u64>);

/// Lives them all, or the one that is asked for, and checks that they met what they are for.
pub(super) fn check_seeds(test: &str, seeds: u64, live: fn(u64) -> Met, all: &[String]) {
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")));
    let (one, seeds) = (number("LIFECYCLE_SEED"), number("LIFECYCLE_SEEDS").unwrap_or(seeds));
    let mut met = Met::default();
    for seed in one.map_or(0..seeds, |seed| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(|| live(seed));
        let lived = outcome.unwrap_or_else(|_| panic!("seed {seed}; to see it again: LIFECYCLE_SEED={seed} make unit TEST={test}"));
        lived.0.into_iter().for_each(|(what, times)| *met.0.entry(what).or_default() += times);
    }
    let unmet: Vec<&String> = all.iter().filter(|what| !met.0.contains_key(*what)).collect();
    assert!(one.is_some() || unmet.is_empty(), "no run met {unmet:?}: {met:?}");
}

/// All that a plan may hold.
pub(super) const ACTIONS: [&str; 26] = [
    "the service is made",
    "the budget is made",
    "the policy is made",
    "a config map is made",
    "a pod is made",
    "a pod is deleted",
    "a config map is deleted",
    "a change is proven",
    "the first revision is in force",
    "a change is in force",
    "a change is taken back",
    "letters may be there",
    "letters are put back",
    "letters are left to people",
    "a postman is made",
    "a postman is deleted",
    "a savepoint is asked for before a change",
    "a savepoint is asked for by schedule",
    "a savepoint is doomed",
    "a savepoint is deleted",
    "a rewinder is made",
    "a rewinder is deleted",
    "what is lost is dropped",
    "last checkpoints are asked for",
    "a move is prepared",
    "shards are assigned",
];

pub(super) fn name_of(action: &Action) -> &'static str {
    let number = match action {
        Action::ApplyService => 0,
        Action::ApplyBudget => 1,
        Action::ApplyPolicy => 2,
        Action::ApplyConfig => 3,
        Action::ApplyPod { .. } => 4,
        Action::DeletePod { .. } => 5,
        Action::DeleteConfig(_) => 6,
        Action::Mark { standing: Standing::Proven, .. } => 7,
        Action::Mark { standing: Standing::Good(..2) | Standing::Untried, .. } => 8,
        Action::Mark { standing: Standing::Good(_), .. } => 9,
        Action::Mark { standing: Standing::Bad(_), .. } => 10,
        Action::MarkLetters { letters: Letters::Possible | Letters::None | Letters::Due, .. } => 11,
        Action::MarkLetters { letters: Letters::PutBack, .. } => 12,
        Action::MarkLetters { letters: Letters::Left, .. } => 13,
        Action::PutBack { .. } => 14,
        Action::DeletePostman(_) => 15,
        Action::ApplySavepoint => 16,
        Action::TakeSavepoint(_) => 17,
        Action::DoomSavepoint(_) => 18,
        Action::DeleteSavepoint(_) => 19,
        Action::Rewind => 20,
        Action::DeleteRewinder(_) => 21,
        Action::DropLost(_) => 22,
        Action::Checkpoint(_) => 23,
        Action::Prefetch { .. } => 24,
        Action::Assign { .. } => 25,
    };
    ACTIONS[number]
}

/// All that a job may be said to be.
pub(super) const PHASES: [Option<Phase>; 9] = [
    None,
    Some(Phase::Starting),
    Some(Phase::Running),
    Some(Phase::Upgrading),
    Some(Phase::RolledBack),
    Some(Phase::Rewinding),
    Some(Phase::Suspending),
    Some(Phase::Suspended),
    Some(Phase::Stalled),
];

pub(super) fn job_is(phase: Option<Phase>) -> String {
    format!("a job is {}", phase.map_or("nothing yet".to_owned(), |phase| format!("{phase:?}")))
}

/// From what it was said to be, if anything was, to what it is said to be.
pub(super) fn becomes<P: std::fmt::Debug>(what: &str, was: Option<P>, is: &P) -> String {
    format!("{what} is {}{is:?}", was.map_or(String::new(), |was| format!("{was:?}, then ")))
}

/// All that the part of the operator does that looks after savepoints.
const STEPS: [&str; 7] = [
    "a savepoint is waited for",
    "checkpoints are taken for a savepoint",
    "checkpoints are copied",
    "a job at rest is copied",
    "a copy is looked for",
    "a copier is deleted",
    "a copier is lost",
];

/// How rewinds and savepoints go on: from nothing, too, where the status was deleted. A late attempt at a rewind may come to its end after all.
const TRANSITIONS: [&str; 17] = [
    "a rewind is Pending",
    "a rewind is Pending, then Rewinding",
    "a rewind is Rewinding",
    "a rewind is Rewinding, then Completed",
    "a rewind is Rewinding, then Failed",
    "a rewind is Failed, then Completed",
    "a rewind is Completed",
    "a rewind is Failed",
    "a savepoint is Pending",
    "a savepoint is Pending, then Copying",
    "a savepoint is Pending, then Completed",
    "a savepoint is Pending, then Failed",
    "a savepoint is Copying",
    "a savepoint is Copying, then Completed",
    "a savepoint is Copying, then Failed",
    "a savepoint is Completed",
    "a savepoint is Failed",
];

/// What goes wrong, and what users ask for meanwhile.
const TROUBLES: [&str; 18] = [
    "an operator ends",
    "a node is lost",
    "a kubelet stops",
    "a request is lost",
    "a request arrives late",
    "a reply is lost",
    "two operators act",
    "a status meets a newer one",
    "a status is deleted",
    "a status comes back",
    "a secret changes",
    "a pod that rewinds is lost",
    "a rewind to a savepoint is asked for",
    "a rewind to a time is asked for",
    "a rewind fails: it was tried too often",
    "a rewind fails: it takes too long",
    "a rewind fails: what it names is not there",
    "a rewind fails: it had failed before",
];

/// All that a life may meet: what goes wrong, what is done, an operator that ends right after that, and what is said then.
pub(super) fn all() -> Vec<String> {
    let done = ACTIONS.iter().chain(&STEPS);
    let ends = done.clone().map(|what| format!("an operator ends: {what}"));
    let said = PHASES.into_iter().filter(Option::is_some).map(job_is);
    let named = done.chain(&TRANSITIONS).chain(&TROUBLES).map(|what| (*what).to_owned());
    named.chain(ends).chain(said).collect()
}
