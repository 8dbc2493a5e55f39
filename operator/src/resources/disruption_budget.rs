//! The disruption budget: a drain of nodes takes one worker at a time, and the next when that one is back. The shards of the one that goes are at
//! work elsewhere within seconds; all workers at once would leave nobody to take them.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Blueprint;

/// The job's budget. Kubernetes learns from the scale subresource how many workers there should be.
pub fn build(blueprint: &Blueprint) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: blueprint.metadata(blueprint.prefix(), &[]),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(blueprint.selector()), ..LabelSelector::default() }),
            // A worker that is not ready, a crashing one say, must not keep a node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
