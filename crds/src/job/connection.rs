//! The systems around a job: the Kafka cluster and the store of its snapshots. Secrets stand here by reference only. A value and a
//! reference are two maps, since a structural schema cannot say "a string or an object".

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rewind::RewindSpec;
use crate::quantity::{ByteSize, TimeSpan};

/// The Kafka cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaSpec {
    /// Brokers to ask for the others: `host:port`, separated by commas.
    #[schemars(length(min = 1, max = 4096), regex(pattern = "^ *[^ ,]+:[0-9]{1,5}( *, *[^ ,]+:[0-9]{1,5})* *$"))]
    pub bootstrap_servers: String,
    /// Properties of librdkafka, such as `security.protocol` and `sasl.mechanism`. Passwords and keys stand under `propertiesFrom`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub properties: BTreeMap<String, String>,
    /// Properties whose values are kept elsewhere: passwords and keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub properties_from: BTreeMap<String, PropertySource>,
}

/// Where a value is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PropertySource {
    /// In a secret of the job's namespace.
    SecretKeyRef(SecretKey),
    /// In an environment variable of the worker.
    Env(String),
    /// In a file that the worker can read; a line end at its end does not count.
    File(String),
}

/// One entry of a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKey {
    /// The secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The entry.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Where the state lies and how much memory it takes.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateSpec {
    /// Where snapshots go. `forebay run` may name it on the command line instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreSpec>,
    /// A savepoint in the same bucket that a job without any state begins with: what `status.path` of an `IngestionSavepoint` says, as in
    /// `default/flights/before-3f2a9c`. The inputs must be those of the job that it is of. Without effect once the job has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 200), regex(pattern = "^[a-z0-9-]+/[a-z0-9.-]+/[a-z0-9-]+$"))]
    pub from_savepoint: Option<String>,
    /// The state of another job in the same bucket that a job without any state goes on with, and nobody else from then on: where that lies, as in
    /// `default/flights/0d1f6a7e-…`, namespace, name and uid. It is refused while that job is alive. Without effect once the job has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 200), regex(pattern = "^[a-z0-9-]+/[a-z0-9.-]+/[a-z0-9-]+$"))]
    pub adopt: Option<String>,
    /// Has the job go on, once, from an earlier state of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind: Option<RewindSpec>,
    /// How much memory a worker may hold: caches and write buffers of the state, open epochs, buffers of the Kafka client, the program itself; half of the container's limit by default. Kept to from `256Mi` on: with less, the program itself takes more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// What holds for single tables, by the names that the pipeline's steps give them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub tables: BTreeMap<String, TableSpec>,
}

/// One state table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableSpec {
    /// An entity to which no `upsert` has been applied for this long is gone. By default entities stay until they are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TimeSpan>,
}

/// Where snapshots go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StoreSpec {
    /// A bucket of S3, or of a store that speaks its protocol.
    S3(S3Store),
    /// A folder: for one machine, or a volume that all workers share.
    Folder(FolderStore),
}

/// A bucket. Credentials come from where the AWS SDK finds them: environment, web identity, profile, instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Store {
    /// The bucket.
    #[schemars(length(min = 3, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub bucket: String,
    /// Under which all objects lie; several jobs may share it. None by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^[^/]+(/[^/]+)*$"))]
    pub prefix: Option<String>,
    /// The URL of a store other than AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = "^https?://.+$"))]
    pub endpoint: Option<String>,
    /// The region; by default as the AWS SDK finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,
    /// Puts the bucket into the path instead of the host name, as many stores other than AWS need it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub path_style: bool,
    /// A file with the certificates, in PEM, to trust the endpoint by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ca_file: Option<String>,
    /// The KMS key that objects are encrypted with; by default as the bucket says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub sse_kms_key_id: Option<String>,
}

/// A folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FolderStore {
    /// Its path.
    #[schemars(length(min = 1, max = 4096))]
    pub path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
