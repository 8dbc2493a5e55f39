//! Where a job's log, snapshots and state lie: named on the command line, in the environment, in the manifest, or below a working folder.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::BoolishValueParser;
use forebay_crds::job::StoreSpec;
use forebay_crds::validate::{Property, ValidatedJob};
use forebay_engine::store::{ObjectStore, StoreError};
use forebay_local::FolderStore;
use forebay_s3::{Encryption, S3Options, S3Store};

use crate::Unusable;

/// Which job, and where things lie.
#[derive(Args, Clone, Debug)]
pub struct Places {
    /// The manifest
    #[arg(short = 'f', long, value_name = "FILE", env = "FOREBAY_FILE")]
    pub file: PathBuf,

    #[command(flatten)]
    pub working: WorkingFolder,

    /// Kafka brokers, host:port separated by commas; overrides the manifest's spec.kafka.bootstrapServers. Without either the embedded log
    /// is used
    #[arg(long, value_name = "BROKERS", env = "FOREBAY_KAFKA")]
    pub kafka: Option<String>,

    /// A librdkafka property, such as security.protocol=SASL_SSL; may be repeated, in the environment one a line. Passwords better come from
    /// the manifest's spec.kafka.propertiesFrom
    #[arg(
        long = "kafka-property",
        value_name = "NAME=VALUE",
        env = "FOREBAY_KAFKA_PROPERTIES",
        hide_env_values = true,
        value_delimiter = '\n'
    )]
    pub kafka_properties: Vec<String>,

    /// Where snapshots go: s3://BUCKET/PREFIX or a folder; overrides the manifest's spec.state.store
    #[arg(long, value_name = "URL", env = "FOREBAY_STORE")]
    pub store: Option<String>,

    #[command(flatten)]
    s3: S3Arguments,

    /// Where the databases lie [default: state/ in the working folder]
    #[arg(long, value_name = "FOLDER", env = "FOREBAY_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Where everything lies that is named nowhere else.
#[derive(Args, Clone, Debug)]
pub struct WorkingFolder {
    /// Working folder: the embedded log (log/), the object store (store/) and the state (state/) lie here unless named otherwise
    #[arg(long, default_value = "forebay-data", value_name = "FOLDER", env = "FOREBAY_DIR")]
    dir: PathBuf,
}

/// How to reach a bucket; each overrides the manifest's spec.state.store.s3.
#[derive(Args, Clone, Debug)]
struct S3Arguments {
    /// The S3 server's URL where it is not AWS; implies path style
    #[arg(long, value_name = "URL", env = "FOREBAY_S3_ENDPOINT")]
    s3_endpoint: Option<String>,

    /// The bucket's region [default: what the AWS SDK finds, such as AWS_REGION; us-east-1 with an endpoint]
    #[arg(long, value_name = "REGION", env = "FOREBAY_S3_REGION")]
    s3_region: Option<String>,

    /// Whether the bucket is named in the path, not in the host name [default: true with --s3-endpoint, else false]
    #[arg(long, value_name = "BOOL", env = "FOREBAY_S3_PATH_STYLE", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    s3_path_style: Option<bool>,

    /// A PEM file with the authorities that signed the S3 server's certificate, trusted besides the system's own
    #[arg(long, value_name = "FILE", env = "FOREBAY_S3_CA_FILE")]
    s3_ca_file: Option<PathBuf>,

    /// The KMS key that S3 is to encrypt objects with: id, ARN or alias [default: what the bucket is set to]
    #[arg(long, value_name = "KEY", env = "FOREBAY_S3_SSE_KMS_KEY_ID")]
    s3_sse_kms_key_id: Option<String>,
}

impl WorkingFolder {
    /// The folder of the embedded log.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// Brokers and their properties, secrets resolved.
pub struct Cluster {
    pub bootstrap_servers: String,
    pub properties: Vec<(String, String)>,
}

impl Places {
    /// The folder of the databases.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| self.working.dir.join("state"))
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
                match store.preflight() {
                    Ok(()) => Ok(Arc::new(store)),
                    Err(error @ StoreError::Unavailable { .. }) => Err(error.into()),
                    Err(error) => Err(Unusable(error.to_string()).into()),
                }
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
        self.s3.override_in(&mut options);
        Ok(Some(options))
    }

    /// The folder, if it is no bucket.
    fn folder(&self, job: &ValidatedJob) -> anyhow::Result<PathBuf> {
        match (&self.store, &job.store) {
            (Some(url), _) if url.contains("://") => Err(Unusable(format!("--store {url}: write s3://BUCKET/PREFIX, or a folder")).into()),
            (Some(folder), _) => Ok(PathBuf::from(folder)),
            (None, Some(StoreSpec::Folder(folder))) => Ok(PathBuf::from(&folder.path)),
            (None, _) => Ok(self.working.dir.join("store")),
        }
    }
}

impl S3Arguments {
    fn override_in(&self, options: &mut S3Options) {
        if let Some(endpoint) = &self.s3_endpoint {
            options.endpoint = Some(endpoint.clone());
            options.path_style = true;
        }
        if let Some(region) = &self.s3_region {
            options.region = Some(region.clone());
        }
        if let Some(path_style) = self.s3_path_style {
            options.path_style = path_style;
        }
        if let Some(ca_file) = &self.s3_ca_file {
            options.ca_file = Some(ca_file.clone());
        }
        if let Some(key_id) = &self.s3_sse_kms_key_id {
            options.encryption = Encryption::Kms { key_id: key_id.clone() };
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use forebay_crds::Manifest;

    use super::*;

    const JOB: &str = "\
apiVersion: forebay.dev/v1alpha1
kind: IngestionJob
metadata: {name: j, namespace: default}
spec:
  inputs: [{name: i, topic: i}]
  deadLetter: {topic: dead}
  state:
    store:
      s3:
        {bucket: declared, prefix: p, endpoint: 'https://declared', region: r1, pathStyle: false, caFile: /declared.pem, sseKmsKeyId: k1}
  pipeline: [{parse: {format: json}}, {emit: {topic: out}}]
";

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        places: Places,
    }

    /// Bucket and prefix, endpoint, region, path style, authorities, key.
    fn check(arguments: &[&str], expected: (&str, Option<&str>, Option<&str>, bool, Option<&str>, Option<&str>)) {
        let line = Line::parse_from([&["forebay", "-f", "job.yaml"], arguments].concat());
        let job = Manifest::parse(JOB, "job.yaml").unwrap().validate().unwrap();
        let options = line.places.s3(&job, "below").unwrap().unwrap();
        let key = match &options.encryption {
            Encryption::Kms { key_id } => Some(key_id.as_str()),
            Encryption::BucketDefault | Encryption::S3 => None,
        };
        let place = format!("{}/{}", options.bucket, options.prefix);
        let ca_file = options.ca_file.as_ref().and_then(|path| path.to_str());
        let found = (place.as_str(), options.endpoint.as_deref(), options.region.as_deref(), options.path_style, ca_file, key);
        assert_eq!(found, expected, "{arguments:?}");
    }

    #[test]
    fn arguments_override_the_manifests_store_field_by_field() {
        let declared = ("declared/p/below", Some("https://declared"), Some("r1"), false, Some("/declared.pem"), Some("k1"));
        check(&[], declared);
        check(&["--s3-endpoint", "http://e"], (declared.0, Some("http://e"), declared.2, true, declared.4, declared.5));
        check(
            &["--s3-endpoint", "http://e", "--s3-path-style=false"],
            (declared.0, Some("http://e"), declared.2, false, declared.4, declared.5),
        );
        check(&["--s3-path-style"], (declared.0, declared.1, declared.2, true, declared.4, declared.5));
        check(
            &["--s3-region", "r2", "--s3-ca-file", "/c.pem", "--s3-sse-kms-key-id", "k2"],
            (declared.0, declared.1, Some("r2"), false, Some("/c.pem"), Some("k2")),
        );
    }

    /// Method: each kind of reference, and what it may lack. The file ends as editors end files; the variable is one that cargo sets.
    #[test]
    fn a_property_by_reference_is_looked_up_and_what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\r\n").unwrap();
        let (file, gone) = (file.to_str().unwrap().to_owned(), folder.path().join("gone").to_str().unwrap().to_owned());
        let check = |property: Property, expected: Result<&str, &[&str]>| match (resolve("sasl.password", &property), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(needed)) => {
                assert!(error.is::<Unusable>(), "{error}");
                let text = error.to_string();
                assert!(text.starts_with("spec.kafka.propertiesFrom.sasl.password: "), "the field is not named: {text}");
                assert!(needed.iter().all(|needed| text.contains(needed)), "{text} lacks one of {needed:?}");
                assert!(!text.contains("hunter2"), "{text}");
            }
            (found, expected) => panic!("{property:?}: {found:?} instead of {expected:?}"),
        };
        check(Property::Value("plain".into()), Ok("plain"));
        check(Property::File(file), Ok("hunter2"));
        check(Property::Env("CARGO_PKG_NAME".into()), Ok("forebay-cli"));
        check(Property::File(gone.clone()), Err(&[&gone, "No such file"]));
        check(Property::Env("FOREBAY_TEST_OF_NOTHING".into()), Err(&["the environment variable FOREBAY_TEST_OF_NOTHING is not set"]));
        let secret = Property::Secret { name: "kafka".into(), key: "password".into() };
        check(secret, Err(&["secret kafka/password", "known to Kubernetes only", "--kafka-property sasl.password=", "`env`", "`file`"]));
    }

    #[test]
    fn another_store_replaces_the_manifests_as_a_whole() {
        check(&["--store", "s3://b"], ("b/below", None, None, false, None, None));
        check(&["--store", "s3://b/x/", "--s3-region", "r2"], ("b/x/below", None, Some("r2"), false, None, None));
    }
}
