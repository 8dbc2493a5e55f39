//! One value inside a document, where it lies in the document's bytes ([`super::msgpack`]): reading never builds anything.

use super::{json, msgpack};

/// A value: exactly its bytes, which were checked when they came in, or written by this crate.
#[derive(Clone, Copy)]
pub struct Value<'a>(&'a [u8]);

/// What a value is. There is no type of its own for times: they are strings or integers, as they came.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; finite.
    Float(f64),
    /// A string: UTF-8.
    Text(&'a [u8]),
    /// An array, or a set in the order of arrival.
    Array(Elements<'a>),
    /// An object.
    Object(Members<'a>),
}

impl<'a> Value<'a> {
    /// Null.
    pub const NULL: Value<'static> = Value(&[msgpack::NULL]);

    /// The bytes must be those of one value, whole.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// What it is.
    pub fn shape(self) -> Shape<'a> {
        msgpack::shape_of(self.0)
    }

    /// What it is, in words for messages.
    pub fn kind(self) -> &'static str {
        match self.shape() {
            Shape::Null => "null",
            Shape::Bool(_) => "a boolean",
            Shape::Int(_) => "an integer",
            Shape::Float(_) => "a number",
            Shape::Text(_) => "a string",
            Shape::Array(_) => "an array",
            Shape::Object(_) => "an object",
        }
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0 == Value::NULL.0
    }

    /// Appends it as JSON.
    pub fn write_json(self, into: &mut Vec<u8>) {
        json::write_value(self, into);
    }

    /// The text of a string; empty for anything else.
    pub(crate) fn text(self) -> &'a [u8] {
        match self.shape() {
            Shape::Text(text) => text,
            Shape::Null | Shape::Bool(_) | Shape::Int(_) | Shape::Float(_) | Shape::Array(_) | Shape::Object(_) => &[],
        }
    }
}

/// Of the same type and equal: 1 is not 1.0. Objects have no order.
impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        if self.0 == other.0 {
            return true;
        }
        match (self.shape(), other.shape()) {
            (Shape::Float(left), Shape::Float(right)) => left == right,
            (Shape::Array(left), Shape::Array(right)) => left.len() == right.len() && left.eq(right),
            (Shape::Object(left), Shape::Object(right)) => left.has_the_same_as(right),
            // Of all others equal ones have equal bytes.
            _ => false,
        }
    }
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut json = Vec::new();
        self.write_json(&mut json);
        f.write_str(&String::from_utf8_lossy(&json))
    }
}

/// Values that lie one behind the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elements<'a> {
    len: usize,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// `bytes` are those of `len` values.
    pub(super) fn new(len: usize, bytes: &'a [u8]) -> Self {
        Self { len, rest: bytes }
    }

    /// This one alone.
    pub(crate) fn one(value: Value<'a>) -> Self {
        Self { len: 1, rest: value.bytes() }
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of those that are left.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.len = self.len.checked_sub(1)?;
        let (value, rest) = self.rest.split_at(msgpack::end_of(self.rest, 0));
        self.rest = rest;
        Some(Value(value))
    }
}

/// Names and values of an object, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Members<'a>(Elements<'a>);

impl<'a> Members<'a> {
    /// `bytes` are those of `len` names and values in turn.
    pub(super) fn new(len: usize, bytes: &'a [u8]) -> Self {
        Self(Elements::new(2 * len, bytes))
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.0.len / 2
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of those that are left.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.0.rest
    }

    /// Whether both have the same names with equal values, in whatever order.
    pub(super) fn has_the_same_as(self, other: Self) -> bool {
        self.len() == other.len()
            && self.zip(other).all(|((name, value), (there, its))| {
                // In the same order, mostly.
                let its = if name.bytes() == there.bytes() { Some(its) } else { other.find(name) };
                its == Some(value)
            })
    }

    fn find(mut self, wanted: Value<'_>) -> Option<Value<'a>> {
        self.find_map(|(name, value)| (name.bytes() == wanted.bytes()).then_some(value))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<(Value<'a>, Value<'a>)> {
        Some((self.0.next()?, self.0.next()?))
    }
}
