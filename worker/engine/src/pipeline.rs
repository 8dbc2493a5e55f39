//! What the engine asks of a pipeline: one record in; state changes, outputs and a verdict out.

use crate::patch::PatchWriter;
use crate::record::InputRecord;
pub use crate::shard::Workspace;
use crate::state::StateError;

/// What became of a record: exactly one of these is counted for each (I8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It went through to the end.
    Processed,
    /// It went to the dead-letter output, whole, with the reason.
    Rejected,
    /// Seen before.
    Duplicate,
    /// A filter left it out.
    Filtered,
    /// Over a limit.
    Throttled,
}

/// A value of state in decoded form. It is decoded once when it is first touched and encoded once per epoch in which it changes.
pub trait Entity: Clone + Send + 'static {
    /// Appends the self-describing encoding, format version in front.
    fn encode(&self, into: &mut Vec<u8>);

    /// Tells `patch` how this one's encoding follows from `old`'s. False: it did not, and the journal holds the whole value.
    fn encode_patch(&self, old: &Self, patch: &mut PatchWriter<'_>) -> bool {
        let _ = (old, patch);
        false
    }

    /// The inverse of [`Entity::encode`]. `Err` says what is wrong with the bytes.
    fn decode(bytes: &[u8]) -> Result<Self, String>;

    /// About how many bytes of memory it holds: the cache is bounded by the sum (I9).
    fn weight(&self) -> usize;
}

/// The steps of a job, compiled. One instance per shard; it may keep scratch buffers, but nothing that outlives a record: all memory is in
/// the workspace, so that an epoch can be dropped and processed again.
pub trait Pipeline: Send {
    /// The values of its state.
    type Entity: Entity;

    /// Processes one record. A record that fails is the pipeline's to handle: [`Workspace::undo`], then the dead letter, then
    /// [`Verdict::Rejected`]. `Err` is for a state store that failed: the shard stops.
    fn process(&mut self, record: &InputRecord<'_>, workspace: &mut Workspace<'_, Self::Entity>) -> Result<Verdict, StateError>;
}
