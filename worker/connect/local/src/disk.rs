//! The embedded log: all topics of a folder in one write-ahead log, one frame and one fsync per transaction.
//!
//! What a transaction puts out, its journal records and its offsets are one frame, so that it is there whole or not at all, and nobody
//! ever sees an open or aborted one. Who commits, bars or makes a topic takes the writer's turn: guards are checked, offsets given, the
//! frame written and made durable, and only then shown to readers.
//!
//! Space is given back in whole segments, once nothing in them is needed: cut journals and deleted records free it, and records that are
//! kept hold up what lies in their segment.

mod draft;
mod format;
mod lock;
mod positions;
mod segment;
mod state;
mod tools;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use forebay_engine::log::{LogError, TopicInfo};
use forebay_engine::record::Header;

pub(crate) use draft::Draft;
pub(crate) use format::{BatchHead, Change, CommittedOffset, RecordParts, TopicNumber, record_bytes, take_record};
use lock::FolderLock;
use segment::Segment;
use state::BatchPlace;
pub(crate) use state::{State, Topic};
pub(crate) use tools::missing_partition;
pub use tools::{GroupOffset, NewRecord, TopicWriter};
use writer::Writer;

use crate::durable::{create_durably, sync_folder};

/// The largest record: Kafka's default `message.max.bytes`, so that what runs here runs there.
pub const RECORD_BYTES_MAX: usize = 1_048_588;

/// The largest frame, that is transaction. Epochs are limited far below it (I9); lengths on disk are 32 bits.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// When a segment is full: large enough that a year of records needs few open files, small enough to give space back.
const SEGMENT_BYTES: u64 = 128 << 20;

/// Why a log folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("open log {}: {holder} has it open, by {}; one process at a time: stop that one first", dir.display(), lock.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The lock file.
        lock: PathBuf,
        /// The other process, such as `process 4711`; `another process` when the lock file does not name it yet.
        holder: String,
    },
    /// The file system refused.
    #[error("open log: {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
    /// A file is damaged in a way that no crash explains. Nothing was changed.
    #[error("open log: {} at byte {position}: {reason}; restore the folder from a backup, or begin a new one", path.display())]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        reason: String,
    },
}

impl OpenError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The log in a folder, open. Clones are the same log; it is closed, and its lock given up, with the last one of them.
#[derive(Clone)]
pub struct LogFolder {
    shared: Arc<Shared>,
}

/// What the handles of one open log share. Locks are taken in the order writer, state.
struct Shared {
    dir: PathBuf,
    writer: Mutex<Writer>,
    state: Mutex<State>,
    /// Records were added, or deleted.
    news: Condvar,
    /// Last, so that the files are closed before another process is let in.
    _lock: FolderLock,
}

impl LogFolder {
    /// Opens the log in a folder, which is made if it is not there. Within a process all opens of one folder give the same log. A torn write
    /// at its end, left by a crash, is cut off.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(dir, SEGMENT_BYTES)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    pub(crate) fn open_with(dir: &Path, segment_bytes: u64) -> Result<Self, OpenError> {
        create_durably(dir).map_err(OpenError::io("create", dir))?;
        let dir = dir.canonicalize().map_err(OpenError::io("find", dir))?;
        let shared = lock::open_once(&dir, |lock| Shared::load(dir.clone(), segment_bytes, lock))?;
        Ok(Self { shared })
    }

    /// What is known. Never held while the disk is used.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect(NO_PANIC)
    }

    /// Told of whenever records are added or deleted, or a topic is.
    pub(crate) fn news(&self) -> &Condvar {
        &self.shared.news
    }

    /// Writes one frame: the draft and what `plan` adds to it. `plan` sees the state that the frame follows, and may refuse. Returns the
    /// batches' heads, with their offsets, when all of it is durable. Nothing is written for an empty draft.
    pub(crate) fn append(
        &self,
        action: &str,
        mut draft: Draft,
        plan: impl FnOnce(&State, &mut Draft) -> Result<(), LogError>,
    ) -> Result<Vec<BatchHead>, LogError> {
        let mut writer = self.shared.writer.lock().expect(NO_PANIC);
        let ends = {
            let state = self.state();
            plan(&state, &mut draft)?;
            partition_ends(action, &state, &draft)?
        };
        if draft.is_empty() {
            return Ok(Vec::new());
        }
        let frame = draft.into_frame(ends);
        if frame.bytes.len() > FRAME_BYTES_MAX {
            let reason = format!("{} bytes in one transaction are more than {FRAME_BYTES_MAX}; make epochs smaller", frame.bytes.len());
            return Err(LogError::Rejected { action: action.to_owned(), reason });
        }
        self.write(&mut writer, frame).map_err(|reason| self.not_written(action, &reason))
    }

    /// Why nothing more is written, if so. `None` as well while a write is on its way.
    pub(crate) fn failure(&self) -> Option<LogError> {
        let writer = self.shared.writer.try_lock().ok()?;
        writer.failure().map(|reason| self.not_written("use the embedded log", reason))
    }

    fn not_written(&self, action: &str, reason: &str) -> LogError {
        let way_out = "free some space or mend the disk, then start again: no more is written until every user of the log has closed it";
        LogError::Unavailable { action: action.to_owned(), reason: format!("write {}: {reason}; {way_out}", self.dir().display()) }
    }

    /// Reads a batch's records into `records`, which they replace. `Err` says what the disk said.
    pub(crate) fn read_batch(&self, place: &BatchPlace, records: &mut Vec<u8>) -> Result<(), String> {
        place.segment.read(place.position, place.length, records).map_err(|error| format!("read {}: {error}", place.segment.path.display()))
    }

    /// Writes a frame and, once it is durable, shows it. `Err` says what the disk said, now or when it first failed.
    fn write(&self, writer: &mut Writer, mut frame: draft::Frame) -> Result<Vec<BatchHead>, String> {
        if let Some(failure) = writer.failure() {
            return Err(format!("an earlier write failed: {failure}"));
        }
        let rolled = writer.roll(|| self.state().snapshot()).map_err(|error| error.to_string())?.cloned();
        let position = writer.append(&mut frame.bytes).map_err(|error| error.to_string())?;
        let segment = writer.active();
        let mut state = self.state();
        if let Some(rolled) = &rolled {
            state.add_segment(rolled);
        }
        const FOLLOWS: &str = "the frame was planned on this very state";
        for change in frame.changes {
            state.apply(change).expect(FOLLOWS);
        }
        for (head, place) in &frame.batches {
            state.add_batch(head, segment, position + place.start as u64, place.len()).expect(FOLLOWS);
        }
        let dead = state.take_dead_segments(segment.number);
        drop(state);
        self.shared.news.notify_all();
        remove_segments(&self.shared.dir, &dead);
        Ok(frame.batches.into_iter().map(|(head, _)| head).collect())
    }
}

impl Shared {
    /// Reads the folder's segments, cuts off a torn end, and begins the first segment of a new log.
    fn load(dir: PathBuf, segment_bytes: u64, lock: FolderLock) -> Result<Self, OpenError> {
        let mut state = State::default();
        let numbers = segment::list(&dir)?;
        let mut end = None;
        for number in &numbers {
            let segment = Segment::open(&dir, *number)?;
            state.add_segment(&segment);
            let last = Some(number) == numbers.last();
            let length = segment.scan(last, &mut |position, body| replay(&mut state, &segment, position, body))?;
            if last {
                seal_end(&segment, length)?;
                end = Some((segment, length));
            }
        }
        state.check_complete().map_err(|reason| OpenError::Corrupt { path: dir.clone(), position: 0, reason })?;
        let (active, length) = match end {
            Some(end) => end,
            None => {
                let (segment, length) = Segment::create(&dir, 0, &state.snapshot()).map_err(OpenError::io("begin a log in", &dir))?;
                state.add_segment(&segment);
                (segment, length)
            }
        };
        remove_segments(&dir, &state.take_dead_segments(active.number));
        let writer = Mutex::new(Writer::new(dir.clone(), active, length, segment_bytes));
        Ok(Self { dir, writer, state: Mutex::new(state), news: Condvar::new(), _lock: lock })
    }
}

pub(crate) const NO_PANIC: &str = "nothing panics while it holds the log, unless an invariant is broken; then nothing may go on";

/// What a topic that is not there is called in errors.
pub(crate) fn missing_topic(action: String, topic: &str) -> LogError {
    let way_out = format!("make it with its records: `forebay log produce --topic {topic} --partitions N`");
    LogError::Missing { action, what: format!("topic {topic}"), way_out }
}

/// What the log says of a topic.
pub(crate) fn topic_info(topic: &Topic) -> TopicInfo {
    TopicInfo { name: topic.name.clone(), id: topic.id.clone(), partitions: topic.partitions.len() as u32 }
}

/// Refuses a record that Kafka would refuse.
pub(crate) fn check_record(
    action: impl Fn() -> String,
    topic: &str,
    record: &RecordParts<'_>,
    headers: &[Header<'_>],
) -> Result<(), LogError> {
    let bytes = record_bytes(record, headers);
    if bytes > RECORD_BYTES_MAX {
        let reason = format!("a record of {bytes} bytes for {topic} is larger than {RECORD_BYTES_MAX}, Kafka's default limit");
        return Err(LogError::Rejected { action: action(), reason });
    }
    Ok(())
}

/// Where the draft's partitions end now. A topic may have been deleted while the draft was made.
fn partition_ends(action: &str, state: &State, draft: &Draft) -> Result<BTreeMap<(TopicNumber, u32), u64>, LogError> {
    let mut ends = BTreeMap::new();
    for (number, partition) in draft.partitions() {
        let index = state.topic_numbered(number).and_then(|topic| topic.partitions.get(partition as usize));
        let Some(index) = index else {
            let what = "a topic that records were made for".to_owned();
            return Err(LogError::Missing {
                action: action.to_owned(),
                what,
                way_out: "it was deleted a moment ago; make it again".to_owned(),
            });
        };
        ends.insert((number, partition), index.next);
    }
    Ok(ends)
}

fn replay(state: &mut State, segment: &Arc<Segment>, position: u64, body: &[u8]) -> Result<(), String> {
    for entry in format::entries(body).map_err(|e| e.to_string())? {
        match entry {
            format::Entry::Change(change) => state.apply(change)?,
            format::Entry::Batch(head, place) => state.add_batch(&head, segment, position + place.start as u64, place.len())?,
        }
    }
    Ok(())
}

/// Cuts off a torn write, and makes the rest durable before anybody sees it: its writer may have been killed before its own fsync.
fn seal_end(segment: &Segment, length: u64) -> Result<(), OpenError> {
    let on_disk = segment.file.metadata().map_err(OpenError::io("measure", &segment.path))?.len();
    if on_disk > length {
        let torn_bytes = on_disk - length;
        tracing::warn!(segment = %segment.path.display(), position = length, torn_bytes, "cut off a write that a crash left unfinished");
        segment.file.set_len(length).map_err(OpenError::io("cut off the torn end of", &segment.path))?;
    }
    segment.file.sync_all().map_err(OpenError::io("sync", &segment.path))
}

/// Gives back the space of segments. One that cannot be removed now goes the next time the log is opened.
fn remove_segments(dir: &Path, segments: &[Arc<Segment>]) {
    for segment in segments {
        if let Err(error) = std::fs::remove_file(&segment.path) {
            tracing::warn!(segment = %segment.path.display(), %error, "could not remove a segment that is not needed any more");
        }
    }
    if !segments.is_empty()
        && let Err(error) = sync_folder(dir)
    {
        tracing::warn!(folder = %dir.display(), %error, "could not sync the folder of removed segments");
    }
}

#[cfg(test)]
mod tests;
