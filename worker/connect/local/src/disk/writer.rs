//! The end of the log: appends frames to the active segment, each durable before it returns, and rolls to the next one.
//!
//! The first error is the last thing that a writer does: what the file system made of it is not known, so nothing is written behind it
//! until the log is opened again and its end read back.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::format::{self, Snapshot};
use super::segment::Segment;

/// Appends to a log.
pub(crate) struct Writer {
    dir: PathBuf,
    active: Arc<Segment>,
    length: u64,
    /// A segment this long is followed by another one.
    segment_bytes: u64,
    failed: Option<String>,
}

impl Writer {
    /// Goes on behind `length` of the last segment.
    pub(crate) fn new(dir: PathBuf, active: Arc<Segment>, length: u64, segment_bytes: u64) -> Self {
        Self { dir, active, length, segment_bytes, failed: None }
    }

    /// The segment that frames go to.
    pub(crate) fn active(&self) -> &Arc<Segment> {
        &self.active
    }

    /// Why nothing can be written any more.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Goes on to the next segment when the active one is full. Returns it if so.
    pub(crate) fn roll(&mut self, snapshot: impl FnOnce() -> Snapshot) -> io::Result<Option<&Arc<Segment>>> {
        if self.length < self.segment_bytes {
            return Ok(None);
        }
        let next = self.active.number + 1;
        match self.active.check_in_place().and_then(|()| Segment::create(&self.dir, next, &snapshot())) {
            Ok((segment, length)) => {
                (self.active, self.length) = (segment, length);
                Ok(Some(&self.active))
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Writes a frame and makes it durable. Returns where it begins. Its head is filled in here.
    pub(crate) fn append(&mut self, frame: &mut [u8]) -> io::Result<u64> {
        assert!(self.failed.is_none(), "a failed log is not written to: {:?}", self.failed);
        let position = self.length;
        format::seal_frame(self.active.number, position, frame);
        let file = &self.active.file;
        if file.metadata()?.nlink() == 0 {
            return Err(self.fail(io::Error::other("the log's folder was removed while it was open")));
        }
        if let Err(error) = file.write_all_at(frame, position).and_then(|()| file.sync_data()) {
            // A frame that is in the file but was never acknowledged as durable must not be taken for one when the log is opened again: it
            // could be seen, and then be gone after a power failure. Should this fail too, whoever asked was told that the outcome is unknown.
            if let Err(error) = file.set_len(position).and_then(|()| file.sync_data()) {
                tracing::warn!(segment = %self.active.path.display(), position, %error, "could not take back a frame that failed to be written");
            }
            return Err(self.fail(error));
        }
        self.length += frame.len() as u64;
        Ok(position)
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.failed = Some(error.to_string());
        error
    }

    /// Makes every later write go to this file, to test what happens when it fails.
    #[cfg(test)]
    pub(crate) fn replace_file(&mut self, file: std::fs::File) {
        let Segment { number, path, .. } = &*self.active;
        self.active = Arc::new(Segment { number: *number, path: path.clone(), file });
    }
}
