//! What a user adds to the worker pods. Kubernetes' own types, but not in the schema: they are larger than all the rest of it. So the API server takes
//! anything here, and [`crate::validate()`] reads it by these types.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is added to a worker's pod, merged into it as `kubectl patch` would.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metadata: AddedMetadata,
    /// As a pod's `spec`: node selector, affinity, tolerations, topology spread, priority class, service account, pull secrets, volumes, containers beside; and,
    /// under the container `worker`, further variables and mounts. What the operator relies on is refused by name.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "any_object")]
    pub spec: Map<String, Value>,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddedMetadata {
    /// Labels. Those by which the operator finds its pods are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// A claim for the volume that a worker keeps its state on. It is made with the pod and goes with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeClaimTemplate {
    /// Labels and annotations of the claims.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metadata: AddedMetadata,
    /// As the `spec` of a PersistentVolumeClaim: at least `resources: {requests: {storage: 10Gi}}`. `accessModes` are `[ReadWriteOnce]` by default.
    #[schemars(schema_with = "any_object")]
    pub spec: Map<String, Value>,
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
