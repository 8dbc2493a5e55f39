//! A restore whose local database holds a value that is not what was written: it is passed over, and the journal gives the state. A restore whose
//! journal is another one than it was, or whose inputs are: refused.

use std::collections::BTreeMap;

use super::*;
use crate::changes::Change;
use crate::failure::Failure;
use crate::ids::{AssignmentVersion, Incarnation, InputId, Offset, Partition, Revision, Timeline, Timestamp, WorkerName};
use crate::journal::{Books, Owner, encode_epoch};
use crate::log::{InputPosition, TopicInfo};
use crate::patch::PatchWriter;
use crate::state::{Checkpointer, StateBatch};

#[derive(Clone, Default)]
struct Memory {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    stamp: Option<Stamp>,
}

impl StateStore for Memory {
    fn get_written(&self, key: &[u8], into: &mut Vec<u8>) -> Result<Option<Timestamp>, StateError> {
        into.clear();
        Ok(self.values.get(key).map(|value| {
            into.extend_from_slice(value);
            Timestamp::default()
        }))
    }

    fn apply(&mut self, changes: &StateBatch, stamp: &Stamp) -> Result<(), StateError> {
        for (key, value) in changes.iter() {
            match value {
                Some(value) => self.values.insert(key.to_vec(), value.to_vec()),
                None => self.values.remove(key),
            };
        }
        self.stamp = Some(stamp.clone());
        Ok(())
    }

    fn stamp(&self) -> Result<Option<Stamp>, StateError> {
        Ok(self.stamp.clone())
    }

    fn checkpointer(&self) -> Checkpointer {
        unreachable!("no test takes a checkpoint")
    }
}

/// A journal, a local database, and one checkpoint perhaps, whose files are no good.
#[derive(Default)]
struct Ports {
    topic_ids: Vec<String>,
    journal: Vec<JournalEntry>,
    local: Option<Memory>,
    manifest: Option<Manifest>,
    /// Where the journal starts when the checkpoint's files have been looked for; until then it was never cut.
    cut_meanwhile: JournalOffset,
    start: JournalOffset,
    notes: Vec<RestoreNote>,
}

impl RestorePorts for Ports {
    type Store = Memory;

    fn timeline(&self) -> Timeline {
        Timeline::new(0)
    }

    fn topic_ids(&self) -> &[String] {
        &self.topic_ids
    }

    fn read_journal(&mut self, from: JournalOffset, _: View, each: &mut dyn FnMut(JournalEntry)) -> Result<JournalRange, LogError> {
        self.journal.iter().filter(|entry| entry.offset >= from).cloned().for_each(each);
        self.journal_range_of()
    }

    fn journal_range(&mut self) -> Result<JournalRange, LogError> {
        self.journal_range_of()
    }

    fn newest_manifest(&mut self) -> Result<Option<Manifest>, StoreError> {
        Ok(self.manifest.clone())
    }

    fn manifest(&mut self, _: &RetainedCheckpoint) -> Result<Manifest, StoreError> {
        Ok(self.manifest.clone().unwrap())
    }

    fn open_local(&mut self) -> Result<Option<Memory>, StateError> {
        Ok(self.local.take())
    }

    fn create(&mut self) -> Result<Memory, StateError> {
        Ok(Memory::default())
    }

    fn import(&mut self, _: &Manifest) -> Result<Memory, ImportError> {
        self.start = self.cut_meanwhile;
        Err(ImportError::Damaged("told to".into()))
    }

    fn note(&mut self, note: RestoreNote) {
        self.notes.push(note);
    }
}

impl Ports {
    fn journal_range_of(&self) -> Result<JournalRange, LogError> {
        Ok(JournalRange { start: self.start, end: JournalOffset::new(self.journal.len() as u64) })
    }
}

const KEY: &[u8] = b"\0\x01\0\0\0\0key";

fn stamp(epoch: u64) -> Stamp {
    let owner = Owner {
        timeline: Timeline::new(0),
        shard: ShardId::new(0),
        worker: WorkerName::new("w"),
        incarnation: Incarnation::new("w.1"),
        assignment: AssignmentVersion::new(1),
    };
    Stamp {
        owner,
        epoch: Epoch::new(epoch),
        revision: Revision::new("r"),
        clock: Timestamp::default(),
        positions: Vec::new(),
        topic_ids: Vec::new(),
        books: Books::default(),
        retained: Vec::new(),
        garbage: Vec::new(),
        journal: JournalOffset::new(epoch),
    }
}

/// Epoch 1 puts `abc`, epoch 2 makes `abX` of it by a patch.
fn journal() -> Vec<JournalEntry> {
    let (mut put, mut patched) = (Changes::default(), Changes::default());
    put.push(KEY, Change::Put(b"abc"));
    let (mut patch, mut scratch) = (Vec::new(), Vec::new());
    let mut writer = PatchWriter::new(&mut patch, &mut scratch);
    writer.copy(2);
    writer.skip(1);
    writer.insert(|into| into.push(b'X'));
    writer.finish();
    patched.push(KEY, Change::Patch(&patch));
    let entry = |epoch: u64, changes: &Changes| JournalEntry {
        offset: JournalOffset::new(epoch - 1),
        bytes: encode_epoch(&stamp(epoch), changes).remove(0),
    };
    vec![entry(1, &put), entry(2, &patched)]
}

fn restored(local: Memory) -> (Restored<Memory>, Vec<RestoreNote>) {
    let mut ports = Ports { journal: journal(), local: Some(local), ..Ports::default() };
    let restored = restore(&mut ports, ShardId::new(0)).unwrap();
    (restored, ports.notes)
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(&self.values).finish()
    }
}

#[test]
fn a_local_database_is_brought_along_by_the_journals_patches() {
    let local = Memory { values: [(KEY.to_vec(), b"abc".to_vec())].into(), stamp: Some(stamp(1)) };
    let (restored, notes) = restored(local);
    assert_eq!(restored.store.values[KEY], b"abX");
    assert_eq!(notes, vec![RestoreNote::Local(Epoch::new(2))]);
}

#[test]
fn a_local_database_with_another_value_than_a_patch_was_made_for_is_passed_over() {
    for damaged in [Some(b"ab".to_vec()), Some(b"abcd".to_vec()), None] {
        let values = damaged.into_iter().map(|value| (KEY.to_vec(), value)).collect();
        let (restored, notes) = restored(Memory { values, stamp: Some(stamp(1)) });
        assert_eq!(restored.store.values[KEY], b"abX");
        assert_eq!(restored.head.unwrap().epoch, Epoch::new(2));
        assert!(matches!(&notes[..], [RestoreNote::LocalUnusable(_), RestoreNote::Journal]), "{notes:?}");
    }
}

/// Method: the database is at an epoch that the journal has too, by another owner. No run of the simulator comes to this, since a database takes
/// committed epochs only; a folder that was brought back from a copy may.
#[test]
fn a_local_database_of_another_history_is_passed_over() {
    let mut other = stamp(1);
    other.owner.incarnation = Incarnation::new("w.2");
    let (restored, notes) = restored(Memory { values: [(KEY.to_vec(), b"abc".to_vec())].into(), stamp: Some(other) });
    assert_eq!(restored.store.values[KEY], b"abX");
    assert!(matches!(&notes[..], [RestoreNote::LocalUnusable(_), RestoreNote::Journal]), "{notes:?}");
}

/// Method: the id of the journal topic that each of the three witnesses names, against the id that it has now. A witness of an earlier version names
/// none, and brokers older than 2.8 know none.
#[test]
fn a_journal_that_was_made_anew_is_never_taken_for_an_empty_one() {
    let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let check = |was: &[&str], is: &str, refused: bool| {
        let stamp = Stamp { topic_ids: ids(was), ..stamp(1) };
        let local = Memory { values: BTreeMap::new(), stamp: Some(stamp.clone()) };
        let record = encode_epoch(&stamp, &Changes::default()).remove(0);
        let manifest = Manifest { format: 1, engine: String::new(), taken_by: stamp.owner.incarnation.clone(), stamp, files: Vec::new() };
        let now = Ports { topic_ids: ids(&["input", is]), ..Ports::default() };
        let witnesses = [
            ("the local database", Ports { local: Some(local), ..now }),
            ("the checkpoint", Ports { manifest: Some(manifest), topic_ids: ids(&["input", is]), ..Ports::default() }),
            (
                "the journal's last epoch",
                Ports {
                    journal: vec![JournalEntry { offset: JournalOffset::new(0), bytes: record }],
                    topic_ids: ids(&["input", is]),
                    ..Ports::default()
                },
            ),
        ];
        for (witness, mut ports) in witnesses {
            match restore(&mut ports, ShardId::new(3)) {
                Err(RestoreError::Gone { reason, .. }) => {
                    assert!(refused && reason.contains(witness) && reason.contains(was[1]) && reason.contains(is), "{witness}: {reason}");
                }
                other => assert!(!refused, "{witness} of {was:?} now {is}: {other:?}"),
            }
        }
    };
    check(&["input", "first"], "first", false);
    check(&["input", "first"], "second", true);
    check(&["other", "first"], "first", false);
    check(&["input"], "second", false);
    check(&["input", ""], "second", false);
    check(&["input", "first"], "", false);
}

/// Method: epochs at the times 10 and 20 in a journal that was never cut, and times between and around them.
#[test]
fn a_restore_goes_to_the_last_epoch_of_a_time_and_no_further() {
    let check = |time: i64, expected: Option<(u64, &[u8])>| {
        let clocks = journal().into_iter().zip([10, 20]).map(|(entry, clock)| {
            let mut assembler = Assembler::default();
            let Ok(Some(JournalRecord::Epoch(stamp, changes))) = assembler.push(&entry) else { panic!("an epoch of one chunk") };
            let stamp = Stamp { clock: Timestamp::from_millis(clock), ..*stamp };
            JournalEntry { offset: entry.offset, bytes: encode_epoch(&stamp, &changes).remove(0) }
        });
        // The local database is ahead, and must not be used.
        let local = Memory { values: [(KEY.to_vec(), b"abX".to_vec())].into(), stamp: Some(stamp(2)) };
        let mut ports = Ports { journal: clocks.collect(), local: Some(local), ..Ports::default() };
        match (restore_until(&mut ports, ShardId::new(0), Until::Clock(Timestamp::from_millis(time))), expected) {
            (Ok(restored), Some((epoch, value))) => {
                assert_eq!(restored.head.unwrap().epoch, Epoch::new(epoch), "at {time}");
                assert_eq!(restored.store.values[KEY], value, "at {time}");
            }
            (Err(RestoreError::Younger { oldest, .. }), None) => assert_eq!(oldest, Timestamp::from_millis(10), "at {time}"),
            (other, _) => panic!("at {time}: {other:?}"),
        }
    };
    check(9, None);
    check(10, Some((1, b"abc")));
    check(19, Some((1, b"abc")));
    check(20, Some((2, b"abX")));
    check(1000, Some((2, b"abX")));
}

/// Method: the database of the timeline before a rewind, whose journal is another topic.
#[test]
fn a_local_database_of_an_earlier_timeline_is_passed_over() {
    let mut earlier = stamp(7);
    earlier.owner.timeline = Timeline::new(3);
    earlier.topic_ids = vec!["input".into(), "its journal".into()];
    let local = Memory { values: BTreeMap::new(), stamp: Some(earlier) };
    let topic_ids = vec!["input".into(), "another journal".into()];
    let mut ports = Ports { journal: journal(), local: Some(local), topic_ids, ..Ports::default() };
    let restored = restore(&mut ports, ShardId::new(0)).unwrap();
    assert_eq!(restored.store.values[KEY], b"abX");
    assert!(matches!(&ports.notes[..], [RestoreNote::LocalUnusable(_), RestoreNote::Journal]), "{:?}", ports.notes);
}

/// Method: the journal holds no epoch, and a checkpoint lists itself. Behind it is what the journal starts with once its files were not found.
#[test]
fn a_checkpoint_whose_files_are_gone_because_newer_ones_have_replaced_it_is_outrun() {
    let check = |cut: u64, is_outrun: bool| {
        let (taken_by, engine) = (stamp(1).owner.incarnation, "e".to_owned());
        let manifest = Some(Manifest { format: crate::manifest::FORMAT, engine, stamp: stamp(1), taken_by, files: Vec::new() });
        let mut ports = Ports { manifest, cut_meanwhile: JournalOffset::new(cut), ..Ports::default() };
        let outcome = restore(&mut ports, ShardId::new(0));
        assert_eq!(matches!(outcome, Err(RestoreError::Outrun)), is_outrun, "{cut}: {outcome:?}");
        assert_eq!(ports.notes.iter().any(|note| matches!(note, RestoreNote::Damaged(..))), !is_outrun, "{cut}: {:?}", ports.notes);
    };
    check(0, false);
    check(stamp(1).journal.get(), false);
    check(stamp(1).journal.get() + 1, true);
}

/// Method: the journal begins with a patch of a value that nobody has put.
#[test]
fn a_journal_that_does_not_fit_together_needs_help() {
    let Ok(Some(JournalRecord::Epoch(_, patched))) = Assembler::default().push(&journal()[1]) else { panic!("an epoch of one chunk") };
    let entry = JournalEntry { offset: JournalOffset::default(), bytes: encode_epoch(&stamp(1), &patched).remove(0) };
    let mut ports = Ports { journal: vec![entry], ..Ports::default() };
    let error = restore(&mut ports, ShardId::new(0)).unwrap_err();
    assert!(matches!(&error, RestoreError::Gone { reason, .. } if reason.contains("does not fit together")), "{error}");
}

/// Method: the ids that the state has of two inputs, against those that they have now. Brokers older than 2.8 know none.
#[test]
fn an_input_that_was_made_anew_is_refused_where_both_ids_are_known() {
    let check = |was: &[&str], is: [&str; 2], refused: Option<&str>| {
        let head = Stamp { topic_ids: was.iter().map(ToString::to_string).collect(), ..stamp(1) };
        let inputs = [("first", is[0]), ("second", is[1])];
        let inputs = inputs.map(|(name, id)| TopicInfo { name: name.to_owned(), id: id.to_owned(), partitions: 0 });
        let (revision, topic_ids) = (Revision::new("next"), vec!["now".to_owned()]);
        match (go_on(head, &revision, 1, &inputs, topic_ids.clone()), refused) {
            (Ok(head), None) => assert_eq!((head.revision, head.topic_ids), (revision, topic_ids), "{was:?} now {is:?}"),
            (Err(Failure::Lasting(reason)), Some(topic)) => {
                assert!(reason.contains(&format!("input topic {topic} was deleted and made anew")), "{reason}");
            }
            (outcome, _) => panic!("{was:?} now {is:?}: {outcome:?}"),
        }
    };
    check(&["a", "b", "journal"], ["a", "b"], None);
    check(&["a", "b", "journal"], ["c", "b"], Some("first"));
    check(&["a", "b", "journal"], ["a", "c"], Some("second"));
    check(&["a", "", "journal"], ["a", "c"], None);
    check(&["a", "b", "journal"], ["a", ""], None);
}

/// Method: shard 0 of two, whose state knows two partitions of each of two inputs, and the numbers of partitions that these have now.
#[test]
fn a_partition_that_was_added_to_an_input_is_refused_by_the_shard_that_it_falls_to() {
    let check = |partitions: [u32; 2], refused: Option<&str>| {
        let known = [(0, 0), (0, 2), (1, 0), (1, 2)].map(|(input, partition)| InputPosition {
            input: InputId::new(input),
            partition: Partition::new(partition),
            next: Offset::default(),
        });
        let head = Stamp { positions: known.into(), ..stamp(1) };
        let inputs = [("first", partitions[0]), ("second", partitions[1])];
        let inputs = inputs.map(|(name, partitions)| TopicInfo { name: name.to_owned(), id: String::new(), partitions });
        match (go_on(head, &Revision::new("r"), 2, &inputs, Vec::new()), refused) {
            (Ok(_), None) => {}
            (Err(Failure::Lasting(reason)), Some(words)) => assert!(reason.contains(words), "{reason}"),
            (outcome, _) => panic!("{partitions:?}: {outcome:?}"),
        }
    };
    check([3, 3], None);
    check([4, 4], None);
    check([5, 4], Some("topic first has 5 partitions, and partition 4 was not there"));
    check([3, 6], Some("topic second has 6 partitions, and partition 4 was not there"));
}
