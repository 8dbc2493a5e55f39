//! Which parts of the document VRL programs touch: what they read, set or delete. Only those are made for them.

use std::collections::BTreeMap;

use bytes::Bytes;
use vrl::path::{OwnedSegment, OwnedValuePath, PathPrefix};
use vrl::value::Value;

use crate::tape::{Item, Kind};

/// The paths into the document that a compiled program uses.
pub(super) fn paths(program: &vrl::compiler::Program) -> impl Iterator<Item = &OwnedValuePath> {
    let info = program.info();
    let paths = info.target_queries.iter().chain(&info.target_assignments);
    paths.filter(|path| path.prefix == PathPrefix::Event).map(|path| &path.path)
}

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
        let mut touched = Self::default();
        paths(program).for_each(|path| touched.add_path(path));
        touched
    }

    fn add_path(&mut self, path: &OwnedValuePath) {
        let mut names = Vec::new();
        for segment in &path.segments {
            match segment {
                OwnedSegment::Field(name) => names.push(name.as_str()),
                // An index counts elements, so it needs them all.
                OwnedSegment::Index(_) => break,
            }
        }
        self.add_names(&names);
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

    /// Lists what is touched as a whole, each by the names that lead there.
    pub(super) fn list_whole<'t>(&'t self, names: &mut Vec<&'t str>, into: &mut Vec<Vec<&'t str>>) {
        match self {
            Touched::Whole => into.push(names.clone()),
            Touched::Members(members) => {
                for (name, parts) in members {
                    names.push(name);
                    parts.list_whole(names, into);
                    names.pop();
                }
            }
        }
    }

    /// Makes the parts of a value for VRL, with slices of the record's text. What is no object is made whole: VRL may put an object in its place.
    pub(super) fn to_vrl(&self, item: Item<'_>, text: &Bytes) -> Value {
        match (item.kind(), self) {
            (Kind::Object, Touched::Members(members)) => {
                let parts = members.iter().filter_map(|(name, parts)| Some(((**name).into(), parts.to_vrl(item.member(name)?, text))));
                Value::Object(parts.collect())
            }
            (Kind::Object, Touched::Whole) => {
                Value::Object(item.members().map(|(name, item)| (name.into(), self.to_vrl(item, text))).collect())
            }
            (Kind::Array, _) => Value::Array(item.elements().map(|element| Touched::Whole.to_vrl(element, text)).collect()),
            (Kind::Null, _) => Value::Null,
            (Kind::Bool(value), _) => Value::Boolean(value),
            (Kind::Int(number), _) => Value::Integer(number),
            (Kind::Float(number), _) => Value::from_f64_or_zero(number),
            (Kind::Text(string), _) => Value::Bytes(match item.place() {
                Some(place) => text.slice(place),
                None => Bytes::copy_from_slice(string.as_bytes()),
            }),
        }
    }
}
