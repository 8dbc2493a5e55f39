//! The network policy of a job's workers: the operator alone reaches the port where it tells them what to do, and any pod of the cluster their metrics. They
//! reach whom they must: brokers and object stores have no address that could be told in advance.

use forebay_api::{METRICS_PORT, PORT};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Blueprint;

/// The label that Kubernetes itself gives to namespaces.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// What the operator's pods are selected by, as `kustomize/base` and the chart have it.
const OPERATOR: [(&str, &str); 2] = [("app.kubernetes.io/name", "forebay"), ("app.kubernetes.io/component", "operator")];

/// The job's policy, for an operator in this namespace. Nothing that the API server has a default for is left out: what comes back is what was made.
pub fn build(blueprint: &Blueprint, operator_namespace: &str) -> NetworkPolicy {
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(selector(&[(NAMESPACE_NAME, operator_namespace)])),
        pod_selector: Some(selector(&OPERATOR)),
        ..NetworkPolicyPeer::default()
    };
    let anybody = NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
    NetworkPolicy {
        metadata: blueprint.metadata(blueprint.prefix(), &[]),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(blueprint.selector()), ..LabelSelector::default() }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![rule(operator, PORT), rule(anybody, METRICS_PORT)]),
            egress: None,
        }),
    }
}

fn selector(labels: &[(&str, &str)]) -> LabelSelector {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn rule(from: NetworkPolicyPeer, port: u16) -> NetworkPolicyIngressRule {
    let port = NetworkPolicyPort { port: Some(IntOrString::Int(port.into())), protocol: Some("TCP".to_owned()), end_port: None };
    NetworkPolicyIngressRule { from: Some(vec![from]), ports: Some(vec![port]) }
}
