//! From a field's path to its place in the file, down to a character of a text that YAML folded, indented or escaped.

use std::sync::Arc;

use super::deserialize::deserialize;
use super::tree::{Content, Entry, Mark, Node, Style, SyntaxError};
use crate::finding::{Finding, Place};
use crate::path::{Path, Segment};

/// Knows where each field of one manifest stands in its file.
#[derive(Clone, Debug)]
pub struct Locator {
    file: Arc<str>,
    lines: Vec<String>,
    root: Node,
}

impl Locator {
    /// Reads the structure of a file. `file` is the name that findings show.
    pub fn new(source: &str, file: &str) -> Result<Self, Finding> {
        let file: Arc<str> = file.into();
        match Node::parse(source) {
            Ok(root) => Ok(Self { file, lines: source.lines().map(str::to_owned).collect(), root }),
            Err(SyntaxError { path, at, message, help }) => {
                let at = at.unwrap_or(Mark { line: 1, column: 1 });
                let place = Some(Place { file, line: at.line, column: at.column });
                Err(Finding { path, offset: None, place, message, help })
            }
        }
    }

    /// Gives each finding that has none its place in the file, and sorts them by it. A field that is not in the file has the place of what should contain it.
    pub fn locate(&self, findings: &mut [Finding]) {
        for finding in findings.iter_mut().filter(|finding| finding.place.is_none()) {
            let mark = self.mark(&finding.path, finding.offset);
            finding.place = Some(Place { file: self.file.clone(), line: mark.line, column: mark.column });
        }
        findings.sort_by(|a, b| a.place.cmp(&b.place));
    }

    /// The place of a field, or of byte `offset` of the text in it.
    pub fn place(&self, path: &Path, offset: Option<usize>) -> Place {
        let mark = self.mark(path, offset);
        Place { file: self.file.clone(), line: mark.line, column: mark.column }
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    pub(crate) fn read<T: for<'de> serde::Deserialize<'de>>(&self) -> Result<T, Vec<Finding>> {
        deserialize(&self.root, &self.file)
    }

    fn mark(&self, path: &Path, offset: Option<usize>) -> Mark {
        let mut node = &self.root;
        let mut mark = node.start;
        let mut segments = path.segments();
        while let Some((next, next_mark, rest)) = step(node, segments) {
            (node, mark, segments) = (next, next_mark, rest);
        }
        match (&node.content, offset) {
            (Content::Scalar { text, style }, Some(offset)) if segments.is_empty() => self.mark_within(node.start, text, *style, offset),
            _ => mark,
        }
    }

    /// Where byte `offset` of a scalar's text stands in the source. Follows text and source side by side: what YAML leaves out of the text
    /// (indentation, line ends, escapes, quotes) is stepped over in the source.
    fn mark_within(&self, start: Mark, text: &str, style: Style, offset: usize) -> Mark {
        let Some(mut cursor) = Cursor::new(&self.lines, start, text, style) else { return start };
        for (at, wanted) in text.char_indices() {
            cursor.settle(wanted, style);
            if at >= offset {
                return cursor.mark();
            }
            cursor.consume(wanted, style);
        }
        cursor.mark()
    }
}

/// One step towards the path's end: the node, its mark, and what is left of the path.
fn step<'a, 'p>(node: &'a Node, path: &'p [Segment]) -> Option<(&'a Node, Mark, &'p [Segment])> {
    match (&node.content, path.first()?) {
        (Content::Map { entries, .. }, Segment::Key(key)) => {
            if let Some(entry) = entries.iter().find(|entry| entry.key == *key) {
                return Some((&entry.value, entry_mark(entry), &path[1..]));
            }
            // A path that was written as text has lost where a key with dots ends.
            let mut joined = key.clone();
            for (more, segment) in path[1..].iter().enumerate() {
                let Segment::Key(key) = segment else { break };
                joined = format!("{joined}.{key}");
                if let Some(entry) = entries.iter().find(|entry| entry.key == joined) {
                    return Some((&entry.value, entry_mark(entry), &path[more + 2..]));
                }
            }
            None
        }
        (Content::List { items, .. }, Segment::Index(index)) => items.get(*index).map(|(_, item)| (item, item.start, &path[1..])),
        _ => None,
    }
}

/// What a reader looks for: the value where it stands beside its key, the key where the value is a block below it.
fn entry_mark(entry: &Entry) -> Mark {
    match &entry.value.content {
        Content::Scalar { style: Style::Literal | Style::Folded, .. } => entry.key_start,
        Content::Scalar { text, style: Style::Plain } if text.is_empty() => entry.key_start,
        Content::List { flow: false, .. } | Content::Map { flow: false, .. } => entry.key_start,
        Content::Scalar { .. } | Content::List { .. } | Content::Map { .. } => entry.value.start,
    }
}

/// A position in the source that follows a scalar's text.
struct Cursor<'a> {
    lines: &'a [String],
    line: usize,
    /// In bytes within the line.
    column: usize,
    /// Bytes of indentation that are not text; of block scalars only. Other styles leave out all of it.
    indent: Option<usize>,
}

impl<'a> Cursor<'a> {
    fn new(lines: &'a [String], start: Mark, text: &str, style: Style) -> Option<Self> {
        let line = start.line as usize - 1;
        let first = lines.get(line)?;
        let column = first.char_indices().nth(start.column as usize - 1).map_or(first.len(), |(at, _)| at);
        let cursor = Self { lines, line, column, indent: None };
        match style {
            Style::Plain => Some(cursor),
            Style::SingleQuoted | Style::DoubleQuoted => {
                let quoted = cursor.rest().starts_with(['"', '\'']);
                Some(Self { column: column + usize::from(quoted), ..cursor })
            }
            Style::Literal | Style::Folded => {
                // The mark is at the `|`, or already at the first line that is not blank.
                let skipped = text.len() - text.trim_start_matches('\n').len();
                let content = if cursor.rest().starts_with(['|', '>']) { line + 1 + skipped } else { line };
                let source = lines.get(content)?;
                let leading = |text: &str| text.len() - text.trim_start_matches(' ').len();
                let indent = leading(source).saturating_sub(leading(&text[skipped..]));
                let line = content.saturating_sub(skipped);
                Some(Self { lines, line, column: indent.min(lines.get(line)?.len()), indent: Some(indent) })
            }
        }
    }

    fn mark(&self) -> Mark {
        let column = self.lines.get(self.line).map_or(0, |line| line[..self.column].chars().count());
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Mark { line: number(self.line + 1), column: number(column + 1) }
    }

    fn rest(&self) -> &'a str {
        self.lines.get(self.line).map_or("", |line| &line[self.column..])
    }

    /// Steps over what is not text, up to where `wanted` stands.
    fn settle(&mut self, wanted: char, style: Style) {
        if style == Style::DoubleQuoted && self.rest() == "\\" {
            self.next_line();
        }
        // A line end in the text stands for a line end in the source, or, folded, for a space.
        while wanted != '\n' && wanted != ' ' && self.rest().trim().is_empty() && self.line + 1 < self.lines.len() {
            self.next_line();
        }
    }

    fn consume(&mut self, wanted: char, style: Style) {
        let rest = self.rest();
        match style {
            Style::SingleQuoted if rest.starts_with("''") => self.column += 2,
            Style::DoubleQuoted if rest.starts_with('\\') => self.column += escape_length(rest),
            _ if wanted == '\n' || (wanted == ' ' && rest.trim().is_empty()) => self.next_line(),
            _ => self.column += rest.chars().next().map_or(0, char::len_utf8),
        }
    }

    fn next_line(&mut self) {
        let Some(line) = self.lines.get(self.line + 1) else { return };
        self.line += 1;
        let leading = line.len() - line.trim_start_matches([' ', '\t']).len();
        self.column = self.indent.map_or(leading, |indent| indent.min(leading));
    }
}

/// The bytes of an escape in a double-quoted scalar: `\n`, `\x41`, `\u00e9`, `\U0001f600`.
fn escape_length(rest: &str) -> usize {
    let digits = match rest.as_bytes().get(1) {
        Some(b'x') => 2,
        Some(b'u') => 4,
        Some(b'U') => 8,
        Some(_) | None => 0,
    };
    let escaped = rest.chars().nth(1).map_or(0, char::len_utf8);
    (1 + escaped + digits).min(rest.len())
}
