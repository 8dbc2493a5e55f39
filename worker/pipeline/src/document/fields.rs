//! The fields of an entity, in the order in which they came: one run of bytes, as it is stored, changed in place. An entity is in one piece of
//! memory, so that reading it, keeping it and copying it costs little. Entities are small, so a field is looked for one by one.

use std::fmt;

use super::msgpack;
use super::value::{Members, Value};
use crate::bytes::same;

/// What a field is looked for by: the bytes that its name has in a document.
#[derive(Debug)]
pub struct FieldName {
    text: Box<str>,
    bytes: Box<[u8]>,
}

impl From<&str> for FieldName {
    fn from(text: &str) -> Self {
        let mut bytes = Vec::new();
        msgpack::write_text(text.as_bytes(), &mut bytes);
        Self { text: text.into(), bytes: bytes.into() }
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FieldName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Names and values; each name once.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    len: usize,
    bytes: Vec<u8>,
}

/// Where a field lies, until the fields are changed.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    name: usize,
    value: usize,
    end: usize,
}

impl Fields {
    /// The value of a field.
    pub fn get(&self, name: &FieldName) -> Option<Value<'_>> {
        self.place(name, &mut 0).map(|place| self.at(place))
    }

    /// Where a field lies, to look at it and then set it; `None`: it is missing. It is looked for from `near` on first: where the one before it was
    /// found, for fields are asked for in the order in which they once came. Between two of the same row one field may be set or, with the same
    /// `near`, removed.
    pub fn place(&self, wanted: &FieldName, near: &mut usize) -> Option<Place> {
        let found = self.place_between(*near, self.bytes.len(), wanted).or_else(|| self.place_between(0, *near, wanted));
        *near = found.map_or(*near, |place| place.name);
        found
    }

    fn place_between(&self, mut name: usize, end: usize, wanted: &FieldName) -> Option<Place> {
        let (bytes, wanted) = (&self.bytes[..end], &*wanted.bytes);
        while name < bytes.len() {
            let is_found = bytes[name] == wanted[0] && bytes.get(name..name + wanted.len()).is_some_and(|there| same(there, wanted));
            let value = if is_found { name + wanted.len() } else { msgpack::end_of(bytes, name) };
            let end = msgpack::end_of(bytes, value);
            if is_found {
                return Some(Place { name, value, end });
            }
            name = end;
        }
        None
    }

    /// The value at a place.
    pub fn at(&self, place: Place) -> Value<'_> {
        Value::of(&self.bytes[place.value..place.end])
    }

    /// Sets a field, which lies at `place`; a new one comes last. Says whether that changed anything.
    pub fn set(&mut self, name: &FieldName, place: Option<Place>, value: Value<'_>) -> bool {
        match place {
            Some(place) => {
                let is_new = self.at(place) != value;
                if is_new {
                    replace(&mut self.bytes, place.value, place.end, value.bytes());
                }
                is_new
            }
            None => {
                self.bytes.extend_from_slice(&name.bytes);
                self.bytes.extend_from_slice(value.bytes());
                self.len += 1;
                true
            }
        }
    }

    /// Removes a field; says whether it was there. It is looked for from `near` on first, which then says where the one behind it begins:
    /// a place from before means nothing any more.
    pub fn remove(&mut self, name: &FieldName, near: &mut usize) -> bool {
        let place = self.place(name, near);
        if let Some(Place { name, end, .. }) = place {
            replace(&mut self.bytes, name, end, &[]);
            self.len -= 1;
        }
        place.is_some()
    }

    /// Names and values in order.
    pub fn iter(&self) -> Members<'_> {
        Members::new(self.len, &self.bytes)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of an object's members.
    pub(super) fn from_members(members: Members<'_>) -> Self {
        Self { len: members.len(), bytes: members.bytes().to_vec() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Objects have no order when they are compared.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().has_the_same_as(other.iter())
    }
}

/// Puts other bytes in the place of some; those behind move.
fn replace(bytes: &mut Vec<u8>, from: usize, to: usize, new: &[u8]) {
    let (len, end) = (bytes.len(), from + new.len());
    if end > to {
        bytes.resize(len + end - to, 0);
    }
    if end != to {
        bytes.copy_within(to..len, end);
        bytes.truncate(len + end - to);
    }
    bytes[from..end].copy_from_slice(new);
}
