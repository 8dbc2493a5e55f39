//! `forebay run`: a job in this process.

mod last_checkpoint;
mod watch;

use std::collections::BTreeSet;

use anyhow::Context;
use clap::Args;
use clap::builder::BoolishValueParser;
use forebay_engine::ids::ShardId;
use forebay_engine::log::{JobTopics, Log, LogError};
use forebay_kafka::{KafkaLog, KafkaOptions, Severity};
use forebay_local::{LocalLog, LocalLogOptions};

use crate::Unusable;
use crate::adopt;
use crate::engine::{self, Means};
use crate::job::{self, Loaded};
use crate::output::Output;
use crate::places::{Cluster, Places};
use crate::savepoint;
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
to a later start; 4 with --until-end, shards are stalled and need help; 75 a server was not reached or gave no answer, or the disk of an embedded log is full: trying again may help; \
130 ended at once by a second signal, nothing is lost by it.")]
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

    /// The memory that the process may hold, from 16Mi to 1Ti; kept to from 256Mi on [default: spec.state.memory, else half of the container's or machine's memory]
    #[arg(long, value_name = "SIZE", env = "FOREBAY_MEMORY", value_parser = engine::memory_size)]
    memory: Option<forebay_crds::ByteSize>,

    /// Threads that process records [default: one per processor]
    #[arg(long, value_name = "N", env = "FOREBAY_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// This process's name in claims, logs and metrics [default: the host's name]
    #[arg(long, value_name = "NAME", env = "FOREBAY_WORKER", value_parser = engine::worker_name)]
    worker: Option<String>,

    /// What this process was made from, a build's version, say: written on its dead letters, so that those of one can be put back
    #[arg(long, value_name = "NAME", env = "FOREBAY_TEMPLATE")]
    template: Option<String>,

    /// Serve /metrics, /healthz and /readyz here, such as 127.0.0.1:9090
    #[arg(long, value_name = "ADDRESS", env = "FOREBAY_METRICS")]
    metrics: Option<std::net::SocketAddr>,

    /// Log as JSON lines instead of text; RUST_LOG says how much (default: warn on a terminal, else info)
    #[arg(long, env = "FOREBAY_LOG_JSON", value_parser = BoolishValueParser::new())]
    pub log_json: bool,
}

impl Run {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let mut loaded = job::open(&self.places)?;
        adopt::check(&*loaded.root(&self.places)?)?;
        let cluster = self.places.cluster(&loaded.job)?;
        let memory = self.means().memory_bytes(&loaded);
        match &cluster {
            Some(cluster) => {
                adopt::begin(&loaded, &self.places, |topics| open_kafka(cluster, topics, memory))?;
                savepoint::begin(&loaded, &self.places, |topics| open_kafka(cluster, topics, memory))?;
            }
            None if loaded.job.adopt.is_some() => {
                return Err(Unusable(
                    "spec.state.adopt: a state is adopted with its journal, which lies in Kafka; name the brokers by --kafka".into(),
                )
                .into());
            }
            None => savepoint::begin(&loaded, &self.places, |topics| open_local(&self.places, topics))?,
        }
        loaded.order_inputs(&self.places)?;
        match cluster {
            Some(cluster) => {
                let shards = loaded.job.shards.unwrap_or(1);
                check_kafka(&loaded, &open_kafka(&cluster, loaded.topics(shards), memory)?)?;
                self.run(&loaded, output, |topics| open_kafka(&cluster, topics, memory))
            }
            None => self.run(&loaded, output, |topics| open_local(&self.places, topics)),
        }
    }

    fn run<L: Log>(&self, loaded: &Loaded, output: Output, open: impl Fn(JobTopics) -> anyhow::Result<L>) -> anyhow::Result<()> {
        let means = self.means();
        let (engine, identity) = engine::open(loaded, &self.places, &means, open)?;
        let log = engine.log.clone();
        let mut options = engine::options(loaded, &self.places, &identity, means);
        options.assignment.1 = match &self.shards {
            Some(list) => parse_shards(list, identity.shards)?,
            None => (0..identity.shards).map(ShardId::new).collect(),
        };
        let goal = if self.until_end { Some(Goal::of(&*log, &options)?) } else { None };
        let owned = options.assignment.1.clone();
        let runtime = engine::start(loaded, &self.places, &identity, engine, options)?;
        let _metrics = self
            .metrics
            .map(|address| forebay_worker::http::serve(address, runtime.status().clone()))
            .transpose()
            .context("serve metrics")?;
        watch(runtime, &owned, goal, &|| log.broken(), &Ending { checkpoint: self.checkpoint_on_stop, output })
    }

    fn means(&self) -> Means {
        let (worker, template) = (self.worker.clone(), self.template.clone());
        Means { worker, memory: self.memory, threads: self.threads, template, from_group: self.from_group }
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

/// Warns of what may hurt, refuses what would break the guarantees. What is about a topic names the field of the manifest that does.
pub fn check_kafka(loaded: &Loaded, log: &KafkaLog) -> anyhow::Result<()> {
    let (mut errors, mut may_pass) = (Vec::new(), true);
    for finding in log.preflight() {
        match finding.severity {
            Severity::Warning => tracing::warn!(way_out = finding.way_out, "{}", finding.problem),
            Severity::Error => {
                may_pass &= finding.may_pass;
                errors.push(match &finding.topic {
                    Some(topic) => loaded.of_topic(topic, &finding.problem, &finding.way_out).0.remove(0).to_string(),
                    None => finding.to_string(),
                });
            }
        }
    }
    let reason = errors.join("\n");
    match (errors.is_empty(), may_pass) {
        (true, _) => Ok(()),
        (false, true) => Err(LogError::Unavailable { action: "check the Kafka cluster".into(), reason }.into()),
        (false, false) => Err(Unusable(format!("the Kafka cluster cannot run this job:\n{reason}")).into()),
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
