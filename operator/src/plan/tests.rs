//! Method: a fleet is written down, and the plan for it compared. Fleets that change are taken through a toy in which workers obey at once.

use forebay_api::v1::{Assignment, Description, GivenUp, Prefetched, Shard};

use super::*;

const SHARDS: u32 = 4;

fn description(version: u64, assigned: &[u32], owned: &[(u32, &str)]) -> Description {
    let assignment = (version > 0).then(|| Assignment { job: "job".into(), version, shards: assigned.to_vec() });
    let owned = owned.iter().map(|(shard, phase)| Shard { shard: *shard, phase: (*phase).into(), ..Shard::default() }).collect();
    Description { job: "job".into(), shards: SHARDS, assignment, owned, ..Description::default() }
}

/// A worker that runs what it was given.
fn runs(version: u64, shards: &[u32]) -> Answer {
    Answer::Heard(description(version, shards, &shards.iter().map(|shard| (*shard, "running")).collect::<Vec<_>>()))
}

/// One that can prepare shards, and prepares these.
fn prepares(answer: Answer, prefetched: &[Prefetched]) -> Answer {
    let Answer::Heard(said) = answer else { panic!("it does not answer") };
    Answer::Heard(Description { can_prefetch: true, prefetched: prefetched.to_vec(), ..said })
}

fn prefetched(shard: u32, ready: bool, failure: &str) -> Prefetched {
    Prefetched { shard, ready, failure: failure.into() }
}

fn idle() -> Answer {
    Answer::Heard(description(0, &[], &[]))
}

fn silent(seconds: u64, answer: Answer) -> Answer {
    match answer {
        Answer::Heard(said) => Answer::Silent(Duration::from_secs(seconds), said),
        Answer::Unheard(_) | Answer::Silent(..) => panic!("it never said anything"),
    }
}

fn worker(slot: u32, state: PodState, answer: Answer) -> Worker {
    let (pod, uid) = (format!("pod-{slot}"), format!("uid-{slot}"));
    let (age, was_ready) = (Duration::ZERO, state == PodState::Ready);
    Worker {
        pod,
        uid,
        slot,
        template: "t1".into(),
        state,
        age,
        was_ready,
        restarts: 0,
        trouble: None,
        secrets: Secrets::default(),
        answer,
        trends: BTreeMap::new(),
    }
}

fn of(template: &str, worker: Worker) -> Worker {
    Worker { template: template.into(), ..worker }
}

const GATE: Upgrade = Upgrade { observe: Duration::from_secs(30), deadline: Duration::from_secs(600), dead_letter_percent_max: 10 };

/// One whose only revision is in force.
fn fleet(replicas: u32, workers: Vec<Worker>) -> Fleet {
    let configs = configs(&[("t1", Standing::Good(1))]);
    Fleet {
        replicas,
        stops_for: Duration::ZERO,
        template: "t1".into(),
        gate: GATE,
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

fn configs(all: &[(&str, Standing)]) -> BTreeMap<String, Config> {
    let config = |standing: &Standing| Config { standing: standing.clone(), version: None, results: None, letters: Letters::None };
    all.iter().map(|(template, standing)| ((*template).to_owned(), config(standing))).collect()
}

fn saved(template: &str, phase: SavepointPhase) -> Saved {
    let (path, made) = (format!("default/job/{template}"), Timestamp::UNIX_EPOCH);
    Saved { name: format!("job-{template}"), phase: Some(phase), path, made, takes_all: false }
}

fn make(slot: u32, template: &str) -> Action {
    Action::ApplyPod { slot, template: template.into() }
}

fn mark(template: &str, standing: Standing) -> Action {
    Action::Mark { template: template.into(), standing, has_letters: false }
}

fn assign(slot: u32, version: u64, shards: &[u32]) -> Action {
    Action::Assign { pod: format!("pod-{slot}"), version, shards: shards.iter().copied().collect() }
}

fn delete(slot: u32, reason: &str) -> Action {
    Action::DeletePod { pod: format!("pod-{slot}"), uid: format!("uid-{slot}"), reason: reason.into() }
}

fn check(fleet: &Fleet, expected: &[Action]) {
    assert_eq!(plan(fleet), expected, "{fleet:#?}");
}

#[test]
fn a_new_job_gets_its_objects_and_pods_and_they_get_the_shards() {
    let empty = Fleet { configs: BTreeMap::new(), has_service: false, has_budget: false, has_policy: false, ..fleet(2, Vec::new()) };
    check(&empty, &[Action::ApplyService, Action::ApplyBudget, Action::ApplyPolicy, Action::ApplyConfig, make(0, "t1"), make(1, "t1")]);
    let unheard = || Answer::Unheard(Duration::ZERO);
    check(&fleet(2, vec![worker(0, PodState::Starting, unheard()), worker(1, PodState::Starting, unheard())]), &[]);
    check(
        &fleet(2, vec![worker(0, PodState::Ready, idle()), worker(1, PodState::Ready, idle())]),
        &[assign(0, 1, &[0, 2]), assign(1, 1, &[1, 3])],
    );
}

#[test]
fn a_job_that_runs_is_left_alone() {
    check(&fleet(2, vec![worker(0, PodState::Ready, runs(1, &[0, 1])), worker(1, PodState::Ready, runs(2, &[2, 3]))]), &[]);
}

#[test]
fn a_silent_worker_loses_its_shards_after_the_timeout_and_its_pod_after_a_minute() {
    let after = |seconds| {
        fleet(2, vec![worker(0, PodState::Ready, runs(3, &[0, 1])), worker(1, PodState::Ready, silent(seconds, runs(4, &[2, 3])))])
    };
    check(&after(4), &[]);
    check(&after(5), &[assign(0, 5, &[0, 1, 2, 3])]);
    check(&after(60), &[delete(1, "it has been silent for 60 s"), make(2, "t1"), assign(0, 5, &[0, 1, 2, 3])]);
}

/// Method: an operator that came later than a worker's node was lost: Kubernetes no longer has the pod for ready, and its container for ready as ever.
#[test]
fn a_worker_that_was_never_heard_is_replaced_when_its_node_is_not_heard_of_either() {
    let lost = |seconds, was_ready| {
        let unheard = worker(1, PodState::Starting, Answer::Unheard(Duration::from_secs(seconds)));
        fleet(2, vec![worker(0, PodState::Ready, runs(3, &[0, 1, 2, 3])), Worker { was_ready, ..unheard }])
    };
    check(&lost(59, true), &[]);
    check(&lost(60, true), &[delete(1, "it has been silent for 60 s, and so has its node"), make(2, "t1")]);
    // One that has yet to come up may have much to copy first.
    check(&lost(600, false), &[]);
    let mut hidden = lost(600, true);
    hidden.workers[1].state = PodState::Ready;
    check(&hidden, &[]);
}

#[test]
fn a_worker_that_comes_back_late_is_told_what_is_no_longer_its() {
    let back = description(4, &[2, 3], &[]);
    let given_up = |shard| GivenUp { shard, version: 5, winner: "pod-0".into() };
    let back = Answer::Heard(Description { given_up: vec![given_up(2), given_up(3)], ..back });
    // Nothing is moved to it in the same breath: first it is told, then one shard after another follows.
    let workers = vec![worker(0, PodState::Ready, runs(5, &[0, 1, 2, 3])), worker(1, PodState::Ready, back)];
    check(&fleet(2, workers), &[assign(0, 6, &[0, 1, 2]), assign(1, 6, &[])]);
}

#[test]
fn the_shards_of_a_pod_that_is_gone_go_to_others_at_once() {
    check(&fleet(2, vec![worker(0, PodState::Ready, runs(1, &[0, 1]))]), &[make(1, "t1"), assign(0, 2, &[0, 1, 2, 3])]);
}

#[test]
fn the_shards_of_a_pod_that_is_being_deleted_go_to_others_as_it_releases_them() {
    let ending = |owned: &[(u32, &str)]| worker(1, PodState::Ending, Answer::Heard(description(1, &[2, 3], owned)));
    let with = |ending| fleet(1, vec![worker(0, PodState::Ready, runs(1, &[0, 1])), ending]);
    check(&with(ending(&[(2, "running"), (3, "running")])), &[]);
    check(&with(ending(&[(3, "running")])), &[assign(0, 2, &[0, 1, 2])]);
    check(&with(ending(&[])), &[assign(0, 2, &[0, 1, 2, 3])]);
}

/// Method: a pod was to be gone by now, and its worker goes on; beside another one, and alone in a job that is to rest.
#[test]
fn a_worker_whose_pod_is_stuck_is_told_to_release_its_shards() {
    let stuck = |said| worker(1, PodState::Stuck, Answer::Heard(said));
    let with = |stuck| fleet(1, vec![worker(0, PodState::Ready, runs(1, &[0, 1])), stuck]);
    check(&with(stuck(description(1, &[2, 3], &[(2, "running"), (3, "running")]))), &[assign(1, 2, &[])]);
    check(&with(stuck(description(2, &[], &[(3, "running")]))), &[assign(0, 3, &[0, 1, 2])]);
    let alone = |said| fleet(0, vec![stuck(said)]);
    check(&alone(description(1, &[2, 3], &[(2, "running"), (3, "running")])), &[assign(1, 2, &[])]);
    check(&alone(description(2, &[], &[])), &[]);
}

#[test]
fn a_suspended_job_loses_its_pods_and_nobody_gets_what_they_release() {
    let workers = |state| vec![worker(0, state, runs(1, &[0, 1])), worker(1, state, runs(1, &[2, 3]))];
    check(&fleet(0, workers(PodState::Ready)), &[delete(0, "0 workers are wanted"), delete(1, "0 workers are wanted")]);
    check(&fleet(0, workers(PodState::Ending)), &[]);
    check(&fleet(0, Vec::new()), &[]);
}

#[test]
fn a_job_that_is_to_rest_takes_last_checkpoints_and_does_not_wait_for_them_for_ever() {
    let shard = |shard, epoch, checkpoint_epoch, seconds: u64| Shard {
        shard,
        phase: "running".into(),
        epoch,
        checkpoint_epoch,
        checkpoint_taken_millis: Some(seconds * 1000),
        ..Shard::default()
    };
    let said = |owned| Answer::Heard(Description { owned, ..description(1, &[0, 1, 2, 3], &[]) });
    let stops =
        |seconds, owned| Fleet { stops_for: Duration::from_secs(seconds), ..fleet(0, vec![worker(0, PodState::Ready, said(owned))]) };
    let ask = || Action::Checkpoint(["pod-0".to_owned()].into());
    let go = || delete(0, "0 workers are wanted");
    check(&stops(0, vec![shard(0, 7, 6, 3), shard(1, 9, 9, 30)]), &[ask()]);
    check(&stops(4, vec![shard(0, 7, 6, 5), shard(1, 9, 9, 30)]), &[ask()]);
    check(&stops(6, vec![shard(0, 7, 6, 5), shard(1, 9, 9, 30)]), &[go()]);
    check(&stops(21, vec![shard(0, 7, 6, 50), shard(1, 9, 9, 30)]), &[go()]);
}

#[test]
fn a_version_that_was_met_in_a_journal_is_surpassed() {
    // An operator that starts anew, with the status deleted and all pods gone, knows no version; the journals do.
    let said = description(1, &[0, 1, 2, 3], &[]);
    let given_up = (0..SHARDS).map(|shard| GivenUp { shard, version: 41, winner: "one of old".into() }).collect();
    let workers = vec![worker(0, PodState::Ready, Answer::Heard(Description { given_up, ..said }))];
    check(&fleet(1, workers), &[assign(0, 42, &[0, 1, 2, 3])]);
}

#[test]
fn an_operator_that_starts_anew_waits_for_pods_that_may_have_shards() {
    let with = |seconds| {
        fleet(
            2,
            vec![worker(0, PodState::Ready, runs(1, &[0, 1])), worker(1, PodState::Ready, Answer::Unheard(Duration::from_secs(seconds)))],
        )
    };
    check(&with(1), &[]);
    check(&with(5), &[assign(0, 2, &[0, 1, 2, 3])]);
    let starting = worker(1, PodState::Starting, Answer::Unheard(Duration::from_secs(1)));
    check(&fleet(2, vec![worker(0, PodState::Ready, runs(1, &[0, 1])), starting]), &[assign(0, 2, &[0, 1, 2, 3])]);
}

#[test]
fn shards_move_one_at_a_time_and_never_during_a_restore() {
    let restoring = description(1, &[0, 1, 2, 3], &[(0, "running"), (1, "running"), (2, "running"), (3, "restoring")]);
    let new = || worker(1, PodState::Ready, idle());
    check(&fleet(2, vec![worker(0, PodState::Ready, Answer::Heard(restoring)), new()]), &[]);
    check(&fleet(2, vec![worker(0, PodState::Ready, runs(1, &[0, 1, 2, 3])), new()]), &[assign(0, 2, &[0, 1, 2])]);
    // Not before it is released.
    let releasing = description(2, &[0, 1, 2], &[(0, "running"), (1, "running"), (2, "running"), (3, "running")]);
    check(&fleet(2, vec![worker(0, PodState::Ready, Answer::Heard(releasing)), new()]), &[]);
    check(&fleet(2, vec![worker(0, PodState::Ready, runs(2, &[0, 1, 2])), new()]), &[assign(1, 3, &[3])]);
}

/// Method: the same move, by a worker that can prepare; the preparation is on its way, done, or has failed.
#[test]
fn a_shard_moves_once_its_new_owner_has_prepared_it_or_has_failed_to() {
    let with = |owner: Answer, new: Answer| fleet(2, vec![worker(0, PodState::Ready, owner), worker(1, PodState::Ready, new)]);
    let all = || runs(1, &[0, 1, 2, 3]);
    let ask = |shards: &[u32]| Action::Prefetch { pod: "pod-1".into(), shards: shards.iter().copied().collect() };
    let new = |prefetched: &[Prefetched]| prepares(idle(), prefetched);
    check(&with(all(), new(&[])), &[ask(&[3])]);
    check(&with(all(), new(&[prefetched(3, false, "")])), &[]);
    check(&with(all(), new(&[prefetched(3, true, "")])), &[assign(0, 2, &[0, 1, 2])]);
    check(&with(all(), new(&[prefetched(3, false, "the store is down")])), &[assign(0, 2, &[0, 1, 2])]);
    // While it moves nothing is taken back of what was prepared for it.
    let releasing = description(2, &[0, 1, 2], &[(0, "running"), (1, "running"), (2, "running"), (3, "running")]);
    check(&with(Answer::Heard(releasing), new(&[prefetched(3, true, "")])), &[]);
    check(&with(runs(2, &[0, 1, 2]), new(&[prefetched(3, true, "")])), &[assign(1, 3, &[3])]);
    // What is no longer meant to move is no longer prepared.
    check(&with(runs(1, &[0, 1]), prepares(runs(1, &[2, 3]), &[prefetched(1, true, "")])), &[ask(&[])]);
    check(&with(all(), new(&[prefetched(0, true, "")])), &[ask(&[3])]);
}

/// Method: three workers with as many shards each; one is gone, and of the other two the one that prepared the shard is not the first.
#[test]
fn a_shard_that_is_free_goes_to_the_one_of_equals_that_has_prepared_it() {
    let two =
        vec![worker(0, PodState::Ready, runs(1, &[0])), worker(1, PodState::Ready, prepares(runs(1, &[1]), &[prefetched(2, true, "")]))];
    let told = plan(&fleet(2, two));
    assert_eq!(told, [assign(0, 2, &[0, 3]), assign(1, 2, &[1, 2])]);
}

#[test]
fn of_two_who_were_given_a_shard_the_higher_version_has_it() {
    let workers = vec![worker(0, PodState::Ready, runs(7, &[0, 1])), worker(1, PodState::Ready, runs(8, &[1, 2, 3]))];
    let told = plan(&fleet(2, workers));
    assert_eq!(told, [assign(0, 9, &[0])]);
}

/// Method: one that was away, and whose shard another one has by now, is told to release it under a higher version, and has not done so yet.
#[test]
fn nobody_loses_a_shard_to_one_that_is_releasing_it() {
    let releasing = Answer::Heard(description(6, &[], &[(1, "running")]));
    let workers = vec![worker(0, PodState::Stuck, releasing), worker(1, PodState::Ready, runs(5, &[0, 1, 2, 3]))];
    check(&fleet(1, workers), &[]);
}

#[test]
fn fewer_workers_are_fewer_pods_from_the_last_one_on_and_ended_ones_are_replaced() {
    let three = |replicas| {
        fleet(
            replicas,
            vec![
                worker(0, PodState::Ready, runs(1, &[0, 1])),
                worker(1, PodState::Ready, runs(1, &[2])),
                worker(2, PodState::Ready, runs(1, &[3])),
            ],
        )
    };
    check(&three(2), &[delete(2, "2 workers are wanted")]);
    check(&three(3), &[]);
    let over = fleet(1, vec![worker(0, PodState::Over, Answer::Unheard(Duration::ZERO))]);
    check(&over, &[delete(0, "it has ended"), make(1, "t1")]);
}

#[test]
fn the_first_revision_is_good_once_all_shards_have_run_and_may_change_until_then() {
    let mut first = fleet(2, vec![worker(0, PodState::Ready, runs(1, &[0, 1])), worker(1, PodState::Ready, runs(1, &[2, 3]))]);
    first.configs = configs(&[("t1", Standing::Untried)]);
    check(&first, &[mark("t1", Standing::Good(1))]);

    // One that cannot start is not waited for.
    first.template = "t2".into();
    first.workers = vec![worker(0, PodState::Ready, idle()), worker(1, PodState::Starting, Answer::Unheard(Duration::from_secs(100)))];
    let why = "its image, manifest or resources have changed";
    check(&first, &[Action::ApplyConfig, delete(1, why), assign(0, 1, &[0, 1, 2, 3])]);
}

/// Method: there is room for two of three workers, so no revision has ever been in force; then the manifest changes.
#[test]
fn workers_of_an_earlier_manifest_go_though_there_is_no_room_for_all() {
    let no_room = || Some(Trouble { reason: "Unschedulable".into(), message: "0/2 nodes".into() });
    let waits = Worker { trouble: no_room(), ..worker(2, PodState::Starting, Answer::Unheard(Duration::ZERO)) };
    let two = [worker(0, PodState::Ready, runs(1, &[0, 1])), worker(1, PodState::Ready, runs(1, &[2, 3]))];
    let mut first = fleet(3, two.into_iter().chain([of("t2", waits)]).collect());
    (first.template, first.configs) = ("t2".into(), configs(&[("t2", Standing::Untried)]));
    let why = "its image, manifest or resources have changed";
    check(&first, &[delete(1, why)]);
    first.workers[2].trouble = None;
    check(&first, &[]);
}

#[test]
fn what_nobody_needs_is_deleted() {
    let mut done = fleet(1, vec![worker(0, PodState::Ready, runs(1, &[0, 1, 2, 3]))]);
    done.configs = configs(&[("t0", Standing::Good(1)), ("t1", Standing::Good(2)), ("tx", Standing::Bad("it was bad".into()))]);
    check(&done, &[Action::DeleteConfig("t0".into()), Action::DeleteConfig("tx".into())]);
    // Nor is what was begun in vain when the job is suspended: its deadline would be over when it goes on.
    let mut suspended = fleet(0, Vec::new());
    suspended.template = "t2".into();
    suspended.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Proven)]);
    check(&suspended, &[Action::DeleteConfig("t2".into())]);
    suspended.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Bad("it was bad".into()))]);
    check(&suspended, &[]);
}

/// Method: workers that do at once what they are told; a plan must come to rest, with every shard run by one worker and no worker with two
/// more than another. Pods come and go between the rests.
#[test]
fn every_fleet_comes_to_rest_balanced() {
    let mut toy = fleet(1, Vec::new());
    for replicas in [1, 3, 2, 4, 1] {
        toy.replicas = replicas;
        let mut steps = 0;
        loop {
            let actions = plan(&toy);
            if actions.is_empty() {
                break;
            }
            obey(&mut toy, actions);
            steps += 1;
            assert!(steps < 30, "no rest: {toy:#?}");
        }
        assert!(toy.all_run(), "{toy:#?}");
        let counts: Vec<usize> = toy.workers.iter().filter_map(Worker::heard).map(|said| said.owned.len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), SHARDS as usize, "a shard runs twice: {toy:#?}");
        assert!(counts.iter().max() <= counts.iter().min().map(|least| least + 1).as_ref(), "{counts:?}");
    }
}

fn obey(toy: &mut Fleet, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::ApplyPod { slot, template } => {
                toy.workers.push(of(&template, worker(slot, PodState::Ready, prepares(idle(), &[]))));
            }
            Action::DeletePod { pod, .. } => toy.workers.retain(|worker| worker.pod != pod),
            Action::Prefetch { pod, shards } => {
                let told = toy.workers.iter_mut().find(|worker| worker.pod == pod).expect("only those are told that are there");
                let Answer::Heard(said) = &mut told.answer else { panic!("it does not answer") };
                said.prefetched = shards.into_iter().map(|shard| prefetched(shard, true, "")).collect();
            }
            Action::Assign { pod, version, shards } => {
                let shards: Vec<u32> = shards.into_iter().collect();
                let told = toy.workers.iter_mut().find(|worker| worker.pod == pod).expect("only those are told that are there");
                told.answer = prepares(runs(version, &shards), &[]);
            }
            Action::ApplyConfig => toy.configs.extend(configs(&[(&toy.template.clone(), Standing::Untried)])),
            Action::ApplySavepoint => {
                let template = toy.template.clone();
                toy.savepoints.insert(template.clone(), saved(&template, SavepointPhase::Completed));
            }
            Action::DoomSavepoint(name) => {
                let doomed = toy.savepoints.values_mut().find(|saved| saved.name == name);
                doomed.expect("only what is there is doomed").takes_all = true;
            }
            Action::DeleteSavepoint(name) => toy.savepoints.retain(|_, saved| saved.name != name),
            Action::DeleteConfig(template) => drop(toy.configs.remove(&template)),
            Action::Mark { template, standing, has_letters } => {
                let marked = toy.configs.get_mut(&template).expect("only what is there is marked");
                if standing != Standing::Proven {
                    marked.letters = if has_letters { Letters::Due } else { Letters::None };
                }
                marked.standing = standing;
            }
            Action::PutBack { template, .. } => {
                toy.postmen.push(Postman { pod: format!("letters-{template}"), template, task: Task::Done })
            }
            Action::MarkLetters { template, letters } => {
                toy.configs.get_mut(&template).expect("only what is there is marked").letters = letters
            }
            Action::DeletePostman(pod) => toy.postmen.retain(|postman| postman.pod != pod),
            Action::ApplyService
            | Action::ApplyBudget
            | Action::ApplyPolicy
            | Action::TakeSavepoint(_)
            | Action::Checkpoint(_)
            | Action::Rewind
            | Action::DropLost(_)
            | Action::DeleteRewinder(_) => {
                panic!("{action:?} was not called for")
            }
        }
    }
}

mod letters;
mod lifecycle;
mod rewinds;
mod secrets;
mod upgrades;
