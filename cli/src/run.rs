//! `forebay run`: a job in this process.

mod last_checkpoint;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::BoolishValueParser;
use forebay_crds::JobIdentity;
use forebay_crds::job::StartFrom as DeclaredStart;
use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{InputId, ShardId, Timestamp, WorkerName};
use forebay_engine::log::{JobTopics, Log, LogError, StartFrom};
use forebay_engine::worker::WorkerOptions;
use forebay_kafka::{KafkaLog, KafkaOptions, Severity};
use forebay_local::{LocalLog, LocalLogOptions};
use forebay_pipeline::PipelineInstance;
use forebay_worker::{Engine, Runtime, RuntimeOptions};

use crate::Unusable;
use crate::job::{self, Loaded, TIMELINE};
use crate::output::Output;
use crate::places::{Cluster, Places};
use watch::{Ending, Goal, watch};

/// What `forebay run` is told. Every flag has an environment variable.
#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay run -f job.yaml                           on the embedded log in ./forebay-data, until SIGINT or SIGTERM
  forebay run -f job.yaml --until-end -o json       until what is there now is processed; then the books as JSON
  forebay run -f job.yaml --kafka broker:9092 --store s3://bucket/prefix --s3-endpoint http://127.0.0.1:9000
  forebay run -f job.yaml --shards 0-1              half of a job of four shards; `--shards 2-3` elsewhere
  forebay run -f job.yaml --from-group              take over where the consumer group spec.consumerGroup stands
  forebay run -f job.yaml --checkpoint-on-stop      a planned move: the next start, on another machine, is quick

Exit codes: 0 stopped in good order; 1 failed while at work; 2 wrong usage, or a job that cannot work; 3 its shards were lost \
to a later start; 4 with --until-end, shards are stalled and need help; 130 ended at once by a second signal, nothing is lost by it.")]
pub struct Run {
    #[command(flatten)]
    places: Places,

    /// Own only these shards, such as 0-3 or 0,2,5; other processes own the others
    #[arg(long, value_name = "LIST", env = "FOREBAY_SHARDS")]
    shards: Option<String>,

    /// Stop when all records that are there at the start are processed and committed
    #[arg(long, env = "FOREBAY_UNTIL_END", value_parser = BoolishValueParser::new())]
    until_end: bool,

    /// Before stopping take a checkpoint of every shard, so that a start without this machine's disk has a short journal to read
    #[arg(long, env = "FOREBAY_CHECKPOINT_ON_STOP", value_parser = BoolishValueParser::new())]
    checkpoint_on_stop: bool,

    /// A job without state starts at the committed offsets of its consumer group (spec.consumerGroup), whatever spec.inputs says
    #[arg(long, env = "FOREBAY_FROM_GROUP", value_parser = BoolishValueParser::new())]
    from_group: bool,

    /// Memory for state, caches, epochs and the Kafka client, such as 512Mi [default: spec.state.memory, else half of the container's or machine's memory]
    #[arg(long, value_name = "SIZE", env = "FOREBAY_MEMORY")]
    memory: Option<forebay_crds::ByteSize>,

    /// Threads that process records [default: one per processor]
    #[arg(long, value_name = "N", env = "FOREBAY_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// This process's name in claims, logs and metrics [default: the host's name]
    #[arg(long, value_name = "NAME", env = "FOREBAY_WORKER")]
    worker: Option<String>,

    /// Serve /metrics, /healthz and /readyz here, such as 127.0.0.1:9090
    #[arg(long, value_name = "ADDRESS", env = "FOREBAY_METRICS")]
    metrics: Option<std::net::SocketAddr>,

    /// Log as JSON lines instead of text; RUST_LOG says how much (default: error on a terminal, else info)
    #[arg(long, env = "FOREBAY_LOG_JSON", value_parser = BoolishValueParser::new())]
    pub log_json: bool,
}

impl Run {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let mut loaded = job::load(&self.places.file)?;
        loaded.order_inputs(&self.places)?;
        match self.places.cluster(&loaded.job)? {
            Some(cluster) => {
                let shards = loaded.job.shards.unwrap_or(1);
                let memory = self.memory_bytes(&loaded);
                check_kafka(&open_kafka(&cluster, loaded.topics(shards), memory)?)?;
                self.run(&loaded, output, |topics| open_kafka(&cluster, topics, memory))
            }
            None => self.run(&loaded, output, |topics| open_local(&self.places, topics)),
        }
    }

    fn run<L: Log>(&self, loaded: &Loaded, output: Output, open: impl Fn(JobTopics) -> anyhow::Result<L>) -> anyhow::Result<()> {
        let store = loaded.checked_store(&self.places)?;
        loaded.take_state_dir(&self.places.state_dir())?;
        let root = loaded.root(&self.places)?;
        // The number of shards may follow from the partitions, which only the log knows.
        let identity = loaded.identity(&*root)?;
        let known = identity.as_ref().map(|identity| identity.shards).or(loaded.job.shards);
        let log = open(loaded.topics(known.unwrap_or(1)))?;
        let topics = log.describe()?;
        let partitions = topics[0].partitions;
        for topic in &topics[1..loaded.job.inputs.len()] {
            if topic.partitions != partitions {
                let reason = format!(
                    "topic {} has {} partitions and {} has {partitions}; inputs of one job need equal counts",
                    topic.name, topic.partitions, topics[0].name
                );
                return Err(Unusable(reason).into());
            }
        }
        if identity.is_none() {
            self.check_start(loaded, &log)?;
        }
        let identity = loaded.identify(&*root, partitions)?;
        let log = Arc::new(if known == Some(identity.shards) { log } else { open(loaded.topics(identity.shards))? });
        let compiled = loaded.compile(job::tables(&identity), partitions)?;
        let engine = Engine { log: log.clone(), store, pipeline: Arc::new(move |_shard| PipelineInstance::new(compiled.clone())) };
        let options = self.options(loaded, &identity)?;
        let goal = if self.until_end { Some(Goal::of(&*log, &options)?) } else { None };
        let owned = options.assignment.1.clone();
        let runtime = Runtime::start(engine, options)?;
        let _metrics = self
            .metrics
            .map(|address| forebay_worker::http::serve(address, runtime.status().clone()))
            .transpose()
            .context("serve metrics")?;
        watch(runtime, &owned, goal, &Ending { checkpoint: self.checkpoint_on_stop, output })
    }

    /// A job that has never run, and cannot find where to start, says so at once: its shards would try it for ever.
    fn check_start<L: Log>(&self, loaded: &Loaded, log: &L) -> anyhow::Result<()> {
        for (input, declared) in (0..).map(InputId::new).zip(&loaded.job.inputs) {
            match log.start_positions(input, self.start_from(&declared.start_from)) {
                Err(error @ LogError::Missing { .. }) => return Err(Unusable(error.to_string()).into()),
                found => drop(found?),
            }
        }
        Ok(())
    }

    fn start_from(&self, declared: &DeclaredStart) -> StartFrom {
        if self.from_group { StartFrom::Group } else { start_from(declared) }
    }

    fn options(&self, loaded: &Loaded, identity: &JobIdentity) -> anyhow::Result<RuntimeOptions> {
        let (job, shards) = (&loaded.job, identity.shards);
        let own = match &self.shards {
            Some(list) => parse_shards(list, shards)?,
            None => (0..shards).map(ShardId::new).collect(),
        };
        Ok(RuntimeOptions {
            worker: WorkerOptions {
                worker: WorkerName::new(self.worker.clone().unwrap_or_else(host_name)),
                timeline: TIMELINE,
                commit_interval: job.commit.interval,
                commit_interval_behind: job.commit.interval.max(Duration::from_secs(1)),
                checkpoints_retained: job.checkpoint.retained as usize,
                heartbeat: Duration::from_secs(24 * 3600),
                watch: Duration::from_secs(5),
                retry: Duration::from_millis(200),
            },
            process: uuid::Uuid::new_v4().simple().to_string(),
            assignment: (VersionRule::AboveAll, own),
            shards,
            revision: loaded.revision(),
            start_from: job.inputs.iter().map(|input| self.start_from(&input.start_from)).collect(),
            state_dir: self.places.state_dir(),
            executors: self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from),
            epoch_bytes_max: usize::try_from(job.commit.bytes_max).unwrap_or(usize::MAX),
            checkpoint_interval: job.checkpoint.interval,
            checkpoint_pause: job.checkpoint.min_pause,
            checkpoints_concurrent: job.checkpoint.concurrent_max as usize,
            lifetimes: job::lifetimes(job, &job::tables(identity)),
            memory_bytes_max: self.memory_bytes(loaded),
        })
    }

    fn memory_bytes(&self, loaded: &Loaded) -> usize {
        let said = self.memory.map(forebay_crds::ByteSize::get).or(loaded.job.state_memory_bytes);
        usize::try_from(said.unwrap_or_else(|| memory_limit() / 2)).unwrap_or(usize::MAX)
    }
}

/// The embedded log in the working folder; outputs are made when they are missing.
pub fn open_local(places: &Places, topics: JobTopics) -> anyhow::Result<LocalLog> {
    Ok(LocalLog::open(LocalLogOptions { dir: places.working.log_dir(), topics, auto_create: true })?)
}

/// A job's topics on a cluster, for a process that may use so many bytes of memory.
pub fn open_kafka(cluster: &Cluster, topics: JobTopics, memory_bytes: usize) -> anyhow::Result<KafkaLog> {
    let mut options = KafkaOptions::new(cluster.bootstrap_servers.clone(), topics).memory(memory_bytes);
    for (name, value) in &cluster.properties {
        options = options.property(name, value);
    }
    Ok(KafkaLog::open(options)?)
}

/// Warns of what may hurt, refuses what would break the guarantees.
fn check_kafka(log: &KafkaLog) -> anyhow::Result<()> {
    let mut errors = Vec::new();
    for finding in log.preflight() {
        match finding.severity {
            Severity::Warning => tracing::warn!(way_out = finding.way_out, "{}", finding.problem),
            Severity::Error => errors.push(finding.to_string()),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Unusable(format!("the Kafka cluster cannot run this job:\n{}", errors.join("\n"))).into()) }
}

fn start_from(declared: &DeclaredStart) -> StartFrom {
    match declared {
        DeclaredStart::Earliest => StartFrom::Earliest,
        DeclaredStart::Latest => StartFrom::Latest,
        DeclaredStart::Group => StartFrom::Group,
        DeclaredStart::Timestamp(time) => StartFrom::Timestamp(Timestamp::from_millis(time.as_millisecond())),
    }
}

fn parse_shards(list: &str, shards: u32) -> anyhow::Result<BTreeSet<ShardId>> {
    let wrong = |part: &str| Unusable(format!("--shards {part}: write numbers from 0 to {}, such as 0-3 or 0,2,5", shards - 1));
    let mut all = BTreeSet::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u32>(), to.trim().parse::<u32>()) else { return Err(wrong(part).into()) };
        if from > to || to >= shards {
            return Err(wrong(part).into());
        }
        all.extend((from..=to).map(ShardId::new));
    }
    Ok(all)
}

/// The container's memory limit (cgroup v2, then v1), else the machine's memory; 1 GiB where neither can be read.
fn memory_limit() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?.to_owned();
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
    });
    limit.into_iter().chain(total).min().unwrap_or(1 << 30)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "forebay".into() } else { name.to_owned() }
}
