//! `/metrics` (Prometheus), `/healthz` and `/readyz`. Reads the status and nothing else. Metrics are listed in `docs/metrics.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use axum::routing::get;
use forebay_engine::ids::ShardId;
use prometheus::{Counter, Encoder, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::status::{ShardStatus, Status};

/// A running server; it ends with the process.
#[derive(Debug)]
pub struct Server {
    /// Where it listens: the port is known even if 0 was asked for.
    pub address: SocketAddr,
}

/// Serves on `address` from a thread of its own. `Err` when the address cannot be had.
pub fn serve(address: SocketAddr, status: Arc<Status>) -> std::io::Result<Server> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "metrics are served");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (metrics, ready) = (status.clone(), status);
    let app = axum::Router::new()
        .route("/metrics", get(move || async move { render(&metrics) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readiness(&ready) }));
    let thread = std::thread::Builder::new().name("http".into());
    thread.spawn(move || {
        runtime.block_on(async move {
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => axum::serve(listener, app).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::error!(%error, "metrics are no longer served");
            }
        });
    })?;
    Ok(Server { address })
}

/// Ready: every shard of this worker processes.
fn readiness(status: &Status) -> (StatusCode, String) {
    let shards = status.shards();
    let line = |(id, shard): (&ShardId, &ShardStatus)| {
        let reason = shard.failure.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        format!("shard {id} is {}{reason}", shard.phase)
    };
    let waiting: Vec<String> = shards.iter().filter(|(_, shard)| shard.phase != "running").map(line).collect();
    if waiting.is_empty() && !shards.is_empty() {
        (StatusCode::OK, "ready\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waiting.join("\n") + "\n")
    }
}

fn render(status: &Status) -> (StatusCode, String) {
    let mut buffer = Vec::new();
    let rendered = gather(status).and_then(|registry| TextEncoder::new().encode(&registry.gather(), &mut buffer));
    match rendered {
        Ok(()) => (StatusCode::OK, String::from_utf8_lossy(&buffer).into_owned()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// A fresh registry per scrape: the status holds the truth, so nothing can be left over from a shard that is gone.
fn gather(status: &Status) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let counters = &status.counters;
    let total: [(&str, &str, &AtomicU64); 10] = [
        ("forebay_transactions_total", "Transactions committed.", &counters.transactions),
        ("forebay_output_records_total", "Records put out.", &counters.output_records),
        ("forebay_output_bytes_total", "Bytes of keys, values and headers put out.", &counters.output_bytes),
        ("forebay_journal_bytes_total", "Bytes of journal records written.", &counters.journal_bytes),
        ("forebay_checkpoints_total", "Checkpoints uploaded.", &counters.checkpoints),
        (
            "forebay_checkpoint_failures_total",
            "Checkpoints that failed; the journal grows until one succeeds.",
            &counters.checkpoint_failures,
        ),
        ("forebay_incarnations_over_total", "Incarnations that ended by an error of the producer.", &counters.incarnations_over),
        ("forebay_calls_given_up_total", "Calls of the log that hung past their deadline and were given up.", &counters.calls_given_up),
        ("forebay_restores_total", "Restores of shards.", &counters.restores),
        ("forebay_restore_fallbacks_total", "Checkpoints that a restore could not use.", &counters.restore_fallbacks),
    ];
    for (name, help, value) in total {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value.load(Ordering::Relaxed));
        registry.register(Box::new(counter))?;
    }
    let commits = Counter::new("forebay_commit_seconds_total", "Time spent in commits.")?;
    commits.inc_by(counters.commit_micros.load(Ordering::Relaxed) as f64 / 1e6);
    registry.register(Box::new(commits))?;
    let gauges: [(&str, &str, fn(&ShardStatus) -> u64); 10] = [
        ("forebay_shard_running", "1 while the shard processes.", |shard| u64::from(shard.phase == "running")),
        ("forebay_shard_stalled", "1 while the shard cannot go on without help.", |shard| u64::from(shard.stalled)),
        ("forebay_shard_epoch", "The last committed epoch.", |shard| shard.epoch.get()),
        ("forebay_shard_lag_records", "Records between what was read and the end of the input.", ShardStatus::lag_records),
        ("forebay_shard_uncommitted_records", "Records processed and not committed yet.", |shard| shard.uncommitted_records as u64),
        ("forebay_shard_cache_bytes", "Decoded state in memory.", |shard| shard.cache_bytes as u64),
        ("forebay_shard_checkpoint_epoch", "The epoch of the newest checkpoint that counts.", |shard| {
            shard.checkpoint.map_or(0, |epoch| epoch.get())
        }),
        ("forebay_shard_checkpoint_age_seconds", "Since the newest checkpoint joined the list.", |shard| {
            shard.checkpoint_seen.map_or(0, |seen| seen.elapsed().as_secs())
        }),
        ("forebay_shard_journal_records", "Journal records behind the newest checkpoint.", |shard| shard.journal_records),
        ("forebay_shard_journal_bytes", "Bytes of journal written since the newest checkpoint joined the list.", |shard| {
            shard.journal_bytes
        }),
    ];
    let shards = status.shards();
    for (name, help, value) in gauges {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["shard"])?;
        for (id, shard) in &shards {
            gauge.with_label_values(&[id.to_string()]).set(i64::try_from(value(shard)).unwrap_or(i64::MAX));
        }
        registry.register(Box::new(gauge))?;
    }
    registry.register(Box::new(books_of(&shards)?))?;
    Ok(registry)
}

fn books_of(shards: &BTreeMap<ShardId, ShardStatus>) -> Result<IntCounterVec, prometheus::Error> {
    let books = IntCounterVec::new(
        Opts::new("forebay_records_total", "Records since the job began, by what became of them; they sum up to the records read."),
        &["shard", "verdict"],
    )?;
    for (id, shard) in shards {
        let of = &shard.books;
        let verdicts = [
            ("processed", of.processed),
            ("rejected", of.rejected),
            ("duplicate", of.duplicate),
            ("filtered", of.filtered),
            ("throttled", of.throttled),
        ];
        for (verdict, count) in verdicts {
            books.with_label_values(&[id.to_string().as_str(), verdict]).inc_by(count);
        }
    }
    Ok(books)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use forebay_engine::ids::{Epoch, InputId, Offset, Partition};
    use forebay_engine::journal::Books;
    use forebay_engine::log::{InputPosition, InputProgress};

    use super::*;
    use crate::status::Counters;

    fn progress(partition: u32, next: u64, end: u64) -> InputProgress {
        let position = InputPosition { input: InputId::new(0), partition: Partition::new(partition), next: Offset::new(next) };
        InputProgress { position, end: Offset::new(end) }
    }

    /// Of each field another value.
    fn status() -> Status {
        let status = Status::default();
        let counters = &status.counters;
        let all = [
            &counters.transactions,
            &counters.output_records,
            &counters.output_bytes,
            &counters.journal_bytes,
            &counters.checkpoints,
            &counters.checkpoint_failures,
            &counters.incarnations_over,
            &counters.calls_given_up,
            &counters.restores,
            &counters.restore_fallbacks,
        ];
        for (value, counter) in (101..).zip(all) {
            Counters::add(counter, value);
        }
        Counters::add(&counters.commit_micros, 2_500_000);
        status.update(ShardId::new(3), |shard| {
            *shard = ShardStatus {
                phase: "running",
                epoch: Epoch::new(201),
                books: Books { records_in: 1515, processed: 301, rejected: 302, duplicate: 303, filtered: 304, throttled: 305 },
                progress: vec![progress(0, 5, 105), progress(1, 9, 111)],
                uncommitted_records: 203,
                cache_bytes: 204,
                checkpoint: Some(Epoch::new(205)),
                checkpoint_seen: Instant::now().checked_sub(Duration::from_secs(3600)),
                journal_records: 206,
                journal_bytes: 207,
                ..ShardStatus::default()
            };
        });
        status.update(ShardId::new(4), |shard| (shard.phase, shard.stalled) = ("stalled", true));
        status
    }

    /// Method: a status whose values all differ; a metric that shows another's value, or is new and not tested, is seen.
    #[test]
    fn every_metric_shows_what_it_is_named_after() {
        let (code, text) = render(&status());
        assert_eq!(code, StatusCode::OK);
        let mut shown: BTreeMap<&str, f64> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name.strip_prefix("forebay_").unwrap(), value.parse().unwrap()))
            .collect();
        let age = shown.remove("shard_checkpoint_age_seconds{shard=\"3\"}").unwrap();
        assert!((3600.0..4000.0).contains(&age), "{age}");
        // The other shard has nothing but zeros, and is stalled.
        shown.retain(|name, value| !name.contains("{shard=\"4\"") || *value != 0.0);
        let expected = [
            ("transactions_total", 101.0),
            ("output_records_total", 102.0),
            ("output_bytes_total", 103.0),
            ("journal_bytes_total", 104.0),
            ("checkpoints_total", 105.0),
            ("checkpoint_failures_total", 106.0),
            ("incarnations_over_total", 107.0),
            ("calls_given_up_total", 108.0),
            ("restores_total", 109.0),
            ("restore_fallbacks_total", 110.0),
            ("commit_seconds_total", 2.5),
            ("shard_running{shard=\"3\"}", 1.0),
            ("shard_stalled{shard=\"3\"}", 0.0),
            ("shard_stalled{shard=\"4\"}", 1.0),
            ("shard_epoch{shard=\"3\"}", 201.0),
            ("shard_lag_records{shard=\"3\"}", 202.0),
            ("shard_uncommitted_records{shard=\"3\"}", 203.0),
            ("shard_cache_bytes{shard=\"3\"}", 204.0),
            ("shard_checkpoint_epoch{shard=\"3\"}", 205.0),
            ("shard_journal_records{shard=\"3\"}", 206.0),
            ("shard_journal_bytes{shard=\"3\"}", 207.0),
            ("records_total{shard=\"3\",verdict=\"processed\"}", 301.0),
            ("records_total{shard=\"3\",verdict=\"rejected\"}", 302.0),
            ("records_total{shard=\"3\",verdict=\"duplicate\"}", 303.0),
            ("records_total{shard=\"3\",verdict=\"filtered\"}", 304.0),
            ("records_total{shard=\"3\",verdict=\"throttled\"}", 305.0),
        ];
        assert_eq!(shown, BTreeMap::from(expected));
    }

    #[test]
    fn it_is_ready_when_every_shard_runs_and_says_else_what_each_of_the_others_does() {
        let status = Status::default();
        assert_eq!(readiness(&status), (StatusCode::SERVICE_UNAVAILABLE, "\n".into()), "without any shard");
        status.update(ShardId::new(0), |shard| shard.phase = "running");
        assert_eq!(readiness(&status), (StatusCode::OK, "ready\n".into()));
        status.update(ShardId::new(1), |shard| shard.phase = "restoring");
        status.update(ShardId::new(2), |shard| (shard.phase, shard.failure) = ("failed", Some("no disk".into())));
        let waiting = "shard 1 is restoring\nshard 2 is failed: no disk\n";
        assert_eq!(readiness(&status), (StatusCode::SERVICE_UNAVAILABLE, waiting.into()));
    }
}
