//! Restoring a shard for real: the journal from the log, manifests and files from the object store, RocksDB on local disk.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_engine::claim::ManifestMark;
use forebay_engine::ids::{JournalOffset, ShardId, Timeline};
use forebay_engine::log::{JournalEntry, JournalRange, Log, LogError, View};
use forebay_engine::manifest::{Manifest, RetainedCheckpoint, manifest_key, manifest_prefix, parse_manifest_key};
use forebay_engine::restore::{ImportError, RestoreNote, RestorePorts};
use forebay_engine::state::{StateError, StateStore};
use forebay_engine::store::{ObjectStore, StoreError};
use forebay_engine::worker::Report;
use forebay_state::{RocksState, SharedMemory};

use crate::fetch::replace;
use crate::status::{Counters, Status};
use crate::watched::Watched;

/// The ports of one shard's restore.
pub(crate) struct ShardPorts<L> {
    /// The log that holds the journal.
    pub log: Watched<L>,
    /// Where the snapshots are.
    pub store: Arc<dyn ObjectStore>,
    /// The folder of the shard's database.
    pub folder: PathBuf,
    /// The worker's memory budget.
    pub memory: SharedMemory,
    /// The shard.
    pub shard: ShardId,
    /// The history that the job is in.
    pub timeline: Timeline,
    /// The ids of the topics as they are now: inputs, then the journal.
    pub topic_ids: Vec<String>,
    /// Where to tell that a checkpoint could not be used.
    pub status: Arc<Status>,
    /// For a shard that is being prefetched, which comes by here again and again.
    pub quiet: bool,
    /// Whether anybody still waits for it.
    pub is_wanted: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl<L: Log> RestorePorts for ShardPorts<L> {
    type Store = RocksState;

    fn timeline(&self) -> Timeline {
        self.timeline
    }

    fn topic_ids(&self) -> &[String] {
        &self.topic_ids
    }

    fn read_journal(&mut self, from: JournalOffset, view: View, each: &mut dyn FnMut(JournalEntry)) -> Result<JournalRange, LogError> {
        tracing::debug!(shard = %self.shard, "replay begins");
        self.log.read_journal(self.shard, from, view, each)
    }

    fn journal_range(&mut self) -> Result<JournalRange, LogError> {
        let shard = self.shard;
        self.log.ask(&format!("ask for the journal of shard {shard}"), move |log| log.journal_range(shard))
    }

    fn newest_manifest(&mut self) -> Result<Option<Manifest>, StoreError> {
        newest_manifest(&*self.store, self.shard)
    }

    fn manifest(&mut self, checkpoint: &RetainedCheckpoint) -> Result<Manifest, StoreError> {
        read_manifest(&*self.store, self.shard, checkpoint)
    }

    fn open_local(&mut self) -> Result<Option<RocksState>, StateError> {
        tracing::debug!(shard = %self.shard, "opening begins");
        RocksState::open(&self.folder, &self.memory)
    }

    fn create(&mut self) -> Result<RocksState, StateError> {
        RocksState::wipe(&self.folder)?;
        RocksState::create(&self.folder, &self.memory)
    }

    fn import(&mut self, manifest: &Manifest) -> Result<RocksState, ImportError> {
        tracing::debug!(shard = %self.shard, "download begins");
        replace(&*self.store, manifest, &self.folder, &*self.is_wanted)?;
        let opened = RocksState::open(&self.folder, &self.memory).and_then(|store| {
            let stamp = store.as_ref().map(StateStore::stamp).transpose()?.flatten();
            Ok(store.filter(|_| stamp.as_ref() == Some(&manifest.stamp)))
        });
        match opened {
            Ok(Some(store)) => Ok(store),
            Ok(None) => Err(ImportError::Damaged("its files are no database, or one of another epoch".into())),
            Err(StateError::Corrupt { action, reason }) => Err(ImportError::Damaged(format!("{action}: {reason}"))),
            Err(error @ StateError::Io { .. }) => Err(error.into()),
        }
    }

    fn note(&mut self, note: RestoreNote) {
        let shard = self.shard;
        match note {
            note if self.quiet => tracing::debug!(%shard, ?note, "prefetch"),
            RestoreNote::LocalUnusable(reason) => tracing::info!(%shard, reason, "the local database cannot be used"),
            RestoreNote::Local(epoch) => tracing::info!(%shard, %epoch, "the local database is used"),
            RestoreNote::Damaged(checkpoint, reason) => {
                tracing::error!(%shard, epoch = %checkpoint.epoch, reason, "checkpoint cannot be used; falling back to the one before");
                Counters::add(&self.status.counters.restore_fallbacks, 1);
                self.status.report(Report::FellBack(shard, checkpoint.epoch, reason));
            }
            RestoreNote::Snapshot(checkpoint) => tracing::info!(%shard, epoch = %checkpoint.epoch, "restored from a checkpoint"),
            RestoreNote::Journal => tracing::info!(%shard, "restored from the journal alone"),
        }
    }
}

/// The manifest with the highest epoch; `None` when the shard has none.
pub fn newest_manifest(store: &dyn ObjectStore, shard: ShardId) -> Result<Option<Manifest>, StoreError> {
    let mut keys: Vec<_> = store
        .list(&manifest_prefix(shard))?
        .into_iter()
        .filter_map(|object| Some((parse_manifest_key(&object.key)?, object.key)))
        .collect();
    keys.sort();
    while let Some((_, key)) = keys.pop() {
        match decode_manifest(store, &key) {
            Ok(manifest) => return Ok(Some(manifest)),
            // Collected between the listing and now, or damaged: an older one tells less, but nothing wrong.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What a claim needs of the newest manifest.
pub fn newest_mark(store: &dyn ObjectStore, shard: ShardId) -> Result<Option<ManifestMark>, StoreError> {
    newest_manifest(store, shard).map(|manifest| manifest.as_ref().map(ManifestMark::from))
}

/// The manifest of a checkpoint on the list. One that cannot be decoded counts as not found: the checkpoint is damaged.
pub fn read_manifest(store: &dyn ObjectStore, shard: ShardId, checkpoint: &RetainedCheckpoint) -> Result<Manifest, StoreError> {
    decode_manifest(store, &manifest_key(shard, checkpoint.epoch, &checkpoint.incarnation))
}

fn decode_manifest(store: &dyn ObjectStore, key: &str) -> Result<Manifest, StoreError> {
    Manifest::decode(&store.get(key)?).map_err(|reason| {
        tracing::error!(key, reason, "a manifest cannot be read");
        StoreError::NotFound { action: "decode manifest", key: key.to_owned() }
    })
}

/// Where a shard's database lies in a state folder.
pub fn shard_folder(state_dir: &Path, shard: ShardId) -> PathBuf {
    state_dir.join(format!("shard-{shard}"))
}

/// The CRC-32 (IEEE) of a file.
pub fn checksum(path: &Path) -> std::io::Result<u32> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    let mut hasher = crc32fast::Hasher::new();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
