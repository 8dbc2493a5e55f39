//! What workers are told. A call that fails is made again at the next look.

use forebay_api::v1;

use crate::observe::{Observer, Seen};

/// A worker that does not hear it is told again with the next plan, if it is still there and it is still right.
pub(super) async fn assign(observer: &Observer, seen: &Seen, pod: &str, assignment: v1::Assignment) {
    let worker = seen.fleet.workers.iter().find(|worker| worker.pod == pod);
    let Some(mut client) = worker.and_then(|worker| observer.client(&worker.uid)) else { return };
    tracing::info!(pod, version = assignment.version, shards = ?assignment.shards, "assigned");
    if let Err(error) = client.assign(assignment).await {
        tracing::warn!(pod, error = error.message(), "a worker did not take its assignment");
    }
}

/// One that could not be told is told at the next look.
pub(super) async fn prefetch(observer: &Observer, seen: &Seen, pod: &str, request: v1::PrefetchRequest) {
    let worker = seen.fleet.workers.iter().find(|worker| worker.pod == pod);
    let Some(mut client) = worker.and_then(|worker| observer.client(&worker.uid)) else { return };
    tracing::info!(pod, shards = ?request.shards, "asked to prefetch");
    if let Err(error) = client.prefetch(request).await {
        tracing::warn!(pod, error = error.message(), "a worker was not asked to prefetch");
    }
}
