//! `forebay run`: a job in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use forebay_crds::JobIdentity;
use forebay_crds::job::StartFrom as DeclaredStart;
use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{InputId, Offset, Partition, ShardId, Timestamp, WorkerName};
use forebay_engine::log::{JobTopics, Log, StartFrom};
use forebay_engine::shard::shard_of;
use forebay_engine::worker::{Report, WorkerOptions};
use forebay_kafka::{KafkaLog, KafkaOptions, Severity};
use forebay_local::{LocalLog, LocalLogOptions};
use forebay_pipeline::PipelineInstance;
use forebay_worker::status::Status;
use forebay_worker::{Engine, Runtime, RuntimeOptions};

use crate::job::{self, Loaded, TIMELINE};
use crate::places::{Cluster, Places};
use crate::progress::{Progress, books_line};
use crate::{Lost, Stalled, Unusable};

#[derive(Args)]
pub struct Run {
    /// The manifest
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    places: Places,

    /// Own only these shards, such as 0-3 or 0,2,5; other processes own the others
    #[arg(long, value_name = "LIST")]
    shards: Option<String>,

    /// Stop when all records that are there at the start are processed and committed
    #[arg(long)]
    until_end: bool,

    /// A job without state starts at the committed offsets of its consumer group (spec.consumerGroup), whatever spec.inputs says
    #[arg(long)]
    from_group: bool,

    /// Memory for state, caches and epochs, such as 512Mi [default: spec.state.memory, else half of the container's or machine's memory]
    #[arg(long, value_name = "SIZE")]
    memory: Option<forebay_crds::ByteSize>,

    /// Threads that process records [default: one per processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// This process's name in claims, logs and metrics [default: the host's name]
    #[arg(long, value_name = "NAME", env = "FOREBAY_WORKER")]
    worker: Option<String>,

    /// Serve /metrics, /healthz and /readyz here, such as 127.0.0.1:9090
    #[arg(long, value_name = "ADDRESS", env = "FOREBAY_METRICS")]
    metrics: Option<std::net::SocketAddr>,

    /// Log as JSON lines instead of text; RUST_LOG says how much (default: error on a terminal, else info)
    #[arg(long)]
    log_json: bool,
}

impl Run {
    pub fn execute(&self) -> anyhow::Result<()> {
        start_logging(self.log_json);
        let mut loaded = job::load(&self.file)?;
        loaded.order_inputs(&self.places)?;
        match self.places.cluster(&loaded.job)? {
            Some(cluster) => {
                let shards = loaded.job.shards.unwrap_or(1);
                check_kafka(&open_kafka(&cluster, loaded.topics(shards))?)?;
                self.run(&loaded, |topics| open_kafka(&cluster, topics))
            }
            None => self.run(&loaded, |topics| open_local(&self.places, topics)),
        }
    }

    fn run<L: Log>(&self, loaded: &Loaded, open: impl Fn(JobTopics) -> anyhow::Result<L>) -> anyhow::Result<()> {
        let store = loaded.checked_store(&self.places)?;
        let root = loaded.root(&self.places)?;
        // The number of shards may follow from the partitions, which only the log knows.
        let known = loaded.identity(&*root)?.map(|identity| identity.shards).or(loaded.job.shards);
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
        let identity = loaded.identify(&*root, partitions)?;
        let log = Arc::new(if known == Some(identity.shards) { log } else { open(loaded.topics(identity.shards))? });
        let compiled = loaded.compile(job::tables(&identity), partitions)?;
        let engine = Engine { log: log.clone(), store, pipeline: Arc::new(move |_shard| PipelineInstance::new(compiled.clone())) };
        let options = self.options(loaded, &identity)?;
        loaded.take_state_dir(&options.state_dir)?;
        let goal = if self.until_end { Some(Goal::of(&*log, &options)?) } else { None };
        let owned = options.assignment.1.clone();
        let runtime = Runtime::start(engine, options)?;
        let _metrics = self
            .metrics
            .map(|address| forebay_worker::http::serve(address, runtime.status().clone()))
            .transpose()
            .context("serve metrics")?;
        watch(runtime, &owned, goal)
    }

    fn options(&self, loaded: &Loaded, identity: &JobIdentity) -> anyhow::Result<RuntimeOptions> {
        let (job, shards) = (&loaded.job, identity.shards);
        let own = match &self.shards {
            Some(list) => parse_shards(list, shards)?,
            None => (0..shards).map(ShardId::new).collect(),
        };
        let memory = self.memory.map(forebay_crds::ByteSize::get).or(job.state_memory_bytes).unwrap_or_else(|| memory_limit() / 2);
        let start = |declared: &DeclaredStart| if self.from_group { StartFrom::Group } else { start_from(declared) };
        Ok(RuntimeOptions {
            worker: WorkerOptions {
                worker: WorkerName::new(self.worker.clone().unwrap_or_else(host_name)),
                timeline: TIMELINE,
                commit_interval: job.commit.interval,
                checkpoints_retained: job.checkpoint.retained as usize,
                heartbeat: Duration::from_secs(24 * 3600),
                watch: Duration::from_secs(5),
                retry: Duration::from_millis(200),
            },
            process: uuid::Uuid::new_v4().simple().to_string(),
            assignment: (VersionRule::AboveAll, own),
            shards,
            revision: loaded.revision(),
            start_from: job.inputs.iter().map(|input| start(&input.start_from)).collect(),
            state_dir: self.places.state_dir(),
            executors: self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            epoch_bytes_max: usize::try_from(job.commit.bytes_max).unwrap_or(usize::MAX),
            checkpoint_interval: job.checkpoint.interval,
            checkpoint_pause: job.checkpoint.min_pause,
            checkpoints_concurrent: job.checkpoint.concurrent_max as usize,
            lifetimes: job::lifetimes(job, &job::tables(identity)),
            memory_bytes_max: usize::try_from(memory).unwrap_or(usize::MAX),
        })
    }
}

/// The embedded log in the working folder; outputs are made when they are missing.
pub fn open_local(places: &Places, topics: JobTopics) -> anyhow::Result<LocalLog> {
    Ok(LocalLog::open(LocalLogOptions { dir: places.log_dir(), topics, auto_create: true })?)
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
    shards: u32,
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
        Ok(Self { ends, records, shards: options.shards })
    }

    /// Whether all is worked off but for shards that cannot be: they are lost, or need help.
    fn is_reached(&self, status: &Status, given_up: &BTreeSet<ShardId>) -> bool {
        let mut left = self.ends.clone();
        left.retain(|(_, partition), _| !given_up.contains(&shard_of(*partition, self.shards)));
        for (id, shard) in &status.shards() {
            if shard.uncommitted_records > 0 && !given_up.contains(id) {
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

/// Shows progress until the goal is reached, a signal comes, or every shard is lost.
fn watch(runtime: Runtime, owned: &BTreeSet<ShardId>, goal: Option<Goal>) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let mut progress = Progress::new(goal.as_ref().map(|goal| goal.records));
    let (mut lost, mut stalled) = (BTreeMap::new(), BTreeMap::new());
    let mut stopping = false;
    let mut last_books = None;
    while !runtime.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        let status = runtime.status();
        for report in status.take_reports() {
            tell(&progress, &report);
            if let Report::GaveUp(shard, gave_up) = report {
                lost.insert(shard, format!("{} (version {})", gave_up.winner, gave_up.version));
            }
        }
        let books = status.books();
        if !stopping {
            last_books = Some(books);
        }
        progress.show(status, books.records_in);
        if !stopping && goal.is_some() {
            let needs_help = status.shards().into_iter().filter(|(_, shard)| shard.stalled);
            stalled = needs_help.map(|(shard, status)| (shard, status.failure.unwrap_or_default())).collect();
        }
        let given_up: BTreeSet<ShardId> = lost.keys().chain(stalled.keys()).copied().collect();
        let done = goal.as_ref().is_some_and(|goal| goal.is_reached(status, &given_up));
        if !stopping && (done || stop.load(Ordering::Relaxed) || lost.len() == owned.len()) {
            last_books = Some(status.books());
            stopping = true;
            runtime.stop();
        }
    }
    progress.finish();
    runtime.join().map_err(|panic| anyhow::anyhow!("a thread panicked: {panic}"))?;
    if let Some(books) = last_books {
        eprintln!("{}", books_line(&books));
    }
    if let Some((shard, winner)) = lost.first_key_value() {
        let (count, of) = (lost.len(), owned.len());
        return Err(Lost(format!(
            "{count} of {of} shards were lost, shard {shard} to {winner}: the later start wins. Start one process per shard, or share them by --shards"
        ))
        .into());
    }
    if stalled.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> = stalled.iter().map(|(shard, reason)| format!("shard {shard}: {reason}")).collect();
    let (count, of) = (stalled.len(), owned.len());
    Err(Stalled(format!("{count} of {of} shards are stalled and need help; nothing of them was skipped\n{}", reasons.join("\n"))).into())
}

fn tell(progress: &Progress, report: &Report) {
    match report {
        Report::Failed(shard, reason) => progress.say(&format!("shard {shard} failed and is tried again: {reason}")),
        Report::Stalled(shard, reason) => progress.say(&format!("shard {shard} is stalled and needs help: {reason}")),
        Report::FellBack(shard, epoch, reason) => {
            progress.say(&format!("shard {shard}: its checkpoint of epoch {epoch} cannot be used: {reason}; the one before is tried"));
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

fn start_logging(json: bool) {
    use std::io::IsTerminal;
    let quiet = std::io::stderr().is_terminal();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| if quiet { "error" } else { "info" }.into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { builder.json().init() } else { builder.init() }
}
