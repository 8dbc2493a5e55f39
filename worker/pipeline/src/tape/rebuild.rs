//! What a VRL program left, told to the document: single values where they stand; else by a tape that is made anew, in the order of the document before it, for VRL sorts
//! an object's names.
//!
//! The program saw only the parts of the document that it touches; the rest is copied from the tape before it. So is what it did not change,
//! with the text that it is written as.

use vrl::value::{ObjectMap, Value};

use super::{Doc, IN_ARENA, Item, Kind, Name, Node, Span, Tape, narrow};
use crate::expression::Touched;

impl Tape {
    /// Carries changes out where they stand: what lies at a path is set, `None` removes it. `false`, and nothing is done, when one of them needs room: it is no
    /// single value and another than was there, or a member of an inner object that was not there. The paths are in their order, and none leads into another.
    pub(crate) fn change<'c>(&mut self, text: &str, changes: impl Iterator<Item = (&'c [Name], Option<&'c Value>)> + Clone) -> bool {
        let doc = Doc { text, tape: self };
        if !changes.clone().all(|(path, value)| has_room(doc, path, value)) {
            return false;
        }
        for (path, value) in changes {
            let (last, around) = path.split_last().expect("the document itself has no room");
            let item = Doc { text, tape: self }.find(path);
            if item.zip(value).is_some_and(|(item, value)| is_unchanged(item, value, &Touched::Whole)) {
                continue;
            }
            let at = item.map(|item| item.at);
            let node = value.map(|value| self.node_of(value).expect("what is no single value has no room"));
            match (at, node) {
                (Some(at), Some(node)) => self.nodes[at] = node,
                (Some(at), None) => self.nodes[at - 1] = Node::Removed,
                (None, Some(node)) => {
                    self.push_own_key(last.as_str());
                    self.nodes.push(node);
                    self.close_document();
                }
                (None, None) => {}
            }
            // The text of what lies around is not how it is to be written any more.
            for depth in 0..=around.len() {
                if let Some(at) = (Doc { text, tape: self }).find(&around[..depth]).map(|item| item.at)
                    && let Node::Object { text, .. } = &mut self.nodes[at]
                {
                    *text = Span::NONE;
                }
            }
        }
        true
    }

    /// The node of a single value; `None` for an object or an array.
    fn node_of(&mut self, value: &Value) -> Option<Node> {
        Some(match value {
            Value::Null => Node::Null,
            Value::Boolean(value) => Node::Bool(*value),
            Value::Integer(number) => Node::Int(*number),
            // JSON has no infinity; VRL can make one by dividing.
            Value::Float(number) if !number.is_finite() => Node::Null,
            Value::Float(number) => Node::Float(number.into_inner()),
            Value::Bytes(_) | Value::String(_) | Value::Regex(_) | Value::Timestamp(_) => Node::Text(self.intern(&value.to_string_lossy())),
            Value::Object(_) | Value::Array(_) => return None,
        })
    }

    /// Reads a VRL object that holds the touched parts. Members that were in `before` keep their order, new ones follow in the order of their
    /// names.
    pub(crate) fn rebuild(&mut self, members: &ObjectMap, touched: &Touched, before: Doc<'_>) {
        self.clear();
        self.push_object(members, touched, Some(before.root()), true);
    }

    fn push_object(&mut self, members: &ObjectMap, touched: &Touched, before: Option<Item<'_>>, is_document: bool) {
        let at = self.open();
        for (name, item) in before.into_iter().flat_map(Item::members) {
            let Some(parts) = parts_of(touched, name) else {
                self.push_key(name, is_document);
                self.copy(item);
                continue;
            };
            if let Some(value) = members.get(name) {
                self.push_key(name, is_document);
                self.push_vrl(value, parts, Some(item));
            }
        }
        for (name, value) in members {
            if before.is_none_or(|item| item.member(name).is_none()) {
                self.push_key(name, is_document);
                self.push_vrl(value, &Touched::Whole, None);
            }
        }
        self.close(at, |end| Node::Object { end, text: Span::NONE });
    }

    fn push_key(&mut self, name: &str, is_own: bool) {
        if is_own {
            self.push_own_key(name);
        } else {
            let key = self.intern(name);
            self.nodes.push(Node::Key(key));
        }
    }

    fn push_vrl(&mut self, value: &Value, touched: &Touched, before: Option<Item<'_>>) {
        if let Some(item) = before
            && is_unchanged(item, value, touched)
        {
            return self.copy(item);
        }
        if let Some(node) = self.node_of(value) {
            return self.nodes.push(node);
        }
        match value {
            Value::Object(members) => {
                self.push_object(members, touched, before.filter(|item| matches!(item.kind(), Kind::Object)), false);
            }
            Value::Array(items) => {
                let at = self.open();
                let mut old = before.into_iter().flat_map(Item::elements);
                items.iter().for_each(|item| self.push_vrl(item, &Touched::Whole, old.next()));
                self.close(at, |end| Node::Array { end, text: Span::NONE });
            }
            _ => unreachable!("it is no single value"),
        }
    }

    /// Copies a value from another tape over the same text.
    fn copy(&mut self, item: Item<'_>) {
        let Item { doc, at } = item;
        let (from, to) = (narrow(at), narrow(self.nodes.len()));
        for &node in &doc.tape.nodes[at..doc.behind(at)] {
            let moved = |end: u32| end - from + to;
            let node = match node {
                Node::Text(span) => Node::Text(self.carry(span, doc)),
                Node::Key(span) => Node::Key(self.carry(span, doc)),
                Node::Array { end, text } => Node::Array { end: moved(end), text: self.carry(text, doc) },
                Node::Object { end, text } => Node::Object { end: moved(end), text: self.carry(text, doc) },
                Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Removed => node,
            };
            self.nodes.push(node);
        }
    }

    fn carry(&mut self, span: Span, from: Doc<'_>) -> Span {
        if span.start & IN_ARENA == 0 { span } else { self.intern(from.span(span)) }
    }
}

/// Whether a change can be carried out where it stands.
fn has_room(doc: Doc<'_>, path: &[Name], value: Option<&Value>) -> bool {
    let is_single = |value: &Value| !matches!(value, Value::Object(_) | Value::Array(_));
    match (doc.find(path), value) {
        _ if path.is_empty() => false,
        (Some(item), Some(value)) => {
            is_unchanged(item, value, &Touched::Whole) || (is_single(value) && !matches!(item.kind(), Kind::Object | Kind::Array))
        }
        (Some(_), None) => true,
        // At the document's end there is room.
        (None, value) => path.len() == 1 && value.is_none_or(is_single),
    }
}

/// The parts of a member that are touched; `None` when it is not touched at all.
fn parts_of<'t>(touched: &'t Touched, name: &str) -> Option<&'t Touched> {
    match touched {
        Touched::Whole => Some(touched),
        Touched::Members(members) => members.get(name),
    }
}

/// Whether a value that VRL left is the one that it was given.
fn is_unchanged(item: Item<'_>, value: &Value, touched: &Touched) -> bool {
    match (item.kind(), value) {
        (Kind::Null, Value::Null) => true,
        (Kind::Bool(before), Value::Boolean(after)) => before == *after,
        (Kind::Int(before), Value::Integer(after)) => before == *after,
        (Kind::Float(before), Value::Float(after)) => before.to_bits() == after.into_inner().to_bits(),
        (Kind::Text(before), Value::Bytes(after)) => before.as_bytes() == after.as_ref(),
        (Kind::Array, Value::Array(after)) => {
            item.elements().count() == after.len()
                && item.elements().zip(after).all(|(item, value)| is_unchanged(item, value, &Touched::Whole))
        }
        (Kind::Object, Value::Object(after)) => {
            let mut members = item.members().filter_map(|(name, item)| Some((name, item, parts_of(touched, name)?)));
            let mut known = 0;
            let same = members.by_ref().all(|(name, item, parts)| {
                known += 1;
                after.get(name).is_some_and(|value| is_unchanged(item, value, parts))
            });
            same && known == after.len()
        }
        _ => false,
    }
}
