//! What is read of a pod: the whole of it takes several times the memory, in a watch's copy and, for a moment, whenever a pod changes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStateWaiting, EnvFromSource, EnvVar, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::core::{NamespaceResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};

use crate::resources::secrets;

/// A pod without what nobody here asks for: most of it, and what it was made from stands in its revision's config map.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SeenPod {
    /// Names, labels, owners, times, and of the annotations the one that tells of secrets.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// Of what it is made.
    #[serde(default)]
    pub spec: SeenSpec,
    /// How it is.
    #[serde(default)]
    pub status: SeenStatus,
}

/// Of what a pod is made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Containers")]
pub struct SeenSpec {
    /// The secrets that its environment comes from, in the order of their names, and whether it cannot start without.
    pub secrets: Box<[(String, bool)]>,
}

/// How a pod is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SeenStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: Option<String>,
    /// `None` until it has one.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// `Ready` and `PodScheduled`.
    #[serde(deserialize_with = "asked_conditions")]
    pub conditions: Box<[SeenCondition]>,
    /// Of all containers that are not for its start only.
    pub container_statuses: Box<[SeenContainer]>,
    /// Of those that are.
    pub init_container_statuses: Box<[SeenContainer]>,
}

/// What is so of a pod, or not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SeenCondition {
    /// What.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in a word.
    pub reason: Option<String>,
    /// Why.
    pub message: Option<String>,
}

/// How a container is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SeenContainer {
    /// Its name in the pod.
    pub name: String,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// How often it was started again.
    pub restart_count: i32,
    /// What it does.
    pub state: SeenState,
    /// What it did before it was started again.
    pub last_state: SeenState,
}

/// What a container waits for, or how it ended; neither while it runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SeenState {
    /// For what.
    pub waiting: Option<Box<ContainerStateWaiting>>,
    /// How.
    pub terminated: Option<Box<ContainerStateTerminated>>,
}

impl From<&Pod> for SeenPod {
    fn from(pod: &Pod) -> Self {
        serde_json::to_value(pod).and_then(serde_json::from_value).expect("what is asked of a pod stands where Kubernetes has it")
    }
}

impl Resource for SeenPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Containers {
    /// Some servers write `null` for none.
    containers: Option<Vec<Container>>,
    init_containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    env: Vec<EnvVar>,
    env_from: Vec<EnvFromSource>,
}

impl From<Containers> for SeenSpec {
    fn from(spec: Containers) -> Self {
        let mut all = BTreeMap::<String, bool>::new();
        for container in spec.containers.into_iter().flatten().chain(spec.init_containers) {
            let variables = container.env.into_iter().filter_map(|variable| variable.value_from?.secret_key_ref);
            let whole = container.env_from.into_iter().filter_map(|source| source.secret_ref);
            let names = variables.map(|key| (key.name, key.optional)).chain(whole.map(|secret| (secret.name, secret.optional)));
            for (name, optional) in names {
                *all.entry(name).or_default() |= !optional.unwrap_or(false);
            }
        }
        Self { secrets: all.into_iter().collect() }
    }
}

/// Without who wrote which field, which is most of it.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Metadata {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        owner_references: Option<Box<[OwnerReference]>>,
    }
    let seen = Metadata::deserialize(deserializer)?;
    let mut annotations = seen.annotations.unwrap_or_default();
    annotations.retain(|name, _| name == secrets::ANNOTATION);
    Ok(ObjectMeta {
        name: seen.name,
        namespace: seen.namespace,
        uid: seen.uid,
        resource_version: seen.resource_version,
        creation_timestamp: seen.creation_timestamp,
        deletion_timestamp: seen.deletion_timestamp,
        labels: seen.labels,
        annotations: Some(annotations),
        owner_references: seen.owner_references.map(Into::into),
        ..ObjectMeta::default()
    })
}

fn asked_conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[SeenCondition]>, D::Error> {
    let all = Vec::<SeenCondition>::deserialize(deserializer)?;
    Ok(all
        .into_iter()
        .filter(|condition| ["Ready", "PodScheduled"].contains(&condition.type_.as_str()))
        .collect::<Vec<_>>()
        .into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod as an API server gives it: what is asked for, and next to it `more`.
    fn pod(more: bool) -> Value {
        let key = |name: &str| json!({"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}});
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"forebay.dev/slot": "4"}, "annotations": {secrets::ANNOTATION: r#"{"kafka": "1"}"#},
                "ownerReferences": [{"apiVersion": "v1", "kind": "IngestionJob", "name": "j", "uid": "o"}]},
            "spec": {
                "initContainers": [{"name": "first", "env": [key("of-first")]}],
                "containers": [{"name": "worker", "env": [key("kafka")],
                    "envFrom": [{"secretRef": {"name": "store", "optional": true}}, {"secretRef": {"name": "kafka", "optional": true}}]}],
            },
            "status": {"phase": "Running", "podIP": "10.1.2.3",
                "conditions": [{"type": "Ready", "status": "False", "reason": "Unready", "message": "not yet"}],
                "containerStatuses": [{"name": "worker", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 1, "message": "no broker"}}}]},
        });
        if more {
            pod["metadata"]["managedFields"] = json!([{"manager": "forebay", "operation": "Apply", "fieldsV1": {"f:spec": {".": {}}}}]);
            pod["metadata"]["annotations"]["else"] = "x".into();
            pod["spec"]["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
            pod["spec"]["containers"][0]["env"].as_array_mut().unwrap().push(json!({"name": "PLAIN", "value": "x"}));
            pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "2Gi"}});
            pod["status"]["conditions"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "Initialized", "status": "True", "lastProbeTime": null}));
            pod["status"]["containerStatuses"][0]["image"] = "i".into();
            pod["status"]["hostIP"] = "10.0.0.1".into();
        }
        pod
    }

    /// Method: a pod with all that is asked for is read with more and without, and from the type that whole pods have.
    #[test]
    fn what_is_asked_of_a_pod_is_read_and_nothing_else() {
        let seen: SeenPod = serde_json::from_value(pod(false)).unwrap();
        assert_eq!(serde_json::from_value::<SeenPod>(pod(true)).unwrap(), seen);
        assert_eq!(SeenPod::from(&serde_json::from_value::<Pod>(pod(true)).unwrap()).status.container_statuses[0].restart_count, 3);
        assert_eq!((seen.metadata.uid.as_deref(), seen.metadata.owner_references.as_ref().unwrap()[0].uid.as_str()), (Some("u"), "o"));
        assert_eq!(seen.metadata.annotations.as_ref().unwrap()[secrets::ANNOTATION], r#"{"kafka": "1"}"#);
        let secrets = [("kafka".to_owned(), true), ("of-first".to_owned(), true), ("store".to_owned(), false)];
        assert_eq!(*seen.spec.secrets, secrets);
        assert_eq!((seen.status.phase.as_deref(), seen.status.pod_ip.as_deref()), (Some("Running"), Some("10.1.2.3")));
        assert_eq!((seen.status.conditions.len(), seen.status.conditions[0].reason.as_deref()), (1, Some("Unready")));
        let container = &seen.status.container_statuses[0];
        let waits = container.state.waiting.as_ref().unwrap().reason.as_deref();
        let ended = container.last_state.terminated.as_ref().map(|ended| (ended.exit_code, ended.message.as_deref()));
        assert_eq!((waits, ended, container.restart_count), (Some("CrashLoopBackOff"), Some((1, Some("no broker"))), 3));
    }

    #[test]
    fn a_pod_of_which_little_is_known_is_read() {
        let seen: SeenPod = serde_json::from_value(json!({"metadata": {"name": "p", "creationTimestamp": null}, "status": {}})).unwrap();
        let none = SeenPod {
            metadata: ObjectMeta { annotations: seen.metadata.annotations.clone(), ..ObjectMeta::default() },
            ..SeenPod::default()
        };
        assert_eq!(SeenPod { metadata: ObjectMeta { name: None, ..seen.metadata }, ..seen }, none);
    }
}
