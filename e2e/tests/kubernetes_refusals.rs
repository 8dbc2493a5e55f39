//! Promise: a manifest that cannot work is refused when it is applied, with the field and what to write; what only the running system can know is said in a
//! condition, and the job starts by itself once it is repaired. It needs what `kubernetes.rs` needs; the first two tests need the API server alone.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::{FlightsInCluster, credentials, written};
use forebay_e2e::flights::{PARTITIONS, records, replaced};
use forebay_e2e::s3::{BUCKET, S3};
use forebay_e2e::{PATIENCE, in_folder, unique, until};
use serde_json::{Value, json};

#[path = "../../crds/tests/bad_manifests/mistakes.rs"]
mod mistakes;

use mistakes::{GOOD, MISTAKES};

const KAFKA: &str = "  kafka: {bootstrapServers: \"kafka:9092\"}\n";
const STORE: &str = "store: {s3: {bucket: a-bucket}}";

const ENDS: &str = "with a letter or digit at both ends";
const TEXT: &str = "must be of type string";
const SPAN: &str = "write a whole number and a unit (ms, s, m, h, d)";

/// What kubectl does not even send, or cannot place, and words that it must say.
const REFUSED_BY_KUBECTL: &[(&str, &[&str])] = &[
    ("nothing at all", &["no objects"]),
    ("a comment only", &["no objects"]),
    ("not a manifest", &["invalid object to validate"]),
    ("not YAML", &["yaml", "line"]),
    ("a tab", &["yaml", "line"]),
    ("a second job", &["kind not set"]),
    ("another kind", &["no matches for kind", "Deployment"]),
    ("another version", &["no matches for kind", "forebay.dev/v1"]),
    ("no kind", &["kind not set"]),
    ("no name", &["resource name may not be empty"]),
    ("no namespace", &["a.b"]),
];

/// The mistakes that the API server refuses, and words that it must say: the field, and the way out where it has one.
const REFUSED_BY_API_SERVER: &[(&str, &[&str])] = &[
    ("a rewind to nothing", &["spec.state.rewind", "name either toSavepoint or toTime"]),
    ("a rewind to two states", &["spec.state.rewind", "name either toSavepoint or toTime"]),
    ("a rewind to no time", &["spec.state.rewind.toTime", "date-time"]),
    (
        "a rewind out of its limits",
        &[
            "rewind.id",
            ENDS,
            "rewind.toSavepoint",
            "NAMESPACE/JOB/NAME",
            "rewind.deadline",
            "write 10s to 1d",
            "rewind.retries",
            "less than or equal to 10",
        ],
    ),
    ("a state to adopt that is none", &["spec.state.adopt", "NAMESPACE/JOB/UID"]),
    ("two states to begin with", &["write spec.state.adopt or spec.state.fromSavepoint"]),
    ("unknown field at the top", &["unknown field \"specs\""]),
    ("no spec", &["spec", "Required"]),
    ("unknown field of metadata", &["unknown field \"metadata.namspace\""]),
    ("no name for a job", &["metadata.name", "lower case alphanumeric"]),
    ("unknown field", &["unknown field \"spec.inputs[0].start_from\""]),
    ("unknown field that resembles nothing", &["unknown field \"spec.parallelism\""]),
    ("unknown field for a missing one", &["spec.inputs[0].topic"]),
    ("missing topic", &["spec.inputs[0].topic", "Required"]),
    ("text for a number", &["spec.shards", "integer"]),
    ("a ttl without a unit", &["spec.state.tables.aircraft.ttl", TEXT]),
    ("a ttl that is too short", &["ttl", "write 1s to 3650d"]),
    ("a number for text", &["spec.inputs[0].topic", TEXT]),
    ("a switch for text", &["spec.inputs[0].topic", TEXT]),
    ("kubectl's yes", &["spec.inputs[0].topic", TEXT]),
    ("an octal number", &["spec.inputs[0].topic", TEXT]),
    ("a fraction for a whole number", &["spec.shards", "integer"]),
    ("a negative number", &["spec.shards", "greater than or equal to 1"]),
    ("a number too large for its type", &["spec.shards", "less than or equal to 1024"]),
    ("nothing for a block", &["spec.deadLetter"]),
    ("text for a block", &["spec.deadLetter", "object"]),
    ("a block for a list", &["unknown field \"spec.inputs.name\""]),
    ("no dead letters", &["spec.deadLetter", "Required"]),
    ("no shards", &["spec.shards", "greater than or equal to 1"]),
    ("too many shards", &["spec.shards", "less than or equal to 1024"]),
    ("a duration without unit", &["spec.checkpoint.interval", TEXT]),
    ("a duration with a strange unit", &["spec.checkpoint.interval", SPAN]),
    ("no duration", &["spec.commit.interval", SPAN]),
    ("an interval too short", &["spec.commit.interval", "write 10ms to 10s"]),
    ("an interval too long", &["spec.commit.interval", "write 10ms to 10s"]),
    ("a size with a strange unit", &["spec.commit.bytesMax", "write a whole number and a unit (Ki, Mi, Gi, Ti)"]),
    ("retained 1", &["spec.checkpoint.retained", "greater than or equal to 2"]),
    ("start from nowhere", &["spec.inputs[0].startFrom", "write earliest, latest, group, or a time such as"]),
    ("start from no group", &["startFrom: group", "name the group to take over as spec.consumerGroup"]),
    ("unknown partitioner", &["spec.inputs[0].partitioner", "murmur2"]),
    ("duplicate input", &["spec.inputs[1]", "Duplicate"]),
    ("no inputs", &["spec.inputs", "at least 1"]),
    ("no name for an input", &["spec.inputs[0].name", ENDS]),
    ("no name for a topic", &["spec.inputs[0].topic", "249 letters, digits"]),
    ("dead letters into the input", &["spec.deadLetter.topic", "write dead letters to a topic of their own"]),
    ("an output that is an input", &["spec.pipeline", "this loop would never end; write to another topic"]),
    ("an output that is the dead letters'", &["spec.pipeline", "write to another topic, so that `forebay dlq`"]),
    ("unknown step", &["unknown field \"spec.pipeline[1].dedupe\""]),
    ("a step alone", &["spec.pipeline[3]", "object"]),
    ("a step without content", &["spec.pipeline[3]", "one and only one schema"]),
    ("two keys in one step", &["spec.pipeline[1]", "start each with a dash of its own"]),
    ("text for a step", &["spec.pipeline[1]", "object"]),
    ("unknown field of a step", &["unknown field \"spec.pipeline[1].dedup.lst\""]),
    ("a step's limit", &["spec.pipeline[1].dedup.last", "greater than or equal to 1"]),
    ("csv without its columns", &["spec.pipeline[0].parse", "add `csv: {columns: [{name: id}]}`"]),
    ("a dedup that is not told how much to remember", &["spec.pipeline[1].dedup", "write either `last: 64` or `within: 10m`"]),
    ("an upsert that changes nothing", &["spec.pipeline[2].upsert", "add for example `set: {name: .name}`"]),
    ("a route that is always and never", &["spec.pipeline[3].route[0]", "a route has either `when` or `otherwise: true`"]),
    ("no name for a table", &["spec.pipeline[2].upsert.table", "use letters, digits, `_` and `-`"]),
    ("no name for an output", &["spec.pipeline[3].emit.topic", "249 letters, digits"]),
    ("no steps", &["spec.pipeline", "at least 1"]),
    ("no parse", &["spec.pipeline", "start with `- parse: {format: json}`"]),
    ("steps that put nothing out", &["spec.pipeline", "add an `emit` or `upsert` step"]),
    ("two faulty steps", &["unknown field \"spec.pipeline[0].parse.csvv\""]),
    ("a list for a step", &["unknown field \"spec.pipeline[0][0].parse\""]),
    ("a list for text", &["spec.pipeline[0].parse.format", TEXT]),
    ("unknown choice", &["spec.pipeline[0].parse.format", "\"json\", \"csv\""]),
    ("no store", &["unknown field \"spec.state.store.gcs\""]),
    ("two stores", &["spec.state.store", "name one store"]),
    (
        "a store with faults",
        &[
            "spec.state.memory",
            "write 16Mi to 1Ti",
            "s3.bucket",
            "s3.prefix",
            "without / at its ends",
            "s3.endpoint",
            "start with https:// or http://",
        ],
    ),
    (
        "a cluster with faults",
        &[
            "spec.kafka.bootstrapServers",
            "write brokers as host:port",
            "a password or key lies open in `properties`; move it to `propertiesFrom`",
            "Forebay sets some of these properties itself",
            "stands under `properties` and under `propertiesFrom`; delete one of them",
            "env",
        ],
    ),
    ("a secret in two places", &["spec.kafka.propertiesFrom", "say once where the value is found"]),
    ("faults in what is added to pods", &["unknown field \"spec.workers.podTemplate.metadata.name\""]),
    ("many faults at once", &["unknown field \"spec.consumergroup\"", "unknown field \"spec.checkpoint_\""]),
];

/// What the API server takes, since no rule of its own can tell, and why. But for what it does not hear of either, the operator refuses it: the condition
/// `Stalled` has the reason `InvalidSpec` and the words that `forebay validate` has, which the tests of `crds` compare.
const LEFT_TO_THE_OPERATOR: &[(&str, &str)] = &[
    ("a key twice", "kubectl sends the second one alone, and only `forebay validate` sees both"),
    ("a ttl for a table that no step uses", "tables are named in every kind of step"),
    ("a ttl beside within", "tables are named in every kind of step"),
    ("a pause longer than the interval", "CEL knows of no days, and of no defaults that may change"),
    ("an output that Kafka keeps for itself", "the rules of topics are those of all names that Kafka takes"),
    ("faults in what is added to pods that Kubernetes knows of", "the schema of pods is larger than all the rest"),
];

/// What only a job in a cluster needs, as text of a good manifest, its replacement, and words that the API server must say.
const REFUSED_IN_A_CLUSTER: &[(&str, &str, &[&str])] = &[
    (KAFKA, "", &["name the brokers as spec.kafka.bootstrapServers"]),
    (STORE, "memory: 64Mi", &["name a bucket as spec.state.store.s3"]),
    (STORE, "store: {folder: {path: /tmp}}", &["name a bucket as spec.state.store.s3"]),
];

/// A manifest with what a job in a cluster needs besides.
fn in_cluster(manifest: &str) -> String {
    let mut added = String::from("\nspec:\n");
    if !manifest.contains("\n  kafka:") {
        added += KAFKA;
    }
    let has_state = manifest.contains("\n  state:");
    if !has_state {
        added += &format!("  state: {{{STORE}}}\n");
    }
    let manifest = manifest.replacen("\nspec:\n", &added, 1);
    if !has_state || manifest.contains("store:") {
        manifest
    } else {
        manifest.replacen("\n  state: {", &format!("\n  state: {{{STORE}, "), 1)
    }
}

/// What the API server says about a manifest, without keeping it; `None`: it takes it.
fn complaint(cluster: &Cluster, manifest: &str) -> Option<String> {
    cluster.try_apply(manifest).err().map(|error| format!("{error:#}"))
}

/// Method: each mistake that the tests of `crds` know is made in a manifest and handed to the API server, which keeps nothing. All that is not as expected is told at once.
#[test]
fn every_bad_manifest_is_refused_with_the_field_and_the_way_out() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    cluster.install()?;
    let mut surprises = Vec::new();
    let good = in_cluster(GOOD);
    surprises.extend(complaint(&cluster, &good).map(|said| format!("the good manifest is refused: {said}")));

    let refused = [REFUSED_BY_KUBECTL, REFUSED_BY_API_SERVER].concat();
    let known: BTreeSet<&str> =
        refused.iter().map(|(mistake, _)| *mistake).chain(LEFT_TO_THE_OPERATOR.iter().map(|(mistake, _)| *mistake)).collect();
    ensure!(known.len() == refused.len() + LEFT_TO_THE_OPERATOR.len(), "a mistake is listed twice");
    ensure!(known == MISTAKES.iter().map(|(mistake, ..)| *mistake).collect::<BTreeSet<_>>(), "the lists are not those of all mistakes");

    for (mistake, from, to) in MISTAKES {
        let said = complaint(&cluster, &in_cluster(&GOOD.replace(from, to)));
        let expected = refused.iter().find(|(known, _)| known == mistake).map(|(_, words)| *words);
        surprises.extend(surprise(mistake, expected, said));
    }
    for (from, to, words) in REFUSED_IN_A_CLUSTER {
        surprises.extend(surprise(to, Some(*words), complaint(&cluster, &replaced(good.clone(), from, to)?)));
    }
    ensure!(surprises.is_empty(), "\n{}", surprises.join("\n"));
    Ok(())
}

/// `None` if it was said as expected.
fn surprise(mistake: &str, expected: Option<&[&str]>, said: Option<String>) -> Option<String> {
    match (expected, said) {
        (Some(words), Some(said)) => {
            println!("{mistake}: {said}");
            let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
            (!missing.is_empty()).then(|| format!("{mistake}: {missing:?} is not in: {said}"))
        }
        (Some(_), None) => Some(format!("{mistake}: is taken")),
        (None, Some(said)) => Some(format!("{mistake}: is refused, and was thought to be left to the operator: {said}")),
        (None, None) => None,
    }
}

/// Method: a job that rests, whose status then says that it has state. Before, it may become another job altogether; after that, what its state is bound up with
/// is refused with the way out, and everything else is taken.
#[test]
fn what_the_state_is_bound_up_with_cannot_change() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    cluster.install()?;
    let name = unique("frozen");
    let good = in_cluster(&GOOD.replace("metadata:\n  name: flights\n", &format!("metadata:\n  name: {name}\n  namespace: default\n")));
    let good = good.replace("\nspec:\n", "\nspec:\n  suspend: true\n");
    let shards = replaced(good.clone(), "  shards: 4\n", "  shards: 8\n")?;
    let topic = replaced(good.clone(), "      topic: flights\n", "      topic: flights2\n")?;
    let input = replaced(good.clone(), "    - name: flights\n", "    - name: planes\n")?;
    let another = replaced(good.clone(), "  shards: 4\n", "    - {name: more, topic: more}\n  shards: 4\n")?;
    let step = replaced(good.clone(), "topic: enriched", "topic: enriched2")?;
    cluster.apply(&good)?;
    for change in [&shards, &topic, &input, &another, &step] {
        let said = complaint(&cluster, change);
        ensure!(said.is_none(), "a job without state may change: {said:?}");
    }
    cluster.ask(&["patch", "ij", &name, "--subresource=status", "--type=merge", "-p", r#"{"status": {"hasState": true, "shards": 4}}"#])?;
    for (change, words) in [
        (&shards, ["spec.shards is frozen", "make a job of another name with the new number"]),
        (&topic, ["spec.inputs are frozen", "set them back, or make a job of another name"]),
        (&input, ["spec.inputs are frozen", "set them back, or make a job of another name"]),
        (&another, ["spec.inputs are frozen", "set them back, or make a job of another name"]),
    ] {
        let said = complaint(&cluster, change).context("a change that cannot be made was taken")?;
        ensure!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let unsaid = replaced(good.clone(), "  shards: 4\n", "")?;
    for change in [&step, &unsaid, &good] {
        let said = complaint(&cluster, change);
        ensure!(said.is_none(), "a pipeline may change, and the number of shards may be left out: {said:?}");
    }
    cluster.ask(&["delete", "ij", &name]).map(drop)
}

/// Method: the aircraft are to lie under another key, while records come in. The condition says so, with both keys and the way out, and the job goes on with the
/// pods that it has. Set back beside another change, it goes into force by itself, and the oracle judges all outputs.
#[test]
fn another_key_of_a_table_is_refused_and_the_job_goes_on_by_the_revision_before() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-key", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let records = records(336_776)?;
        let good = fs::read_to_string(&job.flights.manifest)?;
        let table = "        table: aircraft\n        set:";
        let other_key = replaced(good.clone(), table, "        table: aircraft\n        key: .dest\n        set:")?;
        let (whole, pods) = (job.until_whole(1)?, job.pods()?);
        let was = whole["status"]["revision"].clone();
        let all = job.under_load(&records, || {
            until("it is at work", PATIENCE, || Ok((job.flights.processed()? > 5000).then_some(())))?;
            cluster.apply(&other_key)?;
            let refused = job.until_status("the key is refused", |status| FlightsInCluster::said(status).0 == "ChangeRefused")?;
            let (_, message) = FlightsInCluster::said(&refused["status"]);
            println!("{message}");
            let words = ["spec.pipeline[3].upsert.key", "the record's key", "`.dest`", "\"aircraft\"", "set it back, or give it a table"];
            ensure!(words.iter().all(|word| message.contains(word)), "{message}");
            ensure!(refused["status"]["phase"] == "Stalled" && refused["status"]["revision"] == was, "{}", refused["status"]);
            let so_far = job.flights.processed()?;
            until("the job goes on", PATIENCE, || Ok((job.flights.processed()? > so_far + 5000).then_some(())))?;
            ensure!(job.pods()? == pods, "the pods were {pods:?} and are {:?}", job.pods()?);
            cluster.apply(&replaced(good.clone(), "max: 3000}", "max: 3001}")?)?;
            let is_in_force = |status: &Value| status["phase"] == "Running" && status["revision"] != was;
            job.until_status("the repaired change is in force", is_in_force).map(drop)
        })?;
        job.until_processed(all)?;
        ensure!(!job.events()?.contains("RevisionTakenBack"), "the key was tried:\n{}", job.events()?);
        job.until_whole(1)?;
        job.delete_and_check(all)
    })
}

/// A job that cannot work as it is applied.
struct Broken<'a> {
    /// What of the good manifest is replaced, where `NAME` is the job's name, and by what.
    change: (&'a str, String),
    /// The reasons that the condition may have.
    reasons: &'a [&'a str],
    /// What its message must say: what is in the way, and the way out.
    words: Vec<String>,
}

impl Broken<'_> {
    /// Applies the job, waits until its condition says why it does not work, repairs it, and waits until it works.
    fn check(&self, cluster: &Cluster, repair: impl FnOnce(&str, &str) -> Result<()>) -> Result<()> {
        in_folder("kubernetes-refusals", |folder| {
            let flights = written(folder, 1)?;
            let good = fs::read_to_string(&flights.manifest)?;
            let (from, to) = &self.change;
            cluster.apply(&replaced(good.clone(), &from.replace("NAME", &flights.name), to)?)?;
            let applied = Instant::now();
            let (mut reason, mut message) = (String::new(), String::new());
            let told = until("the condition says why", PATIENCE, || {
                let job = cluster.get("ingestionjob", &flights.name)?;
                (reason, message) = FlightsInCluster::said(&job["status"]);
                let says = |word: &String| message.contains(word.as_str());
                let is_told = job["status"]["phase"] == "Stalled" && self.reasons.contains(&reason.as_str()) && self.words.iter().all(says);
                Ok(is_told.then_some(()))
            });
            told.with_context(|| format!("{:?} is expected with {:?}; it says {reason}: {message}", self.reasons, self.words))?;
            println!("after {} s {reason}: {message}", applied.elapsed().as_secs());
            repair(&flights.name, &good)?;
            let repaired = Instant::now();
            cluster.wait_for_phase(&flights.name, "Running")?;
            println!("it runs {} s after it was repaired", repaired.elapsed().as_secs());
            cluster.ask(&["delete", "ingestionjob", &flights.name, "--cascade=foreground", "--timeout=120s"])?;
            until("the pods are gone", PATIENCE, || Ok(cluster.all_pods(&flights.name)?.is_empty().then_some(())))
        })
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Method: VRL with a function that there is none of, then a topic that is missing. The one is repaired in the manifest, the other in Kafka.
#[test]
fn what_a_worker_finds_out_is_told_and_the_job_starts_once_it_is_repaired() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    cluster.install()?;
    cluster.apply(&credentials(&S3::of_environment()?))?;
    let broken = Broken {
        change: (".dep_delay > 60", "no_such_function(.dep_delay)".to_owned()),
        reasons: &["Error"],
        words: words(&["spec.pipeline[6].route[0].when", "no_such_function"]),
    };
    broken.check(&cluster, |_, good| cluster.apply(good))?;
    let missing = unique("missing");
    let broken = Broken {
        change: ("topic: NAME.enriched\n", format!("topic: {missing}\n")),
        reasons: &["Error"],
        words: words(&[&missing, "spec.pipeline[5].emit.topic", "create"]),
    };
    let broker = forebay_e2e::kafka::Broker::of_environment()?;
    broken.check(&cluster, |_, _| broker.create_topic(&missing, PARTITIONS))
}

/// Method: a bucket that is not there, then one on which a user of the server may do nothing. The one is repaired in the manifest, the other by the bucket's policy.
#[test]
fn a_bucket_that_cannot_be_used_is_told_and_the_job_starts_once_it_can() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    cluster.install()?;
    let s3 = S3::of_environment()?;
    cluster.apply(&credentials(&s3))?;
    let bucket = format!("bucket: {BUCKET},");
    let missing = unique("missing");
    let broken =
        Broken { change: (&bucket, format!("bucket: {missing},")), reasons: &["Error"], words: words(&[&missing, "create the bucket"]) };
    broken.check(&cluster, |_, good| cluster.apply(good))?;

    let resources = [format!("arn:aws:s3:::{BUCKET}"), format!("arn:aws:s3:::{BUCKET}/*")];
    let allow = |action: &str| {
        s3.set_policy(&json!({
            "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resources}],
        }))
    };
    allow("s3:GetBucketLocation")?;
    let keys = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "object-store-of-another", "namespace": "default"},
        "stringData": {
            "AWS_ACCESS_KEY_ID": keys("FOREBAY_TEST_S3_LIMITED_ACCESS_KEY")?,
            "AWS_SECRET_ACCESS_KEY": keys("FOREBAY_TEST_S3_LIMITED_SECRET_KEY")?,
        },
    });
    cluster.apply(&secret.to_string())?;
    let broken = Broken {
        change: ("secretRef: {name: object-store}", "secretRef: {name: object-store-of-another}".to_owned()),
        reasons: &["Error"],
        words: words(&[BUCKET, "grant these credentials s3:"]),
    };
    broken.check(&cluster, |_, _| allow("s3:*"))
}

/// Method: pods that ask for a node with a label that none has, then an image that no registry has. The one is repaired by giving a node the label, the other in
/// the manifest.
#[test]
fn pods_that_cannot_start_are_told_and_the_job_starts_once_they_can() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    cluster.install()?;
    cluster.apply(&credentials(&S3::of_environment()?))?;
    let label = format!("forebay.test/{}", unique("disk"));
    let workers = "  workers:\n";
    let broken = Broken {
        change: (workers, format!("{workers}    podTemplate: {{spec: {{nodeSelector: {{{label}: \"fast\"}}}}}}\n")),
        reasons: &["Unschedulable"],
        words: words(&["nodes are available", "correct nodeSelector, affinity and tolerations in spec.workers.podTemplate"]),
    };
    let nodes = cluster.ask(&["get", "nodes", "-o", "name"])?;
    let node = nodes.lines().next().context("a cluster has nodes")?;
    broken.check(&cluster, |_, _| cluster.ask(&["label", node, &format!("{label}=fast")]).map(drop))?;
    cluster.ask(&["label", node, &format!("{label}-")])?;

    let image = "forebay.local/no-such-image:1";
    let broken = Broken {
        change: (workers, format!("{workers}    image: {image}\n")),
        reasons: &["ErrImagePull", "ImagePullBackOff"],
        words: words(&[image, "correct spec.workers.image"]),
    };
    broken.check(&cluster, |_, good| cluster.apply(good))
}
