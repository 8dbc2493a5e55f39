//! Promise: a change of a job goes into force shard by shard without a record lost or doubled, and a bad one is taken back by itself, soon. It needs
//! what `kubernetes.rs` needs.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::{FlightsInCluster, Pod, uid_of};
use forebay_e2e::cluster::nodes::Nodes;
use forebay_e2e::flights::{records, replaced};
use forebay_e2e::kafka::{Broker, Record};
use forebay_e2e::s3::S3;
use forebay_e2e::stack::Instance;
use forebay_e2e::{PATIENCE, in_folder, until};
use rdkafka::message::Message;

const WORKERS: usize = 2;
/// The image of the tests under another name.
const NEXT_IMAGE: &str = "forebay.local/forebay:next";

/// The manifest with one line changed.
fn apply_changed(cluster: &Cluster, job: &FlightsInCluster<'_>, from: &str, to: &str) -> Result<()> {
    cluster.apply(&replaced(fs::read_to_string(&job.flights.manifest)?, from, to)?)
}

/// Waits until a change is being tried, or was: what is in force is written at the same time.
fn until_observed(job: &FlightsInCluster<'_>) -> Result<()> {
    job.until_status("a shard is observed", |status| {
        let said = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Reconciling");
        said.and_then(|condition| condition["message"].as_str()).is_some_and(|message| message.contains("is observed for"))
    })
    .map(drop)
}

/// Method: the pipeline changes while records come in, in a way that changes no result but the revision that dead letters name. All workers must be new
/// ones in the end, the story must be told in events, and the oracle judges all outputs.
#[test]
fn a_change_of_the_pipeline_goes_into_force_without_a_record_lost_or_doubled() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-upgrade", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let records = records(336_776)?;
        let before = job.pods()?;
        let revision = |status: &serde_json::Value| status["revision"].as_str().map(str::to_owned);
        let was = revision(&job.until_whole(WORKERS)?["status"]).context("no revision is told")?;

        let is_in_force = |status: &serde_json::Value| status["phase"] == "Running" && revision(status) != Some(was.clone());
        let all = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 10_000).then_some(())))?;
            apply_changed(&cluster, &job, "max: 3000}", "max: 3001}")?;
            until_observed(&job)?;
            job.until_status("the new revision is in force", is_in_force)?;
            job.until_whole(WORKERS).map(drop)
        })?;
        job.until_processed(all)?;
        let is_new = |pod: &Pod| !before.contains(pod);
        ensure!(job.pods()?.iter().all(is_new), "the pods were {before:?} and are {:?}", job.pods()?);
        let events = job.events()?;
        for reason in ["Upgrading", "RevisionProven", "RevisionInForce"] {
            ensure!(events.contains(reason), "no event {reason}:\n{events}");
        }
        println!("{events}");
        let revisions = job.flights.letters()?.into_keys().collect::<Vec<_>>();
        ensure!(revisions.len() == 2, "records were refused by the revisions {revisions:?}");
        let savepoints = format!("forebay.dev/job-uid={}", job.uid);
        let taken = cluster.ask(&["get", "isp", "-l", &savepoints, "-o", "jsonpath={.items[*].status.phase}"])?;
        ensure!(taken == "Completed", "before the change these savepoints were taken: {taken:?}");
        // The next change has a savepoint of its own, and the first one stays beside it: it goes, with all that it holds, by the change after that.
        let s3 = S3::of_environment()?;
        let kept = || s3.list(&format!("{0}/default/{0}/savepoints/", job.flights.name));
        let first = kept()?;
        let mut last = revision(&job.until_whole(WORKERS)?["status"]);
        for change in ["max: 3002}", "max: 3003}"] {
            let there = kept()?;
            ensure!(first.iter().all(|key| there.contains(key)), "before {change} the first savepoint is gone: {there:?}");
            apply_changed(&cluster, &job, "max: 3000}", change)?;
            let is_in_force = |status: &serde_json::Value| status["phase"] == "Running" && revision(status) != last;
            last = revision(&job.until_status(&format!("{change} is in force"), is_in_force)?["status"]);
        }
        until("the first savepoint is gone", PATIENCE, || {
            let (left, names) = (kept()?, cluster.ask(&["get", "isp", "-l", &savepoints, "-o", "name"])?);
            Ok((names.lines().count() == 2 && !left.iter().any(|key| first.contains(key))).then_some(()))
        })?;
        cluster.ask(&["delete", "isp", "-l", &savepoints, "--timeout=120s"])?;
        job.delete_and_check(all)
    })
}

/// Method: the image is replaced, while records come in, by one with the same program under another name. All workers must be new ones that run it, dead letters
/// of one revision be told apart by what their workers were made from, and the oracle judges all outputs.
#[test]
fn another_image_goes_into_force_without_a_record_lost_or_doubled() -> Result<()> {
    // Elsewhere there is no such image.
    let Some((cluster, _)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-image", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let records = records(336_776)?;
        let all = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 10_000).then_some(())))?;
            job.patch(&format!(r#"{{"workers": {{"image": "{NEXT_IMAGE}"}}}}"#))?;
            until("all workers run the new image", PATIENCE * 2, || {
                let images = |pod: &serde_json::Value| pod["spec"]["containers"][0]["image"] == NEXT_IMAGE;
                let pods = cluster.pods(&job.flights.name)?;
                Ok((pods.len() == WORKERS && pods.iter().all(images)).then_some(()))
            })?;
            job.until_whole(WORKERS).map(drop)
        })?;
        job.until_processed(all)?;
        let events = job.events()?;
        ensure!(events.contains("RevisionInForce"), "no event tells of it:\n{events}");
        let (by_template, by_revision) = (job.flights.letters_by("forebay.template")?, job.flights.letters()?);
        ensure!((by_template.len(), by_revision.len()) == (2, 1), "templates {:?}, revisions {:?}", by_template.keys(), by_revision.keys());
        let status = job.until_whole(WORKERS)?["status"].clone();
        let new = status["revision"].as_str().context("no revision is told")?;
        let its = by_template.get(new).with_context(|| format!("{new} is none of {:?}", by_template.keys()))?.len();
        let replay = job.flights.forebay.ask(&["dlq", "replay", "--dry-run", "--template", new])?;
        ensure!(replay.ends_with(&format!("{its} dead letters would be put back\n")), "of {its} letters: {replay}");
        job.delete_and_check(all)
    })
}

/// Method: the object store is killed, and then the pipeline changed, while records come in. The job must process on, and the change wait for its savepoint,
/// and go into force once the store is back.
#[test]
fn a_change_waits_for_an_object_store_that_is_down() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-upgrade-store", |folder| {
        cluster.install()?;
        let mut store = Instance::up("s3", "upgrade")?;
        let job = FlightsInCluster::start_on(&cluster, folder, WORKERS, Broker::of_environment()?, &store.s3()?, Ok)?;
        let all = records(30_000)?;
        let parts: Vec<_> = all.chunks(all.len().div_ceil(3)).collect();
        job.feed(parts[0])?;
        job.until_processed(parts[0])?;
        // Without the store a shard that is being moved cannot go on.
        let was = job.until_balanced(WORKERS)?["status"]["revision"].clone();
        store.kill()?;
        apply_changed(&cluster, &job, "max: 3000}", "max: 3001}")?;
        job.until_status("the change waits for its savepoint", |status| {
            let said = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Reconciling");
            said.is_some_and(|condition| condition["reason"] == "SavepointFirst" && condition["status"] == "True")
        })?;
        job.feed(parts[1])?;
        job.until_processed(&all[..parts[0].len() + parts[1].len()])?;
        store.start()?;
        job.feed(parts[2])?;
        job.until_status("the change is in force", |status| status["phase"] == "Running" && status["revision"] != was)?;
        job.until_processed(&all)?;
        let savepoints = format!("forebay.dev/job-uid={}", job.uid);
        let taken = cluster.ask(&["get", "isp", "-l", &savepoints, "-o", "jsonpath={.items[*].status.phase}"])?;
        ensure!(taken == "Completed", "before the change these savepoints were taken: {taken:?}");
        job.delete_and_check(&all)
    })
}

/// Method: the object store is killed while a change of the pipeline is tried on one shard and records come in, for ten seconds' worth of records. The change
/// is to blame for nothing: it must go into force once the store is back, at the first try. The oracle judges all outputs.
#[test]
fn a_change_that_is_tried_outlives_an_object_store_that_goes_down() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-upgrade-outage", |folder| {
        cluster.install()?;
        let mut store = Instance::up("s3", "outage")?;
        let job = FlightsInCluster::start_on(&cluster, folder, WORKERS, Broker::of_environment()?, &store.s3()?, Ok)?;
        let was = job.until_balanced(WORKERS)?["status"]["revision"].clone();
        let records = records(336_776)?;
        let input = || -> Result<u64> { Ok(job.flights.broker.ranges(&job.flights.input())?.into_iter().map(|(_, end)| end).sum()) };
        let all = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 10_000).then_some(())))?;
            apply_changed(&cluster, &job, "max: 3000}", "max: 3001}")?;
            until_observed(&job)?;
            store.kill()?;
            let killed = input()?;
            until("20,000 records have come in without the store", PATIENCE, || Ok((input()? > killed + 20_000).then_some(())))?;
            println!("without the store: {}", job.until_status("it is what it is", |_| true)?["status"]["conditions"]);
            store.start()?;
            let is_decided =
                |status: &serde_json::Value| status["phase"] == "RolledBack" || (status["phase"] == "Running" && status["revision"] != was);
            let status = job.until_status("the change is decided on", is_decided)?["status"].clone();
            println!("with the store: {}", status["conditions"]);
            ensure!(status["phase"] == "Running", "the change was taken back: {}", status["conditions"]);
            job.until_whole(WORKERS).map(drop)
        })?;
        println!("{}", job.events()?);
        job.until_processed(all)?;
        job.delete_and_check(all)
    })
}

/// Method: the object store is killed while a change of the pipeline is tried on one shard, and the worker that tries it, which then starts in vain until its node has
/// started it three times. The change must be blamed for nothing, other shards process on, and once the store is back it goes into force.
#[test]
fn a_change_is_not_blamed_for_an_object_store_without_which_its_worker_cannot_start() -> Result<()> {
    // Elsewhere a container is not to be killed.
    let Some((cluster, nodes)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-upgrade-away", |folder| {
        cluster.install()?;
        let mut store = Instance::up("s3", "away")?;
        let patient = |manifest| replaced(manifest, "deadline: 3m", "deadline: 20m");
        let job = FlightsInCluster::start_on(&cluster, folder, WORKERS, Broker::of_environment()?, &store.s3()?, patient)?;
        let was = job.until_balanced(WORKERS)?["status"]["revision"].clone();
        let all = records(30_000)?;
        let parts: Vec<_> = all.chunks(all.len().div_ceil(3)).collect();
        job.feed(parts[0])?;
        job.until_processed(parts[0])?;
        let before = job.pods()?;
        apply_changed(&cluster, &job, "max: 3000}", "max: 3001}")?;
        until_observed(&job)?;
        let pods = job.pods()?;
        let canary = pods.iter().find(|pod| !before.contains(pod)).with_context(|| format!("no pod is new: {pods:?}"))?;
        store.kill()?;
        nodes.kill_container(&canary.uid)?;
        job.feed(parts[1])?;
        until("its worker was started three times in vain", PATIENCE * 4, || {
            let status = cluster.get("pod", &canary.name)?["status"]["containerStatuses"][0].clone();
            let ended = [&status["state"], &status["lastState"]].map(|state| state["terminated"]["exitCode"].as_u64());
            Ok((status["restartCount"].as_u64() >= Some(3) && ended.contains(&Some(75))).then_some(()))
        })?;
        let status = job.until_status("a server is blamed", |status| FlightsInCluster::said(status).1.contains("s3"))?["status"].clone();
        println!("without the store: {}", status["conditions"]);
        ensure!(status["phase"] != "RolledBack", "the change was taken back: {status}");
        store.start()?;
        job.feed(parts[2])?;
        job.until_status("the change is in force", |status| status["phase"] == "Running" && status["revision"] != was)?;
        job.until_whole(WORKERS)?;
        job.until_processed(&all)?;
        job.delete_and_check(&all)
    })
}

/// Method: the image is replaced by one that has no `forebay` in it, and so cannot start, while records come in. They must be processed by the old
/// workers, which stay as they are; the condition names the reason. With the manifest set back the job is as it was.
#[test]
fn an_image_that_cannot_start_is_taken_back() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-bad-image", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let all = records(30_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        job.feed(first)?;
        job.until_whole(WORKERS)?;
        let before = job.pods()?;
        job.patch(r#"{"workers": {"image": "forebay.local/pause:1"}}"#)?;
        job.feed(rest)?;
        let taken_back = job.until_status("the change is taken back", |status| status["phase"] == "RolledBack")?;
        let stalled = taken_back["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Stalled");
        let message = stalled.and_then(|condition| condition["message"].as_str()).unwrap_or_default();
        ensure!(message.contains("was started 3 times"), "the condition does not say why: {taken_back:#}");
        println!("{message}");
        job.until_processed(&all)?;

        job.patch(r#"{"workers": {"image": null}}"#)?;
        job.until_whole(WORKERS)?;
        ensure!(job.pods()? == before, "the pods were {before:?} and are {:?}", job.pods()?);
        job.delete_and_check(&all)
    })
}

/// Method: the image is replaced by one whose worker comes up and ends soon after: its container is killed whenever it is ready, while records come in. The change must be
/// taken back for that, and the old workers stay as they are. With the manifest set back the job is as it was.
#[test]
fn an_image_that_starts_and_then_crashes_is_taken_back() -> Result<()> {
    // Elsewhere a container is not to be killed.
    let Some((cluster, nodes)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-crashing-image", |folder| {
        cluster.install()?;
        let patient = |manifest| replaced(manifest, "observe: 5s", "observe: 1m");
        let job = FlightsInCluster::start_changed(&cluster, folder, WORKERS, patient)?;
        let records = records(336_776)?;
        job.until_balanced(WORKERS)?;
        let before = job.pods()?;
        let all = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 10_000).then_some(())))?;
            job.patch(&format!(r#"{{"workers": {{"image": "{NEXT_IMAGE}"}}}}"#))?;
            let mut killed = BTreeSet::new();
            until("the change is taken back", PATIENCE * 2, || {
                for pod in cluster.pods(&job.flights.name)? {
                    let (uid, container) = (uid_of(&pod)?, &pod["status"]["containerStatuses"][0]);
                    let is_new = before.iter().all(|old| old.uid != uid);
                    if is_new && container["ready"] == true && killed.insert(container["restartCount"].as_u64()) {
                        nodes.kill_container(&uid)?;
                    }
                }
                Ok((cluster.get("ij", &job.flights.name)?["status"]["phase"] == "RolledBack").then_some(()))
            })?;
            // The third start need not have come up yet.
            ensure!(killed.len() >= 2, "it was killed after so many starts: {killed:?}");
            let (reason, message) = FlightsInCluster::said(&cluster.get("ij", &job.flights.name)?["status"]);
            println!("{reason}: {message}");
            ensure!(message.contains("was started 3 times"), "the condition does not say why: {message}");
            Ok(())
        })?;
        job.until_processed(all)?;
        job.patch(r#"{"workers": {"image": null}}"#)?;
        job.until_whole(WORKERS)?;
        ensure!(job.pods()? == before, "the pods were {before:?} and are {:?}", job.pods()?);
        job.delete_and_check(all)
    })
}

/// Method: the pipeline is replaced by one that refuses every record, and records come in while it is tried. It must be taken back, and what it had refused
/// be put back by itself: each flight must come out once, or be refused by the good revision too. What that one has refused stays where it is, and a replay
/// by hand puts back nothing else. The oracle judges all outputs, state and books, as if what was put back had come then for the first time.
#[test]
fn a_revision_that_refuses_everything_is_taken_back_with_its_letters() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-bad-revision", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let all = records(30_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        job.feed(first)?;
        job.until_processed(first)?;
        job.until_whole(WORKERS)?;
        let good = job.flights.letters()?;
        apply_changed(&cluster, &job, "id: {type: string, required: true}", "id: {type: integer, required: true}")?;
        until_observed(&job)?;
        job.feed(rest)?;
        let put_back = job.until_status("the change is taken back, and its letters are put back", |status| {
            let said = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Stalled");
            let message = said.and_then(|condition| condition["message"].as_str()).unwrap_or_default();
            status["phase"] == "RolledBack" && message.contains("has been put back")
        })?;
        job.until_status("the old workers are alone", |status| status["workers"] == format!("{WORKERS}/{WORKERS}"))?;
        println!("{}\n{}", put_back["status"]["conditions"], job.events()?);

        let by_revision = job.flights.letters()?;
        let revisions: BTreeSet<&String> = good.keys().collect();
        let bad = by_revision.iter().find(|(revision, _)| !revisions.contains(revision)).context("the bad revision refused nothing")?;
        println!("the bad revision {} refused {} of {} records", bad.0, bad.1.len(), rest.len());
        let is_done = |record: &Record, refused: &BTreeSet<&Vec<u8>>, once: &BTreeSet<String>| {
            let value = record.value.as_bytes();
            let id = serde_json::from_slice::<serde_json::Value>(value).ok().and_then(|value| value["id"].as_str().map(str::to_owned));
            refused.contains(&value.to_vec()) || id.is_some_and(|id| once.contains(&id))
        };
        let mut lost = None;
        until("every record has come out, or was refused by the good revision", PATIENCE * 2, || {
            let (after, once) = (job.flights.letters()?, ids_put_out(&job)?);
            ensure!(after[bad.0].len() == bad.1.len(), "the bad revision is at work still");
            let refused =
                after.iter().filter(|(revision, _)| *revision != bad.0).flat_map(|(_, letters)| letters).map(|one| &one.value).collect();
            lost = all.iter().find(|record| !is_done(record, &refused, &once)).cloned();
            Ok(lost.is_none().then_some(()))
        })
        .with_context(|| format!("this one is missing: {lost:?}"))?;

        let by_hand = job.flights.forebay.ask(&["dlq", "replay", "--dry-run"])?;
        let left =
            format!("{} dead letters would be put back\n", job.flights.letters()?.values().map(Vec::len).sum::<usize>() - bad.1.len());
        ensure!(by_hand.ends_with(&left), "a replay by hand would do this, where {left:?} are left: {by_hand}");
        job.delete_and_check_put_back(&bad.1.clone())
    })
}

/// The ids of the flights that came out; `Err` when one came out twice.
fn ids_put_out(job: &FlightsInCluster<'_>) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    job.flights.broker.read(&job.flights.output("enriched"), |record| {
        let record: serde_json::Value = serde_json::from_slice(record.payload().context("a record without a value")?)?;
        let id = record["id"].as_str().context("a flight without an id")?.to_owned();
        ensure!(ids.insert(id.clone()), "flight {id} came out twice");
        Ok(())
    })?;
    Ok(ids)
}
