//! `forebay rewind`: a job goes on from an earlier state, in a new timeline. The old one is kept as it is, and nobody can go on with it.

use std::fmt;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use forebay_crds::JobIdentity;
use forebay_engine::ids::{Incarnation, InputId, ShardId, Timeline, Timestamp, WorkerName};
use forebay_engine::journal::Stamp;
use forebay_engine::log::{JobTopics, Log, StartFrom, TopicInfo};
use forebay_engine::restore::{RestoreError, Until};
use forebay_engine::store::ObjectStore;
use forebay_worker::rewind::{History, RewindError};
use forebay_worker::savepoint::{self, Savepoint};
use jiff::Timestamp as Time;
use serde::Serialize;

use crate::job::{self, Loaded};
use crate::output::Output;
use crate::places::Places;
use crate::run::{open_kafka, open_local};
use crate::savepoint::{IDENTITY, place};
use crate::timelines::{self, Beginning};
use crate::{Unusable, engine};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay rewind -f job.yaml --id before-the-bug --to-time 2026-11-26T09:00:00Z
  forebay rewind -f job.yaml --id before-the-bug --to-savepoint default/flights/nightly

The job must not run. State, books and places in the inputs become those of then; what was put out since stays out, and comes out once more when the \
inputs are processed again. A rewind that was done is not done again: another one has another id.")]
pub struct Rewind {
    #[command(flatten)]
    places: Places,
    /// Names this rewind
    #[arg(long, value_name = "ID")]
    id: String,
    /// The savepoint to go back to, NAMESPACE/JOB/NAME: one of this job's own
    #[arg(long, value_name = "PATH", required_unless_present = "to_time", conflicts_with = "to_time")]
    to_savepoint: Option<String>,
    /// The time to go back to: each shard to its last epoch of then or before, by the epochs' own clocks
    #[arg(long, value_name = "TIME")]
    to_time: Option<Time>,
}

/// What `rewind` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rewound {
    id: String,
    timeline: Timeline,
    to: String,
    records_in: Option<u64>,
}

impl fmt::Display for Rewound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, timeline, to, .. } = self;
        match self.records_in {
            Some(records) => {
                write!(f, "rewind {id}: the job goes on from {to}, with {records} records in its books, in timeline {timeline}")
            }
            None => write!(f, "rewind {id} was done before: the job went on from {to}, in timeline {timeline}"),
        }
    }
}

/// Where to go back to.
enum Target {
    Savepoint(Arc<dyn ObjectStore>, Savepoint),
    Time(Timestamp),
}

impl Rewind {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let mut loaded = job::open(&self.places)?;
        let root = loaded.root(&self.places)?;
        if let Some(Beginning { timeline, to, .. }) = timelines::all(&*root)?.into_iter().find(|beginning| beginning.rewind == self.id) {
            return output.print(&Rewound { id: self.id.clone(), timeline, to, records_in: None });
        }
        let identity = loaded.identity_or_say(&*root)?;
        loaded.order_inputs(&self.places)?;
        let target = self.target(&loaded, &identity)?;
        let rewound = match self.places.cluster(&loaded.job)? {
            Some(cluster) => {
                let memory = engine::Means::default().memory_bytes(&loaded);
                self.rewind(&loaded, &identity, &target, |topics| open_kafka(&cluster, topics, memory))
            }
            None => self.rewind(&loaded, &identity, &target, |topics| open_local(&self.places, topics)),
        };
        output.print(&rewound?)
    }

    fn target(&self, loaded: &Loaded, identity: &JobIdentity) -> anyhow::Result<Target> {
        let Some(path) = &self.to_savepoint else {
            let time = self.to_time.expect("one of both is required");
            if time > Time::now() {
                return Err(Unusable(format!("rewind to {time}: that time is still to come; name one that has been")).into());
            }
            return Ok(Target::Time(Timestamp::from_millis(time.as_millisecond())));
        };
        let from = place(loaded, &self.places, path)?;
        let savepoint = savepoint::read(&*from).with_context(|| format!("savepoint {path}"))?;
        let savepoint = savepoint.ok_or_else(|| {
            Unusable(format!("rewind to savepoint {path}: there is none in this object store; name one that is there, as status.path of an IngestionSavepoint says it"))
        })?;
        let its = JobIdentity::decode(&from.get(IDENTITY)?).with_context(|| format!("savepoint {path}"))?;
        if its.uid != identity.uid {
            let whose = format!("{}/{} of uid {}", its.namespace, its.name, its.uid);
            let way_out = "name one of this job's own, or begin another job with it by spec.state.fromSavepoint";
            return Err(Unusable(format!("rewind to savepoint {path}: it is one of job {whose}; {way_out}")).into());
        }
        let has = |shard: &u32| savepoint.shards.iter().any(|saved| saved.shard.get() == *shard);
        if let Some(missing) = (0..identity.shards).find(|shard| !has(shard)) {
            let why = format!("it holds nothing of shard {missing}, which had never had a record then");
            return Err(
                Unusable(format!("rewind to savepoint {path}: {why}; go back to a time after it had, or to a later savepoint")).into()
            );
        }
        Ok(Target::Savepoint(from, savepoint))
    }

    /// First all that may fail, of which nobody takes notice; then the old timeline ends; then the new one begins.
    fn rewind<L: Log>(
        &self,
        loaded: &Loaded,
        identity: &JobIdentity,
        target: &Target,
        open: impl Fn(JobTopics) -> anyhow::Result<L>,
    ) -> anyhow::Result<Rewound> {
        let root = loaded.root(&self.places)?;
        let log = Arc::new(open(loaded.topics(identity.shards))?);
        let topics = log.describe()?;
        let history = History::new(log.clone(), loaded.store(&self.places)?, loaded.timeline, WorkerName::new("rewind"))?;
        let timeline = timelines::reserve(&*root, &self.id)?;
        let (next, by) = (loaded.store_of(&self.places, timeline)?, savepoint::seeder());
        let seeds = Seeds { history: &history, inputs: loaded.job.inputs.len(), next: (&*next, timeline), by: &by };
        let heads = seeds.sow(target, identity.shards)?;
        for head in &heads {
            check_inputs(&*log, head, &topics[..loaded.job.inputs.len()])?;
        }
        let ended = history.end((0..identity.shards).map(ShardId::new), &uuid::Uuid::new_v4().simple().to_string())?;
        // Nobody should be alive; who is may have claimed again by now.
        if let Some((shard, winner)) = history.stranger(&ended)? {
            return Err(RewindError::Outbid { shard, winner }.into());
        }
        let to = self.to_savepoint.clone().or_else(|| self.to_time.map(|time| time.to_string())).unwrap_or_default();
        timelines::begin(&*root, &Beginning::new(timeline, loaded.timeline, &self.id, to.clone()))?;
        let records_in = heads.iter().map(|head| head.books.records_in).sum();
        Ok(Rewound { id: self.id.clone(), timeline, to, records_in: Some(records_in) })
    }
}

/// The first checkpoints of a new timeline.
struct Seeds<'a, L> {
    history: &'a History<L>,
    inputs: usize,
    next: (&'a dyn ObjectStore, Timeline),
    by: &'a Incarnation,
}

impl<L: Log> Seeds<'_, L> {
    /// Makes them. Returns what they hold, a shard each.
    fn sow(&self, target: &Target, shards: u32) -> anyhow::Result<Vec<Stamp>> {
        let mut heads = Vec::new();
        let mut oldest: Option<Timestamp> = None;
        for shard in (0..shards).map(ShardId::new) {
            let scratch = tempfile::tempdir().context("make a temporary folder; name another by TMPDIR")?;
            match target {
                Target::Savepoint(from, savepoint) => {
                    let saved = savepoint.shards.iter().find(|saved| saved.shard == shard).expect("it has been looked for");
                    heads.push(savepoint::seed(&**from, saved, self.next, self.by, scratch.path())?);
                }
                Target::Time(time) => {
                    match self.history.seed(shard, Until::Clock(*time), self.inputs, self.next, self.by, scratch.path()) {
                        Ok(Some(head)) => heads.push(head),
                        Ok(None) => {
                            let why = "it has never committed anything, so there is no state to go back to";
                            return Err(Unusable(format!("rewind shard {shard}: {why}")).into());
                        }
                        // The others may begin later still.
                        Err(RewindError::Restore(RestoreError::Younger { oldest: its, .. })) => oldest = oldest.max(Some(its)),
                        Err(RewindError::Restore(error @ RestoreError::Gone { .. })) => return Err(Unusable(error.to_string()).into()),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        match (target, oldest) {
            (Target::Time(time), Some(oldest)) => Err(Unusable(format!(
                "rewind to {}: checkpoints and journal are kept from {} on; name that time or a later one, or a savepoint. spec.checkpoint.retained says how \
                 many checkpoints are kept",
                shown(*time),
                shown(Timestamp::from_millis(oldest.as_millis()))
            ))
            .into()),
            (Target::Savepoint(..) | Target::Time(_), _) => Ok(heads),
        }
    }
}

/// The records behind a state must be there still, or its shard could not go on.
pub fn check_inputs<L: Log>(log: &L, head: &Stamp, topics: &[TopicInfo]) -> anyhow::Result<()> {
    for (input, topic) in (0..).map(InputId::new).zip(topics) {
        let was = head.topic_ids.get(usize::from(input.get())).filter(|was| !was.is_empty() && **was != topic.id && !topic.id.is_empty());
        if was.is_some() {
            let why = format!("topic {} was deleted and made anew since, and its offsets mean other records", topic.name);
            return Err(Unusable(format!("shard {}: {why}; go on from a later state", head.owner.shard)).into());
        }
        for first in log.start_positions(input, StartFrom::Earliest)? {
            let of = |position: &&forebay_engine::log::InputPosition| (position.input, position.partition) == (input, first.partition);
            if let Some(wanted) = head.positions.iter().find(of).filter(|wanted| wanted.next < first.next) {
                let why = format!(
                    "it would go on at offset {} of {}-{}, and what is left of that begins at {}",
                    wanted.next, topic.name, first.partition, first.next
                );
                return Err(Unusable(format!("shard {}: {why}; go on from a later state", head.owner.shard)).into());
            }
        }
    }
    Ok(())
}

fn shown(time: Timestamp) -> String {
    Time::from_millisecond(time.as_millis()).map_or_else(|_| format!("{} ms", time.as_millis()), |time| time.to_string())
}
