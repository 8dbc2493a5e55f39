//! `/metrics` (Prometheus), `/healthz`, `/readyz`, and the last look at a job for `kubectl forebay`. Reads and changes nothing. Metrics are listed in
//! `docs/metrics.md`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use forebay_api::look::{self, Look};
use forebay_crds::IngestionJob;
use futures::FutureExt;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::installation::{Installation, Whose};
use crate::leader::Leadership;
use crate::looks::Looks;

/// From what an idle job takes to several times what a worker may take to answer.
const RECONCILE_SECONDS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0];

/// From what an idle job takes to what would keep all others waiting.
const DECIDING_SECONDS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5];

/// What the operator counts of itself.
pub struct Metrics {
    reconciles: IntCounter,
    errors: IntCounter,
    seconds: Histogram,
    deciding: Histogram,
    /// The jobs as the watch has them, and whose they may be, once this operator leads.
    jobs: OnceLock<(Store<IngestionJob>, Arc<Installation>)>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let named = "the name of a metric is one";
        let seconds = HistogramOpts::new("forebay_operator_reconcile_seconds", "How long looks at jobs took.");
        let deciding =
            HistogramOpts::new("forebay_operator_deciding_seconds", "How long looks at jobs kept the thread, their waits left out.");
        Self {
            reconciles: IntCounter::new("forebay_operator_reconciles_total", "Looks at jobs.").expect(named),
            errors: IntCounter::new("forebay_operator_reconcile_errors_total", "Looks at jobs that ended with an error.").expect(named),
            seconds: Histogram::with_opts(seconds.buckets(RECONCILE_SECONDS.to_vec())).expect(named),
            deciding: Histogram::with_opts(deciding.buckets(DECIDING_SECONDS.to_vec())).expect(named),
            jobs: OnceLock::new(),
        }
    }

    /// Counts one look at a job: how long it took, for how much of that it kept the thread, and whether it ended with an error.
    pub fn count(&self, (took, deciding): (Duration, Duration), failed: bool) {
        self.reconciles.inc();
        self.errors.inc_by(u64::from(failed));
        self.seconds.observe(took.as_secs_f64());
        self.deciding.observe(deciding.as_secs_f64());
    }

    /// Tells where the jobs are to be seen, and which of them are this operator's, once.
    pub fn see_jobs(&self, jobs: Store<IngestionJob>, installation: Arc<Installation>) {
        // A second time there is nothing new to tell: a process leads once.
        drop(self.jobs.set((jobs, installation)));
    }

    /// Whether all jobs there are have been seen, and all else before.
    fn sees_jobs(&self) -> bool {
        self.jobs.get().is_some_and(|(jobs, _)| jobs.wait_until_ready().now_or_never().is_some_and(|seen| seen.is_ok()))
    }

    /// The uid of a job that there is.
    fn uid_of(&self, namespace: &str, name: &str) -> Option<String> {
        self.jobs.get()?.0.get(&ObjectRef::new(name).within(namespace))?.uid()
    }

    fn render(&self, leads: bool) -> Result<String, prometheus::Error> {
        // A fresh registry per scrape, as in a worker: a phase that no job has any more must not be left over.
        let registry = Registry::new();
        registry.register(Box::new(self.reconciles.clone()))?;
        registry.register(Box::new(self.errors.clone()))?;
        registry.register(Box::new(self.seconds.clone()))?;
        registry.register(Box::new(self.deciding.clone()))?;
        let leader = IntGauge::new("forebay_operator_leader", "1 while this operator leads, and sees all jobs.")?;
        leader.set(i64::from(leads && self.sees_jobs()));
        registry.register(Box::new(leader))?;
        let jobs = IntGaugeVec::new(Opts::new("forebay_operator_jobs", "Jobs that this installation looks after, by phase."), &["phase"])?;
        let others = Opts::new("forebay_operator_jobs_of_others", "Jobs that another installation looks after, by its namespace.");
        let others = IntGaugeVec::new(others, &["operator"])?;
        for job in self.jobs.get().into_iter().flat_map(|(jobs, _)| jobs.state()) {
            match self.other_of(&job) {
                Some(other) => others.with_label_values(&[other]).inc(),
                None => jobs.with_label_values(&[phase(&job)]).inc(),
            }
        }
        registry.register(Box::new(jobs))?;
        registry.register(Box::new(others))?;
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }

    fn other_of<'a>(&self, job: &'a IngestionJob) -> Option<&'a str> {
        match self.jobs.get()?.1.whose(job) {
            Whose::Anothers(other) => Some(other),
            Whose::Ours | Whose::Nobodys => None,
        }
    }
}

fn phase(job: &IngestionJob) -> String {
    let phase = job.status.as_ref().and_then(|status| status.phase);
    phase.map_or("Unknown".to_owned(), |phase| format!("{phase:?}"))
}

/// Serves on `address` until the process ends. `Err` when the address cannot be had.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>, looks: Arc<Looks>, leadership: Arc<Leadership>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("serve metrics on {address}"))?;
    let (ready, leads, jobs, sees) = (leadership.clone(), leadership.clone(), metrics.clone(), metrics.clone());
    let tell = move |Path((namespace, name)): Path<(String, String)>| async move {
        let uid = jobs.uid_of(&namespace, &name);
        let look = uid.and_then(|uid| looks.of(&namespace, &name, &uid, Instant::now()));
        last_look(leads.is_certain(), look)
    };
    let app = axum::Router::new()
        .route(&format!("{}/{{name}}", look::path("{namespace}")), get(tell))
        .route("/metrics", get(move || async move { answer(metrics.render(leadership.is_certain())) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readiness(ready.is_in_touch(), ready.is_certain(), sees.sees_jobs()) }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    Ok(())
}

/// Ready: able to lead and waiting for its turn, or leading and at work.
fn readiness(is_in_touch: bool, leads: bool, sees_jobs: bool) -> (StatusCode, &'static str) {
    match (is_in_touch, leads, sees_jobs) {
        (false, _, _) => (StatusCode::SERVICE_UNAVAILABLE, "the API server has not answered about the lease lately\n"),
        (true, true, false) => (StatusCode::SERVICE_UNAVAILABLE, "this operator leads, and its watches have not seen all there is yet\n"),
        (true, true, true) | (true, false, _) => (StatusCode::OK, "ready\n"),
    }
}

/// Only who leads looks at jobs. A job that is there and was not looked at yet will be within a second or two.
fn last_look(leads: bool, look: Option<Look>) -> (StatusCode, String) {
    match look {
        _ if !leads => (StatusCode::SERVICE_UNAVAILABLE, "this operator does not lead\n".to_owned()),
        None => (StatusCode::NOT_FOUND, "this operator has not looked at such a job\n".to_owned()),
        Some(look) => (StatusCode::OK, serde_json::to_string(&look).expect("a look has string keys only")),
    }
}

fn answer(rendered: Result<String, prometheus::Error>) -> (StatusCode, String) {
    match rendered {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher};

    use super::*;

    /// Method: three jobs, one of them another installation's, are put into the store that a watch fills, and three looks are counted.
    #[test]
    fn the_metrics_tell_of_looks_and_of_jobs_by_their_phase() {
        let metrics = Metrics::new();
        assert!(metrics.render(false).unwrap().contains("\nforebay_operator_leader 0\n"));
        let (store, mut writer) = reflector::store::<IngestionJob>();
        writer.apply_watcher_event(&watcher::Event::Init);
        let running = "{\"phase\": \"Running\"}";
        let of_another = "{\"phase\": \"Running\", \"operator\": \"two\"}";
        for (name, status) in [("a", running), ("b", "{}"), ("c", of_another)] {
            let status: serde_json::Value = serde_json::from_str(status).unwrap();
            let job = serde_json::json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec(), "status": status});
            writer.apply_watcher_event(&watcher::Event::InitApply(serde_json::from_value(job).unwrap()));
        }
        metrics.see_jobs(store, Arc::new(Installation::new("one")));
        assert!(metrics.render(true).unwrap().contains("\nforebay_operator_leader 0\n"), "it has not seen all of them");
        writer.apply_watcher_event(&watcher::Event::InitDone);
        for failed in [false, true, false] {
            metrics.count((Duration::from_millis(3), Duration::from_millis(1)), failed);
        }
        let said = metrics.render(true).unwrap();
        for line in [
            "forebay_operator_leader 1",
            "forebay_operator_jobs{phase=\"Running\"} 1",
            "forebay_operator_jobs{phase=\"Unknown\"} 1",
            "forebay_operator_jobs_of_others{operator=\"two\"} 1",
            "forebay_operator_reconciles_total 3",
            "forebay_operator_reconcile_errors_total 1",
            "forebay_operator_reconcile_seconds_bucket{le=\"0.001\"} 0",
            "forebay_operator_reconcile_seconds_bucket{le=\"0.005\"} 3",
            "forebay_operator_deciding_seconds_bucket{le=\"0.0005\"} 0",
            "forebay_operator_deciding_seconds_bucket{le=\"0.001\"} 3",
        ] {
            assert!(said.lines().any(|said| said == line), "{line} is not in\n{said}");
        }
    }

    /// Method: what is known of a leader, from its start to the end of its watches' first lists.
    #[test]
    fn who_leads_is_ready_once_its_watches_have_seen_all() {
        let metrics = Metrics::new();
        let ready = |is_in_touch, leads| readiness(is_in_touch, leads, metrics.sees_jobs()).0 == StatusCode::OK;
        assert!(ready(true, false) && !ready(false, false) && !ready(true, true));
        let (store, mut writer) = reflector::store::<IngestionJob>();
        metrics.see_jobs(store, Arc::new(Installation::new("one")));
        writer.apply_watcher_event(&watcher::Event::Init);
        assert!(ready(true, false) && !ready(true, true));
        writer.apply_watcher_event(&watcher::Event::InitDone);
        assert!(ready(true, true) && !ready(false, true));
    }

    fn spec() -> serde_json::Value {
        serde_json::json!({"inputs": [{"name": "i", "topic": "t"}], "deadLetter": {"topic": "d"}, "pipeline": []})
    }
}
