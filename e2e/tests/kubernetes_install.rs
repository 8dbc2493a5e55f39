//! Promise: the chart and `kustomize/` install the same operator, with nothing more than it needs, and say no to values that make no sense. It needs
//! what `kubernetes.rs` needs, and Helm on the path.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::{credentials, uid_of, written};
use forebay_e2e::cluster::packages::{Helm, objects};
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::{Flights, records, replaced};
use forebay_e2e::kafka::Broker;
use forebay_e2e::s3::{BUCKET, S3};
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::{Value, json};

/// Of the namespaced release.
const NAMESPACE: &str = "forebay-by-helm";

/// Values that change something beside each other's reach, so that all templates are rendered.
const EVERYTHING: &[&str] = &["--values", "e2e/tests/kubernetes_install/everything.yaml"];

/// Method: Helm's own linter; then values of which each has one mistake.
#[test]
fn the_chart_is_tidy_and_refuses_values_that_make_no_sense() -> Result<()> {
    let Some(helm) = Helm::of_environment() else { return Ok(()) };
    helm.ask(&["lint", "--strict", &Helm::chart()])?;
    helm.ask(&[&["lint", "--strict", &Helm::chart()], EVERYTHING].concat())?;
    let bad = [
        "namespaced=maybe",
        "image.tag=a b",
        "image.repository=",
        "image.registry=x",
        "replicaCount=3",
        "replicas=many",
        "resources.cpu=1",
        "logLevel=",
    ];
    for value in bad {
        let refused = helm.template(SYSTEM, &["--set", value]).err().map(|error| format!("{error:#}")).unwrap_or_default();
        let name = value.split(['=', '.']).next().unwrap_or_default();
        ensure!(refused.contains("schema") && refused.contains(name), "{value} was not refused by name: {refused}");
    }
    let both = ["--set", "namespaced=true", "--set", "defaults.kafka.bootstrapServers=a:1"];
    let refused = helm.template(SYSTEM, &both).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("has no right to that"), "defaults of a namespaced installation were not refused: {refused}");
    Ok(())
}

/// Method: the chart with all that can be switched on, and `kustomize/base` with all components, are rendered and compared, object by object, but for what
/// Helm adds to each.
#[test]
fn helm_and_kustomize_install_the_same() -> Result<()> {
    let Some((cluster, helm)) = Cluster::of_environment().zip(Helm::of_environment()) else { return Ok(()) };
    let all = "replicas=2,networkPolicy.enabled=true,podMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true";
    let by_helm = meaning(&helm.template(SYSTEM, &["--set", all, "--values", "e2e/tests/kubernetes_install/defaults.yaml"])?)?;
    let rendered = cluster.ask(&["kustomize", &Helm::path("e2e/tests/kubernetes_install/everything")])?;
    let mut by_kustomize = meaning(&rendered)?;
    // Helm has the namespace made by `--create-namespace`.
    by_kustomize.remove(&format!("Namespace {SYSTEM}")).context("kustomize makes the namespace")?;
    ensure!(by_helm.keys().eq(by_kustomize.keys()), "{:?}\n{:?}", by_helm.keys(), by_kustomize.keys());
    for (name, object) in &by_helm {
        ensure!(*object == by_kustomize[name], "{name} differs; Helm:\n{object:#}\nkustomize:\n{:#}", by_kustomize[name]);
    }
    Ok(())
}

/// Method: every object that chart, overlays and the example can make is handed to the API server, which checks it and keeps nothing.
#[test]
fn the_api_server_takes_all_that_can_be_installed() -> Result<()> {
    let Some((cluster, helm)) = Cluster::of_environment().zip(Helm::of_environment()) else { return Ok(()) };
    cluster.install()?;
    cluster.install_monitoring_crds()?;
    for rendered in [
        helm.template(SYSTEM, &[])?,
        helm.template(SYSTEM, EVERYTHING)?,
        helm.template(SYSTEM, &["--set", "namespaced=true"])?,
        cluster.ask(&["kustomize", &Helm::path("e2e/tests/kubernetes_install/everything")])?,
        cluster.ask(&["kustomize", &Helm::path("kustomize/overlays/namespaced")])?,
        cluster.ask(&["kustomize", &Helm::path("kustomize/overlays/high-availability")])?,
    ] {
        cluster.check(&rendered)?;
    }
    cluster.check(&cluster.ask(&["kustomize", &Helm::path("examples/kubernetes")])?)?;
    cluster.check(&fs::read_to_string(Helm::path("examples/flights/savepoint.yaml"))?)?;
    // As a user does it first: what is applied is kept in an annotation, which has room for 256 KiB.
    cluster.ask(&["apply", "-f", &Helm::path("crds"), "--dry-run=server"])?;
    let servers = std::fs::read_to_string(Helm::path("examples/kubernetes/servers.yaml"))?;
    let (namespace, rest) = servers.split_once("\n---\n").context("the namespace comes first")?;
    cluster.apply(namespace)?;
    cluster.check(rest)?;
    cluster.ask(&["delete", "namespace", "forebay-demo", "--wait=false"]).map(drop)
}

/// Method: the example's manifest as it stands, but for the names of job and topics, is refused for want of brokers. With defaults, as the chart renders them, it is
/// taken, runs, and is judged by the oracle; a job with servers of its own keeps them.
#[test]
fn a_job_that_names_no_servers_runs_on_those_of_the_installation() -> Result<()> {
    let Some((cluster, helm)) = Cluster::of_environment().zip(Helm::of_environment()) else { return Ok(()) };
    in_folder("kubernetes-defaults", |folder| {
        cluster.install()?;
        let (broker, s3) = (Broker::of_environment()?, S3::of_environment()?);
        let with_servers = written(folder, 1)?;
        let values = json!({"defaults": {
            "kafka": {"bootstrapServers": broker.address},
            "store": {"s3": {"bucket": BUCKET, "prefix": with_servers.name, "endpoint": s3.url, "region": "us-east-1", "pathStyle": true}},
            "envFrom": [{"secretRef": {"name": "object-store"}}],
        }});
        let file = folder.join("values.json");
        fs::write(&file, values.to_string())?;
        let rendered = helm.template(SYSTEM, &["--values", &file.to_string_lossy(), "--show-only", "templates/defaults.yaml"])?;

        let full = fs::read_to_string(&with_servers.manifest)?;
        let bare = without_servers(&full);
        let refused = cluster.try_apply(&bare).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("name the brokers as spec.kafka.bootstrapServers"), "{refused}");

        cluster.apply(&rendered)?;
        let outcome = it_runs_on_the_defaults(&cluster, with_servers, (&full, &bare));
        // Whatever comes next finds none.
        cluster.ask(&["delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", "forebay-operator-defaults"])?;
        outcome
    })
}

fn it_runs_on_the_defaults(cluster: &Cluster, flights: Flights, (full, bare): (&str, &str)) -> Result<()> {
    until("the API server fills defaults in", PATIENCE, || Ok(cluster.try_apply(bare).is_ok().then_some(())))?;
    let kept = cluster.filled(&replaced(full.to_owned(), &format!("prefix: {}", flights.name), "prefix: of-its-own")?)?;
    let own = &kept["spec"]["state"]["store"]["s3"]["prefix"];
    ensure!(*own == "of-its-own", "the job's own store became one with the prefix {own}");

    cluster.apply(&credentials(&S3::of_environment()?))?;
    cluster.apply(bare)?;
    let job = cluster.wait_for_phase(&flights.name, "Running")?;
    let all = records(10_000)?;
    flights.feed(&all)?;
    until("all is processed", PATIENCE, || Ok((flights.processed()? == all.len() as u64).then_some(())))?;
    let spec = cluster.filled(&replaced(bare.to_owned(), "max: 3000}", "max: 3001}")?)?["spec"].clone();
    ensure!(spec["kafka"] == job["spec"]["kafka"] && spec["state"] == job["spec"]["state"], "a second apply has changed more: {spec:#}");
    cluster.ask(&["delete", "ij", &flights.name, "--cascade=foreground", "--timeout=120s"])?;

    let uid = format!("namespace: default\n  uid: {}\n", uid_of(&job)?);
    fs::write(&flights.manifest, replaced(full.to_owned(), "namespace: default\n", &uid)?)?;
    flights.run_until_end("after")?;
    flights.check(&all, &["after"])
}

/// What the tests' manifests have beside the example's.
fn without_servers(manifest: &str) -> String {
    let is_added = |line: &&str| ["  kafka:", "  state:", "    envFrom:"].iter().any(|field| line.starts_with(field));
    manifest.lines().filter(|line| !is_added(line)).map(|line| format!("{line}\n")).collect()
}

/// Method: promtool runs the rules' unit tests, which must know every alert.
#[test]
fn alerts_fire_when_they_should() -> Result<()> {
    if !there_is_promtool() {
        return Ok(());
    }
    in_folder("alerts", |folder| {
        let object = std::fs::read_to_string(Helm::path("kustomize/components/monitoring/prometheus-rule.yaml"))?;
        let rule = objects(&object)?.pop().context("the file holds the object")?;
        // The object's spec is what Prometheus takes as a file of rules; JSON is YAML.
        std::fs::write(folder.join("rules.yaml"), rule["spec"].to_string())?;
        let tests = std::fs::read_to_string(Helm::path("e2e/tests/kubernetes_install/alerts.test.yaml"))?;
        std::fs::write(folder.join("alerts.test.yaml"), &tests)?;
        for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "alerts.test.yaml"]] {
            let output = Command::new("promtool").args(arguments).current_dir(folder).output().context("call promtool")?;
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success(), "promtool {arguments:?}: {said}");
        }
        for rule in rule["spec"]["groups"][0]["rules"].as_array().context("a group has rules")? {
            let name = rule["alert"].as_str().context("an alert has a name")?;
            let fires = tests.contains(&format!("alertname: {name}\n        exp_alerts:\n          - "));
            ensure!(fires, "no test sees {name} fire");
        }
        Ok(())
    })
}

fn there_is_promtool() -> bool {
    let there = Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        let why = "promtool is not on the path; `e2e/stack/kubernetes/kubernetes tool COMMAND...` puts it there";
        forebay_e2e::not_tested("the alerts", why).ok();
    }
    there
}

/// Method: a namespaced release is installed in a namespace with the restricted standard, over the definitions that `kustomize/base` brought. A job in there is run,
/// and its pipeline changed, by its operator alone, and judged by the oracle. The release is upgraded with the definitions damaged before; and uninstalled, which
/// must leave them.
#[test]
fn a_release_is_installed_upgraded_and_uninstalled() -> Result<()> {
    let Some((cluster, helm)) = Cluster::of_environment().zip(Helm::of_environment()) else { return Ok(()) };
    cluster.install()?;
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}\n"
    ))?;
    let chart = Helm::chart();
    let release = ["forebay", &chart, "--namespace", NAMESPACE, "--set", "namespaced=true", "--wait", "--timeout", "120s"];
    helm.ask(&[&["install"], &release[..], &["--take-ownership"]].concat())?;
    let may = |verb: &str, what: &str, namespace: &str| {
        let account = format!("system:serviceaccount:{NAMESPACE}:forebay-operator");
        let said = cluster.try_ask(&["auth", "can-i", verb, what, "--as", &account, "--namespace", namespace]);
        said.map(|said| said.trim() == "yes")
    };
    ensure!(may("create", "pods", NAMESPACE)?, "it may not make pods where its jobs are");
    ensure!(!may("create", "pods", "default")?, "it may make pods where its jobs are not");
    // The installation for all namespaces would look after the job as well.
    cluster.scale_operator(0)?;
    let outcome = in_folder("kubernetes-namespaced", |folder| a_job_runs_and_changes_in_the_namespace(&cluster, folder));
    cluster.scale_operator(1)?;
    outcome?;

    // A column that is gone stands for a definition of an older version.
    let definition = "crd/ingestionjobs.forebay.dev";
    cluster.ask(&[
        "patch",
        definition,
        "--type=json",
        "-p",
        r#"[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}]"#,
    ])?;
    helm.ask(&[&["upgrade"], &release[..], &["--force-conflicts"]].concat())?;
    let columns = cluster.ask(&["get", definition, "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"])?;
    ensure!(columns.starts_with("Phase "), "the definition was not upgraded: {columns}");

    helm.ask(&["uninstall", "forebay", "--namespace", NAMESPACE, "--wait", "--timeout", "120s"])?;
    cluster.ask(&["get", definition, "-o", "name"])?;
    cluster.ask(&["delete", "namespace", NAMESPACE, "--wait=false"]).map(drop)
}

fn a_job_runs_and_changes_in_the_namespace(cluster: &Cluster, folder: &Path) -> Result<()> {
    let flights = written(folder, 2)?;
    let name = flights.name.clone();
    let here = |text: &str| text.replace("namespace: default", &format!("namespace: {NAMESPACE}"));
    cluster.apply(&here(&credentials(&S3::of_environment()?)))?;
    let manifest = here(&fs::read_to_string(&flights.manifest)?);
    let manifest = replaced(manifest, "\nspec:\n", &format!("\nspec:\n  consumerGroup: forebay.default.{name}\n"))?;
    cluster.apply(&manifest)?;
    let job = || -> Result<Value> { Ok(serde_json::from_str(&cluster.ask(&["-n", NAMESPACE, "get", "ij", &name, "-o", "json"])?)?) };
    let until_in_force = |not: &Value| {
        let waited = until("it runs, and by the revision that is meant", PATIENCE * 2, || {
            let status = job()?["status"].clone();
            Ok((status["phase"] == "Running" && status["revision"] != *not).then(|| status["revision"].clone()))
        });
        waited.with_context(|| format!("it says: {}", job().unwrap_or_default()["status"]))
    };
    let all = records(30_000)?;
    let (first, rest) = all.split_at(all.len() / 2);
    let was = until_in_force(&Value::Null)?;
    flights.feed(first)?;
    until("the first half is processed", PATIENCE, || Ok((flights.processed()? == first.len() as u64).then_some(())))?;
    cluster.apply(&replaced(manifest.clone(), "max: 3000}", "max: 3001}")?)?;
    flights.feed(rest)?;
    until_in_force(&was)?;
    until("all is processed", PATIENCE, || Ok((flights.processed()? == all.len() as u64).then_some(())))?;
    let uid = uid_of(&job()?)?;
    cluster.ask(&["-n", NAMESPACE, "delete", "ij", &name, "--cascade=foreground", "--timeout=120s"])?;
    let with_uid = replaced(manifest, &format!("namespace: {NAMESPACE}\n"), &format!("namespace: {NAMESPACE}\n  uid: {uid}\n"))?;
    fs::write(&flights.manifest, with_uid)?;
    flights.run_until_end("after")?;
    flights.check(&all, &["after"])
}

/// The objects by kind and name, without the labels and annotations that Helm puts on its own.
fn meaning(rendered: &str) -> Result<BTreeMap<String, Value>> {
    let by_helm = ["helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "app.kubernetes.io/version"];
    let mut all = BTreeMap::new();
    for mut object in objects(rendered)? {
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            labels.retain(|name, _| !by_helm.contains(&name.as_str()));
        }
        let metadata = object["metadata"].as_object_mut().context("an object has metadata")?;
        if metadata.get("annotations") == Some(&json!({"helm.sh/resource-policy": "keep"})) {
            metadata.remove("annotations");
        }
        let name = format!("{} {}", object["kind"].as_str().unwrap_or_default(), object["metadata"]["name"].as_str().unwrap_or_default());
        all.insert(name, object);
    }
    Ok(all)
}
