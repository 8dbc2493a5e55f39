//! The manifest of a checkpoint, and the names of objects under a job's prefix. JSON, so that anybody can read it.
//!
//! `files/<shard>/<unique id>` are immutable, and hold one file or several small ones; `checkpoints/<shard>/<epoch>-<incarnation>.json` is written last, create-only (I5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Incarnation, JournalOffset, ShardId};
use crate::journal::Stamp;

/// The format that this engine writes, and the only one that it reads so far.
pub const FORMAT: u32 = 1;

/// A checkpoint that counts: named in the journal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RetainedCheckpoint {
    /// The epoch whose state it holds.
    pub epoch: Epoch,
    /// Who took it.
    pub incarnation: Incarnation,
    /// Behind that epoch's journal record: the journal from here on is needed to restore from this checkpoint.
    pub journal: JournalOffset,
}

/// A checkpoint: a shard's state at a committed epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the engine that wrote it.
    pub engine: String,
    /// Epoch, owner, positions, books, retained checkpoints before this one. `stamp.owner` committed the epoch.
    pub stamp: Stamp,
    /// Who took the checkpoint: the epoch's committer, or a later owner.
    pub taken_by: Incarnation,
    /// The database's files.
    pub files: Vec<ManifestFile>,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name in the database's folder.
    pub name: String,
    /// The object that holds it.
    pub object: String,
    /// Where it begins in an object that holds several; `None` for one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Bytes.
    pub size: u64,
    /// CRC-32 (IEEE) of the whole file.
    pub crc32: u32,
    /// Whether a later checkpoint of the same database may name the same object.
    pub immutable: bool,
}

impl Manifest {
    /// Reads a manifest. `Err` says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(|e| format!("not a manifest: {e}"))?;
        if format != FORMAT {
            return Err(format!("manifest format {format} is unknown to this version, which reads format {FORMAT}"));
        }
        serde_json::from_slice(bytes).map_err(|e| format!("not a manifest: {e}"))
    }

    /// The bytes to put.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest has string keys only")
    }

    /// The objects, with the files that each of them holds.
    pub fn objects(&self) -> BTreeMap<&str, Vec<&ManifestFile>> {
        let mut objects: BTreeMap<&str, Vec<&ManifestFile>> = BTreeMap::new();
        for file in &self.files {
            objects.entry(&file.object).or_default().push(file);
        }
        objects
    }

    /// The name under which the journal lists it.
    pub fn retained(&self) -> RetainedCheckpoint {
        RetainedCheckpoint { epoch: self.stamp.epoch, incarnation: self.taken_by.clone(), journal: self.stamp.journal }
    }
}

/// Where the manifests of a shard lie. The prefix of [`manifest_key`].
pub fn manifest_prefix(shard: ShardId) -> String {
    format!("checkpoints/{shard}/")
}

/// Where one manifest lies: epochs sort by name.
pub fn manifest_key(shard: ShardId, epoch: Epoch, incarnation: &Incarnation) -> String {
    format!("checkpoints/{shard}/{:020}-{incarnation}.json", epoch.get())
}

/// The epoch and incarnation that a manifest's key names; `None` for a key that is none.
pub fn parse_manifest_key(key: &str) -> Option<(Epoch, Incarnation)> {
    let name = key.rsplit('/').next()?.strip_suffix(".json")?;
    let (epoch, incarnation) = name.split_once('-')?;
    Some((Epoch::new(epoch.parse().ok()?), Incarnation::new(incarnation)))
}

/// Where the files of a shard lie.
pub fn file_prefix(shard: ShardId) -> String {
    format!("files/{shard}/")
}

/// Where one file lies. `unique` never comes twice: the incarnation and a counter.
pub fn file_key(shard: ShardId, unique: &str) -> String {
    format!("files/{shard}/{unique}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AssignmentVersion, InputId, Offset, Partition, Revision, Timeline, Timestamp, WorkerName};
    use crate::journal::{Books, Owner};
    use crate::log::InputPosition;

    #[test]
    fn manifest_keys_sort_by_epoch_and_parse_back() {
        let key = |epoch| manifest_key(ShardId::new(2), Epoch::new(epoch), &Incarnation::new("w-0.abc"));
        assert!(key(9) < key(10));
        assert_eq!(parse_manifest_key(&key(10)), Some((Epoch::new(10), Incarnation::new("w-0.abc"))));
        assert_eq!(parse_manifest_key("checkpoints/2/readme.txt"), None);
    }

    /// What format 1 looked like when it was made. A build that cannot read it cannot restore old checkpoints.
    const GOLDEN: &str = include_str!("../golden/manifest-1.json");

    fn golden() -> Manifest {
        let position = |input, next| InputPosition { input: InputId::new(input), partition: Partition::new(7), next: Offset::new(next) };
        let retained =
            RetainedCheckpoint { epoch: Epoch::new(790), incarnation: Incarnation::new("w-1.02aa.1"), journal: JournalOffset::new(1583) };
        let stamp = Stamp {
            owner: Owner {
                timeline: Timeline::new(2),
                shard: ShardId::new(7),
                worker: WorkerName::new("w-0"),
                incarnation: Incarnation::new("w-0.18f3.1"),
                assignment: AssignmentVersion::new(4),
            },
            epoch: Epoch::new(812),
            revision: Revision::new("8c2f0a31b9de"),
            clock: Timestamp::from_millis(1_763_800_000_000),
            positions: vec![position(0, 28412), position(1, u64::MAX)],
            topic_ids: vec![String::new(), "t1".into()],
            books: Books { records_in: 15, processed: 1, rejected: 2, duplicate: 3, filtered: 4, throttled: 5 },
            retained: vec![retained],
            garbage: vec!["files/7/w-1.02aa.1-3".into()],
            journal: JournalOffset::new(1627),
        };
        let file = |name: &str, object: &str, offset, size, crc32, immutable| {
            let (name, object) = (name.to_owned(), format!("files/7/w-0.18f3.2-{object}"));
            ManifestFile { name, object, offset, size, crc32, immutable }
        };
        let files =
            vec![file("000123.sst", "9b0e", None, 1 << 20, u32::MAX, true), file("CURRENT", "77aa", Some(0), 16, 2_596_996_162, false)];
        Manifest { format: 1, engine: "0.1.0".into(), stamp, taken_by: Incarnation::new("w-0.18f3.2"), files }
    }

    #[test]
    fn a_manifest_of_format_1_is_read_and_written_as_it_was_when_the_format_was_made() {
        assert_eq!(Manifest::decode(GOLDEN.as_bytes()), Ok(golden()));
        assert_eq!(String::from_utf8(golden().encode()).unwrap(), GOLDEN);
    }

    #[test]
    fn a_manifest_with_a_field_that_this_version_does_not_know_is_read() {
        let newer = GOLDEN.replacen("\"engine\"", "\"to come\": [1],\n  \"engine\"", 1);
        assert_eq!(Manifest::decode(newer.as_bytes()), Ok(golden()));
    }

    #[test]
    fn a_manifest_of_another_format_is_refused_by_its_number() {
        let error = Manifest::decode(br#"{"format": 2, "whatever": true}"#).unwrap_err();
        assert!(error.contains("format 2"), "{error}");
    }
}
