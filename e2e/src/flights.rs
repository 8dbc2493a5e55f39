//! The flights example on real servers: its manifest under names of the test's own, its records, and its oracle's verdict.

mod oracle;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::message::Message;

use crate::job::{Forebay, Process};
use crate::kafka::{Broker, Feeder, Record};
use crate::s3::{BUCKET, S3};
use crate::{PATIENCE, until};
pub use oracle::Refused;

/// Partitions of every topic.
pub const PARTITIONS: u32 = 12;
/// Shards of the job, as its manifest says.
pub const SHARDS: u32 = 4;

/// What [`Flights::feed_slowly`] puts in per [`TICK`]: enough to keep all shards at work, little enough that 336,776 flights last for minutes.
const RECORDS_PER_TICK: usize = 200;
/// See [`RECORDS_PER_TICK`].
const TICK: Duration = Duration::from_millis(100);

/// Offsets from the first to before the second, of each partition of a topic.
pub type Ranges = BTreeMap<String, Vec<(u64, u64)>>;

/// The job under a name of its own, with its topics.
pub struct Flights {
    /// How to call `forebay` for it.
    pub forebay: Forebay,
    /// Where it runs.
    pub broker: Broker,
    /// The job's name, of which all others are made.
    pub name: String,
    /// The manifest.
    pub manifest: PathBuf,
    folder: PathBuf,
}

impl Flights {
    /// A new job: topics on the broker, a prefix in the bucket, the manifest in `folder`. `change` may alter the manifest's text.
    pub fn new(folder: &Path, broker: Broker, s3: &S3, change: impl FnOnce(String) -> Result<String>) -> Result<Self> {
        let name = crate::unique("flights");
        let manifest = folder.join("job.yaml");
        let example = fs::read_to_string(crate::repository().join("examples/flights/job.yaml"))?;
        fs::write(&manifest, change(renamed(&example, &name)?)?)?;
        let mut forebay =
            Forebay::new(&manifest, folder).with("FOREBAY_KAFKA", &broker.address).with("FOREBAY_STORE", format!("s3://{BUCKET}/{name}"));
        for (variable, value) in s3.environment() {
            forebay = forebay.with(variable, value);
        }
        let flights = Self { forebay, broker, name, manifest, folder: folder.to_owned() };
        for topic in flights.topics() {
            flights.broker.create_topic(&topic, PARTITIONS)?;
        }
        Ok(flights)
    }

    /// The same on the servers of the environment, with the example's manifest but for the names.
    pub fn on_shared_servers(folder: &Path) -> Result<(Self, S3)> {
        let s3 = S3::of_environment()?;
        Ok((Self::new(folder, Broker::of_environment()?, &s3, Ok)?, s3))
    }

    /// The input topic.
    pub fn input(&self) -> String {
        self.name.clone()
    }

    /// The journal's topic.
    pub fn journal(&self) -> String {
        format!("forebay.default.{}.0.journal", self.name)
    }

    /// An output topic: `updates`, `enriched`, `delayed` or `dead`.
    pub fn output(&self, which: &str) -> String {
        format!("{}.{which}", self.name)
    }

    /// Where the job's objects lie in the bucket.
    pub fn prefix(&self) -> String {
        format!("{0}/default/{0}", self.name)
    }

    /// How many of the input's records are processed: the committed offsets of the job's consumer group, which everybody's tools go by.
    pub fn processed(&self) -> Result<u64> {
        let group = format!("forebay.default.{}", self.name);
        Ok(self.broker.group_offsets(&group, &self.input())?.into_iter().flatten().sum())
    }

    /// The partition in which the input topic has this key's records.
    pub fn partition_of(&self, key: &Option<String>) -> Result<u32> {
        let mut found = None;
        self.broker.read(&self.input(), |record| {
            if record.key() == key.as_ref().map(String::as_bytes) {
                found = Some(u32::try_from(record.partition())?);
            }
            Ok(())
        })?;
        found.with_context(|| format!("no record of {key:?}"))
    }

    /// A folder of a worker's state.
    pub fn state_dir(&self, worker: &str) -> PathBuf {
        self.folder.join(format!("state-{worker}"))
    }

    /// Puts records into the input topic.
    pub fn feed(&self, records: &[Record]) -> Result<()> {
        Feeder::new(&self.broker, &self.input())?.feed(records)
    }

    /// Puts records in bit by bit until it is told to stop, or they run out; returns how many.
    pub fn feed_slowly(&self, records: &[Record], over: &AtomicBool) -> Result<usize> {
        let feeder = Feeder::new(&self.broker, &self.input())?;
        let mut fed = 0;
        while !over.load(Ordering::SeqCst) && fed < records.len() {
            let next = (fed + RECORDS_PER_TICK).min(records.len());
            feeder.feed(&records[fed..next])?;
            fed = next;
            thread::sleep(TICK);
        }
        Ok(fed)
    }

    /// Puts the records in, a hundredth at a time, until a metric of `job` is high enough; then the rest at once.
    pub fn feed_until(&self, job: &Process, records: &[Record], metric: &str, at_least: f64) -> Result<()> {
        let feeder = Feeder::new(&self.broker, &self.input())?;
        let mut chunks = records.chunks(records.len().div_ceil(100));
        until(&format!("{metric} is {at_least}"), PATIENCE, || {
            if let Some(chunk) = chunks.next() {
                feeder.feed(chunk)?;
            }
            Ok((job.metric(metric)? >= at_least).then_some(()))
        })?;
        chunks.try_for_each(|chunk| feeder.feed(chunk))
    }

    /// Runs the job in one process to the end of its input.
    pub fn run_until_end(&self, worker: &str) -> Result<()> {
        self.forebay.run(worker, &self.state_dir(worker), &["--until-end"])?.success()
    }

    /// How many records each topic holds, as readers of committed records see them.
    pub fn counts(&self) -> Result<BTreeMap<String, u64>> {
        let count = |topic: String| -> Result<_> {
            let mut records = 0;
            self.broker.read(&topic, |_| {
                records += 1;
                Ok(())
            })?;
            Ok((topic, records))
        };
        self.topics().into_iter().map(count).collect()
    }

    /// The ends of the outputs, by topic, of each partition.
    pub fn ends(&self) -> Result<BTreeMap<String, Vec<u64>>> {
        let ends = |topic: String| Ok((topic.clone(), self.broker.ranges(&topic)?.into_iter().map(|(_, end)| end).collect()));
        self.topics().into_iter().filter(|topic| *topic != self.input()).map(ends).collect()
    }

    /// What `state ls` says of each shard in a state folder, by the shard's number: `epoch 7, revision …, 10 in = …`.
    pub fn shards(&self, state_dir: &Path) -> Result<BTreeMap<u32, String>> {
        let listed = self.ask_state(state_dir, &["state", "ls"])?;
        let shard = |line: &str| {
            let (number, rest) = line.strip_prefix("shard ")?.split_once(": ")?;
            Some((number.parse().ok()?, rest.to_owned()))
        };
        Ok(listed.lines().filter_map(shard).collect())
    }

    fn topics(&self) -> Vec<String> {
        let outputs = ["updates", "enriched", "delayed", "dead"].map(|output| self.output(output));
        std::iter::once(self.input()).chain(outputs).collect()
    }

    fn ask_state(&self, state_dir: &Path, arguments: &[&str]) -> Result<String> {
        self.forebay.clone().with("FOREBAY_STATE_DIR", state_dir.to_string_lossy()).ask(arguments)
    }
}

/// The first `limit` flights of the year and what `prepare.py` adds to them. Made once, then kept in the cache.
pub fn records(limit: u32) -> Result<Vec<Record>> {
    let cache = match std::env::var_os("FOREBAY_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(crate::variable("HOME")?).join(".cache/forebay"),
    };
    let file = cache.join(format!("flights/e2e-{limit}.jsonl"));
    if !file.exists() {
        let output = python("prepare.py", &["--limit".into(), limit.to_string(), "--output".into(), file.to_string_lossy().into_owned()])?;
        ensure!(output.status.success(), "prepare.py: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = fs::read_to_string(&file)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))).collect()
}

fn python(script: &str, arguments: &[String]) -> Result<std::process::Output> {
    let script = crate::repository().join("examples/flights").join(script);
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    Command::new(python).arg(&script).args(arguments).output().with_context(|| format!("run {}", script.display()))
}

/// The example's manifest with the job's name and the topics' names replaced, and nothing else.
fn renamed(example: &str, name: &str) -> Result<String> {
    let mut text = example.to_owned();
    let names = [
        ("name: flights\n  namespace", format!("name: {name}\n  namespace")),
        ("topic: flights\n", format!("topic: {name}\n")),
        ("topic: flights.dead\n", format!("topic: {name}.dead\n")),
        ("topic: updates\n", format!("topic: {name}.updates\n")),
        ("topic: enriched\n", format!("topic: {name}.enriched\n")),
        ("topic: delayed\n", format!("topic: {name}.delayed\n")),
    ];
    for (from, to) in &names {
        text = replaced(text, from, to)?;
    }
    Ok(text)
}

/// The example's manifest with a checkpoint every second.
pub fn every_second(manifest: String) -> Result<String> {
    replaced(manifest, "interval: 30s", "interval: 1s")
}

/// A manifest with one place of its text replaced; `Err` unless there is exactly one.
pub fn replaced(manifest: String, from: &str, to: &str) -> Result<String> {
    let found = manifest.matches(from).count();
    ensure!(found == 1, "the manifest has {found} places that say {from:?}");
    Ok(manifest.replace(from, to))
}
