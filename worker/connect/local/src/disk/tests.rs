//! The log's folder: transactions, topics, crashes at every byte, and what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::time::Duration;

use super::*;
use forebay_engine::ids::{Offset, Partition, Timestamp};
use forebay_engine::log::{InputReader, StartFrom};
use proptest::prelude::*;

fn produce(folder: &LogFolder, topic: &str, values: &[&str]) {
    let (partition, timestamp) = (Some(Partition::new(0)), Timestamp::from_millis(1));
    let records = values.iter().map(|value| NewRecord { partition, timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
    assert_eq!(folder.produce(topic, records).unwrap(), values.len() as u64);
}

fn bar(folder: &LogFolder, id: &str) {
    let plan = |_: &State, draft: &mut Draft| {
        draft.changes.push(Change::Barred { transactional_id: id.to_owned() });
        Ok(())
    };
    folder.append("bar", Draft::default(), plan).unwrap();
}

/// Offset and value of each record of partition 0.
fn read(folder: &LogFolder, topic: &str) -> Vec<(u64, String)> {
    let mut reader = folder.consume(topic, StartFrom::Earliest, "").unwrap();
    let mut records = Vec::new();
    let mut keep = |record: &forebay_engine::record::InputRecord<'_>| {
        records.push((record.offset.get(), String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    };
    while reader.poll(Duration::ZERO, 100, &mut keep).unwrap() > 0 {}
    records
}

fn records(from: u64, values: &[&str]) -> Vec<(u64, String)> {
    (from..).zip(values.iter().map(|value| (*value).to_owned())).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    segment::list(dir).unwrap().into_iter().map(|number| dir.join(format!("{number:020}.log"))).collect()
}

/// A closed log whose last frame holds the record "last"; its bytes, and where that frame begins.
fn log_with_a_last_frame(dir: &Path) -> (Vec<u8>, usize) {
    let folder = LogFolder::open(dir).unwrap();
    folder.create_topic("t", 1).unwrap();
    produce(&folder, "t", &["a", "b"]);
    let [path] = &segments(dir)[..] else { panic!("one segment") };
    let before = fs::read(path).unwrap().len();
    produce(&folder, "t", &["last"]);
    (fs::read(path).unwrap(), before)
}

#[test]
fn a_torn_last_frame_is_cut_off_at_every_byte_and_the_log_goes_on_behind_the_frame_before() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, last) = log_with_a_last_frame(dir.path());
    let path = segments(dir.path()).remove(0);
    let zeros = vec![0; 5000];
    for end in last..whole.len() {
        for behind in [&[][..], &zeros, b"\xff", &format::MARKER] {
            let mut torn = whole[..end].to_vec();
            torn.extend_from_slice(behind);
            if torn.starts_with(&whole) {
                continue;
            }
            fs::write(&path, &torn).unwrap();
            let folder = LogFolder::open(dir.path()).unwrap();
            assert_eq!(read(&folder, "t"), records(0, &["a", "b"]), "cut at {end}");
            produce(&folder, "t", &["c"]);
            drop(folder);
            assert_eq!(read(&LogFolder::open(dir.path()).unwrap(), "t"), records(0, &["a", "b", "c"]), "cut at {end}");
        }
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(read(&LogFolder::open(dir.path()).unwrap(), "t"), records(0, &["a", "b", "last"]), "nothing was torn");
}

#[test]
fn damage_before_the_last_frame_is_an_error_at_every_byte_and_leaves_the_files_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, last) = log_with_a_last_frame(dir.path());
    let path = segments(dir.path()).remove(0);
    for at in 0..last {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        let opened = LogFolder::open(dir.path()).map(|_| ());
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "byte {at}: {opened:?}");
        assert!(fs::read(&path).unwrap() == damaged, "byte {at}: the file was changed");
    }
    for at in last..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(read(&LogFolder::open(dir.path()).unwrap(), "t"), records(0, &["a", "b"]), "byte {at} of what a crash may have torn");
    }
}

#[test]
fn a_folder_that_another_process_has_is_refused_with_its_lock_and_pid() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("lock");
    fs::write(&path, "4242\n").unwrap();
    // A lock belongs to an open file, so that one of this very process is as good as another's.
    let other = File::open(&path).unwrap();
    other.try_lock().unwrap();
    let message = LogFolder::open(dir.path()).err().unwrap().to_string();
    assert!(message.contains("4242") && message.contains(path.to_str().unwrap()), "{message}");
    fs::write(&path, "").unwrap();
    let message = LogFolder::open(dir.path()).err().unwrap().to_string();
    assert!(message.contains("another process has it open"), "{message}");
    drop(other);
    LogFolder::open(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn all_handles_of_a_process_are_one_log_whatever_they_call_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("log"), &link).unwrap();
    let one = LogFolder::open(&dir.path().join("log")).unwrap();
    let other = LogFolder::open(&link).unwrap();
    one.create_topic("t", 1).unwrap();
    produce(&other, "t", &["a"]);
    drop(one);
    assert_eq!(read(&other, "t"), records(0, &["a"]));
}

#[test]
fn threads_that_open_and_close_a_folder_all_the_time_never_meet_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let dir = dir.path();
            threads.spawn(move || {
                for round in 0..25 {
                    LogFolder::open(dir).unwrap().create_topic(&format!("t-{thread}-{round}"), 1).unwrap();
                }
            });
        }
    });
    assert_eq!(LogFolder::open(dir.path()).unwrap().topics().len(), 100);
}

#[test]
fn after_a_failed_write_or_fsync_nothing_is_written_until_the_log_is_opened_again_and_reading_goes_on() {
    // A full disk, and a file that cannot be synced.
    for (device, expected) in [("/dev/full", "No space left"), ("/dev/null", "Invalid argument")] {
        let dir = tempfile::tempdir().unwrap();
        let folder = LogFolder::open(dir.path()).unwrap();
        folder.create_topic("t", 1).unwrap();
        produce(&folder, "t", &["a"]);
        let path = segments(dir.path()).remove(0);
        let before = fs::read(&path).unwrap();
        folder.shared.writer.lock().unwrap().replace_file(OpenOptions::new().write(true).open(device).unwrap());
        let first = folder.create_topic("lost", 1).unwrap_err().to_string();
        assert!(first.contains(expected), "{first}");
        let second = folder.create_topic("refused", 1).unwrap_err().to_string();
        assert!(second.contains("an earlier write failed") && second.contains(expected), "{second}");
        assert_eq!(read(&folder, "t"), records(0, &["a"]));
        assert_eq!(folder.topics().len(), 1, "what was not written is not shown");
        assert!(fs::read(&path).unwrap() == before);
        drop(folder);
        let folder = LogFolder::open(dir.path()).unwrap();
        produce(&folder, "t", &["b"]);
        assert_eq!(read(&folder, "t"), records(0, &["a", "b"]));
    }
}

#[test]
fn a_folder_that_is_removed_while_it_is_open_takes_no_more_and_is_not_mixed_with_one_made_in_its_place() {
    for segment_bytes in [1, SEGMENT_BYTES] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let folder = LogFolder::open_with(&path, segment_bytes).unwrap();
        folder.create_topic("t", 1).unwrap();
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let refused = folder.create_topic("u", 1).unwrap_err().to_string();
        assert!(refused.contains("No such file") || refused.contains("was removed"), "{refused}");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
}

#[test]
fn segments_that_hold_nothing_any_more_are_removed_and_what_else_they_said_stays() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open_with(dir.path(), 1).unwrap();
    folder.create_topic("t", 1).unwrap();
    bar(&folder, "x");
    folder.set_group_offsets("g", &[GroupOffset { topic: "t".into(), partition: Partition::new(0), next: Offset::new(1) }]).unwrap();
    for value in ["a", "b", "c", "d"] {
        produce(&folder, "t", &[value]);
    }
    let live = segments(dir.path());
    assert_eq!(live.len(), 4, "one for each record: those with no records went at once, {live:?}");
    let mut reader = folder.consume("t", StartFrom::Earliest, "").unwrap();
    folder.delete_records("t", Partition::new(0), Offset::new(2)).unwrap();
    assert_eq!(segments(dir.path())[..2], live[2..], "the segments of a and b are gone");
    let cut = reader.poll(Duration::ZERO, 1, &mut |_| {});
    assert!(matches!(cut, Err(LogError::Cut { wanted: 0, start: 2, .. })), "{cut:?}");
    let (topics, offsets) = (folder.topics(), folder.group_offsets("g"));
    drop((folder, reader));
    let folder = LogFolder::open(dir.path()).unwrap();
    assert_eq!(read(&folder, "t"), records(2, &["c", "d"]));
    assert_eq!((folder.topics(), folder.group_offsets("g")), (topics, offsets));
    assert!(folder.state().is_barred("x"));
    folder.delete_topic("t").unwrap();
    assert_eq!(folder.state().group("g").count(), 0, "offsets go with their topic");
    drop(folder);
    assert_eq!(segments(dir.path()).len(), 1, "a deleted topic gives back all of its space");
    let folder = LogFolder::open(dir.path()).unwrap();
    assert_eq!((folder.topics(), folder.group_offsets("g")), (vec![], vec![]));
}

#[test]
fn a_segment_that_somebody_removed_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open_with(dir.path(), 1).unwrap();
    folder.create_topic("t", 1).unwrap();
    for value in ["a", "b", "c"] {
        produce(&folder, "t", &[value]);
    }
    drop(folder);
    for (at, offset) in [(0, 0), (1, 1)] {
        let path = &segments(dir.path())[at];
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let Err(OpenError::Corrupt { reason, .. }) = LogFolder::open(dir.path()) else { panic!("segment {at} is missing") };
        assert!(reason.contains(&format!("t-0 from offset {offset}")), "{reason}");
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(read(&LogFolder::open(dir.path()).unwrap(), "t"), records(0, &["a", "b", "c"]));
}

#[test]
fn a_segment_that_a_crash_left_unfinished_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = log_with_a_last_frame(dir.path());
    let unfinished = dir.path().join(format!("{:020}.unfinished", 1));
    fs::write(&unfinished, &whole[..20]).unwrap();
    assert_eq!(read(&LogFolder::open(dir.path()).unwrap(), "t"), records(0, &["a", "b", "last"]));
    assert!(!unfinished.exists());
}

#[test]
fn topics_have_names_and_partitions_that_kafka_takes_and_are_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(dir.path()).unwrap();
    let made = folder.create_topic("a.b_c-D9", 3).unwrap();
    assert_eq!(folder.create_topic("a.b_c-D9", 3).unwrap(), made);
    for (name, partitions) in [("a.b_c-D9", 2), ("", 1), ("a/b", 1), ("..", 1), ("ü", 1), ("t", 0), ("t", 1 << 20), (&"x".repeat(250), 1)]
    {
        let refused = folder.create_topic(name, partitions);
        assert!(matches!(refused, Err(LogError::Rejected { .. })), "{name} {partitions}: {refused:?}");
    }
    assert_eq!(folder.add_partitions("a.b_c-D9", 5).unwrap(), TopicInfo { partitions: 5, ..made });
    assert!(folder.add_partitions("a.b_c-D9", 4).is_err(), "partitions cannot be taken away");
    assert_eq!(folder.topics().len(), 1);
}

#[test]
fn records_without_partition_and_key_are_spread_evenly() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(dir.path()).unwrap();
    folder.create_topic("t", 3).unwrap();
    let record = NewRecord { partition: None, timestamp: Timestamp::from_millis(1), key: None, value: Some(b"v"), headers: &[] };
    assert_eq!(folder.produce("t", std::iter::repeat_n(record, 12)).unwrap(), 12);
    let ends: Vec<_> = folder.positions("t", forebay_engine::ids::InputId::new(0), StartFrom::Latest, "").unwrap();
    assert_eq!(ends.iter().map(|end| end.next.get()).collect::<Vec<_>>(), [4, 4, 4]);
}

/// What is done to a log.
#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Delete(u8),
    Produce(u8, u8),
    Cut(u8, u8),
    Bar(u8),
    Offset(u8, u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3u8).prop_map(Step::Create),
        1 => (0..3u8).prop_map(Step::Delete),
        8 => (0..3u8, 1..40u8).prop_map(|(topic, count)| Step::Produce(topic, count)),
        4 => (0..3u8, 0..=100u8).prop_map(|(topic, percent)| Step::Cut(topic, percent)),
        1 => (0..9u8).prop_map(Step::Bar),
        2 => (0..3u8, 0..100u8).prop_map(|(topic, next)| Step::Offset(topic, next)),
        2 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    /// Oldest offset and all values ever produced.
    topics: BTreeMap<String, (usize, Vec<String>)>,
    offsets: BTreeMap<String, u64>,
    barred: BTreeSet<String>,
}

impl Model {
    /// Does a step to the model and, where it makes sense, to the log.
    fn take(&mut self, step: &Step, folder: &mut Option<LogFolder>, open: &dyn Fn() -> LogFolder) {
        let name = |topic: &u8| format!("t{topic}");
        let log = folder.as_ref().unwrap();
        match step {
            Step::Create(topic) => {
                log.create_topic(&name(topic), 1).unwrap();
                self.topics.entry(name(topic)).or_default();
            }
            Step::Delete(topic) => {
                assert_eq!(log.delete_topic(&name(topic)).is_ok(), self.topics.remove(&name(topic)).is_some());
                self.offsets.remove(&name(topic));
            }
            Step::Produce(topic, count) => {
                let Some((_, values)) = self.topics.get_mut(&name(topic)) else { return };
                let new: Vec<_> = (0..*count).map(|n| format!("{}-{n}", values.len())).collect();
                produce(log, &name(topic), &new.iter().map(String::as_str).collect::<Vec<_>>());
                values.extend(new);
            }
            Step::Cut(topic, percent) => {
                let Some((start, values)) = self.topics.get_mut(&name(topic)) else { return };
                let before = values.len() * usize::from(*percent) / 100;
                log.delete_records(&name(topic), Partition::new(0), Offset::new(before as u64)).unwrap();
                *start = before.max(*start);
            }
            Step::Bar(id) => {
                bar(log, &id.to_string());
                self.barred.insert(id.to_string());
            }
            Step::Offset(topic, next) => {
                let offset = GroupOffset { topic: name(topic), partition: Partition::new(0), next: Offset::new(u64::from(*next)) };
                if log.set_group_offsets("g", &[offset]).is_ok() {
                    assert!(self.topics.contains_key(&name(topic)));
                    self.offsets.insert(name(topic), u64::from(*next));
                }
            }
            Step::Reopen => {
                *folder = None;
                *folder = Some(open());
            }
        }
    }

    fn check(&self, log: &LogFolder) {
        let topics: BTreeSet<_> = log.topics().into_iter().map(|topic| topic.name).collect();
        assert_eq!(topics, self.topics.keys().cloned().collect());
        for (topic, (start, values)) in &self.topics {
            let expected: Vec<_> = (*start as u64..).zip(values[*start..].iter().cloned()).collect();
            assert_eq!(read(log, topic), expected, "{topic}");
        }
        let offsets: BTreeMap<_, _> = log.group_offsets("g").into_iter().map(|offset| (offset.topic, offset.next.get())).collect();
        assert_eq!(offsets, self.offsets);
        assert!(self.barred.iter().all(|id| log.state().is_barred(id)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_what_was_done_to_it_however_often_it_is_opened(steps in prop::collection::vec(step(), 1..40), segment_bytes in 1..3000u64) {
        let dir = tempfile::tempdir().unwrap();
        let open = || LogFolder::open_with(dir.path(), segment_bytes).unwrap();
        let mut folder = Some(open());
        let mut model = Model::default();
        for step in steps.iter().chain([&Step::Reopen]) {
            model.take(step, &mut folder, &open);
            model.check(folder.as_ref().unwrap());
        }
    }
}
