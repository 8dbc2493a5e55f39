//! Pods that do one thing and end by themselves: one that copies a savepoint, one that cleans up behind a job. A job's worker in all but what it runs;
//! no worker of the job to anybody.

use std::collections::BTreeMap;

use forebay_crds::savepoint::IngestionSavepoint;
use forebay_crds::validate::{Rewind, RewindTarget};
use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::config_map::FILE;
use super::revision::Revision;
use super::{Blueprint, JOB_UID_LABEL, MANAGED_BY, pod};
use crate::plan::letters::ToldBy;

/// On a pod that cleans up behind a job or a savepoint, and on its config map: the uid of that.
pub const CLEANUP_LABEL: &str = "forebay.dev/cleanup";

/// On a pod that does a rewind: its id.
pub const REWIND_LABEL: &str = "forebay.dev/rewind";

/// On a pod that puts dead letters back: the template of the revision whose they are.
pub const LETTERS_OF_LABEL: &str = "forebay.dev/letters-of";

/// The name of a savepoint's pod.
pub fn copier_name(savepoint: &IngestionSavepoint) -> String {
    unique_name(savepoint, 44)
}

/// Its name, of which so many characters are kept, with a part of its uid: another one may come by the same name.
pub fn unique_name(savepoint: &IngestionSavepoint, kept: usize) -> String {
    let uid: String = savepoint.uid().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(6).collect();
    let name: String = savepoint.name_any().replace('.', "-").chars().take(kept).collect();
    format!("{}-{uid}", name.trim_end_matches('-'))
}

/// The pod that puts a savepoint where `place` says. It belongs to the savepoint. `more`: what it is told besides.
pub fn copier(
    blueprint: &Blueprint,
    (template, revision): (&str, &Revision),
    savepoint: &IngestionSavepoint,
    place: &str,
    more: &[String],
) -> Pod {
    let mut labels = labels("savepoint", ("forebay.dev/savepoint", &savepoint.name_any()));
    labels.insert(JOB_UID_LABEL.to_owned(), blueprint.uid().to_owned());
    let metadata = ObjectMeta {
        name: Some(copier_name(savepoint)),
        namespace: savepoint.namespace(),
        labels: Some(labels),
        owner_references: savepoint.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let arguments: Vec<&str> = ["savepoint", "take", "--name", place].into_iter().chain(more.iter().map(String::as_str)).collect();
    build(metadata, revision, pod::build(blueprint, (template, revision), 0), &arguments)
}

/// The pod that has the job go on from an earlier state. It belongs to the job.
pub fn rewinder(blueprint: &Blueprint, (template, revision): (&str, &Revision), rewind: &Rewind) -> Pod {
    let metadata = ObjectMeta {
        name: Some(format!("{}-rewind", blueprint.prefix())),
        namespace: blueprint.resource.metadata.namespace.clone(),
        labels: Some(labels("rewind", (REWIND_LABEL, &rewind.id))),
        owner_references: blueprint.resource.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let time;
    let target = match &rewind.target {
        RewindTarget::Savepoint(path) => ["--to-savepoint", path],
        RewindTarget::Time(at) => {
            time = at.to_string();
            ["--to-time", &time]
        }
    };
    let arguments = [["rewind", "--id"].as_slice(), &[&rewind.id], &target].concat();
    build(metadata, revision, pod::build(blueprint, (template, revision), 0), &arguments)
}

/// The pod that puts back the dead letters of the revision with this template. It belongs to the job.
pub fn postman(blueprint: &Blueprint, (template, revision): (&str, &Revision), told_by: &ToldBy) -> Pod {
    let metadata = ObjectMeta {
        name: Some(format!("{}-letters", blueprint.config_name(template))),
        namespace: blueprint.resource.metadata.namespace.clone(),
        labels: Some(labels("letters", (LETTERS_OF_LABEL, template))),
        owner_references: blueprint.resource.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let which = match told_by {
        ToldBy::Results(results) => ["--revision", results],
        ToldBy::Template => ["--template", template],
    };
    let arguments = [["dlq", "replay"].as_slice(), &which].concat();
    build(metadata, revision, pod::build(blueprint, (template, revision), 0), &arguments)
}

/// The name of the pod that deletes what a savepoint holds.
pub fn eraser_name(savepoint: &IngestionSavepoint) -> String {
    format!("{}-cleanup", copier_name(savepoint))
}

/// The pod that deletes what a savepoint holds. It has no owner: what belongs to a savepoint that is being deleted may be deleted first.
pub fn eraser(blueprint: &Blueprint, (template, revision): (&str, &Revision), savepoint: &IngestionSavepoint, place: &str) -> Pod {
    let uid = savepoint.uid().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(eraser_name(savepoint)),
        namespace: savepoint.namespace(),
        labels: Some(labels("cleanup", (CLEANUP_LABEL, &uid))),
        ..ObjectMeta::default()
    };
    build(metadata, revision, pod::build(blueprint, (template, revision), 0), &["savepoint", "delete", "--name", place])
}

/// The name of the pod that cleans up behind a job, and of its config map.
pub fn cleaner_name(blueprint: &Blueprint) -> String {
    format!("{}-cleanup", blueprint.prefix())
}

/// The pod that deletes what a job leaves. It has no owner: what belongs to a job that is being deleted is deleted first.
pub fn cleaner(blueprint: &Blueprint, revision: &Revision) -> Pod {
    let mut pod = build(metadata_of_cleaner(blueprint), revision, pod::build(blueprint, ("", revision), 0), &["cleanup", "--delete"]);
    for volume in pod.spec.iter_mut().flat_map(|spec| spec.volumes.iter_mut().flatten()) {
        if let Some(config) = &mut volume.config_map {
            config.name = cleaner_name(blueprint);
        }
    }
    pod
}

/// What the pod that cleans up and its config map have in common.
pub fn metadata_of_cleaner(blueprint: &Blueprint) -> ObjectMeta {
    ObjectMeta {
        name: Some(cleaner_name(blueprint)),
        namespace: blueprint.resource.metadata.namespace.clone(),
        labels: Some(labels("cleanup", (CLEANUP_LABEL, blueprint.uid()))),
        ..ObjectMeta::default()
    }
}

fn labels(component: &str, own: (&str, &str)) -> BTreeMap<String, String> {
    let labels = [("app.kubernetes.io/name", "forebay"), ("app.kubernetes.io/component", component), MANAGED_BY, own];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// From a worker's pod: what runs beside it stays behind, where it may run and as whom does not.
fn build(metadata: ObjectMeta, revision: &Revision, mut pod: Pod, arguments: &[&str]) -> Pod {
    pod.metadata = revision.pod_template.clone().and_then(|added| added.metadata).unwrap_or_default();
    pod.metadata.merge_from(metadata);
    if let Some(spec) = &mut pod.spec {
        spec.restart_policy = Some("OnFailure".to_owned());
        spec.topology_spread_constraints = None;
        // It answers nobody; and the secret may be gone before the pod.
        spec.volumes.iter_mut().for_each(|all| all.retain(|volume| volume.name != pod::CERTIFICATES));
        for volume in spec.volumes.iter_mut().flatten().filter(|volume| volume.name == pod::STATE) {
            *volume = pod::empty(pod::STATE);
        }
        spec.containers.retain(|container| container.name == pod::WORKER);
        for container in &mut spec.containers {
            let file = format!("/etc/forebay/{FILE}");
            container.args = Some(arguments.iter().copied().chain(["-f", &file]).map(str::to_owned).collect());
            container.volume_mounts.iter_mut().for_each(|all| all.retain(|mount| mount.name != pod::CERTIFICATES));
            (container.ports, container.lifecycle) = (None, None);
            (container.readiness_probe, container.liveness_probe, container.startup_probe) = (None, None, None);
        }
    }
    pod
}
