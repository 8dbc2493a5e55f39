//! `kubectl forebay suspend`, `resume` and `restart`: a field of the job's spec is changed, and the operator does the rest.

use clap::Args;
use forebay_crds::IngestionJob;
use forebay_crds::job::Phase;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use crate::advice::{advice, holding};
use crate::cluster::Cluster;
use crate::follow::{Progress, Wait};
use crate::print::Output;

#[derive(Args)]
pub struct Suspend {
    /// The job
    job: String,

    #[command(flatten)]
    wait: Wait,
}

#[derive(Args)]
pub struct Resume {
    /// The job
    job: String,

    #[command(flatten)]
    wait: Wait,
}

#[derive(Args)]
pub struct Restart {
    /// The job
    job: String,

    #[command(flatten)]
    wait: Wait,
}

/// What a change is to lead to.
#[derive(Clone, Copy)]
enum Goal {
    Rest,
    Work,
}

impl Suspend {
    /// Asks for it, and waits if told to.
    pub async fn execute(self, cluster: &Cluster, output: Output) -> anyhow::Result<()> {
        let job = cluster.job(&self.job).await?;
        let changed = cluster.change(&job, json!({"suspend": true})).await?;
        let asked = if job.spec.suspend { "is to rest already" } else { "is to rest; its pods go when they have taken last checkpoints" };
        finish(cluster, output, &self.wait, changed, (asked, "rests; `kubectl forebay resume` has it go on"), Goal::Rest).await
    }
}

impl Resume {
    /// Asks for it, and waits if told to.
    pub async fn execute(self, cluster: &Cluster, output: Output) -> anyhow::Result<()> {
        let job = cluster.job(&self.job).await?;
        let changed = cluster.change(&job, json!({"suspend": false})).await?;
        let asked = if job.spec.suspend { "is to go on where it stopped" } else { "was not suspended" };
        finish(cluster, output, &self.wait, changed, (asked, "runs"), Goal::Work).await
    }
}

impl Restart {
    /// Asks for it, and waits if told to.
    pub async fn execute(self, cluster: &Cluster, output: Output) -> anyhow::Result<()> {
        let job = cluster.job(&self.job).await?;
        if job.spec.suspend {
            anyhow::bail!("job {0} is suspended and has no workers to restart; `kubectl forebay resume {0}` makes new ones", self.job);
        }
        // To the second, as `kubectl rollout restart` has it.
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let changed = cluster.change(&job, json!({"workers": {"restartedAt": now}})).await?;
        let asked = "gets new workers: a savepoint is taken, one new worker tries one shard, then the others follow one by one";
        finish(cluster, output, &self.wait, changed, (asked, "runs, all workers are new"), Goal::Work).await
    }
}

async fn finish(
    cluster: &Cluster,
    output: Output,
    wait: &Wait,
    changed: IngestionJob,
    (asked, done): (&str, &str),
    goal: Goal,
) -> anyhow::Result<()> {
    let name = changed.name_any();
    if !wait.wait {
        return output
            .print(&changed, || format!("job {name} {asked}; `kubectl forebay status {name} -n {}` shows how it goes", cluster.namespace));
    }
    let generation = changed.metadata.generation;
    let there = wait.follow(cluster.api::<IngestionJob>(), &name, |job| progress(job, generation, goal)).await?;
    output.print(&there, || format!("job {name} {done}"))
}

/// How far a job has come that was changed to this generation.
fn progress(job: &IngestionJob, generation: Option<i64>, goal: Goal) -> Progress {
    let status = job.status.as_ref().filter(|status| status.observed_generation >= generation);
    let Some((status, phase)) = status.and_then(|status| Some((status, status.phase?))) else {
        return Progress::Going("the operator has not seen the change yet".to_owned());
    };
    let (reason, message) = holding(&status.conditions).map_or(("", ""), |said| (said.reason.as_str(), said.message.as_str()));
    let way_out = advice(reason, &job.name_any()).map_or(String::new(), |advice| format!(". {advice}"));
    let said = format!("{phase:?}: {message}{way_out}");
    match (goal, phase) {
        (Goal::Rest, Phase::Suspended) | (Goal::Work, Phase::Running) => Progress::Done,
        (Goal::Work, Phase::RolledBack) => Progress::Failed(said),
        (Goal::Rest | Goal::Work, _) => Progress::Going(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(phase: &str, observed: i64, goal: Goal, expected: &str) {
        let condition =
            json!({"type": "Any", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-11-26T09:05:07Z"});
        let job = json!({
            "metadata": {"name": "j"},
            "spec": {"inputs": [{"name": "i", "topic": "t"}], "deadLetter": {"topic": "d"}, "pipeline": []},
            "status": {"phase": phase, "observedGeneration": observed, "conditions": [condition]},
        });
        let said = progress(&serde_json::from_value(job).unwrap(), Some(3), goal);
        assert_eq!(format!("{said:?}"), expected);
    }

    #[test]
    fn a_change_is_followed_from_when_the_operator_has_seen_it() {
        check("Running", 2, Goal::Work, "Going(\"the operator has not seen the change yet\")");
        check("Upgrading", 3, Goal::Work, "Going(\"Upgrading: m\")");
        check("Running", 3, Goal::Work, "Done");
        check("RolledBack", 4, Goal::Work, "Failed(\"RolledBack: m\")");
        check("Running", 3, Goal::Rest, "Going(\"Running: m\")");
        check("Suspended", 3, Goal::Rest, "Done");
    }
}
