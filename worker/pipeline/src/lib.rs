//! Forebay's pipeline: a record in; state changes, outputs and a verdict out.
//!
//! [`CompiledPipeline::compile`] turns the steps of a manifest into a form that runs, once per revision; a [`PipelineInstance`] runs it, one per
//! shard, with buffers of its own. Nothing in here does I/O or reads a clock: `now` is the epoch's (I7). A record is atomic: when a step fails
//! it, the engine takes back what it did and it goes to the dead-letter output with the reason ([`dead_letter`]).
//!
//! [`fixture`] runs a pipeline on a list of records without log, disk or clock.

mod bytes;
pub mod compile;
pub mod dead_letter;
pub mod document;
pub mod expression;
pub mod fixture;
pub mod instance;
mod siphash;
mod steps;
mod tape;

pub use compile::{CompileContext, CompileError, CompiledPipeline, InputContext};
pub use document::{Document, Value};
pub use instance::PipelineInstance;
