//! The tree: YAML's structure, with a mark on each node. Scalars stay text until somebody asks for a type.
//!
//! Aliases are copied out, within a limit. What `kubectl` reads differently (YAML 1.1's `yes`, `no`, `on`, `off`) is refused, so that a
//! manifest means the same here and there.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle, Tag};

use crate::path::Path;

/// The API server takes no objects above 1.5 MiB; a manifest near that is a mistake.
const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Four times what a manifest of `SOURCE_BYTES_MAX` could need without aliases; stops aliases of aliases.
const NODES_MAX: usize = 1 << 20;
/// Deeper than any schema here, and shallow enough for recursion.
const DEPTH_MAX: usize = 64;

/// A place in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub content: Content,
    pub start: Mark,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Scalar {
        text: String,
        style: Style,
    },
    List {
        /// Each with its index in the source: elements can be taken out without renaming the others.
        items: Vec<(usize, Node)>,
        flow: bool,
    },
    Map {
        entries: Vec<Entry>,
        flow: bool,
        /// Keys of entries that were taken out, so that their absence is not reported as well.
        pruned: Vec<String>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_start: Mark,
    pub value: Node,
}

/// How a scalar is written; decides how its text maps to places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
}

/// Text that is no tree.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    /// The field that it stands in; the root where the text has no structure to tell by.
    pub path: Path,
    pub at: Option<Mark>,
    pub message: String,
    pub help: String,
}

impl SyntaxError {
    fn in_field(mut self, path: &Path) -> Self {
        self.path = path.clone();
        self
    }
}

impl Node {
    /// Reads the one document of a source.
    pub fn parse(source: &str) -> Result<Self, SyntaxError> {
        if source.len() > SOURCE_BYTES_MAX {
            let message = format!("the file holds {} bytes, a manifest at most {SOURCE_BYTES_MAX}", source.len());
            return Err(SyntaxError { path: Path::root(), at: None, message, help: "is this the right file?".into() });
        }
        Reader { parser: Parser::new_from_str(source), anchors: HashMap::new(), nodes: 0, path: Path::root() }.documents()
    }

    /// The value of a map's key.
    pub fn get(&self, wanted: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map { entries, .. } => entries.iter().find(|entry| entry.key == wanted),
            Content::Scalar { .. } | Content::List { .. } => None,
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// The field that is being read.
    path: Path,
}

impl<'a> Reader<'a> {
    fn documents(mut self) -> Result<Node, SyntaxError> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => {
                    let mark = mark(&span);
                    let node = self.node(event, &span, 0)?;
                    if is_empty(&node) {
                        continue;
                    }
                    if document.replace(node).is_some() {
                        return Err(error(mark, "a second document starts here", "keep one job per file"));
                    }
                }
            }
        }
        document.ok_or_else(|| SyntaxError {
            path: Path::root(),
            at: None,
            message: "the file is empty".into(),
            help: "start with `apiVersion: forebay.dev/v1alpha1`".into(),
        })
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..) | Event::Anchor(..), _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(scan)) => return Err(syntax(&scan)),
                None => return Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, SyntaxError> {
        let start = mark(span);
        if depth > DEPTH_MAX {
            return Err(error(start, "the nesting is too deep", format!("keep it below {DEPTH_MAX} levels")).in_field(&self.path));
        }
        self.count(1, start)?;
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = style_of(style, tag.as_deref(), start).map_err(|error| error.in_field(&self.path))?;
                if style == Style::Plain {
                    check_plain(&text, start).map_err(|error| error.in_field(&self.path))?;
                }
                (anchor, Node { content: Content::Scalar { text: text.into_owned(), style }, start })
            }
            Event::SequenceStart(style, anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", start).map_err(|error| error.in_field(&self.path))?;
                (anchor, Node { content: self.list(style == StructureStyle::Flow, depth)?, start })
            }
            Event::MappingStart(style, anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", start).map_err(|error| error.in_field(&self.path))?;
                (anchor, Node { content: self.map(style == StructureStyle::Flow, depth)?, start })
            }
            Event::Alias(id) => {
                let message = "an anchor cannot contain itself";
                let node = self.anchors.get(&id).cloned().ok_or_else(|| error(start, message, "write the value out"))?;
                self.count(size(&node), start)?;
                return Ok(node);
            }
            // The reader asks for neither, and the structure above leaves no room for the rest.
            other => return Err(error(start, format!("unexpected {other:?}"), "check the indentation")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, flow: bool, depth: usize) -> Result<Content, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Content::List { items, flow });
            }
            let list = self.path.clone();
            self.path = list.index(items.len());
            items.push((items.len(), self.node(event, &span, depth + 1)?));
            self.path = list;
        }
    }

    fn map(&mut self, flow: bool, depth: usize) -> Result<Content, SyntaxError> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Content::Map { entries, flow, pruned: Vec::new() });
            }
            let key_start = mark(&span);
            let Content::Scalar { text: key, .. } = self.node(event, &span, depth + 1)?.content else {
                return Err(error(key_start, "a key must be plain text", "put quotes around text that holds { or [").in_field(&self.path));
            };
            let map = self.path.clone();
            self.path = map.key(&key);
            if key == "<<" {
                return Err(error(key_start, "merge keys are not read", "write the fields out").in_field(&map));
            }
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let message = format!("the key `{key}` stands here again; it is in line {} already", first.key_start.line);
                return Err(error(key_start, message, "delete one of them").in_field(&self.path));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            self.path = map;
            entries.push(Entry { key, key_start, value });
        }
    }

    fn count(&mut self, nodes: usize, at: Mark) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        match self.nodes <= NODES_MAX {
            true => Ok(()),
            false => Err(error(at, "the aliases make this manifest too large", "write fewer of them")),
        }
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::Scalar { .. } => 0,
        Content::List { items, .. } => items.iter().map(|(_, item)| size(item)).sum(),
        Content::Map { entries, .. } => entries.iter().map(|entry| 1 + size(&entry.value)).sum(),
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.content, Content::Scalar { text, style: Style::Plain } if text.is_empty() || text == "~")
}

fn mark(span: &Span) -> Mark {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: number(span.start.line()), column: number(span.start.col()).saturating_add(1) }
}

fn error(at: Mark, message: impl Into<String>, help: impl Into<String>) -> SyntaxError {
    SyntaxError { path: Path::root(), at: Some(at), message: message.into(), help: help.into() }
}

fn syntax(scan: &ScanError) -> SyntaxError {
    let at = mark(&Span::empty(*scan.marker()));
    let info = scan.info();
    let help = match info.contains("tab") {
        true => "indent with spaces",
        false => "check the indentation, and put quotes around text that holds `: ` or ` #` or starts with a sign",
    };
    error(at, format!("this is not YAML: {info}"), help)
}

/// A `!!str` tag makes a plain scalar text; other tags have no meaning in a manifest.
fn style_of(style: ScalarStyle, tag: Option<&Tag>, at: Mark) -> Result<Style, SyntaxError> {
    refuse_tag(tag, "str", at)?;
    Ok(match style {
        ScalarStyle::Plain if tag.is_some() => Style::SingleQuoted,
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    })
}

fn refuse_tag(tag: Option<&Tag>, allowed: &str, at: Mark) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(allowed) => {
            Err(error(at, format!("the tag {} means nothing here", tag.original()), "delete it"))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_plain(text: &str, at: Mark) -> Result<(), SyntaxError> {
    let lower = text.to_ascii_lowercase();
    let is_switch = matches!(lower.as_str(), "y" | "n" | "yes" | "no" | "on" | "off");
    if is_switch {
        let value = matches!(lower.as_str(), "y" | "yes" | "on");
        let help = format!("write \"{text}\" with quotes for the text, or {value}");
        return Err(error(at, format!("kubectl reads {text} as {value}"), help));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error(at, format!("kubectl reads {text} as an octal number"), "put quotes around text, or delete the leading 0"));
    }
    Ok(())
}
