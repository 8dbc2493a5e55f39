//! `kubectl forebay status`, `assignments` and `plan`: what is seen of a job. Reads here, text in the modules below.

pub mod assignments;
pub mod plan;
pub mod status;

use clap::Args;
use k8s_openapi::jiff::Timestamp;

use crate::cluster::Cluster;
use crate::print::Output;

#[derive(Args)]
pub struct Status {
    /// The job
    job: String,
}

#[derive(Args)]
pub struct Assignments {
    /// The job
    job: String,
}

#[derive(Args)]
pub struct Plan {
    /// The job
    job: String,
}

impl Status {
    /// Prints it. What the operator alone knows is left out, with the reason, when it cannot be asked.
    pub async fn execute(self, cluster: &Cluster, output: Output) -> anyhow::Result<()> {
        let job = cluster.job(&self.job).await?;
        let savepoints = cluster.savepoints(&self.job).await?;
        let (look, look_missing) = match cluster.look(&job).await {
            Ok(look) => (Some(look), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let report = status::Report { job, look, look_missing, savepoints };
        output.print(&report, || status::text(&report, Timestamp::now()))
    }
}

impl Assignments {
    /// Prints them, as of the operator's last look.
    pub async fn execute(self, cluster: &Cluster, output: Output) -> anyhow::Result<()> {
        let look = cluster.look(&cluster.job(&self.job).await?).await?;
        output.print(&assignments::of(&look), || assignments::text(&look))
    }
}

impl Plan {
    /// Prints it, as of the operator's last look.
    pub async fn execute(self, cluster: &Cluster, output: Output) -> anyhow::Result<()> {
        let job = cluster.job(&self.job).await?;
        let look = cluster.look(&job).await?;
        output.print(&look, || plan::text(&look, &self.job, job.metadata.generation))
    }
}
