//! The histories of a job, as its object store has them: each but the first was begun by a rewind. `timelines/<number>/reserved.json` gives a number to one
//! attempt at a rewind, which then owns the prefix and the journal of that number; `timelines/<number>/begun.json` is written last, and the highest that
//! has one is what the job is in. Both are create-only.

use anyhow::Context;
use forebay_engine::ids::Timeline;
use forebay_engine::store::{Body, ObjectStore, Put};
use serde::{Deserialize, Serialize};

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

/// All that have begun, in order.
pub fn all(root: &dyn ObjectStore) -> anyhow::Result<Vec<Beginning>> {
    let mut keys: Vec<String> =
        root.list(FOLDER)?.into_iter().map(|object| object.key).filter(|key| key.ends_with(&format!("/{BEGUN}"))).collect();
    keys.sort();
    keys.iter().map(|key| read(root, key).with_context(|| format!("object {key}"))).collect()
}

/// The one that the job is in; `None`: the first one.
pub fn current(root: &dyn ObjectStore) -> anyhow::Result<Option<Beginning>> {
    Ok(all(root)?.pop())
}

/// A number that no attempt has had.
pub fn reserve(root: &dyn ObjectStore, rewind: &str) -> anyhow::Result<Timeline> {
    for _ in 0..ATTEMPTS {
        let taken = root.list(FOLDER)?.into_iter().filter_map(|object| number(&object.key)).max().unwrap_or(0);
        let timeline = Timeline::new(taken + 1);
        let text = serde_json::json!({ "format": FORMAT, "rewind": rewind }).to_string();
        if root.put(&key(timeline, RESERVED), &Body::Bytes(text.into()))? == Put::Created {
            return Ok(timeline);
        }
    }
    anyhow::bail!("reserve a timeline: other rewinds keep being faster; ask for one after another")
}

/// From now on the job is in it, unless another one with a higher number has begun.
pub fn begin(root: &dyn ObjectStore, beginning: &Beginning) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(beginning).expect("a beginning has string keys only");
    // One that is there already is our own, whose reply was lost: the number is nobody else's.
    root.put(&key(beginning.timeline, BEGUN), &Body::Bytes(text))?;
    Ok(())
}

fn read(root: &dyn ObjectStore, key: &str) -> anyhow::Result<Beginning> {
    let beginning: Beginning = serde_json::from_slice(&root.get(key)?)?;
    let Beginning { format, .. } = beginning;
    anyhow::ensure!(
        format == FORMAT,
        "format {format} is unknown to this version, which reads format {FORMAT}; use the version that wrote it"
    );
    Ok(beginning)
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
