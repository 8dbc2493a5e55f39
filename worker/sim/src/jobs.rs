//! What helper tasks do: the worker runtime's part around the engine's functions, in the same order of calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::claim::{Claimed, ManifestMark, Scan};
use forebay_engine::failure::Failure;
use forebay_engine::ids::{Incarnation, JournalOffset, Revision, ShardId, Timeline};
use forebay_engine::journal;
use forebay_engine::log::{JournalEntry, JournalRange, LogError, View};
use forebay_engine::manifest::{Manifest, ManifestFile, RetainedCheckpoint, manifest_key, manifest_prefix, parse_manifest_key};
use forebay_engine::restore::{ImportError, RestoreError, RestoreNote, RestorePorts, go_on, restore};
use forebay_engine::shard::Shard;
use forebay_engine::snapshot::{ChecksumFile, KnownFiles, Upload, find_garbage};
use forebay_engine::state::{Checkpointer, StateError, StateStore};
use forebay_engine::store::{Body, Downloaded, ObjectInfo, ObjectStore, Put, StoreError};
use forebay_engine::worker::{Attempt, Event, Sight};

use crate::disk::{Disk, FileData, SimState};
use crate::mutant::{Mutant, is};
use crate::pipeline::Counting;
use crate::store::{Content, part_of};
use crate::task::{Answer, Call, Outcome, Remote};
use crate::world::Setup;

mod genesis;
mod savepoint;

pub use genesis::LogFacts;
use genesis::genesis;

/// What the pipeline is.
const REVISION: &str = "r1";

/// Small enough that some table files have an object of their own: a table of two entries has more bytes.
const PACKED_BYTES_MAX: u64 = 64;

/// One shard's attempt, and its way to the world.
pub struct Job<'a> {
    /// The way to the log and the store.
    pub remote: &'a Remote,
    /// The shard.
    pub shard: ShardId,
    /// Its attempt.
    pub attempt: Attempt,
    /// The worker's disk.
    pub disk: Disk,
}

/// What a snapshot needs to know.
pub struct SnapshotPlan {
    /// A name that never comes twice.
    pub unique: String,
    /// Who takes it.
    pub incarnation: Incarnation,
    /// The current list.
    pub retained: Vec<RetainedCheckpoint>,
    /// How old garbage must be.
    pub grace: Duration,
}

impl Job<'_> {
    /// See [`forebay_engine::worker::Action::ReadManifest`].
    pub fn read_manifest(&self) -> Outcome {
        self.claim_event(
            newest_manifest(self).map(|manifest| Event::ManifestRead(self.shard, self.attempt, manifest.as_ref().map(ManifestMark::from))),
        )
    }

    /// See [`forebay_engine::worker::Action::Scan`].
    pub fn scan(&self, from: JournalOffset, view: View) -> Outcome {
        let view = if is(Mutant::ReleaseUncommitted) { View::Uncommitted } else { view };
        match self.scan_journal(from, view) {
            Err(LogError::Cut { start, .. }) if is(Mutant::NoGap) => {
                self.claim_event(self.scan_journal(JournalOffset::new(start), view).map(|(scan, range)| self.scanned(scan, range)))
            }
            Err(LogError::Cut { start, .. }) => Outcome::Say(Box::new(Event::Cut(self.shard, self.attempt, JournalOffset::new(start)))),
            scanned => self.claim_event(scanned.map(|(scan, range)| self.scanned(scan, range))),
        }
    }

    /// See [`forebay_engine::worker::Action::Bar`].
    pub fn bar(&self, incarnation: Incarnation) -> Outcome {
        let barred = if is(Mutant::NoBar) { Ok(()) } else { log_done(self.remote.call(Call::Bar(incarnation.clone()))) };
        Outcome::Say(Box::new(match barred {
            Ok(()) => Event::Barred(incarnation),
            Err(error) => Event::BarFailed(incarnation, error.into()),
        }))
    }

    /// See [`forebay_engine::worker::Action::Restore`]. `log` is what the log says when the restore begins.
    pub fn restore(&self, claimed: &Claimed, log: &LogFacts, setup: &Setup) -> Outcome {
        let ids = [&log.input, &log.journal].map(|topic| topic.id.clone());
        let mut ports = Ports { job: self, timeline: claimed.owner().timeline, topic_ids: ids.clone() };
        let restored = match restore(&mut ports, self.shard) {
            Ok(restored) => restored,
            Err(RestoreError::Outrun) => return Outcome::Say(Box::new(Event::RestoreOutrun(self.shard, self.attempt))),
            Err(error) => return self.claim_event(Err(error)),
        };
        let head = match restored.head {
            Some(head) => go_on(head, &Revision::new(REVISION), setup.shards, std::slice::from_ref(&log.input), ids.to_vec()),
            None => genesis(claimed, log, setup.shards, ids.to_vec()),
        };
        let head = match head {
            Ok(head) => head,
            Err(failure) => return self.claim_event(Err(failure)),
        };
        let scan = if is(Mutant::NoVerify) {
            Ok((Scan::default(), JournalRange { start: JournalOffset::new(0), end: JournalOffset::new(0) }))
        } else {
            self.scan_journal(claimed.offset(), View::Uncommitted)
        };
        let scan = match scan {
            Ok((scan, _)) => scan,
            Err(LogError::Cut { .. }) => return Outcome::Say(Box::new(Event::RestoreOutrun(self.shard, self.attempt))),
            Err(error) => return self.claim_event(Err(error)),
        };
        let shard = Shard::new(Counting, restored.store, head.clone(), setup.cache_bytes_max);
        let shard = shard.with_journal_chunks(setup.journal_chunk_bytes);
        Outcome::Adopt(Box::new(shard), Box::new(Event::Restored(self.shard, self.attempt, Box::new(head), scan)))
    }

    /// See [`forebay_engine::worker::Action::Look`].
    pub fn look(&self, from: JournalOffset) -> Outcome {
        let sight = match self.remote.call(Call::Range) {
            Answer::Range(range) if range.end > from => match self.scan_journal(from, View::Uncommitted) {
                Ok((scan, range)) => Sight::Records(scan, range.end),
                Err(LogError::Cut { .. }) => Sight::Cut,
                Err(_) => Sight::Nothing,
            },
            _ => Sight::Nothing,
        };
        Outcome::Say(Box::new(Event::Looked(self.shard, self.attempt, sight)))
    }

    /// A checkpoint: taken, uploaded, told; then garbage is looked for.
    pub fn snapshot(&self, checkpointer: Checkpointer, plan: &SnapshotPlan) -> Outcome {
        let _ = self.try_snapshot(checkpointer, plan);
        Outcome::Nothing
    }

    fn try_snapshot(&self, checkpointer: Checkpointer, plan: &SnapshotPlan) -> Result<(), String> {
        let folder = PathBuf::from(format!("checkpoint-{}", plan.unique));
        let checkpoint = checkpointer(&folder).map_err(|e| e.to_string())?;
        let mut listed = Vec::new();
        for retained in &plan.retained {
            match decode(self, &manifest_key(self.shard, retained.epoch, &retained.incarnation)) {
                Ok(manifest) => listed.push(manifest),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let all_known = listed.len() == plan.retained.len();
        let known = listed.last().map(KnownFiles::of).unwrap_or_default();
        let mut number = 0;
        let mut unique = || {
            number += 1;
            if is(Mutant::FileIdTwice) { number.to_string() } else { format!("{}-{number}", plan.unique) }
        };
        let mut checksum = Checksums(&self.disk);
        let (known, taken_by, packed_bytes_max) = (&known, &plan.incarnation, PACKED_BYTES_MAX);
        let upload = Upload { store: self, checksum: &mut checksum, known, taken_by, unique: &mut unique, packed_bytes_max };
        let manifest = upload.run(&folder, &checkpoint).map_err(|e| e.to_string())?;
        self.remote.say(Event::CheckpointUploaded(self.shard, self.attempt, manifest.retained()));
        listed.push(manifest);
        if !all_known {
            return Ok(());
        }
        let garbage = find_garbage(self, self.shard, &listed, plan.grace, 50).map_err(|e| e.to_string())?;
        if is(Mutant::DeleteAtOnce) {
            let _ = self.delete(&garbage);
        }
        let named = listed.iter().map(Manifest::retained).collect();
        self.remote.say(Event::GarbageFound(self.shard, self.attempt, named, garbage));
        Ok(())
    }

    /// See [`forebay_engine::worker::Action::Discard`].
    pub fn discard(&self, before: Option<JournalOffset>, objects: &[String]) -> Outcome {
        if let Some(before) = before {
            let _ = self.remote.call(Call::Cut(before));
        }
        if !objects.is_empty() {
            let _ = self.delete(objects);
        }
        Outcome::Nothing
    }

    fn claim_event(&self, event: Result<Event, impl Into<Failure>>) -> Outcome {
        Outcome::Say(Box::new(event.unwrap_or_else(|error| Event::ClaimFailed(self.shard, self.attempt, error.into()))))
    }

    fn scanned(&self, scan: Scan, range: JournalRange) -> Event {
        Event::Scanned(self.shard, self.attempt, scan, range)
    }

    fn scan_journal(&self, from: JournalOffset, view: View) -> Result<(Scan, JournalRange), LogError> {
        let mut scan = Scan::default();
        let (entries, range) = self.journal(from, view)?;
        for entry in &entries {
            scan.add(entry.offset, &journal::head(entry).expect("the simulated log keeps bytes as they are"));
        }
        Ok((scan, range))
    }

    fn journal(&self, from: JournalOffset, view: View) -> Result<(Vec<JournalEntry>, JournalRange), LogError> {
        match self.remote.call(Call::Journal(from, view)) {
            Answer::Entries(entries, range) => Ok((entries, range)),
            Answer::Log(error) => Err(error),
            other => panic!("no answer to a read: {other:?}"),
        }
    }
}

/// The manifest with the highest epoch.
fn newest_manifest(store: &dyn ObjectStore) -> Result<Option<Manifest>, StoreError> {
    // The prefix is the shard's own: `Job` lists nothing else under this name.
    let mut keys: Vec<_> = store.list("")?.into_iter().filter_map(|object| Some((parse_manifest_key(&object.key)?, object.key))).collect();
    keys.sort();
    while let Some((_, key)) = keys.pop() {
        match decode(store, &key) {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn decode(store: &dyn ObjectStore, key: &str) -> Result<Manifest, StoreError> {
    Manifest::decode(&store.get(key)?).map_err(|_| StoreError::NotFound { action: "decode manifest", key: key.to_owned() })
}

fn log_done(answer: Answer) -> Result<(), LogError> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Log(error) => Err(error),
        other => panic!("no answer to an order: {other:?}"),
    }
}

impl ObjectStore for Job<'_> {
    fn put(&self, key: &str, body: &Body) -> Result<Put, StoreError> {
        let content = match body {
            Body::Bytes(bytes) => Content::Bytes(bytes.clone()),
            Body::File(path) => Content::Files(vec![self.checkpoint_file(path)]),
            Body::Pack(paths) => Content::Files(paths.iter().map(|path| self.checkpoint_file(path)).collect()),
        };
        self.create(key.to_owned(), content)
    }

    fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        match self.remote.call(Call::Get(key.to_owned())) {
            Answer::Bytes(bytes) => Ok(bytes),
            Answer::Store(error) => Err(error),
            other => panic!("no answer to a get: {other:?}"),
        }
    }

    fn download(&self, _key: &str, _to: &Path) -> Result<Downloaded, StoreError> {
        unreachable!("the simulated disk has files that are no bytes: see `fetch`")
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let prefix = if prefix.is_empty() { manifest_prefix(self.shard) } else { prefix.to_owned() };
        match self.remote.call(Call::List(prefix)) {
            Answer::Rows(rows) => Ok(rows),
            Answer::Store(error) => Err(error),
            other => panic!("no answer to a list: {other:?}"),
        }
    }

    fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        match self.remote.call(Call::Delete(keys.to_vec())) {
            Answer::Done => Ok(()),
            Answer::Store(error) => Err(error),
            other => panic!("no answer to a delete: {other:?}"),
        }
    }
}

impl Job<'_> {
    /// All files of an object.
    fn fetch(&self, key: &str) -> Result<Vec<Arc<FileData>>, StoreError> {
        match self.remote.call(Call::Download(key.to_owned())) {
            Answer::Files(files) => Ok(files),
            Answer::Store(error) => Err(error),
            other => panic!("no answer to a download: {other:?}"),
        }
    }

    fn create(&self, key: String, content: Content) -> Result<Put, StoreError> {
        match self.remote.call(Call::Put(key, content)) {
            Answer::Put(put) => Ok(put),
            Answer::Store(error) => Err(error),
            other => panic!("no answer to a put: {other:?}"),
        }
    }

    fn checkpoint_file(&self, path: &Path) -> Arc<FileData> {
        self.disk.file(path).expect("the checkpoint's folder is there until the upload ends")
    }
}

/// The file that a manifest says is in an object that holds these.
fn checked(there: &[Arc<FileData>], file: &ManifestFile, object: &str) -> Result<Arc<FileData>, ImportError> {
    let is_whole = |data: &&Arc<FileData>| (data.size, data.crc32) == (file.size, file.crc32) || is(Mutant::ChecksumIgnored);
    let found = part_of(there, file.offset).filter(is_whole);
    found.cloned().ok_or_else(|| ImportError::Damaged(format!("file {} in {object} failed its checksum", file.name)))
}

struct Checksums<'a>(&'a Disk);

impl ChecksumFile for Checksums<'_> {
    fn crc32(&mut self, path: &Path) -> Result<u32, String> {
        self.0.file(path).map(|file| file.crc32).ok_or_else(|| format!("{} is gone", path.display()))
    }
}

struct Ports<'a, 'b> {
    job: &'a Job<'b>,
    timeline: Timeline,
    topic_ids: [String; 2],
}

impl RestorePorts for Ports<'_, '_> {
    type Store = SimState;

    fn timeline(&self) -> Timeline {
        self.timeline
    }

    fn topic_ids(&self) -> &[String] {
        &self.topic_ids
    }

    fn read_journal(&mut self, from: JournalOffset, view: View, each: &mut dyn FnMut(JournalEntry)) -> Result<JournalRange, LogError> {
        let (entries, range) = self.job.journal(from, view)?;
        entries.into_iter().for_each(each);
        Ok(range)
    }

    fn journal_range(&mut self) -> Result<JournalRange, LogError> {
        match self.job.remote.call(Call::Range) {
            Answer::Range(range) => Ok(range),
            Answer::Log(error) => Err(error),
            other => panic!("no answer to a range: {other:?}"),
        }
    }

    fn newest_manifest(&mut self) -> Result<Option<Manifest>, StoreError> {
        newest_manifest(self.job)
    }

    fn manifest(&mut self, checkpoint: &RetainedCheckpoint) -> Result<Manifest, StoreError> {
        decode(self.job, &manifest_key(self.job.shard, checkpoint.epoch, &checkpoint.incarnation))
    }

    fn open_local(&mut self) -> Result<Option<SimState>, StateError> {
        self.job.disk.open(self.job.shard)
    }

    fn create(&mut self) -> Result<SimState, StateError> {
        self.job.disk.create(self.job.shard)
    }

    fn import(&mut self, manifest: &Manifest) -> Result<SimState, ImportError> {
        self.job.disk.remove(self.job.shard)?;
        let mut files = BTreeMap::new();
        for (object, parts) in manifest.objects() {
            let there = self.job.fetch(object)?;
            for file in parts {
                files.insert(file.name.clone(), checked(&there, file, object)?);
            }
        }
        let store = self.job.disk.adopt(self.job.shard, &files)?.ok_or_else(|| ImportError::Damaged("its files are no database".into()))?;
        match store.stamp()? {
            Some(stamp) if stamp == manifest.stamp => Ok(store),
            other => Err(ImportError::Damaged(format!("its files hold {other:?}"))),
        }
    }

    fn note(&mut self, note: RestoreNote) {
        self.job.remote.note(&note);
    }
}
