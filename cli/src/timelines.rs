//! The histories of a job, as its object store has them: each but the first was begun by a rewind. `timelines/<number>/reserved.json` gives a number to one
//! attempt at a rewind, which then owns the prefix and the journal of that number; `timelines/<number>/begun.json` is written last, and the highest that
//! has one is what the job is in. Both are create-only. A worker that goes on puts a void in the latter's place for each attempt that has not come to its
//! end: one that was given up, and runs on where nobody reaches it, never does any more.

use std::collections::BTreeSet;

use anyhow::Context;
use forebay_engine::ids::Timeline;
use forebay_engine::store::{Body, ObjectStore, Put};
use serde::{Deserialize, Serialize};

use crate::Unusable;

/// The format that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;
const FOLDER: &str = "timelines/";
const RESERVED: &str = "reserved.json";
const BEGUN: &str = "begun.json";
/// Each loses only to another rewind that begins at the same moment.
const ATTEMPTS: usize = 10;

/// How a timeline began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beginning {
    format: u32,
    /// Its number.
    pub timeline: Timeline,
    /// The one that it branched off.
    pub from: Timeline,
    /// The id of the rewind.
    pub rewind: String,
    /// Where that went back to: a savepoint's path, or a time.
    pub to: String,
}

impl Beginning {
    pub fn new(timeline: Timeline, from: Timeline, rewind: &str, to: String) -> Self {
        Self { format: FORMAT, timeline, from, rewind: rewind.to_owned(), to }
    }
}

/// A timeline that never begins.
#[derive(Serialize, Deserialize)]
struct Void {
    format: u32,
    /// The id of the rewind that was given up.
    void: String,
}

/// What lies where a beginning may lie.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Begun(Beginning),
    Void(Void),
}

/// An attempt at a rewind.
#[derive(Serialize, Deserialize)]
struct Reservation {
    format: u32,
    rewind: String,
}

/// All that have begun, in order.
pub fn all(root: &dyn ObjectStore) -> anyhow::Result<Vec<Beginning>> {
    let begun = |entry| match entry {
        Entry::Begun(beginning) => Some(beginning),
        Entry::Void(_) => None,
    };
    Ok(entries(root)?.into_iter().filter_map(begun).collect())
}

fn entries(root: &dyn ObjectStore) -> anyhow::Result<Vec<Entry>> {
    let mut keys: Vec<String> =
        root.list(FOLDER)?.into_iter().map(|object| object.key).filter(|key| key.ends_with(&format!("/{BEGUN}"))).collect();
    keys.sort();
    keys.iter().map(|key| read(root, key).with_context(|| format!("object {key}"))).collect()
}

/// The one that the job is in; `None`: the first one.
pub fn current(root: &dyn ObjectStore) -> anyhow::Result<Option<Beginning>> {
    Ok(all(root)?.pop())
}

/// A number that no attempt has had. An error if the job has gone on since an earlier attempt at the same rewind.
pub fn reserve(root: &dyn ObjectStore, rewind: &str) -> anyhow::Result<Timeline> {
    let timeline = take_number(root, rewind)?;
    // Looked at behind it: a worker that had not seen this number has given up the ones before.
    if voids(root)?.iter().any(|void| void == rewind) {
        return Err(given_up(rewind));
    }
    Ok(timeline)
}

fn take_number(root: &dyn ObjectStore, rewind: &str) -> anyhow::Result<Timeline> {
    for _ in 0..ATTEMPTS {
        if let Some(timeline) = try_number(root, rewind)? {
            return Ok(timeline);
        }
    }
    anyhow::bail!("reserve a timeline: other rewinds keep being faster; ask for one after another")
}

/// `None`: somebody else was faster.
fn try_number(root: &dyn ObjectStore, rewind: &str) -> anyhow::Result<Option<Timeline>> {
    let taken = root.list(FOLDER)?.into_iter().filter_map(|object| number(&object.key)).max().unwrap_or(0);
    let timeline = Timeline::new(taken + 1);
    let text = serde_json::to_vec(&Reservation { format: FORMAT, rewind: rewind.to_owned() }).expect("it has string keys only");
    Ok((root.put(&key(timeline, RESERVED), &Body::Bytes(text))? == Put::Created).then_some(timeline))
}

fn reservation(root: &dyn ObjectStore, timeline: Timeline) -> anyhow::Result<Reservation> {
    let key = key(timeline, RESERVED);
    serde_json::from_slice(&root.get(&key)?).with_context(|| format!("object {key}"))
}

/// Whether an attempt at a rewind has reserved a number, whatever has become of it.
fn is_attempted(root: &dyn ObjectStore, rewind: &str) -> anyhow::Result<bool> {
    if voids(root)?.contains(rewind) || all(root)?.iter().any(|beginning| beginning.rewind == rewind) {
        return Ok(true);
    }
    let open = open_attempts(root)?.into_iter().map(|timeline| reservation(root, timeline));
    Ok(open.collect::<anyhow::Result<Vec<_>>>()?.iter().any(|reservation| reservation.rewind == rewind))
}

/// The rewinds that were given up.
fn voids(root: &dyn ObjectStore) -> anyhow::Result<BTreeSet<String>> {
    let void = |entry| match entry {
        Entry::Begun(_) => None,
        Entry::Void(Void { void, .. }) => Some(void),
    };
    Ok(entries(root)?.into_iter().filter_map(void).collect())
}

/// From now on the job is in it, unless another one with a higher number has begun.
pub fn begin(root: &dyn ObjectStore, beginning: &Beginning) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(beginning).expect("a beginning has string keys only");
    let key = key(beginning.timeline, BEGUN);
    if root.put(&key, &Body::Bytes(text))? == Put::Created {
        return Ok(());
    }
    match read(root, &key).with_context(|| format!("object {key}"))? {
        // It is our own, whose reply was lost: the number is nobody else's.
        Entry::Begun(_) => Ok(()),
        Entry::Void(_) => Err(given_up(&beginning.rewind)),
    }
}

/// Sees to it that the job stays in the timeline `current`, in which it goes on now: no attempt at a rewind that has reserved a number until now comes to its
/// end later, nor any at the rewind `failed`, which may never have come so far. Returns the rewinds that are given up. An error if one has come to its end.
pub fn stay(root: &dyn ObjectStore, current: Timeline, failed: Option<&str>) -> anyhow::Result<Vec<String>> {
    if let Some(rewind) = failed {
        // All workers of a job start at the same time: the number of one of them is enough.
        let mut is_known = is_attempted(root, rewind)?;
        for _ in 0..ATTEMPTS {
            is_known = is_known || try_number(root, rewind)?.is_some() || is_attempted(root, rewind)?;
        }
        anyhow::ensure!(is_known, "give up rewind {rewind}: other rewinds keep being faster; start again");
    }
    let mut open = open_attempts(root)?;
    // Until none is left that was reserved meanwhile: of those that are reserved later, each finds the void of the one before.
    for _ in 0..ATTEMPTS {
        for timeline in std::mem::take(&mut open) {
            let Reservation { rewind, .. } = reservation(root, timeline)?;
            tracing::warn!(%timeline, rewind, "an attempt at a rewind has not come to its end, and is given up: the job goes on");
            let text = serde_json::to_vec_pretty(&Void { format: FORMAT, void: rewind }).expect("it has string keys only");
            let _ = root.put(&key(timeline, BEGUN), &Body::Bytes(text))?;
        }
        open = open_attempts(root)?;
        if open.is_empty() {
            break;
        }
    }
    anyhow::ensure!(open.is_empty(), "go on in timeline {current}: rewinds keep being begun; delete spec.state.rewind");
    let now = self::current(root)?.map_or(Timeline::default(), |beginning| beginning.timeline);
    anyhow::ensure!(now == current, "go on in timeline {current}: a rewind has begun timeline {now} meanwhile; start again, in that one");
    // Of one that is done an attempt may have been left over.
    let done: Vec<String> = all(root)?.into_iter().map(|beginning| beginning.rewind).collect();
    Ok(voids(root)?.into_iter().filter(|void| !done.contains(void)).collect())
}

/// Numbers that are reserved, and of which nothing else is known.
fn open_attempts(root: &dyn ObjectStore) -> anyhow::Result<Vec<Timeline>> {
    let keys: Vec<String> = root.list(FOLDER)?.into_iter().map(|object| object.key).collect();
    let is_open = |timeline: &Timeline| !keys.contains(&key(*timeline, BEGUN));
    let reserved = keys.iter().filter(|key| key.ends_with(&format!("/{RESERVED}")));
    Ok(reserved.filter_map(|key| number(key)).map(Timeline::new).filter(is_open).collect())
}

fn given_up(rewind: &str) -> anyhow::Error {
    let way_out = "ask for it under another id";
    Unusable(format!("rewind {rewind}: it was given up, and the job has gone on since; {way_out}")).into()
}

fn read(root: &dyn ObjectStore, key: &str) -> anyhow::Result<Entry> {
    let entry: Entry = serde_json::from_slice(&root.get(key)?)?;
    let (Entry::Begun(Beginning { format, .. }) | Entry::Void(Void { format, .. })) = entry;
    anyhow::ensure!(
        format == FORMAT,
        "format {format} is unknown to this version, which reads format {FORMAT}; use the version that wrote it"
    );
    Ok(entry)
}

/// Padded, so that names sort as numbers do.
fn key(timeline: Timeline, what: &str) -> String {
    format!("{FOLDER}{:010}/{what}", timeline.get())
}

fn number(key: &str) -> Option<u32> {
    key.strip_prefix(FOLDER)?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use forebay_local::FolderStore;

    use super::*;

    #[test]
    fn a_number_belongs_to_one_attempt_and_the_highest_that_has_begun_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = FolderStore::open(folder.path()).unwrap();
        assert_eq!(current(&root).unwrap(), None);
        let numbers: Vec<Timeline> = ["a", "a", "b"].iter().map(|rewind| reserve(&root, rewind).unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3].map(Timeline::new));
        assert_eq!(current(&root).unwrap(), None, "what was reserved has not begun");
        let beginning = |number: usize| Beginning::new(numbers[number], Timeline::new(0), "id", "2026-01-01T00:00:00Z".to_owned());
        begin(&root, &beginning(1)).unwrap();
        begin(&root, &beginning(1)).unwrap();
        assert_eq!(current(&root).unwrap(), Some(beginning(1)));
        // An attempt that was given up, and comes late.
        begin(&root, &beginning(0)).unwrap();
        assert_eq!(current(&root).unwrap(), Some(beginning(1)));
        assert_eq!(reserve(&root, "c").unwrap(), Timeline::new(4));
    }

    /// Method: a worker starts while one attempt at a rewind has reserved its number, and once more when another has begun.
    #[test]
    fn what_has_not_begun_when_a_worker_starts_never_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = FolderStore::open(folder.path()).unwrap();
        let (first, begun) =
            (Timeline::new(0), |timeline, id| begin(&root, &Beginning::new(timeline, Timeline::new(0), id, "then".to_owned())));
        assert_eq!(stay(&root, first, None).unwrap(), Vec::<String>::new());
        let given_up = reserve(&root, "a").unwrap();
        stay(&root, first, None).unwrap();
        assert_eq!(stay(&root, first, None).unwrap(), ["a"]);
        for error in [begun(given_up, "a").unwrap_err(), reserve(&root, "a").unwrap_err()] {
            assert!(error.to_string().contains("rewind a: it was given up"), "{error}");
        }
        assert_eq!(current(&root).unwrap(), None);
        // What was reserved in vain is closed, too, and another rewind has a number above.
        stay(&root, first, None).unwrap();
        let next = reserve(&root, "b").unwrap();
        assert_eq!(next, Timeline::new(3));
        begun(next, "b").unwrap();
        let late = stay(&root, first, None).unwrap_err().to_string();
        assert!(late.contains("a rewind has begun timeline 3 meanwhile"), "{late}");
        stay(&root, next, None).unwrap();
    }

    /// Method: the operator says of a rewind that it has failed, of which nothing is known here; then of one that came to its end after all.
    #[test]
    fn what_has_failed_is_given_up_though_no_attempt_has_come_so_far() {
        let folder = tempfile::tempdir().unwrap();
        let root = FolderStore::open(folder.path()).unwrap();
        let first = Timeline::new(0);
        for _ in 0..2 {
            assert_eq!(stay(&root, first, Some("a")).unwrap(), ["a"]);
        }
        assert!(reserve(&root, "a").unwrap_err().to_string().contains("rewind a: it was given up"));
        let next = [(); 2].map(|()| reserve(&root, "b").unwrap())[1];
        assert_eq!(next, Timeline::new(4), "it is given up once");
        begin(&root, &Beginning::new(next, first, "b", "then".to_owned())).unwrap();
        assert_eq!(stay(&root, next, Some("b")).unwrap(), ["a"]);
        assert_eq!(current(&root).unwrap().map(|beginning| beginning.rewind), Some("b".to_owned()));
        // The number that another worker has reserved for it is enough.
        try_number(&root, "c").unwrap().unwrap();
        assert_eq!(stay(&root, next, Some("c")).unwrap(), ["a", "c"]);
        assert_eq!(try_number(&root, "d").unwrap(), Some(Timeline::new(6)));
    }

    /// What format 1 looked like when it was made.
    const GOLDEN_VOID: &str = r#"{
  "format": 1,
  "void": "before-the-bug"
}"#;

    #[test]
    fn a_void_of_format_1_is_read_and_written_as_it_was_when_the_format_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let root = FolderStore::open(folder.path()).unwrap();
        let timeline = reserve(&root, "before-the-bug").unwrap();
        stay(&root, Timeline::new(0), None).unwrap();
        assert_eq!(root.get(&key(timeline, BEGUN)).unwrap(), GOLDEN_VOID.as_bytes());
        assert!(matches!(read(&root, &key(timeline, BEGUN)).unwrap(), Entry::Void(Void { void, .. }) if void == "before-the-bug"));
    }

    /// What format 1 looked like when it was made.
    const GOLDEN: &str = r#"{
  "format": 1,
  "timeline": 2,
  "from": 0,
  "rewind": "before-the-bug",
  "to": "default/flights/nightly"
}"#;

    #[test]
    fn a_beginning_of_format_1_is_read_and_written_as_it_was_when_the_format_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let root = FolderStore::open(folder.path()).unwrap();
        let beginning = Beginning::new(Timeline::new(2), Timeline::new(0), "before-the-bug", "default/flights/nightly".to_owned());
        begin(&root, &beginning).unwrap();
        assert_eq!(root.get("timelines/0000000002/begun.json").unwrap(), GOLDEN.as_bytes());
        assert_eq!(current(&root).unwrap(), Some(beginning));
        root.put("timelines/0000000003/begun.json", &Body::Bytes(GOLDEN.replace("\"format\": 1", "\"format\": 2").into())).unwrap();
        let refused = format!("{:#}", current(&root).unwrap_err());
        assert!(refused.contains("timelines/0000000003/begun.json: format 2 is unknown"), "{refused}");
    }
}
