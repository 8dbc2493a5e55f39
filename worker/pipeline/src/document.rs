//! What the state holds: a dynamic document, or the memory of a `dedup` step. It knows nothing of records, steps or tables.
//!
//! The engine clones an entity the first time a record changes it, to be able to take the change back, so a clone must be cheap: names and
//! short strings lie inside their field, long strings and arrays are shared. Cloning a document costs one allocation, whatever it holds.

mod array;
mod fields;
mod json;
mod msgpack;
mod patch;
mod text;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use forebay_engine::patch::PatchWriter;
use forebay_engine::pipeline::Entity;

pub use array::Array;
pub use fields::{FieldName, Fields};
pub(crate) use json::{special_from, write_bytes_string, write_float, write_integer, write_string};
pub use text::Text;
pub use window::{LastWindow, WithinWindow};

/// A value inside a document. There is no type of its own for times: they are strings or integers, as they came.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; finite.
    Float(f64),
    /// A string.
    Text(Text),
    /// An array, or a set in the order of arrival.
    Array(Arc<Array>),
    /// An object.
    Object(Arc<Fields>),
}

impl Value {
    /// What it is, in words for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Text(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }

    /// Appends it as JSON.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        json::write_value(self, into);
    }

    /// Bytes of memory that it holds outside itself, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
            Value::Text(text) => text.heap_bytes(),
            Value::Array(array) => array.heap_bytes(),
            Value::Object(fields) => fields.heap_bytes(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(Text::from(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

/// One value of the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// An entity.
    Entity {
        /// Its fields.
        fields: Fields,
        /// The event time of the newest `upsert` that has `newerBy`.
        newer_by: Option<i64>,
    },
    /// What `dedup: {last: N}` remembers of a record key.
    Last(LastWindow),
    /// What `dedup: {within: …}` remembers of a record key.
    Within(WithinWindow),
}

impl Default for Document {
    fn default() -> Self {
        Document::Entity { fields: Fields::default(), newer_by: None }
    }
}

impl Document {
    /// The fields of an entity; `None` for the memory of a `dedup` step.
    pub fn fields(&self) -> Option<&Fields> {
        match self {
            Document::Entity { fields, .. } => Some(fields),
            Document::Last(_) | Document::Within(_) => None,
        }
    }

    /// Appends it as JSON: an entity's fields; a `dedup` memory as `{"last": [ids…]}` or `{"within": [[id, clock in ms]…]}`.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        match self {
            Document::Entity { fields, .. } => json::write_fields(fields, into),
            Document::Last(window) => window.write_json(into),
            Document::Within(window) => window.write_json(into),
        }
    }

    /// As [`Document::write_json`], as text.
    pub fn to_json(&self) -> String {
        let mut bytes = Vec::new();
        self.write_json(&mut bytes);
        String::from_utf8(bytes).expect("JSON is written from strings")
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl Entity for Document {
    fn encode(&self, into: &mut Vec<u8>) {
        msgpack::encode(self, into);
    }

    fn encode_patch(&self, old: &Self, patch: &mut PatchWriter<'_>) -> bool {
        patch::write(old, self, patch)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        msgpack::decode(bytes)
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Document::Entity { fields, .. } => fields.heap_bytes(),
                Document::Last(window) => window.heap_bytes(),
                Document::Within(window) => window.heap_bytes(),
            }
    }
}
