//! Method: somewhere in its troubled life the job is deleted, and goes on having trouble. What it left in Kafka and in the object store must be deleted, once none of its
//! pods can add to it, and it must be gone in time; what is left otherwise must be said.

use super::met::{PHASES, job_is};
use super::savepoints::Copier;
use super::*;
use crate::teardown::{Sight, Step, step};

const SEEDS: u64 = 400;
/// By then a job is gone, whatever happens: its deadline, and what lagging watches and lost requests take.
const GONE_AFTER: u64 = 300 + 60;
/// A pod that is stuck for so long is taken to be on a lost node.
const STUCK: u64 = 60;

/// How far the end of a job is.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    /// When it was deleted.
    pub deleted: Option<u64>,
    /// The pod that cleans up, and when it is done.
    pub cleaner: Option<(Task, u64)>,
    /// When the finalizer was taken away, and what may be left.
    released: Option<(u64, Option<String>)>,
}

const ENDS: [&str; 7] = [
    "a rewind meets the end of its job",
    "a node is lost",
    "a request is lost",
    "what is left is deleted",
    "it is gone, and all that it left",
    "it is gone, and says what it may have left",
    "an operator ends: of a job that is deleted",
];

impl Life {
    pub(super) fn tear_down(&mut self, since: u64, is_calm: bool) {
        let now = self.cluster.now;
        let pods = self.operator.pods(now);
        let view = &self.operator.view;
        let live = pods.iter().filter(|pod| pod.ends.is_none()).map(|pod| pod.uid.to_string());
        let postmen = view.postmen.iter().map(|(postman, _)| postman.pod.clone());
        let rewinders = view.rewinders.iter().filter(|pod| pod.ends.is_none()).map(|pod| pod.told.pod.clone());
        let sight = Sight {
            age: Duration::from_secs(now - since),
            pods: live.chain(postmen).chain(rewinders).collect(),
            has_pods: !pods.is_empty() || !view.postmen.is_empty() || !view.rewinders.is_empty(),
            is_copied: view.copiers.iter().any(Copier::is_at_work),
            cleaner: view.end.cleaner.as_ref().map(|(task, _)| task.clone()),
        };
        if !is_calm && self.rng.once_in(6) {
            return self.meet("a request is lost");
        }
        let fails = self.rng.once_in(8);
        let next = step(&sight);
        if matches!(&next, Step::DeletePods(names) if names.iter().any(|name| name == "job-rewind")) {
            self.meet("a rewind meets the end of its job");
            self.cluster.delete_rewinder(now);
        }
        let objects = &mut self.cluster.objects;
        match next {
            Step::Wait => {}
            Step::DeletePods(names) => {
                objects.postmen.retain(|(postman, _)| !names.contains(&postman.pod));
                let named = objects.pods.iter_mut().filter(|pod| names.contains(&pod.uid.to_string()));
                named.for_each(|pod| pod.ends = pod.ends.or(Some(now)));
            }
            Step::Clean if objects.end.cleaner.is_none() => {
                objects.end.cleaner = Some((Task::Working(0, None), if fails { u64::MAX } else { now + 5 }));
                self.check_clean(now - since);
            }
            Step::Clean => {}
            Step::Release(left) => objects.end.released = objects.end.released.take().or(Some((now, left))),
        }
        self.may_end(is_calm, "of a job that is deleted");
    }

    /// Nobody may write any more what is now deleted.
    fn check_clean(&mut self, age: u64) {
        self.meet("what is left is deleted");
        let writes = |pod: &&Pod| !pod.is_lost && !self.late_pods.contains(&pod.uid);
        let writers: Vec<&Pod> = self.cluster.objects.pods.iter().filter(writes).collect();
        let knows_all = self.cluster.unsure_until < self.cluster.now && age <= STUCK;
        assert!(writers.is_empty() || !knows_all, "it is cleaned up behind a job that still has {writers:#?}");
        let rewinds = self.cluster.rewinds();
        assert!(!rewinds || !knows_all, "it is cleaned up behind a job that is being rewound");
        let copies = self.cluster.objects.copiers.iter().any(Copier::is_at_work);
        assert!(!copies || !knows_all, "it is cleaned up behind a job that is being copied");
    }
}

fn end(seed: u64) -> Met {
    let mut life = Life::new(seed);
    let moment = life.rng.below(TROUBLED);
    (0..moment).for_each(|_| life.second(false));
    let deleted = life.cluster.now;
    let phase = life.cluster.objects.job.status.as_ref().and_then(|status| status.phase);
    life.meet(format!("{}, and is deleted", job_is(phase)));
    life.cluster.objects.end.deleted = Some(deleted);
    let (gone, left) = loop {
        life.second(false);
        let now = life.cluster.now;
        assert!(now < deleted + GONE_AFTER, "it is not gone: {:#?}", life.cluster.objects);
        let end = &mut life.cluster.objects.end;
        if let Some((task, _)) = end.cleaner.as_mut().filter(|(_, done)| now >= *done) {
            *task = Task::Done;
        }
        if let Some(released) = end.released.take() {
            break released;
        }
    };
    let cleaner = life.cluster.objects.end.cleaner.as_ref().map(|(task, _)| task);
    match left {
        None => assert_eq!(cleaner, Some(&Task::Done)),
        Some(why) => assert!(gone > deleted + 300 && why.starts_with("cleaning up took more than 300 s"), "{why}"),
    }
    life.meet(if cleaner == Some(&Task::Done) { "it is gone, and all that it left" } else { "it is gone, and says what it may have left" });
    life.met
}

#[test]
fn a_job_that_is_deleted_at_any_moment_is_gone_in_time_and_so_is_what_it_left() {
    let phases = PHASES.map(|phase| format!("{}, and is deleted", job_is(phase)));
    let all = ENDS.map(str::to_owned).into_iter().chain(phases).collect::<Vec<_>>();
    check_seeds("a_job_that_is_deleted", SEEDS, end, &all);
}
