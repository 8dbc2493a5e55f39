//! Promise: what a job adds to its pods is there, goes into force and is taken back like any other change, and what cannot be added is named at once. It
//! needs what `kubernetes.rs` needs.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::FlightsInCluster;
use forebay_e2e::cluster::nodes::Nodes;
use forebay_e2e::flights::records;
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::{Value, json};

const WORKERS: usize = 2;

/// What a condition of the job says.
fn said(job: &Value, condition: &str) -> (String, String) {
    let mut all = job["status"]["conditions"].as_array().into_iter().flatten();
    let found = all.find(|one| one["type"] == condition).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

fn with_template(job: &FlightsInCluster<'_>, template: &Value) -> Result<()> {
    // All of it, not merged into what is there.
    job.patch(r#"{"workers": {"podTemplate": null}}"#)?;
    job.patch(&json!({"workers": {"podTemplate": template}}).to_string())
}

/// A container that does nothing, in a namespace with the restricted standard.
fn beside(command: &str) -> Value {
    json!({
        "name": "beside", "image": "forebay.local/pause:1", "command": [command],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    })
}

/// Only nodes that run Linux: all of them.
fn affinity() -> Value {
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]});
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}})
}

fn template(job: &FlightsInCluster<'_>, command: &str) -> Value {
    let key = |key: &str| json!({"name": key, "valueFrom": {"secretKeyRef": {"name": "object-store", "key": key}}});
    json!({
        "metadata": {"labels": {"team": "air"}, "annotations": {"note": "hello"}},
        "spec": {
            "serviceAccountName": job.flights.name,
            "priorityClassName": job.flights.name,
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "affinity": affinity(),
            "imagePullSecrets": [{"name": "registry"}],
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "volumes": [{"name": "more", "emptyDir": {}}],
            "containers": [
                {"name": "worker", "env": [key("AWS_ACCESS_KEY_ID"), key("AWS_SECRET_ACCESS_KEY")], "volumeMounts": [{"name": "more", "mountPath": "/more"}]},
                beside(command),
            ],
        },
    })
}

/// Waits until a change was taken back; returns why. It has minutes to go into force, and what is refused is not to be tried for so long.
fn until_taken_back(job: &FlightsInCluster<'_>) -> Result<String> {
    let asked = Instant::now();
    let back = job.until_status("the change is taken back", |status| status["phase"] == "RolledBack")?;
    println!("taken back after {} s", asked.elapsed().as_secs());
    Ok(said(&back, "Stalled").1)
}

/// Method: a template with a field that Kubernetes does not know, then one that its API server refuses, then a quota without room for another pod: the condition
/// must say so, and the job goes on. Then one with a bit of everything, among it the credentials of the object store, which the job is no longer given otherwise: it must go into force
/// like any change, and a savepoint, which another pod copies, must have them too. One with a container that cannot start must be taken back.
#[test]
fn what_is_added_to_pods_goes_into_force_and_is_taken_back() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-pods", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let name = &job.flights.name;
        cluster.apply(&format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: default}}\n---\n\
             apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {{name: {name}}}\nvalue: 1000\n"
        ))?;
        let all = records(60_000)?;
        let parts: Vec<_> = all.chunks(all.len() / 4).collect();
        let before = job.until_whole(WORKERS)?["status"]["revision"].clone();

        with_template(&job, &json!({"spec": {"tolerations": [{"efect": "NoSchedule"}]}}))?;
        let invalid = job.until_status("it is refused", |status| status["phase"] == "Stalled")?;
        let (reason, message) = said(&invalid, "Stalled");
        let expected = "spec.workers.podTemplate.spec.tolerations[0].efect: unknown field; did you mean `effect`?";
        ensure!(reason == "InvalidSpec" && message == expected, "{reason}: {message}");
        job.feed(parts[0])?;
        job.until_processed(parts[0])?;

        with_template(&job, &json!({"spec": {"tolerations": [{"key": "spot", "operator": "Sometimes"}]}}))?;
        let refused = until_taken_back(&job)?;
        ensure!(refused.contains("the API server refuses its pods") && refused.contains("tolerations[0].operator"), "{refused}");
        // There is room for the workers and for no other pod.
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "namespace": "default"}, "spec": {"hard": {"pods": "2"}}});
        cluster.apply(&quota.to_string())?;
        until("the quota is full", PATIENCE, || Ok((cluster.get("resourcequota", name)?["status"]["used"]["pods"] == "2").then_some(())))?;
        with_template(&job, &template(&job, "/pause"))?;
        let no_room = until_taken_back(&job)?;
        ensure!(no_room.contains("the API server refuses its pods") && no_room.contains("exceeded quota"), "{no_room}");
        cluster.ask(&["delete", "resourcequota", name])?;

        job.patch(r#"{"workers": {"envFrom": null}}"#)?;
        // The revision that was taken back is not tried again by itself: this is another one.
        with_template(&job, &template(&job, "/pause"))?;
        parts[1..3].iter().try_for_each(|part| job.feed(part))?;
        job.until_status("it is in force", |status| status["phase"] == "Running" && status["revision"] != before)?;
        job.until_whole(WORKERS)?;
        for pod in cluster.pods(name)? {
            let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
            ensure!(metadata["labels"]["team"] == "air" && metadata["annotations"]["note"] == "hello", "{metadata:#}");
            ensure!(spec["serviceAccountName"] == **name && spec["priority"] == 1000, "{spec:#}");
            ensure!(spec["affinity"] == affinity() && spec["imagePullSecrets"] == json!([{"name": "registry"}]), "{spec:#}");
            ensure!(spec["containers"].as_array().is_some_and(|containers| containers.len() == 2), "{spec:#}");
            ensure!(spec["containers"][0]["envFrom"].is_null(), "the credentials come from elsewhere: {spec:#}");
        }
        job.until_processed(&parts[..3].concat())?;
        let savepoint = format!("{name}-added");
        cluster.apply(&format!(
            "apiVersion: forebay.dev/v1alpha1\nkind: IngestionSavepoint\nmetadata: {{name: {savepoint}, namespace: default}}\nspec: {{job: {name}, deadline: 2m}}\n"
        ))?;
        cluster.ask(&["wait", "isp", &savepoint, "--for=condition=Ready", "--timeout=120s"])?;

        with_template(&job, &template(&job, "/nothing"))?;
        job.feed(parts[3])?;
        let back = job.until_status("it is taken back", |status| status["phase"] == "RolledBack")?;
        let (_, message) = said(&back, "Stalled");
        ensure!(message.contains("container beside: "), "the condition does not name the container: {message}");
        println!("{refused}\n{no_room}\n{message}");
        job.until_processed(&all)?;
        cluster.ask(&["delete", "priorityclass", name])?;
        job.delete_and_check(&all)
    })
}

/// Method: two volumes are made on a node by hand, as an administrator would; the job's worker must run with its state on one of them, and leave no claim.
#[test]
fn state_lies_on_a_claim_of_its_own_when_asked_for() -> Result<()> {
    // The volumes are folders of this machine.
    let Some((cluster, _)) = Cluster::of_environment().zip(Nodes::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-claims", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let name = job.flights.name.clone();
        let before = job.until_whole(1)?["status"]["revision"].clone();
        let volumes: Vec<String> = (0..2).map(|number| format!("{name}-{number}")).collect();
        for volume in &volumes {
            let path = folder.join(volume);
            fs::create_dir(&path)?;
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": volume, "labels": {"job": name}},
                "spec": {
                    "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": path},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}},
                },
            });
            cluster.apply(&volume.to_string())?;
        }
        let claim =
            json!({"storageClassName": "", "selector": {"matchLabels": {"job": name}}, "resources": {"requests": {"storage": "1Gi"}}});
        job.patch(&json!({"workers": {"volumeClaimTemplate": {"spec": claim}}}).to_string())?;
        let all = records(10_000)?;
        job.feed(&all)?;
        job.until_status("it is in force", |status| status["phase"] == "Running" && status["revision"] != before)?;
        job.until_whole(1)?;
        job.until_processed(&all)?;
        let used = volumes.iter().filter(|volume| folder.join(volume).join("state").is_dir()).count();
        ensure!(used > 0, "no state lies on any volume");
        let pod = job.pods()?.pop().context("there is a worker")?;
        let bound = cluster.ask(&["get", "pvc", &format!("{}-state", pod.name), "-o", "jsonpath={.status.phase}"])?;
        ensure!(bound == "Bound", "the claim is {bound}");
        job.delete_and_check(&all)?;
        until("the claims are gone", PATIENCE, || {
            let left = cluster.ask(&["get", "pvc", "-o", "name"])?;
            Ok((!left.contains(&name)).then_some(()))
        })?;
        cluster.ask(&[&["delete", "pv"], &volumes.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat()).map(drop)
    })
}
