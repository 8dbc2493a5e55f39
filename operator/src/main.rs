//! `forebay-operator`: runs `IngestionJob`s in a Kubernetes cluster. Arguments, logging and wiring; the work is in `reconcile.rs`.
//!
//! One instance at a time, for now: two would only undo each other's assignments, which costs time and no record.

mod apply;
mod observe;
mod plan;
mod reconcile;
mod report;
mod resources;
mod savepoint;
mod teardown;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use clap::Parser;
use forebay_crds::{IngestionJob, IngestionSavepoint};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::runtime::watcher::{self, Config};
use kube::runtime::{Controller, controller};

use crate::apply::{Applier, ApplyError};
use crate::observe::{Observer, api, own_objects};
use crate::reconcile::{Context, reconcile, retry};

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

    /// This instance's name in events
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    name: Option<String>,

    /// Log as JSON lines instead of text; RUST_LOG says how much (default: info)
    #[arg(long)]
    log_json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_logging(arguments.log_json);
    let namespace = arguments.namespace.as_deref();
    let client = Client::try_default().await.context("find the API server; outside of a cluster KUBECONFIG names it")?;
    let jobs = Controller::new(api::<IngestionJob>(&client, namespace), Config::default());
    let savepoints = Controller::new(api::<IngestionSavepoint>(&client, namespace), Config::default());
    let context = Arc::new(Context {
        observer: Observer::start(&client, namespace).await.context("watch the operator's own objects")?,
        applier: Applier::new(client.clone(), arguments.name),
        jobs: jobs.store(),
        worker_image: arguments.worker_image,
        written: Mutex::new(BTreeMap::new()),
    });
    tracing::info!(namespace = namespace.unwrap_or("all"), "jobs are looked after");
    let pods = || api::<Pod>(&client, namespace);
    let jobs = jobs.owns(pods(), own_objects()).shutdown_on_signal().run(reconcile, retry, context.clone());
    let savepoints = savepoints.owns(pods(), own_objects()).shutdown_on_signal().run(
        savepoint::reconcile::reconcile,
        savepoint::reconcile::retry,
        context,
    );
    futures::join!(jobs.for_each(outcome), savepoints.for_each(outcome));
    Ok(())
}

/// What comes of one look.
async fn outcome<T>(outcome: Result<T, controller::Error<ApplyError, watcher::Error>>) {
    match outcome {
        // `retry` has said it; and an object that was deleted meanwhile is no error.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) => {}
        Err(error) => tracing::warn!(%error, "a watch is started again"),
    }
}

fn start_logging(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    if json { builder.json().init() } else { builder.init() }
}
