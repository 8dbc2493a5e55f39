//! Promise: a worker answers the operator and nobody else, and certificates are renewed without a restart. It needs what `kubernetes.rs` needs, and a
//! way from the test to the pods.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::FlightsInCluster;
use forebay_e2e::cluster::nodes::Nodes;
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::records;
use forebay_e2e::{PATIENCE, in_folder, until};

/// Method: a worker is called without a certificate, which it must refuse. Then the secret with its certificate is deleted: the worker must show the new
/// one that the operator makes, while records go in, with no container started anew.
#[test]
fn workers_refuse_strangers_and_certificates_are_renewed_while_they_run() -> Result<()> {
    // Elsewhere the pods may be out of a test's reach.
    let Some((cluster, _)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-certificates", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        job.until_whole(1)?;
        let pods = job.pods()?;
        let pod = cluster.get("pod", &pods[0].name)?;
        let address = format!("{}:7070", pod["status"]["podIP"].as_str().context("the pod has an address")?);

        let said = called(&address)?;
        ensure!(said.contains("alert certificate required"), "a stranger is not refused:\n{said}");

        let before = serial(&said)?;
        let label = format!("forebay.dev/job={}", job.flights.name);
        cluster.ask(&["delete", "secret", "-l", &label])?;
        let records = records(336_776)?;
        let all = job.under_load(&records, || {
            // Kubernetes hands a renewed secret to a pod within a minute or two.
            until("the worker shows a new certificate", PATIENCE * 2, || Ok((serial(&called(&address)?)? != before).then_some(())))
        })?;
        job.until_processed(all)?;
        job.until_whole(1)?;
        ensure!(job.pods()? == pods, "the pods were {pods:?} and are {:?}", job.pods()?);
        let restarts = &cluster.get("pod", &pods[0].name)?["status"]["containerStatuses"][0]["restartCount"];
        ensure!(restarts.as_u64() == Some(0), "the container was started again {restarts} times");
        job.delete_and_check(all)
    })
}

/// Method: the operator's authority is deleted, and the operator started anew, which makes another one. The worker must show a certificate of that, and hand shards over to
/// a second worker, while records go in, with no container started anew.
#[test]
fn another_authority_takes_over_while_workers_run() -> Result<()> {
    // Elsewhere the pods may be out of a test's reach.
    let Some((cluster, _)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-authority", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let pods = job.pods()?;
        let pod = cluster.get("pod", &pods[0].name)?;
        let address = format!("{}:7070", pod["status"]["podIP"].as_str().context("the pod has an address")?);
        let label = format!("forebay.dev/job={}", job.flights.name);
        let signed_by = || cluster.ask(&["get", "secret", "-l", &label, "-o", "jsonpath={.items[0].metadata.annotations}"]);
        let (before, authority) = (serial(&called(&address)?)?, signed_by()?);

        cluster.scale_operator(0)?;
        cluster.ask(&["-n", SYSTEM, "delete", "secret", "forebay-operator-authority"])?;
        let records = records(336_776)?;
        let all = job.under_load(&records, || {
            cluster.scale_operator(1)?;
            until("the worker shows a new certificate", PATIENCE * 2, || Ok((serial(&called(&address)?)? != before).then_some(())))?;
            ensure!(signed_by()? != authority, "its secret is still of the old authority: {authority}");
            // Only workers that it hears can hand shards to each other.
            job.patch(r#"{"workers": {"replicas": 2}}"#)?;
            job.until_balanced(2).map(drop)
        })?;
        job.until_processed(all)?;
        ensure!(job.pods()?.contains(&pods[0]), "the pods were {pods:?} and are {:?}", job.pods()?);
        let restarts = &cluster.get("pod", &pods[0].name)?["status"]["containerStatuses"][0]["restartCount"];
        ensure!(restarts.as_u64() == Some(0), "the container was started again {restarts} times");
        job.delete_and_check(all)
    })
}

/// What a client without a certificate sees of a worker.
fn called(address: &str) -> Result<String> {
    let arguments = ["s_client", "-connect", address, "-alpn", "h2", "-ign_eof"];
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().context("call openssl")?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// The certificate that it showed: all of it stands for its number.
fn serial(said: &str) -> Result<String> {
    let begin = said.find("-----BEGIN CERTIFICATE-----").with_context(|| format!("it showed no certificate:\n{said}"))?;
    let end = said.find("-----END CERTIFICATE-----").context("a certificate ends")?;
    Ok(said[begin..end].to_owned())
}
