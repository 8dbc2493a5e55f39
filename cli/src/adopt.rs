//! How a job goes on with the state that another one has left in the bucket: one of a cluster that is lost, say. First the other one's history is ended, as a
//! rewind ends one; then it is seen whether anybody protests, who is alive; then its state as it was at its end becomes the new job's.
//!
//! Several workers may do so at once: they bar each other, and one of them comes to the end. `adopted.json` in the old place is create-only, so that
//! one job alone adopts a state, and from then on no worker of the old job starts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use forebay_crds::JobIdentity;
use forebay_engine::ids::{ShardId, Timeline, WorkerName};
use forebay_engine::log::{JobTopics, Log};
use forebay_engine::restore::{RestoreError, Until};
use forebay_engine::store::{Body, ObjectStore, Put, StoreError};
use forebay_kafka::KafkaLog;
use forebay_worker::rewind::{History, RewindError};
use forebay_worker::savepoint::seeder;
use serde::{Deserialize, Serialize};

use crate::job::{Loaded, newest_identity};
use crate::places::Places;
use crate::rewind::check_inputs;
use crate::{Unusable, timelines};

/// The format that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;
/// In the old job's place: who has adopted its state.
const ADOPTED: &str = "adopted.json";
/// Who is alive has met the claims within this: an idle owner looks at its journals every five seconds and gives up with a release mark, and its operator
/// looks at it once a second.
const PROTEST: Duration = Duration::from_secs(15);
/// How often it is looked meanwhile.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Adopted {
    format: u32,
    /// The uid of the job that goes on with it.
    by: String,
}

/// Refuses to work on a state that another job has adopted.
pub fn check(root: &dyn ObjectStore) -> anyhow::Result<()> {
    match adopter(root)? {
        None => Ok(()),
        Some(by) => {
            Err(Unusable(format!("the state of this job was adopted by the job of uid {by}, which goes on with it; delete this one"))
                .into())
        }
    }
}

/// Gives a job that has never run, and is to adopt a state, its identity and its first checkpoints.
pub fn begin(loaded: &Loaded, places: &Places, open: impl Fn(JobTopics) -> anyhow::Result<KafkaLog>) -> anyhow::Result<()> {
    let Some(path) = &loaded.job.adopt else { return Ok(()) };
    let root = loaded.root(places)?;
    if loaded.identity(&*root)?.is_some() {
        return Ok(());
    }
    let old = places.store(&loaded.job, path)?;
    let was = newest_identity(&*old)?.ok_or_else(|| {
        Unusable(format!(
            "spec.state.adopt: no job has left its state at {path} in this object store; write NAMESPACE/JOB/UID as it lies there"
        ))
    })?;
    if let Some(by) = adopter(&*old)?.filter(|by| *by != loaded.uid()) {
        return Err(
            Unusable(format!("spec.state.adopt: the state at {path} was adopted by the job of uid {by} before; adopt that one's")).into()
        );
    }
    let mut identity = was.clone().of_heir(&loaded.uid(), &loaded.job);
    loaded.refuse_as_heir(&identity)?;
    identity.assign_tables(&loaded.job)?;
    let timeline = timelines::current(&*old)?.map_or(Timeline::default(), |beginning| beginning.timeline);
    let journal = format!("forebay.{}.{timeline}.journal", was.uid);
    let inputs = was.inputs.iter().map(|input| input.topic.clone()).collect();
    let topics = JobTopics { uid: was.uid.clone(), journal: journal.clone(), inputs, ..loaded.topics(was.shards) };
    let log = Arc::new(open(topics)?);
    let store = places.store(&loaded.job, &format!("{path}/{timeline}"))?;
    let history = History::new(log.clone(), store, timeline, worker(loaded))?;
    if !history.has_journal() {
        let why = format!("the state at {path} has its journal in topic {journal}, and there is none");
        return Err(
            Unusable(format!("spec.state.adopt: {why}; name the Kafka that the job ran on, or begin with one of its savepoints")).into()
        );
    }
    end(&history, &was, loaded, path)?;
    seed(&history, &log, &was, loaded, places)?;
    settle(&*old, &*root, &identity, path)?;
    // Whoever is still at work on it, on a machine that was frozen, then finds nothing to write to.
    if let Err(error) = log.delete_journals(std::slice::from_ref(&journal)) {
        tracing::warn!(%error, journal, "the journal of the job whose state was adopted is not deleted; delete that topic");
    }
    Ok(())
}

/// By this name a job claims what it adopts, so that its workers know each other.
fn worker(loaded: &Loaded) -> WorkerName {
    WorkerName::new(format!("adopt-{}", loaded.uid()))
}

fn end(history: &History<KafkaLog>, was: &JobIdentity, loaded: &Loaded, path: &str) -> anyhow::Result<()> {
    let (me, process) = (worker(loaded), uuid::Uuid::new_v4().simple().to_string());
    let judge = |shard: ShardId, who: WorkerName| -> anyhow::Error {
        if who == me {
            return anyhow::anyhow!("another worker of this job adopts the state at {path} at the same time; one of both goes on");
        }
        let way_out = "delete or suspend that job where it runs, with its operator; this one goes on by itself then";
        Unusable(format!(
            "spec.state.adopt: the job whose state lies at {path} is alive: {who} has claimed shard {shard} meanwhile; {way_out}"
        ))
        .into()
    };
    let ended = match history.end((0..was.shards).map(ShardId::new), &process) {
        Err(RewindError::Outbid { shard, winner }) => return Err(judge(shard, winner)),
        ended => ended?,
    };
    let begin = Instant::now();
    while begin.elapsed() < PROTEST {
        if let Some((shard, who)) = history.stranger(&ended)? {
            return Err(judge(shard, who));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn seed(history: &History<KafkaLog>, log: &KafkaLog, was: &JobIdentity, loaded: &Loaded, places: &Places) -> anyhow::Result<()> {
    let (next, by) = (loaded.store(places)?, seeder());
    let inputs = was.inputs.len();
    let topics = log.describe()?;
    for shard in (0..was.shards).map(ShardId::new) {
        let scratch = tempfile::tempdir().context("make a temporary folder; name another by TMPDIR")?;
        match history.seed(shard, Until::End, inputs, (&*next, loaded.timeline), &by, scratch.path()) {
            Ok(Some(head)) => check_inputs(log, &head, &topics[..inputs])?,
            Ok(None) => {}
            Err(RewindError::Restore(error @ RestoreError::Gone { .. })) => return Err(Unusable(error.to_string()).into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// From here on the new job goes on with it, and nobody else.
fn settle(old: &dyn ObjectStore, root: &dyn ObjectStore, identity: &JobIdentity, path: &str) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(&Adopted { format: FORMAT, by: identity.uid.clone() }).expect("it has string keys only");
    if old.put(ADOPTED, &Body::Bytes(text))? == Put::AlreadyThere
        && let Some(by) = adopter(old)?.filter(|by| *by != identity.uid)
    {
        return Err(Unusable(format!("spec.state.adopt: the job of uid {by} was faster, and has adopted the state at {path}")).into());
    }
    match root.put("identity/000001.json", &Body::Bytes(identity.encode()))? {
        Put::Created => tracing::info!(path, "the job has adopted a state"),
        Put::AlreadyThere => tracing::info!(path, "another worker has adopted the state"),
    }
    Ok(())
}

fn adopter(old: &dyn ObjectStore) -> anyhow::Result<Option<String>> {
    let bytes = match old.get(ADOPTED) {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Adopted { format, by } = serde_json::from_slice(&bytes).with_context(|| format!("object {ADOPTED}"))?;
    anyhow::ensure!(format == FORMAT, "object {ADOPTED}: format {format} is unknown to this version, which reads format {FORMAT}");
    Ok(Some(by))
}
