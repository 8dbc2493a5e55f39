//! Promise: a job that is applied to a cluster gets its workers, runs, and survives the loss of a pod; and what cannot work says so. It needs
//! a cluster with the image of `kustomize/base`, and a Kafka and an S3 that its pods reach: `make e2e-kubernetes` provides them.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::flights::{Flights, SHARDS, records, replaced};
use forebay_e2e::kafka::{Broker, Feeder, Record};
use forebay_e2e::s3::{BUCKET, S3};
use forebay_e2e::{PATIENCE, in_folder, until};

const WORKERS: usize = 2;

/// Method: the operator is installed, the flights job applied with two workers. Half of the records go in; then one worker's pod is deleted
/// without grace while the others go in. All must be processed, by pods of which one is new. The job is deleted, and what it left in Kafka and
/// on S3 is brought up by `forebay run` on an empty disk, for the oracle to judge with the outputs.
#[test]
fn the_flights_job_runs_in_pods_and_survives_the_loss_of_one() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes", |folder| {
        cluster.install()?;
        let s3 = S3::of_environment()?;
        let broker = Broker::of_environment()?;
        let address = broker.address.clone();
        let flights = Flights::new(folder, broker, &s3, |manifest| on_cluster(manifest, &address, &s3))?;
        cluster.apply(&credentials(&s3))?;
        cluster.apply_file(&flights.manifest)?;
        let job = cluster.wait_for_phase(&flights.name, "Running")?;
        let uid = job["metadata"]["uid"].as_str().context("the API server gives a uid")?.to_owned();

        let all = records(60_000)?;
        let feeder = Feeder::new(&flights.broker, &flights.input())?;
        let (first, rest) = all.split_at(all.len() / 2);
        feeder.feed(first)?;
        until_processed(&flights, first)?;
        ensure!(cluster.pods(&flights.name)?.len() == WORKERS, "{:?}", cluster.pods(&flights.name)?);

        let victim = cluster.pods(&flights.name)?.remove(0);
        let victim = victim["metadata"]["name"].as_str().context("a pod has a name")?;
        let (early, late) = rest.split_at(rest.len() / 2);
        feeder.feed(early)?;
        cluster.ask(&["delete", "pod", victim, "--grace-period=0", "--force", "--wait=false"])?;
        feeder.feed(late)?;
        until_processed(&flights, &all)?;
        let job = until("two workers run all shards again", PATIENCE, || {
            let job = cluster.get("ingestionjob", &flights.name)?;
            Ok((job["status"]["phase"] == "Running" && job["status"]["workers"] == "2/2").then_some(job))
        })?;
        let ready = job["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready");
        ensure!(ready.is_some_and(|ready| ready["status"] == "True"), "{job:#}");
        let events = cluster.ask(&["get", "events", "--field-selector", &format!("involvedObject.name={}", flights.name)])?;
        ensure!(events.contains("ShardsAssigned") && events.contains("Running"), "the events do not tell the story:\n{events}");

        cluster.ask(&["delete", "ingestionjob", &flights.name, "--cascade=foreground", "--timeout=120s"])?;
        until("the pods are gone", PATIENCE, || Ok(cluster.pods(&flights.name)?.is_empty().then_some(())))?;
        let manifest = fs::read_to_string(&flights.manifest)?;
        let with_uid = replaced(manifest, "\n  namespace: default\n", &format!("\n  namespace: default\n  uid: {uid}\n"))?;
        fs::write(&flights.manifest, with_uid)?;
        flights.run_until_end("after")?;
        flights.check(&all, &["after"])
    })
}

/// Method: a job whose topics do not exist, and one that the API server itself must refuse.
#[test]
fn a_job_that_cannot_work_says_why() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-bad", |folder| {
        cluster.install()?;
        let s3 = S3::of_environment()?;
        let broker = Broker::of_environment()?;
        let address = broker.address.clone();
        let flights = Flights::new(folder, broker, &s3, |manifest| on_cluster(manifest, &address, &s3))?;
        let manifest = fs::read_to_string(&flights.manifest)?;
        let input = format!("topic: {}\n", flights.name);

        let same = manifest.replace(&format!("topic: {}.dead\n", flights.name), &input);
        let refused = cluster.apply(&same).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("write dead letters to a topic of their own"), "the API server says: {refused}");

        cluster.apply(&credentials(&s3))?;
        cluster.apply(&replaced(manifest, &input, &format!("topic: {}.missing\n", flights.name))?)?;
        let job = cluster.wait_for_phase(&flights.name, "Stalled")?;
        let said = job["status"]["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Stalled");
        let message = said.and_then(|condition| condition["message"].as_str()).unwrap_or_default();
        ensure!(message.contains(&format!("{}.missing", flights.name)), "the condition does not name the topic: {message}");
        cluster.ask(&["delete", "ingestionjob", &flights.name, "--cascade=foreground", "--timeout=120s"])?;
        Ok(())
    })
}

fn until_processed(flights: &Flights, records: &[Record]) -> Result<()> {
    let wanted = records.len() as u64;
    let mut seen = 0;
    let waited = until(&format!("{wanted} records are processed"), PATIENCE * 2, || {
        seen = flights.processed()?;
        Ok((seen == wanted).then_some(()))
    });
    waited.with_context(|| format!("{seen} are"))
}

/// What `forebay run` is told on its command line stands in the manifest of a job in a cluster.
fn on_cluster(manifest: String, brokers: &str, s3: &S3) -> Result<String> {
    let name = manifest.lines().find_map(|line| line.strip_prefix("  name: ")).context("the manifest names the job")?;
    let added = format!(
        "spec:\n  kafka: {{bootstrapServers: \"{brokers}\"}}\n  state: {{store: {{s3: {{bucket: {BUCKET}, prefix: {name}, endpoint: \"{}\", \
         region: us-east-1, pathStyle: true}}}}}}\n  workers:\n    replicas: {WORKERS}\n    envFrom: [{{secretRef: {{name: object-store}}}}]\n    \
         resources: {{requests: {{cpu: 100m, memory: 256Mi}}, limits: {{memory: 1Gi}}}}\n",
        s3.url
    );
    ensure!(manifest.contains(&format!("  shards: {SHARDS}\n")), "the example has another number of shards");
    replaced(manifest, "spec:\n", &added)
}

fn credentials(s3: &S3) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: object-store, namespace: default}}\nstringData:\n  AWS_ACCESS_KEY_ID: {}\n  \
         AWS_SECRET_ACCESS_KEY: {}\n",
        s3.access_key, s3.secret_key
    )
}
