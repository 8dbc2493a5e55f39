//! What is said of a job whose workers were started with other secrets than there are now. Pure.

use std::collections::BTreeSet;

use forebay_crds::job::Phase;

use super::Verdict;
use crate::plan::{Fleet, Worker};

/// `None`: the secrets are as they were, or nobody's environment comes from any.
pub(super) fn verdict(fleet: &Fleet) -> Option<Verdict> {
    let live = || fleet.workers.iter().filter(|worker| worker.is_live());
    let missing = names(live().flat_map(|worker| &worker.secrets.missing));
    if !missing.is_empty() {
        let message = format!(
            "this secret is missing: {missing}. The workers that run go on with what they were started with, and no other one can start; make it again, \
             in the job's namespace"
        );
        return Some(Verdict::new(Phase::Stalled, "SecretMissing", message));
    }
    let is_stale = |worker: &&Worker| worker.is_stale();
    let changed = names(fleet.workers.iter().filter(is_stale).flat_map(|worker| &worker.secrets.changed));
    if changed.is_empty() {
        return None;
    }
    let left = live().filter(is_stale).count();
    match live().filter(|worker| !is_stale(worker)).find_map(|worker| Some((worker, worker.trouble.as_ref()?))) {
        Some((worker, trouble)) => Some(Verdict::new(
            Phase::Stalled,
            "SecretRefused",
            format!(
                "this secret has changed: {changed}. Pod {}, which was started with it, does not come up: {}. The {left} workers of before go on with \
                 what they were started with; correct the secret",
                worker.pod,
                trouble.words()
            ),
        )),
        None => Some(Verdict::new(
            Phase::Upgrading,
            "SecretChanged",
            format!("this secret has changed: {changed}. {left} workers that were started before are to be replaced, one by one"),
        )),
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}
