//! Promise: a job goes on with the new credentials when those change that it was given by reference, and wrong or missing ones are named and hurt nobody who
//! runs. It needs what `kubernetes.rs` needs.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::flights::{FlightsInCluster, Pod, savepoint};
use forebay_e2e::cluster::{Cluster, SYSTEM};
use forebay_e2e::flights::{records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::s3::{BUCKET, S3};
use forebay_e2e::stack::Instance;
use serde_json::{Value, json};

const WORKERS: usize = 2;

fn apply_secret(cluster: &Cluster, name: &str, data: &Value) -> Result<()> {
    let metadata = json!({"name": name, "namespace": "default"});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}).to_string())
}

fn store_keys(access_key: &str, secret_key: &str) -> Value {
    json!({"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key})
}

/// Of a user who may do what the bucket's policy lets him.
fn keys_of_another(s3: &S3) -> Result<Value> {
    let bucket = format!("arn:aws:s3:::{BUCKET}");
    let statement = json!({"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": [bucket, format!("{bucket}/*")]});
    s3.set_policy(&json!({"Version": "2012-10-17", "Statement": [statement]}))?;
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    Ok(store_keys(&variable("FOREBAY_TEST_S3_LIMITED_ACCESS_KEY")?, &variable("FOREBAY_TEST_S3_LIMITED_SECRET_KEY")?))
}

/// Gives Kafka's user another password: the one of before is refused from now on.
fn change_password(kafka: &Instance, password: &str) -> Result<()> {
    kafka.kafka_shell(&format!(
        "kafka-configs.sh --bootstrap-server \"$BROKERS\" --alter --add-config 'SCRAM-SHA-512=[password={password}]' --entity-type users --entity-name admin"
    ))
}

/// The manifest with a login at Kafka, and with secrets of its own.
fn with_login(manifest: String, kafka: &Instance, secret: &str, store: &str) -> Result<String> {
    let plain = format!("kafka: {{bootstrapServers: \"{}\"}}", kafka.broker()?.address);
    let login = json!({
        "bootstrapServers": kafka.get("FOREBAY_TEST_KAFKA_SASL_SSL")?,
        "properties": {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "admin", "ssl.ca.location": "/kafka/ca.pem",
        },
        "propertiesFrom": {"sasl.password": {"secretKeyRef": {"name": secret, "key": "password"}}},
    });
    let mount = json!({"spec": {
        "volumes": [{"name": "kafka", "configMap": {"name": secret}}],
        "containers": [{"name": "worker", "volumeMounts": [{"name": "kafka", "mountPath": "/kafka", "readOnly": true}]}],
    }});
    let manifest = replaced(manifest, &plain, &format!("kafka: {login}"))?;
    let store = format!("envFrom: [{{secretRef: {{name: {store}}}}}]\n    podTemplate: {mount}\n");
    replaced(manifest, "envFrom: [{secretRef: {name: object-store}}]\n", &store)
}

/// Waits until all workers are others than these, and runs of both kinds are over; returns them.
fn until_replaced(job: &FlightsInCluster<'_>, before: &[Pod]) -> Result<Vec<Pod>> {
    let mut pods = Vec::new();
    job.until_status("all workers are new ones", |status| {
        pods = job.pods().unwrap_or_default();
        status["phase"] == "Running" && pods.len() == WORKERS && !pods.iter().any(|pod| before.contains(pod))
    })?;
    job.until_whole(WORKERS)?;
    job.pods()
}

/// That these secrets stand in no log of operator and workers, in no event, and in no object but secrets.
fn check_untold(cluster: &Cluster, secrets: &[&str]) -> Result<()> {
    let mut told = vec![
        ("the operator's log", cluster.ask(&["-n", SYSTEM, "logs", "-l", "app.kubernetes.io/component=operator", "--tail=-1"])?),
        ("the events", cluster.ask(&["get", "events", "-A", "-o", "yaml"])?),
        ("the objects", cluster.ask(&["get", "ij,isp,pods,configmaps,services", "-A", "-o", "yaml"])?),
    ];
    let pods = cluster.ask(&["get", "pods", "-l", "forebay.dev/job", "-o", "name"])?;
    for pod in pods.lines() {
        told.push(("a worker's log", cluster.ask(&["logs", pod])?));
    }
    for (place, text) in &told {
        ensure!(!text.is_empty(), "{place} says nothing");
        for secret in secrets {
            ensure!(!text.contains(secret), "{secret} stands in {place}");
        }
    }
    Ok(())
}

/// Method: Kafka's password changes, and the secret with it, while records come in: all workers must be new ones soon. A wrong password in the secret must be
/// named, and so must wrong keys of the object store by a savepoint, which must fail at once; the workers that run go on; the right ones again are taken. Then both secrets are deleted, which must be named too while work goes on, and made
/// again, that of the object store with the keys of another user. The oracle judges all outputs.
#[test]
fn a_job_goes_on_with_credentials_that_change() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-secrets", |folder| {
        cluster.install()?;
        let (kafka, s3) = (Instance::up("kafka-secure", "secrets")?, S3::of_environment()?);
        let (login, store) = (forebay_e2e::unique("login"), forebay_e2e::unique("store"));
        apply_secret(&cluster, &login, &json!({"password": "admin-secret"}))?;
        apply_secret(&cluster, &store, &store_keys(&s3.access_key, &s3.secret_key))?;
        let authority = fs::read_to_string(format!("{}/ca.pem", kafka.get("FOREBAY_TEST_KAFKA_TLS")?))?;
        let metadata = json!({"name": login, "namespace": "default"});
        cluster
            .apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.pem": authority}}).to_string())?;
        let mut plain = String::new();
        let job = FlightsInCluster::start_on(&cluster, folder, WORKERS, kafka.broker()?, &s3, |manifest| {
            plain.clone_from(&manifest);
            with_login(manifest, &kafka, &login, &store)
        })?;
        let all = records(60_000)?;
        let parts: Vec<_> = all.chunks(all.len().div_ceil(4)).collect();
        job.until_whole(WORKERS)?;
        let first = job.pods()?;

        change_password(&kafka, "second-secret")?;
        job.feed(parts[0])?;
        apply_secret(&cluster, &login, &json!({"password": "second-secret"}))?;
        let second = until_replaced(&job, &first)?;
        job.until_processed(parts[0])?;
        let events = job.events()?;
        ensure!(events.contains("SecretChanged") && events.contains(&login), "the events do not tell of it:\n{events}");
        println!("{events}");

        apply_secret(&cluster, &login, &json!({"password": "wrong-secret"}))?;
        apply_secret(&cluster, &store, &store_keys(&s3.access_key, "wrong-secret"))?;
        let refused = job.until_status("the wrong password is named", |status| FlightsInCluster::said(status).0 == "SecretRefused")?;
        println!("{}", FlightsInCluster::said(&refused["status"]).1);
        job.feed(parts[1])?;
        job.until_processed(&parts[..2].concat())?;
        ensure!(second.iter().all(|pod| job.pods().is_ok_and(|pods| pods.contains(pod))), "of {second:?} there are {:?}", job.pods()?);
        // Six tries would take five minutes.
        let failed = savepoint(&cluster, &format!("{}-refused", job.flights.name), &job.flights.name, "3m")?;
        let (reason, message) = FlightsInCluster::said(&failed["status"]);
        ensure!(reason == "CopyFailed" && !message.is_empty(), "the savepoint says {reason}: {message}");
        println!("{message}");
        apply_secret(&cluster, &login, &json!({"password": "second-secret"}))?;
        apply_secret(&cluster, &store, &store_keys(&s3.access_key, &s3.secret_key))?;
        let third = until_replaced(&job, &second)?;
        check_untold(&cluster, &["second-secret", "wrong-secret"])?;

        cluster.ask(&["delete", "secret", &login, &store])?;
        let missing = job.until_status("the missing secrets are named", |status| FlightsInCluster::said(status).0 == "SecretMissing")?;
        let (_, message) = FlightsInCluster::said(&missing["status"]);
        ensure!(message.contains(&login) && message.contains(&store), "the condition names others: {message}");
        println!("{message}");
        job.feed(parts[2])?;
        job.until_processed(&parts[..3].concat())?;
        ensure!(job.pods()? == third, "the pods were {third:?} and are {:?}", job.pods()?);
        apply_secret(&cluster, &store, &keys_of_another(&s3)?)?;
        apply_secret(&cluster, &login, &json!({"password": "second-secret"}))?;
        job.feed(parts[3])?;
        until_replaced(&job, &third)?;
        job.until_processed(&all)?;

        cluster.ask(&["delete", "secret,configmap", "--ignore-not-found", &login, &store])?;
        fs::write(&job.flights.manifest, plain)?;
        job.delete_and_check(&all)
    })
}
