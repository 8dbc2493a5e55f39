//! What an expression gives: borrowed from the document where it can be, so that most results cost nothing.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp as Instant;

use crate::document::{Value, msgpack, write_float, write_integer, write_string};
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
    /// An array or an object that an expression made, as the bytes that it has in a document.
    Made(Vec<u8>),
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
            V::Object(_) | V::Array(_) => {
                let mut bytes = Vec::new();
                encode_vrl(value, &mut bytes);
                Operand::Made(bytes)
            }
        }
    }
}

fn encode_vrl(value: vrl::value::Value, into: &mut Vec<u8>) {
    use vrl::value::Value as V;
    match value {
        V::Object(members) => {
            msgpack::write_object_header(members.len(), into);
            for (name, value) in members {
                msgpack::write_text(name.as_bytes(), into);
                encode_vrl(value, into);
            }
        }
        V::Array(items) => {
            msgpack::write_array_header(items.len(), into);
            items.into_iter().for_each(|item| encode_vrl(item, into));
        }
        single => Operand::from(single).encode(into),
    }
}

impl Operand<'_> {
    /// Appends it as a value of a document.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Operand::Null => into.push(msgpack::NULL),
            Operand::Bool(value) => msgpack::write_bool(*value, into),
            Operand::Int(number) => msgpack::write_integer(*number, into),
            Operand::Float(number) => msgpack::write_float(*number, into),
            Operand::Text(text) => msgpack::write_text(text.as_bytes(), into),
            Operand::Item(item) => item.encode(into),
            Operand::Made(bytes) => into.extend_from_slice(bytes),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Operand::Null)
    }

    /// Whether it is the same value, of the same type: 1 is not 1.0.
    pub(crate) fn is_same(&self, other: &Operand<'_>) -> bool {
        let [mut left, mut right] = [Vec::new(), Vec::new()];
        self.encode(&mut left);
        other.encode(&mut right);
        Value::of(&left) == Value::of(&right)
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
            Operand::Made(bytes) => Value::of(bytes).write_json(into),
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
            Operand::Made(bytes) => f.write_str(Value::of(bytes).kind()),
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
