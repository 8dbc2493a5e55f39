//! Promise: a job of a new cluster, which knows nothing of the one before, goes on with the state that lies in the bucket, and not while that one is alive. It
//! needs what `kubernetes.rs` needs.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::{FlightsInCluster, credentials, uid_of};
use forebay_e2e::flights::{records, replaced};
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::Value;

const WORKERS: usize = 2;

/// Method: while a job runs, another one of its name in another namespace is to adopt its state: it must say that the other is alive, and leave it at work. Then
/// the operator goes, and the job is lost with all its pods, without a word of farewell; the operator comes back, and the other job must begin by itself where that
/// one ended. The oracle judges outputs, state and books of both as those of one. A third job that wants the same state is refused.
#[test]
fn a_job_of_another_cluster_goes_on_with_what_lies_in_the_bucket() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-adoption", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, WORKERS)?;
        let name = job.flights.name.clone();
        let all = records(30_000)?;
        let parts: Vec<_> = all.chunks(all.len().div_ceil(3)).collect();
        job.feed(parts[0])?;
        job.until_processed(parts[0])?;

        let heir = Heir::apply(&cluster, &job, &name, "heir")?;
        heir.until_it_says("is alive")?;
        job.feed(parts[1])?;
        job.until_processed(&all[..parts[0].len() + parts[1].len()])?;
        job.until_whole(WORKERS)?;

        cluster.scale_operator(0)?;
        cluster.ask(&["delete", "ingestionjob", &name, "--cascade=orphan", "--timeout=60s"])?;
        cluster.ask(&["delete", "pods", "-l", &format!("forebay.dev/job={name}"), "--grace-period=0", "--force"])?;
        job.feed(parts[2])?;
        cluster.scale_operator(1)?;
        until("the heir has processed the rest", PATIENCE * 3, || Ok((job.flights.processed()? == all.len() as u64).then_some(())))
            .with_context(|| format!("the heir says: {}", heir.get().unwrap_or_default()["status"]))?;
        until("the heir runs", PATIENCE, || Ok((heir.get()?["status"]["phase"] == "Running").then_some(())))?;
        let topics = job.flights.broker.topics()?;
        ensure!(!topics.contains(&format!("forebay.{}.0.journal", job.uid)), "the old journal is there still: {topics:?}");

        let late = Heir::apply(&cluster, &job, &name, "late")?;
        late.until_it_says("was adopted by the job of uid")?;
        cluster.ask(&["delete", "namespace", &late.namespace, "--timeout=120s"])?;
        let uid = uid_of(&heir.get()?)?;
        cluster.ask(&["delete", "namespace", &heir.namespace, "--timeout=120s"])?;
        let line = format!("namespace: {}\n", heir.namespace);
        fs::write(&job.flights.manifest, replaced(heir.manifest, &line, &format!("{line}  uid: {uid}\n"))?)?;
        job.flights.run_until_end("after")?;
        job.flights.check(&all, &["after"])
    })
}

/// A job that is to adopt the state of another one of its name.
struct Heir<'a> {
    cluster: &'a Cluster,
    namespace: String,
    name: String,
    manifest: String,
}

impl<'a> Heir<'a> {
    fn apply(cluster: &'a Cluster, job: &FlightsInCluster<'_>, name: &str, suffix: &str) -> Result<Self> {
        let namespace = format!("{name}-{suffix}");
        cluster.ask(&["create", "namespace", &namespace])?;
        let there = |text: &str| text.replace("namespace: default", &format!("namespace: {namespace}"));
        cluster.apply(&there(&credentials(&S3::of_environment()?)))?;
        let manifest = there(&fs::read_to_string(&job.flights.manifest)?);
        let adopt = format!("  consumerGroup: forebay.default.{name}\n  state: {{adopt: default/{name}/{}, store:", job.uid);
        let manifest = replaced(manifest, "  state: {store:", &adopt)?;
        let manifest = replaced(manifest, &format!("    replicas: {WORKERS}\n"), "    replicas: 1\n")?;
        cluster.apply(&manifest)?;
        Ok(Self { cluster, namespace, name: name.to_owned(), manifest })
    }

    fn get(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.cluster.ask(&["-n", &self.namespace, "get", "ij", &self.name, "-o", "json"])?)?)
    }

    fn until_it_says(&self, why: &str) -> Result<()> {
        let mut last = Value::Null;
        let said = |status: &Value| status["conditions"].to_string().contains(why) && status["phase"] == "Stalled";
        until(&format!("{} says {why:?}", self.namespace), PATIENCE, || {
            last = self.get()?;
            Ok(said(&last["status"]).then(|| println!("{}", last["status"]["conditions"])))
        })
        .with_context(|| format!("it says: {}", last["status"]))
    }
}
