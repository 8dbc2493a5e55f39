//! The end of a job whose `deletionPolicy` is `Delete`: what is to be done, from what is seen. Pure. The job has a finalizer then, and it goes in any
//! case, soon: no live worker is needed, a lost node holds up nothing, and a namespace that is being deleted is let go at once.

pub mod reconcile;

use std::time::Duration;

use crate::plan::Task;

/// A pod that is stuck for so long is on a lost node: what it may still do to the job's journal hurts nobody.
const PODS_TIMEOUT: Duration = Duration::from_secs(60);
/// After so long people get their job deleted, and are told what is left.
const DEADLINE: Duration = Duration::from_secs(300);

/// What is seen of a job that is being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// For how long.
    pub age: Duration,
    /// Its pods, by name, which may still write what is to be deleted: those that are not on their way out.
    pub pods: Vec<String>,
    /// Whether any pod of it is there.
    pub has_pods: bool,
    /// Whether a savepoint of it is being copied, which outlives it: what is copied is not deleted meanwhile.
    pub is_copied: bool,
    /// The pod that cleans up.
    pub cleaner: Option<Task>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait.
    Wait,
    /// End them.
    DeletePods(Vec<String>),
    /// Make the pod that deletes what the job left in Kafka and in the object store.
    Clean,
    /// Let the job go. With a reason: something may be left.
    Release(Option<String>),
}

/// What to do.
pub fn step(sight: &Sight) -> Step {
    let trouble = match &sight.cleaner {
        Some(Task::Done) => return Step::Release(None),
        Some(Task::Refused(why)) => return Step::Release(Some(why.clone())),
        Some(Task::Working(_, trouble)) => trouble.clone(),
        Some(Task::Lost) | None => None,
    };
    if sight.age > DEADLINE {
        let why = match trouble {
            Some(trouble) => format!(": {}", trouble.words()),
            None if sight.is_copied => ": a savepoint of it is still being copied".to_owned(),
            None => String::new(),
        };
        return Step::Release(Some(format!("cleaning up took more than {} s{why}", DEADLINE.as_secs())));
    }
    if !sight.pods.is_empty() {
        return Step::DeletePods(sight.pods.clone());
    }
    match &sight.cleaner {
        None if sight.is_copied => Step::Wait,
        None if !sight.has_pods || sight.age > PODS_TIMEOUT => Step::Clean,
        None | Some(_) => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    //! Method: what may be seen, and what is done about it.

    use super::*;
    use crate::plan::Trouble;

    fn sight(age: u64, pods: &[&str], has_pods: bool, cleaner: Option<Task>) -> Sight {
        let pods = pods.iter().map(|pod| (*pod).to_owned()).collect();
        Sight { age: Duration::from_secs(age), pods, has_pods, is_copied: false, cleaner }
    }

    fn check(age: u64, pods: &[&str], has_pods: bool, cleaner: Option<Task>, expected: &Step) {
        assert_eq!(step(&sight(age, pods, has_pods, cleaner)), *expected);
    }

    #[test]
    fn pods_end_then_what_they_left_goes_then_the_job() {
        check(0, &["a", "b"], true, None, &Step::DeletePods(vec!["a".into(), "b".into()]));
        check(5, &[], true, None, &Step::Wait);
        check(61, &[], true, None, &Step::Clean);
        check(5, &[], false, None, &Step::Clean);
        check(9, &[], false, Some(Task::Working(0, None)), &Step::Wait);
        check(9, &[], false, Some(Task::Done), &Step::Release(None));
    }

    #[test]
    fn what_a_savepoint_still_copies_is_left_until_it_is_done_or_people_have_waited_long_enough() {
        let copied = |age, pods, has_pods| step(&Sight { is_copied: true, ..sight(age, pods, has_pods, None) });
        assert_eq!(copied(0, &["a"], true), Step::DeletePods(vec!["a".into()]));
        assert_eq!(copied(100, &[], false), Step::Wait);
        let why = "cleaning up took more than 300 s: a savepoint of it is still being copied";
        assert_eq!(copied(301, &[], false), Step::Release(Some(why.into())));
    }

    #[test]
    fn the_job_goes_in_any_case() {
        let late = |why: &str| Step::Release(Some(format!("cleaning up took more than 300 s{why}")));
        let trouble = Trouble { reason: "Error".into(), message: "no broker".into() };
        check(301, &["a"], true, None, &late(""));
        check(301, &[], false, Some(Task::Working(3, Some(trouble))), &late(": no broker"));
        check(301, &[], false, Some(Task::Done), &Step::Release(None));
        // Waiting makes nothing better.
        check(9, &[], false, Some(Task::Refused("no such bucket".into())), &Step::Release(Some("no such bucket".into())));
    }
}
