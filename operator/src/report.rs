//! What people and tools are told: status, conditions as kstatus has them, events. Pure.

mod events;
mod secrets;

use std::time::Duration;

use forebay_api::v1::Shard;
use forebay_crds::job::{IngestionJobStatus, Phase, RewindPhase, RewindStatus};
use forebay_crds::{Finding, IngestionJob, TimeSpan};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::observe::Seen;
use crate::plan::letters::Letters;
use crate::plan::rewind::Progress;
use crate::plan::rollout::{Judgement, Rollout, Standing, judge};
use crate::plan::{Fleet, Trouble};
use crate::resources::PAUSED_ANNOTATION;

pub use events::{News, news, words};

/// So much later than it was a checkpoint may seem to have been taken: a worker's answer may be two seconds on its way, those of the others are waited for
/// as long, and status times have whole seconds. A checkpoint that is newer by less than that is seldom, and nobody reads it so exactly.
const CHECKPOINT_PRECISION: Duration = Duration::from_secs(5);

/// The reason of a job that runs on fewer workers than it should.
const WORKER_MISSING: &str = "WorkerMissing";

/// How a job is, in one word, one reason and one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The word.
    pub phase: Phase,
    /// Why, as one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

impl Verdict {
    fn new(phase: Phase, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { phase, reason: reason.into(), message: message.into() }
    }

    /// Of a spec that cannot work.
    pub fn invalid(findings: &[Finding]) -> Self {
        Self::new(Phase::Stalled, "InvalidSpec", lines(findings))
    }

    /// Of a spec that would work, but not with the state that the job has.
    pub fn contradicts_state(findings: &[Finding]) -> Self {
        let message = format!("{}. The change is not tried; the revision before it goes on", lines(findings));
        Self::new(Phase::Stalled, "ChangeRefused", message)
    }

    /// Of what is seen of a job.
    pub fn of(seen: &Seen) -> Self {
        let verdict = Self::but_for_a_rewind(&seen.fleet);
        match (seen.fleet.rewind(), verdict.phase) {
            (Some(Progress::Rewinding { message, .. }), _) => Self::new(Phase::Rewinding, "Rewinding", message),
            _ if seen.fleet.is_rewinding() => {
                Self::new(Phase::Rewinding, "RewindEnds", "the pod of a rewind that has failed, or is no longer asked for, is ended first")
            }
            (Some(Progress::Failed(why)), Phase::Running | Phase::Suspended) => Self::new(
                Phase::Stalled,
                "RewindFailed",
                format!(
                    "{why}. The job is as it was before; to try it again write another spec.state.rewind.id, else delete spec.state.rewind"
                ),
            ),
            _ => verdict,
        }
    }

    fn but_for_a_rewind(fleet: &Fleet) -> Self {
        if fleet.replicas == 0 {
            return Self::suspended(fleet.workers.len());
        }
        let verdict = Self::of_workers(fleet);
        match (Rollout::of(fleet), verdict.phase) {
            (Rollout::Save { to, .. }, Phase::Running | Phase::Starting) => {
                Self::new(Phase::Upgrading, "SavepointFirst", format!("revision {to}: a savepoint is taken before anything changes"))
            }
            (Rollout::Canary { to, .. }, Phase::Running | Phase::Starting) => {
                Self::new(Phase::Upgrading, "CanaryObserved", waits(fleet, to))
            }
            (Rollout::Switch { to, .. }, Phase::Running | Phase::Starting) => {
                Self::new(Phase::Upgrading, "WorkersFollow", waits(fleet, to))
            }
            (Rollout::RolledBack { template, reason }, Phase::Running) => Self::new(
                Phase::RolledBack,
                "RolledBack",
                format!(
                    "revision {} was taken back: {reason}. Revision {template} processes on.{} Repair the manifest; to try the same once more, delete \
                     the config map whose label forebay.dev/template is {}",
                    fleet.template,
                    letters(fleet),
                    fleet.template
                ),
            ),
            (Rollout::First { .. } | Rollout::Steady { .. }, Phase::Running | Phase::Starting) => {
                secrets::verdict(fleet).unwrap_or(verdict)
            }
            _ => verdict,
        }
    }

    /// The same, when the API server refuses what is to be made for it. A job that is as it should be stays so.
    pub fn refused(self, why: String) -> Self {
        match self.phase {
            Phase::Starting => Self::new(Phase::Stalled, "Refused", why),
            Phase::Upgrading => Self::new(Phase::Upgrading, "Refused", format!("{}; {why}", self.message)),
            Phase::Rewinding => Self::new(Phase::Rewinding, "Refused", format!("{}; {why}", self.message)),
            Phase::Running | Phase::RolledBack | Phase::Suspending | Phase::Suspended | Phase::Stalled => self,
        }
    }

    /// The same, of a job for which nothing is done.
    pub fn paused(self) -> Self {
        let message = format!("{}. Nothing is done about it: the annotation {PAUSED_ANNOTATION} pauses the job", self.message);
        Self { message, ..self }
    }

    fn of_workers(fleet: &Fleet) -> Self {
        let canary = Rollout::of(fleet).canary();
        let owned = || fleet.workers.iter().filter_map(|worker| worker.heard()).flat_map(|said| &said.owned);
        if let Some(stalled) = owned().find(|shard| shard.stalled) {
            return Self::new(Phase::Stalled, "ShardStalled", format!("shard {}: {}", stalled.shard, stalled.failure));
        }
        // Before anything is in force the manifest may change at any time, and some may still work by what it said before.
        let follows = |template: &str| fleet.workers.iter().all(|worker| !worker.is_live() || worker.template == template);
        let is_outdated = matches!(Rollout::of(fleet), Rollout::First { template } if !follows(template));
        let live = fleet.workers.iter().filter(|worker| worker.is_live());
        let ready = live.clone().filter(|worker| worker.heard().is_some()).count();
        let mut others = live.filter(|worker| canary != Some(worker.template.as_str()));
        let trouble = others.find_map(|worker| Some((worker.pod.as_str(), worker.trouble.as_ref()?)));
        let words = |(pod, trouble): (&str, &Trouble)| format!("pod {pod}: {}", trouble.words());
        if fleet.all_run() && !is_outdated {
            let all = format!("all {} shards process", fleet.running().len());
            return match trouble.map(words) {
                Some(why) => Self::new(Phase::Running, WORKER_MISSING, format!("{all}, on {ready} of {} workers; {why}", fleet.replicas)),
                None => Self::new(Phase::Running, "AllShardsRun", all),
            };
        }
        if let Some((_, why)) = trouble {
            return Self::new(Phase::Stalled, &why.reason, trouble.map(words).unwrap_or_default());
        }
        if let Some(failed) = owned().find(|shard| !shard.failure.is_empty()) {
            let message = format!("shard {} failed and is tried again: {}", failed.shard, failed.failure);
            return Self::new(Phase::Starting, "ShardFailed", message);
        }
        if is_outdated && fleet.all_run() {
            return Self::new(Phase::Starting, "WorkersFollow", "workers that were made from an earlier manifest are replaced");
        }
        match fleet.shards() {
            Some(shards) => Self::new(
                Phase::Starting,
                "ShardsStarting",
                format!("{} of {shards} shards process, {ready} of {} workers answer", fleet.running().len(), fleet.replicas),
            ),
            None => Self::new(Phase::Starting, "WorkersStarting", format!("{ready} of {} workers answer", fleet.replicas)),
        }
    }

    fn suspended(pods: usize) -> Self {
        match pods {
            0 => {
                Self::new(Phase::Suspended, "Suspended", "there are no workers; with spec.suspend set to false it goes on where it stopped")
            }
            _ => Self::new(Phase::Suspending, "Suspending", format!("{pods} workers take last checkpoints and release their shards")),
        }
    }
}

/// What has become of the dead letters of the revision that was taken back.
fn letters(fleet: &Fleet) -> &'static str {
    match fleet.configs.get(&fleet.template).map(|config| config.letters) {
        Some(Letters::Due) => " What the other one has made dead letters of is being put back.",
        Some(Letters::PutBack) => " What the other one had made dead letters of has been put back.",
        Some(Letters::Left) => " What the other one has made dead letters of is left to `forebay dlq replay`.",
        Some(Letters::None | Letters::Possible) | None => "",
    }
}

fn lines(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// What a change waits for.
fn waits(fleet: &Fleet, to: &str) -> String {
    match judge(fleet) {
        Judgement::Waiting(what) => format!("revision {to}: {what}"),
        Judgement::Healthy => format!("revision {to}: nothing speaks against it; the other workers follow"),
        Judgement::Bad(reason) => format!("revision {to} is taken back: {reason}"),
    }
}

/// For how long a job has been on its way to rest, by what was said of it. A status that was deleted costs a few seconds.
pub fn stops_for(job: &IngestionJob, now: Timestamp) -> Duration {
    let since = job.status.as_ref().and_then(|status| status.stopping.as_ref()).map(|since| now.duration_since(since.0));
    since.and_then(|since| since.try_into().ok()).unwrap_or_default()
}

/// One of an object's conditions. If it has not changed since `old`, neither has its time.
pub fn condition(
    old: &[Condition],
    generation: Option<i64>,
    (type_, holds): (&str, bool),
    (reason, message): (&str, &str),
    now: Timestamp,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: before.map_or(Time(now), |condition| condition.last_transition_time.clone()),
    }
}

/// The status that a job should have. What has not changed since `job.status` is taken from there, times above all.
pub fn status(job: &IngestionJob, verdict: &Verdict, seen: Option<&Seen>, now: Timestamp) -> IngestionJobStatus {
    let old = job.status.clone().unwrap_or_default();
    let generation = job.metadata.generation;
    let condition = |type_: &str, holds| condition(&old.conditions, generation, (type_, holds), (&verdict.reason, &verdict.message), now);
    let conditions = vec![
        // The job is as its manifest wants it: that includes one that is to rest.
        condition("Ready", matches!(verdict.phase, Phase::Running | Phase::Suspended)),
        condition("Reconciling", matches!(verdict.phase, Phase::Starting | Phase::Upgrading | Phase::Rewinding | Phase::Suspending)),
        condition("Stalled", matches!(verdict.phase, Phase::Stalled | Phase::RolledBack)),
    ];
    let heard = || seen.into_iter().flat_map(|seen| seen.fleet.workers.iter().filter_map(|worker| worker.heard()));
    let lag: u64 = heard().flat_map(|said| &said.owned).map(|shard| shard.lag_records).sum();
    IngestionJobStatus {
        observed_generation: generation,
        operator: old.operator,
        phase: Some(verdict.phase),
        conditions,
        lag_records: heard().next().map(|_| i64::try_from(lag).unwrap_or(i64::MAX)),
        freshness: freshness(heard().flat_map(|said| &said.owned)),
        workers: seen.map(|seen| {
            let ready = seen.fleet.workers.iter().filter(|worker| worker.is_live() && worker.heard().is_some()).count();
            format!("{ready}/{}", seen.fleet.replicas)
        }),
        replicas: seen.map(|seen| seen.fleet.workers.iter().filter(|worker| worker.is_live()).count() as i32),
        revision: seen.map(|seen| Rollout::of(&seen.fleet).in_force().to_owned()),
        selector: seen.map(|seen| seen.selector.clone()),
        has_state: old.has_state || seen.is_some_and(|seen| has_state(&seen.fleet)),
        shards: seen.and_then(|seen| seen.fleet.shards()).or(old.shards),
        rewind: seen.map_or_else(|| old.rewind.clone(), |seen| rewind(old.rewind.as_ref(), &seen.fleet, now)),
        stopping: (verdict.phase == Phase::Suspending).then(|| old.stopping.clone().unwrap_or(Time(now))),
        last_checkpoint: last_checkpoint(old.last_checkpoint, heard().flat_map(|said| &said.owned), now),
    }
}

/// Whether a worker has come so far that its job has a number of shards, or a revision was once in force, whatever has become of the status since.
fn has_state(fleet: &Fleet) -> bool {
    fleet.shards().is_some() || fleet.configs.values().any(|config| matches!(config.standing, Standing::Good(_)))
}

/// A rewind that is no longer asked for is remembered: it was the last one.
fn rewind(old: Option<&RewindStatus>, fleet: &Fleet, now: Timestamp) -> Option<RewindStatus> {
    let Some((asked, progress)) = fleet.rewind.asked.as_ref().zip(fleet.rewind()) else { return old.cloned() };
    let (id, phase) = (asked.rewind.id.clone(), progress.phase());
    let old = old.filter(|old| old.id == id);
    let message = match progress {
        Progress::Pending(why) | Progress::Failed(why) => why,
        Progress::Rewinding { message, .. } => message,
        Progress::Completed => format!("the job has gone on from {}; what it had put out since then stays out", asked.to()),
    };
    let started = old.and_then(|old| old.started.clone()).or_else(|| (phase == RewindPhase::Rewinding).then_some(Time(now)));
    Some(RewindStatus { id, phase, message, started })
}

/// For how long the oldest record of all has waited, as far as is known. In whole seconds from one second on: nobody reads more.
fn freshness<'a>(shards: impl Iterator<Item = &'a Shard>) -> Option<String> {
    let millis = shards.filter_map(|shard| shard.freshness_millis).max()?;
    let shown = if millis < 1000 { millis } else { millis / 1000 * 1000 };
    Some(TimeSpan::from_millis(shown).to_string())
}

/// That of the shard whose newest one is the oldest; none while a shard has none. While no worker says anything, what was known stays.
fn last_checkpoint<'a>(old: Option<Time>, shards: impl Iterator<Item = &'a Shard>, now: Timestamp) -> Option<Time> {
    let ages: Vec<Option<u64>> = shards.map(|shard| shard.checkpoint_age_millis).collect();
    if ages.is_empty() {
        return old;
    }
    let oldest = ages.into_iter().collect::<Option<Vec<u64>>>()?.into_iter().max()?;
    let at = now - Duration::from_millis(oldest);
    // An age is told anew at each look: a few seconds more or less are the same checkpoint.
    old.filter(|old| old.0.duration_since(at).unsigned_abs() < CHECKPOINT_PRECISION).or(Some(Time(at)))
}

/// Whether anything has changed but figures, which change all the time.
pub fn is_news(old: Option<&IngestionJobStatus>, new: &IngestionJobStatus) -> bool {
    let without_figures =
        |status: &IngestionJobStatus| IngestionJobStatus { lag_records: None, freshness: None, last_checkpoint: None, ..status.clone() };
    old.is_none_or(|old| without_figures(old) != without_figures(new))
}

#[cfg(test)]
mod tests;
