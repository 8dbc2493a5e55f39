//! `kubectl forebay savepoint`.

use clap::Args;
use forebay_crds::savepoint::{IngestionSavepointSpec, SavepointDeletionPolicy, SavepointPhase};
use forebay_crds::{IngestionSavepoint, TimeSpan};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::advice::{advice, holding};
use crate::cluster::Cluster;
use crate::follow::{Progress, Wait};
use crate::print::Output;

/// Names of objects are no longer than this, and the time takes 16 of it.
const JOB_CHARACTERS_MAX: usize = 63 - 16;

#[derive(Args)]
pub struct Savepoint {
    /// The job
    job: String,

    /// The savepoint's name [default: the job's name and the time]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// It fails when it is not complete after so long [default: 10m]
    #[arg(long, value_name = "DURATION")]
    deadline: Option<TimeSpan>,

    #[command(flatten)]
    wait: Wait,
}

impl Savepoint {
    /// Asks for it, and waits if told to.
    pub async fn execute(self, cluster: &Cluster, output: Output) -> anyhow::Result<()> {
        let job = cluster.job(&self.job).await?.name_any();
        let name = self.name.unwrap_or_else(|| default_name(&job, Timestamp::now()));
        let spec =
            IngestionSavepointSpec { job: job.clone(), deadline: self.deadline, deletion_policy: SavepointDeletionPolicy::default() };
        let made = cluster.make(&IngestionSavepoint::new(&name, spec)).await?;
        if !self.wait.wait {
            let namespace = &cluster.namespace;
            return output.print(&made, || {
                format!("savepoint {name} of job {job} is asked for; `kubectl get isp {name} -n {namespace}` shows how far it has come")
            });
        }
        let complete = self.wait.follow(cluster.api::<IngestionSavepoint>(), &name, progress).await?;
        let path = complete.status.as_ref().and_then(|status| status.path.clone()).unwrap_or_default();
        output.print(&complete, || {
            format!("savepoint {name} of job {job} is complete; a job begins with it by spec.state.fromSavepoint: {path}")
        })
    }
}

fn default_name(job: &str, now: Timestamp) -> String {
    let job: String = job.chars().take(JOB_CHARACTERS_MAX).collect();
    format!("{}-{}", job.trim_end_matches(['-', '.']), now.strftime("%Y%m%d-%H%M%S"))
}

fn progress(savepoint: &IngestionSavepoint) -> Progress {
    let Some(status) = &savepoint.status else { return Progress::Going("the operator has not seen it yet".to_owned()) };
    let (reason, message) = holding(&status.conditions).map_or(("", ""), |said| (said.reason.as_str(), said.message.as_str()));
    match status.phase {
        Some(SavepointPhase::Completed) => Progress::Done,
        Some(SavepointPhase::Failed) => {
            let way_out = advice(reason, &savepoint.spec.job).map_or(String::new(), |advice| format!(". {advice}"));
            Progress::Failed(format!("there is no savepoint: {reason}: {message}{way_out}"))
        }
        Some(SavepointPhase::Pending | SavepointPhase::Copying) | None => Progress::Going(format!("{reason}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_default_fit_and_tell_the_time() {
        let now: Timestamp = "2026-11-26T09:05:07Z".parse().unwrap();
        assert_eq!(default_name("flights", now), "flights-20261126-090507");
        let long = default_name(&format!("{}-x", "a".repeat(46)), now);
        assert_eq!(long, format!("{}-20261126-090507", "a".repeat(46)));
    }

    #[test]
    fn a_savepoint_is_followed_to_its_end() {
        let of = |phase: &str, reason: &str| {
            let condition = serde_json::json!({
                "type": "Any", "status": "True", "reason": reason, "message": "m", "lastTransitionTime": "2026-11-26T09:05:07Z",
            });
            let savepoint = serde_json::json!({
                "metadata": {"name": "s"}, "spec": {"job": "j"}, "status": {"phase": phase, "conditions": [condition]},
            });
            progress(&serde_json::from_value(savepoint).unwrap())
        };
        assert_eq!(of("Pending", "TakingCheckpoints"), Progress::Going("TakingCheckpoints: m".into()));
        assert_eq!(of("Completed", "Completed"), Progress::Done);
        let Progress::Failed(why) = of("Failed", "CopyFailed") else { panic!("it has not failed") };
        assert!(why.starts_with("there is no savepoint: CopyFailed: m. repair"), "{why}");
    }
}
