//! Method: fleets are written down, and what is told of them compared.

use forebay_crds::savepoint::SavepointPhase;
use forebay_crds::validate::Upgrade;

use super::*;
use crate::plan::rollout::Standing;
use crate::plan::schedule::Calendar;
use crate::plan::{Config, Saved, Trouble};

fn job(name: &str, uid: &str) -> IngestionJob {
    let job = serde_json::json!({
        "metadata": {"name": name, "namespace": "n", "uid": uid, "generation": 3},
        "spec": {"inputs": [{"name": "i", "topic": "t"}], "deadLetter": {"topic": "d"}, "pipeline": []},
    });
    serde_json::from_value(job).unwrap()
}

fn said(phases: [&str; 2]) -> v1::Description {
    let shard = |(number, phase): (u32, &str)| v1::Shard {
        shard: number,
        phase: phase.into(),
        epoch: 7,
        checkpoint_age_millis: Some(1500),
        failure: if phase == "failed" { "no broker".into() } else { String::new() },
        ..v1::Shard::default()
    };
    let assignment = v1::Assignment { job: "uid".into(), version: 4, shards: vec![0, 1] };
    v1::Description {
        shards: 3,
        assignment: Some(assignment),
        owned: (0..).zip(phases).map(shard).collect(),
        memory_bytes: Some(5),
        ..v1::Description::default()
    }
}

fn fleet(answer: Answer) -> Fleet {
    let worker = plan::Worker {
        pod: "pod-0".into(),
        uid: "pod-uid".into(),
        slot: 0,
        template: "t".into(),
        state: PodState::Ready,
        age: Duration::ZERO,
        was_ready: true,
        restarts: 1,
        trouble: None,
        secrets: plan::Secrets::default(),
        answer,
        trends: BTreeMap::new(),
    };
    Fleet {
        replicas: 1,
        stops_for: Duration::ZERO,
        template: "t".into(),
        gate: Upgrade { observe: Duration::from_secs(30), deadline: Duration::from_secs(600), dead_letter_percent_max: 10 },
        workers: vec![worker],
        configs: [(
            "t".to_owned(),
            Config { standing: Standing::Good(1), version: None, results: None, letters: crate::plan::letters::Letters::None },
        )]
        .into(),
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

fn verdict() -> Verdict {
    Verdict { phase: forebay_crds::job::Phase::Starting, reason: "R".into(), message: "m".into() }
}

fn check(fleet: &Fleet, expected: &[&str]) {
    assert_eq!(waits(fleet), expected);
}

#[test]
fn what_is_waited_for_is_named() {
    check(
        &fleet(Answer::Heard(said(["running", "failed"]))),
        &["shard 1 is failed on pod-0: no broker", "shard 2 is on no worker that answers"],
    );
    let silent = "pod-0 has been silent for 7 s: after 5 s its shards go to others, after 60 s it is replaced";
    let nobodys = ["shard 0 is on no worker that answers", "shard 1 is on no worker that answers", "shard 2 is on no worker that answers"];
    check(&fleet(Answer::Silent(Duration::from_secs(7), said(["running", "running"]))), &[&[silent][..], &nobodys].concat());
    check(&fleet(Answer::Unheard(Duration::ZERO)), &["pod-0 has not answered yet"]);
    let mut troubled = fleet(Answer::Unheard(Duration::ZERO));
    troubled.workers[0].trouble = Some(Trouble { reason: "Error".into(), message: "no such topic".into() });
    check(&troubled, &["pod-0 does not come up: Error: no such topic"]);
    troubled.workers[0].trouble = None;
    troubled.workers[0].state = PodState::Ending;
    check(&troubled, &["pod-0 is being deleted, and releases its shards"]);
    troubled.replicas = 0;
    troubled.workers.clear();
    check(&troubled, &[]);
}

#[test]
fn a_change_tells_its_stage_and_what_it_waits_for() {
    let mut changed = fleet(Answer::Heard(v1::Description { shards: 0, ..said(["running", "running"]) }));
    changed.template = "u".into();
    assert_eq!(change(&changed), Change { stage: "savepoint".into(), from: "t".into(), to: "u".into() });
    check(&changed, &["revision u: the savepoint before it is not begun"]);
    let (phase, made) = (Some(SavepointPhase::Completed), k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
    changed.savepoints.insert("u".into(), Saved { name: "s".into(), phase, path: String::new(), made, takes_all: false });
    assert_eq!(change(&changed).stage, "canary");
    check(&changed, &["revision u: its worker has no shard yet"]);
}

#[test]
fn a_look_tells_who_has_what_and_what_was_decided_last() {
    let (looks, start) = (Looks::default(), Instant::now());
    let running = fleet(Answer::Heard(said(["running", "running"])));
    let assign = Action::Assign { pod: "pod-0".into(), version: 4, shards: [0, 1].into() };
    looks.keep(&job("a", "uid"), &verdict(), Some(&running), &[assign], start);
    looks.keep(&job("a", "uid"), &verdict(), Some(&running), &[], start + Duration::from_secs(1));
    looks.failed(&job("a", "uid"), "the API server is away".into());
    let look = looks.of("n", "a", "uid", start + Duration::from_secs(3)).unwrap();
    assert_eq!((look.age_millis, look.generation, look.phase.as_str(), look.shards), (2000, Some(3), "Starting", Some(3)));
    assert_eq!(look.error.as_deref(), Some("the API server is away"));
    assert!(look.actions.is_empty());
    let actions = vec!["pod-0 has the shards {0, 1} under version 4".to_owned()];
    assert_eq!(look.decided, Some(Decision { age_millis: 3000, actions }));
    let worker = &look.workers[0];
    assert_eq!((worker.version, worker.assigned.as_slice(), worker.silent_millis, worker.memory_bytes), (4, &[0, 1][..], Some(0), Some(5)));
    assert_eq!((worker.shards[1].epoch, worker.shards[1].checkpoint_age_millis), (7, Some(1500)));
    assert_eq!(serde_json::from_str::<Look>(&serde_json::to_string(&look).unwrap()).unwrap(), look);
    // One made anew under its name has not been looked at, and knows nothing of what was decided for its predecessor.
    assert_eq!(looks.of("n", "a", "another", start + Duration::from_secs(3)), None);
    looks.keep(&job("a", "another"), &verdict(), None, &[], start + Duration::from_secs(4));
    assert_eq!(looks.of("n", "a", "another", start + Duration::from_secs(4)).unwrap().decided, None);
    // Another installation looks after it now.
    looks.forget(&job("a", "another"));
    assert_eq!(looks.of("n", "a", "another", start + Duration::from_secs(4)), None);
}

#[test]
fn no_more_than_a_thousand_looks_are_kept_and_long_messages_are_cut() {
    let (looks, start) = (Looks::default(), Instant::now());
    let wordy = Verdict { message: "ä".repeat(5000), ..verdict() };
    for number in 0..=JOBS_MAX {
        let at = start + Duration::from_millis(number as u64);
        looks.keep(&job(&format!("job-{number}"), "uid"), &wordy, None, &[], at);
    }
    let later = start + Duration::from_secs(60);
    assert_eq!(looks.kept().len(), JOBS_MAX);
    assert_eq!(looks.of("n", "job-0", "uid", later), None);
    let kept = looks.of("n", "job-1", "uid", later).unwrap();
    assert_eq!(kept.message.chars().count(), MESSAGE_CHARACTERS_MAX + 1);
}
