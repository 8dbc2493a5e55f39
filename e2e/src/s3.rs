//! A real S3 server as a test sees it: makes the bucket, lists, reads and overwrites objects behind the job's back.

use anyhow::{Context, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, ProvideCredentials, Region};
use aws_sdk_s3::primitives::ByteStream;

/// All tests share it; each has a prefix of its own.
pub const BUCKET: &str = "forebay-e2e";

/// One server.
pub struct S3 {
    /// Its URL.
    pub url: String,
    /// The key pair that it knows.
    pub access_key: String,
    /// The other half.
    pub secret_key: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl S3 {
    /// The one that the environment names; the bucket is there.
    pub fn of_environment() -> Result<Self> {
        Self::at(
            &crate::variable("FOREBAY_TEST_S3")?,
            &crate::variable("FOREBAY_TEST_S3_ACCESS_KEY")?,
            &crate::variable("FOREBAY_TEST_S3_SECRET_KEY")?,
        )
    }

    /// The one at a URL; the bucket is there.
    pub fn at(url: &str, access_key: &str, secret_key: &str) -> Result<Self> {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(url)
            .force_path_style(true)
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (url, access_key, secret_key) = (url.to_owned(), access_key.to_owned(), secret_key.to_owned());
        let server = Self { url, access_key, secret_key, client: Client::from_conf(config), runtime };
        server.make_bucket()?;
        Ok(server)
    }

    /// What a process needs to know to use the server.
    pub fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("FOREBAY_S3_ENDPOINT", self.url.as_str()),
            ("AWS_ACCESS_KEY_ID", self.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.as_str()),
            ("AWS_REGION", "us-east-1"),
        ]
    }

    /// A session of a role, as JSON that lends it to a container or an instance.
    pub fn session(&self, role: &str) -> Result<String> {
        self.runtime.block_on(async {
            let config = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new("us-east-1"))
                .endpoint_url(&self.url)
                .credentials_provider(Credentials::new(&self.access_key, &self.secret_key, None, None, "test"))
                .load()
                .await;
            let role = aws_config::sts::AssumeRoleProvider::builder(role).session_name("lent").configure(&config).build().await;
            let session = role.provide_credentials().await?;
            Ok(serde_json::json!({
                "Code": "Success",
                "AccessKeyId": session.access_key_id(),
                "SecretAccessKey": session.secret_access_key(),
                "Token": session.session_token().context("a session has a token")?,
                "Expiration": "2999-01-01T00:00:00Z",
            })
            .to_string())
        })
    }

    /// The keys below a prefix, in order.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut pages = self.client.list_objects_v2().bucket(BUCKET).prefix(prefix).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = self.runtime.block_on(pages.next()) {
            let page = page.with_context(|| format!("list {prefix}"))?;
            keys.extend(page.contents.into_iter().flatten().filter_map(|object| object.key));
        }
        Ok(keys)
    }

    /// An object's bytes.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        self.runtime.block_on(async {
            let got = self.client.get_object().bucket(BUCKET).key(key).send().await.with_context(|| format!("get {key}"))?;
            Ok(got.body.collect().await?.to_vec())
        })
    }

    /// Puts an object, whatever is there.
    pub fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        let put = self.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(bytes)).send();
        self.runtime.block_on(put).with_context(|| format!("put {key}"))?;
        Ok(())
    }

    /// Says who may do what with the bucket, in the language of S3's policies; what it said before is forgotten.
    pub fn set_policy(&self, policy: &serde_json::Value) -> Result<()> {
        let put = self.client.put_bucket_policy().bucket(BUCKET).policy(policy.to_string()).send();
        self.runtime.block_on(put).with_context(|| format!("set the policy {policy}"))?;
        Ok(())
    }

    fn make_bucket(&self) -> Result<()> {
        let made = self.runtime.block_on(self.client.create_bucket().bucket(BUCKET).send());
        match made {
            Ok(_) => Ok(()),
            Err(error) => match error.into_service_error() {
                known if known.is_bucket_already_exists() || known.is_bucket_already_owned_by_you() => Ok(()),
                other => Err(other).with_context(|| format!("make bucket {BUCKET} at {}", self.url)),
            },
        }
    }
}
