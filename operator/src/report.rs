//! What people and tools are told: status, conditions as kstatus has them, events. Pure.

use forebay_crds::job::{IngestionJobStatus, Phase};
use forebay_crds::{Finding, IngestionJob};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::observe::Seen;
use crate::plan::{Action, PodState};

/// Something that people want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether somebody should look.
    pub is_warning: bool,
    /// One word.
    pub reason: &'static str,
    /// The story.
    pub note: String,
}

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
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Self::new(Phase::Stalled, "InvalidSpec", lines.join("; "))
    }

    /// Of what is seen of a job.
    pub fn of(seen: &Seen) -> Self {
        let fleet = &seen.fleet;
        let failures = fleet.workers.iter().filter_map(|worker| worker.heard()).flat_map(|said| &said.owned);
        if let Some(failed) = failures.into_iter().find(|shard| !shard.failure.is_empty()) {
            return Self::new(Phase::Stalled, "ShardFailed", format!("shard {}: {}", failed.shard, failed.failure));
        }
        if fleet.all_run() {
            let shards = fleet.running().len();
            return Self::new(Phase::Running, "AllShardsRun", format!("all {shards} shards process"));
        }
        let live = fleet.workers.iter().filter(|worker| worker.is_live());
        if let Some((worker, trouble)) = live.clone().find_map(|worker| Some((worker, seen.troubles.get(&worker.pod)?))) {
            return Self::new(Phase::Stalled, &trouble.reason, format!("pod {}: {}", worker.pod, trouble.message));
        }
        let ready = live.filter(|worker| worker.heard().is_some()).count();
        match fleet.shards() {
            Some(shards) => Self::new(
                Phase::Starting,
                "ShardsStarting",
                format!("{} of {shards} shards process, {ready} of {} workers answer", fleet.running().len(), fleet.replicas),
            ),
            None => Self::new(Phase::Starting, "WorkersStarting", format!("{ready} of {} workers answer", fleet.replicas)),
        }
    }
}

/// The status that a job should have. What has not changed since `job.status` is taken from there, times above all.
pub fn status(job: &IngestionJob, verdict: &Verdict, seen: Option<&Seen>, now: Timestamp) -> IngestionJobStatus {
    let old = job.status.clone().unwrap_or_default();
    let generation = job.metadata.generation;
    let condition = |type_: &str, holds: bool| {
        let status = if holds { "True" } else { "False" };
        let before = old.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.clone(),
            message: verdict.message.clone(),
            observed_generation: generation,
            last_transition_time: before.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        }
    };
    let conditions = vec![
        condition("Ready", verdict.phase == Phase::Running),
        condition("Reconciling", verdict.phase == Phase::Starting),
        condition("Stalled", verdict.phase == Phase::Stalled),
    ];
    let heard = || seen.into_iter().flat_map(|seen| seen.fleet.workers.iter().filter_map(|worker| worker.heard()));
    let lag: u64 = heard().flat_map(|said| &said.owned).map(|shard| shard.lag_records).sum();
    IngestionJobStatus {
        observed_generation: generation,
        phase: Some(verdict.phase),
        conditions,
        lag_records: heard().next().map(|_| i64::try_from(lag).unwrap_or(i64::MAX)),
        workers: seen.map(|seen| {
            let ready = seen.fleet.workers.iter().filter(|worker| worker.is_live() && worker.heard().is_some()).count();
            format!("{ready}/{}", seen.fleet.replicas)
        }),
        ..IngestionJobStatus::default()
    }
}

/// Whether anything has changed but figures, which change all the time.
pub fn is_news(old: Option<&IngestionJobStatus>, new: &IngestionJobStatus) -> bool {
    let without_figures = |status: &IngestionJobStatus| IngestionJobStatus { lag_records: None, ..status.clone() };
    old.is_none_or(|old| without_figures(old) != without_figures(new))
}

/// What is worth an event: a transition of the job, and what is done to its pods.
pub fn news(old: Option<&IngestionJobStatus>, verdict: &Verdict, seen: Option<&Seen>, actions: &[Action]) -> Vec<News> {
    let mut all = Vec::new();
    if old.and_then(|old| old.phase) != Some(verdict.phase) {
        let (reason, is_warning) = match verdict.phase {
            Phase::Starting => ("Starting", false),
            Phase::Running => ("Running", false),
            Phase::Stalled => ("Stalled", true),
        };
        all.push(News { is_warning, reason, note: format!("{}: {}", verdict.reason, verdict.message) });
    }
    for action in actions {
        match action {
            Action::ApplyPod(slot) => {
                all.push(News { is_warning: false, reason: "WorkerCreated", note: format!("a worker is made in slot {slot}") });
            }
            Action::DeletePod { pod, reason, .. } => {
                let state = seen.and_then(|seen| Some(seen.fleet.workers.iter().find(|worker| worker.pod == *pod)?.state));
                let is_warning = state == Some(PodState::Over);
                all.push(News { is_warning, reason: "WorkerDeleted", note: format!("{pod} is deleted: {reason}") });
            }
            Action::Assign { pod, version, shards } => {
                let note = format!("{pod} has the shards {shards:?} under version {version}");
                all.push(News { is_warning: false, reason: "ShardsAssigned", note });
            }
            Action::ApplyService | Action::ApplyConfig | Action::DeleteConfig(_) => {}
        }
    }
    all
}

#[cfg(test)]
mod tests;
