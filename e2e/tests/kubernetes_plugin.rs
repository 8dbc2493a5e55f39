//! Promise: every command of `kubectl forebay` does what it says and shows what is so, and who may not, or asks for what is not there, is told the way
//! out. It needs what `kubernetes.rs` needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::FlightsInCluster;
use forebay_e2e::cluster::plugin::Plugin;
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::{SHARDS, records};
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::Value;

const WORKERS: usize = 2;

/// Fails unless all of these are in what was said, and prints that: it is what the documents show.
fn check(said: &str, expected: &[&str]) -> Result<()> {
    println!("{said}");
    for part in expected {
        ensure!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    Ok(())
}

/// Method: a job runs with two workers, and every command is called on it, with records coming in between. What is printed is compared with what kubectl says;
/// what must have happened is looked for in the cluster, and the oracle judges all outputs at the end.
#[test]
fn every_command_does_what_it_says() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    let plugin = Plugin::of_environment()?;
    in_folder("kubernetes-plugin", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let name = job.flights.name.clone();
        let all = records(60_000)?;
        let parts: Vec<_> = all.chunks(all.len().div_ceil(3)).collect();
        job.feed(parts[0])?;
        job.until_processed(parts[0])?;
        job.until_balanced(WORKERS)?;
        check_views(&plugin, &job, &name)?;
        check_logs(&plugin, &job, &name)?;

        let savepoint = format!("{name}-by-hand");
        let said = plugin.ask(&["savepoint", &name, "--name", &savepoint, "--wait"])?;
        check(&said, &[&format!("savepoint {savepoint} of job {name} is complete"), &format!("default/{name}/{savepoint}-")])?;
        ensure!(cluster.get("isp", &savepoint)?["status"]["phase"] == "Completed", "the savepoint is not complete");
        check(&plugin.ask(&["status", &name])?, &["SAVEPOINT", &savepoint, "Completed"])?;

        check_rest(&plugin, &cluster, &job, folder)?;
        job.feed(parts[1])?;
        job.until_processed(&parts[..2].concat())?;

        let before = job.pods()?;
        job.feed(parts[2])?;
        check(&plugin.ask(&["restart", &name, "--wait"])?, &["all workers are new"])?;
        job.until_whole(WORKERS)?;
        ensure!(job.pods()?.iter().all(|pod| !before.contains(pod)), "the pods were {before:?} and are {:?}", job.pods()?);
        ensure!(job.events()?.contains("RevisionInForce"), "the events do not tell of a new revision:\n{}", job.events()?);
        job.until_processed(&all)?;
        cluster.ask(&["delete", "isp", &savepoint])?;
        job.delete_and_check(&all)
    })
}

/// `status`, `assignments` and `plan` of a job that runs.
fn check_views(plugin: &Plugin, job: &FlightsInCluster<'_>, name: &str) -> Result<()> {
    let pods: BTreeSet<String> = job.pods()?.into_iter().map(|pod| pod.name).collect();
    let names: Vec<&str> = pods.iter().map(String::as_str).collect();
    let all = format!("{name} in default is Running: all {SHARDS} shards process");
    check(
        &plugin.ask(&["status", name])?,
        &[&names[..], &[all.as_str(), "Ready", "AllShardsRun", "SHARD", "FRESHNESS", "CHECKPOINT", "running", " MiB"]].concat(),
    )?;
    let report: Value = serde_json::from_str(&plugin.ask(&["status", name, "-o", "json"])?)?;
    ensure!(report["job"]["metadata"]["uid"] == job.uid.as_str(), "{report:#}");
    let shards =
        report["look"]["workers"].as_array().into_iter().flatten().flat_map(|worker| worker["shards"].as_array().into_iter().flatten());
    let running = shards.filter(|shard| shard["phase"] == "running" && shard["epoch"].as_u64() > Some(0)).count();
    ensure!(running == SHARDS as usize, "{running} shards run: {report:#}");

    check(&plugin.ask(&["assignments", name])?, &[&names[..], &["POD", "VERSION", "SHARDS"]].concat())?;
    let assignments: Vec<Value> = serde_json::from_str(&plugin.ask(&["-o", "json", "assignments", name])?)?;
    let mut given: Vec<u64> =
        assignments.iter().flat_map(|one| one["shards"].as_array().into_iter().flatten()).filter_map(Value::as_u64).collect();
    given.sort_unstable();
    ensure!(given == (0..u64::from(SHARDS)).collect::<Vec<_>>(), "these shards were given: {given:?}");
    ensure!(assignments.iter().all(|one| one["pod"].as_str().is_some_and(|pod| pods.contains(pod))), "{assignments:?}");

    check(&plugin.ask(&["plan", name, "-n", "default"])?, &["Running (AllShardsRun)", "Done last", "Waits for:\n  nothing"])
}

/// `logs` of all workers, and of the one that has a shard.
fn check_logs(plugin: &Plugin, job: &FlightsInCluster<'_>, name: &str) -> Result<()> {
    let said = plugin.ask(&["logs", name, "--tail", "2"])?;
    for pod in job.pods()? {
        ensure!(said.lines().any(|line| line.starts_with(&format!("[{}] {{", pod.name))), "{} is not in the log:\n{said}", pod.name);
    }
    let of_one = plugin.ask(&["logs", name, "--shard", "3", "--tail", "2"])?;
    ensure!((1..=2).contains(&of_one.lines().count()), "{of_one}");
    ensure!(of_one.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "the log is no JSON:\n{of_one}");
    let no_shard = plugin.refusal(&["logs", name, "--shard", "99"])?;
    ensure!(no_shard.contains(&format!("there is no shard 99: the job has {SHARDS}")), "{no_shard}");
    Ok(())
}

/// `suspend` and `resume`, while `logs -f` follows the workers until they are gone.
fn check_rest(plugin: &Plugin, cluster: &Cluster, job: &FlightsInCluster<'_>, folder: &Path) -> Result<()> {
    let (name, log) = (job.flights.name.as_str(), folder.join("followed.log"));
    let mut follower = plugin.start(&["logs", name, "-f"], &log)?;
    until("the log is followed", PATIENCE, || Ok((fs::metadata(&log)?.len() > 0).then_some(())))?;
    check(&plugin.ask(&["suspend", name, "--wait"])?, &[&format!("job {name} rests")])?;
    ensure!(cluster.all_pods(name)?.is_empty(), "a suspended job has pods");
    let ended = until("the followed logs are over", PATIENCE, || Ok(follower.try_wait()?))?;
    ensure!(ended.success(), "logs -f ended with {ended}");
    let followed = fs::read_to_string(&log)?;
    let pods: BTreeSet<&str> = followed.lines().filter_map(|line| line.strip_prefix('[')?.split(']').next()).collect();
    ensure!(pods.len() == WORKERS, "the logs of {pods:?} were followed:\n{followed}");

    check(&plugin.ask(&["status", name])?, &["is Suspended"])?;
    check(&plugin.ask(&["suspend", name])?, &["is to rest already"])?;
    let refused = plugin.refusal(&["restart", name])?;
    ensure!(refused.contains(&format!("`kubectl forebay resume {name}` makes new ones")), "{refused}");
    let refused = plugin.refusal(&["logs", name])?;
    ensure!(refused.contains("has no workers"), "{refused}");
    check(&plugin.ask(&["resume", name, "--wait"])?, &[&format!("job {name} runs")])?;
    job.until_whole(WORKERS).map(drop)
}

/// Method: a job that is not there; a user who may look at jobs only, before and after the role in the document is given; and no operator at all. Each must be
/// told what was asked, what was found and the way out; and what can be shown without the operator is shown.
#[test]
fn who_may_not_and_who_asks_for_nothing_is_told_the_way_out() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    let plugin = Plugin::of_environment()?;
    in_folder("kubernetes-plugin-rights", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let name = job.flights.name.as_str();
        check(&plugin.refusal(&["status", "no-such-job"])?, &["there is no job no-such-job in namespace default", name])?;
        let elsewhere = plugin.refusal(&["plan", name, "--operator-namespace", "default"])?;
        check(&elsewhere, &["no operator leads", "in namespace default", "--operator-namespace"])?;

        let viewer = Plugin::of_environment()?.with_kubeconfig(&viewer(&cluster, folder)?);
        check(&viewer.ask(&["status", name])?, &["is Running", "Workers and shards are not shown", "ask for the right"])?;
        check(&viewer.refusal(&["suspend", name])?, &[&format!("change job {name}"), "forbidden", "edit"])?;
        cluster.apply(&documented_role()?)?;
        check(&viewer.ask(&["plan", name])?, &["Running (AllShardsRun)"])?;
        ensure!(viewer.ask(&["logs", name, "--shard", "0", "--tail", "1"])?.lines().count() == 1, "the viewer sees no log");

        cluster.scale_operator(0)?;
        let led = plugin.refusal(&["assignments", name]);
        let shown = plugin.ask(&["status", name]);
        cluster.scale_operator(1)?;
        check(&led?, &["no operator leads", SYSTEM, "Jobs run on meanwhile"])?;
        check(&shown?, &["is Running", "Workers and shards are not shown: no operator leads"])?;
        cluster.ask(&["-n", SYSTEM, "delete", "role,rolebinding", "forebay-looks"])?;
        cluster.ask(&["delete", "rolebinding,serviceaccount", "viewer"])?;
        job.delete()
    })
}

/// A kubeconfig for somebody who has Kubernetes' own role `view` in the namespace of the jobs.
fn viewer(cluster: &Cluster, folder: &Path) -> Result<PathBuf> {
    cluster.ask(&["create", "serviceaccount", "viewer"])?;
    cluster.ask(&["create", "rolebinding", "viewer", "--clusterrole=view", "--serviceaccount=default:viewer"])?;
    let token = cluster.ask(&["create", "token", "viewer"])?;
    let mut config: Value = serde_json::from_str(&cluster.ask(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"])?)?;
    let user = config["users"].as_array_mut().and_then(|users| users.first_mut()).context("the kubeconfig names a user")?;
    user["user"] = serde_json::json!({"token": token.trim()});
    let path = folder.join("viewer.kubeconfig");
    fs::write(&path, config.to_string())?;
    Ok(path)
}

/// The role in the document, for the service accounts of the namespace `default`.
fn documented_role() -> Result<String> {
    let document = include_str!("../../docs/kubectl.md");
    let role = document.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next()).find(|block| block.contains("pods/proxy"));
    let role = role.context("docs/kubectl.md has no role with pods/proxy")?;
    ensure!(role.contains("my-team"), "the role is for somebody else: {role}");
    Ok(role.replace("my-team", "system:serviceaccounts:default"))
}
