//! Promise: of several installations that see a job one looks after it, and the others leave it alone until it is handed over. It needs what `kubernetes.rs` needs,
//! and Helm on the path.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::{FlightsInCluster, savepoint};
use forebay_e2e::cluster::packages::Helm;
use forebay_e2e::cluster::plugin::Plugin;
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::records;
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::Value;

const WORKERS: usize = 2;

/// An installation of the operator for all namespaces.
#[derive(Clone, Copy, Debug)]
struct Installation {
    namespace: &'static str,
    deployment: &'static str,
}

const BY_KUSTOMIZE: Installation = Installation { namespace: SYSTEM, deployment: "deployment/forebay-operator" };
const BY_HELM: Installation = Installation { namespace: "forebay-second", deployment: "deployment/second-forebay-operator" };

/// Method: two installations for all namespaces are there before a job is. It must be one's, and the other must do nothing about it or its savepoint: whoever does
/// something records an event. Then records come in; the operator of the one is taken away for good, and nothing must happen. The job is handed over to the
/// other as the documents say, and that one must go on with the same pods, and then scale the job.
#[test]
fn a_job_is_one_installations_until_it_is_handed_over() -> Result<()> {
    let Some((cluster, helm)) = Cluster::of_environment().zip(Helm::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-installs", |folder| {
        cluster.install()?;
        let values = ["--set", "crds.install=false", "--set", "userRoles.create=false"];
        let place = ["--namespace", BY_HELM.namespace, "--create-namespace", "--wait", "--timeout", "120s"];
        helm.ask(&[&["install", "second", &Helm::chart()], &values[..], &place[..]].concat())?;
        let outcome = until_both_lead(&cluster).and_then(|()| {
            let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
            is_looked_after_and_handed_over(&cluster, job)
        });
        outcome.and(remove_second(&cluster, &helm))
    })
}

/// Whatever comes next finds one installation, which has all that is new.
fn remove_second(cluster: &Cluster, helm: &Helm) -> Result<()> {
    helm.ask(&["uninstall", "second", "--namespace", BY_HELM.namespace, "--wait"])?;
    cluster.ask(&["delete", "namespace", BY_HELM.namespace, "--timeout=120s"])?;
    cluster.scale_operator(1)
}

fn is_looked_after_and_handed_over(cluster: &Cluster, job: FlightsInCluster<'_>) -> Result<()> {
    let name = job.flights.name.clone();
    let status = job.until_whole(WORKERS)?["status"].clone();
    let (one, other) = match status["operator"].as_str() {
        Some(namespace) if namespace == BY_KUSTOMIZE.namespace => (BY_KUSTOMIZE, BY_HELM),
        Some(namespace) if namespace == BY_HELM.namespace => (BY_HELM, BY_KUSTOMIZE),
        _ => anyhow::bail!("it is nobody's: {status}"),
    };
    let (leader, stranger) = (leader(cluster, one)?, leader(cluster, other)?);
    let only_one = |who: &str, about: &str| -> Result<()> {
        let all = who_has_acted(cluster, about)?;
        ensure!(all.iter().eq([who]), "{who} looks after {about}, and these have acted: {all:?}");
        Ok(())
    };
    only_one(&leader, &name)?;
    is_left_alone(cluster, (other, &stranger), &name, one)?;
    is_refused_when_it_is_late(cluster, &job)?;
    is_told_by_whom(&name, one)?;

    let (before, records) = (job.pods()?, records(336_776)?);
    let all = job.under_load(&records, || {
        let processed = |more: usize| {
            let wanted = job.flights.processed()? + more as u64;
            until("records are processed", PATIENCE, || Ok((job.flights.processed()? > wanted).then_some(())))
        };
        processed(5_000)?;
        let saved = format!("{name}-saved");
        let taken = savepoint(cluster, &saved, &name, "5m")?;
        ensure!(taken["status"]["phase"] == "Completed", "{}", taken["status"]);
        only_one(&leader, &saved)?;

        cluster.ask(&["-n", one.namespace, "scale", one.deployment, "--replicas=0"])?;
        until("it is gone", PATIENCE, || Ok(self::leader(cluster, one).is_err().then_some(())))?;
        // Seven seconds, in which the other one looks several times, if it does.
        processed(14_000)?;
        let status = cluster.get("ingestionjob", &name)?["status"].clone();
        ensure!(status["operator"] == one.namespace, "nobody has handed it over: {status}");
        only_one(&leader, &name)?;

        let patch = format!("{{\"status\": {{\"operator\": \"{}\"}}}}", other.namespace);
        cluster.ask(&["patch", "ingestionjob", &name, "--subresource=status", "--type=merge", "-p", &patch])?;
        // It hears the workers when their pods have the certificates that it makes: within a minute or two.
        until("the other one hears the workers", PATIENCE * 2, || {
            let events = events(cluster, &name)?;
            let is_it = |event: &Value| event["reason"] == "Running" && event["reportingInstance"] == stranger.as_str();
            Ok(events.iter().any(is_it).then_some(()))
        })
    })?;
    ensure!(job.pods()? == before, "the pods were {before:?} and are {:?}", job.pods()?);
    job.patch(r#"{"workers": {"replicas": 1}}"#)?;
    let status = job.until_whole(1)?["status"].clone();
    ensure!(status["operator"] == other.namespace, "{status}");
    is_told_by_whom(&name, other)?;
    job.until_processed(all)?;
    job.delete_and_check(all)
}

/// What an operator writes about a job that was handed over a moment ago: a status, applied by force, which names an earlier version of the job.
fn is_refused_when_it_is_late(cluster: &Cluster, job: &FlightsInCluster<'_>) -> Result<()> {
    let name = &job.flights.name;
    let late = serde_json::json!({
        "apiVersion": "forebay.dev/v1alpha1", "kind": "IngestionJob", "status": {"operator": "late"},
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "1"},
    });
    let file = job.flights.manifest.with_file_name("late.json");
    std::fs::write(&file, late.to_string())?;
    let path = file.to_string_lossy();
    let refused = cluster
        .ask(&["apply", "--server-side", "--subresource=status", "--force-conflicts", "-f", &path])
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    ensure!(refused.contains("the object has been modified"), "it was not refused as late: {refused}");
    Ok(())
}

/// People are told whose it is, and what that one has seen.
fn is_told_by_whom(job: &str, one: Installation) -> Result<()> {
    let said = Plugin::of_environment()?.ask(&["status", job])?;
    ensure!(said.contains(&format!("; operator: {}\n", one.namespace)) && said.contains("\nSHARD "), "{said}");
    Ok(())
}

/// The other one says whose the job is, in its log once and in its metrics.
fn is_left_alone(cluster: &Cluster, (other, stranger): (Installation, &str), job: &str, one: Installation) -> Result<()> {
    let log = cluster.ask(&["-n", other.namespace, "logs", stranger, "--tail=-1"])?;
    let said: Vec<&str> = log.lines().filter(|line| line.contains("is left alone") && line.contains(&format!("\"{job}\""))).collect();
    ensure!(said.len() == 1 && said[0].contains(one.namespace), "it said {} times whose the job is:\n{log}", said.len());
    let metrics = cluster.ask(&["get", "--raw", &format!("/api/v1/namespaces/{}/pods/{stranger}:8080/proxy/metrics", other.namespace)])?;
    let counted = format!("forebay_operator_jobs_of_others{{operator=\"{}\"}}", one.namespace);
    ensure!(metrics.lines().any(|line| line.starts_with(&counted)), "{counted} is not in\n{metrics}");
    Ok(())
}

fn until_both_lead(cluster: &Cluster) -> Result<()> {
    until("both installations lead", PATIENCE, || Ok([BY_KUSTOMIZE, BY_HELM].iter().all(|one| leader(cluster, *one).is_ok()).then_some(())))
}

/// The pod of an installation that leads. `Err` when none does.
fn leader(cluster: &Cluster, installation: Installation) -> Result<String> {
    let holder =
        cluster.ask(&["-n", installation.namespace, "get", "lease", "forebay-operator", "-o", "jsonpath={.spec.holderIdentity}"])?;
    Some(holder).filter(|holder| !holder.is_empty()).with_context(|| format!("nobody leads in {}", installation.namespace))
}

/// The pods of operators that have recorded events about an object.
fn who_has_acted(cluster: &Cluster, about: &str) -> Result<BTreeSet<String>> {
    let operators = events(cluster, about)?.into_iter().filter(|event| event["reportingComponent"] == "forebay-operator");
    operators.map(|event| event["reportingInstance"].as_str().map(str::to_owned).context("an operator names itself")).collect()
}

fn events(cluster: &Cluster, about: &str) -> Result<Vec<Value>> {
    let printed = cluster.ask(&["get", "events", "--field-selector", &format!("involvedObject.name={about}"), "-o", "json"])?;
    let list: Value = serde_json::from_str(&printed)?;
    Ok(list["items"].as_array().context("a list has items")?.clone())
}
