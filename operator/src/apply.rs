//! Everything that is written: objects in the cluster, by server-side apply, and assignments, by telling the workers. Decides nothing, and does
//! nothing unless this operator leads for certain.

mod error;
mod owners;
mod workers;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_api::v1;
use forebay_api::v1::CheckpointRequest;
use forebay_crds::IngestionSavepoint;
use forebay_crds::savepoint::SavepointDeletionPolicy;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::certificates::Authority;
use crate::leader::Leadership;
use crate::observe::{Observer, Seen};
use crate::plan::Action;
use crate::plan::letters::Letters;
use crate::plan::rollout::{Rollout, Standing};
use crate::report::News;
use crate::resources::revision::Revision;
use crate::resources::{
    Blueprint, LETTERS_LABEL, NUMBER_LABEL, REASON_ANNOTATION, STANDING_LABEL, certificate, config_map, disruption_budget, network_policy,
    pod, savepoint, secrets, service, task,
};
pub use error::ApplyError;

/// By this name the API server knows which fields are the operator's.
const FIELD_MANAGER: &str = "forebay-operator";
/// How many writes are under way at a time. With hundreds of jobs to be made at once the API server is the slow one: more would take memory, and keep the lease's
/// renewal waiting behind them until another operator may lead.
const WRITES_MAX: usize = 16;
/// A recorder remembers for minutes what it was told, to count what it is told again: with the start of thousands of jobs that is more than the jobs themselves.
const REMEMBERED_MAX: u32 = 200;

/// The hands of the operator.
pub struct Applier {
    client: Client,
    /// With how many events it has been told.
    recorder: Mutex<(Recorder, u32)>,
    reporter: Reporter,
    leadership: Arc<Leadership>,
    turns: Semaphore,
}

impl Applier {
    /// Writes as `instance`: the operator's own pod, as events name it.
    pub fn new(client: Client, instance: String, leadership: Arc<Leadership>) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance) };
        let recorder = Mutex::new((Recorder::new(client.clone(), reporter.clone()), 0));
        Self { client, recorder, reporter, leadership, turns: Semaphore::new(WRITES_MAX) }
    }

    /// Does one thing of a plan.
    pub async fn act(&self, blueprint: &Blueprint, observer: &Observer, seen: &Seen, action: &Action) -> Result<(), ApplyError> {
        let namespace = &blueprint.job.namespace;
        match action {
            Action::ApplyService => self.apply(&service::build(blueprint)).await,
            Action::ApplyBudget => self.apply(&disruption_budget::build(blueprint)).await,
            Action::ApplyPolicy => self.apply(&network_policy::build(blueprint, observer.own_namespace())).await,
            Action::ApplyConfig => self.apply(&config_map::build(blueprint)).await,
            Action::ApplyPod { slot, template } => {
                let revision = revision_of(blueprint, seen, template)?;
                let mut pod = pod::build(blueprint, (template, revision), *slot);
                secrets::note(&mut pod, |name| observer.secret_version(namespace, name));
                seen.fleet.failed_rewind().into_iter().for_each(|rewind| pod::note_failed(&mut pod, rewind));
                self.make(observer, &pod).await
            }
            Action::DeletePod { pod, uid, reason: _ } => {
                let only_this = Preconditions { uid: Some(uid.clone()), ..Preconditions::default() };
                let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
                self.delete::<Pod>(namespace, pod, &parameters).await
            }
            Action::DeleteConfig(template) => {
                self.delete::<ConfigMap>(namespace, &blueprint.config_name(template), &DeleteParams::default()).await
            }
            Action::ApplySavepoint => self.apply(&savepoint::before_change(blueprint)).await,
            Action::TakeSavepoint(due) => self.apply(&savepoint::scheduled(blueprint, *due)).await,
            Action::DoomSavepoint(name) => self.doom(namespace, name).await,
            Action::DeleteSavepoint(name) => self.delete::<IngestionSavepoint>(namespace, name, &DeleteParams::default()).await,
            Action::Rewind => self.rewind(blueprint, observer, seen).await,
            Action::DeleteRewinder(pod) => self.delete::<Pod>(namespace, pod, &DeleteParams::default()).await,
            Action::DropLost(pod) => self.delete::<Pod>(namespace, pod, &DeleteParams::default().grace_period(0)).await,
            Action::Checkpoint(pods) => {
                self.check_lead()?;
                self.checkpoint(observer, seen, pods).await;
                Ok(())
            }
            Action::Mark { template, standing, has_letters } => self.mark(blueprint, seen, template, (standing, *has_letters)).await,
            Action::MarkLetters { template, letters } => {
                let labels = serde_json::json!({ LETTERS_LABEL: word(*letters) });
                self.label(blueprint, seen, template, labels, serde_json::Value::Null).await
            }
            Action::PutBack { template, told_by } => {
                self.make(observer, &task::postman(blueprint, (template, revision_of(blueprint, seen, template)?), told_by)).await
            }
            Action::DeletePostman(pod) => self.delete::<Pod>(namespace, pod, &DeleteParams::default()).await,
            Action::Prefetch { pod, shards } => {
                let request = v1::PrefetchRequest { job: blueprint.uid().to_owned(), shards: shards.iter().copied().collect() };
                workers::prefetch(observer, seen, pod, request).await;
                Ok(())
            }
            Action::Assign { pod, version, shards } => {
                self.check_lead()?;
                let assignment =
                    v1::Assignment { job: blueprint.uid().to_owned(), version: *version, shards: shards.iter().copied().collect() };
                workers::assign(observer, seen, pod, assignment).await;
                Ok(())
            }
        }
    }

    /// Gives a job's workers a new certificate. Kubernetes hands it to those that run.
    pub async fn certificate(&self, blueprint: &Blueprint, authority: &Authority) -> Result<(), ApplyError> {
        let secret = certificate::build(blueprint, authority, Timestamp::now())?;
        tracing::info!(job = blueprint.job.name, secret = secret.name_any(), "the workers' certificate is renewed");
        self.apply(&secret).await
    }

    fn recorder(&self) -> Recorder {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if recorder.1 >= REMEMBERED_MAX {
            *recorder = (Recorder::new(self.client.clone(), self.reporter.clone()), 0);
        }
        recorder.1 += 1;
        recorder.0.clone()
    }

    async fn mark(
        &self,
        blueprint: &Blueprint,
        seen: &Seen,
        template: &str,
        (standing, has_letters): (&Standing, bool),
    ) -> Result<(), ApplyError> {
        let (standing, number, reason) = match standing {
            Standing::Untried => ("untried", None, None),
            Standing::Proven => ("proven", None, None),
            Standing::Good(number) => ("good", Some(number.to_string()), None),
            Standing::Bad(reason) => ("bad", None, Some(reason)),
        };
        let mut labels = serde_json::json!({STANDING_LABEL: standing, NUMBER_LABEL: number});
        // Of one that goes on being tried, what is written there stays.
        if standing != "proven" {
            labels[LETTERS_LABEL] = word(if has_letters { Letters::Due } else { Letters::None }).into();
        }
        self.label(blueprint, seen, template, labels, serde_json::json!({ REASON_ANNOTATION: reason })).await
    }

    /// Writes down what is known of a revision: only if nobody has written to it since it was seen, for it may be out of date by then.
    async fn label(
        &self,
        blueprint: &Blueprint,
        seen: &Seen,
        template: &str,
        labels: serde_json::Value,
        annotations: serde_json::Value,
    ) -> Result<(), ApplyError> {
        let mut patch = serde_json::json!({"metadata": {
            "resourceVersion": seen.fleet.configs.get(template).and_then(|config| config.version.clone()),
            "labels": labels,
        }});
        if !annotations.is_null() {
            patch["metadata"]["annotations"] = annotations;
        }
        let name = blueprint.config_name(template);
        let (api, _turn) = self.api::<ConfigMap>(&blueprint.job.namespace).await?;
        match api
            .patch(&name, &PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }, &Patch::Merge(patch))
            .await
        {
            // It is seen anew and judged anew.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            done => done.map(drop).map_err(|source| cluster(format!("mark ConfigMap {name}"), source)),
        }
    }

    /// Has these workers take checkpoints. One that does not hear it is asked again with the next look.
    pub async fn checkpoint(&self, observer: &Observer, seen: &Seen, pods: &BTreeSet<String>) {
        for worker in seen.fleet.workers.iter().filter(|worker| pods.contains(&worker.pod)) {
            let Some(mut client) = observer.client(&worker.uid) else { continue };
            if let Err(error) = client.checkpoint(CheckpointRequest {}).await {
                tracing::warn!(pod = worker.pod, error = error.message(), "a worker was not asked for checkpoints");
            }
        }
    }

    async fn rewind(&self, blueprint: &Blueprint, observer: &Observer, seen: &Seen) -> Result<(), ApplyError> {
        let Some(rewind) = &blueprint.job.rewind else { return Ok(()) };
        let template = Rollout::of(&seen.fleet).in_force();
        let revision = revision_of(blueprint, seen, template)?;
        self.make(observer, &task::rewinder(blueprint, (template, revision), rewind)).await
    }

    /// Makes the pod that copies a savepoint to `place`, by the job's revision of this template. `more`: what it is told besides.
    pub async fn copy(
        &self,
        blueprint: &Blueprint,
        (observer, seen): (&Observer, &Seen),
        template: &str,
        savepoint: &IngestionSavepoint,
        (place, more): (&str, &[String]),
    ) -> Result<(), ApplyError> {
        let revision = revision_of(blueprint, seen, template)?;
        self.make(observer, &task::copier(blueprint, (template, revision), savepoint, place, more)).await
    }

    /// Makes the pod that deletes what a savepoint holds. `NamespaceEnds`: nothing can be made in there any more.
    pub async fn erase(
        &self,
        blueprint: &Blueprint,
        seen: &Seen,
        template: &str,
        savepoint: &IngestionSavepoint,
        place: &str,
    ) -> Result<(), ApplyError> {
        let revision = revision_of(blueprint, seen, template)?;
        unless_namespace_ends(self.apply(&task::eraser(blueprint, (template, revision), savepoint, place)).await)
    }

    /// Deletes that pod.
    pub async fn delete_eraser(&self, savepoint: &IngestionSavepoint) -> Result<(), ApplyError> {
        self.delete::<Pod>(&savepoint.namespace().unwrap_or_default(), &task::eraser_name(savepoint), &DeleteParams::default()).await
    }

    async fn doom(&self, namespace: &str, name: &str) -> Result<(), ApplyError> {
        let (api, _turn) = self.api::<IngestionSavepoint>(namespace).await?;
        let patch = serde_json::json!({"spec": {"deletionPolicy": SavepointDeletionPolicy::Delete}});
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            done => done.map(drop).map_err(|source| cluster(format!("change the deletion policy of savepoint {name}"), source)),
        }
    }

    /// Deletes the pod that copies a savepoint; without waiting for its node if it is lost.
    pub async fn delete_copier(&self, savepoint: &IngestionSavepoint, is_lost: bool) -> Result<(), ApplyError> {
        let parameters = if is_lost { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
        self.delete::<Pod>(&savepoint.namespace().unwrap_or_default(), &task::copier_name(savepoint), &parameters).await
    }

    /// Makes the pod that cleans up behind a job, by the revision that was in force last. `NamespaceEnds`: nothing can be made in there any more.
    pub async fn clean(&self, blueprint: &Blueprint, seen: &Seen) -> Result<(), ApplyError> {
        let revision = seen.revisions.get(Rollout::of(&seen.fleet).in_force()).unwrap_or(&blueprint.revision);
        let done = match self.apply(&config_map::for_cleaner(blueprint)).await {
            Ok(()) => self.apply(&task::cleaner(blueprint, revision)).await,
            refused => refused,
        };
        unless_namespace_ends(done)
    }

    /// Deletes that pod and its config map.
    pub async fn delete_cleaner(&self, blueprint: &Blueprint) -> Result<(), ApplyError> {
        let (namespace, name) = (&blueprint.job.namespace, task::cleaner_name(blueprint));
        self.delete::<Pod>(namespace, &name, &DeleteParams::default()).await?;
        self.delete::<ConfigMap>(namespace, &name, &DeleteParams::default()).await
    }

    /// Tells people. Events are a courtesy: one that is lost is logged and not repeated.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, about: &K, news: News) {
        let _turn = self.turn().await;
        if self.check_lead().is_err() {
            return;
        }
        tracing::info!(about = about.name_any(), reason = news.reason, "{}", news.note);
        let type_ = if news.is_warning { EventType::Warning } else { EventType::Normal };
        // The API server takes a kilobyte, and an eighth of it as the action. Events of one action are counted as one, with the words of the first.
        let [note, action] = [1000, 128].map(|bytes| news.note[..news.note.floor_char_boundary(bytes)].to_owned());
        let event = Event { type_, reason: news.reason.to_owned(), note: Some(note), action, secondary: None };
        if let Err(error) = self.recorder().publish(&event, &about.object_ref(&())).await {
            tracing::warn!(%error, "an event was not recorded");
        }
    }

    /// All that is written to the cluster goes through this, a few at a time.
    async fn api<K>(&self, namespace: &str) -> Result<(Api<K>, SemaphorePermit<'_>), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let turn = self.turn().await;
        self.check_lead()?;
        Ok((Api::namespaced(self.client.clone(), namespace), turn))
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("nobody closes it")
    }

    fn check_lead(&self) -> Result<(), ApplyError> {
        if self.leadership.is_certain() { Ok(()) } else { Err(ApplyError::NotLeading) }
    }

    /// Makes a pod. It is seen from now on, whenever the watch tells of it: what follows must not be done beside it.
    async fn make(&self, observer: &Observer, pod: &Pod) -> Result<(), ApplyError> {
        self.apply_and_get(pod).await.map(|made| observer.pod_is_made(made))
    }

    async fn apply<K>(&self, object: &K) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        self.apply_and_get::<K, PartialObjectMeta<K>>(object).await.map(drop)
    }

    /// Gives what is asked of the object as it is now.
    async fn apply_and_get<K, S>(&self, object: &K) -> Result<S, ApplyError>
    where
        K: Resource<DynamicType = ()> + Serialize + std::fmt::Debug,
        S: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let name = object.name_any();
        let (api, _turn) = self.api::<S>(&object.namespace().unwrap_or_default()).await?;
        let done = api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await;
        done.map_err(|source| cluster(format!("apply {} {name}", K::kind(&())), source))
    }

    async fn delete<K>(&self, namespace: &str, name: &str, parameters: &DeleteParams) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let (api, _turn) = self.api::<K>(namespace).await?;
        match api.delete(name, parameters).await {
            // It is gone already, or another one bears its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            done => done.map(drop).map_err(|source| cluster(format!("delete {} {name}", K::kind(&())), source)),
        }
    }
}

fn word(letters: Letters) -> Option<&'static str> {
    match letters {
        Letters::None => None,
        Letters::Possible => Some("possible"),
        Letters::Due => Some("due"),
        Letters::PutBack => Some("put-back"),
        Letters::Left => Some("left"),
    }
}

fn revision_of<'a>(blueprint: &'a Blueprint, seen: &'a Seen, template: &str) -> Result<&'a Revision, ApplyError> {
    let own = (template == blueprint.template).then_some(&blueprint.revision);
    own.or_else(|| seen.revisions.get(template)).ok_or_else(|| ApplyError::NoRevision { template: template.to_owned() })
}

fn unless_namespace_ends(done: Result<(), ApplyError>) -> Result<(), ApplyError> {
    match done {
        Err(ApplyError::Cluster { source, .. }) if matches!(&*source, kube::Error::Api(status) if is_namespace_end(status)) => {
            Err(ApplyError::NamespaceEnds)
        }
        done => done,
    }
}

fn is_namespace_end(status: &kube::core::Status) -> bool {
    status.code == 403 && status.message.contains("being terminated")
}

fn cluster(action: String, source: kube::Error) -> ApplyError {
    ApplyError::Cluster { action, source: Box::new(source) }
}
