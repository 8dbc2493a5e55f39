//! Method: a job, a look and savepoints are written down, and the text for people compared.

use forebay_api::look::{Change, Decision, GivenUp, Shard};
use serde_json::json;

use super::*;

const NOW: &str = "2026-11-26T09:10:00Z";

/// A look in the middle of a change, with something in the way.
pub fn look() -> Look {
    let shard = |number, phase: &str, checkpoint| Shard {
        shard: number,
        phase: phase.into(),
        epoch: 812,
        lag_records: 5,
        freshness_millis: (phase == "running").then_some(65_000),
        load_permille: (phase == "running").then_some(204),
        checkpoint_age_millis: checkpoint,
        stalled: phase == "failed",
        ..Shard::default()
    };
    let worker = |pod: &str, version, silent, assigned: &[u32], shards| Worker {
        pod: pod.into(),
        revision: "aaa".into(),
        state: "ready".into(),
        version,
        silent_millis: silent,
        memory_bytes: silent.map(|_| 312 << 20),
        assigned: assigned.to_vec(),
        shards,
        ..Worker::default()
    };
    let given_up = vec![GivenUp { shard: 2, version: 9, winner: "another.uid".into() }];
    Look {
        generation: Some(3),
        age_millis: 1200,
        phase: "Upgrading".into(),
        reason: "CanaryObserved".into(),
        message: "revision bbb: shard 1 is observed for 30 s".into(),
        replicas: 2,
        shards: Some(4),
        change: Some(Change { stage: "canary".into(), from: "aaa".into(), to: "bbb".into() }),
        workers: vec![
            worker("flights-0", 7, Some(3000), &[0, 1], vec![shard(1, "running", Some(2500)), shard(0, "failed", None)]),
            Worker { given_up, ..worker("flights-1", 6, None, &[2], Vec::new()) },
        ],
        waits: vec!["shard 2 is on no worker that answers".into()],
        error: Some("the API server is away".into()),
        decided: Some(Decision { age_millis: 12_000, actions: vec!["flights-0 has the shards {0, 1} under version 7".into()] }),
        ..Look::default()
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> serde_json::Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-11-26T09:05:00Z"})
}

fn job(status: &serde_json::Value) -> IngestionJob {
    let job = json!({
        "metadata": {"name": "flights", "namespace": "default", "generation": 4},
        "spec": {"inputs": [{"name": "i", "topic": "t"}], "deadLetter": {"topic": "d"}, "pipeline": []},
        "status": status,
    });
    serde_json::from_value(job).unwrap()
}

fn check(report: &Report, expected: &str) {
    assert_eq!(text(report, NOW.parse().unwrap()), expected);
}

#[test]
fn all_that_is_known_is_told_with_the_way_out() {
    let conditions =
        [condition("Ready", "False", "RolledBack", "m"), condition("Stalled", "True", "RolledBack", "revision bbb was taken back")];
    let status = json!({
        "phase": "RolledBack", "observedGeneration": 3, "conditions": conditions, "workers": "2/2", "revision": "aaa", "lagRecords": 10, "freshness": "1m5s",
        "lastCheckpoint": "2026-11-26T09:09:48Z", "operator": "forebay-system",
    });
    let failed = json!({
        "metadata": {"name": "before", "creationTimestamp": "2026-11-26T06:10:00Z"},
        "spec": {"job": "flights"},
        "status": {"phase": "Failed", "conditions": [condition("Stalled", "True", "JobAils", "not all shards process")]},
    });
    let savepoints = vec![serde_json::from_value(failed).unwrap()];
    let report = Report { job: job(&status), look: Some(look()), look_missing: None, savepoints };
    check(
        &report,
        "flights in default is RolledBack: revision bbb was taken back\n\
         the manifest was changed after that, and no operator has looked at the change yet\n\
         \n\
         CONDITION   STATUS   FOR   REASON\n\
         Ready       False    5m    RolledBack\n\
         Stalled     True     5m    RolledBack\n\
         \n\
         workers: 2/2; revision in force: aaa; records behind: 10; oldest record waits: 1m5s; oldest last checkpoint: 12s ago; operator: \
         forebay-system\n\
         \n\
         Change: from revision aaa to bbb, step 2 of 3: one worker more tries it on one shard\n\
         \n\
         POD         REVISION   STATE   RESTARTS   MEMORY    ANSWERED\n\
         flights-0   aaa        ready   0          312 MiB   3s ago\n\
         flights-1   aaa        ready   0          -         never\n\
         \n\
         SHARD   POD         PHASE              EPOCH   LAG   FRESHNESS   LOAD   CHECKPOINT\n\
         0       flights-0   stalled (3s ago)   812     5     -           -      none\n\
         1       flights-0   running (3s ago)   812     5     65s         21 %   2s ago\n\
         \n\
         In the way:\n  shard 2 is on no worker that answers\n  the API server is away\n\
         \n\
         What to do: repair the manifest and apply it; or try the same once more with `kubectl forebay restart flights`. What the bad revision refused is put \
         back by itself, unless the message says that it is left to `forebay dlq replay`\n\
         \n\
         SAVEPOINT   PHASE    REASON    PATH   AGE\n\
         before      Failed   JobAils   -      3h\n\
         before failed: not all shards process; have all shards process first, and take another savepoint\n",
    );
}

#[test]
fn a_job_is_told_of_without_an_operator_too() {
    let status = json!({"phase": "Running", "observedGeneration": 4, "conditions": [condition("Ready", "True", "AllShardsRun", "all 4 shards process")]});
    let report = Report { job: job(&status), look: None, look_missing: Some("no operator leads".into()), savepoints: Vec::new() };
    check(
        &report,
        "flights in default is Running: all 4 shards process\n\
         \n\
         CONDITION   STATUS   FOR   REASON\n\
         Ready       True     5m    AllShardsRun\n\
         \n\
         workers: -; revision in force: -; records behind: -; oldest record waits: -; oldest last checkpoint: -; operator: -\n\
         \n\
         Workers and shards are not shown: no operator leads\n",
    );
    let unseen = Report { job: job(&serde_json::Value::Null), look: None, look_missing: None, savepoints: Vec::new() };
    check(&unseen, "flights in default: no operator has looked at it yet; is one installed that looks after this namespace?\n");
    let mut going = unseen.job.clone();
    going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW.parse().unwrap()));
    going.metadata.finalizers = Some(vec!["forebay.dev/cleanup".into()]);
    let said = text(&Report { job: going, ..unseen }, NOW.parse().unwrap());
    assert!(
        said.starts_with("flights in default is being deleted, and waits until the operator takes away: forebay.dev/cleanup\n"),
        "{said}"
    );
}
