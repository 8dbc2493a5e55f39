//! What the state holds: a dynamic document, or the memory of a `dedup` step. It knows nothing of records, steps or tables.
//!
//! The engine clones an entity the first time a record changes it, to be able to take the change back, and so does each epoch, to tell what it
//! changed. An entity is one run of bytes, those that the database holds: reading and writing it copies them, and so does a clone.

mod fields;
mod json;
pub(crate) mod msgpack;
mod patch;
mod value;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;

use forebay_engine::patch::PatchWriter;
use forebay_engine::pipeline::Entity;

pub use fields::{FieldName, Fields, Place};
pub(crate) use json::{special_from, write_bytes_string, write_float, write_integer, write_string};
pub use value::{Elements, Members, Shape, Value};
pub use window::{LastWindow, WithinWindow};

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
            Document::Entity { fields, .. } => json::write_members(fields.iter(), into),
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
