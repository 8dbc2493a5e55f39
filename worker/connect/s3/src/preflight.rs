//! Finds out before a job starts whether the store does what the engine relies on; everything else would fail in the middle of the night.

use bytes::Bytes;
use forebay_engine::store::{Body, Put, StoreError};
use uuid::Uuid;

use crate::Bucket;
use crate::content::Fingerprint;

const FIRST: &[u8] = b"first";
const SECOND: &[u8] = b"second";

impl Bucket {
    pub(crate) async fn preflight(&self) -> Result<(), StoreError> {
        let folder = format!(".preflight/{}/", Uuid::new_v4());
        let key = format!("{folder}probe");
        // First a request whose answer names a missing bucket or wrong credentials in its body.
        self.list(&folder).await?;
        let probed = self.probe(&folder, &key).await;
        let deleted = self.delete(std::slice::from_ref(&key)).await;
        probed.and(deleted)?;
        match self.get(&key).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(other) => Err(other),
            Ok(_) => Err(self.unusable(&key, "an object that was deleted is still there")),
        }
    }

    async fn probe(&self, folder: &str, key: &str) -> Result<(), StoreError> {
        if self.put(key, &Body::Bytes(FIRST.to_vec())).await? != Put::Created {
            return Err(self.unusable(key, "a new object is said to be there already"));
        }
        let listed = self.list(folder).await?;
        if listed.iter().map(|object| (object.key.as_str(), object.size)).ne([(key, FIRST.len() as u64)]) {
            return Err(self.unusable(key, "an object that was just put is not listed as it is"));
        }
        if self.put(key, &Body::Bytes(SECOND.to_vec())).await? == Put::Created || self.get(key).await? != FIRST {
            return Err(self.unusable(key, "a put with If-None-Match replaced an object; the server must honour conditional puts"));
        }
        if self.put(key, &Body::Bytes(FIRST.to_vec())).await? != Put::Created {
            return Err(self.unusable(key, "metadata of an object is lost, by which a put whose reply was lost is recognised"));
        }
        self.complete_over(key).await?;
        if self.get(key).await? != FIRST {
            let reason = "an upload in parts with If-None-Match replaced an object; the server must honour it in CompleteMultipartUpload";
            return Err(self.unusable(key, reason));
        }
        Ok(())
    }

    /// Tries to put an upload of one part over the object. Whether it worked is seen in the object.
    async fn complete_over(&self, key: &str) -> Result<(), StoreError> {
        let fingerprint = Fingerprint { size: SECOND.len() as u64, crc32: crc32fast::hash(SECOND) };
        let upload = self.begin_parts(key, fingerprint).await?;
        let permit = self.part_permit().await;
        let sent = self.part_request(key, &upload, 1, Bytes::from_static(SECOND), permit).await;
        let done = match sent {
            Ok(part) => self.complete_parts(key, &upload, vec![part]).await,
            Err(error) => Err(self.refused("put", key, error)),
        };
        self.abort_parts(key, &upload).await;
        done.map(drop)
    }

    fn unusable(&self, key: &str, reason: &str) -> StoreError {
        StoreError::Denied { action: "check", key: self.url(key), reason: format!("{reason}; this store cannot be used") }
    }
}
