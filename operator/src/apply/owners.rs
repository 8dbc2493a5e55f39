//! What is written to jobs and savepoints themselves: their status, their finalizers, and who looks after a job. Each write names the version of the object that it
//! was decided on.

use forebay_crds::IngestionJob;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Applier, ApplyError, FIELD_MANAGER, cluster};

impl Applier {
    /// Gives an object a finalizer, or takes it away, if nobody has changed the object meanwhile.
    pub async fn finalizer<K>(&self, object: &K, finalizer: &str, wanted: bool) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let name = object.name_any();
        let mut all: Vec<&str> = object.finalizers().iter().map(String::as_str).filter(|other| *other != finalizer).collect();
        all.extend(wanted.then_some(finalizer));
        let patch = serde_json::json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": all}});
        let (api, _turn) = self.api::<K>(&object.namespace().unwrap_or_default()).await?;
        let done = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        unless_changed(done, format!("change the finalizers of {} {name}", K::kind(&())))
    }

    /// Writes the status of a job or a savepoint, if nobody has changed the object meanwhile: it may be another installation's by now. What fails here is tried
    /// again with the next look.
    pub async fn status<K>(&self, object: &K, status: &impl Serialize) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let name = object.name_any();
        let (api, _turn) = self.api::<K>(&object.namespace().unwrap_or_default()).await?;
        let patch = serde_json::json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": {"name": name, "resourceVersion": object.resource_version()}, "status": status,
        });
        let done = api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await;
        unless_changed(done, format!("write the status of {} {name}", K::kind(&())))
    }

    /// Writes into a job's status that this installation looks after it, if nobody has changed the job meanwhile. What else stands there stays.
    pub async fn claim(&self, job: &IngestionJob, installation: &str) -> Result<(), ApplyError> {
        let name = job.name_any();
        let (api, _turn) = self.api::<IngestionJob>(&job.namespace().unwrap_or_default()).await?;
        let patch = serde_json::json!({"metadata": {"resourceVersion": job.resource_version()}, "status": {"operator": installation}});
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let claimed = match api.patch_status(&name, &parameters, &Patch::Merge(patch)).await {
            Ok(job) => job.status.and_then(|status| status.operator),
            done => return unless_changed(done, format!("claim job {name} by its status")),
        };
        if claimed.as_deref() == Some(installation) { Ok(()) } else { Err(ApplyError::OldDefinition) }
    }
}

/// Somebody has changed it, or it is gone: it is looked at again when that is seen.
fn unless_changed<K>(done: Result<K, kube::Error>, action: String) -> Result<(), ApplyError> {
    match done {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        done => done.map(drop).map_err(|source| cluster(action, source)),
    }
}
