//! The `IngestionJob` and `IngestionSavepoint` resources: their types, how a manifest is read and checked, and what of it may change under a job that has state.
//!
//! A manifest goes through here once: [`parse`] (YAML to the raw resource; errors name file, line and column), then [`validate()`] (to a
//! [`ValidatedJob`], which is all that later phases read). No client, no C library, no file or network access: text in, values out.

pub mod crd;
pub mod finding;
pub mod identity;
pub mod job;
mod manifest;
mod names;
pub mod path;
pub mod pipeline;
pub mod quantity;
mod revision;
pub mod savepoint;
pub mod validate;
mod yaml;

pub use finding::{Finding, Place, did_you_mean};
pub use identity::{InputIdentity, JobIdentity};
pub use job::{IngestionJob, IngestionJobSpec, IngestionJobStatus};
pub use manifest::{Manifest, parse};
pub use path::{Path, Segment};
pub use pipeline::Step;
pub use quantity::{ByteSize, TimeSpan};
pub use revision::revision;
pub use savepoint::IngestionSavepoint;
pub use validate::{ValidatedJob, validate};
pub use yaml::Locator;
