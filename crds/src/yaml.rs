//! YAML with places: text to a tree whose every node knows where it stands, typed values out of that tree with all their errors, and the
//! way back from a field's path to its place in the file.
//!
//! A tree of our own, because a deserializer that reads the text directly stops at its first error and has forgotten the places by the
//! time that a later phase finds fault with a value.

mod deserialize;
mod error;
mod locate;
mod tree;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::finding::Finding;

pub use locate::Locator;
pub(crate) use tree::{Content, Node};

/// Reads a `T` out of a value that has no place in a file. `Err` lists all that is in its way; paths begin at the value.
pub(crate) fn read_value<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, Vec<Finding>> {
    // JSON is YAML.
    let text = serde_json::to_string(value).expect("what was read from a manifest has string keys only");
    Locator::new(&text, "").map_err(|finding| vec![finding])?.read()
}
