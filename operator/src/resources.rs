//! What the operator makes in the cluster, one builder per kind: pure, from a job to an object.

pub mod certificate;
pub mod config_map;
pub mod disruption_budget;
pub mod network_policy;
pub mod pod;
pub mod revision;
pub mod savepoint;
pub mod secrets;
pub mod service;
pub mod task;

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_crds::{Finding, IngestionJob, JobIdentity, ValidatedJob, identity};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde_json::json;
use sha2::{Digest, Sha256};

use revision::Revision;

/// On all that this operator makes, and nothing else: by it the operator finds its own.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "forebay-operator");
/// The job's name, for people and selectors. What belongs to a job is told by its owner's uid.
pub const JOB_LABEL: &str = "forebay.dev/job";
/// What a pod was made from; and on a config map, which pods it is for.
pub const TEMPLATE_LABEL: &str = "forebay.dev/template";
/// On a config map: what is known of the revision, as one word; and the number of one that is good, why one is bad.
pub const STANDING_LABEL: &str = "forebay.dev/standing";
/// See [`STANDING_LABEL`].
pub const NUMBER_LABEL: &str = "forebay.dev/good-number";
/// See [`STANDING_LABEL`].
pub const REASON_ANNOTATION: &str = "forebay.dev/reason";
/// See [`STANDING_LABEL`]: of one that is bad, what has become of its dead letters.
pub const LETTERS_LABEL: &str = "forebay.dev/letters";
/// On what belongs to a job and does not go with it: the job's uid.
pub const JOB_UID_LABEL: &str = "forebay.dev/job-uid";
/// On a savepoint that was taken by schedule: when it was due, in seconds since 1970.
pub const DUE_LABEL: &str = "forebay.dev/due";
/// On a job, with the value `true`: it is looked at and nothing is done.
pub const PAUSED_ANNOTATION: &str = "forebay.dev/paused";
/// A pod's place among the job's pods.
pub const SLOT_LABEL: &str = "forebay.dev/slot";

/// A job, and all that the objects made for it have in common.
#[derive(Debug)]
pub struct Blueprint {
    /// The job as it is in the cluster: the watch's own copy.
    pub resource: Arc<IngestionJob>,
    /// What it means.
    pub job: ValidatedJob,
    /// The manifest that workers read, without what is of no interest to them.
    pub manifest: String,
    /// What else decides what the pods are.
    pub revision: Revision,
    /// What the pods are made from, as a hash: another one means other pods.
    pub template: String,
}

impl Blueprint {
    /// From a job that makes sense, and the image that its workers run if it names none.
    pub fn new(resource: Arc<IngestionJob>, job: ValidatedJob, default_image: &str) -> Self {
        let (manifest, secrets) = config_map::worker_manifest(&resource);
        let revision = Revision {
            image: job.workers.image.clone().unwrap_or_else(|| default_image.to_owned()),
            env_from_secrets: job.workers.env_from_secrets.clone(),
            requests: job.workers.requests.clone(),
            limits: job.workers.limits.clone(),
            secrets,
            pod_template: job.workers.pod_template.clone(),
            volume_claim_template: job.workers.volume_claim_template.clone(),
        };
        // Only what the user can change: another operator must not replace all pods for what it writes differently.
        let Revision { image, env_from_secrets, requests, limits, pod_template, volume_claim_template, .. } = &revision;
        let mut inputs = format!("{image}\n{manifest}\n{env_from_secrets:?}\n{requests:?}\n{limits:?}");
        // A job that adds nothing has the hash that it had before anything could be added.
        if pod_template.is_some() || volume_claim_template.is_some() {
            inputs += &json!([pod_template, volume_claim_template]).to_string();
        }
        // Without it the hash is what it was before there was this field.
        inputs.extend(job.workers.restarted_at.iter().map(|at| format!("\n{at:?}")));
        let hash: String = Sha256::digest(inputs.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { resource, job, manifest, revision, template: hash[..10].to_owned() }
    }

    /// What its revision's config map says of a job whose manifest cannot work. How many workers there should be is the manifest's: the
    /// API server has seen to that. `None`: it is no such config map, or this version cannot work by it.
    pub fn of_config(resource: Arc<IngestionJob>, config: &ConfigMap) -> Option<Self> {
        let template = config.metadata.labels.as_ref()?.get(TEMPLATE_LABEL)?.clone();
        let manifest = config.data.as_ref()?.get(config_map::FILE)?.clone();
        let mut job = forebay_crds::validate(&serde_json::from_str(&manifest).ok()?).ok()?;
        job.suspend = resource.spec.suspend;
        job.workers.replicas = resource.spec.workers.replicas.unwrap_or(1);
        Some(Self { revision: Revision::read(config)?, resource, job, manifest, template })
    }

    /// What of the manifest contradicts the state that the job has by this config map, of the revision that was in force last. Of one that is in force nothing is
    /// read: that is so at nearly every look.
    pub fn contradictions(&self, good: &ConfigMap) -> Vec<Finding> {
        if good.metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_LABEL)) == Some(&self.template) {
            return Vec::new();
        }
        let Some(before) = Self::of_config(self.resource.clone(), good) else { return Vec::new() };
        let shards = self.resource.status.as_ref().and_then(|status| status.shards);
        let shards = before.job.shards.or(shards).or(self.job.shards).unwrap_or(1);
        JobIdentity::new(self.uid(), shards, &before.job).map_or_else(|_| Vec::new(), |before| identity::contradictions(&before, &self.job))
    }

    /// The uid that the API server gave the job.
    pub fn uid(&self) -> &str {
        self.resource.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether nothing is to be done for the job, whatever is seen of it.
    pub fn is_paused(&self) -> bool {
        self.resource.metadata.annotations.as_ref().and_then(|all| all.get(PAUSED_ANNOTATION)).is_some_and(|value| value == "true")
    }

    /// How many workers there should be now.
    pub fn replicas(&self) -> u32 {
        if self.job.suspend { 0 } else { self.job.workers.replicas }
    }

    /// The start of the names of all that belongs to the job. Carries a part of the uid, so that a job that is deleted and made again under its
    /// name does not meet its predecessor's objects; short enough for a DNS label with something behind it.
    pub fn prefix(&self) -> String {
        let name: String = self.job.name.chars().map(|c| if c == '.' { '-' } else { c }).take(44).collect();
        let uid: String = self.uid().chars().filter(char::is_ascii_alphanumeric).take(6).collect();
        format!("{}-{uid}", name.trim_end_matches('-'))
    }

    /// The name of a template's config map.
    pub fn config_name(&self, template: &str) -> String {
        format!("{}-{template}", self.prefix())
    }

    fn metadata(&self, name: String, labels: &[(&str, &str)]) -> ObjectMeta {
        let mut all: BTreeMap<String, String> =
            self.selector().into_iter().chain([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]).collect();
        all.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        ObjectMeta {
            name: Some(name),
            namespace: self.resource.metadata.namespace.clone(),
            labels: Some(all),
            owner_references: self.resource.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// The labels by which the job's pods are selected.
    pub fn selector(&self) -> BTreeMap<String, String> {
        let labels =
            [("app.kubernetes.io/name", "forebay"), ("app.kubernetes.io/component", "worker"), (JOB_LABEL, self.job.name.as_str())];
        labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests;
