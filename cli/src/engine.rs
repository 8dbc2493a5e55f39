//! A job's engine, as `run` and `worker` start it: log, object store and pipeline opened and checked, and the options that the manifest decides.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_crds::job::StartFrom as DeclaredStart;
use forebay_crds::pipeline::{Emit, Partitioner, Step};
use forebay_crds::validate::{STATE_MEMORY_RANGE, default_shards};
use forebay_crds::{ByteSize, JobIdentity, Path as Field};
use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{InputId, JournalOffset, ShardId, Timestamp, WorkerName};
use forebay_engine::log::{JobTopics, Log, LogError, StartFrom, TopicInfo};
use forebay_engine::worker::WorkerOptions;
use forebay_pipeline::PipelineInstance;
use forebay_worker::runtime::ensure_journal;
use forebay_worker::{Engine, Runtime, RuntimeOptions};

use crate::Unusable;
use crate::job::{self, Loaded};
use crate::places::Places;
use crate::{allocator, memory};

/// What a process is given besides the manifest and its places.
#[derive(Default)]
pub struct Means {
    /// Its name in claims; the host's by default.
    pub worker: Option<String>,
    /// What state, caches, epochs and the Kafka client may take; by default what the manifest says, else half of what there is.
    pub memory: Option<ByteSize>,
    /// Threads that process records; by default one per processor.
    pub threads: Option<u16>,
    /// What it was made from, as whoever started it calls that: written on its dead letters.
    pub template: Option<String>,
    /// Whether a job without state starts at the offsets of its consumer group, whatever the manifest says.
    pub from_group: bool,
}

/// Opens all that a job works with, takes the state folder, and finds what the job's identity is to be. Nothing is stored before all is known to fit: a job
/// that has never run can be repaired in whatever is wrong with it.
pub fn open<L: Log>(
    loaded: &Loaded,
    places: &Places,
    means: &Means,
    open_log: impl Fn(JobTopics) -> anyhow::Result<L>,
) -> anyhow::Result<(Engine<L, PipelineInstance>, JobIdentity)> {
    let store = loaded.checked_store(places)?;
    loaded.take_state_dir(&places.state_dir())?;
    let root = loaded.root(places)?;
    // The number of shards may follow from the partitions, which only the log knows.
    let identity = loaded.identity(&*root)?;
    let known = identity.as_ref().map(|identity| identity.shards).or(loaded.job.shards);
    let log = open_log(loaded.topics(known.unwrap_or(1))).map_err(|error| loaded.name_field(error))?;
    let topics = log.describe().map_err(|error| loaded.name_field(error.into()))?;
    let partitions = topics[0].partitions;
    for topic in &topics[1..loaded.job.inputs.len()] {
        if topic.partitions != partitions {
            let problem = format!("topic {} has {} partitions and {} has {partitions}", topic.name, topic.partitions, topics[0].name);
            let way_out = "inputs of one job need equal counts; repartition one of them, or make two jobs";
            return Err(loaded.of_topic(&topic.name, &problem, way_out).into());
        }
    }
    check_outputs(loaded, &topics, partitions)?;
    if identity.is_none() {
        check_start(loaded, means, &log)?;
        check_is_new(loaded, places, &log, &topics)?;
    }
    let identity = loaded.intended_identity(&*root, loaded.job.shards.unwrap_or_else(|| default_shards(partitions)))?;
    let log = Arc::new(if known == Some(identity.shards) { log } else { open_log(loaded.topics(identity.shards))? });
    let compiled = loaded.compile(means.template.as_deref(), job::tables(&identity), partitions, log.timestamp_limits()?)?;
    let engine = Engine { log, store, pipeline: Arc::new(move |_shard| PipelineInstance::new(compiled.clone())) };
    Ok((engine, identity))
}

/// Starts a process, and settles the job's identity by it: once its journal is there, so that what is wrong with that can be repaired in the manifest.
pub fn start<L: Log>(
    loaded: &Loaded,
    places: &Places,
    identity: &JobIdentity,
    engine: Engine<L, PipelineInstance>,
    options: RuntimeOptions,
) -> anyhow::Result<Runtime> {
    options.check_memory()?;
    ensure_journal(&*engine.log)?;
    loaded.settle_identity(&*loaded.root(places)?, identity)?;
    Ok(Runtime::start(engine, options)?)
}

/// The options of a process that owns no shards yet.
pub fn options(loaded: &Loaded, places: &Places, identity: &JobIdentity, means: Means) -> RuntimeOptions {
    let job = &loaded.job;
    RuntimeOptions {
        memory_bytes_max: means.memory_bytes(loaded),
        give_back: allocator::give_back,
        start_from: job.inputs.iter().map(|input| means.start_from(&input.start_from)).collect(),
        executors: means.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from),
        worker: WorkerOptions {
            worker: WorkerName::new(means.worker.unwrap_or_else(host_name)),
            timeline: loaded.timeline,
            commit_interval: job.commit.interval,
            commit_interval_behind: job.commit.interval.max(Duration::from_secs(1)),
            checkpoints_retained: job.checkpoint.retained as usize,
            heartbeat: Duration::from_secs(24 * 3600),
            watch: Duration::from_secs(5),
            retry: Duration::from_millis(200),
        },
        process: uuid::Uuid::new_v4().simple().to_string(),
        assignment: (VersionRule::AboveAll, BTreeSet::new()),
        shards: identity.shards,
        revision: loaded.revision(),
        state_dir: places.state_dir(),
        epoch_bytes_max: usize::try_from(job.commit.bytes_max).unwrap_or(usize::MAX),
        checkpoint_interval: job.checkpoint.interval,
        checkpoint_pause: job.checkpoint.min_pause,
        checkpoints_concurrent: job.checkpoint.concurrent_max as usize,
        garbage_grace: RuntimeOptions::GARBAGE_GRACE,
        lifetimes: job::lifetimes(job, &job::tables(identity)),
    }
}

/// A `--memory`, within what a manifest may say too.
pub fn memory_size(text: &str) -> Result<ByteSize, String> {
    let size = text.parse::<ByteSize>().map_err(|error| error.to_string())?;
    let [least, most] = STATE_MEMORY_RANGE;
    if (least..=most).contains(&size) { Ok(size) } else { Err(format!("{size} is not between {least} and {most}")) }
}

/// A `--worker`. It becomes part of an incarnation, and that one of transactional ids and of objects' names.
pub fn worker_name(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.chars().all(is_in_names) {
        return Ok(text.to_owned());
    }
    Err("a worker's name has letters, digits, `.`, `_` and `-` only".into())
}

fn is_in_names(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

impl Means {
    /// How many bytes the process may use.
    pub fn memory_bytes(&self, loaded: &Loaded) -> usize {
        let said = self.memory.map(ByteSize::get).or(loaded.job.state_memory_bytes);
        usize::try_from(said.unwrap_or_else(|| memory::limit(Path::new("/")) / 2)).unwrap_or(usize::MAX)
    }

    fn start_from(&self, declared: &DeclaredStart) -> StartFrom {
        match declared {
            _ if self.from_group => StartFrom::Group,
            DeclaredStart::Earliest => StartFrom::Earliest,
            DeclaredStart::Latest => StartFrom::Latest,
            DeclaredStart::Group => StartFrom::Group,
            DeclaredStart::Timestamp(time) => StartFrom::Timestamp(Timestamp::from_millis(time.as_millisecond())),
        }
    }
}

/// A job that has never run, and cannot find where to start, says so at once: its shards would try it for ever.
fn check_start<L: Log>(loaded: &Loaded, means: &Means, log: &L) -> anyhow::Result<()> {
    for (input, declared) in (0..).map(InputId::new).zip(&loaded.job.inputs) {
        match log.start_positions(input, means.start_from(&declared.start_from)) {
            Err(error @ LogError::Missing { .. }) => return Err(Unusable(error.to_string()).into()),
            found => drop(found?),
        }
    }
    Ok(())
}

/// Refuses a job without an identity whose journal, the last of its topics, has records: without that nobody knows which tables and inputs they speak of.
pub fn check_is_new<L: Log>(loaded: &Loaded, places: &Places, log: &L, topics: &[TopicInfo]) -> anyhow::Result<()> {
    let Some(journal) = topics.last() else { return Ok(()) };
    let shards: Vec<ShardId> = (0..journal.partitions).map(ShardId::new).collect();
    let is_empty = log.journal_ends(&shards)?.iter().all(|end| *end == JournalOffset::default());
    // Another process may have begun the job meanwhile. It stores the identity before it writes to the journal.
    if is_empty || loaded.identity(&*loaded.root(places)?)?.is_some() {
        return Ok(());
    }
    let to_begin_anew = match places.cluster(&loaded.job)? {
        Some(_) => "call `forebay cleanup --delete`",
        None => "name another working folder, by --dir, or delete this one: its inputs go with it",
    };
    Err(Unusable(format!(
        "the journal {} has records of this job, and the object store does not know the job (identity/ is missing); name the store that it ran with, by \
         --store, or bring back what lay below the job's prefix; to begin anew {to_begin_anew}",
        journal.name
    ))
    .into())
}

/// Outputs that take over their records' partitions need as many as the inputs have.
fn check_outputs(loaded: &Loaded, topics: &[TopicInfo], partitions: u32) -> anyhow::Result<()> {
    for (emit, topic) in by_input_partition(&loaded.job.pipeline) {
        match topics.iter().find(|info| info.name == topic) {
            Some(info) if info.partitions < partitions => {
                let found = info.partitions;
                let problem =
                    format!("`input` needs topic {topic} to have as many partitions as the inputs, {partitions}, and it has {found}");
                let way_out = format!(
                    "give it more (`kafka-topics.sh --alter --topic {topic} --partitions {partitions}`), or leave `partitioner` out"
                );
                return Err(loaded.of_field(&emit.key("partitioner"), &problem, &way_out).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The topics of these outputs, and where in the manifest their steps stand.
fn by_input_partition(steps: &[Step]) -> Vec<(Field, &str)> {
    let mut emits: Vec<(Field, &Emit)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let at = Field::spec().key("pipeline").index(index);
        match step {
            Step::Emit(emit) => emits.push((at.key("emit"), emit)),
            Step::Route(routes) => {
                let at = at.key("route");
                emits.extend(routes.iter().enumerate().map(|(index, route)| (at.index(index).key("emit"), &route.emit)));
            }
            _ => {}
        }
    }
    emits.retain(|(_, emit)| emit.partitioner == Partitioner::Input);
    emits.into_iter().map(|(at, emit)| (at, emit.topic.as_str())).collect()
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().replace(|character| !is_in_names(character), "-");
    if name.is_empty() { "forebay".into() } else { name }
}
