//! Promise: whatever a job loses in its cluster, a container, a node, the operator, it goes on and no record is lost or doubled. It needs what
//! `kubernetes.rs` needs, and for containers and nodes a cluster that runs on this machine.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::{FlightsInCluster, Pod};
use forebay_e2e::cluster::nodes::Nodes;
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::records;
use forebay_e2e::{PATIENCE, in_folder, until};

const WORKERS: usize = 2;

/// Method: the operator is taken away. Records go in, and the container of a worker is killed with more of them on their way. All must be
/// processed, because the container that is started anew resumes its last assignment from its volume. The operator comes back, and leaves the
/// pods as they are.
#[test]
fn the_data_plane_goes_on_without_the_operator() -> Result<()> {
    let Some((cluster, nodes)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-operator-down", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        job.until_whole(WORKERS)?;
        let before = job.pods()?;
        cluster.scale_operator(0)?;
        let all = records(30_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        job.feed(first)?;
        job.until_processed(first)?;
        let (early, late) = rest.split_at(rest.len() / 2);
        job.feed(early)?;
        nodes.kill_container(&before[0].uid)?;
        job.feed(late)?;
        job.until_processed(&all)?;
        let restarts = &cluster.get("pod", &before[0].name)?["status"]["containerStatuses"][0]["restartCount"];
        ensure!(restarts.as_u64() == Some(1), "the container was started again {restarts} times");

        cluster.scale_operator(1)?;
        job.until_whole(WORKERS)?;
        ensure!(job.pods()? == before, "the pods were {before:?} and are {:?}", job.pods()?);
        job.delete_and_check(&all)
    })
}

/// Method: the node of one of two workers is lost with one SIGKILL, while records go in. They must be processed before the node comes back.
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

        let all = records(30_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        job.feed(first)?;
        job.until_processed(first)?;
        let (early, late) = rest.split_at(rest.len() / 2);
        job.feed(early)?;
        let lost = Instant::now();
        nodes.kill(node)?;
        let outcome = job.feed(late).and_then(|()| job.until_processed(&all)).and_then(|()| {
            println!("all is processed {:.1} s after the loss of {node}", lost.elapsed().as_secs_f64());
            job.until_whole(WORKERS)
        });
        nodes.start(node)?;
        cluster.ask(&["wait", "--for=condition=Ready", &format!("node/{node}"), "--timeout=120s"])?;
        outcome?;
        job.delete_and_check(&all)
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

        let all = records(30_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        job.feed(first)?;
        let (early, late) = rest.split_at(rest.len() / 2);
        job.feed(early)?;
        let drained = cluster.ask(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"]);
        let outcome = drained.and_then(|_| job.feed(late)).and_then(|()| job.until_processed(&all)).and_then(|()| job.until_whole(3));
        cluster.ask(&["uncordon", &node])?;
        outcome?;
        job.delete_and_check(&all)
    })
}

/// Method: the job's resources change, so that its pods are replaced one after another, with records going in; the operator is killed twice
/// meanwhile. In the end all pods must be new ones.
#[test]
fn an_operator_that_is_killed_in_the_middle_of_a_change_goes_on_with_it() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-operator-killed", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        job.until_whole(WORKERS)?;
        let before = job.pods()?;
        let all = records(30_000)?;
        let (first, rest) = all.split_at(all.len() / 2);
        job.feed(first)?;
        job.patch(r#"{"workers": {"resources": {"requests": {"cpu": "110m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}}}"#)?;
        let is_new = |pod: &Pod| !before.contains(pod);
        for replaced in 0..WORKERS {
            job.until_status("the operator works at it", |_| {
                job.pods().is_ok_and(|pods| pods.iter().filter(|pod| is_new(pod)).count() > replaced)
            })?;
            cluster.ask(&["-n", SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--grace-period=0", "--force"])?;
        }
        job.feed(rest)?;
        job.until_processed(&all)?;
        job.until_whole(WORKERS)?;
        ensure!(job.pods()?.iter().all(is_new), "the pods were {before:?} and are {:?}", job.pods()?);
        job.delete_and_check(&all)
    })
}
