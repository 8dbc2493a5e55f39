//! Reading objects, whole. A body that breaks off, or whose bytes do not have the checksum in the object's metadata, is asked for again.
//!
//! An object that is altered for good: `get` fails, for its callers have no other check. `download` hands it over with a warning, for its
//! caller holds the checksum that counts (in the manifest) and falls back to an older checkpoint, which it would not do on `Unavailable`.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use forebay_engine::store::{Downloaded, StoreError};

use crate::content::claimed_crc32;
use crate::refusal::causes;
use crate::{Bucket, patience};

/// The pause before a body is asked for again; doubles each time.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// An object that `get` may hold in memory: far above any manifest (I9).
const GET_BYTES_MAX: u64 = 256 << 20;

/// Where a body goes.
trait Sink: Write {
    /// Forgets what came before a body broke off.
    fn restart(&mut self) -> io::Result<()>;
    /// The most that it takes.
    const BYTES_MAX: u64;
}

impl Sink for Vec<u8> {
    const BYTES_MAX: u64 = GET_BYTES_MAX;

    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Sink for File {
    const BYTES_MAX: u64 = u64::MAX;

    fn restart(&mut self) -> io::Result<()> {
        self.set_len(0)?;
        self.rewind()
    }
}

/// How a body arrived.
enum Arrived {
    /// All of it.
    Whole(Downloaded),
    /// All of it, but not with the checksum that it was put with.
    Altered(Downloaded),
    /// Not all of it.
    Broken(String),
}

/// What all attempts together brought.
enum Fetched {
    Intact(Downloaded),
    Altered(Downloaded),
}

const ALTERED: &str = "its bytes do not have the checksum that it was stored with";

impl Bucket {
    pub(crate) async fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        match self.fetch("get", key, &mut bytes).await? {
            Fetched::Intact(_) => Ok(bytes),
            Fetched::Altered(_) => Err(self.unavailable("get", key, ALTERED)),
        }
    }

    /// Leaves no part of a file behind when it fails.
    pub(crate) async fn download(&self, key: &str, to: &Path) -> Result<Downloaded, StoreError> {
        let unwritable = |e: io::Error| {
            self.unavailable(
                "download",
                key,
                format!("cannot write {}: {e}; free some space there, or name another state folder", to.display()),
            )
        };
        let mut file = File::create(to).map_err(unwritable)?;
        let fetched = self.fetch("download", key, &mut file).await;
        let fetched = fetched.and_then(|fetched| file.sync_all().map(|()| fetched).map_err(unwritable));
        match fetched {
            Ok(Fetched::Intact(downloaded)) => Ok(downloaded),
            Ok(Fetched::Altered(downloaded)) => {
                tracing::warn!(object = self.url(key), "{ALTERED}");
                Ok(downloaded)
            }
            Err(error) => {
                if let Err(error) = std::fs::remove_file(to) {
                    tracing::warn!(%error, file = %to.display(), "a download that failed leaves its file behind");
                }
                Err(error)
            }
        }
    }

    async fn fetch<S: Sink>(&self, action: &'static str, key: &str, sink: &mut S) -> Result<Fetched, StoreError> {
        let mut pause = RETRY_PAUSE;
        for attempt in 1.. {
            // The SDK has its own attempts until a body begins, and none from there on.
            let request = self.control.get_object().bucket(&self.name).key(self.full_key(key));
            let answer = request.send().await.map_err(|error| self.refused(action, key, error))?;
            let last = attempt >= self.attempts;
            let reason = match self.receive(action, key, answer, sink).await? {
                Arrived::Whole(whole) => return Ok(Fetched::Intact(whole)),
                Arrived::Altered(whole) if last => return Ok(Fetched::Altered(whole)),
                Arrived::Altered(_) => ALTERED.to_owned(),
                Arrived::Broken(reason) if last => return Err(self.unavailable(action, key, reason)),
                Arrived::Broken(reason) => reason,
            };
            tracing::warn!(object = self.url(key), attempt, reason, "an object did not arrive as it was put and is asked for again");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    async fn receive<S: Sink>(
        &self,
        action: &'static str,
        key: &str,
        answer: GetObjectOutput,
        sink: &mut S,
    ) -> Result<Arrived, StoreError> {
        let Some(size) = answer.content_length().and_then(|size| u64::try_from(size).ok()) else {
            return Ok(Arrived::Broken("the server does not say how long it is".into()));
        };
        if size > S::BYTES_MAX {
            let reason = format!("{size} bytes are more than the {} that are read into memory", S::BYTES_MAX);
            return Err(StoreError::Denied { action, key: self.url(key), reason });
        }
        let unwritable = |e: io::Error| {
            self.unavailable(action, key, format!("cannot write what arrives: {e}; free some space, or name another state folder"))
        };
        sink.restart().map_err(unwritable)?;
        let expected_crc32 = claimed_crc32(answer.metadata());
        let mut hasher = crc32fast::Hasher::new();
        let mut received = 0;
        let mut body = answer.body;
        let deadline = tokio::time::Instant::now() + patience(self.attempt_timeout, size);
        loop {
            match tokio::time::timeout_at(deadline, body.try_next()).await {
                Ok(Ok(Some(bytes))) => {
                    sink.write_all(&bytes).map_err(unwritable)?;
                    hasher.update(&bytes);
                    received += bytes.len() as u64;
                }
                Ok(Ok(None)) if received == size => break,
                Ok(Ok(None)) => return Ok(Arrived::Broken(format!("broke off after {received} of {size} bytes"))),
                Ok(Err(error)) => return Ok(Arrived::Broken(format!("broke off after {received} of {size} bytes: {}", causes(&error)))),
                Err(_) => return Ok(Arrived::Broken(format!("too slow: {received} of {size} bytes when its time was over"))),
            }
        }
        let downloaded = Downloaded { size, crc32: hasher.finalize() };
        let altered = expected_crc32.is_some_and(|crc32| crc32 != downloaded.crc32);
        Ok(if altered { Arrived::Altered(downloaded) } else { Arrived::Whole(downloaded) })
    }
}
