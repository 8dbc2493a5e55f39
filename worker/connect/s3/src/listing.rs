//! Lists and deletes, in pages of a thousand keys.

use std::sync::atomic::Ordering;

use aws_sdk_s3::types::{Delete, Object, ObjectIdentifier};
use forebay_engine::ids::Timestamp;
use forebay_engine::store::{ObjectInfo, StoreError};

use crate::Bucket;
use crate::refusal::Refused;

/// S3's own limit for one request.
const DELETES_OF_REQUEST_MAX: usize = 1000;

impl Bucket {
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let request = self.control.list_objects_v2().bucket(&self.name).prefix(self.full_key(prefix));
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.refused("list", prefix, error))?;
            for object in page.contents() {
                found.push(self.row(object).map_err(|missing| self.unavailable("list", prefix, missing))?);
            }
        }
        // S3 sorts, some of its kin do not.
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// A row that lacks something is an error: with an age of zero the collector would take a new object for garbage.
    fn row(&self, object: &Object) -> Result<ObjectInfo, String> {
        let full = object.key().ok_or("the server listed an object without a key")?;
        let key = full.strip_prefix(&self.root).ok_or_else(|| format!("the server listed {full}, which is not below {}", self.root))?;
        let size =
            object.size().and_then(|size| u64::try_from(size).ok()).ok_or_else(|| format!("the server listed {full} without a size"))?;
        let modified = object.last_modified().and_then(|time| time.to_millis().ok());
        let modified = modified.ok_or_else(|| format!("the server listed {full} without a time"))?;
        Ok(ObjectInfo { key: key.to_owned(), size, modified: Timestamp::from_millis(modified) })
    }

    pub(crate) async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        for batch in keys.chunks(DELETES_OF_REQUEST_MAX) {
            if self.single_deletes.load(Ordering::Relaxed) {
                self.delete_singly(batch.iter()).await?;
            } else {
                self.delete_batch(batch).await?;
            }
        }
        Ok(())
    }

    /// What the server did not delete in the batch is deleted singly: with attempts of its own, and an error of its own.
    async fn delete_batch(&self, keys: &[String]) -> Result<(), StoreError> {
        let identifiers = keys.iter().map(|key| ObjectIdentifier::builder().key(self.full_key(key)).build().expect("it has a key"));
        let delete = Delete::builder().set_objects(Some(identifiers.collect())).quiet(true).build().expect("it has objects");
        let answer = match self.control.delete_objects().bucket(&self.name).delete(delete).send().await {
            Ok(answer) => answer,
            Err(error) if Refused::of(&error).unknown_request() => {
                tracing::info!(bucket = self.name, "the server cannot delete in batches; objects are deleted singly");
                self.single_deletes.store(true, Ordering::Relaxed);
                return self.delete_singly(keys.iter()).await;
            }
            Err(error) => return Err(self.refused("delete", &keys[0], error)),
        };
        let refused: Vec<&str> = answer.errors().iter().filter_map(|error| error.key()).collect();
        self.delete_singly(keys.iter().filter(|key| refused.contains(&self.full_key(key).as_str()))).await
    }

    async fn delete_singly(&self, keys: impl Iterator<Item = &String>) -> Result<(), StoreError> {
        for key in keys {
            match self.control.delete_object().bucket(&self.name).key(self.full_key(key)).send().await {
                Ok(_) => {}
                Err(error) => match self.refused("delete", key, error) {
                    StoreError::NotFound { .. } => {}
                    other => return Err(other),
                },
            }
        }
        Ok(())
    }
}
