//! The document of the record in hand: parsed once into a flat list of nodes that is used again for the next record.
//!
//! Strings stay where they are, in the record's own bytes, unless they had to be unescaped or were added by a step. So parsing allocates
//! nothing, and a document or a container in it that is only passed on is never built again. Field order is kept; a name comes at most once in an
//! object.

mod csv;
mod item;
mod json;
mod rebuild;
#[cfg(test)]
mod tests;

use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::bytes::same;
use crate::document::{Shape, Value};

pub(crate) use csv::CsvReader;
pub(crate) use item::{Item, Kind};

/// The nodes, in the order of the text. An object's members are a key each, followed by its value.
#[derive(Debug)]
pub(crate) struct Tape {
    nodes: Vec<Node>,
    /// Where a key of the document itself lies, by the hash of its name; 0 is none. Of two keys with the same slot the last is there.
    slots: [u32; SLOTS],
    /// Strings that are not in the record's text.
    arena: String,
    /// Of the keys of the objects that are being parsed, innermost last.
    fingerprints: Vec<(u64, u32)>,
}

/// Four times the fields of a usual document, so that few share a slot; a cache line or four to clear.
const SLOTS: usize = 64;

/// A name to look for.
#[derive(Debug)]
pub(crate) struct Name {
    text: Box<str>,
    hash: u64,
}

impl Name {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.into(), hash: hash(text.as_bytes()) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(name);
    hasher.finish()
}

#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
fn slot_of(hash: u64) -> usize {
    hash as usize % SLOTS
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Span),
    /// A member's name; its value follows.
    Key(Span),
    /// A member that a step took away; its value still follows.
    Removed,
    /// Where the node behind it lies; and its text, if that is how it is to be written.
    Array {
        end: u32,
        text: Span,
    },
    Object {
        end: u32,
        text: Span,
    },
}

/// Where a string lies: in the record's text or, marked by the highest bit, in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// No container has it: an empty one has two bytes.
    const NONE: Self = Self { start: 0, len: 0 };

    /// In the record's text.
    fn of(from: usize, to: usize) -> Self {
        Self { start: narrow(from), len: narrow(to - from) }
    }
}

const IN_ARENA: u32 = 1 << 31;

/// Values are below 2 GiB, and so is what is made of one.
fn narrow(at: usize) -> u32 {
    u32::try_from(at).ok().filter(|at| at & IN_ARENA == 0).expect("a record has less than 2 GiB")
}

impl Default for Tape {
    fn default() -> Self {
        Self { nodes: Vec::new(), slots: [0; SLOTS], arena: String::new(), fingerprints: Vec::new() }
    }
}

impl Tape {
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.slots = [0; SLOTS];
        self.arena.clear();
        self.fingerprints.clear();
    }

    /// Adds a member to the document itself. The name must not be there.
    pub(crate) fn append_member(&mut self, name: &str, value: Value<'_>) {
        self.push_own_key(name);
        self.push_value(value);
        self.close_document();
    }

    /// Adds a member whose value is an object of some of `fields`, or null.
    pub(crate) fn append_object<'f>(&mut self, name: &str, members: Option<impl Iterator<Item = (&'f [u8], Value<'f>)>>) {
        let Some(members) = members else {
            return self.append_member(name, Value::NULL);
        };
        self.push_own_key(name);
        let at = self.open();
        for (name, value) in members {
            let key = self.intern(text_of(name));
            self.nodes.push(Node::Key(key));
            self.push_value(value);
        }
        self.close(at, |end| Node::Object { end, text: Span::NONE });
        self.close_document();
    }

    /// The document ends behind what was added.
    fn close_document(&mut self) {
        self.close(0, |end| Node::Object { end, text: Span::NONE });
    }

    /// Takes a member of the document itself away.
    pub(crate) fn remove_member(&mut self, key_at: usize) {
        self.nodes[key_at] = Node::Removed;
    }

    /// Adds a key of the document itself.
    fn push_own_key(&mut self, name: &str) {
        let span = self.intern(name);
        self.slots[slot_of(hash(name.as_bytes()))] = narrow(self.nodes.len());
        self.nodes.push(Node::Key(span));
    }

    fn intern(&mut self, text: &str) -> Span {
        let from = self.arena.len();
        self.arena.push_str(text);
        self.interned_since(from)
    }

    /// All that the arena got since it had so many bytes.
    fn interned_since(&self, from: usize) -> Span {
        Span { start: narrow(from) | IN_ARENA, len: narrow(self.arena.len() - from) }
    }

    /// The place of a container whose end is not known yet.
    fn open(&mut self) -> usize {
        self.nodes.push(Node::Null);
        self.nodes.len() - 1
    }

    fn close(&mut self, at: usize, node: impl FnOnce(u32) -> Node) {
        self.nodes[at] = node(narrow(self.nodes.len()));
    }

    fn push_value(&mut self, value: Value<'_>) {
        match value.shape() {
            Shape::Null => self.nodes.push(Node::Null),
            Shape::Bool(value) => self.nodes.push(Node::Bool(value)),
            Shape::Int(number) => self.nodes.push(Node::Int(number)),
            Shape::Float(number) => self.nodes.push(Node::Float(number)),
            Shape::Text(text) => {
                let span = self.intern(text_of(text));
                self.nodes.push(Node::Text(span));
            }
            Shape::Array(elements) => {
                let at = self.open();
                elements.for_each(|element| self.push_value(element));
                self.close(at, |end| Node::Array { end, text: Span::NONE });
            }
            Shape::Object(members) => {
                let at = self.open();
                for (name, value) in members {
                    let key = self.intern(text_of(name.text()));
                    self.nodes.push(Node::Key(key));
                    self.push_value(value);
                }
                self.close(at, |end| Node::Object { end, text: Span::NONE });
            }
        }
    }
}

/// A string of a document.
fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it was checked when it came in")
}

/// The document with the text that its strings lie in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doc<'a> {
    pub(crate) text: &'a str,
    pub(crate) tape: &'a Tape,
}

impl<'a> Doc<'a> {
    pub(crate) fn root(self) -> Item<'a> {
        Item { doc: self, at: 0 }
    }

    /// The value at a path; `None` when a part of it is missing or no object.
    pub(crate) fn find(self, path: &[Name]) -> Option<Item<'a>> {
        let Some((first, rest)) = path.split_first() else {
            return Some(self.root());
        };
        let own = Item { doc: self, at: self.key_at(first)? + 1 };
        rest.iter().try_fold(own, |item, name| item.member(&name.text))
    }

    /// Where the key of a member of the document itself lies.
    pub(crate) fn key_at(self, name: &Name) -> Option<usize> {
        let at = self.tape.slots[slot_of(name.hash)] as usize;
        match self.tape.nodes[at] {
            // Every key of the document has left a mark in its slot.
            _ if at == 0 => None,
            Node::Key(span) if same(self.bytes(span), name.text.as_bytes()) => Some(at),
            _ => self.root().find_member(&name.text).map(|value_at| value_at - 1),
        }
    }

    fn span(self, span: Span) -> &'a str {
        let (source, start) = self.source(span);
        &source[start..start + span.len as usize]
    }

    /// As [`Doc::span`], without a look at where characters begin.
    fn bytes(self, span: Span) -> &'a [u8] {
        let (source, start) = self.source(span);
        &source.as_bytes()[start..start + span.len as usize]
    }

    fn source(self, span: Span) -> (&'a str, usize) {
        match span.start & IN_ARENA {
            0 => (self.text, span.start as usize),
            _ => (self.tape.arena.as_str(), (span.start & !IN_ARENA) as usize),
        }
    }

    /// Behind the value at `at`.
    fn behind(self, at: usize) -> usize {
        match self.tape.nodes[at] {
            Node::Array { end, .. } | Node::Object { end, .. } => end as usize,
            Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Text(_) | Node::Key(_) | Node::Removed => at + 1,
        }
    }
}
