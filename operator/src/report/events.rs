//! What is worth an event, and what is done in words. Pure.

use forebay_crds::job::{IngestionJobStatus, Phase, RewindPhase};

use super::{Verdict, WORKER_MISSING};
use crate::observe::Seen;
use crate::plan::letters::Letters;
use crate::plan::rewind::Progress;
use crate::plan::rollout::Standing;
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

/// What is worth an event: a transition of the job, and what is done to its pods.
pub fn news(old: Option<&IngestionJobStatus>, verdict: &Verdict, seen: Option<&Seen>, actions: &[Action]) -> Vec<News> {
    let mut all = Vec::new();
    if old.and_then(|old| old.phase) != Some(verdict.phase) {
        let (reason, is_warning) = match verdict.phase {
            Phase::Starting => ("Starting", false),
            Phase::Rewinding => ("Rewinding", false),
            Phase::Running => ("Running", false),
            Phase::Suspending => ("Suspending", false),
            Phase::Suspended => ("Suspended", false),
            Phase::Upgrading => ("Upgrading", false),
            Phase::RolledBack => ("RolledBack", true),
            Phase::Stalled => ("Stalled", true),
        };
        all.push(News { is_warning, reason, note: format!("{}: {}", verdict.reason, verdict.message) });
    } else if verdict.reason == WORKER_MISSING && old.is_none_or(|old| old.conditions.iter().all(|before| before.reason != WORKER_MISSING))
    {
        all.push(News { is_warning: true, reason: WORKER_MISSING, note: verdict.message.clone() });
    }
    if let Some((asked, Progress::Completed)) = seen.and_then(|seen| seen.fleet.rewind.asked.as_ref().zip(seen.fleet.rewind()))
        && asked.said.as_ref().map(|(phase, _)| *phase) != Some(RewindPhase::Completed)
    {
        let note = format!("rewind {}: the job goes on from {}; what it had put out since then stays out", asked.rewind.id, asked.to());
        all.push(News { is_warning: false, reason: "Rewound", note });
    }
    for action in actions {
        match action {
            Action::ApplyPod { .. } => all.push(News { is_warning: false, reason: "WorkerCreated", note: words(action) }),
            Action::Mark { standing, .. } => all.push(marked(standing, words(action))),
            Action::MarkLetters { letters, .. } => match letters {
                Letters::Left => all.push(News { is_warning: true, reason: "LettersLeft", note: words(action) }),
                Letters::PutBack => all.push(News { is_warning: false, reason: "LettersPutBack", note: words(action) }),
                Letters::None | Letters::Possible | Letters::Due => {}
            },
            Action::TakeSavepoint(_) => all.push(News { is_warning: false, reason: "SavepointDue", note: words(action) }),
            Action::DeletePod { pod, .. } => {
                let state = seen.and_then(|seen| Some(seen.fleet.workers.iter().find(|worker| worker.pod == *pod)?.state));
                let is_warning = state == Some(PodState::Over);
                all.push(News { is_warning, reason: "WorkerDeleted", note: words(action) });
            }
            Action::Assign { .. } => all.push(News { is_warning: false, reason: "ShardsAssigned", note: words(action) }),
            Action::ApplyService
            | Action::ApplyBudget
            | Action::ApplyPolicy
            | Action::ApplyConfig
            | Action::DeleteConfig(_)
            | Action::ApplySavepoint
            | Action::DoomSavepoint(_)
            | Action::DeleteSavepoint(_)
            | Action::Rewind
            | Action::PutBack { .. }
            | Action::DeletePostman(_)
            | Action::DeleteRewinder(_)
            | Action::DropLost(_)
            | Action::Checkpoint(_)
            | Action::Prefetch { .. } => {}
        }
    }
    all
}

fn marked(standing: &Standing, note: String) -> News {
    let (is_warning, reason) = match standing {
        Standing::Untried => (false, "RevisionUntried"),
        Standing::Proven => (false, "RevisionProven"),
        Standing::Good(_) => (false, "RevisionInForce"),
        Standing::Bad(_) => (true, "RevisionTakenBack"),
    };
    News { is_warning, reason, note }
}

/// What is done, for people.
pub fn words(action: &Action) -> String {
    match action {
        Action::ApplyService => "the service is made".to_owned(),
        Action::ApplyBudget => "the disruption budget is made".to_owned(),
        Action::ApplyPolicy => "the network policy is made".to_owned(),
        Action::TakeSavepoint(due) => format!("the savepoint that was due at {due} is taken"),
        Action::ApplyConfig => "the config map of the manifest's revision is made".to_owned(),
        Action::ApplyPod { slot, template } => format!("a worker of revision {template} is made in slot {slot}"),
        Action::DeletePod { pod, reason, .. } => format!("{pod} is deleted: {reason}"),
        Action::DeleteConfig(template) => format!("the config map of revision {template} is deleted: no pod needs it"),
        Action::MarkLetters { template, letters: Letters::Left } => format!(
            "what revision {template} has made dead letters of is left to `forebay dlq replay`: its config map does not tell them from others, the \
             job is rewound and may read the same records again, or the pod that should have put them back has failed"
        ),
        Action::MarkLetters { template, letters: Letters::Possible } => {
            format!("revision {template} processes now, and what it makes dead letters of is put back if it is taken back")
        }
        Action::MarkLetters { template, .. } => format!("what revision {template} has made dead letters of is put back"),
        Action::PutBack { template, .. } => format!("a pod is made that puts back what revision {template} has made dead letters of"),
        Action::DeletePostman(pod) => format!("{pod} is deleted: it has put all letters back, or is not to"),
        Action::Mark { template, standing, .. } => match standing {
            Standing::Untried => format!("revision {template} is tried anew"),
            Standing::Proven => format!("revision {template} did well on one shard; the other workers follow"),
            Standing::Good(_) => format!("revision {template} is in force on all workers"),
            Standing::Bad(reason) => format!("revision {template} is taken back: {reason}"),
        },
        Action::ApplySavepoint => "a savepoint is asked for before anything changes".to_owned(),
        Action::DoomSavepoint(name) => format!("savepoint {name}, of an earlier change, will take along what it holds"),
        Action::DeleteSavepoint(name) => format!("savepoint {name}, of an earlier change, is deleted"),
        Action::Rewind => "a pod is made that does the rewind".to_owned(),
        Action::DeleteRewinder(pod) => format!("{pod} is deleted: its rewind is over"),
        Action::DropLost(pod) => format!("{pod} is deleted: Kubernetes has ended it, or its node is lost"),
        Action::Checkpoint(pods) => format!("checkpoints are asked of {}", pods.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        Action::Prefetch { pod, shards } if shards.is_empty() => format!("{pod} need not prepare any shard any more"),
        Action::Prefetch { pod, shards } => format!("{pod} prepares the shards {shards:?}, which come to it next"),
        Action::Assign { pod, version, shards } => format!("{pod} has the shards {shards:?} under version {version}"),
    }
}
