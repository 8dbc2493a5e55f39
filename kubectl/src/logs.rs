//! `kubectl forebay logs`.

use anyhow::{anyhow, bail};
use clap::Args;
use forebay_api::look::Look;
use forebay_crds::TimeSpan;
use futures::stream::{self, select_all};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::LogParams;

use crate::cluster::{Cluster, explained};
use crate::print::line;

#[derive(Args)]
pub struct Logs {
    /// The job
    job: String,

    /// Of the worker that has this shard only
    #[arg(long, value_name = "NUMBER")]
    shard: Option<u32>,

    /// Go on printing what comes
    #[arg(short = 'f', long)]
    follow: bool,

    /// Only so many of the last lines of each worker
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,

    /// Only what is younger than this, such as 10m
    #[arg(long, value_name = "DURATION")]
    since: Option<TimeSpan>,

    /// Of the container before, where one was started again
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
}

impl Logs {
    /// Prints until there is no more, or for good.
    pub async fn execute(self, cluster: &Cluster) -> anyhow::Result<()> {
        let job = cluster.job(&self.job).await?;
        let mut pods: Vec<String> = cluster.workers(&job).await?.iter().map(ResourceExt::name_any).collect();
        if pods.is_empty() {
            bail!("job {0} has no workers; `kubectl forebay status {0}` says why", self.job);
        }
        if let Some(shard) = self.shard {
            pods = vec![pod_of(&cluster.look(&job).await?, shard)?];
        }
        let parameters = LogParams {
            container: Some("worker".to_owned()),
            follow: self.follow,
            tail_lines: self.tail.map(i64::from),
            since_seconds: self.since.map(|since| i64::try_from(since.get().as_secs().max(1)).unwrap_or(i64::MAX)),
            previous: self.previous,
            ..LogParams::default()
        };
        let (mut logs, mut silent) = (Vec::new(), Vec::new());
        for pod in &pods {
            match cluster.api::<Pod>().log_stream(pod, &parameters).await {
                Ok(log) => logs.push(prefixed(log.lines(), pod, pods.len() > 1)),
                Err(error) => silent.push(explained(error, &format!("read the log of {pod}"))),
            }
        }
        // One that has not started has no log; the others have.
        match silent.pop() {
            Some(error) if logs.is_empty() => return Err(error),
            error => silent.extend(error),
        }
        silent.iter().for_each(|error| eprintln!("kubectl forebay: {error:#}"));
        let mut lines = if self.follow { select_all(logs).boxed_local() } else { stream::iter(logs).flatten().boxed_local() };
        while let Some(text) = lines.try_next().await? {
            line(&text)?;
        }
        Ok(())
    }
}

/// The lines of a pod's log; of several pods each line says whose it is, as `kubectl logs --prefix` does.
fn prefixed<'a>(
    lines: impl futures::Stream<Item = std::io::Result<String>> + 'a,
    pod: &str,
    is_one_of_several: bool,
) -> stream::LocalBoxStream<'a, anyhow::Result<String>> {
    let prefix = if is_one_of_several { format!("[{pod}] ") } else { String::new() };
    let pod = pod.to_owned();
    lines
        .map(move |text| match text {
            Ok(text) => Ok(format!("{prefix}{text}")),
            Err(error) => Err(anyhow!(error).context(format!("read the log of {pod}"))),
        })
        .boxed_local()
}

/// Who works on a shard; or who is to, by the highest version.
fn pod_of(look: &Look, shard: u32) -> anyhow::Result<String> {
    let by_version = || look.workers.iter().filter(|worker| worker.assigned.contains(&shard)).max_by_key(|worker| worker.version);
    let at_work =
        look.workers.iter().filter(|worker| worker.shards.iter().any(|its| its.shard == shard)).max_by_key(|worker| worker.version);
    match (at_work.or_else(by_version), look.shards) {
        (Some(worker), _) => Ok(worker.pod.clone()),
        (None, Some(shards)) if shard >= shards => {
            Err(anyhow!("there is no shard {shard}: the job has {shards}, from 0 to {}", shards.saturating_sub(1)))
        }
        (None, _) => Err(anyhow!("no worker has shard {shard} now; `kubectl forebay plan` says what is waited for")),
    }
}

#[cfg(test)]
mod tests {
    use forebay_api::look::{Shard, Worker};

    use super::*;

    #[test]
    fn the_worker_of_a_shard_is_who_works_on_it_or_else_who_is_to() {
        let worker = |pod: &str, version, assigned: &[u32], owned: &[u32]| {
            let shards = owned.iter().map(|shard| Shard { shard: *shard, ..Shard::default() }).collect();
            Worker { pod: pod.into(), version, assigned: assigned.to_vec(), shards, ..Worker::default() }
        };
        // Shard 1 goes from `b`, which still releases it, to `a`.
        let workers = vec![worker("a", 5, &[0, 1], &[0]), worker("b", 4, &[3], &[1, 3])];
        let look = Look { shards: Some(5), workers, ..Look::default() };
        let check = |shard, expected: Result<&str, &str>| match (pod_of(&look, shard), expected) {
            (Ok(pod), Ok(expected)) => assert_eq!(pod, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (said, expected) => panic!("{said:?} where {expected:?} was expected"),
        };
        check(0, Ok("a"));
        check(1, Ok("b"));
        check(4, Err("no worker has shard 4 now"));
        check(5, Err("from 0 to 4"));
    }
}
