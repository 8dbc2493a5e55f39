//! Method: what is seen is written down, and what is said of it compared.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_api::v1::{Description, Shard};
use forebay_crds::savepoint::SavepointPhase;
use forebay_crds::validate::Upgrade;

use super::*;
use crate::plan::rollout::Standing;
use crate::plan::schedule::Calendar;
use crate::plan::{Action, Answer, Config, Fleet, PodState, Saved, Secrets, Trouble, Worker};

fn seen(answer: Answer, trouble: Option<Trouble>) -> Seen {
    let (pod, uid, template) = ("pod-0".into(), "uid".into(), "t".into());
    let (age, was_ready) = (Duration::ZERO, false);
    let worker = Worker {
        pod,
        uid,
        slot: 0,
        template,
        state: PodState::Starting,
        age,
        was_ready,
        restarts: 0,
        trouble,
        secrets: Secrets::default(),
        answer,
        trends: BTreeMap::new(),
    };
    let gate = Upgrade { observe: Duration::from_secs(30), deadline: Duration::from_secs(600), dead_letter_percent_max: 10 };
    let (configs, workers) = (BTreeMap::new(), vec![worker]);
    let fleet = Fleet {
        replicas: 1,
        stops_for: Duration::ZERO,
        template: "t".into(),
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
    };
    Seen { fleet, selector: "a=b".into(), revisions: BTreeMap::new() }
}

fn config(standing: Standing) -> Config {
    Config { standing, version: None, results: None, letters: crate::plan::letters::Letters::None }
}

fn heard(phases: [&str; 2], failure: &str) -> Answer {
    let shard = |(number, phase): (u32, &str)| Shard {
        shard: number,
        phase: phase.into(),
        lag_records: 10,
        failure: failure.into(),
        stalled: phase == "stalled",
        ..Shard::default()
    };
    Answer::Heard(Description { shards: 2, owned: (0..).zip(phases).map(shard).collect(), ..Description::default() })
}

fn check(seen: &Seen, expected: (Phase, &str, &str)) {
    let verdict = Verdict::of(seen);
    assert_eq!((verdict.phase, verdict.reason.as_str(), verdict.message.as_str()), expected);
}

/// All shards are on one of two workers; the other one does not come up.
fn fewer() -> Seen {
    let mut seen = seen(heard(["running", "running"], ""), None);
    let trouble = Some(Trouble { reason: "Error".into(), message: "topic flights is missing".into() });
    let second = Worker { pod: "pod-1".into(), answer: Answer::Unheard(Duration::ZERO), trouble, ..seen.fleet.workers[0].clone() };
    (seen.fleet.replicas, seen.fleet.workers) = (2, vec![seen.fleet.workers[0].clone(), second]);
    seen
}

#[test]
fn the_verdict_names_what_stands_in_the_way() {
    let trouble = || Some(Trouble { reason: "Error".into(), message: "topic flights is missing".into() });
    check(&seen(Answer::Unheard(Duration::ZERO), None), (Phase::Starting, "WorkersStarting", "0 of 1 workers answer"));
    check(&seen(Answer::Unheard(Duration::ZERO), trouble()), (Phase::Stalled, "Error", "pod pod-0: topic flights is missing"));
    let nowhere = Trouble { reason: "OOMKilled".into(), message: "it ended with exit code 137".into() };
    let way_out = "pod pod-0: it ended with exit code 137; raise spec.workers.resources.limits.memory, or lower spec.state.memory";
    check(&seen(Answer::Unheard(Duration::ZERO), Some(nowhere)), (Phase::Stalled, "OOMKilled", way_out));
    check(
        &seen(heard(["running", "restoring"], ""), None),
        (Phase::Starting, "ShardsStarting", "1 of 2 shards process, 1 of 1 workers answer"),
    );
    check(&seen(heard(["running", "running"], ""), None), (Phase::Running, "AllShardsRun", "all 2 shards process"));
    let message = "all 2 shards process, on 1 of 2 workers; pod pod-1: topic flights is missing";
    check(&fewer(), (Phase::Running, "WorkerMissing", message));
    check(&seen(heard(["running", "stalled"], "a gap"), None), (Phase::Stalled, "ShardStalled", "shard 1: a gap"));
    check(
        &seen(heard(["running", "failed"], "no broker"), None),
        (Phase::Starting, "ShardFailed", "shard 0 failed and is tried again: no broker"),
    );
    let mut outdated = seen(heard(["running", "running"], ""), None);
    outdated.fleet.template = "u".into();
    check(&outdated, (Phase::Starting, "WorkersFollow", "workers that were made from an earlier manifest are replaced"));
    let paused = Verdict::of(&seen(heard(["running", "running"], ""), None)).paused();
    let message = "all 2 shards process. Nothing is done about it: the annotation forebay.dev/paused pauses the job";
    assert_eq!((paused.phase, paused.message.as_str()), (Phase::Running, message));
    let mut suspended = seen(heard(["running", "running"], ""), None);
    suspended.fleet.replicas = 0;
    check(&suspended, (Phase::Suspending, "Suspending", "1 workers take last checkpoints and release their shards"));
    suspended.fleet.workers.clear();
    assert_eq!(Verdict::of(&suspended).phase, Phase::Suspended);
}

/// Method: a good revision `t` runs, the manifest asks for `u`, and what is known of that is varied.
#[test]
fn a_change_and_what_became_of_it_is_told() {
    let mut changed = seen(heard(["running", "running"], ""), None);
    changed.fleet.template = "u".into();
    changed.fleet.configs = [("t".to_owned(), config(Standing::Good(1)))].into();
    check(&changed, (Phase::Upgrading, "SavepointFirst", "revision u: a savepoint is taken before anything changes"));
    let before = Saved {
        name: "s".into(),
        phase: Some(SavepointPhase::Completed),
        path: String::new(),
        made: Timestamp::UNIX_EPOCH,
        takes_all: false,
    };
    changed.fleet.savepoints.insert("u".into(), before);
    check(&changed, (Phase::Upgrading, "CanaryObserved", "revision u: its worker has no shard yet"));
    changed.fleet.configs.insert("u".into(), config(Standing::Proven));
    check(&changed, (Phase::Upgrading, "WorkersFollow", "revision u: its worker has no shard yet"));
    changed.fleet.configs.insert("u".into(), config(Standing::Bad("it crashed".into())));
    let verdict = Verdict::of(&changed);
    assert_eq!((verdict.phase, verdict.reason.as_str()), (Phase::RolledBack, "RolledBack"));
    assert!(verdict.message.starts_with("revision u was taken back: it crashed. Revision t processes on."), "{}", verdict.message);

    let job = IngestionJob::new("flights", flights());
    let said = status(&job, &verdict, Some(&changed), Timestamp::from_second(1000).unwrap());
    assert_eq!(said.revision.as_deref(), Some("t"));
    let conditions: Vec<_> = said.conditions.iter().map(|condition| (condition.type_.as_str(), condition.status.as_str())).collect();
    assert_eq!(conditions, [("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")]);
    let told = news(
        None,
        &verdict,
        None,
        &[Action::Mark { template: "u".into(), standing: Standing::Bad("it crashed".into()), has_letters: false }],
    );
    assert_eq!((told[1].is_warning, told[1].reason), (true, "RevisionTakenBack"));
}

#[test]
fn conditions_follow_kstatus_and_keep_the_time_of_their_transition() {
    let mut job = IngestionJob::new("flights", flights());
    job.metadata.generation = Some(3);
    let (early, late) = (Timestamp::from_second(1000).unwrap(), Timestamp::from_second(2000).unwrap());
    let running = seen(heard(["running", "running"], ""), None);
    let first = status(&job, &Verdict::of(&running), Some(&running), early);
    let said: Vec<_> = first.conditions.iter().map(|condition| (condition.type_.as_str(), condition.status.as_str())).collect();
    assert_eq!(said, [("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False")]);
    assert_eq!((first.observed_generation, first.lag_records, first.workers.as_deref()), (Some(3), Some(20), Some("1/1")));

    // Whose the job is, is not for a look to say.
    assert_eq!(first.operator, None);
    let first = IngestionJobStatus { operator: Some("forebay-system".into()), ..first };
    job.status = Some(first.clone());
    let same = status(&job, &Verdict::of(&running), Some(&running), late);
    assert_eq!(same, first);
    let restoring = seen(heard(["running", "restoring"], ""), None);
    let changed = status(&job, &Verdict::of(&restoring), Some(&restoring), late);
    let times: Vec<_> = changed.conditions.iter().map(|condition| condition.last_transition_time.0).collect();
    assert_eq!(times, [late, late, early]);
    assert!(is_news(Some(&first), &changed) && !is_news(Some(&first), &IngestionJobStatus { lag_records: Some(9), ..first.clone() }));
}

#[test]
fn a_job_has_state_once_a_worker_has_begun_and_for_good() {
    let mut job = IngestionJob::new("flights", flights());
    let at = Timestamp::from_second(1000).unwrap();
    let said = |job: &IngestionJob, seen: &Seen| status(job, &Verdict::of(seen), Some(seen), at);
    let frozen = |status: &IngestionJobStatus| (status.has_state, status.shards);
    let mut starting = seen(Answer::Unheard(Duration::ZERO), None);
    job.status = Some(said(&job, &starting));
    assert_eq!(frozen(job.status.as_ref().unwrap()), (false, None));
    job.status = Some(said(&job, &seen(heard(["claiming", "restoring"], ""), None)));
    assert_eq!(frozen(job.status.as_ref().unwrap()), (true, Some(2)));
    assert_eq!(frozen(&said(&job, &starting)), (true, Some(2)));
    assert_eq!(frozen(&status(&job, &Verdict::of(&starting), None, at)), (true, Some(2)));
    // The status is lost while the job rests: what was in force is known.
    job.status = None;
    starting.fleet.configs.insert("t".into(), config(Standing::Good(1)));
    assert_eq!(frozen(&said(&job, &starting)), (true, None));
}

#[test]
fn how_long_a_job_has_been_stopping_is_read_off_its_status() {
    let mut job = IngestionJob::new("flights", flights());
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    assert_eq!(stops_for(&job, at(1000)), Duration::ZERO);
    let mut stopping = seen(heard(["running", "running"], ""), None);
    stopping.fleet.replicas = 0;
    job.status = Some(status(&job, &Verdict::of(&stopping), Some(&stopping), at(1000)));
    assert_eq!(stops_for(&job, at(1007)), Duration::from_secs(7));
    // It was on its way somewhere else for long before.
    let starting = seen(heard(["running", "restoring"], ""), None);
    job.status = Some(status(&job, &Verdict::of(&starting), Some(&starting), at(1010)));
    assert_eq!(stops_for(&job, at(1900)), Duration::ZERO);
    job.status = Some(status(&job, &Verdict::of(&stopping), Some(&stopping), at(1900)));
    job.status = Some(status(&job, &Verdict::of(&stopping), Some(&stopping), at(1901)));
    assert_eq!(stops_for(&job, at(1902)), Duration::from_secs(2));
}

#[test]
fn a_transition_is_told_once() {
    let running = seen(heard(["running", "running"], ""), None);
    let verdict = Verdict::of(&running);
    let told = news(None, &verdict, Some(&running), &[]);
    assert_eq!(told, [News { is_warning: false, reason: "Running", note: "AllShardsRun: all 2 shards process".into() }]);
    let old = IngestionJobStatus { phase: Some(Phase::Running), ..IngestionJobStatus::default() };
    assert!(news(Some(&old), &verdict, Some(&running), &[]).is_empty());
}

#[test]
fn a_worker_that_does_not_come_up_is_told_once_though_the_job_runs() {
    let (fewer, mut job) = (fewer(), IngestionJob::new("flights", flights()));
    let verdict = Verdict::of(&fewer);
    let note = verdict.message.clone();
    let old = IngestionJobStatus { phase: Some(Phase::Running), ..IngestionJobStatus::default() };
    assert_eq!(news(Some(&old), &verdict, Some(&fewer), &[]), [News { is_warning: true, reason: "WorkerMissing", note }]);
    job.status = Some(status(&job, &verdict, Some(&fewer), Timestamp::UNIX_EPOCH));
    assert!(news(job.status.as_ref(), &verdict, Some(&fewer), &[]).is_empty());
    let ready = job.status.unwrap().conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "WorkerMissing"));
}

#[test]
fn the_last_checkpoint_is_that_of_the_shard_which_is_worst_off() {
    // Ages in milliseconds, absent for a shard without one; what the status said before, and what it says now, in seconds.
    let check = |ages: &[Option<u64>], old: Option<i64>, expected: Option<i64>| {
        let time = |seconds| Time(Timestamp::from_second(seconds).unwrap());
        let shards: Vec<Shard> = ages.iter().map(|age| Shard { checkpoint_age_millis: *age, ..Shard::default() }).collect();
        let said = last_checkpoint(old.map(time), shards.iter(), Timestamp::from_second(1000).unwrap());
        assert_eq!(said.map(|time| time.0.as_second()), expected, "{ages:?}");
    };
    check(&[Some(10_000), Some(30_000)], None, Some(970));
    check(&[Some(10_000), None], Some(950), None);
    check(&[Some(29_000)], Some(970), Some(970));
    check(&[Some(10_000)], Some(970), Some(990));
    // The answer was on its way for some seconds: nothing is written for that, nor when the next one is there at once.
    check(&[Some(25_500)], Some(970), Some(970));
    check(&[Some(30_900)], Some(970), Some(970));
    check(&[Some(24_900)], Some(970), Some(975));
    check(&[], Some(970), Some(970));
}

#[test]
fn freshness_is_that_of_the_shard_which_is_worst_off_and_no_news() {
    let check = |millis: &[Option<u64>], expected: Option<&str>| {
        let shards: Vec<Shard> = millis.iter().map(|millis| Shard { freshness_millis: *millis, ..Shard::default() }).collect();
        assert_eq!(freshness(shards.iter()).as_deref(), expected, "{millis:?}");
    };
    check(&[], None);
    check(&[None, Some(0)], Some("0s"));
    check(&[Some(350), Some(20), None], Some("350ms"));
    check(&[Some(61_999), Some(20)], Some("1m1s"));
    let with = |freshness: &str| IngestionJobStatus { freshness: Some(freshness.to_owned()), ..IngestionJobStatus::default() };
    assert!(!is_news(Some(&with("1s")), &with("2s")));
}

fn flights() -> forebay_crds::IngestionJobSpec {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml");
    forebay_crds::parse(&std::fs::read_to_string(path).unwrap(), "job.yaml").unwrap().spec
}

#[test]
fn what_the_api_server_refuses_is_told_as_long_as_it_stands_in_the_way() {
    let why = || "apply Pod flights-0: no such service account".to_owned();
    let of = |phase| Verdict::new(phase, "AllShardsRun", "all 2 shards process").refused(why());
    assert_eq!(of(Phase::Starting), Verdict::new(Phase::Stalled, "Refused", why()));
    let upgrading = of(Phase::Upgrading);
    assert_eq!((upgrading.phase, upgrading.reason.as_str()), (Phase::Upgrading, "Refused"));
    assert!(upgrading.message.ends_with("no such service account"), "{}", upgrading.message);
    assert_eq!(of(Phase::Running), Verdict::new(Phase::Running, "AllShardsRun", "all 2 shards process"));
}

#[test]
fn secrets_that_are_missing_changed_or_refused_are_named() {
    let mut two = seen(heard(["running", "running"], ""), None);
    two.fleet.configs.insert("t".into(), config(Standing::Good(1)));
    two.fleet.workers[0].secrets.changed.insert("kafka".into());
    check(
        &two,
        (
            Phase::Upgrading,
            "SecretChanged",
            "this secret has changed: kafka. 1 workers that were started before are to be replaced, one by one",
        ),
    );
    let trouble = Some(Trouble { reason: "Error".into(), message: "wrong password".into() });
    let new = Worker {
        pod: "pod-1".into(),
        secrets: Secrets::default(),
        trouble,
        answer: Answer::Unheard(Duration::ZERO),
        ..two.fleet.workers[0].clone()
    };
    two.fleet.workers.push(new);
    check(
        &two,
        (
            Phase::Stalled,
            "SecretRefused",
            "this secret has changed: kafka. Pod pod-1, which was started with it, does not come up: wrong password. The 1 workers of before go on with what \
             they were started with; correct the secret",
        ),
    );
    two.fleet.workers[0].secrets.missing.insert("store".into());
    check(
        &two,
        (
            Phase::Stalled,
            "SecretMissing",
            "this secret is missing: store. The workers that run go on with what they were started with, and no other one can start; make it again, in the \
             job's namespace",
        ),
    );
}
