//! The last look at each job, for people who ask: what was seen, what was decided, and what is waited for. Told as `forebay_api::look` has it. Nothing is decided
//! by it, and nothing is lost with it: the next look comes within a second or with the next change.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_api::look::{Change, Decision, GivenUp, Look, Shard, Worker};
use forebay_api::v1;
use forebay_crds::IngestionJob;
use kube::ResourceExt;

use crate::plan::rewind::Progress;
use crate::plan::rollout::{Judgement, Rollout, judge};
use crate::plan::{self, Action, Answer, Fleet, PodState, REPLACE_TIMEOUT, WORKER_TIMEOUT};
use crate::report::{Verdict, words};

/// As many jobs as one operator is made for. Of more, those that were looked at last are kept.
const JOBS_MAX: usize = 1000;
/// Enough to see what is the matter; the whole story is in events and logs.
const MESSAGE_CHARACTERS_MAX: usize = 1000;

/// The last looks, by namespace and name.
#[derive(Default)]
pub struct Looks(Mutex<BTreeMap<(String, String), Kept>>);

struct Kept {
    at: Instant,
    look: Look,
    decided: Option<(Instant, Vec<String>)>,
}

impl Looks {
    /// Keeps a look. `None` for the fleet: the manifest cannot work, so nothing was looked at.
    pub fn keep(&self, job: &IngestionJob, verdict: &Verdict, fleet: Option<&Fleet>, actions: &[Action], now: Instant) {
        let look = look(job, verdict, fleet, actions);
        let mut kept = self.kept();
        let key = key(job);
        let before = kept.remove(&key).filter(|before| before.look.uid == look.uid).and_then(|before| before.decided);
        let decided = if look.actions.is_empty() { before } else { Some((now, look.actions.clone())) };
        if kept.len() >= JOBS_MAX
            && let Some(oldest) = kept.iter().min_by_key(|(_, kept)| kept.at).map(|(key, _)| key.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(key, Kept { at: now, look, decided });
    }

    /// Adds to the last look why something could not be done.
    pub fn failed(&self, job: &IngestionJob, error: String) {
        if let Some(kept) = self.kept().get_mut(&key(job)) {
            kept.look.error = Some(shortened(error));
        }
    }

    /// Forgets a job that another installation looks after: what was seen of it is no longer so.
    pub fn forget(&self, job: &IngestionJob) {
        self.kept().remove(&key(job));
    }

    /// Whether a job was looked at before, and that is remembered.
    pub fn has(&self, job: &IngestionJob) -> bool {
        self.kept().get(&key(job)).is_some_and(|kept| Some(&kept.look.uid) == job.metadata.uid.as_ref())
    }

    /// The last look at a job with this uid.
    pub fn of(&self, namespace: &str, name: &str, uid: &str, now: Instant) -> Option<Look> {
        let kept = self.kept();
        let kept = kept.get(&(namespace.to_owned(), name.to_owned())).filter(|kept| kept.look.uid == uid)?;
        let decided = kept.decided.as_ref().map(|(at, actions)| Decision { age_millis: millis(now - *at), actions: actions.clone() });
        Some(Look { age_millis: millis(now - kept.at), decided, ..kept.look.clone() })
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<(String, String), Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(job: &IngestionJob) -> (String, String) {
    (job.namespace().unwrap_or_default(), job.name_any())
}

fn look(job: &IngestionJob, verdict: &Verdict, fleet: Option<&Fleet>, actions: &[Action]) -> Look {
    Look {
        uid: job.uid().unwrap_or_default(),
        generation: job.metadata.generation,
        phase: format!("{:?}", verdict.phase),
        reason: verdict.reason.clone(),
        message: shortened(verdict.message.clone()),
        replicas: fleet.map_or(0, |fleet| fleet.replicas),
        shards: fleet.and_then(Fleet::shards),
        change: fleet.map(change),
        workers: fleet.into_iter().flat_map(|fleet| &fleet.workers).map(worker).collect(),
        actions: actions.iter().map(words).map(shortened).collect(),
        waits: fleet.map(waits).unwrap_or_default().into_iter().map(shortened).collect(),
        ..Look::default()
    }
}

fn change(fleet: &Fleet) -> Change {
    let rollout = Rollout::of(fleet);
    let stage = match rollout {
        Rollout::First { .. } => "first",
        Rollout::Steady { .. } => "steady",
        Rollout::Save { .. } => "savepoint",
        Rollout::Canary { .. } => "canary",
        Rollout::Switch { .. } => "switch",
        Rollout::RolledBack { .. } => "rolledBack",
    };
    Change { stage: stage.to_owned(), from: rollout.in_force().to_owned(), to: fleet.template.clone() }
}

fn worker(worker: &plan::Worker) -> Worker {
    let state = match worker.state {
        PodState::Starting => "starting",
        PodState::Ready => "ready",
        PodState::Ending => "ending",
        PodState::Stuck => "stuck",
        PodState::Over => "over",
    };
    let silent = match &worker.answer {
        Answer::Unheard(_) => None,
        Answer::Heard(_) => Some(0),
        Answer::Silent(since, _) => Some(millis(*since)),
    };
    let said = worker.last();
    let assignment = said.and_then(|said| said.assignment.as_ref());
    let given_up = |lost: &v1::GivenUp| GivenUp { shard: lost.shard, version: lost.version, winner: lost.winner.clone() };
    Worker {
        pod: worker.pod.clone(),
        revision: worker.template.clone(),
        state: state.to_owned(),
        restarts: worker.restarts,
        trouble: worker.trouble.as_ref().map(|trouble| shortened(format!("{}: {}", trouble.reason, trouble.words()))),
        silent_millis: silent,
        memory_bytes: said.and_then(|said| said.memory_bytes),
        version: assignment.map_or(0, |assignment| assignment.version),
        assigned: assignment.map(|assignment| assignment.shards.clone()).unwrap_or_default(),
        shards: said.into_iter().flat_map(|said| &said.owned).map(shard).collect(),
        given_up: said.into_iter().flat_map(|said| &said.given_up).map(given_up).collect(),
    }
}

fn shard(shard: &v1::Shard) -> Shard {
    Shard {
        shard: shard.shard,
        phase: shard.phase.clone(),
        epoch: shard.epoch,
        lag_records: shard.lag_records,
        freshness_millis: shard.freshness_millis,
        checkpoint_age_millis: shard.checkpoint_age_millis,
        running_millis: shard.running_millis,
        load_permille: shard.load_permille,
        failure: Some(shard.failure.clone()).filter(|failure| !failure.is_empty()).map(shortened),
        stalled: shard.stalled,
    }
}

/// What stands between the job and what its manifest asks for.
fn waits(fleet: &Fleet) -> Vec<String> {
    let mut all: Vec<String> = fleet.workers.iter().filter_map(waits_for_worker).collect();
    let stale = fleet.workers.iter().filter(|worker| worker.is_live() && worker.is_stale());
    all.extend(stale.map(|worker| format!("{} is to be replaced: a secret has changed since it was started", worker.pod)));
    let shards = || fleet.workers.iter().filter_map(|worker| Some((worker, worker.heard()?)));
    let at_work: Vec<(&str, &v1::Shard)> =
        shards().flat_map(|(worker, said)| said.owned.iter().map(move |shard| (worker.pod.as_str(), shard))).collect();
    for (pod, shard) in at_work.iter().filter(|(_, shard)| shard.phase != "running") {
        let why = if shard.failure.is_empty() { String::new() } else { format!(": {}", shard.failure) };
        all.push(format!("shard {} is {} on {pod}{why}", shard.shard, shard.phase));
    }
    if fleet.replicas > 0 {
        let nobodys = (0..fleet.shards().unwrap_or(0)).filter(|number| at_work.iter().all(|(_, shard)| shard.shard != *number));
        all.extend(nobodys.map(|number| format!("shard {number} is on no worker that answers")));
    }
    if let Some(Progress::Pending(what) | Progress::Rewinding { message: what, .. }) = fleet.rewind() {
        all.push(format!("rewind: {what}"));
    }
    match Rollout::of(fleet) {
        Rollout::Save { to, .. } if fleet.replicas > 0 => {
            let phase = fleet.savepoints.get(to).and_then(|saved| saved.phase).map_or("not begun".to_owned(), |phase| format!("{phase:?}"));
            all.push(format!("revision {to}: the savepoint before it is {phase}"));
        }
        Rollout::Canary { to, .. } | Rollout::Switch { to, .. } if fleet.replicas > 0 => match judge(fleet) {
            Judgement::Waiting(what) => all.push(format!("revision {to}: {what}")),
            Judgement::Healthy | Judgement::Bad(_) => {}
        },
        Rollout::First { .. }
        | Rollout::Steady { .. }
        | Rollout::Save { .. }
        | Rollout::Canary { .. }
        | Rollout::Switch { .. }
        | Rollout::RolledBack { .. } => {}
    }
    all
}

fn waits_for_worker(worker: &plan::Worker) -> Option<String> {
    let pod = &worker.pod;
    if let Some(trouble) = &worker.trouble {
        return Some(format!("{pod} does not come up: {}: {}", trouble.reason, trouble.words()));
    }
    match (worker.state, &worker.answer) {
        (PodState::Ending, _) => Some(format!("{pod} is being deleted, and releases its shards")),
        (PodState::Stuck, _) => {
            Some(format!("{pod} was to be gone by now: its node may be lost, or its kubelet; it is told to release its shards"))
        }
        (PodState::Over, _) => Some(format!("{pod} has ended, and is replaced")),
        (PodState::Starting | PodState::Ready, Answer::Unheard(_)) => Some(format!("{pod} has not answered yet")),
        (PodState::Starting | PodState::Ready, Answer::Silent(since, _)) => {
            let (so_far, lost, gone) = (since.as_secs(), WORKER_TIMEOUT.as_secs(), REPLACE_TIMEOUT.as_secs());
            Some(format!("{pod} has been silent for {so_far} s: after {lost} s its shards go to others, after {gone} s it is replaced"))
        }
        (PodState::Starting | PodState::Ready, Answer::Heard(_)) => None,
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(MESSAGE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
