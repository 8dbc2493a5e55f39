//! Promise: a job whose `deletionPolicy` is `Delete` leaves nothing behind but what is to outlive it; and no namespace waits for it. It needs what
//! `kubernetes.rs` needs.

use std::fs;

use anyhow::{Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::{FlightsInCluster, credentials, written};
use forebay_e2e::flights::{records, replaced};
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};

/// Method: a job runs and takes checkpoints, its policy is changed to `Delete`, and it is deleted. Its journal topic and its objects must be gone, and the
/// pod that deleted them too.
#[test]
fn a_job_takes_its_journal_and_checkpoints_with_it_when_it_is_told_to() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-cleanup", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let all = records(10_000)?;
        job.feed(&all)?;
        job.until_processed(&all)?;
        job.until_status("a checkpoint is known", |status| status["lastCheckpoint"].is_string())?;
        let (s3, journal) = (S3::of_environment()?, format!("forebay.{}.0.journal", job.uid));
        let prefix = format!("{0}/default/{0}/", job.flights.name);
        let objects = s3.list(&prefix)?;
        ensure!(!objects.is_empty() && !job.flights.broker.ranges(&journal)?.is_empty(), "there is nothing to delete: {objects:?}");

        job.patch(r#"{"deletionPolicy": "Delete"}"#)?;
        until("the job has its finalizer", PATIENCE, || {
            let job = cluster.get("ij", &job.flights.name)?;
            Ok(job["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| one == "forebay.dev/cleanup")).then_some(()))
        })?;
        job.delete()?;
        let left = s3.list(&prefix)?;
        ensure!(left.is_empty(), "these objects are left: {left:?}");
        until("the journal's topic is gone", PATIENCE, || Ok(job.flights.broker.ranges(&journal).is_err().then_some(())))?;
        let left = cluster.ask(&["get", "pods,configmaps", "-l", "app.kubernetes.io/component=cleanup", "-o", "name"])?;
        ensure!(left.is_empty(), "the cleaning left {left}");
        Ok(())
    })
}

/// Method: a namespace with a job that is to be cleaned up behind is deleted while the job runs; another one while a change of its job is tried, whose savepoint lies
/// there too. Each must be gone in time, though no pod can be made in it any more.
#[test]
fn a_namespace_does_not_wait_for_a_job_in_it() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    cluster.install()?;
    for changes in [false, true] {
        in_folder("kubernetes-namespace", |folder| {
            let flights = written(folder, 1)?;
            let namespace = format!("{}-ns", flights.name);
            cluster.ask(&["create", "namespace", &namespace])?;
            let inside = |text: &str| text.replace("namespace: default", &format!("namespace: {namespace}"));
            cluster.apply(&inside(&credentials(&S3::of_environment()?)))?;
            let manifest = replaced(inside(&fs::read_to_string(&flights.manifest)?), "spec:\n", "spec:\n  deletionPolicy: Delete\n")?;
            cluster.apply(&manifest)?;
            let until_it_says = |field: &str, wanted: &str| {
                until(&format!("it says {wanted}"), PATIENCE, || {
                    let path = format!("jsonpath={{.status.{field}}}");
                    let said = cluster.ask(&["-n", &namespace, "get", "ij", &flights.name, "-o", &path])?;
                    Ok(said.split_whitespace().any(|word| word == wanted).then_some(()))
                })
            };
            until_it_says("phase", "Running")?;
            if changes {
                cluster.apply(&replaced(manifest, "max: 3000}", "max: 3001}")?)?;
                until_it_says("conditions[*].reason", "CanaryObserved")?;
                let savepoints = cluster.ask(&["-n", &namespace, "get", "isp", "-o", "name"])?;
                ensure!(!savepoints.is_empty(), "the change has no savepoint");
            }
            cluster.ask(&["delete", "namespace", &namespace, "--timeout=120s"]).map(drop)
        })?;
    }
    Ok(())
}
