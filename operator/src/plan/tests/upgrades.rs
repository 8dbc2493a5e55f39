//! Method: a change of a job is taken through a toy whose workers obey at once, with an operator that ends between any two actions, hears late, or
//! does things twice; and what is thought of a change is compared for what its workers may say.

use forebay_api::v1::Books;
use forebay_crds::job::RewindPhase;
use forebay_crds::validate::{Rewind, RewindTarget};

use super::*;
use crate::plan::rewind::Asked;
use crate::plan::rollout::{Judgement, judge};
use crate::plan::trend::{Sample, Trend};

/// A shard that was at `before` when its worker took it up, and is at `now`: records, and dead letters among them.
fn processes(shard: u32, seconds: u64, before: (u64, u64), now: (u64, u64)) -> Shard {
    let books = |(records_in, rejected)| Some(Books { records_in, rejected, ..Books::default() });
    Shard {
        shard,
        phase: "running".into(),
        running_millis: Some(seconds * 1000),
        books_at_start: books(before),
        books: books(now),
        ..Shard::default()
    }
}

fn says(version: u64, shards: Vec<Shard>) -> Answer {
    let assigned: Vec<u32> = shards.iter().map(|shard| shard.shard).collect();
    Answer::Heard(Description { owned: shards, ..description(version, &assigned, &[]) })
}

/// The clock of the last look.
const NOW: Duration = Duration::from_secs(1000);

/// Its shards have been followed since they began to process.
fn followed_from_the_start(mut worker: Worker) -> Worker {
    for shard in worker.heard().map(|said| said.owned.clone()).unwrap_or_default() {
        let Some(millis) = shard.running_millis else { continue };
        let mut trend = Trend::default();
        for (at, books) in [(NOW - Duration::from_millis(millis), shard.books_at_start), (NOW, shard.books)] {
            let Books { records_in, rejected, .. } = books.unwrap_or_default();
            trend.add(Sample { at, lag_records: shard.lag_records, records_in, rejected }, GATE.observe);
        }
        worker.trends.entry(shard.shard).or_insert(trend);
    }
    worker
}

/// Two workers of `t1` beside a canary of `t2` that says this.
fn trial(canary: Worker) -> Fleet {
    let canary = followed_from_the_start(of("t2", canary));
    let workers = vec![worker(0, PodState::Ready, runs(1, &[0, 1])), worker(1, PodState::Ready, runs(2, &[2])), canary];
    let mut configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Untried)]);
    configs.get_mut("t2").unwrap().letters = Letters::Possible;
    let savepoints = [("t2".to_owned(), saved("t2", SavepointPhase::Completed))].into();
    Fleet { template: "t2".into(), configs, savepoints, ..fleet(2, workers) }
}

fn check_judgement(canary: Worker, age_seconds: u64, expected: Judgement) {
    let mut trial = trial(canary);
    trial.workers[2].age = Duration::from_secs(age_seconds);
    assert_eq!(judge(&trial), expected, "{trial:#?}");
}

fn crashing(restarts: u32) -> Worker {
    Worker {
        restarts,
        trouble: Some(Trouble { reason: "Error".into(), message: "no such table".into() }),
        ..worker(2, PodState::Starting, Answer::Unheard(Duration::ZERO))
    }
}

/// The server may come back; but it is not waited for without end, since the change may have its worker look for one where none is.
#[test]
fn a_change_whose_worker_blames_a_server_has_until_its_deadline() {
    let without_store = Worker { trouble: Some(Trouble { reason: SERVER_AWAY.into(), message: "no store".into() }), ..crashing(9) };
    check_judgement(without_store.clone(), 600, Judgement::Waiting("pod pod-2: no store".into()));
    check_judgement(without_store.clone(), 601, Judgement::Bad("it is not in force after 600 s: pod pod-2: no store".into()));
    let mut both = trial(without_store);
    both.workers.push(of("t2", Worker { pod: "pod-3".into(), ..crashing(2) }));
    assert_eq!(judge(&both), Judgement::Bad("pod pod-3 was started 3 times: no such table".into()), "of the other nothing is said");
}

#[test]
fn a_change_is_judged_by_what_its_workers_do() {
    let healthy = |shard| worker(2, PodState::Ready, says(3, vec![shard]));
    let bad = |reason: &str| Judgement::Bad(reason.into());
    let waiting = |reason: &str| Judgement::Waiting(reason.into());
    check_judgement(worker(2, PodState::Starting, Answer::Unheard(Duration::ZERO)), 5, waiting("its worker has no shard yet"));
    let late = "it is not in force after 600 s: its worker has no shard yet";
    check_judgement(worker(2, PodState::Starting, Answer::Unheard(Duration::ZERO)), 601, bad(late));
    // The operator was away, or other shards are on their way: that is not the change's fault.
    check_judgement(worker(2, PodState::Ready, idle()), 601, waiting("its worker has no shard yet"));
    let mut untried = trial(worker(2, PodState::Ready, idle()));
    untried.workers.pop();
    assert_eq!(judge(&untried), waiting("its worker has no shard yet"));
    check_judgement(healthy(processes(3, 29, (0, 0), (5, 0))), 40, waiting("shard 3 is observed for 30 s"));
    check_judgement(healthy(processes(3, 30, (0, 0), (5, 0))), 40, Judgement::Healthy);
    // With nothing to read there is nothing to commit; with something there is.
    check_judgement(healthy(processes(3, 30, (7, 0), (7, 0))), 40, Judgement::Healthy);
    let stuck = Shard { lag_records: 9, ..processes(3, 30, (7, 0), (7, 0)) };
    check_judgement(healthy(stuck.clone()), 40, waiting("shard 3 has not committed any of its records under it"));
    let late = "it is not in force after 600 s: shard 3 has not committed any of its records under it";
    check_judgement(healthy(stuck), 601, bad(late));

    let mut following = trial(healthy(processes(3, 29, (0, 0), (5, 0))));
    following.configs.get_mut("t2").unwrap().standing = Standing::Proven;
    following.workers[2].age = Duration::from_secs(1800);
    assert_eq!(judge(&following), waiting("shard 3 is observed for 30 s"), "two workers that follow have two more shares of time");
    following.workers[2].age = Duration::from_secs(1801);
    assert_eq!(judge(&following), bad("it is not in force after 1800 s: shard 3 is observed for 30 s"));

    let letters = "of 20 records that it has processed 13 became dead letters, 65 % where it was 50 % before";
    check_judgement(healthy(processes(3, 30, (10, 5), (29, 18))), 40, Judgement::Healthy);
    check_judgement(healthy(processes(3, 30, (10, 5), (30, 18))), 40, bad(letters));
    check_judgement(healthy(processes(3, 30, (10, 5), (30, 17))), 40, Judgement::Healthy);
    // A moment of bad input is not held against it, but what is bad beyond doubt is.
    let letters = "of 100 records that it has processed 61 became dead letters, 61 % where it was 10 % before";
    check_judgement(healthy(processes(3, 9, (100, 10), (200, 71))), 15, waiting("shard 3 is observed for 30 s"));
    check_judgement(healthy(processes(3, 10, (100, 10), (200, 70))), 15, waiting("shard 3 is observed for 30 s"));
    check_judgement(healthy(processes(3, 10, (100, 10), (200, 71))), 15, bad(letters));

    let stalled = Shard { shard: 3, phase: "stalled".into(), stalled: true, failure: "a gap".into(), ..Shard::default() };
    check_judgement(healthy(stalled), 5, bad("shard 3 cannot go on: a gap"));
    check_judgement(crashing(1), 5, waiting("pod pod-2: no such table"));
    check_judgement(crashing(2), 5, bad("pod pod-2 was started 3 times: no such table"));
    // The others fail as well: it may be something else that is amiss.
    let beside_failing = |seconds| {
        let mut trial = trial(Worker { age: Duration::from_secs(seconds), ..crashing(2) });
        let failing = Shard { shard: 1, phase: "failed".into(), failure: "no store".into(), ..Shard::default() };
        trial.workers[1].answer = says(2, vec![failing]);
        judge(&trial)
    };
    assert_eq!(beside_failing(600), waiting("pod pod-2: no such table"));
    assert_eq!(beside_failing(601), bad("it is not in force after 600 s: pod pod-2: no such table"));
    let refused = |may_pass, seconds| {
        let refusal = Refusal { message: "exceeded quota".into(), may_pass };
        let mut trial = trial(worker(2, PodState::Starting, Answer::Unheard(Duration::ZERO)));
        trial.workers.pop();
        trial.refused = Some(Refused { refusal, since: Duration::from_secs(seconds) });
        judge(&trial)
    };
    assert_eq!(refused(true, 19), waiting("its worker has no shard yet"));
    assert_eq!(refused(true, 20), bad("the API server refuses its pods: exceeded quota"));
    assert_eq!(refused(false, 0), bad("the API server refuses its pods: exceeded quota"));
    // One that was started again and is well is none of that.
    check_judgement(Worker { restarts: 5, ..healthy(processes(3, 30, (0, 0), (5, 0))) }, 5, Judgement::Healthy);
}

/// A worker that has been followed for so many seconds on one shard, of which so many records waited then and do now; it has taken 600 a second.
fn followed(slot: u32, shard: u32, seconds: u64, (was, is): (u64, u64)) -> Worker {
    let now = Shard { lag_records: is, ..processes(shard, 300, (0, 0), (100_000, 0)) };
    let mut trend = Trend::default();
    for second in 0..=seconds {
        let lag_records = was + (is - was) * second / seconds.max(1);
        trend.add(Sample { at: Duration::from_secs(100 + second), lag_records, records_in: 600 * second, rejected: 0 }, GATE.observe);
    }
    Worker { trends: [(shard, trend)].into(), ..worker(slot, PodState::Ready, says(3, vec![now])) }
}

#[test]
fn a_change_under_which_the_lag_grows_without_end_is_bad_unless_it_does_so_without_the_change_too() {
    let judged = |canary: Worker, other: Worker| {
        let workers = vec![other, of("t2", canary.clone())];
        judge(&Fleet { workers, ..trial(canary) })
    };
    let with = |seconds, lags| followed(2, 3, seconds, lags);
    let well = || followed(0, 0, 90, (50, 60));
    let check = |canary: Worker, other: Worker, expected: Judgement| assert_eq!(judged(canary, other), expected);
    let waiting = |reason: &str| Judgement::Waiting(reason.into());
    check(with(29, (300, 9000)), well(), waiting("shard 3 is observed for 30 s"));
    check(with(30, (300, 9000)), well(), waiting("shard 3 falls behind under it: 9000 records wait, and 300 did 30 s before"));
    let grows_on = "shard 3 falls behind under it: 30000 records wait, and 300 did 90 s before";
    check(with(90, (300, 30_000)), well(), Judgement::Bad(grows_on.into()));
    // The one before does not keep up either.
    check(with(90, (300, 30_000)), followed(0, 0, 90, (300, 30_000)), Judgement::Healthy);
    // It began with more than it can have got by the change, and nobody knows whether the other one would have kept up.
    check(with(90, (300_000, 330_000)), well(), Judgement::Healthy);
    check(with(90, (300, 400)), well(), Judgement::Healthy);
    check(with(90, (0, 19)), well(), Judgement::Healthy);
}

/// Method: a canary of which every second record becomes a dead letter, beside a worker of the revision before that is followed for as long: of a thousand records so
/// many were dead letters before, and of so many since then so many.
#[test]
fn dead_letters_are_not_held_against_a_change_that_the_revision_before_makes_too() {
    let judged = |was: u64, was_elsewhere: u64, taken: u64, rejected: u64| {
        let canary = worker(2, PodState::Ready, says(3, vec![processes(3, 30, (1000, was), (1100, was + 50))]));
        let mut trial = trial(canary);
        let mut trend = Trend::default();
        let looks = [(NOW - GATE.observe, 1000, was_elsewhere), (NOW, 1000 + taken, was_elsewhere + rejected)];
        for (at, records_in, rejected) in looks {
            trend.add(Sample { at, lag_records: 0, records_in, rejected }, GATE.observe);
        }
        trial.workers[0].trends = [(0, trend)].into();
        judge(&trial)
    };
    let bad = |was: u64, elsewhere: &str| {
        Judgement::Bad(format!("of 100 records that it has processed 50 became dead letters, 50 % where it was {was} % before{elsewhere}"))
    };
    assert_eq!(judged(0, 1, 100, 40), Judgement::Healthy);
    assert_eq!(judged(0, 1, 100, 39), bad(0, ", and elsewhere 39 % where it was 0 %"));
    assert_eq!(judged(0, 1, 100, 0), bad(0, ", and elsewhere 0 % where it was 0 %"));
    // A few records say nothing.
    assert_eq!(judged(0, 1, 19, 19), bad(0, ""));
    // Its shard has always had more of them: when there are four times as many elsewhere, so there are here.
    assert_eq!(judged(100, 20, 100, 8), Judgement::Healthy);
    assert_eq!(judged(100, 20, 100, 7), bad(10, ", and elsewhere 7 % where it was 2 %"));
    assert_eq!(judged(100, 20, 100, 2), bad(10, ", and elsewhere 2 % where it was 2 %"));

    // Once it is proven and all workers are of it, half of what comes in may be bad.
    let alone = |rejected: u64| {
        let mut proven = trial(worker(2, PodState::Ready, says(3, vec![processes(3, 30, (1_000_000, 0), (1_000_100, rejected))])));
        proven.configs.get_mut("t2").unwrap().standing = Standing::Proven;
        proven.workers.drain(..2);
        judge(&proven)
    };
    assert_eq!(alone(50), Judgement::Healthy);
    let letters = "of 100 records that it has processed 51 became dead letters, 51 % where it was 0 % before";
    assert_eq!(alone(51), Judgement::Bad(letters.into()));
}

/// Method: second by second, with a look at each: shard 3 goes over to the canary after 20 s, and 100 records a second come to each shard, of which so many percent are dead
/// letters, by the second; under the canary so many percent more. Of 100,000 records before, so many were on shard 3, and 1,000 on the other one. Returns the first judgement that is no waiting, and when it came.
fn storm(was: u64, percent: impl Fn(u64) -> u64, more: u64) -> (u64, Judgement) {
    let (mut here, mut there) = ((100_000, was), (100_000, 1000));
    let (mut at_start, mut trends) = (None, [Trend::default(), Trend::default()]);
    for second in 0.. {
        let at = NOW + Duration::from_secs(second);
        let sample = |(records_in, rejected)| Sample { at, lag_records: 0, records_in, rejected };
        trends[0].add(sample(there), GATE.observe);
        if second >= 20 {
            let start = *at_start.get_or_insert(here);
            trends[1].add(sample(here), GATE.observe);
            let canary = Worker {
                trends: [(3, trends[1].clone())].into(),
                ..worker(2, PodState::Ready, says(3, vec![processes(3, second - 20, start, here)]))
            };
            let mut trial = trial(canary);
            trial.workers[0].trends = [(0, trends[0].clone())].into();
            match judge(&trial) {
                Judgement::Waiting(_) => {}
                judged => return (second, judged),
            }
        }
        (here, there) =
            ((here.0 + 100, here.1 + percent(second) + if second >= 20 { more } else { 0 }), (there.0 + 100, there.1 + percent(second)));
    }
    unreachable!("the change is judged one day");
}

#[test]
fn a_storm_is_told_from_a_bad_change_whenever_it_begins() {
    for begin in 0..50 {
        for share in [20, 60, 95] {
            let judged = storm(1000, |second| if second >= begin { share } else { 1 }, 0);
            assert_eq!(judged, (50, Judgement::Healthy), "{share} % from {begin} s on");
        }
        // It ends just before the change is tried, or while it is.
        let (second, judged) = storm(1000, |second| if (begin..begin + 10).contains(&second) { 60 } else { 1 }, 40);
        assert!(matches!(&judged, Judgement::Bad(_)) && second <= 50, "from {begin} s on: {judged:?} after {second} s");
    }
    let (second, judged) = storm(1000, |_| 1, 99);
    assert!(matches!(&judged, Judgement::Bad(_)) && second == 30, "{judged:?} after {second} s");
    assert!(
        matches!(storm(30_000, |second| if second >= 25 { 5 } else { 0 }, 95).1, Judgement::Bad(_)),
        "that there are five times as many elsewhere does not excuse everything"
    );
}

#[test]
fn a_canary_comes_beside_the_others_and_gets_one_shard() {
    let before = vec![worker(0, PodState::Ready, runs(1, &[0, 1])), worker(1, PodState::Ready, runs(2, &[2, 3]))];
    let mut changed = Fleet { template: "t2".into(), ..fleet(2, before.clone()) };
    check(&changed, &[Action::ApplyConfig, Action::ApplySavepoint]);
    changed.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Untried)]);
    changed.savepoints.insert("t2".into(), saved("t2", SavepointPhase::Copying));
    check(&changed, &[]);
    // One that fails holds up no change: the change may be what repairs it.
    for phase in [SavepointPhase::Completed, SavepointPhase::Failed] {
        changed.savepoints.insert("t2".into(), saved("t2", phase));
        check(&changed, &[make(2, "t2")]);
    }

    let mut idle_canary = trial(worker(2, PodState::Ready, idle()));
    idle_canary.workers[1] = before[1].clone();
    check(&idle_canary, &[assign(1, 3, &[2])]);
    let mut first_shard = trial(worker(2, PodState::Ready, idle()));
    check(&first_shard, &[assign(2, 3, &[3])]);
    // That it processes is written down first, once.
    first_shard.configs.get_mut("t2").unwrap().letters = Letters::None;
    check(&first_shard, &[Action::MarkLetters { template: "t2".into(), letters: Letters::Possible }, assign(2, 3, &[3])]);
    // A worker that is lost is replaced by one of the revision that is known to be good, and the canary gets none of its shards.
    let mut lost = trial(worker(2, PodState::Ready, runs(3, &[3])));
    lost.workers.remove(1);
    check(&lost, &[make(1, "t1"), assign(0, 4, &[0, 1, 2])]);
    // While no other one answers it takes what there is.
    lost.workers[0].answer = Answer::Unheard(Duration::from_secs(10));
    check(&lost, &[make(1, "t1"), assign(2, 4, &[0, 1, 2, 3])]);
}

/// Method: changes one after another, each with its savepoint; the manifest goes on, is repaired, goes back, and names one of them.
#[test]
fn savepoints_before_changes_go_when_a_later_change_is_in_force_and_the_newest_of_them_stays() {
    let at = |template: &str, second, phase| {
        let made = Timestamp::from_second(second).unwrap();
        (template.to_owned(), Saved { made, ..saved(template, phase) })
    };
    use SavepointPhase::{Completed, Copying, Failed};
    let runs = || vec![worker(0, PodState::Ready, runs(1, &[0, 1, 2, 3]))];
    let mut job = fleet(1, runs());
    let doom = |name: &str| Action::DoomSavepoint(format!("job-{name}"));
    // t2, t3 and t4 came before t1, of which t3 was repaired by t4 and that one by t1.
    let earlier = [at("t2", 2, Completed), at("t3", 3, Completed), at("t4", 4, Failed)];
    for own in [at("t1", 9, Copying), at("t1", 9, Failed)] {
        job.savepoints = earlier.clone().into_iter().chain([own]).collect();
        check(&job, &[]);
    }
    job.savepoints.extend([at("t1", 9, Completed)]);
    check(&job, &[doom("t4"), doom("t2")]);
    job.savepoints.get_mut("t4").unwrap().takes_all = true;
    check(&job, &[Action::DeleteSavepoint("job-t4".into()), doom("t2")]);
    job.savepoints.remove("t4");
    let rewind =
        Rewind { id: "r".into(), target: RewindTarget::Savepoint("default/job/t2".into()), deadline: Duration::from_secs(600), retries: 3 };
    job.rewind.asked = Some(Asked { rewind, said: Some((RewindPhase::Completed, String::new())), age: Duration::ZERO });
    check(&job, &[]);
    job.rewind.asked = None;
    check(&job, &[doom("t2")]);
    // While another change is under way, or was taken back, none goes.
    job.template = "t5".into();
    for standing in [Standing::Untried, Standing::Bad("it was bad".into())] {
        job.configs.extend(configs(&[("t5", standing)]));
        job.savepoints.extend([at("t5", 10, Completed)]);
        assert!(!plan(&job).iter().any(|action| matches!(action, Action::DoomSavepoint(_) | Action::DeleteSavepoint(_))), "{job:#?}");
    }
}

#[test]
fn a_bad_change_goes_at_once_and_is_not_tried_again() {
    let mut bad = trial(worker(2, PodState::Ready, says(3, vec![processes(3, 10, (0, 0), (100, 100))])));
    let reason = "of 100 records that it has processed 100 became dead letters, 100 % where it was 0 % before";
    let has_letters = true;
    check(&bad, &[Action::Mark { template: "t2".into(), standing: Standing::Bad(reason.into()), has_letters }]);
    bad.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Bad(reason.into()))]);
    check(&bad, &[delete(2, "its revision was taken back")]);
    bad.workers.pop();
    check(&bad, &[assign(1, 3, &[2, 3])]);
    bad.workers[1].answer = runs(3, &[2, 3]);
    check(&bad, &[]);

    // Of one that crashes, and that this operator has never heard, it is known whether it had processed before.
    for (letters, has_letters) in [(Letters::Possible, true), (Letters::None, false)] {
        let trouble = Some(Trouble { reason: "Error".into(), message: "out of memory".into() });
        let mut crashed = trial(Worker { restarts: 2, trouble, ..worker(2, PodState::Starting, Answer::Unheard(Duration::ZERO)) });
        crashed.workers[1].answer = runs(2, &[2, 3]);
        crashed.configs.get_mut("t2").unwrap().letters = letters;
        let reason = "pod pod-2 was started 3 times: out of memory".to_owned();
        check(&crashed, &[Action::Mark { template: "t2".into(), standing: Standing::Bad(reason), has_letters }]);
    }

    // Half of the workers had followed already: all go at once, and as many come.
    bad.workers[1].template = "t2".into();
    check(&bad, &[delete(1, "its revision was taken back"), make(2, "t1")]);
}

#[test]
fn the_others_follow_one_by_one() {
    let mut proven = trial(worker(2, PodState::Ready, says(3, vec![processes(3, 30, (0, 0), (5, 0))])));
    check(&proven, &[mark("t2", Standing::Proven)]);
    proven.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Proven)]);
    let why = "its image, manifest or resources have changed";
    check(&proven, &[delete(1, why)]);
    proven.workers.remove(1);
    check(&proven, &[make(1, "t2"), assign(2, 4, &[2, 3])]);
    // The last one goes when nothing is being restored, and one that ails whatever the others do.
    proven.workers.push(of("t2", worker(1, PodState::Ready, idle())));
    proven.workers[1].answer = Answer::Heard(description(4, &[2, 3], &[(2, "restoring"), (3, "running")]));
    check(&proven, &[]);
    proven.workers[0].trouble = Some(Trouble { reason: "Error".into(), message: "out of memory".into() });
    check(&proven, &[delete(0, why)]);
}

/// Method: of a change's workers one is to go, and of three workers two, where those that take over can prepare their shards: they have yet to begin, are at it, are
/// ready, or have failed.
#[test]
fn who_goes_as_planned_does_so_when_others_have_prepared_its_shards() {
    let ask = |slot: u32, shards: &[u32]| Action::Prefetch { pod: format!("pod-{slot}"), shards: shards.iter().copied().collect() };
    let why = "its image, manifest or resources have changed";
    let mut proven = trial(of("t2", worker(2, PodState::Ready, prepares(says(3, vec![processes(3, 30, (0, 0), (5, 0))]), &[]))));
    proven.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Proven)]);
    // The one that has least gets more of it, whatever revision it is of: nothing is moved twice if it has to go, too.
    proven.workers[0].answer = prepares(runs(1, &[0, 1]), &[]);
    let said = |prefetched: &[Prefetched]| prepares(says(3, vec![processes(3, 30, (0, 0), (5, 0))]), prefetched);
    check(&proven, &[ask(2, &[2])]);
    proven.workers[2].answer = said(&[prefetched(2, false, "")]);
    check(&proven, &[]);
    for done in [prefetched(2, true, ""), prefetched(2, false, "the store is down")] {
        proven.workers[2].answer = said(&[done]);
        check(&proven, &[delete(1, why)]);
    }
    // What stands still meanwhile is not waited for, and what was begun is not taken back.
    proven.workers[2].answer = said(&[prefetched(2, false, "")]);
    proven.workers[0].answer = prepares(Answer::Heard(description(1, &[0, 1], &[(0, "running"), (1, "restoring")])), &[]);
    check(&proven, &[]);

    let mut fewer = fleet(1, vec![worker(0, PodState::Ready, prepares(runs(1, &[0]), &[]))]);
    fewer.workers.extend([worker(1, PodState::Ready, runs(2, &[1])), worker(2, PodState::Ready, runs(3, &[2, 3]))]);
    check(&fewer, &[ask(0, &[1, 2, 3])]);
    let prepared = |ready| [1, 2, 3].map(|shard| prefetched(shard, ready || shard > 1, ""));
    fewer.workers[0].answer = prepares(runs(1, &[0]), &prepared(false));
    check(&fewer, &[]);
    fewer.workers[0].answer = prepares(runs(1, &[0]), &prepared(true));
    check(&fewer, &[delete(1, "1 workers are wanted"), delete(2, "1 workers are wanted")]);
    // With nobody to take over, nothing is waited for.
    fewer.workers[0].answer = Answer::Unheard(Duration::from_secs(9));
    check(&fewer, &[delete(1, "1 workers are wanted"), delete(2, "1 workers are wanted")]);
    fewer.replicas = 0;
    assert_eq!(plan(&fewer).len(), 3);
}

/// Method: who has less to do than the one that has begun comes first in the list.
#[test]
fn who_has_begun_to_prepare_a_shard_goes_on_with_it() {
    let of = |slot, answer| worker(slot, PodState::Ready, prepares(answer, &[]));
    let mut fewer = fleet(2, vec![of(0, runs(1, &[0])), of(1, runs(2, &[1, 3])), of(2, runs(3, &[2]))]);
    check(&fewer, &[Action::Prefetch { pod: "pod-0".into(), shards: [2].into() }]);
    fewer.workers[1].answer = prepares(runs(2, &[1, 3]), &[prefetched(2, false, "")]);
    check(&fewer, &[]);
}

/// Method: a shard fails and is tried again, for ever; it never runs, or for a moment only, and the manifest is changed.
#[test]
fn a_change_comes_first_to_a_shard_that_fails_again_and_again() {
    let failing = |phase: &str| {
        let shard = |shard| Shard { shard, phase: "running".into(), ..Shard::default() };
        let full = Shard { phase: phase.into(), failure: "the disk is full".into(), ..shard(1) };
        worker(0, PodState::Ready, says(1, vec![shard(0), full]))
    };
    for phase in ["failed", "claiming", "restoring"] {
        let mut changed = trial(worker(2, PodState::Ready, idle()));
        changed.workers[0] = failing(phase);
        changed.workers[1].answer = runs(2, &[2, 3]);
        check(&changed, &[assign(0, 3, &[0])]);
        // It goes on under the change; and if it was another shard that the canary got, the worker with this one is the first to go.
        changed.workers[0].answer = runs(1, &[0]);
        check(&changed, &[assign(2, 3, &[1])]);
        changed.workers[0] = failing(phase);
        changed.workers[1].answer = runs(2, &[2]);
        changed.workers[2].answer = says(3, vec![processes(3, 30, (0, 0), (5, 0))]);
        changed.workers[2] = followed_from_the_start(changed.workers[2].clone());
        changed.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Proven)]);
        check(&changed, &[delete(0, "its image, manifest or resources have changed")]);
        // Not while one has yet to come.
        changed.workers.remove(1);
        check(&changed, &[make(1, "t2"), assign(2, 4, &[2, 3])]);
    }
    // So is that of a job that has never run.
    let first = Fleet { configs: BTreeMap::new(), template: "t2".into(), ..fleet(1, vec![failing("failed")]) };
    assert!(plan(&first).contains(&delete(0, "its image, manifest or resources have changed")));
}

/// What becomes of a change in the toy, in which all processes well, or the new revision makes dead letters of all.
fn toy_world(toy: &mut Fleet, is_bad: bool) {
    for worker in &mut toy.workers {
        let is_new = worker.template == "t2";
        let Answer::Heard(said) = &mut worker.answer else { continue };
        for shard in &mut said.owned {
            let now = if is_bad && is_new { (200, 100) } else { (200, 0) };
            *shard = processes(shard.shard, 30, (100, 0), now);
        }
        *worker = followed_from_the_start(worker.clone());
    }
}

/// Method: a good and a bad change, with so many workers before and after. The operator ends after each number of actions (those behind are not
/// done), does some of them twice, and begins anew from what is seen. In the end the right revision runs on all workers, nothing is left of the
/// other, and at no time did fewer workers answer than were wanted, less one.
#[test]
fn every_change_comes_to_its_end_however_often_the_operator_ends() {
    for (replicas, is_bad, done_at_most) in (1..=4).flat_map(|n| (1..=4).flat_map(move |most| [(n, false, most), (n, true, most)])) {
        let mut toy = fleet(replicas, Vec::new());
        let mut steps = 0;
        for template in ["t1", "t2"] {
            toy.template = template.into();
            loop {
                toy_world(&mut toy, is_bad);
                let mut actions = plan(&toy);
                if actions.is_empty() {
                    break;
                }
                actions.truncate(done_at_most);
                let again: Vec<Action> = actions.iter().filter(|action| matches!(action, Action::Assign { .. })).cloned().collect();
                obey(&mut toy, actions);
                let again = again.into_iter().filter(|action| is_there(&toy, action)).collect();
                obey(&mut toy, again);
                let there = toy.workers.len() as u32;
                assert!(template == "t1" || there >= replicas, "{there} workers of {replicas}: {toy:#?}");
                steps += 1;
                assert!(steps < 200, "no rest: {toy:#?}");
            }
        }
        let expected = if is_bad { "t1" } else { "t2" };
        assert!(toy.all_run() && toy.workers.len() == replicas as usize, "{toy:#?}");
        assert!(toy.workers.iter().all(|worker| worker.template == expected), "{replicas} {is_bad}: {toy:#?}");
        let left: Vec<&str> = toy.configs.keys().map(String::as_str).collect();
        assert_eq!(left, if is_bad { vec!["t1", "t2"] } else { vec!["t2"] });
    }
}

fn is_there(toy: &Fleet, action: &Action) -> bool {
    matches!(action, Action::Assign { pod, .. } if toy.workers.iter().any(|worker| worker.pod == *pod))
}

/// Method: the manifest goes back to what is in force, or on to a third revision, at every point of a change.
#[test]
fn another_change_at_any_moment_leads_to_its_own_end() {
    for (next, moment) in ["t1", "t3"].into_iter().flat_map(|next| (0..12).map(move |moment| (next, moment))) {
        let mut toy = fleet(2, Vec::new());
        let mut run = |template: &str, steps_max: usize| {
            toy.template = template.into();
            for _ in 0..steps_max {
                toy_world(&mut toy, false);
                let actions = plan(&toy);
                if actions.is_empty() {
                    return (toy.clone(), true);
                }
                obey(&mut toy, actions);
            }
            (toy.clone(), false)
        };
        assert!(run("t1", 50).1);
        run("t2", moment);
        let (end, rests) = run(next, 100);
        assert!(rests && end.all_run(), "{next} {moment}: {end:#?}");
        assert!(end.workers.len() == 2 && end.workers.iter().all(|worker| worker.template == next), "{next} {moment}: {end:#?}");
        assert_eq!(end.configs.keys().collect::<Vec<_>>(), [next], "{next} {moment}");
    }
}
