//! Everything that is written: objects in the cluster, by server-side apply, and assignments, by telling the workers. Decides nothing, and does
//! nothing unless this operator leads for certain.

use std::sync::Arc;

use forebay_api::v1;
use forebay_api::v1::worker_client::WorkerClient;
use forebay_crds::IngestionJob;
use forebay_crds::job::IngestionJobStatus;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::certificates::Authority;
use crate::leader::Leadership;
use crate::observe::{Observer, Seen};
use crate::plan::Action;
use crate::report::News;
use crate::resources::{Blueprint, certificate, config_map, disruption_budget, pod, service};

/// By this name the API server knows which fields are the operator's.
const FIELD_MANAGER: &str = "forebay-operator";

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused, or was not reached.
    #[error("{action}: {source}")]
    Cluster {
        /// What was attempted.
        action: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// No certificate could be made.
    #[error("make a certificate for the workers: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Another operator may lead by now.
    #[error("nothing is done: the lease was not renewed in time, and another operator may have it")]
    NotLeading,
}

/// The hands of the operator.
pub struct Applier {
    client: Client,
    recorder: Recorder,
    leadership: Arc<Leadership>,
}

impl Applier {
    /// Writes as `instance`: the operator's own pod, as events name it.
    pub fn new(client: Client, instance: String, leadership: Arc<Leadership>) -> Self {
        let recorder = Recorder::new(client.clone(), Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance) });
        Self { client, recorder, leadership }
    }

    /// Does one thing of a plan.
    pub async fn act(&self, blueprint: &Blueprint, observer: &Observer, seen: &Seen, action: &Action) -> Result<(), ApplyError> {
        self.check_lead()?;
        let namespace = &blueprint.job.namespace;
        match action {
            Action::ApplyService => self.apply(&service::build(blueprint)).await,
            Action::ApplyBudget => self.apply(&disruption_budget::build(blueprint)).await,
            Action::ApplyConfig => self.apply(&config_map::build(blueprint)).await,
            Action::ApplyPod(slot) => self.apply(&pod::build(blueprint, *slot)).await,
            Action::DeletePod { pod, uid, reason: _ } => {
                let only_this = Preconditions { uid: Some(uid.clone()), ..Preconditions::default() };
                let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
                self.delete::<Pod>(namespace, pod, &parameters).await
            }
            Action::DeleteConfig(template) => {
                let name = format!("{}-{template}", blueprint.prefix());
                self.delete::<ConfigMap>(namespace, &name, &DeleteParams::default()).await
            }
            Action::Assign { pod, version, shards } => {
                let assignment =
                    v1::Assignment { job: blueprint.uid().to_owned(), version: *version, shards: shards.iter().copied().collect() };
                assign(observer, seen, pod, assignment).await;
                Ok(())
            }
        }
    }

    /// Gives a job's workers a new certificate. Kubernetes hands it to those that run.
    pub async fn certificate(&self, blueprint: &Blueprint, authority: &Authority) -> Result<(), ApplyError> {
        self.check_lead()?;
        let secret = certificate::build(blueprint, authority, Timestamp::now())?;
        tracing::info!(job = blueprint.job.name, secret = secret.name_any(), "the workers' certificate is renewed");
        self.apply(&secret).await
    }

    /// Writes the status. It is a cache: what fails here is tried again with the next look.
    pub async fn status(&self, job: &IngestionJob, status: &IngestionJobStatus) -> Result<(), ApplyError> {
        self.check_lead()?;
        let api: Api<IngestionJob> = Api::namespaced(self.client.clone(), &job.namespace().unwrap_or_default());
        let patch = serde_json::json!({
            "apiVersion": IngestionJob::api_version(&()), "kind": IngestionJob::kind(&()), "metadata": {"name": job.name_any()}, "status": status,
        });
        let done = api.patch_status(&job.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await;
        done.map(drop).map_err(|source| cluster(format!("write the status of job {}", job.name_any()), source))
    }

    /// Tells people. Events are a courtesy: one that is lost is logged and not repeated.
    pub async fn tell(&self, job: &IngestionJob, news: News) {
        if self.check_lead().is_err() {
            return;
        }
        tracing::info!(job = job.name_any(), reason = news.reason, "{}", news.note);
        let type_ = if news.is_warning { EventType::Warning } else { EventType::Normal };
        // The API server takes a kilobyte.
        let note = news.note.chars().take(1000).collect();
        let event = Event { type_, reason: news.reason.to_owned(), note: Some(note), action: news.reason.to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, &job.object_ref(&())).await {
            tracing::warn!(%error, "an event was not recorded");
        }
    }

    fn check_lead(&self) -> Result<(), ApplyError> {
        if self.leadership.is_certain() { Ok(()) } else { Err(ApplyError::NotLeading) }
    }

    async fn apply<K>(&self, object: &K) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let name = object.name_any();
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let done = api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await;
        done.map(drop).map_err(|source| cluster(format!("apply {} {name}", K::kind(&())), source))
    }

    async fn delete<K>(&self, namespace: &str, name: &str, parameters: &DeleteParams) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        match Api::<K>::namespaced(self.client.clone(), namespace).delete(name, parameters).await {
            // It is gone already, or another one bears its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            done => done.map(drop).map_err(|source| cluster(format!("delete {} {name}", K::kind(&())), source)),
        }
    }
}

/// A worker that does not hear it is told again with the next plan, if it is still there and it is still right.
async fn assign(observer: &Observer, seen: &Seen, pod: &str, assignment: v1::Assignment) {
    let worker = seen.fleet.workers.iter().find(|worker| worker.pod == pod);
    let Some(channel) = worker.and_then(|worker| observer.channel(&worker.uid)) else { return };
    tracing::info!(pod, version = assignment.version, shards = ?assignment.shards, "assigned");
    if let Err(error) = WorkerClient::new(channel).assign(assignment).await {
        tracing::warn!(pod, error = error.message(), "a worker did not take its assignment");
    }
}

fn cluster(action: String, source: kube::Error) -> ApplyError {
    ApplyError::Cluster { action, source: Box::new(source) }
}
