//! Promise: a savepoint holds a job's state and outlives it: a new job in another namespace goes on from it, and all that came out before and after is
//! as if there had been one job. It needs what `kubernetes.rs` needs.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::{FlightsInCluster, credentials, savepoint, uid_of};
use forebay_e2e::flights::{records, replaced};
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::Value;

const WORKERS: usize = 2;

/// Method: a savepoint is taken while records come in. Then the job is suspended in the midst of its work, another savepoint is taken of what rests, and the
/// job is deleted. A job in another namespace begins with that one, by another key first, which is refused with the reason; then by its own, and gets more records; then its namespace is deleted while it runs. The oracle judges outputs, state and books of
/// both jobs as those of one.
#[test]
fn a_job_in_another_namespace_goes_on_from_a_savepoint() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-savepoint", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let name = job.flights.name.clone();
        let all = records(60_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        let (early, late) = first.split_at(first.len() / 3);
        let (late, last) = late.split_at(late.len() / 2);
        job.feed(early)?;
        job.until_processed(early)?;
        job.feed(late)?;
        let running = savepoint(&cluster, &format!("{name}-running"), &name, "3m")?;
        ensure!(running["status"]["phase"] == "Completed", "{running:#}");
        job.feed(last)?;
        job.patch(r#"{"suspend": true}"#)?;
        job.until_status("it is suspended", |status| status["phase"] == "Suspended")?;
        let resting = savepoint(&cluster, &format!("{name}-resting"), &name, "3m")?;
        let path = resting["status"]["path"].as_str().with_context(|| format!("it has no path: {resting:#}"))?;
        println!("{}", cluster.ask(&["get", "isp"])?);
        job.delete()?;
        let pods = cluster.ask(&["get", "pods", "-l", "app.kubernetes.io/component=savepoint", "-o", "name"])?;
        ensure!(pods.is_empty(), "the pods that copied are there still: {pods}");

        let elsewhere = format!("{name}-heir");
        cluster.ask(&["create", "namespace", &elsewhere])?;
        let in_elsewhere = |text: &str| text.replace("namespace: default", &format!("namespace: {elsewhere}"));
        cluster.apply(&in_elsewhere(&credentials(&S3::of_environment()?)))?;
        let manifest = in_elsewhere(&fs::read_to_string(&job.flights.manifest)?);
        let manifest = replaced(
            manifest,
            "  state: {store:",
            &format!("  consumerGroup: forebay.default.{name}\n  state: {{fromSavepoint: {path}, store:"),
        )?;
        let heir = || -> Result<Value> { Ok(serde_json::from_str(&cluster.ask(&["-n", &elsewhere, "get", "ij", &name, "-o", "json"])?)?) };
        let table = "        table: aircraft\n        set:";
        cluster.apply(&replaced(manifest.clone(), table, &table.replace("set:", "key: .dest\n        set:"))?)?;
        let mut said = (String::new(), String::new());
        let words = ["upsert.key: was the record's key, is `.dest`", "give it a table that has never been used"];
        until("the heir's other key is refused", PATIENCE, || {
            said = FlightsInCluster::said(&heir()?["status"]);
            Ok((said.0 == "Error" && words.iter().all(|word| said.1.contains(word))).then_some(()))
        })
        .with_context(|| format!("it says {said:?}"))?;
        println!("{}: {}", said.0, said.1);
        cluster.apply(&manifest)?;
        job.feed(rest)?;
        until("the heir has processed the rest", PATIENCE * 2, || Ok((job.flights.processed()? == all.len() as u64).then_some(())))
            .with_context(|| format!("the heir says: {}", heir().unwrap_or_default()["status"]))?;
        let uid = uid_of(&heir()?)?;
        cluster.ask(&["delete", "namespace", &elsewhere, "--timeout=120s"])?;

        let with_uid = replaced(manifest, &format!("namespace: {elsewhere}\n"), &format!("namespace: {elsewhere}\n  uid: {uid}\n"))?;
        fs::write(&job.flights.manifest, with_uid)?;
        job.flights.run_until_end("after")?;
        job.flights.check(&all, &["after"])
    })
}

/// Method: a savepoint of a job that does not exist, and a change of one: the condition says what is missing, and the API server refuses the change.
#[test]
fn a_savepoint_that_cannot_be_taken_says_why_and_ends() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    cluster.install()?;
    let name = forebay_e2e::unique("nothing");
    let failed = savepoint(&cluster, &name, "no-such-job", "5s")?;
    let said = failed["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Stalled");
    let said = said.with_context(|| format!("it is not stalled: {failed:#}"))?;
    ensure!(said["reason"] == "DeadlineExceeded" && said["status"] == "True", "{said}");
    ensure!(said["message"].as_str().is_some_and(|message| message.contains("there is no such job")), "{said}");
    let refused = cluster.ask(&["patch", "isp", &name, "--type=merge", "-p", r#"{"spec": {"job": "another"}}"#]);
    ensure!(refused.is_err_and(|error| error.to_string().contains("make another savepoint")), "the job of a savepoint was changed");
    cluster.ask(&["delete", "isp", &name, "--timeout=60s"]).map(drop)
}
