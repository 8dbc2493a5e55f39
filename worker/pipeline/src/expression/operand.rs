//! What an expression gives: borrowed from the document where it can be, so that most results cost nothing.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp as Instant;

use crate::document::{Array, Fields, Text, Value, write_float, write_integer, write_string};
use crate::tape::{Item, Kind};

/// A result.
#[derive(Clone, Debug)]
pub(crate) enum Operand<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// An array or an object of the document.
    Item(Item<'a>),
    /// An array or an object that an expression made.
    Made(Value),
}

impl<'a> From<Item<'a>> for Operand<'a> {
    fn from(item: Item<'a>) -> Self {
        match item.kind() {
            Kind::Null => Operand::Null,
            Kind::Bool(value) => Operand::Bool(value),
            Kind::Int(number) => Operand::Int(number),
            Kind::Float(number) => Operand::Float(number),
            Kind::Text(text) => Operand::Text(Cow::Borrowed(text)),
            Kind::Array | Kind::Object => Operand::Item(item),
        }
    }
}

impl From<vrl::value::Value> for Operand<'_> {
    fn from(value: vrl::value::Value) -> Self {
        use vrl::value::Value as V;
        match value {
            V::Null => Operand::Null,
            V::Boolean(value) => Operand::Bool(value),
            V::Integer(number) => Operand::Int(number),
            V::Float(number) if !number.is_finite() => Operand::Null,
            V::Float(number) => Operand::Float(number.into_inner()),
            V::Bytes(_) | V::String(_) | V::Regex(_) | V::Timestamp(_) => Operand::Text(Cow::Owned(value.to_string_lossy().into_owned())),
            V::Object(members) => {
                let mut fields = Fields::default();
                for (name, value) in members {
                    fields.push_new(Text::from(name.as_str()), Operand::from(value).into_value());
                }
                Operand::Made(Value::Object(Arc::new(fields)))
            }
            V::Array(items) => {
                let items: Vec<_> = items.into_iter().map(|item| Operand::from(item).into_value()).collect();
                Operand::Made(Value::Array(Arc::new(Array::from(items))))
            }
        }
    }
}

impl Operand<'_> {
    /// As a value to keep.
    pub(crate) fn into_value(self) -> Value {
        match self {
            Operand::Null => Value::Null,
            Operand::Bool(value) => Value::Bool(value),
            Operand::Int(number) => Value::Int(number),
            Operand::Float(number) => Value::Float(number),
            Operand::Text(text) => Value::from(&*text),
            Operand::Item(item) => item.to_value(),
            Operand::Made(value) => value,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Operand::Null)
    }

    /// Whether it is the same value, of the same type: 1 is not 1.0.
    pub(crate) fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Operand::Null, Value::Null) => true,
            (Operand::Bool(left), Value::Bool(right)) => left == right,
            (Operand::Int(left), Value::Int(right)) => left == right,
            (Operand::Float(left), Value::Float(right)) => left == right,
            (Operand::Text(left), Value::Text(right)) => left.as_bytes() == right.as_bytes(),
            (Operand::Item(item), value) => item.equals(value),
            (Operand::Made(left), right) => left == right,
            _ => false,
        }
    }

    /// Appends it as JSON.
    pub(crate) fn write_json(&self, into: &mut Vec<u8>) {
        match self {
            Operand::Null => into.extend_from_slice(b"null"),
            Operand::Bool(value) => into.extend_from_slice(if *value { b"true" } else { b"false" }),
            Operand::Int(number) => write_integer(*number, into),
            Operand::Float(number) => write_float(*number, into),
            Operand::Text(text) => write_string(text, into),
            Operand::Item(item) => item.write_json(into),
            Operand::Made(value) => value.write_json(into),
        }
    }

    /// Appends it as plain text, for keys and headers; false for null. `Err` for arrays and objects.
    pub(crate) fn write_plain(&self, into: &mut Vec<u8>) -> Result<bool, String> {
        match self {
            Operand::Null => return Ok(false),
            Operand::Text(text) => into.extend_from_slice(text.as_bytes()),
            Operand::Bool(_) | Operand::Int(_) | Operand::Float(_) => self.write_json(into),
            Operand::Item(_) | Operand::Made(_) => return Err(format!("{self} cannot be written as plain text")),
        }
        Ok(true)
    }

    /// Appends bytes that no other value has: for identity.
    pub(crate) fn write_identity(&self, into: &mut Vec<u8>) {
        let mut tagged = |tag: u8, bytes: &[u8]| {
            into.push(tag);
            into.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            into.extend_from_slice(bytes);
        };
        match self {
            Operand::Null => tagged(0, &[]),
            Operand::Bool(value) => tagged(1, &[u8::from(*value)]),
            Operand::Int(number) => tagged(2, &number.to_le_bytes()),
            Operand::Float(number) => tagged(3, &number.to_le_bytes()),
            Operand::Text(text) => tagged(4, text.as_bytes()),
            Operand::Item(_) | Operand::Made(_) => {
                let mut json = Vec::new();
                self.write_json(&mut json);
                tagged(5, &json);
            }
        }
    }
}

/// For messages: what it is, and its value if that is short.
impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Null => f.write_str("null"),
            Operand::Bool(value) => value.fmt(f),
            Operand::Int(number) => number.fmt(f),
            Operand::Float(number) => number.fmt(f),
            Operand::Text(text) => shorten(text).fmt(f),
            Operand::Item(item) => f.write_str(if matches!(item.kind(), Kind::Array) { "an array" } else { "an object" }),
            Operand::Made(value) => f.write_str(value.kind()),
        }
    }
}

/// A string in quotes, cut so that a message stays readable.
pub(crate) fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{:?}… ({} bytes)", &text[..at], text.len()),
        None => format!("{text:?}"),
    }
}

/// Reads RFC 3339: a date, a time and a zone.
pub(crate) fn instant_of(text: &str) -> Option<Instant> {
    // Anything shorter has no zone; jiff alone takes more than RFC 3339 has.
    let bytes = text.as_bytes();
    let dated = bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && matches!(bytes[10], b'T' | b't' | b' ');
    let timed = dated && bytes[13] == b':' && bytes[16] == b':';
    let zoned = matches!(bytes, [.., b'Z' | b'z'] | [.., b'+' | b'-', _, _, b':', _, _]);
    if timed && zoned { text.parse().ok() } else { None }
}

/// A time to compare: an integer as it is, RFC 3339 in microseconds.
pub(crate) fn event_time(operand: &Operand<'_>) -> Option<i64> {
    match operand {
        Operand::Int(number) => Some(*number),
        Operand::Text(text) => instant_of(text).map(Instant::as_microsecond),
        _ => None,
    }
}
