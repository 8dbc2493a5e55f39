//! Runs a compiled pipeline on one record after the other. It keeps buffers between records, never anything that a record said.

use std::sync::Arc;

use forebay_engine::ids::Timestamp;
use forebay_engine::partitioner::partition_for_key;
use forebay_engine::pipeline::{Pipeline, Verdict, Workspace};
use forebay_engine::record::InputRecord;
use forebay_engine::state::StateError;
use regex::Regex;

use crate::compile::{CompileContext, CompiledPipeline};
use crate::dead_letter;
use crate::document::Document;
use crate::expression::{Scope, Vrl};
use crate::steps;
use crate::tape::{CsvReader, Doc, Tape};

/// A pipeline for one shard.
#[derive(Debug)]
pub struct PipelineInstance {
    compiled: Arc<CompiledPipeline>,
    buffers: Buffers,
}

impl PipelineInstance {
    /// An instance with buffers of its own.
    pub fn new(compiled: Arc<CompiledPipeline>) -> Self {
        let buffers = Buffers {
            tape: Tape::default(),
            spare_tape: Tape::default(),
            vrl: Vrl::new(Arc::clone(&compiled.layout)),
            csv: steps::csv_reader(&compiled.steps),
            suffix: Vec::new(),
            json: Vec::new(),
            key: Vec::new(),
            built: Vec::new(),
            change: steps::Scratch::default(),
            patterns: compiled.patterns.clone(),
        };
        Self { compiled, buffers }
    }
}

impl Pipeline for PipelineInstance {
    type Entity = Document;

    fn process(&mut self, record: &InputRecord<'_>, workspace: &mut Workspace<'_, Document>) -> Result<Verdict, StateError> {
        let Self { compiled, buffers } = self;
        buffers.vrl.begin_record();
        let mut hand = Hand { context: &compiled.context, record, now: workspace.now(), text: "", form: Form::Original, buffers };
        for (index, step) in compiled.steps.iter().enumerate() {
            match step.apply(&mut hand, workspace) {
                Ok(Flow::Next) => {}
                Ok(Flow::End(verdict)) => return Ok(verdict),
                Err(Failure::State(error)) => return Err(error),
                Err(Failure::Record(reason)) => {
                    workspace.undo();
                    dead_letter::push(&compiled.context, record, index, compiled.names[index], &reason, workspace);
                    return Ok(Verdict::Rejected);
                }
            }
        }
        Ok(Verdict::Processed)
    }
}

/// Where a step leaves the record.
#[derive(Debug)]
pub(crate) enum Flow {
    /// On to the next step.
    Next,
    /// This is what became of it.
    End(Verdict),
}

/// Why a step did not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The record is to blame: it becomes a dead letter with this reason.
    Record(String),
    /// The state store is.
    State(StateError),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Failure::Record(reason)
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Failure::State(error)
    }
}

/// Memory that is used again for each record.
#[derive(Debug)]
pub(crate) struct Buffers {
    pub(crate) tape: Tape,
    pub(crate) spare_tape: Tape,
    pub(crate) vrl: Vrl,
    pub(crate) csv: Option<CsvReader>,
    /// Members that were added behind the record's own text, as JSON, each with a comma in front.
    pub(crate) suffix: Vec<u8>,
    /// The document as JSON, when it is not the record's own text.
    pub(crate) json: Vec<u8>,
    /// An entity's key.
    pub(crate) key: Vec<u8>,
    /// A delta, or an output's key and headers.
    pub(crate) built: Vec<u8>,
    /// What an upsert puts into an entity.
    pub(crate) change: steps::Scratch,
    pub(crate) patterns: Vec<Regex>,
}

/// How the document's JSON comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// It is the record's value.
    Original,
    /// It is the record's value up to the brace at this place, then the suffix, then a brace.
    Extended(usize),
    /// It must be written from the tape.
    Changed,
    /// It was written from the tape.
    Written,
}

/// The record in hand.
pub(crate) struct Hand<'h> {
    pub(crate) context: &'h CompileContext,
    pub(crate) record: &'h InputRecord<'h>,
    pub(crate) now: Timestamp,
    /// The record's value.
    pub(crate) text: &'h str,
    pub(crate) form: Form,
    pub(crate) buffers: &'h mut Buffers,
}

/// What the record in hand shows to expressions. It borrows the tape alone, so that the other buffers can be written meanwhile.
macro_rules! scope {
    ($hand:expr) => {
        $crate::expression::Scope {
            doc: $crate::tape::Doc { text: $hand.text, tape: &$hand.buffers.tape },
            record: $hand.record,
            topic: &$hand.context.inputs[usize::from($hand.record.input.get())].topic,
            now: $hand.now,
        }
    };
}
pub(crate) use scope;

impl Hand<'_> {
    /// The document changed in a way that its text cannot be extended for.
    pub(crate) fn changed(&mut self) {
        self.form = Form::Changed;
        self.buffers.vrl.document_changed();
    }

    /// Makes [`Hand::write_document`] possible.
    pub(crate) fn prepare_document(&mut self) {
        if self.form == Form::Changed {
            self.buffers.json.clear();
            Doc { text: self.text, tape: &self.buffers.tape }.root().write_json(&mut self.buffers.json);
            self.form = Form::Written;
        }
    }

    /// Appends the document as JSON.
    pub(crate) fn write_document(&self, into: &mut Vec<u8>) {
        match self.form {
            Form::Original => into.extend_from_slice(self.text.as_bytes()),
            Form::Extended(brace_at) => {
                into.extend_from_slice(&self.text.as_bytes()[..brace_at]);
                into.extend_from_slice(&self.buffers.suffix);
                into.push(b'}');
            }
            Form::Written => into.extend_from_slice(&self.buffers.json),
            Form::Changed => unreachable!("prepare_document comes first"),
        }
    }
}

/// The key of the entity that a step is about, checked to lie in the record's own partition: the record's key is there by itself.
pub(crate) fn entity_key<'k>(
    expression: Option<&crate::expression::Expression>,
    scope: Scope<'k>,
    context: &CompileContext,
    vrl: &mut Vrl,
    buffer: &'k mut Vec<u8>,
) -> Result<&'k [u8], Failure> {
    let Some(expression) = expression else {
        return scope.record.key.ok_or_else(|| Failure::Record("the record has no key, so there is no entity to speak of".into()));
    };
    buffer.clear();
    let there = expression.evaluate(scope, vrl)?.write_plain(buffer).map_err(|reason| format!("key: {reason}"))?;
    if !there || buffer.is_empty() {
        return Err(Failure::Record(format!("key: {} is null or empty", expression.text())));
    }
    let partitions = context.inputs[usize::from(scope.record.input.get())].partitions;
    let partition = partition_for_key(buffer, partitions);
    if partition != scope.record.partition {
        return Err(Failure::Record(format!(
            "key: {:?} belongs to partition {partition}, but the record came in partition {}: key the input by it",
            String::from_utf8_lossy(buffer),
            scope.record.partition
        )));
    }
    Ok(buffer)
}
