//! One thing that is wrong with a manifest: where, what, and the way out. Everything that checks manifests collects these; nothing in here
//! decides what is wrong.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::path::Path;

/// What is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The field.
    pub path: Path,
    /// Where the trouble starts in the text that stands at `path`, in bytes: for expressions. `None`: the whole field.
    pub offset: Option<usize>,
    /// The place in the file, once a [`crate::Locator`] has looked it up. `None` for a manifest that came from no file.
    pub place: Option<Place>,
    /// What is wrong, with the value where that helps: `0 is too small`.
    pub message: String,
    /// The way out: `write 1 or more`.
    pub help: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file, as the user named it.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
}

impl Finding {
    /// Something is wrong with the field at `path`. `help` is the way out, in words that follow a semicolon: `write 1 or more`.
    pub fn new(path: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { path: path.clone(), offset: None, place: None, message: message.into(), help: help.into() }
    }

    /// Says that the trouble starts at this byte of the text at the path.
    #[must_use]
    pub fn at_offset(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self
    }
}

impl fmt::Display for Finding {
    /// `job.yaml:31:14: spec.pipeline[2].dedup.last: 0 is too small; write 1 or more`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.segments().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for Finding {}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The way out for a name that is not known: the known name that it resembles, or all of them.
pub fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(unknown, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "leave it out".to_owned(),
        None => format!("known here: {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

/// The known name that was probably meant. A third of the letters may be wrong: `dedupe` is `dedup`, `offset` is not `topic`.
pub(crate) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) = known.into_iter().map(|name| (distance(&folded(unknown), &folded(name)), name)).min()?;
    (distance <= unknown.chars().count() / 3).then_some(name)
}

/// `start_from`, `start-from` and `startFrom` are the same mistake.
fn folded(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// Edits that make `a` into `b`: insert, delete, replace, swap neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(from != to)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised_and_a_strange_one_is_not() {
        let known = ["startFrom", "topic", "name"];
        let check = |unknown: &str, expected: &str| assert_eq!(did_you_mean(unknown, known), expected, "{unknown}");
        check("start_from", "did you mean `startFrom`?");
        check("tpoic", "did you mean `topic`?");
        check("topics", "did you mean `topic`?");
        check("Name", "did you mean `name`?");
        check("offset", "known here: `startFrom`, `topic`, `name`");
        assert_eq!(did_you_mean("x", []), "leave it out");
    }

    #[test]
    fn a_finding_is_one_line_that_names_place_field_fault_and_way_out() {
        let path = Path::spec().key("pipeline").index(2).key("dedup").key("last");
        let mut finding = Finding::new(&path, "0 is too small", "write 1 or more");
        assert_eq!(finding.to_string(), "spec.pipeline[2].dedup.last: 0 is too small; write 1 or more");
        finding.place = Some(Place { file: "job.yaml".into(), line: 31, column: 14 });
        assert_eq!(finding.to_string(), "job.yaml:31:14: spec.pipeline[2].dedup.last: 0 is too small; write 1 or more");
        let json = r#"{"path":"spec.pipeline[2].dedup.last","offset":null,"place":{"file":"job.yaml","line":31,"column":14},"message":"0 is too small","help":"write 1 or more"}"#;
        assert_eq!(serde_json::to_string(&finding).unwrap(), json);
    }
}
