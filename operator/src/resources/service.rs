//! The headless service: gives the pods names in DNS, and monitoring something to select them by. The operator dials pods by their address.

use forebay_api::{METRICS_PORT, PORT};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::Blueprint;

/// The job's service.
pub fn build(blueprint: &Blueprint) -> Service {
    let port = |name: &str, port: u16| ServicePort { name: Some(name.to_owned()), port: port.into(), ..ServicePort::default() };
    Service {
        metadata: blueprint.metadata(blueprint.prefix(), &[]),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(blueprint.selector()),
            ports: Some(vec![port("control", PORT), port("metrics", METRICS_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
