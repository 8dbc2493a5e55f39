//! From the steps of a manifest to a pipeline that runs. All that can be wrong is found here, with its place; nothing here touches a record.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_crds::pipeline::{Step, check_steps};
use forebay_engine::ids::{OutputId, TableId, Timestamp};
use forebay_engine::log::TimestampLimits;
use regex::Regex;

use crate::expression::{Expression, ExpressionError, Layout, Types};
use crate::steps::{self, CompiledStep};

/// Where the steps lie in a manifest.
const PATH: &str = "spec.pipeline";

/// What the pipeline must know of its job.
#[derive(Clone, Debug)]
pub struct CompileContext {
    /// The id of each output topic.
    pub outputs: BTreeMap<String, OutputId>,
    /// The id of each state table.
    pub tables: BTreeMap<String, TableId>,
    /// The dead-letter output.
    pub dead_letter: OutputId,
    /// The inputs; `InputId` is the index.
    pub inputs: Vec<InputContext>,
    /// The job's name, for dead letters.
    pub job: String,
    /// The revision, for dead letters.
    pub revision: String,
    /// What the process was made from besides the manifest (its image above all), as its operator calls it; for dead letters. `None` where nobody told it.
    pub template: Option<String>,
    /// The most bytes that an output record may have (key, value and headers): what the topics take. A record that would make a larger one is
    /// a dead letter, whose own value is cut to this.
    pub record_bytes_max: usize,
    /// What time stamps the outputs take; `OutputId` is the index, and one that is not there takes all. A record that would make another is a
    /// dead letter, whose own is the nearest that its topic takes.
    pub timestamp_limits: Vec<TimestampLimits>,
}

impl CompileContext {
    /// What an output record's time stamp must be so that its topic takes it: this one, or the nearest. None, which is 0 or less for Kafka's clients, is taken by all.
    pub(crate) fn nearest_timestamp(&self, output: OutputId, timestamp: Timestamp, now: Timestamp) -> Timestamp {
        let limits = self.timestamp_limits.get(usize::from(output.get())).filter(|_| timestamp.as_millis() > 0);
        limits.map_or(timestamp, |limits| limits.nearest(timestamp, now))
    }
}

/// One input topic.
#[derive(Clone, Debug)]
pub struct InputContext {
    /// The topic's name.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: u32,
}

/// Something wrong in a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}; {help}")]
pub struct CompileError {
    /// Where: `spec.pipeline[3].upsert.set.carrier`.
    pub path: String,
    /// In an expression: bytes from its beginning.
    pub offset: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// A pipeline that runs; shared by the shards of a worker.
#[derive(Debug)]
pub struct CompiledPipeline {
    pub(crate) steps: Vec<CompiledStep>,
    /// The names of the steps, for dead letters.
    pub(crate) names: Vec<&'static str>,
    pub(crate) context: CompileContext,
    /// Of `validate`; each shard clones them, since one regular expression that is shared by threads has a lock in it.
    pub(crate) patterns: Vec<Regex>,
    /// The parts of the document that VRL programs touch.
    pub(crate) layout: Arc<Layout>,
}

impl CompiledPipeline {
    /// Compiles all steps. `Err` holds everything that is wrong, not only the first.
    pub fn compile(steps: &[Step], context: CompileContext) -> Result<Arc<Self>, Vec<CompileError>> {
        let mut compiler = Compiler::new(&context, steps);
        let mut compiled = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            compiler.path = format!("{PATH}[{index}].{}", step.name());
            compiled.extend(steps::compile(step, steps, &mut compiler));
        }
        if !compiler.errors.is_empty() {
            return Err(compiler.errors);
        }
        steps::share_what_later_steps_see(&mut compiled);
        let patterns = compiler.patterns;
        let layout = Arc::new(Layout::of(compiled.iter().flat_map(CompiledStep::programs)));
        let names = steps.iter().map(Step::name).collect();
        Ok(Arc::new(Self { steps: compiled, names, context, patterns, layout }))
    }
}

/// What the steps need while they are compiled.
pub(crate) struct Compiler<'c> {
    context: &'c CompileContext,
    errors: Vec<CompileError>,
    /// Where the step in hand lies.
    path: String,
    /// What the steps before it promise.
    pub(crate) types: Types,
    patterns: Vec<Regex>,
}

impl<'c> Compiler<'c> {
    fn new(context: &'c CompileContext, steps: &[Step]) -> Self {
        let findings = check_steps(steps, PATH).into_iter();
        let errors =
            findings.map(|finding| CompileError { path: finding.path, offset: None, message: finding.message, help: finding.help });
        Self { context, errors: errors.collect(), path: String::new(), types: Types::default(), patterns: Vec::new() }
    }

    /// Compiles the expression at `place`, a path below the step; `None` when it is wrong, which is noted.
    pub(crate) fn expression(&mut self, place: &str, expression: &forebay_crds::pipeline::Expression) -> Option<Expression> {
        Expression::compile(expression, &self.types).map_err(|error| self.expression_error(place, error)).ok()
    }

    /// As [`Compiler::expression`] for one that need not be there.
    pub(crate) fn optional(&mut self, place: &str, expression: Option<&forebay_crds::pipeline::Expression>) -> Option<Expression> {
        expression.and_then(|expression| self.expression(place, expression))
    }

    pub(crate) fn expression_error(&mut self, place: &str, error: ExpressionError) {
        let path = format!("{}{place}", self.path);
        self.errors.push(CompileError { path, offset: error.offset, message: error.message, help: error.help });
    }

    pub(crate) fn error(&mut self, place: &str, message: String, help: &str) {
        self.errors.push(CompileError { path: format!("{}{place}", self.path), offset: None, message, help: help.to_owned() });
    }

    /// Compiles a regular expression and gives its index.
    pub(crate) fn pattern(&mut self, place: &str, pattern: &str) -> Option<usize> {
        match Regex::new(pattern) {
            Ok(regex) => {
                self.patterns.push(regex);
                Some(self.patterns.len() - 1)
            }
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.error(place, format!("{pattern:?} is no regular expression: {reason}"), "see docs.rs/regex for the syntax");
                None
            }
        }
    }

    pub(crate) fn output(&mut self, place: &str, topic: &str) -> Option<OutputId> {
        let output = self.context.outputs.get(topic).copied();
        if output.is_none() {
            self.error(place, format!("topic {topic:?} is not among the job's outputs"), "this is a bug: please report it");
        }
        output
    }

    pub(crate) fn table(&mut self, place: &str, table: &str) -> Option<TableId> {
        let id = self.context.tables.get(table).copied();
        if id.is_none() {
            self.error(place, format!("table {table:?} is not among the job's tables"), "this is a bug: please report it");
        }
        id
    }
}
