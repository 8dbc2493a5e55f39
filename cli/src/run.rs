//! `forebay run`: a job in this process.

mod last_checkpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::BoolishValueParser;
use forebay_crds::job::StartFrom as DeclaredStart;
use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{InputId, Offset, Partition, ShardId, Timestamp, WorkerName};
use forebay_engine::log::{JobTopics, Log, LogError, StartFrom};
use forebay_engine::shard::shard_of;
use forebay_engine::worker::{Report, WorkerOptions};
use forebay_kafka::{KafkaLog, KafkaOptions, Severity};
use forebay_local::{LocalLog, LocalLogOptions};
use forebay_pipeline::PipelineInstance;
use forebay_worker::status::Status;
use forebay_worker::{Engine, Runtime, RuntimeOptions};

use crate::job::{self, Loaded, TIMELINE};
use crate::output::Output;
use crate::places::{Cluster, Places};
use crate::progress::Progress;
use crate::state::BooksRow;
use crate::{Lost, Unusable};
use last_checkpoint::LastCheckpoint;

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
to a later start; 130 ended at once by a second signal, nothing is lost by it.")]
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

    /// Memory for state, caches and epochs, such as 512Mi [default: spec.state.memory, else half of the container's or machine's memory]
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
                check_kafka(&open_kafka(&cluster, loaded.topics(shards))?)?;
                self.run(&loaded, output, |topics| open_kafka(&cluster, topics))
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
        let options = self.options(loaded, identity.shards)?;
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

    fn options(&self, loaded: &Loaded, shards: u32) -> anyhow::Result<RuntimeOptions> {
        let job = &loaded.job;
        let own = match &self.shards {
            Some(list) => parse_shards(list, shards)?,
            None => (0..shards).map(ShardId::new).collect(),
        };
        let memory = self.memory.map(forebay_crds::ByteSize::get).or(job.state_memory_bytes).unwrap_or_else(|| memory_limit() / 2);
        Ok(RuntimeOptions {
            worker: WorkerOptions {
                worker: WorkerName::new(self.worker.clone().unwrap_or_else(host_name)),
                timeline: TIMELINE,
                commit_interval: job.commit.interval,
                checkpoints_retained: job.checkpoint.retained as usize,
                heartbeat: Duration::from_secs(24 * 3600),
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
            memory_bytes_max: usize::try_from(memory).unwrap_or(usize::MAX),
        })
    }
}

/// The embedded log in the working folder; outputs are made when they are missing.
pub fn open_local(places: &Places, topics: JobTopics) -> anyhow::Result<LocalLog> {
    Ok(LocalLog::open(LocalLogOptions { dir: places.working.log_dir(), topics, auto_create: true })?)
}

/// A job's topics on a cluster.
pub fn open_kafka(cluster: &Cluster, topics: JobTopics) -> anyhow::Result<KafkaLog> {
    let mut options = KafkaOptions::new(cluster.bootstrap_servers.clone(), topics);
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

/// Until when `--until-end` runs: the inputs' ends at the start.
struct Goal {
    ends: BTreeMap<(InputId, Partition), Offset>,
    records: u64,
}

impl Goal {
    fn of<L: Log>(log: &L, options: &RuntimeOptions) -> anyhow::Result<Self> {
        let mut ends = BTreeMap::new();
        let mut records = 0;
        for (input, _) in (0..).map(InputId::new).zip(&options.start_from) {
            let starts: BTreeMap<_, _> =
                log.start_positions(input, StartFrom::Earliest)?.into_iter().map(|position| (position.partition, position.next)).collect();
            for end in log.start_positions(input, StartFrom::Latest)? {
                if options.assignment.1.contains(&shard_of(end.partition, options.shards)) {
                    ends.insert((input, end.partition), end.next);
                    records += end.next.get() - starts.get(&end.partition).map_or(0, |start| start.get());
                }
            }
        }
        tracing::info!(records, ?ends, "runs until the inputs' ends");
        Ok(Self { ends, records })
    }

    fn is_reached(&self, status: &Status) -> bool {
        let mut left = self.ends.clone();
        for shard in status.shards().values() {
            if shard.uncommitted_records > 0 {
                return false;
            }
            for progress in &shard.progress {
                let place = (progress.position.input, progress.position.partition);
                if left.get(&place).is_some_and(|end| progress.position.next >= *end) {
                    left.remove(&place);
                }
            }
        }
        left.values().all(|end| *end == Offset::default())
    }
}

/// What to do when the end has come.
struct Ending {
    checkpoint: bool,
    output: Output,
}

/// How far the end has come.
enum Stage {
    Working,
    Checkpointing(LastCheckpoint),
    Stopping,
}

/// Shows progress until the goal is reached, a signal comes, or every shard is lost.
fn watch(runtime: Runtime, owned: &BTreeSet<ShardId>, goal: Option<Goal>, ending: &Ending) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let mut progress = Progress::new(goal.as_ref().map(|goal| goal.records));
    let (mut lost, mut unsaved) = (BTreeMap::new(), Vec::new());
    let mut stage = Stage::Working;
    let status = runtime.status().clone();
    while !runtime.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        for report in status.take_reports() {
            tell(&progress, &report);
            if let Report::GaveUp(shard, gave_up) = report {
                lost.insert(shard, format!("{} (version {})", gave_up.winner, gave_up.version));
            }
        }
        progress.show(&status);
        let all_lost = lost.len() == owned.len();
        let may_stop = match &mut stage {
            Stage::Working => {
                let done = goal.as_ref().is_some_and(|goal| goal.is_reached(&status)) || stop.load(Ordering::Relaxed) || all_lost;
                if done && ending.checkpoint && !all_lost {
                    progress.say("a checkpoint of every shard is taken before stopping");
                    stage = Stage::Checkpointing(LastCheckpoint::ask(&runtime));
                    false
                } else {
                    done
                }
            }
            Stage::Checkpointing(last) => {
                let over = all_lost || last.is_over(&runtime);
                unsaved = last.missing(&status);
                over
            }
            Stage::Stopping => false,
        };
        if may_stop {
            stage = Stage::Stopping;
            runtime.stop();
        }
    }
    progress.finish();
    runtime.join().map_err(|panic| anyhow::anyhow!("a thread panicked: {panic}"))?;
    ending.output.print(&BooksRow(status.books()))?;
    verdict(&lost, owned, &unsaved)
}

fn verdict(lost: &BTreeMap<ShardId, String>, owned: &BTreeSet<ShardId>, unsaved: &[ShardId]) -> anyhow::Result<()> {
    if let Some((shard, winner)) = lost.first_key_value() {
        return Err(Lost(format!(
            "{} of {} shards were lost, shard {shard} to {winner}: the later start wins. Start one process per shard, or share them by --shards",
            lost.len(),
            owned.len()
        ))
        .into());
    }
    let unsaved: Vec<String> = unsaved.iter().map(ToString::to_string).collect();
    anyhow::ensure!(
        unsaved.is_empty(),
        "no checkpoint of shards {} was taken before the stop, the reason is in the log; all is committed and released, and the next start reads \
         a longer journal",
        unsaved.join(", ")
    );
    Ok(())
}

fn tell(progress: &Progress, report: &Report) {
    match report {
        Report::Failed(shard, reason) | Report::Stalled(shard, reason) => {
            progress.say(&format!("shard {shard} failed and is tried again: {reason}"))
        }
        Report::IncarnationOver(_, reason) => progress.say(&format!("all shards are claimed again: {reason}")),
        Report::GaveUp(shard, gave_up) => progress.say(&format!("shard {shard} is lost to {}", gave_up.winner)),
        Report::Owned(..) => {}
    }
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
