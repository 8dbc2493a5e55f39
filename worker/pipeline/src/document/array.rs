//! Arrays, which are sets too: members in the order of arrival, found by hash when there are many.

use std::hash::Hasher;
use std::sync::OnceLock;

use rustc_hash::FxHasher;

use super::{Value, json};

/// From this many members on a set is searched by hash: below, comparing is as fast.
const HASHED_FROM: usize = 16;

/// The elements of an array, with what makes it fast: both are made when first needed and kept up to date where that is cheap.
#[derive(Clone, Debug, Default)]
pub struct Array {
    items: Vec<Value>,
    /// Hash of each item.
    hashes: OnceLock<Vec<u64>>,
    /// The items as JSON, without the brackets: an enriched record repeats them unchanged most of the time.
    json: OnceLock<Vec<u8>>,
}

impl Array {
    /// The elements in order.
    pub fn items(&self) -> &[Value] {
        &self.items
    }

    /// Whether `value` is among them.
    pub fn contains(&self, value: &Value) -> bool {
        self.position(value).is_some()
    }

    /// Appends an element.
    pub fn push(&mut self, value: Value) {
        if let Some(hashes) = self.hashes.get_mut() {
            hashes.push(hash(&value));
        }
        if let Some(bytes) = self.json.get_mut() {
            if !self.items.is_empty() {
                bytes.push(b',');
            }
            json::write_value(&value, bytes);
        }
        self.items.push(value);
    }

    /// Removes the first element that equals `value`; says whether there was one.
    pub fn remove(&mut self, value: &Value) -> bool {
        let position = self.position(value);
        if let Some(at) = position {
            self.items.remove(at);
            self.forget();
        }
        position.is_some()
    }

    /// Removes the oldest elements until at most `len` are left.
    pub fn keep_newest(&mut self, len: usize) {
        if self.items.len() > len {
            self.items.drain(..self.items.len() - len);
            self.forget();
        }
    }

    /// Appends it as JSON.
    pub fn write_json(&self, into: &mut Vec<u8>) {
        let bytes = self.json.get_or_init(|| {
            let mut bytes = Vec::new();
            for (index, item) in self.items.iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                json::write_value(item, &mut bytes);
            }
            bytes
        });
        into.push(b'[');
        into.extend_from_slice(bytes);
        into.push(b']');
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let items: usize = self.items.iter().map(Value::heap_bytes).sum();
        let made = self.hashes.get().map_or(0, |hashes| hashes.capacity() * 8) + self.json.get().map_or(0, Vec::capacity);
        size_of::<Self>() + self.items.capacity() * size_of::<Value>() + items + made
    }

    fn position(&self, value: &Value) -> Option<usize> {
        if self.items.len() < HASHED_FROM {
            return self.items.iter().position(|item| item == value);
        }
        let wanted = hash(value);
        let hashes = self.hashes.get_or_init(|| self.items.iter().map(hash).collect());
        let candidates = hashes.iter().enumerate().filter(|(_, hash)| **hash == wanted);
        candidates.map(|(at, _)| at).find(|at| self.items[*at] == *value)
    }

    fn forget(&mut self) {
        self.hashes = OnceLock::new();
        self.json = OnceLock::new();
    }
}

impl From<Vec<Value>> for Array {
    fn from(items: Vec<Value>) -> Self {
        Self { items, hashes: OnceLock::new(), json: OnceLock::new() }
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items
    }
}

/// Equal values have equal hashes. It never leaves memory.
fn hash(value: &Value) -> u64 {
    let mut hasher = FxHasher::default();
    match value {
        Value::Null => hasher.write_u8(0),
        Value::Bool(value) => hasher.write_u8(1 + u8::from(*value)),
        Value::Int(value) => hasher.write_i64(*value),
        // 0.0 and -0.0 are equal.
        Value::Float(value) => hasher.write_u64((value + 0.0).to_bits()),
        Value::Text(text) => hasher.write(text.as_bytes()),
        Value::Array(array) => hasher.write_usize(array.items.len()),
        Value::Object(fields) => hasher.write_usize(fields.len()),
    }
    hasher.finish()
}
