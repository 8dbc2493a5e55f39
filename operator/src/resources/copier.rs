//! The pod that copies a savepoint: a job's worker in all but what it runs. It belongs to the savepoint and not to the job, so it is no worker to
//! anybody, and it ends by itself.

use std::collections::BTreeMap;

use forebay_crds::savepoint::IngestionSavepoint;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::config_map::FILE;
use super::revision::Revision;
use super::{Blueprint, MANAGED_BY, pod};

/// The name of a savepoint's pod.
pub fn name(savepoint: &IngestionSavepoint) -> String {
    let uid: String = savepoint.uid().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(6).collect();
    let name: String = savepoint.name_any().replace('.', "-").chars().take(44).collect();
    format!("{}-{uid}", name.trim_end_matches('-'))
}

/// The pod, which puts the savepoint where `place` says.
pub fn build(blueprint: &Blueprint, (template, revision): (&str, &Revision), savepoint: &IngestionSavepoint, place: &str) -> Pod {
    let mut pod = pod::build(blueprint, (template, revision), 0);
    let labels = [
        ("app.kubernetes.io/name", "forebay"),
        ("app.kubernetes.io/component", "savepoint"),
        MANAGED_BY,
        ("forebay.dev/savepoint", &savepoint.name_any()),
    ];
    pod.metadata = ObjectMeta {
        name: Some(name(savepoint)),
        namespace: savepoint.namespace(),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()),
        owner_references: savepoint.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    if let Some(spec) = &mut pod.spec {
        spec.restart_policy = Some("OnFailure".to_owned());
        spec.topology_spread_constraints = None;
        for container in &mut spec.containers {
            let arguments = ["savepoint", "take", "-f", &format!("/etc/forebay/{FILE}"), "--name", place];
            container.args = Some(arguments.map(str::to_owned).to_vec());
            (container.ports, container.readiness_probe) = (None, None);
        }
    }
    pod
}
