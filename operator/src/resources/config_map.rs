//! The config map that carries the manifest to the workers. Never changed: another manifest is another config map.

use std::collections::BTreeMap;

use forebay_crds::IngestionJob;
use forebay_crds::job::{DeletionPolicy, PropertySource, SecretKey, UpgradeSpec, WorkersSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::{Blueprint, TEMPLATE_LABEL, revision, task};

/// The file in the config map.
pub const FILE: &str = "job.json";

/// The config map of the current template.
pub fn build(blueprint: &Blueprint) -> ConfigMap {
    ConfigMap {
        metadata: blueprint.metadata(blueprint.config_name(&blueprint.template), &[(TEMPLATE_LABEL, blueprint.template.as_str())]),
        data: Some([(FILE.to_owned(), blueprint.manifest.clone()), (revision::FILE.to_owned(), blueprint.revision.text())].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// The one for the pod that cleans up behind a job that is being deleted. It has no owner, or it would go before the pod has read it.
pub fn for_cleaner(blueprint: &Blueprint) -> ConfigMap {
    ConfigMap { metadata: task::metadata_of_cleaner(blueprint), ..build(blueprint) }
}

/// The manifest as workers read it, as JSON, and the variables that it counts on. Of the metadata name, namespace and uid; of the spec all but the
/// workers: how many there are, or whether any, is no business of theirs. References to secrets become names of environment variables.
pub fn worker_manifest(resource: &IngestionJob) -> (String, BTreeMap<String, SecretKey>) {
    let mut spec = resource.spec.clone();
    spec.workers = WorkersSpec::default();
    spec.upgrade = UpgradeSpec::default();
    spec.savepoints = None;
    spec.state.rewind = None;
    spec.suspend = false;
    spec.deletion_policy = DeletionPolicy::default();
    let mut secrets = BTreeMap::new();
    for (number, source) in spec.kafka.iter_mut().flat_map(|kafka| kafka.properties_from.values_mut()).enumerate() {
        if let PropertySource::SecretKeyRef(secret) = source {
            let variable = format!("FOREBAY_KAFKA_SECRET_{number}");
            secrets.insert(variable.clone(), secret.clone());
            *source = PropertySource::Env(variable);
        }
    }
    let metadata = &resource.metadata;
    let manifest = json!({
        "apiVersion": "forebay.dev/v1alpha1",
        "kind": "IngestionJob",
        "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "spec": spec,
    });
    (serde_json::to_string_pretty(&manifest).expect("a manifest has string keys only"), secrets)
}
