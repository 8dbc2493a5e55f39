//! `forebay-operator`: runs `IngestionJob`s in a Kubernetes cluster. Arguments, logging and wiring; the work is in `reconcile.rs`.
//!
//! Of several instances one acts, the one that holds the lease: two would only undo each other's assignments, which costs time and no record. Of several
//! installations, each with a lease of its own, one looks after a job: see `installation.rs`.

mod apply;
mod certificates;
mod credentials;
mod election;
mod http;
mod installation;
mod leader;
mod looks;
mod observe;
mod plan;
mod reconcile;
mod report;
mod resources;
mod savepoint;
mod stopwatch;
mod teardown;
mod turns;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use forebay_crds::{IngestionJob, IngestionSavepoint};
use futures::future::join;
use futures::{FutureExt, StreamExt};
use kube::Client;
use kube::runtime::controller::Error;
use kube::runtime::watcher;

use crate::apply::{Applier, ApplyError};
use crate::credentials::Credentials;
use crate::http::Metrics;
use crate::installation::Installation;
use crate::leader::Leadership;
use crate::looks::Looks;
use crate::observe::{Observer, START_TIMEOUT, all_seen, controller, own_pods, seen};
use crate::reconcile::{Context, LOOK_MAX, in_time, reconcile, retry};
use crate::stopwatch::timed;
use crate::turns::Turns;

/// With thousands of connections and objects that come and go, the system's keeps much that nobody uses any more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs IngestionJobs in a Kubernetes cluster.
#[derive(Parser)]
#[command(name = "forebay-operator", version, max_term_width = 110)]
struct Arguments {
    /// Look after the jobs of this namespace only [default: of all]
    #[arg(long, value_name = "NAME", env = "FOREBAY_NAMESPACE")]
    namespace: Option<String>,

    /// The image of workers whose job names none (spec.workers.image)
    #[arg(long, value_name = "IMAGE", env = "FOREBAY_WORKER_IMAGE")]
    worker_image: String,

    /// This instance's name in events and in the lease, which no other one has [default: a random one]
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    name: Option<String>,

    /// Where metrics and health are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    metrics: SocketAddr,

    /// Log as JSON lines instead of text; RUST_LOG says how much (default: info)
    #[arg(long)]
    log_json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_logging(arguments.log_json);
    let client = Client::try_default().await.context("find the API server; outside of a cluster KUBECONFIG names it")?;
    let name = arguments.name.clone().unwrap_or_else(|| format!("forebay-operator-{}", uuid::Uuid::new_v4()));
    let leadership = Arc::new(Leadership::new(&client, name.clone()));
    let (metrics, looks) = (Arc::new(Metrics::new()), Arc::new(Looks::default()));
    http::serve(arguments.metrics, metrics.clone(), looks.clone(), leadership.clone()).await?;
    let stop = asked_to_stop()?.shared();
    let mut outcome = Ok(());
    let work = async {
        outcome = look_after_jobs(&client, &arguments, name, leadership.clone(), (metrics, looks), stop.clone()).await;
    };
    leadership.run(work, stop.clone()).await?;
    outcome
}

/// Until it is asked to stop, and the looks that have begun are over. `Err` when a watch does not come up: then another one may try, and this one is started again.
async fn look_after_jobs(
    client: &Client,
    arguments: &Arguments,
    name: String,
    leadership: Arc<Leadership>,
    (metrics, looks): (Arc<Metrics>, Arc<Looks>),
    stop: impl Future<Output = ()> + Clone + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let namespace = arguments.namespace.as_deref();
    let jobs = controller::<IngestionJob>(client, namespace);
    let savepoints = controller::<IngestionSavepoint>(client, namespace);
    let credentials = Credentials::load(client).await?;
    let observer = tokio::select! {
        biased;
        () = stop.clone() => return Ok(()),
        observer = Observer::start(client, namespace, credentials) => observer?,
    };
    let installation = Arc::new(Installation::new(client.default_namespace()));
    metrics.see_jobs(jobs.store(), installation.clone());
    let all = all_seen([seen(&jobs.store()), seen(&savepoints.store())], START_TIMEOUT);
    let context = Arc::new(Context {
        observer,
        applier: Applier::new(client.clone(), name, leadership),
        jobs: jobs.store(),
        installation,
        worker_image: arguments.worker_image.clone(),
        written: Mutex::new(BTreeMap::new()),
        looks,
    });
    tracing::info!(namespace = namespace.unwrap_or("all"), "jobs are looked after");
    let turns = Arc::new(Turns::default());
    let counted = move |job: Arc<IngestionJob>, context: Arc<Context>| {
        let (metrics, turns) = (metrics.clone(), turns.clone());
        async move {
            let is_first = !context.looks.has(&job);
            // Boxed once it begins: it is large, and one that waits for its turn takes nothing.
            let look = async {
                let begin = Instant::now();
                let (outcome, busy) = timed(Box::pin(in_time(LOOK_MAX, reconcile(job, context)))).await;
                metrics.count((begin.elapsed(), busy), outcome.is_err());
                outcome
            };
            if is_first { turns.take(look).await } else { look.await }
        }
    };
    let jobs = jobs.owns_stream(own_pods(client, namespace)).graceful_shutdown_on(stop.clone()).run(counted, retry, context.clone());
    let savepoints = savepoints.owns_stream(own_pods(client, namespace)).graceful_shutdown_on(stop).run(
        |savepoint, context| in_time(LOOK_MAX, savepoint::reconcile::reconcile(savepoint, context)),
        savepoint::reconcile::retry,
        context,
    );
    tokio::select! {
        biased;
        Err(error) = all => Err(error),
        ((), ()) = join(jobs.for_each(outcome), savepoints.for_each(outcome)) => Ok(()),
    }
}

/// SIGTERM is how Kubernetes asks, SIGINT how a person does.
fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()> + Send + Sync + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            biased;
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// What comes of one look.
async fn outcome<T>(outcome: Result<T, Error<ApplyError, watcher::Error>>) {
    match outcome {
        // `retry` has said it; and an object that was deleted meanwhile is no error.
        Ok(_) | Err(Error::ReconcilerFailed(..) | Error::ObjectNotFound(_)) => {}
        Err(error) => tracing::warn!(%error, "a watch is started again"),
    }
}

fn start_logging(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    if json { builder.json().init() } else { builder.init() }
}
