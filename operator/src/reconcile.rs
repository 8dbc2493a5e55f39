//! The loop: observe, validate, plan, apply, report. Runs for a job whenever something of it changes, and once a second to hear its workers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_crds::job::{DeletionPolicy, StoreSpec};
use forebay_crds::{Finding, IngestionJob, Path, ValidatedJob, validate};
use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::time::timeout;

use crate::apply::{Applier, ApplyError};
use crate::installation::{Installation, Whose};
use crate::looks::Looks;
use crate::observe::refusals::Refusals;
use crate::observe::{Observer, Seen};
use crate::plan::{Action, assignment, plan};
use crate::report::{self, Verdict};
use crate::resources::Blueprint;
use crate::teardown;
use crate::teardown::reconcile::FINALIZER;

/// How often workers are heard: several times within the time after which a silent one counts as lost.
const HEARING_INTERVAL: Duration = Duration::from_secs(1);
/// How often while a shard is between two owners: nobody works on it.
const MOVING_INTERVAL: Duration = Duration::from_millis(50);
/// How often figures alone are written to a status: seldom enough that a thousand jobs are a hundred writes a second at worst.
const FIGURES_INTERVAL: Duration = Duration::from_secs(10);
/// How long to wait after an error.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// What all reconciles share.
pub struct Context {
    /// Every read.
    pub observer: Observer,
    /// Every write.
    pub applier: Applier,
    /// All jobs, as the watch has them.
    pub jobs: Store<IngestionJob>,
    /// Whose jobs this operator looks after.
    pub installation: Arc<Installation>,
    /// The image of workers whose job names none.
    pub worker_image: String,
    /// When each job's status was last written, by its uid: those of a moment ago.
    pub written: Mutex<BTreeMap<String, Instant>>,
    /// The last look at each job, for those who ask.
    pub looks: Arc<Looks>,
}

impl Context {
    /// Whether the watch has seen all jobs there are.
    pub fn sees_jobs(&self) -> bool {
        self.jobs.wait_until_ready().now_or_never().is_some_and(|seen| seen.is_ok())
    }

    /// Whether a job that was this installation's when it was seen is so no more.
    fn is_taken(&self, job: &IngestionJob) -> bool {
        self.jobs.get(&ObjectRef::from_obj(job)).is_some_and(|job| self.installation.whose(&job) != Whose::Ours)
    }
}

/// A look that takes longer is given up, and begun anew: the API server answers within a minute or not at all, and one answer that never comes must not end the looks
/// at a job.
pub const LOOK_MAX: Duration = Duration::from_secs(180);

/// Gives a look up when its time is over. What it has done by then is seen by the next one, as after the end of an operator.
pub async fn in_time<T>(limit: Duration, look: impl Future<Output = Result<T, ApplyError>>) -> Result<T, ApplyError> {
    timeout(limit, look).await.unwrap_or(Err(ApplyError::Unanswered))
}

/// One look at one job. One of another installation is left alone.
pub async fn reconcile(resource: Arc<IngestionJob>, context: Arc<Context>) -> Result<controller::Action, ApplyError> {
    let begin = Instant::now();
    if !is_ours(&resource, &context).await? {
        return Ok(controller::Action::await_change());
    }
    if resource.metadata.deletion_timestamp.is_some() {
        return Box::pin(teardown::reconcile::reconcile(resource, context)).await;
    }
    let blueprint = match blueprint(&resource, &context) {
        Ok(blueprint) => blueprint,
        Err(verdict) => return Box::pin(look_after(&resource, &context, &verdict)).await,
    };
    let is_cleaned_up = blueprint.job.deletion_policy == DeletionPolicy::Delete;
    if is_cleaned_up != resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        Box::pin(context.applier.finalizer(&*resource, FINALIZER, is_cleaned_up)).await?;
        // The job is another version now, and what is written about it names the one that was seen.
        return Ok(controller::Action::await_change());
    }
    let contradictions = context.observer.contradictions(&blueprint);
    if !contradictions.is_empty() {
        return Box::pin(look_after(&resource, &context, &Verdict::contradicts_state(&contradictions))).await;
    }
    let (seen, actions, outcome) = look_and_act(&blueprint, &context).await;
    let mut verdict = Verdict::of(&seen);
    if blueprint.is_paused() {
        verdict = verdict.paused();
    }
    if let Some(refusal) = outcome.as_ref().err().and_then(ApplyError::refusal) {
        verdict = verdict.refused(refusal.message);
    }
    context.looks.keep(&resource, &verdict, Some(&seen.fleet), &actions, Instant::now());
    write(&context, &resource, &verdict, Some(&seen), &actions).await?;
    let rests = seen.fleet.replicas == 0 && seen.fleet.workers.is_empty() && !seen.fleet.is_rewinding();
    let is_moving = assignment::is_under_way(&seen.fleet) || actions.iter().any(|action| matches!(action, Action::Assign { .. }));
    let interval = if is_moving { MOVING_INTERVAL } else { HEARING_INTERVAL };
    // From one look's begin to the next one's: one that waits in vain for a silent worker does not put off what follows from that.
    let again = interval.saturating_sub(begin.elapsed());
    outcome.map(|()| if rests { controller::Action::await_change() } else { controller::Action::requeue(again) })
}

/// What the manifest means, or why it cannot work. Boxed, and made in a function of its own: a look waits for its workers, and what it needs no more until then
/// would be kept.
pub fn blueprint(resource: &Arc<IngestionJob>, context: &Context) -> Result<Box<Blueprint>, Verdict> {
    let job = validate(resource).and_then(check_for_cluster).map_err(|findings| Verdict::invalid(&findings))?;
    Ok(Box::new(Blueprint::new(resource.clone(), job, &context.worker_image)))
}

/// Whether this installation looks after a job. One that nobody looks after is claimed, and looked at once that is seen: whoever has claimed it before is seen
/// then, too.
async fn is_ours(resource: &IngestionJob, context: &Context) -> Result<bool, ApplyError> {
    let (uid, job, own) = (resource.uid().unwrap_or_default(), resource.name_any(), context.installation.name());
    match context.installation.whose(resource) {
        Whose::Ours => {
            if context.installation.note(&uid, None) {
                tracing::info!(job, "the job was handed over to this installation, and is looked after");
            }
            Ok(true)
        }
        Whose::Nobodys => {
            Box::pin(context.applier.claim(resource, own)).await?;
            Ok(false)
        }
        Whose::Anothers(other) => {
            if context.installation.note(&uid, Some(other)) {
                context.looks.forget(resource);
                let namespace = resource.namespace().unwrap_or_default();
                tracing::warn!(
                    job,
                    namespace,
                    "the job is left alone: the installation in namespace {other} looks after it. If that one is gone for good, hand it over: \
                     kubectl patch ingestionjob {job} -n {namespace} --subresource=status --type=merge -p '{{\"status\":{{\"operator\":\"{own}\"}}}}'"
                );
            }
            Ok(false)
        }
    }
}

/// A manifest that cannot work, or not with the job's state, changes nothing: what is in force goes on, and whoever is lost is replaced.
async fn look_after(resource: &Arc<IngestionJob>, context: &Context, verdict: &Verdict) -> Result<controller::Action, ApplyError> {
    let Some(blueprint) = context.observer.in_force(resource) else {
        context.looks.keep(resource, verdict, None, &[], Instant::now());
        write(context, resource, verdict, None, &[]).await?;
        // A repaired spec comes with a new event.
        return Ok(controller::Action::await_change());
    };
    let (seen, actions, outcome) = look_and_act(&blueprint, context).await;
    context.looks.keep(resource, verdict, Some(&seen.fleet), &actions, Instant::now());
    write(context, resource, verdict, Some(&seen), &actions).await?;
    outcome.map(|()| controller::Action::requeue(HEARING_INTERVAL))
}

async fn look_and_act(blueprint: &Blueprint, context: &Context) -> (Seen, Vec<Action>, Result<(), ApplyError>) {
    context.observer.forget_gone();
    let seen = context.observer.look(blueprint).await;
    // The workers' answers may have been waited for.
    if blueprint.is_paused() || context.is_taken(&blueprint.resource) {
        return (seen, Vec::new(), Ok(()));
    }
    let actions = plan(&seen.fleet);
    let mut outcome = Ok(());
    if context.observer.certificate_is_due(blueprint) {
        outcome = Box::pin(context.applier.certificate(blueprint, context.observer.credentials().authority())).await;
    }
    for action in &actions {
        // Boxed, as all that is seldom: else every look has room for the largest object that may be made.
        let done = Box::pin(context.applier.act(blueprint, &context.observer, &seen, action)).await;
        note_refusal(&context.observer.refusals, blueprint.uid(), action, &done);
        outcome = outcome.and(done);
    }
    (seen, actions, outcome)
}

/// Remembers which pods the API server does not take, until it takes one, or the revision is judged.
fn note_refusal(refusals: &Refusals, job: &str, action: &Action, done: &Result<(), ApplyError>) {
    if let Action::ApplyPod { template, .. } = action {
        refusals.note(job, template, done.as_ref().err().and_then(ApplyError::refusal), Instant::now());
    }
    if let Action::Mark { template, .. } = action {
        refusals.forget(job, template);
    }
}

/// What to do after an error.
pub fn retry(resource: Arc<IngestionJob>, error: &ApplyError, context: Arc<Context>) -> controller::Action {
    tracing::warn!(job = resource.name_any(), %error, "a job is looked at again");
    context.looks.failed(&resource, error.to_string());
    controller::Action::requeue(RETRY_INTERVAL)
}

/// What `forebay run` takes from its command line must stand in the manifest of a job in a cluster.
fn check_for_cluster(job: ValidatedJob) -> Result<ValidatedJob, Vec<Finding>> {
    let mut findings = Vec::new();
    if job.kafka.is_none() {
        findings.push(Finding::new(&Path::spec(), "the field `kafka` is missing", "name the brokers as spec.kafka.bootstrapServers"));
    }
    match &job.store {
        Some(StoreSpec::S3(_)) => {}
        Some(StoreSpec::Folder(_)) | None => findings.push(Finding::new(
            &Path::spec().key("state"),
            "there is no object store that all workers reach",
            "name a bucket as spec.state.store.s3",
        )),
    }
    if findings.is_empty() { Ok(job) } else { Err(findings) }
}

async fn write(
    context: &Context,
    resource: &IngestionJob,
    verdict: &Verdict,
    seen: Option<&Seen>,
    actions: &[Action],
) -> Result<(), ApplyError> {
    let uid = resource.uid().unwrap_or_default();
    let status = report::status(resource, verdict, seen, Timestamp::now());
    for news in report::news(resource.status.as_ref(), verdict, seen, actions) {
        Box::pin(context.applier.tell(resource, news)).await;
    }
    let last = context.written.lock().unwrap_or_else(PoisonError::into_inner).get(&uid).copied();
    let figures_are_due = last.is_none_or(|at| at.elapsed() >= FIGURES_INTERVAL) && resource.status.as_ref() != Some(&status);
    if !report::is_news(resource.status.as_ref(), &status) && !figures_are_due {
        return Ok(());
    }
    Box::pin(context.applier.status(resource, &status)).await?;
    let mut written = context.written.lock().unwrap_or_else(PoisonError::into_inner);
    // One that was written long ago is as one that was never written.
    written.retain(|_, at| at.elapsed() < FIGURES_INTERVAL);
    written.insert(uid, Instant::now());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: a look that waits for what never comes, and one that does not.
    #[tokio::test]
    async fn a_look_that_waits_in_vain_is_given_up() {
        let vain = in_time(Duration::ZERO, futures::future::pending::<Result<(), ApplyError>>()).await.unwrap_err();
        assert!(vain.to_string().starts_with("a look at it was given up"), "{vain}");
        assert_eq!(in_time(LOOK_MAX, async { Ok(7) }).await.unwrap(), 7);
    }
}
