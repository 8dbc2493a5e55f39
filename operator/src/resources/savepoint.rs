//! The savepoints that the operator takes: before a change, and by schedule. The job does not own them: who deletes the job may want to go on from one.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay_crds::savepoint::{IngestionSavepoint, IngestionSavepointSpec, SavepointDeletionPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::task::unique_name;
use super::{Blueprint, DUE_LABEL, JOB_LABEL, JOB_UID_LABEL, MANAGED_BY, TEMPLATE_LABEL};

/// The savepoint before the change to this template. A change waits for it, so it has half of that one's time.
pub fn before_change(blueprint: &Blueprint) -> IngestionSavepoint {
    let name = blueprint.config_name(&blueprint.template);
    build(blueprint, name, (TEMPLATE_LABEL, &blueprint.template), Some(blueprint.job.upgrade.deadline / 2))
}

/// The savepoint that was due by schedule then. Its name is of that time, in UTC: whoever takes it takes the same one.
pub fn scheduled(blueprint: &Blueprint, due: Timestamp) -> IngestionSavepoint {
    let name = format!("{}-{}", blueprint.prefix(), due.strftime("%y%m%d-%H%M"));
    build(blueprint, name, (DUE_LABEL, &due.as_second().to_string()), None)
}

/// Under which it lies in the bucket: what was copied outlives its object, and another one may come by the same name.
pub fn place(savepoint: &IngestionSavepoint) -> String {
    unique_name(savepoint, 56)
}

/// What another job, or a rewind, names it by.
pub fn path(savepoint: &IngestionSavepoint) -> String {
    format!("{}/{}/{}", savepoint.namespace().unwrap_or_default(), savepoint.spec.job, place(savepoint))
}

fn build(blueprint: &Blueprint, name: String, why: (&str, &str), deadline: Option<Duration>) -> IngestionSavepoint {
    let labels = [MANAGED_BY, (JOB_LABEL, blueprint.job.name.as_str()), (JOB_UID_LABEL, blueprint.uid()), why];
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: blueprint.resource.metadata.namespace.clone(),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()),
        ..ObjectMeta::default()
    };
    let spec = IngestionSavepointSpec {
        job: blueprint.job.name.clone(),
        deadline: deadline.map(Into::into),
        deletion_policy: SavepointDeletionPolicy::Retain,
    };
    IngestionSavepoint { metadata, spec, status: None }
}
