//! One value of the document: reading it, keeping it, writing it.

use std::sync::Arc;

use super::{Doc, Node};
use crate::document::{Array, FieldName, Fields, Text, Value, write_float, write_integer, write_string};

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

    pub(crate) fn is_array(self) -> bool {
        matches!(self.doc.tape.nodes[self.at], Node::Array { .. })
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

    pub(crate) fn to_value(self) -> Value {
        match self.kind() {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(value),
            Kind::Int(number) => Value::Int(number),
            Kind::Float(number) => Value::Float(number),
            Kind::Text(text) => Value::from(text),
            Kind::Array => Value::Array(Arc::new(Array::from(self.elements().map(Item::to_value).collect::<Vec<_>>()))),
            Kind::Object => {
                let mut fields = Fields::with_capacity(self.members().count());
                self.members().for_each(|(name, item)| fields.push_new(Text::from(name), item.to_value()));
                Value::Object(Arc::new(fields))
            }
        }
    }

    /// Whether it is this string.
    pub(crate) fn is_text(self, text: &str) -> bool {
        matches!(self.doc.tape.nodes[self.at], Node::Text(span) if self.doc.bytes(span) == text.as_bytes())
    }

    /// Whether [`Item::to_value`] would be equal to `value`.
    pub(crate) fn equals(self, value: &Value) -> bool {
        match (self.kind(), value) {
            (Kind::Null, Value::Null) => true,
            (Kind::Bool(left), Value::Bool(right)) => left == *right,
            (Kind::Int(left), Value::Int(right)) => left == *right,
            (Kind::Float(left), Value::Float(right)) => left == *right,
            (Kind::Text(left), Value::Text(right)) => left.as_bytes() == right.as_bytes(),
            (Kind::Array, Value::Array(array)) => {
                let mut elements = self.elements();
                array.items().iter().all(|right| elements.next().is_some_and(|left| left.equals(right))) && elements.next().is_none()
            }
            (Kind::Object, Value::Object(fields)) => {
                // In the same order, mostly.
                let same = |((name, left), (there, right)): ((&str, Item<'_>), (&Text, &Value))| {
                    let right = if name.is(there) { Some(right) } else { fields.get(name) };
                    right.is_some_and(|right| left.equals(right))
                };
                self.members().count() == fields.len() && self.members().zip(fields.iter()).all(same)
            }
            _ => false,
        }
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
                && self.doc.bytes(span) == name.as_bytes()
            {
                return Some(at + 1);
            }
            at = self.doc.behind(at + 1);
        }
        None
    }
}
