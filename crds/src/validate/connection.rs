//! The systems around a job: that their addresses are addresses, that nothing is set which Forebay sets itself, and that no secret lies open.

use std::collections::BTreeMap;

use crate::finding::Finding;
use crate::job::{KafkaSpec, PropertySource, S3Store, StateSpec, StoreSpec};
use crate::names;
use crate::path::Path;

/// The protocol depends on these; what a user would set them to breaks it.
pub(crate) const OWN_PROPERTIES: [&str; 16] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "transaction.timeout.ms",
    "transactional.id",
];
/// What nobody may read in a manifest, a log or a status.
pub(crate) const SECRET_PROPERTIES: [&str; 5] =
    ["sasl.oauthbearer.client.secret", "sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password"];

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// Properties of librdkafka by name.
    pub properties: BTreeMap<String, Property>,
}

/// The value of a property, or where whoever connects finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// The value. No secret.
    Value(String),
    /// An entry of a secret in the job's namespace.
    Secret {
        /// The secret.
        name: String,
        /// The entry.
        key: String,
    },
    /// An environment variable.
    Env(String),
    /// A file.
    File(String),
}

pub(super) fn check_kafka(spec: &KafkaSpec, at: &Path, findings: &mut Vec<Finding>) -> Kafka {
    if let Err(message) = names::check_servers(&spec.bootstrap_servers) {
        let help = "write brokers as host:port, separated by commas";
        findings.push(Finding::new(&at.key("bootstrapServers"), message, help));
    }
    let mut properties = BTreeMap::new();
    for (name, value) in &spec.properties {
        let at = at.key("properties").key(name);
        check_property(name, &at, findings);
        if SECRET_PROPERTIES.contains(&name.as_str()) {
            let help = "move it to `propertiesFrom`, as `secretKeyRef`, `env` or `file`";
            findings.push(Finding::new(&at, "a secret lies open here", help));
        }
        properties.insert(name.clone(), Property::Value(value.clone()));
    }
    for (name, source) in &spec.properties_from {
        let at = at.key("propertiesFrom").key(name);
        check_property(name, &at, findings);
        if let (PropertySource::Env(text), field) | (PropertySource::File(text), field) = (source, source_field(source))
            && text.is_empty()
        {
            findings.push(Finding::new(&at.key(field), "nothing stands here", "write where the value is found"));
        }
        let property = match source {
            PropertySource::SecretKeyRef(secret) => Property::Secret { name: secret.name.clone(), key: secret.key.clone() },
            PropertySource::Env(variable) => Property::Env(variable.clone()),
            PropertySource::File(path) => Property::File(path.clone()),
        };
        if properties.insert(name.clone(), property).is_some() {
            findings.push(Finding::new(&at, "this stands under `properties` too", "delete one of them"));
        }
    }
    Kafka { bootstrap_servers: spec.bootstrap_servers.clone(), properties }
}

fn source_field(source: &PropertySource) -> &'static str {
    match source {
        PropertySource::SecretKeyRef(_) => "secretKeyRef",
        PropertySource::Env(_) => "env",
        PropertySource::File(_) => "file",
    }
}

fn check_property(name: &str, at: &Path, findings: &mut Vec<Finding>) {
    if OWN_PROPERTIES.contains(&name) {
        findings.push(Finding::new(at, "Forebay sets this property itself", "delete it"));
    } else if name.is_empty() || name.contains(char::is_whitespace) {
        findings.push(Finding::new(at, format!("{name:?} is no property of librdkafka"), "delete it"));
    }
}

pub(super) fn check_store(store: &StoreSpec, at: &Path, findings: &mut Vec<Finding>) {
    match store {
        StoreSpec::S3(s3) => check_s3(s3, &at.key("s3"), findings),
        StoreSpec::Folder(folder) if folder.path.is_empty() => {
            findings.push(Finding::new(&at.key("folder").key("path"), "nothing stands here", "write the folder's path"));
        }
        StoreSpec::Folder(_) => {}
    }
}

fn check_s3(s3: &S3Store, at: &Path, findings: &mut Vec<Finding>) {
    if let Err(way_out) = names::check_bucket(&s3.bucket) {
        findings.push(Finding::new(&at.key("bucket"), format!("{:?} is no name for a bucket", s3.bucket), way_out));
    }
    if let Some(prefix) = &s3.prefix
        && prefix.split('/').any(str::is_empty)
    {
        let message = format!("{prefix:?} has an empty part");
        findings.push(Finding::new(&at.key("prefix"), message, "write it without / at its ends, and without //"));
    }
    if let Some(endpoint) = &s3.endpoint
        && endpoint.strip_prefix("https://").or(endpoint.strip_prefix("http://")).is_none_or(str::is_empty)
    {
        findings.push(Finding::new(&at.key("endpoint"), format!("{endpoint:?} is no URL"), "start with https:// or http://"));
    }
    if s3.ca_file.is_some() && s3.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
        let message = "certificates serve nothing with an endpoint that is not encrypted";
        findings.push(Finding::new(&at.key("caFile"), message, "write https:// in `endpoint`, or delete `caFile`"));
    }
}
/// Whether a savepoint may be called so. `Err` is the way out.
pub fn check_savepoint_name(name: &str) -> Result<(), &'static str> {
    names::check_label(name)
}

pub(super) fn check_adopt(state: &StateSpec, at: &Path, findings: &mut Vec<Finding>) {
    let Some(path) = &state.adopt else { return };
    let at = at.key("adopt");
    let parts: Vec<&str> = path.split('/').collect();
    let is_legal = matches!(parts.as_slice(), [namespace, job, uid]
        if [names::check_label(namespace), names::check_job(job), names::check_label(uid)].iter().all(Result::is_ok));
    if !is_legal {
        let help = "write NAMESPACE/JOB/UID, as the state lies in the bucket";
        findings.push(Finding::new(&at, format!("{path:?} is no place of a job's state"), help));
    }
    if state.from_savepoint.is_some() {
        findings.push(Finding::new(&at, "the job is to begin with a savepoint already", "delete `adopt` or `fromSavepoint`"));
    }
}

pub(super) fn check_savepoint(path: &str, at: &Path, findings: &mut Vec<Finding>) {
    let parts: Vec<&str> = path.split('/').collect();
    let is_legal = match parts.as_slice() {
        [namespace, job, name] => {
            [names::check_label(namespace), names::check_job(job), names::check_label(name)].iter().all(Result::is_ok)
        }
        _ => false,
    };
    if !is_legal {
        let help = "write NAMESPACE/JOB/NAME, as status.path of an IngestionSavepoint has it";
        findings.push(Finding::new(at, format!("{path:?} is no savepoint"), help));
    }
}
