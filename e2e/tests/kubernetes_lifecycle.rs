//! Promise: a job is scaled, suspended, resumed, deleted and made anew by changing its manifest, and no record is lost or doubled on the way. It
//! needs what `kubernetes.rs` needs.

use std::fs;

use anyhow::{Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::{FlightsInCluster, uid_of};
use forebay_e2e::flights::{Ranges, SHARDS, records, replaced};
use forebay_e2e::s3::S3;
use forebay_e2e::stack::Instance;
use forebay_e2e::{PATIENCE, in_folder, until};

/// Method: one worker becomes three and then two by `kubectl scale`, with records going in all the time; the logs of the new ones must tell that their shards
/// were there before they were claimed. Then the job is suspended: its pods must go,
/// and what is put in must wait, until it is resumed.
#[test]
fn a_job_is_scaled_suspended_and_resumed() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-scale", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let all = records(336_776)?;
        let rested = job.under_load(&all, || {
            for workers in [1, 3, 2] {
                cluster.ask(&["scale", "ij", &job.flights.name, &format!("--replicas={workers}")])?;
                job.until_whole(workers)?;
                for pod in job.pods()?.iter().skip(1).filter(|_| workers == 3) {
                    let (log, at) = until(&format!("{} has taken a shard", pod.name), PATIENCE, || {
                        let log = cluster.ask(&["logs", &pod.name])?;
                        let at = log.find("the local database is used").or(log.find("restored from"));
                        Ok(at.map(|at| (log, at)))
                    })?;
                    ensure!(log.find("prefetched").is_some_and(|before| before < at), "{} had not prepared it:\n{log}", pod.name);
                    ensure!(!log.contains("restored from"), "{} restored it behind its claim:\n{log}", pod.name);
                }
            }
            Ok(())
        })?;
        job.until_processed(rested)?;
        let all = &all[..rested.len() + 10_000];

        job.patch(r#"{"suspend": true}"#)?;
        let suspended = job.until_status("it is suspended", |status| status["phase"] == "Suspended")?;
        ensure!(cluster.all_pods(&job.flights.name)?.is_empty(), "there are pods: {suspended:#}");
        job.feed(&all[rested.len()..])?;
        ensure!(job.flights.processed()? == rested.len() as u64, "a suspended job processes");
        job.patch(r#"{"suspend": false}"#)?;
        job.until_processed(all)?;
        job.until_whole(2)?;
        job.delete_and_check(all)
    })
}

/// Method: on a broker that keeps a group's offsets for a minute a job is suspended until they are gone. Records are put in, and it is resumed: it must go on where it
/// stopped, neither at the beginning nor at the end of its input, and the group must follow it again.
#[test]
fn a_job_goes_on_after_its_offsets_have_expired() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-retention", |folder| {
        cluster.install()?;
        let retention = [("offsets.retention.minutes", "1"), ("offsets.retention.check.interval.ms", "1000")];
        let kafka = Instance::up_with("kafka", "retention", &retention)?;
        let job = FlightsInCluster::start_on(&cluster, folder, 2, kafka.broker()?, &S3::of_environment()?, Ok)?;
        let (broker, input) = (&job.flights.broker, job.flights.input());
        let all = records(30_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        job.feed(first)?;
        job.until_processed(first)?;
        let group = format!("forebay.default.{}", job.flights.name);
        let offsets = || broker.group_offsets(&group, &input);
        ensure!(offsets()?.iter().all(Option::is_some), "the group has no offsets");
        job.patch(r#"{"suspend": true}"#)?;
        job.until_status("it is suspended", |status| status["phase"] == "Suspended")?;

        until("the offsets expire", PATIENCE, || Ok(offsets()?.iter().all(Option::is_none).then_some(())))?;
        job.feed(rest)?;
        job.patch(r#"{"suspend": false}"#)?;
        job.until_processed(&all)?;
        until("the group follows the job again", PATIENCE, || Ok(offsets()?.iter().all(Option::is_some).then_some(())))?;
        job.until_whole(2)?;
        job.delete_and_check(&all)
    })
}

/// Method: a job is deleted: all that the operator made must go. The same manifest is applied again: it must be a new job, which reads its input from
/// the beginning and so puts everything out a second time. The oracle judges what came out of the second one, its state and its books.
#[test]
fn a_job_made_anew_under_its_name_starts_clean() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-anew", |folder| {
        cluster.install()?;
        let mut job = FlightsInCluster::start(&cluster, folder, 1)?;
        let all = records(10_000)?;
        job.feed(&all)?;
        job.until_processed(&all)?;
        let enriched = job.flights.output("enriched");
        let once = job.flights.counts()?[&enriched];
        job.delete()?;
        let label = format!("forebay.dev/job={}", job.flights.name);
        let left = cluster.ask(&["get", "pods,services,configmaps,networkpolicies", "-l", &label, "-o", "name"])?;
        ensure!(left.is_empty(), "the deleted job left {left}");
        let undone: Ranges =
            job.flights.ends()?.into_iter().map(|(topic, ends)| (topic, ends.into_iter().map(|end| (0, end)).collect())).collect();

        cluster.apply_file(&job.flights.manifest)?;
        let anew = cluster.wait_for_phase(&job.flights.name, "Running")?;
        ensure!(uid_of(&anew)? != job.uid, "the API server made the same job again");
        until("the new job has processed all from the beginning", PATIENCE, || {
            Ok((job.flights.counts()?[&enriched] == 2 * once).then_some(()))
        })?;
        job.uid = uid_of(&anew)?;
        job.delete_and_check_but(&all, &undone)
    })
}

/// Method: of a job that has state, shards and inputs cannot be changed. It is paused while records come in, and its workers are changed: the status must say that nothing is done about it, and nothing be done. Its status is
/// deleted, while it is paused and once more while it is scaled after that: it must come back, with what it said of the state.
#[test]
fn a_job_is_paused_and_its_status_comes_back_when_it_is_deleted() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-paused", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let name = job.flights.name.clone();
        let all = records(336_776)?;
        let fed = job.under_load(&all, || {
            job.until_status("it has state and a checkpoint", |status| status["hasState"] == true && status["lastCheckpoint"].is_string())?;
            let manifest = fs::read_to_string(&job.flights.manifest)?;
            for (from, to, said) in [
                (format!("  shards: {SHARDS}\n"), "  shards: 8\n".to_owned(), "spec.shards is frozen"),
                (format!("topic: {name}\n"), format!("topic: {name}.other\n"), "spec.inputs are frozen"),
            ] {
                let refused = cluster.try_apply(&replaced(manifest.clone(), &from, &to)?).err().map(|error| format!("{error:#}"));
                ensure!(
                    refused.as_ref().is_some_and(|refused| refused.contains(said)),
                    "with state it is not said that {said}: {refused:?}"
                );
            }
            let before = job.pods()?;
            cluster.ask(&["annotate", "ij", &name, "forebay.dev/paused=true"])?;
            cluster.ask(&["scale", "ij", &name, "--replicas=2"])?;
            let generation = cluster.get("ij", &name)?["metadata"]["generation"].clone();
            for deleted in [false, true] {
                if deleted {
                    job.delete_status()?;
                }
                let paused = job.until_status("it says that it is paused", |status| {
                    let mut conditions = status["conditions"].as_array().into_iter().flatten();
                    status["observedGeneration"] == generation
                        && conditions.any(|one| {
                            one["message"].as_str().is_some_and(|said| said.contains("the annotation forebay.dev/paused pauses the job"))
                        })
                })?;
                ensure!(job.pods()? == before, "the pods were {before:?} and are {:?}", job.pods()?);
                ensure!(paused["status"]["hasState"] == true, "the state is forgotten: {:#}", paused["status"]);
            }
            cluster.ask(&["annotate", "ij", &name, "forebay.dev/paused-"])?;
            until("a second pod comes", PATIENCE, || Ok((job.pods()?.len() == 2).then_some(())))?;
            job.delete_status()?;
            let whole = job.until_balanced(2)?;
            for field in ["revision", "shards", "lastCheckpoint", "operator", "hasState"] {
                ensure!(!whole["status"][field].is_null(), "{field} is not told: {:#}", whole["status"]);
            }
            Ok(())
        })?;
        job.until_processed(fed)?;
        job.delete_and_check(fed)
    })
}
