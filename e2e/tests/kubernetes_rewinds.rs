//! Promise: a job goes back to a savepoint, or to a point in time: state, books and places in the inputs are those of then, and what came out since comes out
//! again. It needs what `kubernetes.rs` needs.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::{FlightsInCluster, savepoint};
use forebay_e2e::flights::{Ranges, records, replaced};
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::{Value, json};

const WORKERS: usize = 2;

/// What the records of a part did is undone: `parts` are fed, a point is taken between the first and the second, and the job goes back to it. Then the third
/// part is fed. The oracle judges all outputs but those between the point and the rewind, and state and books.
fn check(
    name: &str,
    point: impl FnOnce(&Cluster, &FlightsInCluster<'_>) -> Result<Value>,
    before: impl FnOnce(&FlightsInCluster<'_>) -> Result<()>,
) -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder(name, |folder| {
        cluster.install()?;
        // So that a point in time is kept for longer than the test takes.
        let job =
            FlightsInCluster::start_changed(&cluster, folder, WORKERS, |manifest| replaced(manifest, "retained: 2\n", "retained: 100\n"))?;
        let all = records(30_000)?;
        let parts: Vec<_> = all.chunks(all.len().div_ceil(3)).collect();
        job.feed(parts[0])?;
        job.until_processed(parts[0])?;
        let target = point(&cluster, &job)?;
        let (then, kept) = (job.flights.ends()?, job.flights.counts()?);
        job.feed(parts[1])?;
        job.until_processed(&all[..parts[0].len() + parts[1].len()])?;
        before(&job)?;
        job.until_whole(WORKERS)?;
        let (now, counted, pods) = (job.flights.ends()?, job.flights.counts()?, job.pods()?);

        let mut rewind = json!({"id": "undo"});
        rewind.as_object_mut().context("it is one")?.extend(target.as_object().context("a target is one")?.clone());
        job.patch(&json!({"state": {"rewind": rewind}}).to_string())?;
        let said = job.until_status("it is rewound", |status| is(status, "undo", &["Completed", "Failed"]))?;
        ensure!(is(&said["status"], "undo", &["Completed"]), "{:#}", said["status"]);
        println!("{}", said["status"]["rewind"]);
        // What came out between comes out once more, no more and no less.
        let again =
            |topic: &String| counted[topic] + counted[topic] - if *topic == job.flights.input() { counted[topic] } else { kept[topic] };
        let mut last = counted.clone();
        until("all that came out since then has come out again", PATIENCE, || {
            last = job.flights.counts()?;
            Ok(last.iter().all(|(topic, count)| *count == again(topic)).then_some(()))
        })
        .with_context(|| format!("before it was {counted:?}, at the point {kept:?}, and it is {last:?}"))?;
        job.until_whole(WORKERS)?;
        ensure!(job.pods()?.iter().all(|pod| !pods.contains(pod)), "the pods were {pods:?} and are {:?}", job.pods()?);
        let events = job.events()?;
        ensure!(events.contains("Rewound"), "no event Rewound:\n{events}");
        println!("{events}");
        job.feed(parts[2])?;
        job.until_processed(&all)?;
        let undone: Ranges =
            then.into_iter().map(|(topic, then)| (topic.clone(), then.into_iter().zip(now[&topic].clone()).collect())).collect();
        job.delete_and_check_but(&all, &undone)
    })
}

fn is(status: &Value, id: &str, phases: &[&str]) -> bool {
    let rewind = &status["rewind"];
    rewind["id"] == id && rewind["phase"].as_str().is_some_and(|phase| phases.contains(&phase))
}

fn now() -> Result<String> {
    let printed = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"]).output().context("ask for the time")?;
    Ok(String::from_utf8(printed.stdout)?.trim().to_owned())
}

/// Has the job do a rewind that cannot work, which must say why, and leaves it as it was. Its status is deleted then: the rewind must not be tried again.
fn fails(job: &FlightsInCluster<'_>, rewind: &Value, why: &str) -> Result<()> {
    job.patch(&json!({"state": {"rewind": rewind}}).to_string())?;
    let id = rewind["id"].as_str().context("it has an id")?;
    job.until_status("it has failed", |status| is(status, id, &["Failed"]))?;
    let said = job.until_status("it says so", |status| status["phase"] == "Stalled")?;
    let stalled = said["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Stalled");
    let message = stalled.and_then(|condition| condition["message"].as_str()).unwrap_or_default();
    println!("{message}");
    ensure!(stalled.is_some_and(|condition| condition["reason"] == "RewindFailed"), "{:#}", said["status"]);
    ensure!(message.contains(why), "it does not say why: {message}");
    let workers = format!("{WORKERS}/{WORKERS}");
    job.until_status("its workers are back", |status| status["workers"] == workers.as_str() && is(status, id, &["Failed"]))?;
    let pods = job.pods()?;
    job.delete_status()?;
    job.until_status("it has failed still", |status| status["workers"] == workers.as_str() && is(status, id, &["Failed"]))?;
    ensure!(job.pods()? == pods, "it was tried again: the pods were {pods:?} and are {:?}", job.pods()?);
    job.patch(r#"{"state": {"rewind": null}}"#)?;
    job.until_whole(WORKERS).map(drop)
}

/// Method: besides, requests that contradict themselves are refused by the API server; and one for a savepoint that is not there fails and leaves the job as
/// it was.
#[test]
fn a_job_goes_back_to_a_savepoint() -> Result<()> {
    let point = |cluster: &Cluster, job: &FlightsInCluster<'_>| {
        let name = &job.flights.name;
        let taken = savepoint(cluster, &format!("{name}-point"), name, "3m")?;
        ensure!(taken["status"]["phase"] == "Completed", "{taken:#}");
        Ok(json!({"toSavepoint": taken["status"]["path"]}))
    };
    check("kubernetes-rewind-savepoint", point, |job| {
        let refused = |rewind: &str, why: &str| {
            let said = job.patch(&format!(r#"{{"state": {{"rewind": {rewind}}}}}"#));
            let said = said.err().map(|error| error.to_string()).unwrap_or_default();
            ensure!(said.contains(why), "{rewind} is not refused with {why:?}: {said:?}");
            Ok(())
        };
        refused(r#"{"id": "a"}"#, "name either toSavepoint or toTime")?;
        refused(r#"{"id": "a", "toSavepoint": "default/a/b", "toTime": "2026-01-01T00:00:00Z"}"#, "name either toSavepoint or toTime")?;
        refused(r#"{"id": "a", "toTime": "yesterday"}"#, "toTime")?;
        let gone = format!("default/{}/gone", job.flights.name);
        fails(job, &json!({"id": "gone", "toSavepoint": gone}), "there is none in this object store")
    })
}

/// Method: besides, a time that nothing is kept of fails, and the message says from when on something is.
#[test]
fn a_job_goes_back_to_a_point_in_time() -> Result<()> {
    check(
        "kubernetes-rewind-time",
        |_, _| Ok(json!({"toTime": now()?})),
        |job| fails(job, &json!({"id": "early", "toTime": "2013-01-01T00:00:00Z"}), "are kept from "),
    )
}
