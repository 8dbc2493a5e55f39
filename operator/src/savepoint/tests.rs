//! Method: what may be seen of a savepoint is written down, and what is said and done compared; then the steps are taken in a toy.

use std::collections::BTreeMap;

use forebay_api::v1::{Assignment, Description, Shard};
use forebay_crds::validate::Upgrade;

use super::*;
use crate::plan::rewind::Rewinder;
use crate::plan::schedule::Calendar;
use crate::plan::{Answer, PodState, Refusal, Secrets, Trouble, Worker};

/// A job of one worker and two shards: epochs, the epochs of their checkpoints, and how many seconds ago what these hold was the newest.
fn job(replicas: u32, shards: [(u64, u64, Option<u64>); 2]) -> Fleet {
    let shard = |(shard, (epoch, checkpoint_epoch, age)): (u32, (u64, u64, Option<u64>))| Shard {
        shard,
        phase: "running".into(),
        epoch,
        checkpoint_epoch,
        checkpoint_taken_millis: age.map(|age| age * 1000),
        ..Shard::default()
    };
    let owned: Vec<Shard> = (0..).zip(shards).map(shard).collect();
    let assignment = Some(Assignment { job: "job".into(), version: 1, shards: vec![0, 1] });
    let answer = Answer::Heard(Description { job: "job".into(), shards: 2, assignment, owned, ..Description::default() });
    let (pod, uid, template) = ("pod-0".into(), "uid".into(), "t".into());
    let (age, was_ready) = (Duration::ZERO, true);
    let worker = Worker {
        pod,
        uid,
        slot: 0,
        template,
        state: PodState::Ready,
        age,
        was_ready,
        restarts: 0,
        trouble: None,
        secrets: Secrets::default(),
        answer,
        trends: BTreeMap::new(),
    };
    let gate = Upgrade { observe: Duration::from_secs(30), deadline: Duration::from_secs(600), dead_letter_percent_max: 10 };
    let (template, workers, configs) = ("t".into(), vec![worker], BTreeMap::new());
    Fleet {
        replicas,
        stops_for: Duration::ZERO,
        template,
        gate,
        workers,
        configs,
        savepoints: BTreeMap::new(),
        calendar: Calendar::default(),
        rewind: crate::plan::rewind::Sight::default(),
        postmen: Vec::new(),
        refused: None,
        has_service: true,
        has_budget: true,
        has_policy: true,
    }
}

fn asked_for(seconds: u64, job: Option<Fleet>, pod: Option<Task>) -> Sight {
    let (phase, age) = (Some(SavepointPhase::Pending), Duration::from_secs(seconds));
    Sight { phase, age, deadline: Duration::from_secs(60), is_waited_for: false, job, pod, pod_age: age, refused: None }
}

fn check(sight: &Sight, expected: (SavepointPhase, &str), next: Step) {
    let (progress, step) = step(sight);
    let progress = progress.expect("it is not over");
    assert_eq!(((progress.phase, progress.reason), step), (expected, next), "{}", progress.message);
}

#[test]
fn checkpoints_are_waited_for_that_are_younger_than_the_savepoint_or_hold_everything() {
    use SavepointPhase::{Copying, Pending};
    let ask = || Step::Checkpoint(["pod-0".to_owned()].into());
    check(&asked_for(5, None, None), (Pending, "NoSuchJob"), Step::Wait);
    check(&asked_for(5, Some(job(1, [(7, 6, Some(4)), (9, 8, Some(6))])), None), (Pending, "TakingCheckpoints"), ask());
    check(&asked_for(5, Some(job(1, [(7, 6, Some(4)), (9, 9, Some(6))])), None), (Copying, "Copying"), Step::Copy([].into()));
    check(&asked_for(5, Some(job(1, [(7, 0, None), (9, 9, Some(6))])), None), (Pending, "TakingCheckpoints"), ask());
    // A shard that has never had a record is none to wait for.
    check(&asked_for(5, Some(job(1, [(0, 0, None), (9, 9, Some(6))])), None), (Copying, "Copying"), Step::Copy([0].into()));
    let mut restoring = job(1, [(7, 7, Some(4)), (9, 9, Some(4))]);
    restoring.workers[0].answer = Answer::Unheard(Duration::ZERO);
    check(&asked_for(5, Some(restoring), None), (Pending, "ShardsStarting"), Step::Wait);
    // Of a job that rests there is nobody to ask.
    let mut resting = job(0, [(7, 6, Some(9)), (9, 8, Some(9))]);
    check(&asked_for(5, Some(resting.clone()), None), (Pending, "JobStops"), Step::Wait);
    resting.workers.clear();
    check(&asked_for(5, Some(resting.clone()), None), (Copying, "Copying"), Step::CopyAtRest);
    // One that is being rewound has no workers either.
    let pod = Rewinder { pod: "r".into(), id: "r".into(), task: Task::Working(0, None) };
    resting.rewind.pods.push(pod);
    check(&asked_for(5, Some(resting), None), (Pending, "JobRewinds"), Step::Wait);
}

#[test]
fn what_is_over_stays_over_and_leaves_no_pod() {
    use SavepointPhase::{Completed, Copying, Failed};
    let trouble = || Some(Trouble { reason: "Error".into(), message: "shard 0 has no checkpoint yet".into() });
    check(&asked_for(5, None, Some(Task::Working(0, None))), (Copying, "Copying"), Step::Wait);
    check(&asked_for(5, None, Some(Task::Working(4, trouble()))), (Copying, "Copying"), Step::Wait);
    check(&asked_for(5, None, Some(Task::Lost)), (Copying, "Copying"), Step::DropLost);
    check(&asked_for(61, None, Some(Task::Lost)), (Failed, "DeadlineExceeded"), Step::DropLost);
    check(&asked_for(5, None, Some(Task::Working(5, trouble()))), (Failed, "CopyFailed"), Step::CleanUp);
    check(&asked_for(5, None, Some(Task::Refused("no permission".into()))), (Failed, "CopyFailed"), Step::CleanUp);
    check(&asked_for(61, None, Some(Task::Working(0, None))), (Failed, "DeadlineExceeded"), Step::CleanUp);
    check(&asked_for(61, None, None), (Failed, "DeadlineExceeded"), Step::Wait);
    // One that was complete before anybody looked at the clock is complete.
    check(&asked_for(61, None, Some(Task::Done)), (Completed, "Completed"), Step::Wait);
    for phase in [Completed, Failed] {
        let over = |pod| Sight { phase: Some(phase), ..asked_for(5, Some(job(1, [(7, 6, None), (9, 8, None)])), pod) };
        assert_eq!(step(&over(Some(Task::Done))), (None, Step::CleanUp));
        assert_eq!(step(&over(None)), (None, Step::Wait));
    }
}

/// Method: the status of a savepoint is lost, long after it was complete, or after nobody looked at it.
#[test]
fn a_savepoint_of_which_nothing_is_known_is_looked_for_before_it_is_given_up() {
    let running = || Some(job(1, [(7, 6, Some(4)), (9, 8, Some(6))]));
    let lost = |phase, pod_age, pod| Sight { phase, pod_age: Duration::from_secs(pod_age), ..asked_for(500, running(), pod) };
    check(&lost(None, 0, None), (SavepointPhase::Copying, "Copying"), Step::Find);
    let found = |pod_age, task| lost(Some(SavepointPhase::Copying), pod_age, Some(task));
    check(&found(60, Task::Working(0, None)), (SavepointPhase::Copying, "Copying"), Step::Wait);
    check(&found(61, Task::Working(0, None)), (SavepointPhase::Failed, "DeadlineExceeded"), Step::CleanUp);
    check(&found(9, Task::Done), (SavepointPhase::Completed, "Completed"), Step::Wait);
    check(&lost(Some(SavepointPhase::Copying), 0, None), (SavepointPhase::Failed, "DeadlineExceeded"), Step::Wait);
}

#[test]
fn the_pod_that_copies_is_told_what_it_should_copy() {
    assert_eq!(arguments(&Step::Copy([].into())), Vec::<String>::new());
    assert_eq!(arguments(&Step::Copy([2, 3].into())), ["--empty", "2,3"]);
    assert_eq!(arguments(&Step::CopyAtRest), ["--at-rest"]);
    assert_eq!(arguments(&Step::Find), ["--existing"]);
}

#[test]
fn a_savepoint_whose_pod_is_refused_says_so_and_is_given_up_when_that_is_certain() {
    use SavepointPhase::{Copying, Failed};
    let refused = |may_pass, seconds, is_waited_for| {
        let refused = Refused { refusal: Refusal { message: "quota".into(), may_pass }, since: Duration::from_secs(seconds) };
        let job = Some(job(1, [(7, 7, Some(4)), (9, 9, Some(4))]));
        Sight { refused: Some(refused), is_waited_for, ..asked_for(5, job, None) }
    };
    let copy = || Step::Copy([].into());
    check(&refused(true, 5, true), (Copying, "Copying"), copy());
    check(&refused(true, 20, true), (Failed, "Refused"), Step::Wait);
    check(&refused(true, 20, false), (Copying, "Copying"), copy());
    check(&refused(false, 0, false), (Failed, "Refused"), Step::Wait);
    let (progress, _) = step(&refused(true, 5, false));
    assert_eq!(progress.unwrap().message, "the API server refuses the pod that copies: quota");
}

#[test]
fn a_change_does_not_wait_for_the_savepoint_of_a_job_that_does_not_run() {
    let mut ailing = job(1, [(7, 7, Some(4)), (9, 9, Some(4))]);
    ailing.workers[0].answer = Answer::Unheard(Duration::ZERO);
    let after = |seconds, is_waited_for| Sight { is_waited_for, ..asked_for(seconds, Some(ailing.clone()), None) };
    check(&after(20, true), (SavepointPhase::Pending, "ShardsStarting"), Step::Wait);
    check(&after(21, true), (SavepointPhase::Failed, "JobAils"), Step::Wait);
    check(&after(21, false), (SavepointPhase::Pending, "ShardsStarting"), Step::Wait);
}

/// Method: a savepoint is made at any moment of a second, and looked at any while later; what is told is the second.
#[test]
fn no_savepoint_is_taken_for_older_than_it_is() {
    for (made, later) in (0..1000).step_by(37).flat_map(|made| [0, 1, 400, 1000, 5500].map(|later| (made, later))) {
        let (second, truth) = (Timestamp::from_second(1_800_000_000).unwrap(), Duration::from_millis(later));
        let now = second + Duration::from_millis(made + later);
        let age = age_at_least(second, now);
        assert!(age <= truth && truth <= age + Duration::from_secs(1), "{age:?} for {truth:?}, made at {made} ms");
    }
}
