//! Promise: savepoints are taken by a schedule, each once, and the old ones go. It needs what `kubernetes.rs` needs.

use anyhow::{Context, Result, ensure};
use forebay_e2e::cluster::Cluster;
use forebay_e2e::cluster::flights::FlightsInCluster;
use forebay_e2e::flights::records;
use forebay_e2e::s3::S3;
use forebay_e2e::{PATIENCE, in_folder, until};
use serde_json::Value;

/// Method: schedules that make no sense are refused, by the API server or in the condition. Then one is due each minute, and one is kept: when the second is
/// complete, the first must be gone with all that it held. One that was made by hand must stay.
#[test]
fn savepoints_come_by_schedule_and_the_old_ones_go() -> Result<()> {
    let Some(cluster) = Cluster::of_environment() else { return Ok(()) };
    in_folder("kubernetes-schedule", |folder| {
        cluster.install()?;
        let job = FlightsInCluster::start(&cluster, folder, 1)?;
        let name = &job.flights.name;
        let refused = job.patch(r#"{"savepoints": {"schedule": "0 3 * *"}}"#);
        ensure!(
            refused.is_err_and(|error| error.to_string().contains("spec.savepoints.schedule")),
            "four fields were taken for a schedule"
        );
        job.patch(r#"{"savepoints": {"schedule": "61 3 * * *"}}"#)?;
        let invalid = job.until_status("it is refused", |status| status["phase"] == "Stalled")?;
        ensure!(invalid["status"]["conditions"].to_string().contains("spec.savepoints.schedule"), "{invalid:#}");

        let by_hand = format!("{name}-by-hand");
        cluster.apply(&format!(
            "apiVersion: forebay.dev/v1alpha1\nkind: IngestionSavepoint\nmetadata: {{name: {by_hand}, namespace: default}}\nspec: {{job: {name}}}\n"
        ))?;
        job.patch(r#"{"savepoints": {"schedule": "* * * * *", "retain": 1}}"#)?;
        let all = records(20_000)?;
        job.feed(&all)?;
        job.until_processed(&all)?;
        let first = until("a savepoint is taken", PATIENCE, || Ok(completed(&cluster, &job)?.pop()))?;
        let s3 = S3::of_environment()?;
        let held = s3.list(&format!("{}/{first}/", job_savepoints(name)))?;
        ensure!(!held.is_empty(), "savepoint {first} holds nothing");
        until("the next one is there, and the first one gone with all that it held", PATIENCE * 2, || {
            let names = completed(&cluster, &job)?;
            let left = s3.list(&format!("{}/{first}/", job_savepoints(name)))?;
            Ok((!names.is_empty() && !names.contains(&first) && left.is_empty()).then_some(()))
        })?;
        println!("{}", cluster.ask(&["get", "isp"])?);
        cluster.ask(&["wait", "isp", &by_hand, "--for=condition=Ready", "--timeout=60s"])?;
        ensure!(job.pods()?.len() == 1, "a change of the schedule is none of the workers");
        // No other one is begun, and those that are left are deleted before the job that knows where they are.
        job.patch(r#"{"savepoints": null}"#)?;
        cluster.ask(&["delete", "isp", "-l", &label(&job), "--timeout=120s"])?;
        job.delete_and_check(&all)
    })
}

fn label(job: &FlightsInCluster<'_>) -> String {
    format!("forebay.dev/job-uid={},forebay.dev/due", job.uid)
}

fn job_savepoints(name: &str) -> String {
    format!("{name}/default/{name}/savepoints")
}

/// The scheduled ones that are complete, by the names under which they lie in the bucket.
fn completed(cluster: &Cluster, job: &FlightsInCluster<'_>) -> Result<Vec<String>> {
    let list: Value = serde_json::from_str(&cluster.ask(&["get", "isp", "-l", &label(job), "-o", "json"])?)?;
    let all = list["items"].as_array().context("a list has items")?;
    let paths = all.iter().filter_map(|savepoint| savepoint["status"]["path"].as_str());
    Ok(paths.filter_map(|path| path.rsplit('/').next()).map(str::to_owned).collect())
}
