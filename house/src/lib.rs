//! The habits of this house as checks: how source files look, which crate may depend on which, that documents do not lie.
//!
//! Each check is a pure function from text to findings and has a unit test that sees it fail; `tests/habits.rs` runs all of them on the
//! repository. Nothing in here is part of the product, and nothing may depend on it.

pub mod dependencies;
pub mod documents;
pub mod repository;
pub mod sources;
pub mod toolchain;
pub mod words;
