//! Promise: whatever a job loses in its cluster, a container, a node, the operator, it goes on and no record is lost or doubled. It needs what
//! `kubernetes.rs` needs, and for containers and nodes a cluster that runs on this machine.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::{FlightsInCluster, Pod};
use forebay_e2e::cluster::nodes::Nodes;
use forebay_e2e::cluster::plugin::Plugin;
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::{records, replaced};
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::Value;

const WORKERS: usize = 2;

/// Method: the operator is taken away while records come in, and the container of a worker is killed. All must be processed for minutes, because the
/// container that is started anew resumes its last assignment from its volume. The operator comes back, and leaves the pods as they are.
#[test]
fn the_data_plane_goes_on_without_the_operator() -> Result<()> {
    let Some((cluster, nodes)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-operator-down", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        job.until_whole(WORKERS)?;
        let before = job.pods()?;
        cluster.scale_operator(0)?;
        let records = records(336_776)?;
        let all = job.under_load(&records, || {
            until("it processes without an operator", PATIENCE, || Ok((job.flights.processed()? > 20_000).then_some(())))?;
            nodes.kill_container(&before[0].uid)?;
            // At two thousand a second these are two minutes.
            until("it goes on for minutes", PATIENCE * 3, || Ok((job.flights.processed()? > 260_000).then_some(())))
        })?;
        job.until_processed(all)?;
        let restarts = &cluster.get("pod", &before[0].name)?["status"]["containerStatuses"][0]["restartCount"];
        ensure!(restarts.as_u64() == Some(1), "the container was started again {restarts} times");

        cluster.scale_operator(1)?;
        job.until_whole(WORKERS)?;
        ensure!(job.pods()? == before, "the pods were {before:?} and are {:?}", job.pods()?);
        job.delete_and_check(all)
    })
}

/// Method: the process of one of two workers' containers is killed while records come in, with the operator looking on: its node starts it again while the operator
/// waits for it. No pod is replaced, and the oracle judges all outputs.
#[test]
fn a_container_that_is_killed_comes_back_in_its_pod() -> Result<()> {
    let Some((cluster, nodes)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-container", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        job.until_balanced(WORKERS)?;
        let before = job.pods()?;
        let records = records(336_776)?;
        let all = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 10_000).then_some(())))?;
            nodes.kill_container(&before[0].uid)?;
            until("the container was started again", PATIENCE, || {
                let restarts = &cluster.get("pod", &before[0].name)?["status"]["containerStatuses"][0]["restartCount"];
                Ok((restarts.as_u64() == Some(1)).then_some(()))
            })?;
            job.until_balanced(WORKERS).map(drop)
        })?;
        job.until_processed(all)?;
        ensure!(job.pods()? == before, "the pods were {before:?} and are {:?}", job.pods()?);
        job.delete_and_check(all)
    })
}

/// Method: the node of one of two workers is lost with one SIGKILL, while records come in. They must be processed before the node comes back.
#[test]
fn the_shards_of_a_lost_node_go_on_elsewhere() -> Result<()> {
    let Some((cluster, nodes)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-node-lost", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        job.until_whole(WORKERS)?;
        let home = cluster.ask(&[
            "-n",
            SYSTEM,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=operator",
            "-o",
            "jsonpath={.items[0].spec.nodeName}",
        ])?;
        let hosts: Vec<String> = job.pods()?.into_iter().map(|pod| pod.node).collect();
        let node =
            hosts.iter().find(|host| **host != home).with_context(|| format!("all workers are on {hosts:?}, beside the operator"))?;

        let records = records(336_776)?;
        let lost = job.pods()?.into_iter().filter(|pod| pod.node == *node).collect::<Vec<_>>();
        let outcome = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 10_000).then_some(())))?;
            nodes.kill(node)?;
            until("the lost pods are given up", PATIENCE, || Ok(job.pods()?.iter().all(|pod| !lost.contains(pod)).then_some(())))?;
            job.until_whole(WORKERS).map(drop)
        });
        let outcome = outcome.and_then(|all| job.until_processed(all).map(|()| all));
        nodes.start(node)?;
        cluster.ask(&["wait", "--for=condition=Ready", &format!("node/{node}"), "--timeout=120s"])?;
        job.delete_and_check(outcome?)
    })
}

/// Method: the kubelet of one of two workers is frozen while records come in, until Kubernetes gives its node up and deletes its pod: that cannot be ended, and works on.
/// Its shards must go to others before the kubelet is thawed.
#[test]
fn the_shards_of_a_pod_that_is_stuck_in_terminating_go_on_elsewhere() -> Result<()> {
    let Some((cluster, nodes)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-stuck", |folder| {
        cluster.install()?;
        // Five minutes, by default.
        let toleration = "{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}";
        let soon_evicted = |manifest| {
            replaced(manifest, "    envFrom:", &format!("    podTemplate: {{spec: {{tolerations: [{toleration}]}}}}\n    envFrom:"))
        };
        let job = FlightsInCluster::start_changed(&cluster, folder, WORKERS, soon_evicted)?;
        job.until_whole(WORKERS)?;
        let said = Plugin::of_environment()?.ask(&["-o", "json", "assignments", &job.flights.name])?;
        let assignments: Vec<Value> = serde_json::from_str(&said)?;
        let has_shards =
            |pod: &Pod| assignments.iter().any(|one| one["pod"] == pod.name.as_str() && one["shards"] != serde_json::json!([]));
        let stuck = job.pods()?.into_iter().find(has_shards).with_context(|| format!("nobody has shards: {said}"))?;
        // What comes instead must not come there.
        cluster.ask(&["cordon", &stuck.node])?;
        let records = records(336_776)?;
        let outcome = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 10_000).then_some(())))?;
            nodes.signal_kubelet(&stuck.node, "STOP")?;
            until("Kubernetes deletes its pod", PATIENCE, || {
                let deleted = cluster.ask(&["get", "pod", &stuck.name, "-o", "jsonpath={.metadata.deletionTimestamp}"])?;
                Ok((!deleted.is_empty()).then_some(()))
            })?;
            let told = format!("{} has the shards {{}} under", stuck.name);
            until("it is told to release its shards", PATIENCE, || {
                let about = format!("involvedObject.name={}", job.flights.name);
                let said = cluster.ask(&["get", "events", "--field-selector", &about, "-o", "jsonpath={.items[*].message}"])?;
                Ok(said.contains(&told).then_some(()))
            })?;
            job.until_whole(WORKERS)?;
            let phase = cluster.ask(&["get", "pod", &stuck.name, "-o", "jsonpath={.status.phase} {.metadata.deletionTimestamp}"])?;
            ensure!(phase.starts_with("Running 2"), "{} is gone, or is not being deleted: {phase}", stuck.name);
            Ok(())
        });
        nodes.signal_kubelet(&stuck.node, "CONT")?;
        cluster.ask(&["uncordon", &stuck.node])?;
        let all = outcome?;
        cluster.ask(&["wait", "--for=delete", &format!("pod/{}", stuck.name), "--timeout=120s"])?;
        job.until_processed(all)?;
        job.delete_and_check(all)
    })
}

/// Method: three workers on two nodes; the node with two of them is drained while records go in. The job's budget must be known to Kubernetes as one of
/// three pods, so that the drain waits for the first replacement before it takes the second; and all must be processed.
#[test]
fn a_node_is_drained_one_worker_after_another() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-drain", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 3)?;
        job.until_whole(3)?;
        let budget = || {
            cluster.ask(&[
                "get",
                "pdb",
                "-l",
                &format!("forebay.dev/job={}", job.flights.name),
                "-o",
                "jsonpath={.items[0].status.expectedPods} {.items[0].status.disruptionsAllowed}",
            ])
        };
        until("Kubernetes counts the budget's pods", PATIENCE, || Ok((budget()? == "3 1").then_some(())))?;
        let mut hosts: Vec<String> = job.pods()?.into_iter().map(|pod| pod.node).collect();
        hosts.sort();
        let node =
            hosts.windows(2).find(|pair| pair[0] == pair[1]).with_context(|| format!("no two workers share a node: {hosts:?}"))?[0].clone();

        let records = records(336_776)?;
        let outcome = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 10_000).then_some(())))?;
            cluster.ask(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"])?;
            job.until_whole(3).map(drop)
        });
        let outcome = outcome.and_then(|all| job.until_processed(all).map(|()| all));
        cluster.ask(&["uncordon", &node])?;
        job.delete_and_check(outcome?)
    })
}

/// Method: the pipeline changes with records going in; the operator is killed while the change waits for its savepoint, while it is tried on a shard, and while
/// the other workers follow. In the end all pods must be new ones.
#[test]
fn an_operator_that_is_killed_in_the_middle_of_a_change_goes_on_with_it() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-operator-killed", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        job.until_whole(WORKERS)?;
        let before = job.pods()?;
        let records = records(336_776)?;
        let is_new = |pod: &Pod| !before.contains(pod);
        let all = job.under_load(&records, || {
            let changed = replaced(fs::read_to_string(&job.flights.manifest)?, "max: 3000}", "max: 3001}")?;
            cluster.apply(&changed)?;
            for stage in ["SavepointFirst", "CanaryObserved", "WorkersFollow"] {
                job.until_status(stage, |status| {
                    let mut conditions = status["conditions"].as_array().into_iter().flatten();
                    conditions.any(|condition| condition["reason"] == stage)
                })?;
                cluster.ask(&[
                    "-n",
                    SYSTEM,
                    "delete",
                    "pod",
                    "-l",
                    "app.kubernetes.io/component=operator",
                    "--grace-period=0",
                    "--force",
                ])?;
            }
            until("all pods are new", PATIENCE * 2, || Ok(job.pods()?.iter().all(is_new).then_some(())))?;
            job.until_whole(WORKERS).map(drop)
        })?;
        job.until_processed(all)?;
        job.delete_and_check(all)
    })
}
