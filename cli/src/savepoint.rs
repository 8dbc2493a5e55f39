//! `forebay savepoint`: copies of a job's state that outlive it; and how a new job begins with one.

use std::fmt;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use forebay_crds::JobIdentity;
use forebay_engine::ids::{ShardId, WorkerName};
use forebay_engine::log::{JobTopics, Log};
use forebay_engine::restore::RestoreError;
use forebay_engine::store::{Body, ObjectStore, Put};
use forebay_worker::rewind::{History, RewindError};
use forebay_worker::savepoint::{self, Savepoint};
use serde::Serialize;

use crate::Unusable;
use crate::engine::{self, Means};
use crate::job::{self, Loaded};
use crate::output::Output;
use crate::places::Places;
use crate::run::{open_kafka, open_local};

/// The identity of the job that a savepoint is of: the names by which its state knows inputs and tables.
pub const IDENTITY: &str = "identity.json";

#[derive(Subcommand)]
pub enum SavepointCommand {
    /// Copy the newest checkpoint of every shard to where it needs nothing of the job; the job may run meanwhile, or rest
    #[command(after_help = "\
Examples:
  forebay savepoint take -f job.yaml --name before-the-change
  forebay savepoint take -f job.yaml --name before-the-change --store s3://bucket/prefix -o json
  forebay savepoint take -f job.yaml --name the-end --at-rest

A job whose manifest says `spec.state.fromSavepoint: NAMESPACE/JOB/NAME` begins with it.")]
    Take(Take),
    /// Delete a savepoint of this job
    #[command(after_help = "\
Examples:
  forebay savepoint delete -f job.yaml --name before-the-change")]
    Delete(Delete),
}

#[derive(Args)]
pub struct Take {
    #[command(flatten)]
    places: Places,
    /// Its name; one that is there already is left as it is
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Shards, such as 2,5, that are known to have no state, for they have never had a record: there is nothing to copy of them
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    empty: Vec<u32>,
    /// Of a job that rests: take what its shards hold at the end of their journals, instead of their newest checkpoints
    #[arg(long, conflicts_with = "empty")]
    at_rest: bool,
    /// Take none: only say whether it is there
    #[arg(long, conflicts_with_all = ["empty", "at_rest"])]
    existing: bool,
}

#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    places: Places,
    /// Its name
    #[arg(long, value_name = "NAME")]
    name: String,
}

impl SavepointCommand {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Take(command) => command.execute(output),
            Self::Delete(command) => command.execute(output),
        }
    }
}

/// What `savepoint take` prints.
#[derive(Serialize)]
struct Taken<'a> {
    path: String,
    #[serde(flatten)]
    savepoint: &'a Savepoint,
}

impl fmt::Display for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = &self.savepoint.shards;
        let (records, bytes) = shards.iter().fold((0, 0), |(records, bytes), shard| (records + shard.records_in, bytes + shard.bytes));
        write!(f, "savepoint {}: {} shards, {records} records, {bytes} bytes", self.path, shards.len())
    }
}

impl Take {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        check_name(&self.name)?;
        let mut loaded = job::open(&self.places)?;
        let identity = loaded.identity_or_say(&*loaded.root(&self.places)?)?;
        let path = format!("{}/{}/{}", loaded.job.namespace, loaded.job.name, self.name);
        let to = place(&loaded, &self.places, &path)?;
        if self.existing {
            let found = savepoint::read(&*to)?;
            let savepoint = found.ok_or_else(|| Unusable(format!("savepoint {path}: there is none in this object store; take another")))?;
            return output.print(&Taken { path, savepoint: &savepoint });
        }
        let _ = to.put(IDENTITY, &Body::Bytes(identity.encode()))?;
        let savepoint = if self.at_rest {
            loaded.order_inputs(&self.places)?;
            let topics = loaded.topics(identity.shards);
            match self.places.cluster(&loaded.job)? {
                Some(cluster) => {
                    let memory = Means::default().memory_bytes(&loaded);
                    self.take_at_rest(&loaded, &*to, open_kafka(&cluster, topics, memory)?)?
                }
                None => self.take_at_rest(&loaded, &*to, open_local(&self.places, topics)?)?,
            }
        } else {
            let scratch = scratch()?;
            let from = loaded.store(&self.places)?;
            let shards = (0..identity.shards).filter(|shard| !self.empty.contains(shard)).map(ShardId::new);
            savepoint::take(&*from, &*to, &loaded.uid(), shards, scratch.path())?
        };
        output.print(&Taken { path, savepoint: &savepoint })
    }

    /// What the newest checkpoints do not hold yet is in the journal alone.
    fn take_at_rest<L: Log>(&self, loaded: &Loaded, to: &dyn ObjectStore, log: L) -> anyhow::Result<Savepoint> {
        let shards = loaded.identity_or_say(&*loaded.root(&self.places)?)?.shards;
        let history = History::new(Arc::new(log), loaded.store(&self.places)?, loaded.timeline, WorkerName::new("savepoint"))?;
        let by = savepoint::seeder();
        savepoint::make(to, &loaded.uid(), (0..shards).map(ShardId::new), |shard| {
            match history.save(shard, loaded.job.inputs.len(), to, &by, scratch()?.path()) {
                Err(RewindError::Restore(error @ RestoreError::Gone { .. })) => Err(Unusable(error.to_string()).into()),
                saved => Ok(saved?),
            }
        })
    }
}

fn scratch() -> anyhow::Result<tempfile::TempDir> {
    tempfile::tempdir().context("make a temporary folder; name another by TMPDIR")
}

/// What `savepoint delete` prints.
#[derive(Serialize)]
struct Deleted {
    path: String,
    objects: usize,
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "savepoint {}: {} objects are deleted", self.path, self.objects)
    }
}

impl Delete {
    fn execute(&self, output: Output) -> anyhow::Result<()> {
        check_name(&self.name)?;
        let loaded = job::load(&self.places.file)?;
        let path = format!("{}/{}/{}", loaded.job.namespace, loaded.job.name, self.name);
        let objects = savepoint::delete(&*place(&loaded, &self.places, &path)?)?;
        output.print(&Deleted { path, objects })
    }
}

fn check_name(name: &str) -> anyhow::Result<()> {
    forebay_crds::validate::check_savepoint_name(name).map_err(|way_out| Unusable(format!("--name {name}: {way_out}")).into())
}

/// Gives a job that has never run, and is to begin with a savepoint, its identity and its first checkpoints. Several processes may do so at once: the
/// checkpoints that they make are equal, and one of them gives the identity, last of all.
pub fn begin<L: Log>(loaded: &Loaded, places: &Places, open: impl Fn(JobTopics) -> anyhow::Result<L>) -> anyhow::Result<()> {
    let Some(path) = &loaded.job.from_savepoint else { return Ok(()) };
    let root = loaded.root(places)?;
    if loaded.identity(&*root)?.is_some() {
        return Ok(());
    }
    let from = place(loaded, places, path)?;
    let savepoint = savepoint::read(&*from).with_context(|| format!("savepoint {path}"))?;
    let savepoint = savepoint.ok_or_else(|| {
        Unusable(format!("spec.state.fromSavepoint: there is no savepoint {path} in this object store; write what an IngestionSavepoint's status.path says"))
    })?;
    let identity = JobIdentity::decode(&from.get(IDENTITY)?).with_context(|| format!("savepoint {path}"))?;
    let mut identity = identity.of_heir(&loaded.uid(), &loaded.job);
    loaded.refuse_as_heir(&identity)?;
    identity.assign_tables(&loaded.job)?;
    let log = open(loaded.topics(identity.shards)).map_err(|error| loaded.name_field(error))?;
    let topics = log.describe().map_err(|error| loaded.name_field(error.into()))?;
    engine::check_is_new(loaded, places, &log, &topics)?;
    let (to, by) = (loaded.store(places)?, savepoint::seeder());
    for shard in &savepoint.shards {
        let scratch = scratch()?;
        savepoint::seed(&*from, shard, (&*to, loaded.timeline), &by, scratch.path())
            .with_context(|| format!("shard {} of savepoint {path}", shard.shard))?;
    }
    match root.put("identity/000001.json", &Body::Bytes(identity.encode()))? {
        Put::Created => tracing::info!(path, shards = savepoint.shards.len(), "the job begins with a savepoint"),
        Put::AlreadyThere => tracing::info!(path, "another worker has begun the job with the savepoint"),
    }
    Ok(())
}

/// Where a savepoint lies, in the job's own bucket or folder.
pub fn place(loaded: &Loaded, places: &Places, path: &str) -> anyhow::Result<std::sync::Arc<dyn ObjectStore>> {
    let (job, name) = path.rsplit_once('/').expect("a savepoint's path has been checked");
    places.store(&loaded.job, &format!("{job}/savepoints/{name}"))
}
