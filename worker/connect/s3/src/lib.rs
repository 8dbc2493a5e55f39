//! The object store on S3, or on a server that speaks its protocol: a blocking front before the AWS SDK, with a small runtime of its own.
//!
//! Puts are create-only by `If-None-Match`, so a server must honour that; [`S3Store::preflight`] finds out. Everything is bounded: an attempt
//! in time, attempts in number, the bytes of uploads in memory by [`PARTS_MAX`] parts for the whole store, however many threads call.
//!
//! # The least that the credentials must be allowed to do
//!
//! ```json
//! {
//!   "Version": "2012-10-17",
//!   "Statement": [
//!     {
//!       "Effect": "Allow",
//!       "Action": "s3:ListBucket",
//!       "Resource": "arn:aws:s3:::BUCKET",
//!       "Condition": { "StringLike": { "s3:prefix": "PREFIX/*" } }
//!     },
//!     {
//!       "Effect": "Allow",
//!       "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
//!       "Resource": "arn:aws:s3:::BUCKET/PREFIX/*"
//!     }
//!   ]
//! }
//! ```
//!
//! Without `s3:ListBucket` S3 answers "access denied" where an object is missing. With SSE-KMS add `kms:GenerateDataKey` and `kms:Decrypt` on
//! the key. A process that dies in the middle of an upload leaves its parts behind: give the bucket a lifecycle rule
//! `AbortIncompleteMultipartUpload` of a day or more.

mod content;
mod download;
mod listing;
mod options;
mod preflight;
mod refusal;
mod upload;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    Builder as ClientConfig, Credentials as Keys, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use forebay_engine::store::{Body, Downloaded, ObjectInfo, ObjectStore, Put, StoreError};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use options::{BUCKET_FIELD, CA_FILE_FIELD, REGION_FIELD};
pub use options::{Credentials, Encryption, S3Options, Secret};

/// Bytes of one part of an upload; what fits into one is put whole. S3 wants at least 5 MiB and at most 10,000 parts: 78 GiB an object,
/// far above any file of a snapshot.
pub const PART_BYTES: usize = 8 << 20;

/// Parts in memory at a time, over all threads that put: 32 MiB (I9). Four streams are about what fills a 1 Gbit/s link.
pub const PARTS_MAX: usize = 4;

/// A stream slower than this counts as broken: 32 s for a part, on top of the attempt's own time.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 << 10;

/// A connection is there within this time or not at all: three tries of TCP's first packet (at 0, 1 and 3 s).
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// Requests run on the callers' threads; these two drive the connections.
const RUNTIME_THREADS: usize = 2;

/// A bucket's folder as an object store. Calls block and may come from several threads at once, but never from within an async runtime
/// (they would panic there).
///
/// `put` says [`Put::Created`] when the object that is there has the size and the checksum of what was to be put, whoever put it: a put whose
/// reply was lost can be told in no other way, and a caller may repeat one that failed. Every object carries the CRC-32 of its content as
/// metadata `crc32` for that.
///
/// Of several that put one key at once exactly one creates it, as long as the object fits into one part. Above that it depends on the server:
/// AWS promises the same, but SeaweedFS 4.48 may tell several that they completed theirs, and keeps the last. The engine never puts a large
/// object under a key that another could choose.
pub struct S3Store {
    bucket: Arc<Bucket>,
    /// `None` only while dropped.
    runtime: Option<Runtime>,
}

impl S3Store {
    /// Makes the clients; reads files and environment, but asks the server nothing. `Denied` says which option is wrong.
    pub fn open(options: S3Options) -> Result<Self, StoreError> {
        let denied = |reason: String| StoreError::Denied { action: "open", key: format!("s3://{}", options.bucket), reason };
        if options.bucket.is_empty() {
            return Err(denied(format!("the bucket has no name; write one as {BUCKET_FIELD}")));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("forebay-s3")
            .enable_all()
            .build()
            .map_err(|e| denied(format!("cannot start threads: {e}")))?;
        let config = runtime.block_on(client_config(&options)).map_err(denied)?;
        let control = config.clone().timeout_config(timeouts(options.attempt_timeout)).build();
        let transfer = config.timeout_config(timeouts(patience(options.attempt_timeout, PART_BYTES as u64))).build();
        let prefix = options.prefix.trim_matches('/');
        let bucket = Bucket {
            control: Client::from_conf(control),
            transfer: Client::from_conf(transfer),
            root: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            name: options.bucket,
            endpoint: options.endpoint,
            encryption: options.encryption,
            attempt_timeout: options.attempt_timeout,
            attempts: options.attempts.max(1),
            parts: Arc::new(Semaphore::new(PARTS_MAX)),
            single_deletes: AtomicBool::new(false),
        };
        Ok(Self { bucket: Arc::new(bucket), runtime: Some(runtime) })
    }

    /// Tries everything that a job needs with a probe object below the prefix, which is deleted again: put, create-only put (whole and in
    /// parts), get, list, delete. `Denied` says what is missing and what to do.
    pub fn preflight(&self) -> Result<(), StoreError> {
        self.wait(self.bucket.preflight())
    }

    fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is taken in drop only").block_on(call)
    }
}

impl ObjectStore for S3Store {
    fn put(&self, key: &str, body: &Body) -> Result<Put, StoreError> {
        self.wait(self.bucket.put(key, body))
    }

    fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        self.wait(self.bucket.get(key))
    }

    fn download(&self, key: &str, to: &Path) -> Result<Downloaded, StoreError> {
        self.wait(self.bucket.download(key, to))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.wait(self.bucket.list(prefix))
    }

    fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.wait(self.bucket.delete(keys))
    }
}

impl Drop for S3Store {
    /// A runtime that is dropped in the ordinary way panics when the last owner happens to be an async task.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The async side. Its modules add the calls.
struct Bucket {
    /// For requests without much of a body.
    control: Client,
    /// The same with more time, for requests that carry a part.
    transfer: Client,
    name: String,
    /// The server's URL where it is not AWS.
    endpoint: Option<String>,
    /// Before every key: empty, or ends with a slash.
    root: String,
    encryption: Encryption,
    attempt_timeout: Duration,
    attempts: u32,
    /// One permit for each part in memory.
    parts: Arc<Semaphore>,
    /// The server has refused to delete in batches once.
    single_deletes: AtomicBool,
}

impl Bucket {
    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    /// How messages name an object, so that it can be pasted into any tool.
    fn url(&self, key: &str) -> String {
        format!("s3://{}/{}{key}", self.name, self.root)
    }

    /// The server, as its user knows it.
    fn server(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("the endpoint {endpoint}"),
            None => format!("S3 in region {}", self.region()),
        }
    }

    /// What requests are signed for. Never empty: `client_config` refuses that.
    fn region(&self) -> &str {
        self.control.config().region().map_or("", |region| region.as_ref())
    }

    fn unavailable(&self, action: &'static str, key: &str, reason: impl Into<String>) -> StoreError {
        StoreError::Unavailable { action, key: self.url(key), reason: reason.into() }
    }
}

/// How long a transfer may take.
fn patience(attempt_timeout: Duration, bytes: u64) -> Duration {
    attempt_timeout + Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST_BYTES_PER_SECOND)
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT.min(attempt)).operation_attempt_timeout(attempt).build()
}

async fn client_config(options: &S3Options) -> Result<ClientConfig, String> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(options.attempts.max(1)))
        .timeout_config(timeouts(options.attempt_timeout));
    if let Some(file) = &options.ca_file {
        let correct = |words: String| format!("{words}; correct {CA_FILE_FIELD}");
        let pem = std::fs::read(file).map_err(|e| correct(format!("cannot read the CA file {}: {e}", file.display())))?;
        loader = loader.http_client(trusting(pem).map_err(|e| correct(format!("the CA file {}: {e}", file.display())))?);
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    match (&options.region, &options.endpoint) {
        (Some(region), _) => loader = loader.region(Region::new(region.clone())),
        // Servers of one's own take any region, and AWS_REGION may be for something else; asking the instance for one costs seconds.
        (None, Some(_)) => loader = loader.region(Region::from_static("us-east-1")),
        (None, None) => {}
    }
    if let Credentials::Static { access_key, secret_key } = &options.credentials {
        loader = loader.credentials_provider(Keys::new(access_key, secret_key.expose(), None, None, "forebay"));
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        return Err(format!("its region is not known; name the region by {REGION_FIELD}, or set AWS_REGION"));
    }
    Ok(aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(options.path_style)
        // The SDK's own checksums come as trailers, which many servers reject; bodies are in memory, so the signature covers them.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired))
}

/// A client that trusts the certificates in `pem` besides the system's. They are parsed here since the SDK would panic on what is none.
fn trusting(pem: Vec<u8>) -> Result<SharedHttpClient, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| format!("is not PEM: {e}"))?;
        roots.add(certificate).map_err(|e| format!("holds a certificate that cannot be read: {e}"))?;
    }
    if roots.is_empty() {
        return Err("holds no PEM certificate".into());
    }
    let context = TlsContext::builder()
        .with_trust_store(TrustStore::default().with_pem_certificate(pem))
        .build()
        .map_err(|e| format!("cannot be used: {e}"))?;
    Ok(aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(context).build_https())
}
