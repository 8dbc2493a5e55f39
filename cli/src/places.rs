//! Where a job's log, snapshots and state lie: named on the command line, in the manifest, or below a working folder.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use forebay_crds::job::StoreSpec;
use forebay_crds::validate::{Property, ValidatedJob};
use forebay_engine::store::ObjectStore;
use forebay_local::FolderStore;
use forebay_s3::{Encryption, S3Options, S3Store};

use crate::Unusable;

/// Where things lie.
#[derive(Args, Clone, Debug)]
pub struct Places {
    /// Working folder: the embedded log (log/), the object store (store/) and the state (state/) lie here unless named otherwise
    #[arg(long, default_value = "forebay-data", value_name = "FOLDER", env = "FOREBAY_DIR")]
    pub dir: PathBuf,

    /// Kafka brokers, host:port separated by commas; overrides the manifest's spec.kafka.bootstrapServers. Without either the embedded log
    /// is used
    #[arg(long, value_name = "BROKERS", env = "FOREBAY_KAFKA")]
    pub kafka: Option<String>,

    /// A librdkafka property, such as security.protocol=SASL_SSL; may be repeated. Passwords better come from the manifest's
    /// spec.kafka.propertiesFrom
    #[arg(long = "kafka-property", value_name = "NAME=VALUE")]
    pub kafka_properties: Vec<String>,

    /// Where snapshots go: s3://BUCKET/PREFIX or a folder; overrides the manifest's spec.state.store
    #[arg(long, value_name = "URL", env = "FOREBAY_STORE")]
    pub store: Option<String>,

    /// The S3 server's URL where it is not AWS; implies path style
    #[arg(long, value_name = "URL", env = "FOREBAY_S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,

    /// Where the databases lie [default: state/ in the working folder]
    #[arg(long, value_name = "FOLDER", env = "FOREBAY_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Brokers and their properties, secrets resolved.
pub struct Cluster {
    pub bootstrap_servers: String,
    pub properties: Vec<(String, String)>,
}

impl Places {
    /// The folder of the databases.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| self.dir.join("state"))
    }

    /// The folder of the embedded log.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The Kafka cluster; `None`: the embedded log.
    pub fn cluster(&self, job: &ValidatedJob) -> anyhow::Result<Option<Cluster>> {
        let declared = job.kafka.as_ref();
        let Some(bootstrap_servers) = self.kafka.clone().or_else(|| declared.map(|kafka| kafka.bootstrap_servers.clone())) else {
            return Ok(None);
        };
        let mut properties = Vec::new();
        for (name, property) in declared.iter().flat_map(|kafka| &kafka.properties) {
            properties.push((name.clone(), resolve(name, property)?));
        }
        for property in &self.kafka_properties {
            let (name, value) = property
                .split_once('=')
                .ok_or_else(|| Unusable(format!("--kafka-property {property}: write NAME=VALUE, such as security.protocol=SSL")))?;
            properties.push((name.to_owned(), value.to_owned()));
        }
        Ok(Some(Cluster { bootstrap_servers, properties }))
    }

    /// The object store, rooted at `below` under the user's prefix.
    pub fn store(&self, job: &ValidatedJob, below: &str) -> anyhow::Result<Arc<dyn ObjectStore>> {
        match self.s3(job, below)? {
            Some(options) => Ok(Arc::new(S3Store::open(options)?)),
            None => open_folder(self.folder(job)?.join(below)),
        }
    }

    /// The same, after a probe of all that a job needs of it.
    pub fn checked_store(&self, job: &ValidatedJob, below: &str) -> anyhow::Result<Arc<dyn ObjectStore>> {
        match self.s3(job, below)? {
            Some(options) => {
                let store = S3Store::open(options)?;
                store.preflight().map_err(|error| Unusable(error.to_string()))?;
                Ok(Arc::new(store))
            }
            None => open_folder(self.folder(job)?.join(below)),
        }
    }

    /// The bucket, if it is one.
    fn s3(&self, job: &ValidatedJob, below: &str) -> anyhow::Result<Option<S3Options>> {
        let mut options = match (&self.store, &job.store) {
            (Some(url), _) => match url.strip_prefix("s3://") {
                Some(rest) => {
                    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                    S3Options::new(bucket, join(prefix, below))
                }
                None => return Ok(None),
            },
            (None, Some(StoreSpec::S3(s3))) => {
                let mut options = S3Options::new(s3.bucket.clone(), join(s3.prefix.as_deref().unwrap_or(""), below));
                options.endpoint = s3.endpoint.clone();
                options.region = s3.region.clone();
                options.path_style = s3.path_style;
                options.ca_file = s3.ca_file.clone().map(PathBuf::from);
                if let Some(key_id) = s3.sse_kms_key_id.clone() {
                    options.encryption = Encryption::Kms { key_id };
                }
                options
            }
            (None, Some(StoreSpec::Folder(_)) | None) => return Ok(None),
        };
        if let Some(endpoint) = &self.s3_endpoint {
            options.endpoint = Some(endpoint.clone());
            options.path_style = true;
        }
        Ok(Some(options))
    }

    /// The folder, if it is no bucket.
    fn folder(&self, job: &ValidatedJob) -> anyhow::Result<PathBuf> {
        match (&self.store, &job.store) {
            (Some(url), _) if url.contains("://") => Err(Unusable(format!("--store {url}: write s3://BUCKET/PREFIX, or a folder")).into()),
            (Some(folder), _) => Ok(PathBuf::from(folder)),
            (None, Some(StoreSpec::Folder(folder))) => Ok(PathBuf::from(&folder.path)),
            (None, _) => Ok(self.dir.join("store")),
        }
    }
}

fn open_folder(folder: PathBuf) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let store = FolderStore::open(&folder).map_err(|error| anyhow::anyhow!("open the object store in {}: {error}", folder.display()))?;
    Ok(Arc::new(store))
}

fn join(prefix: &str, below: &str) -> String {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { below.to_owned() } else { format!("{prefix}/{below}") }
}

fn resolve(name: &str, property: &Property) -> anyhow::Result<String> {
    match property {
        Property::Value(value) => Ok(value.clone()),
        Property::Env(variable) => std::env::var(variable)
            .map_err(|_| Unusable(format!("spec.kafka.propertiesFrom.{name}: the environment variable {variable} is not set")).into()),
        Property::File(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(Unusable(format!("spec.kafka.propertiesFrom.{name}: read {path}: {error}")).into()),
        },
        Property::Secret { name: secret, key } => Err(Unusable(format!(
            "spec.kafka.propertiesFrom.{name}: secret {secret}/{key} is known to Kubernetes only; give it by --kafka-property {name}=…, or use `env` or \
             `file` in the manifest"
        ))
        .into()),
    }
}
