//! The savepoint before a change. The job does not own it: who deletes the job may want to go on from it.

use std::collections::BTreeMap;

use forebay_crds::savepoint::{IngestionSavepoint, IngestionSavepointSpec, SavepointDeletionPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Blueprint, JOB_LABEL, JOB_UID_LABEL, MANAGED_BY, TEMPLATE_LABEL};

/// The savepoint before the change to this template. A change waits for it, so it has half of that one's time.
pub fn build(blueprint: &Blueprint) -> IngestionSavepoint {
    let labels = [
        MANAGED_BY,
        (JOB_LABEL, blueprint.job.name.as_str()),
        (JOB_UID_LABEL, blueprint.uid()),
        (TEMPLATE_LABEL, blueprint.template.as_str()),
    ];
    let metadata = ObjectMeta {
        name: Some(blueprint.config_name(&blueprint.template)),
        namespace: blueprint.resource.metadata.namespace.clone(),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()),
        ..ObjectMeta::default()
    };
    let spec = IngestionSavepointSpec {
        job: blueprint.job.name.clone(),
        deadline: Some((blueprint.job.upgrade.deadline / 2).into()),
        deletion_policy: SavepointDeletionPolicy::Retain,
    };
    IngestionSavepoint { metadata, spec, status: None }
}
