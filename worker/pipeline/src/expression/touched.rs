//! Which parts of the document VRL programs touch: what they read, set or delete. Only those are made for them.

use std::collections::BTreeMap;

use vrl::path::{OwnedSegment, OwnedTargetPath, PathPrefix};
use vrl::value::Value;

use crate::tape::{Item, Kind};

/// Parts of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// All of it.
    Whole,
    /// If it is an object, these members, each in these parts.
    Members(BTreeMap<Box<str>, Touched>),
}

impl Default for Touched {
    fn default() -> Self {
        Touched::Members(BTreeMap::new())
    }
}

impl Touched {
    /// What a compiled program touches.
    pub(super) fn by(program: &vrl::compiler::Program) -> Self {
        let info = program.info();
        let mut touched = Self::default();
        info.target_queries.iter().chain(&info.target_assignments).for_each(|path| touched.add_path(path));
        touched
    }

    fn add_path(&mut self, path: &OwnedTargetPath) {
        if path.prefix == PathPrefix::Event {
            let mut names = Vec::new();
            for segment in &path.path.segments {
                match segment {
                    OwnedSegment::Field(name) => names.push(name.as_str()),
                    // An index counts elements, so it needs them all.
                    OwnedSegment::Index(_) => break,
                }
            }
            self.add_names(&names);
        }
    }

    fn add_names(&mut self, names: &[&str]) {
        match (&mut *self, names) {
            (Touched::Whole, _) => {}
            (_, []) => *self = Touched::Whole,
            (Touched::Members(members), [first, rest @ ..]) => members.entry((*first).into()).or_default().add_names(rest),
        }
    }

    /// Adds what `other` touches.
    pub(crate) fn add(&mut self, other: &Touched) {
        match (&mut *self, other) {
            (Touched::Whole, _) => {}
            (_, Touched::Whole) => *self = Touched::Whole,
            (Touched::Members(members), Touched::Members(others)) => {
                others.iter().for_each(|(name, other)| members.entry(name.clone()).or_default().add(other));
            }
        }
    }

    /// Whether it touches a member of the value.
    pub(crate) fn touches(&self, name: &str) -> bool {
        match self {
            Touched::Whole => true,
            Touched::Members(members) => members.contains_key(name),
        }
    }

    /// Makes the parts of a value for VRL. What is no object is made whole: VRL may put an object in its place.
    pub(super) fn to_vrl(&self, item: Item<'_>) -> Value {
        match (item.kind(), self) {
            (Kind::Object, Touched::Members(members)) => {
                let parts = members.iter().filter_map(|(name, parts)| Some(((**name).into(), parts.to_vrl(item.member(name)?))));
                Value::Object(parts.collect())
            }
            (Kind::Object, Touched::Whole) => Value::Object(item.members().map(|(name, item)| (name.into(), self.to_vrl(item))).collect()),
            (Kind::Array, _) => Value::Array(item.elements().map(|element| Touched::Whole.to_vrl(element)).collect()),
            (Kind::Null, _) => Value::Null,
            (Kind::Bool(value), _) => Value::Boolean(value),
            (Kind::Int(number), _) => Value::Integer(number),
            (Kind::Float(number), _) => Value::from_f64_or_zero(number),
            (Kind::Text(text), _) => Value::Bytes(bytes::Bytes::copy_from_slice(text.as_bytes())),
        }
    }
}
