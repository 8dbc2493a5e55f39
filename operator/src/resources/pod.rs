//! A worker's pod: restricted by Kubernetes' own standard of that name, without access to the API server, its state on the node's disk; and what the job's
//! manifest adds to that, merged by Kubernetes' own rules.

use std::collections::BTreeMap;

use forebay_api::{METRICS_PORT, PORT};
use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvFromSource, EnvVar, EnvVarSource,
    EphemeralVolumeSource, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretEnvSource, SecretKeySelector, SecretVolumeSource, SecurityContext, TCPSocketAction, TopologySpreadConstraint,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config_map::FILE;
use super::revision::Revision;
use super::{Blueprint, SLOT_LABEL, TEMPLATE_LABEL, certificate};

/// Nobody: the user that images without one for the purpose use.
const USER: i64 = 65_532;
/// To finish the open epochs and release all shards, with room for a broker that is slow.
const GRACE_SECONDS: i64 = 30;

/// The worker's container.
pub const WORKER: &str = "worker";
/// The volume with the state.
pub const STATE: &str = "state";
/// The volume with the certificates.
pub const CERTIFICATES: &str = "certificates";
/// Where they are; Kubernetes replaces them there when they are renewed.
const CERTIFICATES_FOLDER: &str = "/etc/forebay-tls";

/// On a worker's pod: the rewind that has failed, by its id. The worker gives it up for good in the bucket, where the next operator learns it, whatever
/// becomes of the status.
const REWIND_FAILED_ANNOTATION: &str = "forebay.dev/rewind-failed";

/// Tells a worker's pod that is to be made which rewind has failed.
pub fn note_failed(pod: &mut Pod, rewind: &str) {
    pod.metadata.annotations.get_or_insert_default().insert(REWIND_FAILED_ANNOTATION.to_owned(), rewind.to_owned());
}

/// The pod of a slot, under the revision of this template.
pub fn build(blueprint: &Blueprint, (template, revision): (&str, &Revision), slot: u32) -> Pod {
    let mut pod = own(blueprint, (template, revision), slot);
    if let Some(added) = revision.pod_template.clone() {
        add(&mut pod, *added, blueprint);
    }
    pod
}

/// Merges what the user adds. It names nothing of the operator's own: its validation has seen to that.
fn add(pod: &mut Pod, mut added: PodTemplateSpec, blueprint: &Blueprint) {
    let spec = added.spec.get_or_insert_default();
    // One that selects nobody spreads nobody; who writes one cannot mean any other pods.
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        constraint.label_selector.get_or_insert_with(|| selector(blueprint));
    }
    // The one list that has no key to merge by, and would be replaced.
    let own = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| container.env_from.iter().flatten());
    let own: Vec<EnvFromSource> = own.cloned().collect();
    for container in spec.containers.iter_mut().filter(|container| container.name == WORKER) {
        if let Some(sources) = &mut container.env_from {
            sources.splice(..0, own.iter().cloned());
        }
    }
    pod.metadata.merge_from(added.metadata.unwrap_or_default());
    pod.spec.merge_from(added.spec);
}

fn selector(blueprint: &Blueprint) -> LabelSelector {
    LabelSelector { match_labels: Some(blueprint.selector()), ..LabelSelector::default() }
}

fn own(blueprint: &Blueprint, (template, revision): (&str, &Revision), slot: u32) -> Pod {
    let number = slot.to_string();
    let labels = [(TEMPLATE_LABEL, template), (SLOT_LABEL, number.as_str())];
    Pod {
        metadata: blueprint.metadata(format!("{}-{slot}", blueprint.prefix()), &labels),
        spec: Some(PodSpec {
            containers: vec![container(template, revision)],
            // Not by the API server's address either: the workers have no business there.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Always".to_owned()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
                ..PodSecurityContext::default()
            }),
            topology_spread_constraints: Some(vec![TopologySpreadConstraint {
                max_skew: 1,
                topology_key: "kubernetes.io/hostname".to_owned(),
                when_unsatisfiable: "ScheduleAnyway".to_owned(),
                label_selector: Some(selector(blueprint)),
                ..TopologySpreadConstraint::default()
            }]),
            volumes: Some(vec![
                Volume {
                    name: "job".to_owned(),
                    config_map: Some(ConfigMapVolumeSource { name: blueprint.config_name(template), ..ConfigMapVolumeSource::default() }),
                    ..Volume::default()
                },
                certificates(blueprint),
                state(revision),
                empty("tmp"),
            ]),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

fn container(template: &str, revision: &Revision) -> Container {
    let port =
        |name: &str, port: u16| ContainerPort { name: Some(name.to_owned()), container_port: port.into(), ..ContainerPort::default() };
    let file = format!("/etc/forebay/{FILE}");
    let (control, metrics) = (format!("0.0.0.0:{PORT}"), format!("0.0.0.0:{METRICS_PORT}"));
    let arguments = [
        &["worker", "-f", &file, "--state-dir", "/var/lib/forebay/state", "--control", &control, "--control-tls", CERTIFICATES_FOLDER][..],
        &["--metrics", &metrics, "--log-json"],
    ];
    Container {
        name: WORKER.to_owned(),
        image: Some(revision.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["forebay".to_owned()]),
        args: Some(arguments.concat().into_iter().map(str::to_owned).collect()),
        env: Some(environment(template, revision)),
        env_from: Some(revision.env_from_secrets.iter().map(|secret| secret_environment(secret)).collect()),
        ports: Some(vec![port("control", PORT), port("metrics", METRICS_PORT)]),
        resources: Some(resources(revision)),
        readiness_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(PORT.into()), ..TCPSocketAction::default() }),
            period_seconds: Some(2),
            ..Probe::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        // Why it does not start is said on its last line; the operator passes it on.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![
            mount("job", "/etc/forebay", true),
            mount(CERTIFICATES, CERTIFICATES_FOLDER, true),
            mount(STATE, "/var/lib/forebay", false),
            mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    }
}

fn environment(template: &str, revision: &Revision) -> Vec<EnvVar> {
    let field = |path: &str| EnvVarSource {
        field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() }),
        ..EnvVarSource::default()
    };
    let from = |name: &str, source| EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() };
    let mut all = vec![
        from("POD_NAME", field("metadata.name")),
        from("POD_UID", field("metadata.uid")),
        // With the uid, because a pod of this name may still run on a lost node.
        EnvVar { name: "FOREBAY_WORKER".to_owned(), value: Some("$(POD_NAME).$(POD_UID)".to_owned()), ..EnvVar::default() },
        // By the environment: an earlier image knows no such flag.
        EnvVar { name: "FOREBAY_TEMPLATE".to_owned(), value: Some(template.to_owned()), ..EnvVar::default() },
        // Not as it is: what is in force for a pod must not hang on what is asked for at the moment.
        from("FOREBAY_REWIND_FAILED", field(&format!("metadata.annotations['{REWIND_FAILED_ANNOTATION}']"))),
    ];
    for (variable, secret) in &revision.secrets {
        let key = SecretKeySelector { name: secret.name.clone(), key: secret.key.clone(), ..SecretKeySelector::default() };
        all.push(from(variable, EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() }));
    }
    all
}

fn secret_environment(secret: &str) -> EnvFromSource {
    EnvFromSource {
        secret_ref: Some(SecretEnvSource { name: secret.to_owned(), ..SecretEnvSource::default() }),
        ..EnvFromSource::default()
    }
}

/// What the job names, or the defaults if it names nothing: half of the one and half of the other may contradict each other.
fn resources(revision: &Revision) -> ResourceRequirements {
    let own = |map: &BTreeMap<String, String>| map.iter().map(|(name, value)| (name.clone(), Quantity(value.clone()))).collect();
    let default = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect();
    let (requests, limits) = if revision.requests.is_empty() && revision.limits.is_empty() {
        (default(&[("cpu", "250m"), ("memory", "512Mi")]), default(&[("memory", "1Gi")]))
    } else {
        (own(&revision.requests), own(&revision.limits))
    };
    ResourceRequirements { requests: Some(requests), limits: Some(limits), ..ResourceRequirements::default() }
}

fn certificates(blueprint: &Blueprint) -> Volume {
    let secret = SecretVolumeSource {
        secret_name: Some(certificate::name(blueprint)),
        // For the owner and the pod's group: its own.
        default_mode: Some(0o440),
        ..SecretVolumeSource::default()
    };
    Volume { name: CERTIFICATES.to_owned(), secret: Some(secret), ..Volume::default() }
}

fn state(revision: &Revision) -> Volume {
    let Some(claim) = &revision.volume_claim_template else { return empty(STATE) };
    let ephemeral = EphemeralVolumeSource { volume_claim_template: Some((**claim).clone()) };
    Volume { name: STATE.to_owned(), ephemeral: Some(ephemeral), ..Volume::default() }
}

/// A volume on the node's disk, empty at first.
pub fn empty(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only: Some(read_only), ..VolumeMount::default() }
}
