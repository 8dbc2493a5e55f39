//! A tape from what a VRL program left, in the order of the document before it: VRL sorts an object's names.

use vrl::value::{ObjectMap, Value};

use super::{Doc, Item, Kind, Node, Span, Tape};

impl Tape {
    /// Reads a VRL object. Members that were in `before` keep their order, new ones follow in the order of their names.
    pub(crate) fn rebuild(&mut self, members: &ObjectMap, before: Doc<'_>) {
        self.clear();
        self.push_object(members, Some(before.root()), true);
    }

    fn push_object(&mut self, members: &ObjectMap, before: Option<Item<'_>>, is_document: bool) {
        let at = self.open();
        let known = before.into_iter().flat_map(Item::members);
        for (name, item) in known {
            if let Some(value) = members.get(name) {
                self.push_member(name, value, Some(item), is_document);
            }
        }
        for (name, value) in members {
            if before.is_none_or(|item| item.member(name).is_none()) {
                self.push_member(name, value, None, is_document);
            }
        }
        self.close(at, |end| Node::Object { end, text: Span::NONE });
    }

    fn push_member(&mut self, name: &str, value: &Value, before: Option<Item<'_>>, is_own: bool) {
        if is_own {
            self.push_own_key(name);
        } else {
            let key = self.intern(name);
            self.nodes.push(Node::Key(key));
        }
        self.push_vrl(value, before);
    }

    fn push_vrl(&mut self, value: &Value, before: Option<Item<'_>>) {
        match value {
            Value::Null => self.nodes.push(Node::Null),
            Value::Boolean(value) => self.nodes.push(Node::Bool(*value)),
            Value::Integer(number) => self.nodes.push(Node::Int(*number)),
            // JSON has no infinity; VRL can make one by dividing.
            Value::Float(number) if !number.is_finite() => self.nodes.push(Node::Null),
            Value::Float(number) => self.nodes.push(Node::Float(number.into_inner())),
            Value::Object(members) => self.push_object(members, before.filter(|item| matches!(item.kind(), Kind::Object)), false),
            Value::Array(items) => {
                let at = self.open();
                let mut old = before.into_iter().flat_map(Item::elements);
                items.iter().for_each(|item| self.push_vrl(item, old.next()));
                self.close(at, |end| Node::Array { end, text: Span::NONE });
            }
            Value::Bytes(_) | Value::String(_) | Value::Regex(_) | Value::Timestamp(_) => {
                let span = self.intern(&value.to_string_lossy());
                self.nodes.push(Node::Text(span));
            }
        }
    }
}
