//! What a revision's pods are made from besides the manifest. It lies in the revision's config map, so that pods of a revision that is no longer
//! what the job's manifest says can be made anew: while a change is tried, and after it was taken back.

use std::collections::BTreeMap;

use forebay_crds::job::SecretKey;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaimTemplate, PodTemplateSpec};
use serde::{Deserialize, Serialize};

/// The file in the config map.
pub const FILE: &str = "pod.json";

/// What decides what a worker's pod is. A look has one of each revision: what most jobs have not got is boxed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// The image.
    pub image: String,
    /// Secrets whose entries become environment variables.
    pub env_from_secrets: Vec<String>,
    /// As in a pod.
    pub requests: BTreeMap<String, String>,
    /// As in a pod.
    pub limits: BTreeMap<String, String>,
    /// Variables that the manifest counts on. A worker has no access to the API server, so Kubernetes gives it the values.
    pub secrets: BTreeMap<String, SecretKey>,
    /// What the user adds to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Box<PodTemplateSpec>>,
    /// The claim for the state's volume, which is on the node's disk without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_template: Option<Box<PersistentVolumeClaimTemplate>>,
}

impl Revision {
    /// What lies in a config map. `None`: it is none of a revision, or damaged.
    pub fn read(config: &ConfigMap) -> Option<Self> {
        serde_json::from_str(config.data.as_ref()?.get(FILE)?).ok()
    }

    /// The text for the config map.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a revision has string keys only")
    }
}
