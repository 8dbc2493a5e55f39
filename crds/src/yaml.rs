//! YAML with places: text to a tree whose every node knows where it stands, typed values out of that tree with all their errors, and the
//! way back from a field's path to its place in the file.
//!
//! A tree of our own, because a deserializer that reads the text directly stops at its first error and has forgotten the places by the
//! time that a later phase finds fault with a value.

mod deserialize;
mod error;
mod locate;
mod tree;

pub use locate::Locator;
pub(crate) use tree::{Content, Node};
