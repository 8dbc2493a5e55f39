//! The flights example on real servers: its manifest under names of the test's own, its records, and its oracle's verdict.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::message::Message;
use serde_json::Value;

use crate::job::{Forebay, Process};
use crate::kafka::{Broker, Feeder, Record};
use crate::s3::{BUCKET, S3};
use crate::{PATIENCE, until};

/// Partitions of every topic.
pub const PARTITIONS: u32 = 12;
/// Shards of the job, as its manifest says.
pub const SHARDS: u32 = 4;

/// What [`Flights::feed_slowly`] puts in per [`TICK`]: enough to keep all shards at work, little enough that 336,776 flights last for minutes.
const RECORDS_PER_TICK: usize = 200;
/// See [`RECORDS_PER_TICK`].
const TICK: Duration = Duration::from_millis(100);

/// Where [`Flights::check_with`] has the second topic begin: behind any offset of a test.
const BEHIND: u64 = 1 << 40;

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

    /// Asks the oracle whether all that came out of these records is right. The state is that of the newest database of each shard among
    /// `workers`, none of which may be running.
    pub fn check(&self, records: &[Record], workers: &[&str]) -> Result<()> {
        self.check_but(records, workers, &Ranges::new())
    }

    /// The same as if some of the outputs were not there.
    pub fn check_but(&self, records: &[Record], workers: &[&str], undone: &Ranges) -> Result<()> {
        let folder = self.check_folder()?;
        let file = folder.join("records.jsonl");
        write_records(&file, records)?;
        let input = self.input_where(|_, _| true)?;
        self.judge(&file, &input, workers, undone)
    }

    /// The same for a job that has processed only what [`Flights::input_where`] wrote to `input`.
    pub fn check_some(&self, input: &Path, workers: &[&str]) -> Result<()> {
        self.judge(input, input, workers, &Ranges::new())
    }

    /// The same for a job that reads a second input, of other keys: of all that is in both. To the oracle they are one topic, in which the offsets of
    /// the second begin behind those of the first.
    pub fn check_with(&self, second: &str, workers: &[&str]) -> Result<()> {
        let input = self.input_where(|_, _| true)?;
        let other = self.check_folder()?.join("second.jsonl");
        self.broker.dump(second, &other, |_, _| true)?;
        let mut all = fs::read_to_string(&input)?;
        for line in fs::read_to_string(&other)?.lines() {
            let mut record: Value = serde_json::from_str(line)?;
            record["offset"] = (BEHIND + record["offset"].as_u64().context("an offset")?).into();
            all.push_str(&format!("{record}\n"));
        }
        fs::write(&input, all)?;
        let as_one = |letter: &mut Value| -> Result<()> {
            let headers = &mut letter["headers"];
            if headers["forebay.topic"] == second {
                let offset: u64 = headers["forebay.offset"].as_str().context("an offset")?.parse()?;
                headers["forebay.offset"] = (BEHIND + offset).to_string().into();
                headers["forebay.topic"] = self.input().into();
            }
            Ok(())
        };
        self.judge_letters(&input, &input, workers, &Ranges::new(), as_one)
    }

    /// Writes down those records of the input topic whose partition and offset `is_meant` says yes to; returns the file.
    pub fn input_where(&self, is_meant: impl Fn(u32, u64) -> bool) -> Result<PathBuf> {
        let path = self.check_folder()?.join("input.jsonl");
        self.broker.dump(&self.input(), &path, is_meant)?;
        Ok(path)
    }

    fn check_folder(&self) -> Result<PathBuf> {
        let folder = self.folder.join("check");
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn judge(&self, records: &Path, input: &Path, workers: &[&str], undone: &Ranges) -> Result<()> {
        self.judge_letters(records, input, workers, undone, |_| Ok(()))
    }

    fn judge_letters(
        &self,
        records: &Path,
        input: &Path,
        workers: &[&str],
        undone: &Ranges,
        change: impl Fn(&mut Value) -> Result<()>,
    ) -> Result<()> {
        let folder = self.check_folder()?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut arguments = vec!["--input-topic".into(), self.input(), "--input".into(), text(input), "--records".into(), text(records)];
        for output in ["updates", "enriched", "delayed", "dead"] {
            arguments.extend([format!("--{output}"), self.dump(&folder, &self.output(output), undone)?]);
        }
        let letters = folder.join(format!("{}.jsonl", self.output("dead")));
        let mut changed = String::new();
        for line in fs::read_to_string(&letters)?.lines() {
            let mut letter: Value = serde_json::from_str(line)?;
            change(&mut letter)?;
            changed.push_str(&format!("{letter}\n"));
        }
        fs::write(&letters, changed)?;
        let merged = self.merged_state(&folder, workers)?;
        let state = self.ask_state(&merged, &["state", "scan", "-o", "json"])?;
        let books = self.ask_state(&merged, &["books", "-o", "json"])?;
        for (name, content) in [("state", state), ("books", books)] {
            let path = folder.join(format!("{name}.json"));
            fs::write(&path, content)?;
            arguments.extend([format!("--{name}"), text(&path)]);
        }
        let output = python("oracle.py", &arguments)?;
        println!("{}", String::from_utf8_lossy(&output.stdout));
        ensure!(
            output.status.success(),
            "the oracle says: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
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

    fn dump(&self, folder: &Path, topic: &str, undone: &Ranges) -> Result<String> {
        let path = folder.join(format!("{topic}.jsonl"));
        let undone = undone.get(topic).map_or(&[] as &[(u64, u64)], Vec::as_slice);
        let is_undone = |partition: u32, offset| undone.get(partition as usize).is_some_and(|(from, to)| (*from..*to).contains(&offset));
        self.broker.dump(topic, &path, |partition, offset| !is_undone(partition, offset))?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn ask_state(&self, state_dir: &Path, arguments: &[&str]) -> Result<String> {
        self.forebay.clone().with("FOREBAY_STATE_DIR", state_dir.to_string_lossy()).ask(arguments)
    }

    /// A state folder of links to the newest database of each shard.
    fn merged_state(&self, folder: &Path, workers: &[&str]) -> Result<PathBuf> {
        let mut newest: BTreeMap<u32, (u64, PathBuf)> = BTreeMap::new();
        for worker in workers {
            let state_dir = self.state_dir(worker);
            for (shard, said) in self.shards(&state_dir)? {
                let epoch = said.strip_prefix("epoch ").and_then(|rest| rest.split(',').next()?.parse().ok());
                let epoch = epoch.with_context(|| format!("`state ls` says of shard {shard}: {said}"))?;
                let database = state_dir.join(format!("shard-{shard}"));
                ensure!(database.is_dir(), "{} is not there", database.display());
                if newest.get(&shard).is_none_or(|(other, _)| *other < epoch) {
                    newest.insert(shard, (epoch, database));
                }
            }
        }
        ensure!(newest.len() == SHARDS as usize, "databases were found for the shards {:?} only", newest.keys());
        let merged = folder.join("state");
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir_all(&merged)?;
        for (shard, (_, database)) in newest {
            std::os::unix::fs::symlink(fs::canonicalize(database)?, merged.join(format!("shard-{shard}")))?;
        }
        Ok(merged)
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

fn write_records(path: &Path, records: &[Record]) -> Result<()> {
    let mut out = BufWriter::new(fs::File::create(path)?);
    for record in records {
        serde_json::to_writer(&mut out, record)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
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
