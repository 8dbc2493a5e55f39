//! One value of the document: reading it, keeping it, writing it.

use std::ops::Range;

use super::{Doc, IN_ARENA, Node};
use crate::bytes::same;
use crate::document::{msgpack, write_float, write_integer, write_string};

/// One value of the document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(super) doc: Doc<'a>,
    pub(super) at: usize,
}

/// What an item is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Array,
    Object,
}

impl<'a> Item<'a> {
    pub(crate) fn kind(self) -> Kind<'a> {
        match self.doc.tape.nodes[self.at] {
            Node::Null => Kind::Null,
            Node::Bool(value) => Kind::Bool(value),
            Node::Int(number) => Kind::Int(number),
            Node::Float(number) => Kind::Float(number),
            Node::Text(span) => Kind::Text(self.doc.span(span)),
            Node::Array { .. } => Kind::Array,
            Node::Object { .. } => Kind::Object,
            Node::Key(_) | Node::Removed => unreachable!("an item is a value"),
        }
    }

    /// Where a string lies in the record's text, if it does.
    pub(crate) fn place(self) -> Option<Range<usize>> {
        match self.doc.tape.nodes[self.at] {
            Node::Text(span) if span.start & IN_ARENA == 0 => Some(span.start as usize..(span.start + span.len) as usize),
            _ => None,
        }
    }

    pub(crate) fn member(self, name: &str) -> Option<Item<'a>> {
        self.find_member(name).map(|at| Item { at, ..self })
    }

    /// The members of an object; none for anything else.
    pub(crate) fn members(self) -> impl Iterator<Item = (&'a str, Item<'a>)> {
        let end = match self.doc.tape.nodes[self.at] {
            Node::Object { end, .. } => end as usize,
            _ => 0,
        };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            while at < end {
                let key = self.doc.tape.nodes[at];
                let value = Item { at: at + 1, ..self };
                at = self.doc.behind(at + 1);
                if let Node::Key(span) = key {
                    return Some((self.doc.span(span), value));
                }
            }
            None
        })
    }

    /// The elements of an array; none for anything else.
    pub(crate) fn elements(self) -> impl Iterator<Item = Item<'a>> {
        let end = match self.doc.tape.nodes[self.at] {
            Node::Array { end, .. } => end as usize,
            _ => 0,
        };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let element = Item { at, ..self };
                at = self.doc.behind(at);
                element
            })
        })
    }

    /// Appends it as a value of a document.
    pub(crate) fn encode(self, into: &mut Vec<u8>) {
        match self.kind() {
            Kind::Null => into.push(msgpack::NULL),
            Kind::Bool(value) => msgpack::write_bool(value, into),
            Kind::Int(number) => msgpack::write_integer(number, into),
            Kind::Float(number) => msgpack::write_float(number, into),
            Kind::Text(text) => msgpack::write_text(text.as_bytes(), into),
            Kind::Array => {
                msgpack::write_array_header(self.elements().count(), into);
                self.elements().for_each(|element| element.encode(into));
            }
            Kind::Object => {
                msgpack::write_object_header(self.members().count(), into);
                for (name, value) in self.members() {
                    msgpack::write_text(name.as_bytes(), into);
                    value.encode(into);
                }
            }
        }
    }

    /// Whether it is this string.
    pub(crate) fn is_text(self, text: &str) -> bool {
        matches!(self.doc.tape.nodes[self.at], Node::Text(span) if same(self.doc.bytes(span), text.as_bytes()))
    }

    pub(crate) fn write_json(self, into: &mut Vec<u8>) {
        if let Node::Array { text, .. } | Node::Object { text, .. } = self.doc.tape.nodes[self.at]
            && text.len > 0
        {
            return into.extend_from_slice(self.doc.bytes(text));
        }
        match self.kind() {
            Kind::Null => into.extend_from_slice(b"null"),
            Kind::Bool(true) => into.extend_from_slice(b"true"),
            Kind::Bool(false) => into.extend_from_slice(b"false"),
            Kind::Int(number) => write_integer(number, into),
            Kind::Float(number) => write_float(number, into),
            Kind::Text(text) => write_string(text, into),
            Kind::Array => {
                into.push(b'[');
                for (index, element) in self.elements().enumerate() {
                    if index > 0 {
                        into.push(b',');
                    }
                    element.write_json(into);
                }
                into.push(b']');
            }
            Kind::Object => {
                into.push(b'{');
                for (index, (name, value)) in self.members().enumerate() {
                    if index > 0 {
                        into.push(b',');
                    }
                    write_string(name, into);
                    into.push(b':');
                    value.write_json(into);
                }
                into.push(b'}');
            }
        }
    }

    pub(super) fn find_member(self, name: &str) -> Option<usize> {
        let Node::Object { end, .. } = self.doc.tape.nodes[self.at] else {
            return None;
        };
        let mut at = self.at + 1;
        while at < end as usize {
            if let Node::Key(span) = self.doc.tape.nodes[at]
                && same(self.doc.bytes(span), name.as_bytes())
            {
                return Some(at + 1);
            }
            at = self.doc.behind(at + 1);
        }
        None
    }
}
