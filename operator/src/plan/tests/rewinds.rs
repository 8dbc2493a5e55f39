//! Method: what is seen of a rewind is written down, and how far it is said to have come, and what is done, compared. Then one is taken to its end in a toy
//! whose pods obey at once, with an operator that forgets the status at any point.

use forebay_crds::job::RewindPhase;
use forebay_crds::validate::{Rewind, RewindTarget};

use super::*;
use crate::plan::rewind::{Asked, Progress, Rewinder, Sight};

fn asked(said: Option<RewindPhase>, seconds: u64) -> Asked {
    let target = RewindTarget::Savepoint("default/flights/nightly".into());
    let rewind = Rewind { id: "r1".into(), target, deadline: Duration::from_secs(600), retries: 3 };
    Asked { rewind, said: said.map(|phase| (phase, "as before".to_owned())), age: Duration::from_secs(seconds) }
}

fn pod(id: &str, task: Task) -> Rewinder {
    Rewinder { pod: "job-rewind".into(), id: id.into(), task }
}

fn fails(restarts: u32) -> Task {
    Task::Working(restarts, Some(Trouble { reason: "Error".into(), message: "S3 is down".into() }))
}

/// Of timeline 1, which this rewind began.
fn rewound(answer: Answer) -> Answer {
    match answer {
        Answer::Heard(said) => Answer::Heard(Description { timeline: 1, rewind: "r1".into(), ..said }),
        Answer::Unheard(_) | Answer::Silent(..) => answer,
    }
}

/// What a look makes of it: workers are unwanted while it goes on.
fn seen(asked: Asked, pods: Vec<Rewinder>, workers: Vec<Worker>) -> Fleet {
    let mut fleet = Fleet { rewind: Sight { asked: Some(asked), pods }, ..fleet(1, workers) };
    if fleet.is_rewinding() {
        fleet.replicas = 0;
    }
    fleet
}

fn check_rewind(fleet: &Fleet, phase: RewindPhase, says: &str, actions: &[Action]) {
    let progress = fleet.rewind().unwrap();
    let said = match &progress {
        Progress::Pending(said) | Progress::Failed(said) | Progress::Rewinding { message: said, .. } => said,
        Progress::Completed => "",
    };
    assert_eq!((progress.phase(), said), (phase, says), "{fleet:#?}");
    check(fleet, actions);
}

#[test]
fn a_rewind_waits_for_workers_to_go_and_is_over_once() {
    use RewindPhase::{Completed, Failed, Rewinding};
    let works = || worker(0, PodState::Ready, runs(1, &[0, 1, 2, 3]));
    let ends = || worker(0, PodState::Ending, runs(1, &[0, 1, 2, 3]));
    let goes_on = || worker(1, PodState::Ready, rewound(runs(1, &[0, 1, 2, 3])));
    let at_work = || pod("r1", Task::Working(0, None));
    let drop = || Action::DeleteRewinder("job-rewind".to_owned());
    let stop = || delete(0, "0 workers are wanted");
    check_rewind(&seen(asked(None, 0), vec![], vec![works()]), Rewinding, "1 workers release their shards", &[stop()]);
    check_rewind(&seen(asked(Some(Rewinding), 59), vec![], vec![ends()]), Rewinding, "1 workers release their shards", &[]);
    // A lost node is not waited for any longer.
    check_rewind(&seen(asked(Some(Rewinding), 60), vec![], vec![ends()]), Rewinding, "1 workers release their shards", &[Action::Rewind]);
    check_rewind(&seen(asked(Some(Rewinding), 2), vec![], vec![]), Rewinding, "0 workers release their shards", &[Action::Rewind]);
    check_rewind(&seen(asked(Some(Rewinding), 3), vec![at_work()], vec![]), Rewinding, "the state is made ready", &[]);
    let done = || pod("r1", Task::Done);
    check_rewind(&seen(asked(Some(Rewinding), 9), vec![done()], vec![]), Completed, "", &[make(0, "t1")]);
    check_rewind(&seen(asked(Some(Completed), 9), vec![done()], vec![goes_on()]), Completed, "", &[drop()]);
    // Workers know of it when nobody else does.
    check_rewind(&seen(asked(None, 0), vec![], vec![goes_on()]), Completed, "", &[]);

    let tried = |restarts| seen(asked(Some(Rewinding), 30), vec![pod("r1", fails(restarts))], vec![]);
    check_rewind(&tried(3), Rewinding, "it is tried again: S3 is down", &[]);
    // A pod that may still come to its end is gone before there are workers again.
    check_rewind(&tried(4), Failed, "it was tried 5 times: S3 is down", &[]);
    let refused = seen(asked(Some(Rewinding), 5), vec![pod("r1", Task::Refused("no such savepoint".into()))], vec![]);
    check_rewind(&refused, Failed, "no such savepoint", &[]);
    let late = seen(asked(Some(Rewinding), 601), vec![at_work()], vec![]);
    check_rewind(&late, Failed, "it is not done after 600 s: the state is made ready", &[]);
    check_rewind(&seen(asked(Some(Failed), 700), vec![at_work()], vec![]), Failed, "as before", &[drop()]);
    check_rewind(&seen(asked(Some(Failed), 700), vec![], vec![]), Failed, "as before", &[make(0, "t1")]);
    // One that came to its end after all is done.
    check_rewind(&seen(asked(Some(Failed), 700), vec![done()], vec![]), Completed, "", &[drop(), make(0, "t1")]);
    let lost = |said, seconds| seen(asked(Some(said), seconds), vec![pod("r1", Task::Lost)], vec![]);
    check_rewind(&lost(Rewinding, 90), Rewinding, "its pod is lost, and is made anew", &[Action::DropLost("job-rewind".to_owned())]);
    check_rewind(&lost(Failed, 700), Failed, "as before", &[Action::DropLost("job-rewind".to_owned())]);
    // One that was asked for before ends first.
    let other = seen(asked(Some(Rewinding), 2), vec![pod("r0", Task::Working(0, None))], vec![]);
    check_rewind(&other, Rewinding, "0 workers release their shards", &[drop()]);
}

/// Method: nothing is known of it but what a worker has found in the bucket: that it, or another one, was given up.
#[test]
fn a_rewind_that_has_failed_is_not_tried_again_when_the_status_is_lost() {
    let found = |id: &str| {
        let Answer::Heard(said) = runs(1, &[0, 1, 2, 3]) else { panic!("it answers") };
        vec![worker(0, PodState::Ready, Answer::Heard(Description { rewinds_given_up: vec![id.into()], ..said }))]
    };
    let lost = |id| seen(asked(None, 0), vec![], found(id));
    check_rewind(&lost("r1"), RewindPhase::Failed, "it had failed, and the job has gone on since", &[]);
    assert_eq!(lost("r1").failed_rewind(), Some("r1"));
    let stop = delete(0, "0 workers are wanted");
    check_rewind(&lost("r0"), RewindPhase::Rewinding, "1 workers release their shards", &[stop]);
    assert_eq!(lost("r0").failed_rewind(), None);
    // Who works in its timeline knows better than who found an attempt that was left over.
    let Answer::Heard(said) = rewound(runs(1, &[0, 1, 2, 3])) else { panic!("it answers") };
    let both = Answer::Heard(Description { rewinds_given_up: vec!["r1".into()], ..said });
    check_rewind(&seen(asked(None, 0), vec![], vec![worker(0, PodState::Ready, both)]), RewindPhase::Completed, "", &[]);
}

/// Method: the request is deleted from the manifest while its pod is at work.
#[test]
fn a_rewind_that_is_no_longer_asked_for_ends_before_there_are_workers_again() {
    let withdrawn = |pods| {
        let mut fleet = seen(asked(Some(RewindPhase::Rewinding), 5), pods, vec![]);
        (fleet.rewind.asked, fleet.replicas) = (None, 1);
        fleet.replicas = if fleet.is_rewinding() { 0 } else { 1 };
        fleet
    };
    let at_work = withdrawn(vec![pod("r1", Task::Working(0, None))]);
    check(&at_work, &[Action::DeleteRewinder("job-rewind".to_owned())]);
    check(&withdrawn(vec![]), &[make(0, "t1")]);
}

#[test]
fn a_rewind_waits_for_a_change_that_is_under_way_and_not_for_one_that_was_taken_back() {
    let works = || worker(0, PodState::Ready, runs(1, &[0, 1, 2, 3]));
    let changed = |standing| Fleet {
        template: "t2".into(),
        configs: configs(&[("t1", Standing::Good(1)), ("t2", standing)]),
        savepoints: [("t2".to_owned(), saved("t2", SavepointPhase::Completed))].into(),
        ..seen(asked(None, 0), vec![], vec![works()])
    };
    let waits = Progress::Pending("the change to revision t2 comes first".to_owned());
    assert_eq!(changed(Standing::Untried).rewind(), Some(waits.clone()));
    assert_eq!(changed(Standing::Proven).rewind(), Some(waits));
    assert!(changed(Standing::Bad("it crashes".into())).is_rewinding());
    let first = Fleet { configs: BTreeMap::new(), ..changed(Standing::Untried) };
    assert_eq!(first.rewind(), Some(Progress::Pending("the job has not processed on all workers yet".to_owned())));
}

/// Method: a job whose last change was taken back, with dead letters to be put back, is rewound.
#[test]
fn a_rewind_leaves_letters_to_people_and_begins_when_nobody_puts_them_back() {
    let mut taken_back = seen(asked(Some(RewindPhase::Rewinding), 5), vec![], vec![]);
    taken_back.template = "t2".into();
    taken_back.configs.extend(configs(&[("t2", Standing::Bad("it was bad".into()))]));
    taken_back.configs.get_mut("t2").unwrap().letters = Letters::Due;
    check(&taken_back, &[Action::MarkLetters { template: "t2".into(), letters: Letters::Left }]);
    taken_back.configs.get_mut("t2").unwrap().letters = Letters::Left;
    taken_back.postmen = vec![Postman { pod: "letters".into(), template: "t2".into(), task: Task::Working(0, None) }];
    check(&taken_back, &[Action::DeletePostman("letters".into())]);
    taken_back.postmen.clear();
    check(&taken_back, &[Action::Rewind]);
}

/// Method: a worker that was thought gone, or was started too early, beside one of the new timeline.
#[test]
fn who_works_on_a_timeline_that_is_over_is_replaced_and_holds_nothing() {
    let old = worker(0, PodState::Ready, runs(7, &[0, 1]));
    let new = worker(1, PodState::Ready, rewound(runs(1, &[2, 3])));
    let both = fleet(2, vec![old, new]);
    check(&both, &[delete(0, "the job was rewound, and it works on timeline 0"), make(2, "t1"), assign(1, 8, &[0, 1, 2, 3])]);
}
