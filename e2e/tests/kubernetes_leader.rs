//! Promise: of several operators one acts, and when it is lost another takes over. It needs what `kubernetes.rs` needs, and a cluster that runs on this
//! machine.

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::FlightsInCluster;
use forebay_e2e::cluster::nodes::Nodes;
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::records;
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::Value;

/// Method: two operators. The leader's pod is deleted without grace: the other one must get the lease and scale the job. Then the leader is frozen, which no
/// probe notices in time: another gets the lease and scales the job back. The frozen one thaws: it must end, and the lease must stay where it is. Records come in
/// all the time.
#[test]
fn another_operator_takes_over_and_the_old_leader_ends() -> Result<()> {
    let Some((cluster, nodes)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-leader", |folder| {
        cluster.install()?;
        cluster.scale_operator(2)?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let records = records(336_776)?;
        let all = job.under_load(&records, || {
            let first = until_leader(&cluster, "an operator leads", |_| true)?;
            cluster.ask(&["-n", SYSTEM, "delete", "pod", &first, "--grace-period=0", "--force"])?;
            let second = until_leader(&cluster, "another leads", |leader| leader != first)?;
            job.patch(r#"{"workers": {"replicas": 2}}"#)?;
            job.until_whole(2)?;

            let restarts = restarts(&cluster, &second)?;
            nodes.signal_container(&second, "STOP")?;
            let third = until_leader(&cluster, "one leads that is not frozen", |leader| leader != second);
            let scaled = third.and_then(|third| {
                job.patch(r#"{"workers": {"replicas": 1}}"#)?;
                job.until_whole(1).map(|_| third)
            });
            nodes.signal_container(&second, "CONT")?;
            let third = scaled?;
            until("the old leader ends", PATIENCE, || Ok((self::restarts(&cluster, &second)? > restarts).then_some(())))?;
            let last_words = cluster.ask(&["-n", SYSTEM, "logs", &second, "--previous", "--tail=-1"])?;
            ensure!(last_words.contains("could not be renewed in time"), "it ended for another reason:\n{last_words}");
            ensure!(leader(&cluster)?.as_deref() == Some(&third), "the lease went from {third} to {:?}", leader(&cluster)?);
            Ok(())
        })?;
        cluster.scale_operator(1)?;
        job.until_processed(all)?;
        job.delete_and_check(all)
    })
}

fn until_leader(cluster: &Cluster, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    until(what, PATIENCE, || Ok(leader(cluster)?.filter(|leader| wanted(leader))))
}

/// The pod that has the lease.
fn leader(cluster: &Cluster) -> Result<Option<String>> {
    let holder = cluster.try_ask(&["-n", SYSTEM, "get", "lease", "forebay-operator", "-o", "jsonpath={.spec.holderIdentity}"])?;
    Ok(Some(holder).filter(|holder| !holder.is_empty()))
}

fn restarts(cluster: &Cluster, pod: &str) -> Result<u64> {
    let printed = cluster.ask(&["-n", SYSTEM, "get", "pod", pod, "-o", "json"])?;
    let pod: Value = serde_json::from_str(&printed)?;
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().context("Kubernetes counts restarts")
}
