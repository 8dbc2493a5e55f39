//! Promise: a job that is applied to a cluster gets its workers, runs, and survives the loss of a pod; and what cannot work says so. It needs
//! a cluster with the image of `kustomize/base`, and a Kafka and an S3 that its pods reach: `make e2e-kubernetes` provides them.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::{FlightsInCluster, credentials, written};
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::{records, replaced};
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};

const WORKERS: usize = 2;

/// Method: the operator is installed, the flights job applied with two workers. Half of the records go in, until the status tells of checkpoints
/// of all shards; then one worker's pod is deleted without grace while the others go in. All must be processed, by pods of which one is new.
#[test]
fn the_flights_job_runs_in_pods_and_survives_the_loss_of_one() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let all = records(60_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        // Slice by slice, because a checkpoint is taken when records are committed and its time has come.
        let (mut slices, mut fed) = (first.chunks(500), Ok(()));
        job.until_status("a checkpoint is known", |status| {
            fed = slices.next().map_or(Ok(()), |slice| job.feed(slice));
            fed.is_err() || status["lastCheckpoint"].is_string()
        })?;
        fed?;
        slices.try_for_each(|slice| job.feed(slice))?;
        job.until_processed(first)?;
        job.until_whole(WORKERS)?;
        let shown = cluster.ask(&["get", "ij", &job.flights.name])?;
        let columns: Vec<&str> = shown.lines().next().unwrap_or_default().split_whitespace().collect();
        ensure!(
            columns.starts_with(&["NAME", "PHASE"])
                && ["READY", "LAG", "FRESHNESS", "WORKERS", "CHECKPOINT"].iter().all(|name| columns.contains(name)),
            "{shown}"
        );
        println!("{shown}");

        check_policy(&cluster, &job.flights.name)?;
        let before = job.pods()?;
        let (early, late) = rest.split_at(rest.len() / 2);
        job.feed(early)?;
        cluster.ask(&["delete", "pod", &before[0].name, "--grace-period=0", "--force", "--wait=false"])?;
        job.feed(late)?;
        job.until_processed(&all)?;
        let whole = job.until_whole(WORKERS)?;
        ensure!(!job.pods()?.contains(&before[0]), "pod {:?} is there still", before[0]);

        job.until_status("nothing waits", |status| status["lagRecords"] == 0 && status["freshness"] == "0s")?;
        let ready = whole["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready");
        ensure!(ready.is_some_and(|ready| ready["status"] == "True"), "{whole:#}");
        check_rest(&cluster, &job.flights.name)?;
        let events = job.events()?;
        ensure!(events.contains("ShardsAssigned") && events.contains("Running"), "the events do not tell the story:\n{events}");
        job.delete_and_check(&all)
    })
}

/// A job without input is not written about, once its last checkpoint has been: the API server tells of no change, for as long as the request lasts.
fn check_rest(cluster: &Cluster, job: &str) -> Result<()> {
    let field = format!("--field-selector=involvedObject.name={job}");
    let label = format!("--selector=forebay.dev/job={job}");
    let watches: [&[&str]; 4] = [&["ij", job], &["pods", &label], &["configmaps", &label], &["events", &field]];
    for watch in watches {
        let mut told = String::new();
        until(&format!("{watch:?} rest"), PATIENCE, || {
            told = cluster.try_ask(&[&["get"], watch, &["--watch-only", "--request-timeout=15s", "-o", "yaml"]].concat())?;
            Ok(told.is_empty().then_some(()))
        })
        .with_context(|| format!("written while nothing comes in: {told}"))?;
    }
    Ok(())
}

/// The policy that lets nobody but the operator tell workers what to do. The API server has taken it; this cluster's network honours none. It was written once:
/// an operator that found its own writing wrong would write it again with each look.
fn check_policy(cluster: &Cluster, job: &str) -> Result<()> {
    let printed = cluster.ask(&["get", "networkpolicies", "-l", &format!("forebay.dev/job={job}"), "-o", "json"])?;
    let list: serde_json::Value = serde_json::from_str(&printed)?;
    let policy = &list["items"][0];
    let from = &policy["spec"]["ingress"][0]["from"][0];
    ensure!(from["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == SYSTEM, "{policy:#}");
    let labels = from["podSelector"]["matchLabels"].as_object().context("the operator is selected")?;
    let selector: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
    let found = cluster.ask(&["-n", SYSTEM, "get", "pods", "-l", &selector.join(","), "-o", "name"])?;
    ensure!(found.lines().count() == 1, "the policy lets these in: {found}");
    ensure!(policy["metadata"]["generation"] == 1, "it was written anew: {policy:#}");
    Ok(())
}

/// Method: a job whose topics do not exist, and one that the API server itself must refuse. The topic is made: the job starts by itself.
#[test]
fn a_job_that_cannot_work_says_why() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-bad", |folder| {
        cluster.install()?;
        let flights = written(folder, WORKERS)?;
        let manifest = fs::read_to_string(&flights.manifest)?;
        let input = format!("topic: {}\n", flights.name);

        let same = manifest.replace(&format!("topic: {}.dead\n", flights.name), &input);
        let refused = cluster.apply(&same).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("write dead letters to a topic of their own"), "the API server says: {refused}");

        cluster.apply(&credentials(&S3::of_environment()?))?;
        let missing = format!("{}.missing", flights.name);
        cluster.apply(&replaced(manifest, &input, &format!("topic: {missing}\n"))?)?;
        let job = cluster.wait_for_phase(&flights.name, "Stalled")?;
        let said = job["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Stalled");
        let message = said.and_then(|condition| condition["message"].as_str()).context("the condition says nothing")?;
        ensure!(message.contains(&missing), "the condition does not name the topic: {message}");

        flights.broker.create_topic(&missing, forebay_e2e::flights::PARTITIONS)?;
        cluster.wait_for_phase(&flights.name, "Running")?;
        cluster.ask(&["delete", "ingestionjob", &flights.name, "--cascade=foreground", "--timeout=120s"])?;
        until("the pods are gone", PATIENCE, || Ok(cluster.all_pods(&flights.name)?.is_empty().then_some(())))
    })
}
