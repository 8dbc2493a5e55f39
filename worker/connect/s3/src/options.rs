//! What a user says about the object store. Holds secrets only in a type that does not print them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where users name the bucket: the manifest's field and the flag that overrides it, as messages say them.
pub(crate) const BUCKET_FIELD: &str = "spec.state.store.s3.bucket or --store";

/// The same of the server.
pub(crate) const ENDPOINT_FIELD: &str = "spec.state.store.s3.endpoint or --s3-endpoint";

/// The same of the region.
pub(crate) const REGION_FIELD: &str = "spec.state.store.s3.region or --s3-region";

/// The same of the authorities that signed the server's certificate.
pub(crate) const CA_FILE_FIELD: &str = "spec.state.store.s3.caFile or --s3-ca-file";

/// The same of the key that objects are encrypted with.
pub(crate) const KMS_KEY_FIELD: &str = "spec.state.store.s3.sseKmsKeyId or --s3-sse-kms-key-id";

/// Where the objects lie, and how to get there.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The bucket. It must exist.
    pub bucket: String,
    /// All keys are put below `<prefix>/`; empty for the bucket's root. Slashes at its ends do not count.
    pub prefix: String,
    /// The server's URL where it is not AWS.
    pub endpoint: Option<String>,
    /// The bucket's region. Default: what the SDK finds (`AWS_REGION`, the profile, the instance), and `us-east-1` with an `endpoint`.
    pub region: Option<String>,
    /// `<endpoint>/<bucket>/<key>` instead of a host name per bucket: what most servers that are not AWS need.
    pub path_style: bool,
    /// A PEM file with the authorities that signed the server's certificate, trusted besides the system's own.
    pub ca_file: Option<PathBuf>,
    /// What the server encrypts objects with.
    pub encryption: Encryption,
    /// Who we are.
    pub credentials: Credentials,
    /// How long one attempt may take, besides the time that its bytes need.
    pub attempt_timeout: Duration,
    /// How often a call is attempted before it fails as `Unavailable`; at least once.
    pub attempts: u32,
}

impl S3Options {
    /// AWS itself, with the SDK's own ways to find region and credentials; three attempts of ten seconds each.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            path_style: false,
            ca_file: None,
            encryption: Encryption::BucketDefault,
            credentials: Credentials::Chain,
            attempt_timeout: Duration::from_secs(10),
            attempts: 3,
        }
    }
}

/// What the server encrypts objects with, at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// What the bucket is set to; nothing is asked for.
    BucketDefault,
    /// Keys that S3 keeps (SSE-S3).
    S3,
    /// A key in KMS (SSE-KMS).
    Kms {
        /// Its id, ARN or alias.
        key_id: String,
    },
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The SDK's default chain: environment, profile, web identity (IRSA), container (pod identity), instance.
    Chain,
    /// Given ones: for tests and for tools.
    Static {
        /// The access key's id.
        access_key: String,
        /// Its secret.
        secret_key: Secret,
    },
}

/// Text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_with_the_options() {
        let credentials = Credentials::Static { access_key: "id".into(), secret_key: Secret::new("hunter2") };
        let printed = format!("{:?}", S3Options { credentials, ..S3Options::new("b", "p") });
        assert!(printed.contains("(secret)") && !printed.contains("hunter2"), "{printed}");
    }
}
