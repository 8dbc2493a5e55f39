//! One look at a job that is being deleted.

use std::sync::Arc;
use std::time::Duration;

use forebay_crds::IngestionJob;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::{Sight, Step, step};
use crate::apply::ApplyError;
use crate::plan;
use crate::reconcile::{Context, blueprint};
use crate::report::News;

/// What a job or a savepoint has whose `deletionPolicy` is `Delete`.
pub const FINALIZER: &str = "forebay.dev/cleanup";
/// While it is not over.
const INTERVAL: Duration = Duration::from_secs(1);

/// One look. A job without the finalizer needs none: all that was made for it has it as its owner, and goes with it.
pub async fn reconcile(resource: Arc<IngestionJob>, context: Arc<Context>) -> Result<Action, ApplyError> {
    if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Action::await_change());
    }
    let Ok(blueprint) = blueprint(&resource, &context) else {
        return release(&resource, &context, Some("its manifest cannot work, and so does not say where that is".to_owned())).await;
    };
    let seen = context.observer.look(&blueprint).await;
    let since = resource.metadata.deletion_timestamp.as_ref().map(|time| Timestamp::now().duration_since(time.0));
    // The workers, and whoever rewinds it or puts letters back.
    let pods = context.observer.pods_of(blueprint.uid());
    let sight = Sight {
        age: since.and_then(|since| since.try_into().ok()).unwrap_or_default(),
        pods: pods.iter().filter(|pod| !pod.ends).map(|pod| pod.name.clone()).collect(),
        has_pods: !pods.is_empty(),
        is_copied: context.observer.is_copied(blueprint.uid()),
        cleaner: context.observer.cleaner(blueprint.uid()),
    };
    match step(&sight) {
        Step::Wait => {}
        Step::DeletePods(names) => {
            for pod in pods.into_iter().filter(|pod| names.contains(&pod.name)) {
                let (pod, uid, reason) = (pod.name, pod.uid, "the job is deleted".to_owned());
                context.applier.act(&blueprint, &context.observer, &seen, &plan::Action::DeletePod { pod, uid, reason }).await?;
            }
        }
        Step::Clean => match context.applier.clean(&blueprint, &seen).await {
            Err(ApplyError::NamespaceEnds) => {
                return release(&resource, &context, Some("the whole namespace is being deleted".to_owned())).await;
            }
            done => done?,
        },
        Step::Release(left) => {
            context.applier.delete_cleaner(&blueprint).await?;
            return release(&resource, &context, left).await;
        }
    }
    Ok(Action::requeue(INTERVAL))
}

async fn release(resource: &IngestionJob, context: &Context, left: Option<String>) -> Result<Action, ApplyError> {
    if let Some(why) = left {
        let note = format!("the job goes, and its journal topic and checkpoints may still be there: {why}. `forebay cleanup` deletes them");
        context.applier.tell(resource, News { is_warning: true, reason: "CleanupGivenUp", note }).await;
    }
    context.applier.finalizer(resource, FINALIZER, false).await?;
    Ok(Action::await_change())
}
