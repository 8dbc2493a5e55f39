//! One look at one savepoint: observe, decide, act, report. All reads and writes go through the operator's eyes and hands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_crds::IngestionJob;
use forebay_crds::savepoint::{IngestionSavepoint, IngestionSavepointStatus, SavepointDeletionPolicy, SavepointPhase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::{Progress, Sight, Step, age_at_least, arguments, step};
use crate::apply::ApplyError;
use crate::installation::Whose;
use crate::observe::Seen;
use crate::plan::rollout::Rollout;
use crate::reconcile::{Context, blueprint};
use crate::report::{News, condition};
use crate::resources::savepoint::{path, place};
use crate::resources::{Blueprint, TEMPLATE_LABEL};
use crate::teardown;
use crate::teardown::reconcile::FINALIZER;

/// While it is not over.
const INTERVAL: Duration = Duration::from_secs(1);

/// One look. A savepoint of a job of another installation is left alone.
pub async fn reconcile(savepoint: Arc<IngestionSavepoint>, context: Arc<Context>) -> Result<Action, ApplyError> {
    let now = Timestamp::now();
    // Before all jobs have been seen, it would be taken for one whose job is gone.
    if !context.sees_jobs() {
        return Ok(Action::requeue(INTERVAL));
    }
    if resource_of(&savepoint, &context).is_some_and(|job| context.installation.whose(&job) != Whose::Ours) {
        return Ok(left(&savepoint));
    }
    if savepoint.metadata.deletion_timestamp.is_some() {
        return end(&savepoint, &context, now).await;
    }
    let is_erased = is_erased(&savepoint);
    if is_erased != has_finalizer(&savepoint) {
        context.applier.finalizer(&*savepoint, FINALIZER, is_erased).await?;
        // It is another version now, and what is written about it names the one that was seen.
        return Ok(Action::requeue(INTERVAL));
    }
    let (job, uid) = (job_of(&savepoint, &context).await, savepoint.uid().unwrap_or_default());
    let copier = context.observer.copier(&uid, now);
    let sight = Sight {
        phase: savepoint.status.as_ref().and_then(|status| status.phase),
        age: savepoint.metadata.creation_timestamp.as_ref().map_or(Duration::ZERO, |made| age_at_least(made.0, now)),
        deadline: savepoint.spec.deadline(),
        is_waited_for: savepoint.labels().contains_key(TEMPLATE_LABEL),
        job: job.as_ref().map(|(_, seen)| seen.fleet.clone()),
        pod_age: copier.as_ref().map_or(Duration::ZERO, |(_, age)| *age),
        pod: copier.map(|(task, _)| task),
        refused: context.observer.refusals.of(&uid, "", Instant::now()),
    };
    let (progress, next) = step(&sight);
    let mut done = Ok(());
    match (&next, &job) {
        (Step::Checkpoint(pods), Some((_, seen))) => context.applier.checkpoint(&context.observer, seen, pods).await,
        (Step::Copy(_) | Step::CopyAtRest | Step::Find, Some((blueprint, seen))) => {
            let template = Rollout::of(&seen.fleet).in_force();
            let place = place(&savepoint);
            done = context.applier.copy(blueprint, (&context.observer, seen), template, &savepoint, (&place, &arguments(&next))).await;
            context.observer.refusals.note(&uid, "", done.as_ref().err().and_then(ApplyError::refusal), Instant::now());
        }
        (Step::CleanUp, _) => done = context.applier.delete_copier(&savepoint, false).await,
        (Step::DropLost, _) => done = context.applier.delete_copier(&savepoint, true).await,
        (Step::Wait | Step::Checkpoint(_) | Step::Copy(_) | Step::CopyAtRest | Step::Find, _) => {}
    }
    let Some(progress) = progress else {
        return done.map(|()| if next == Step::Wait { Action::await_change() } else { Action::requeue(INTERVAL) });
    };
    let status = status(&savepoint, &progress, now);
    if savepoint.status.as_ref() != Some(&status) {
        if sight.phase != Some(progress.phase) {
            context.applier.tell(&*savepoint, news(&progress)).await;
        }
        context.applier.status(&*savepoint, &status).await?;
    }
    done.map(|()| Action::requeue(INTERVAL))
}

/// After an error.
pub fn retry(savepoint: Arc<IngestionSavepoint>, error: &ApplyError, _: Arc<Context>) -> Action {
    tracing::warn!(savepoint = savepoint.name_any(), %error, "a savepoint is looked at again");
    Action::requeue(INTERVAL * 2)
}

/// The job may be claimed, or handed over, which is no change of the savepoint.
fn left(savepoint: &IngestionSavepoint) -> Action {
    let phase = savepoint.status.as_ref().and_then(|status| status.phase);
    let is_over = matches!(phase, Some(SavepointPhase::Completed | SavepointPhase::Failed));
    let rests = is_over && savepoint.metadata.deletion_timestamp.is_none() && is_erased(savepoint) == has_finalizer(savepoint);
    if rests { Action::await_change() } else { Action::requeue(INTERVAL) }
}

fn is_erased(savepoint: &IngestionSavepoint) -> bool {
    savepoint.spec.deletion_policy == SavepointDeletionPolicy::Delete
}

fn has_finalizer(savepoint: &IngestionSavepoint) -> bool {
    savepoint.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// One look at a savepoint that is being deleted. Without the finalizer its pod goes with it, and what was copied stays.
async fn end(savepoint: &IngestionSavepoint, context: &Context, now: Timestamp) -> Result<Action, ApplyError> {
    if !has_finalizer(savepoint) {
        return Ok(Action::await_change());
    }
    let Some((blueprint, seen)) = job_of(savepoint, context).await else {
        return release(savepoint, context, Some("its job is gone, which says where it is".to_owned())).await;
    };
    let age =
        savepoint.metadata.deletion_timestamp.as_ref().and_then(|time| now.duration_since(time.0).try_into().ok()).unwrap_or_default();
    let uid = savepoint.uid().unwrap_or_default();
    // The one that copies: what it puts there after the other one has looked would stay for ever.
    let pods = context.observer.pods_of(&uid);
    let sight = teardown::Sight {
        age,
        pods: pods.iter().filter(|pod| !pod.ends).map(|pod| pod.name.clone()).collect(),
        has_pods: !pods.is_empty(),
        is_copied: false,
        cleaner: context.observer.cleaner(&uid),
    };
    match teardown::step(&sight) {
        teardown::Step::Wait => {}
        teardown::Step::DeletePods(_) => context.applier.delete_copier(savepoint, false).await?,
        teardown::Step::Clean => {
            let template = Rollout::of(&seen.fleet).in_force();
            match context.applier.erase(&blueprint, &seen, template, savepoint, &place(savepoint)).await {
                Err(ApplyError::NamespaceEnds) => {
                    return release(savepoint, context, Some("the whole namespace is being deleted".to_owned())).await;
                }
                done => done?,
            }
        }
        teardown::Step::Release(left) => {
            context.applier.delete_eraser(savepoint).await?;
            return release(savepoint, context, left).await;
        }
    }
    Ok(Action::requeue(INTERVAL))
}

async fn release(savepoint: &IngestionSavepoint, context: &Context, left: Option<String>) -> Result<Action, ApplyError> {
    if let Some(why) = left {
        let note = format!("the savepoint goes, and what was copied may still be there: {why}. `forebay savepoint delete` deletes it");
        context.applier.tell(savepoint, News { is_warning: true, reason: "CleanupGivenUp", note }).await;
    }
    context.applier.finalizer(savepoint, FINALIZER, false).await?;
    Ok(Action::await_change())
}

fn resource_of(savepoint: &IngestionSavepoint, context: &Context) -> Option<Arc<IngestionJob>> {
    context.jobs.get(&ObjectRef::<IngestionJob>::new(&savepoint.spec.job).within(&savepoint.namespace()?))
}

async fn job_of(savepoint: &IngestionSavepoint, context: &Context) -> Option<(Box<Blueprint>, Seen)> {
    let resource = resource_of(savepoint, context)?;
    let blueprint = blueprint(&resource, context).ok()?;
    let seen = context.observer.look(&blueprint).await;
    Some((blueprint, seen))
}

fn news(progress: &Progress) -> News {
    let (is_warning, reason) = match progress.phase {
        SavepointPhase::Pending => (false, "SavepointPending"),
        SavepointPhase::Copying => (false, "SavepointCopying"),
        SavepointPhase::Completed => (false, "SavepointCompleted"),
        SavepointPhase::Failed => (true, "SavepointFailed"),
    };
    News { is_warning, reason, note: format!("{}: {}", progress.reason, progress.message) }
}

fn status(savepoint: &IngestionSavepoint, progress: &Progress, now: Timestamp) -> IngestionSavepointStatus {
    let old = savepoint.status.clone().unwrap_or_default();
    let generation = savepoint.meta().generation;
    let condition = |type_: &str, holds| condition(&old.conditions, generation, (type_, holds), (progress.reason, &progress.message), now);
    let is_complete = progress.phase == SavepointPhase::Completed;
    IngestionSavepointStatus {
        observed_generation: generation,
        phase: Some(progress.phase),
        conditions: vec![
            condition("Ready", is_complete),
            condition("Reconciling", matches!(progress.phase, SavepointPhase::Pending | SavepointPhase::Copying)),
            condition("Stalled", progress.phase == SavepointPhase::Failed),
        ],
        path: is_complete.then(|| path(savepoint)),
        completed: is_complete.then(|| old.completed.unwrap_or(Time(now))),
    }
}
