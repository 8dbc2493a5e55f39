//! The flights job in a cluster: applied as a user does it, fed, watched by its status, and judged by the oracle at the end.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::Cluster;
use super::plugin::Plugin;
use crate::flights::{Flights, Ranges, Refused, SHARDS, replaced};
use crate::kafka::{Broker, Feeder, Record};
use crate::s3::{BUCKET, S3};
use crate::{PATIENCE, until};

/// The namespace of all jobs of the tests, as the example has it.
const NAMESPACE_LINE: &str = "\n  namespace: default\n";

/// A flights job that was applied.
pub struct FlightsInCluster<'a> {
    /// Its topics, and `forebay` for it.
    pub flights: Flights,
    /// The uid that the API server gave it.
    pub uid: String,
    cluster: &'a Cluster,
    feeder: Feeder,
}

impl<'a> FlightsInCluster<'a> {
    /// Applies the job, with so many workers, and waits until it runs.
    pub fn start(cluster: &'a Cluster, folder: &Path, workers: usize) -> Result<Self> {
        Self::start_changed(cluster, folder, workers, Ok)
    }

    /// The same with a manifest that is changed before.
    pub fn start_changed(
        cluster: &'a Cluster,
        folder: &Path,
        workers: usize,
        change: impl FnOnce(String) -> Result<String>,
    ) -> Result<Self> {
        Self::start_on(cluster, folder, workers, Broker::of_environment()?, &S3::of_environment()?, change)
    }

    /// The same on these servers.
    pub fn start_on(
        cluster: &'a Cluster,
        folder: &Path,
        workers: usize,
        broker: Broker,
        s3: &S3,
        change: impl FnOnce(String) -> Result<String>,
    ) -> Result<Self> {
        let flights = written_on(folder, workers, broker, s3)?;
        fs::write(&flights.manifest, change(fs::read_to_string(&flights.manifest)?)?)?;
        cluster.apply(&credentials(s3))?;
        cluster.apply_file(&flights.manifest)?;
        let job = cluster.wait_for_phase(&flights.name, "Running")?;
        let feeder = Feeder::new(&flights.broker, &flights.input())?;
        Ok(Self { uid: uid_of(&job)?, flights, cluster, feeder })
    }

    /// Puts records into its input.
    pub fn feed(&self, records: &[Record]) -> Result<()> {
        self.feeder.feed(records)
    }

    /// Puts records in bit by bit while something is done, two thousand a second, and says which went in. `Err` when they ran out before it was done.
    pub fn under_load<'r>(&self, records: &'r [Record], work: impl FnOnce() -> Result<()>) -> Result<&'r [Record]> {
        let over = AtomicBool::new(false);
        let (fed, outcome) = thread::scope(|scope| {
            let feeder = scope.spawn(|| self.flights.feed_slowly(records, &over));
            let outcome = work();
            over.store(true, Ordering::SeqCst);
            (feeder.join(), outcome)
        });
        outcome?;
        let fed = fed.map_err(|_| anyhow!("the feeder panicked"))??;
        ensure!(fed < records.len(), "all {fed} records were in before it was done");
        println!("{fed} records came in meanwhile");
        Ok(&records[..fed])
    }

    /// Waits until so many records are processed and committed.
    pub fn until_processed(&self, records: &[Record]) -> Result<()> {
        let wanted = records.len() as u64;
        let mut seen = 0;
        let waited = until(&format!("{wanted} records are processed"), PATIENCE * 2, || {
            seen = self.flights.processed()?;
            Ok((seen == wanted).then_some(()))
        });
        waited.with_context(|| format!("{seen} are; the status: {}", self.status().unwrap_or_default()))
    }

    /// Waits until its status is so; returns the whole job.
    pub fn until_status(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Result<Value> {
        let waited = until(what, PATIENCE * 2, || {
            let job = self.cluster.get("ingestionjob", &self.flights.name)?;
            Ok(wanted(&job["status"]).then_some(job))
        });
        waited.with_context(|| format!("the last status: {}", self.status().unwrap_or_default()))
    }

    /// Waits until so many workers run all shards, and no pod is left over; returns the job as it said so.
    pub fn until_whole(&self, workers: usize) -> Result<Value> {
        let said = format!("{workers}/{workers}");
        let job = self.until_status(&format!("{workers} workers run all shards"), |status| {
            status["phase"] == "Running" && status["workers"] == said
        })?;
        until(&format!("{workers} pods are left"), PATIENCE, || {
            Ok((self.cluster.pods(&self.flights.name)?.len() == workers).then_some(()))
        })?;
        Ok(job)
    }

    /// Like [`Self::until_whole`], and each worker has its share of the shards: none is moved any more.
    pub fn until_balanced(&self, workers: usize) -> Result<Value> {
        let plugin = Plugin::of_environment()?;
        let share = SHARDS as usize / workers;
        until("each worker has its share of the shards", PATIENCE, || {
            let assignments: Vec<Value> = serde_json::from_str(&plugin.ask(&["-o", "json", "assignments", &self.flights.name])?)?;
            let has_share = |one: &Value| one["shards"].as_array().is_some_and(|shards| shards.len() == share);
            Ok((assignments.len() == workers && assignments.iter().all(has_share)).then_some(()))
        })?;
        self.until_whole(workers)
    }

    /// Its pods that are not on their way out, by name.
    pub fn pods(&self) -> Result<Vec<Pod>> {
        self.cluster.pods(&self.flights.name)?.iter().map(Pod::of).collect()
    }

    /// Changes its spec by a merge patch.
    pub fn patch(&self, spec: &str) -> Result<()> {
        let patch = format!("{{\"spec\": {spec}}}");
        self.cluster.ask(&["patch", "ingestionjob", &self.flights.name, "--type=merge", "-p", &patch]).map(drop)
    }

    /// Deletes its status, as a restore of the cluster would lose it.
    pub fn delete_status(&self) -> Result<()> {
        let arguments = ["patch", "ij", &self.flights.name, "--subresource=status", "--type=merge", "-p", r#"{"status": null}"#];
        self.cluster.ask(&arguments).map(drop)
    }

    /// The reasons of the events that tell its story.
    pub fn events(&self) -> Result<String> {
        let selector = format!("involvedObject.name={}", self.flights.name);
        self.cluster.ask(&["get", "events", "--field-selector", &selector, "-o", "custom-columns=R:.reason,M:.message", "--no-headers"])
    }

    /// The reason and the message of the condition of its status that holds.
    pub fn said(status: &Value) -> (String, String) {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let holds = conditions.find(|condition| condition["status"] == "True").cloned().unwrap_or_default();
        let text = |field: &str| holds[field].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }

    /// Deletes the job and waits until its pods are gone too.
    pub fn delete(&self) -> Result<()> {
        self.cluster.ask(&["delete", "ingestionjob", &self.flights.name, "--cascade=foreground", "--timeout=120s"])?;
        until("the pods are gone", PATIENCE, || Ok(self.cluster.all_pods(&self.flights.name)?.is_empty().then_some(())))
    }

    /// Deletes it. What it left in Kafka and on S3 is brought up by `forebay run` on an empty disk, for the oracle to judge with the outputs.
    pub fn delete_and_check(self, all: &[Record]) -> Result<()> {
        self.delete_and_check_but(all, &Ranges::new())
    }

    /// The same without some of the outputs.
    pub fn delete_and_check_but(self, all: &[Record], undone: &Ranges) -> Result<()> {
        self.delete_and_bring_up()?;
        self.flights.check_but(all, &["after"], undone)
    }

    /// The same for a job that has put back what a revision refused.
    pub fn delete_and_check_put_back(self, letters: &[Refused]) -> Result<()> {
        self.delete_and_bring_up()?;
        self.flights.check_put_back(letters, &["after"])
    }

    fn delete_and_bring_up(&self) -> Result<()> {
        self.delete()?;
        let manifest = fs::read_to_string(&self.flights.manifest)?;
        let with_uid = replaced(manifest, NAMESPACE_LINE, &format!("{NAMESPACE_LINE}  uid: {}\n", self.uid))?;
        fs::write(&self.flights.manifest, with_uid)?;
        self.flights.run_until_end("after")
    }

    fn status(&self) -> Result<String> {
        Ok(self.cluster.get("ingestionjob", &self.flights.name)?["status"].to_string())
    }
}

/// A worker's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name; another pod may bear it later.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The node that it is on; empty before it has one.
    pub node: String,
}

impl Pod {
    fn of(object: &Value) -> Result<Self> {
        let name = object["metadata"]["name"].as_str().context("a pod has a name")?.to_owned();
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        Ok(Self { name, uid: uid_of(object)?, node })
    }
}

/// Applies a savepoint of a job and waits until it is over.
pub fn savepoint(cluster: &Cluster, name: &str, job: &str, deadline: &str) -> Result<Value> {
    cluster.apply(&format!(
        "apiVersion: forebay.dev/v1alpha1\nkind: IngestionSavepoint\nmetadata: {{name: {name}, namespace: default}}\nspec: {{job: {job}, deadline: {deadline}}}\n"
    ))?;
    let mut last = Value::Null;
    let waited = until(&format!("savepoint {name} is over"), PATIENCE, || {
        last = cluster.get("isp", name)?;
        Ok(matches!(last["status"]["phase"].as_str(), Some("Completed" | "Failed")).then(|| last.clone()))
    });
    waited.with_context(|| format!("its last status: {}", last["status"]))
}

/// The uid of an object.
pub fn uid_of(object: &Value) -> Result<String> {
    Ok(object["metadata"]["uid"].as_str().context("the API server gives a uid")?.to_owned())
}

/// The job's topics and its manifest for a cluster, which is not applied yet.
pub fn written(folder: &Path, workers: usize) -> Result<Flights> {
    written_on(folder, workers, Broker::of_environment()?, &S3::of_environment()?)
}

fn written_on(folder: &Path, workers: usize, broker: Broker, s3: &S3) -> Result<Flights> {
    let address = broker.address.clone();
    Flights::new(folder, broker, s3, |manifest| for_cluster(manifest, &address, s3, workers))
}

/// What `forebay run` is told on its command line stands in the manifest of a job in a cluster.
fn for_cluster(manifest: String, brokers: &str, s3: &S3, workers: usize) -> Result<String> {
    let name = manifest.lines().find_map(|line| line.strip_prefix("  name: ")).context("the manifest names the job")?;
    let added = format!(
        "spec:\n  upgrade: {{observe: 5s, deadline: 3m}}\n  kafka: {{bootstrapServers: \"{brokers}\"}}\n  state: {{store: {{s3: {{bucket: {BUCKET}, prefix: {name}, endpoint: \"{}\", \
         region: us-east-1, pathStyle: true}}}}}}\n  workers:\n    replicas: {workers}\n    envFrom: [{{secretRef: {{name: object-store}}}}]\n    \
         resources: {{requests: {{cpu: 100m, memory: 256Mi}}, limits: {{memory: 1Gi}}}}\n",
        s3.url
    );
    ensure!(manifest.contains(&format!("  shards: {SHARDS}\n")), "the example has another number of shards");
    // Soon enough for what a test loses to be restored from the bucket.
    let manifest = replaced(manifest, "    interval: 30s\n", "    interval: 1s\n")?;
    replaced(manifest, "spec:\n", &added)
}

/// The secret that the workers' environment comes from.
pub fn credentials(s3: &S3) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: object-store, namespace: default}}\nstringData:\n  AWS_ACCESS_KEY_ID: {}\n  \
         AWS_SECRET_ACCESS_KEY: {}\n",
        s3.access_key, s3.secret_key
    )
}
