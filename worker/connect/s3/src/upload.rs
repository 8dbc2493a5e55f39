//! Create-only puts: whole, or in parts when large. Both say `If-None-Match: *`, so that the server decides who was first.
//!
//! An upload in parts is invisible until it is completed, and is aborted when anything goes wrong.

use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::upload_part::UploadPartError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use bytes::Bytes;
use forebay_engine::store::{Body, Put, StoreError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};

use crate::content::{CRC32_METADATA, Content, Fingerprint, claimed_crc32};
use crate::refusal::Refused;
use crate::{Bucket, Encryption, PART_BYTES};

/// How often a put is begun anew because another one of the same key was under way: over 12 s, longer than two puts of a part take.
const CONFLICTS_MAX: u32 = 8;

/// The first pause after a conflict; doubles each time.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// S3's own limit.
const PARTS_OF_OBJECT_MAX: u64 = 10_000;

const CREATE_ONLY: &str = "*";

/// What the server said to one create-only put.
pub(crate) enum Answer {
    Created,
    /// There is an object of that name; perhaps our own, put by an attempt whose reply was lost.
    Exists,
    /// Another request for the same key was under way, so that nothing was decided.
    Conflict,
}

type PartSent = Result<CompletedPart, SdkError<UploadPartError, HttpResponse>>;

impl Bucket {
    pub(crate) async fn put(&self, key: &str, body: &Body) -> Result<Put, StoreError> {
        let content = Content::open(body).map_err(|e| self.unreadable(key, body, &e))?;
        let size = content.fingerprint.size;
        if size > PART_BYTES as u64 * PARTS_OF_OBJECT_MAX {
            let reason = format!("{size} bytes are more than {PARTS_OF_OBJECT_MAX} parts of {PART_BYTES} bytes, the most that S3 takes");
            return Err(StoreError::Denied { action: "put", key: self.url(key), reason });
        }
        for conflict in 0..CONFLICTS_MAX {
            let answer = if size <= PART_BYTES as u64 {
                self.put_whole(key, body, &content).await?
            } else {
                self.put_in_parts(key, body, &content).await?
            };
            let put = match answer {
                Answer::Created => Some(Put::Created),
                Answer::Exists => self.whose(key, content.fingerprint).await?,
                Answer::Conflict => None,
            };
            if let Some(put) = put {
                return Ok(put);
            }
            tokio::time::sleep(CONFLICT_PAUSE * 2u32.pow(conflict)).await;
        }
        Err(self.unavailable("put", key, format!("met another put or delete of the same key {CONFLICTS_MAX} times in a row")))
    }

    /// Whether the object that is there is what was to be put; `None` when there is none any more.
    async fn whose(&self, key: &str, ours: Fingerprint) -> Result<Option<Put>, StoreError> {
        match self.control.head_object().bucket(&self.name).key(self.full_key(key)).send().await {
            Ok(head) => {
                let size = head.content_length().and_then(|size| u64::try_from(size).ok());
                let same = size == Some(ours.size) && claimed_crc32(head.metadata()) == Some(ours.crc32);
                Ok(Some(if same { Put::Created } else { Put::AlreadyThere }))
            }
            Err(error) if Refused::of(&error).nothing_there() => Ok(None),
            // S3 counts a look at an object as a get: that is the permission to name.
            Err(error) => Err(self.refused("get", key, error)),
        }
    }

    async fn put_whole(&self, key: &str, body: &Body, content: &Content<'_>) -> Result<Answer, StoreError> {
        let _permit = self.part_permit().await;
        let bytes = content.read_part(0).map_err(|e| self.unreadable(key, body, &e))?;
        if crc32fast::hash(&bytes) != content.fingerprint.crc32 {
            return Err(self.changed(key));
        }
        let (encryption, kms_key) = self.encryption();
        let request = self.transfer.put_object().bucket(&self.name).key(self.full_key(key)).if_none_match(CREATE_ONLY);
        let request = request.metadata(CRC32_METADATA, content.fingerprint.crc32_text());
        let request = request.set_server_side_encryption(encryption).set_ssekms_key_id(kms_key);
        match request.body(ByteStream::from(bytes)).send().await {
            Ok(_) => Ok(Answer::Created),
            Err(error) => self.answer(key, error),
        }
    }

    async fn put_in_parts(&self, key: &str, body: &Body, content: &Content<'_>) -> Result<Answer, StoreError> {
        let upload = self.begin_parts(key, content.fingerprint).await?;
        let outcome = match self.upload_parts(key, &upload, body, content).await {
            Ok(parts) => self.complete_parts(key, &upload, parts).await,
            Err(error) => Err(error),
        };
        if !matches!(outcome, Ok(Answer::Created)) {
            self.abort_parts(key, &upload).await;
        }
        outcome
    }

    /// Returns the upload's id.
    pub(crate) async fn begin_parts(&self, key: &str, fingerprint: Fingerprint) -> Result<String, StoreError> {
        let (encryption, kms_key) = self.encryption();
        let request = self.control.create_multipart_upload().bucket(&self.name).key(self.full_key(key));
        let request = request.metadata(CRC32_METADATA, fingerprint.crc32_text());
        let request = request.set_server_side_encryption(encryption).set_ssekms_key_id(kms_key);
        let begun = request.send().await.map_err(|error| self.refused("put", key, error))?;
        begun.upload_id.ok_or_else(|| self.unavailable("put", key, "the server began an upload in parts without an id"))
    }

    /// Reads on the caller's thread, sends several parts at a time; a permit per part bounds the memory of all uploads together.
    async fn upload_parts(&self, key: &str, upload: &str, body: &Body, content: &Content<'_>) -> Result<Vec<CompletedPart>, StoreError> {
        let mut sending = JoinSet::new();
        let mut parts = Vec::new();
        let mut hasher = crc32fast::Hasher::new();
        for (number, offset) in (1..).zip(content.part_offsets()) {
            let permit = self.part_permit().await;
            while let Some(sent) = sending.try_join_next() {
                parts.push(self.joined(key, sent)?);
            }
            let bytes = content.read_part(offset).map_err(|e| self.unreadable(key, body, &e))?;
            hasher.update(&bytes);
            sending.spawn(self.part_request(key, upload, number, bytes, permit));
        }
        while let Some(sent) = sending.join_next().await {
            parts.push(self.joined(key, sent)?);
        }
        if hasher.finalize() != content.fingerprint.crc32 {
            return Err(self.changed(key));
        }
        parts.sort_by_key(|part| part.part_number);
        Ok(parts)
    }

    pub(crate) fn part_request(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        bytes: Bytes,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = PartSent> + use<> {
        let request = self.transfer.upload_part().bucket(&self.name).key(self.full_key(key)).upload_id(upload).part_number(number);
        async move {
            let sent = request.body(ByteStream::from(bytes)).send().await?;
            drop(permit);
            Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build())
        }
    }

    fn joined(&self, key: &str, sent: Result<PartSent, JoinError>) -> Result<CompletedPart, StoreError> {
        match sent {
            Ok(outcome) => outcome.map_err(|error| self.refused("put", key, error)),
            Err(lost) => std::panic::resume_unwind(lost.into_panic()),
        }
    }

    pub(crate) async fn complete_parts(&self, key: &str, upload: &str, parts: Vec<CompletedPart>) -> Result<Answer, StoreError> {
        // With the time of a transfer: the server puts the parts together now.
        let request = self.transfer.complete_multipart_upload().bucket(&self.name).key(self.full_key(key)).upload_id(upload);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        match request.if_none_match(CREATE_ONLY).multipart_upload(parts).send().await {
            Ok(_) => Ok(Answer::Created),
            // A first attempt may have completed it, and its reply was lost.
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(Answer::Exists),
            Err(error) => self.answer(key, error),
        }
    }

    /// Best effort: what remains is for the bucket's lifecycle rule.
    pub(crate) async fn abort_parts(&self, key: &str, upload: &str) {
        let request = self.control.abort_multipart_upload().bucket(&self.name).key(self.full_key(key)).upload_id(upload);
        if let Err(error) = request.send().await
            && error.code() != Some("NoSuchUpload")
        {
            let error = self.refused("abort the upload of", key, error);
            tracing::warn!(%error, upload, "parts of an upload stay behind until the bucket's lifecycle rule removes them");
        }
    }

    pub(crate) async fn part_permit(&self) -> OwnedSemaphorePermit {
        self.parts.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Sorts out the errors that a create-only put is meant to meet.
    fn answer<E: ProvideErrorMetadata + std::error::Error + 'static>(
        &self,
        key: &str,
        error: SdkError<E, HttpResponse>,
    ) -> Result<Answer, StoreError> {
        let refused = Refused::of(&error);
        if refused.precondition_failed() {
            Ok(Answer::Exists)
        } else if refused.conflict() {
            Ok(Answer::Conflict)
        } else {
            Err(self.refused("put", key, error))
        }
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.encryption {
            Encryption::BucketDefault => (None, None),
            Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
            Encryption::Kms { key_id } => (Some(ServerSideEncryption::AwsKms), Some(key_id.clone())),
        }
    }

    fn unreadable(&self, key: &str, body: &Body, error: &std::io::Error) -> StoreError {
        let from = match body {
            Body::Bytes(_) => "memory".to_owned(),
            Body::File(path) => path.display().to_string(),
            Body::Pack(paths) => format!("{} small files", paths.len()),
        };
        self.unavailable("put", key, format!("cannot read {from}: {error}"))
    }

    fn changed(&self, key: &str) -> StoreError {
        self.unavailable("put", key, "the file changed while it was uploaded")
    }
}
