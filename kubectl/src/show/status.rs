//! How a job is. Pure.

use std::time::Duration;

use forebay_api::look::{Look, Worker};
use forebay_crds::{IngestionJob, IngestionSavepoint};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use super::plan::{list, stage};
use crate::advice::{advice, holding};
use crate::table::{age, age_millis, table};

/// All that is read of a job.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// As the API server has it.
    pub job: IngestionJob,
    /// As the operator has it.
    pub look: Option<Look>,
    /// Why the operator did not tell.
    pub look_missing: Option<String>,
    /// Those of this job.
    pub savepoints: Vec<IngestionSavepoint>,
}

/// The report in words.
pub fn text(report: &Report, now: Timestamp) -> String {
    let mut text = head(&report.job, now);
    match (&report.look, &report.look_missing) {
        (Some(look), _) => text.push_str(&seen(look)),
        (None, Some(why)) => text.push_str(&format!("\nWorkers and shards are not shown: {why}\n")),
        (None, None) => {}
    }
    let condition = report.job.status.as_ref().and_then(|status| holding(&status.conditions));
    if let Some(advice) = condition.and_then(|condition| advice(&condition.reason, &report.job.name_any())) {
        text.push_str(&format!("\nWhat to do: {advice}\n"));
    }
    let rows: Vec<_> = report.savepoints.iter().map(|savepoint| savepoint_row(savepoint, now)).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(["SAVEPOINT", "PHASE", "REASON", "PATH", "AGE"], &rows));
        let failed = report.savepoints.iter().filter_map(failure);
        text.extend(failed.map(|failure| format!("{failure}\n")));
    }
    text
}

/// What the API server has of the job itself.
fn head(job: &IngestionJob, now: Timestamp) -> String {
    let (name, namespace) = (job.name_any(), job.namespace().unwrap_or_default());
    let mut text = String::new();
    if job.metadata.deletion_timestamp.is_some() {
        let waits = job.finalizers().join(", ");
        text.push_str(&format!("{name} in {namespace} is being deleted, and waits until the operator takes away: {waits}\n"));
    }
    let Some(status) = &job.status else {
        text.push_str(&format!(
            "{name} in {namespace}: no operator has looked at it yet; is one installed that looks after this namespace?\n"
        ));
        return text;
    };
    let phase = status.phase.map_or("Unknown".to_owned(), |phase| format!("{phase:?}"));
    let message = holding(&status.conditions).map_or("", |condition| condition.message.as_str());
    text.push_str(&format!("{name} in {namespace} is {phase}: {message}\n"));
    if status.observed_generation < job.metadata.generation {
        text.push_str("the manifest was changed after that, and no operator has looked at the change yet\n");
    }
    let rows: Vec<[String; 4]> = status
        .conditions
        .iter()
        .map(|condition| {
            let since = since(condition.last_transition_time.0, now);
            [condition.type_.clone(), condition.status.clone(), since, condition.reason.clone()]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(["CONDITION", "STATUS", "FOR", "REASON"], &rows));
    let dash = || "-".to_owned();
    let facts = [
        ("workers", status.workers.clone().unwrap_or_else(dash)),
        ("revision in force", status.revision.clone().unwrap_or_else(dash)),
        ("records behind", status.lag_records.map_or_else(dash, |lag| lag.to_string())),
        ("oldest record waits", status.freshness.clone().unwrap_or_else(dash)),
        ("oldest last checkpoint", status.last_checkpoint.as_ref().map_or_else(dash, |at| format!("{} ago", since(at.0, now)))),
        ("operator", status.operator.clone().unwrap_or_else(dash)),
    ];
    let facts: Vec<String> = facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    text.push_str(&format!("\n{}\n", facts.join("; ")));
    text
}

/// What the operator has seen.
fn seen(look: &Look) -> String {
    let mut text = String::new();
    if let Some(stage) = look.change.as_ref().and_then(stage) {
        text.push_str(&format!("\nChange: {stage}\n"));
    }
    let workers: Vec<[String; 6]> = look.workers.iter().map(worker_row).collect();
    if !workers.is_empty() {
        text.push('\n');
        text.push_str(&table(["POD", "REVISION", "STATE", "RESTARTS", "MEMORY", "ANSWERED"], &workers));
    }
    let mut shards: Vec<(u32, [String; 8])> = look.workers.iter().flat_map(shard_rows).collect();
    shards.sort_by_key(|(number, _)| *number);
    if !shards.is_empty() {
        let rows: Vec<[String; 8]> = shards.into_iter().map(|(_, row)| row).collect();
        text.push('\n');
        text.push_str(&table(["SHARD", "POD", "PHASE", "EPOCH", "LAG", "FRESHNESS", "LOAD", "CHECKPOINT"], &rows));
    }
    let waits: Vec<String> = look.waits.iter().chain(&look.error).cloned().collect();
    list(&mut text, "In the way", &waits, None);
    text
}

fn worker_row(worker: &Worker) -> [String; 6] {
    let answered = match worker.silent_millis {
        None => "never".to_owned(),
        Some(0) => "now".to_owned(),
        Some(millis) => format!("{} ago", age_millis(millis)),
    };
    let memory = worker.memory_bytes.map_or("-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    [worker.pod.clone(), worker.revision.clone(), worker.state.clone(), worker.restarts.to_string(), memory, answered]
}

/// What a worker says of its shards; of a silent one, what it said last.
fn shard_rows(worker: &Worker) -> Vec<(u32, [String; 8])> {
    let said = worker.silent_millis.filter(|millis| *millis > 0).map_or(String::new(), |millis| format!(" ({} ago)", age_millis(millis)));
    let row = |shard: &forebay_api::look::Shard| {
        let checkpoint = shard.checkpoint_age_millis.map_or("none".to_owned(), |millis| format!("{} ago", age_millis(millis)));
        let freshness = shard.freshness_millis.map_or("-".to_owned(), age_millis);
        let load = shard.load_permille.map_or("-".to_owned(), |load| format!("{} %", load.div_ceil(10)));
        let phase = if shard.stalled { "stalled" } else { shard.phase.as_str() };
        let (number, epoch, lag) = (shard.shard.to_string(), shard.epoch.to_string(), shard.lag_records.to_string());
        (shard.shard, [number, worker.pod.clone(), format!("{phase}{said}"), epoch, lag, freshness, load, checkpoint])
    };
    worker.shards.iter().map(row).collect()
}

fn savepoint_row(savepoint: &IngestionSavepoint, now: Timestamp) -> [String; 5] {
    let status = savepoint.status.as_ref();
    let phase = status.and_then(|status| status.phase).map_or("-".to_owned(), |phase| format!("{phase:?}"));
    let reason = status.and_then(|status| holding(&status.conditions)).map_or("-", |condition| condition.reason.as_str());
    let path = status.and_then(|status| status.path.clone()).unwrap_or_else(|| "-".to_owned());
    let age = savepoint.metadata.creation_timestamp.as_ref().map_or("-".to_owned(), |made| since(made.0, now));
    [savepoint.name_any(), phase, reason.to_owned(), path, age]
}

/// Why there is none, and what to do.
fn failure(savepoint: &IngestionSavepoint) -> Option<String> {
    let condition = savepoint.status.as_ref().and_then(|status| holding(&status.conditions)).filter(|said| said.type_ == "Stalled")?;
    let way_out = advice(&condition.reason, &savepoint.spec.job).map_or(String::new(), |advice| format!("; {advice}"));
    Some(format!("{} failed: {}{way_out}", savepoint.name_any(), condition.message))
}

fn since(at: Timestamp, now: Timestamp) -> String {
    age(Duration::try_from(now.duration_since(at)).unwrap_or_default())
}

#[cfg(test)]
pub mod tests;
