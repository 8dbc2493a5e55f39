//! What a user adds to the worker pods: it is read by Kubernetes' own types, and names nothing that the operator relies on. Values that only the API server can
//! judge are left to it.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::finding::Finding;
use crate::job::{AddedMetadata, PodTemplate, VolumeClaimTemplate};
use crate::path::Path;
use crate::yaml;

/// The container that is the worker.
const WORKER: &str = "worker";
const OWN_PREFIX: &str = "forebay.dev/";
/// By these the operator, its service, its disruption budget and its network policy find the pods.
const OWN_LABELS: [&str; 3] = ["app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/managed-by"];
const OWN_VOLUMES: [&str; 4] = ["job", "certificates", "state", "tmp"];
const OWN_FOLDERS: [&str; 4] = ["/etc/forebay", "/etc/forebay-tls", "/var/lib/forebay", "/tmp"];
const OWN_VARIABLES: [&str; 2] = ["POD_NAME", "POD_UID"];
const OWN_VARIABLES_PREFIX: &str = "FOREBAY_";

/// Fields of the pod that are none of a user's, why, and what to do instead.
const POD_FIELDS: [(&str, &str, &str); 3] = [
    ("restartPolicy", "a worker is always started again", "delete it"),
    ("activeDeadlineSeconds", "a worker runs until the operator deletes it", "delete it"),
    ("ephemeralContainers", "no pod is made with these", "use `kubectl debug` on a pod that runs"),
];
/// The same of the worker's container.
const WORKER_FIELDS: [(&str, &str, &str); 10] = [
    ("command", "the operator says what a worker runs", "delete it"),
    ("args", "the operator says what a worker runs", "delete it"),
    ("ports", "the operator says where a worker listens", "delete it, and let a container beside it have ports of its own"),
    ("image", "the worker's image has a field of its own", "write it as spec.workers.image"),
    ("resources", "the worker's resources have a field of their own", "write them as spec.workers.resources"),
    ("readinessProbe", "the operator tells by it whether a worker is up", "delete it"),
    ("terminationMessagePath", "the operator reads there why a worker ended", "delete it"),
    ("terminationMessagePolicy", "the operator reads there why a worker ended", "delete it"),
    ("restartPolicy", "a worker is always started again", "delete it"),
    ("restartPolicyRules", "a worker is always started again", "delete them"),
];

/// What is merged into each pod; `None` if that is nothing, or has findings.
pub(super) fn check_template(template: &PodTemplate, at: &Path, findings: &mut Vec<Finding>) -> Option<PodTemplateSpec> {
    let before = findings.len();
    check_metadata(&template.metadata, &at.key("metadata"), findings);
    let (spec, at) = (&template.spec, at.key("spec"));
    refuse(spec, &POD_FIELDS, &at, findings);
    for (index, volume) in objects(spec, "volumes") {
        let name = text(volume, "name");
        if OWN_VOLUMES.contains(&name) {
            let at = at.key("volumes").index(index).key("name");
            findings.push(Finding::new(&at, format!("{name:?} is a volume of the operator's own"), "write another name"));
        }
    }
    for (index, container) in objects(spec, "containers") {
        check_container(container, &at.key("containers").index(index), findings);
    }
    let read = read::<PodSpec>(spec, &at, findings)?;
    (findings.len() == before && *template != PodTemplate::default())
        .then(|| PodTemplateSpec { metadata: metadata(&template.metadata), spec: Some(read) })
}

/// The claim; `None` if it has findings.
pub(super) fn check_claim(claim: &VolumeClaimTemplate, at: &Path, findings: &mut Vec<Finding>) -> Option<PersistentVolumeClaimTemplate> {
    let before = findings.len();
    check_metadata(&claim.metadata, &at.key("metadata"), findings);
    let at = at.key("spec");
    let mut spec = read::<PersistentVolumeClaimSpec>(&claim.spec, &at, findings)?;
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if requests.is_none_or(|requests| !requests.contains_key("storage")) {
        let help = "add `resources: {requests: {storage: 10Gi}}`, with room for a worker's share of the state twice over";
        findings.push(Finding::new(&at, "the claim does not say how large it is to be", help));
    }
    spec.access_modes.get_or_insert_with(|| vec!["ReadWriteOnce".to_owned()]);
    (findings.len() == before).then(|| PersistentVolumeClaimTemplate { metadata: metadata(&claim.metadata), spec })
}

fn check_metadata(added: &AddedMetadata, at: &Path, findings: &mut Vec<Finding>) {
    for (field, names) in [("labels", added.labels.keys()), ("annotations", added.annotations.keys())] {
        for name in names.filter(|name| name.starts_with(OWN_PREFIX) || OWN_LABELS.contains(&name.as_str())) {
            let message = "the operator sets this itself, and finds its own by it";
            findings.push(Finding::new(&at.key(field).key(name), message, "delete it, or write another name"));
        }
    }
}

fn check_container(container: &Map<String, Value>, at: &Path, findings: &mut Vec<Finding>) {
    match text(container, "name") {
        "" => {
            let help = format!("add `name: {WORKER}` for the worker itself, or another one for a container beside it");
            findings.push(Finding::new(at, "the field `name` is missing", help));
        }
        WORKER => check_worker(container, at, findings),
        _ if text(container, "image").is_empty() => {
            findings.push(Finding::new(at, "the field `image` is missing", "a container beside the worker needs one of its own"));
        }
        _ => {}
    }
}

fn check_worker(container: &Map<String, Value>, at: &Path, findings: &mut Vec<Finding>) {
    refuse(container, &WORKER_FIELDS, at, findings);
    for (index, variable) in objects(container, "env") {
        let name = text(variable, "name");
        if OWN_VARIABLES.contains(&name) || name.starts_with(OWN_VARIABLES_PREFIX) {
            let at = at.key("env").index(index).key("name");
            findings.push(Finding::new(&at, format!("the operator sets {name} itself"), "delete it"));
        }
    }
    for (index, mount) in objects(container, "volumeMounts") {
        let path = text(mount, "mountPath").trim_end_matches('/');
        let is_within = |folder: &&&str| path.strip_prefix(**folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some(folder) = OWN_FOLDERS.iter().find(is_within) {
            let at = at.key("volumeMounts").index(index).key("mountPath");
            findings.push(Finding::new(&at, format!("{folder} is the worker's own"), "mount it elsewhere"));
        }
    }
}

fn refuse(fields: &Map<String, Value>, refused: &[(&str, &str, &str)], at: &Path, findings: &mut Vec<Finding>) {
    for (field, why, help) in refused.iter().filter(|(field, ..)| fields.contains_key(*field)) {
        findings.push(Finding::new(&at.key(field), *why, *help));
    }
}

/// By Kubernetes' own type. What that does not know, its API server would drop or refuse.
fn read<T: DeserializeOwned>(spec: &Map<String, Value>, at: &Path, findings: &mut Vec<Finding>) -> Option<T> {
    let found = match yaml::read_value(spec) {
        Ok(read) => return Some(read),
        Err(found) => found,
    };
    // A place is one in the text that was made for reading.
    findings.extend(found.into_iter().map(|finding| Finding { path: at.join(&finding.path), place: None, ..finding }));
    None
}

fn metadata(added: &AddedMetadata) -> Option<ObjectMeta> {
    let AddedMetadata { labels, annotations } = added.clone();
    let is_any = !labels.is_empty() || !annotations.is_empty();
    is_any.then(|| ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() })
}

/// The elements of a list that are blocks of fields, with their places in it. What is none is found when it is read.
fn objects<'a>(of: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = (usize, &'a Map<String, Value>)> {
    let items = of.get(field).and_then(Value::as_array).into_iter().flatten().enumerate();
    items.filter_map(|(index, item)| Some((index, item.as_object()?)))
}

fn text<'a>(of: &'a Map<String, Value>, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}
