//! The steps, compiled. Each module is one step: how it is compiled, and what it does to the record in hand.

mod change;
mod dedup;
mod delta;
mod emit;
mod enrich;
mod newer;
mod parse;
mod remove;
mod upsert;
mod validate;

use forebay_crds::pipeline::Step;
use forebay_engine::pipeline::{Verdict, Workspace};

use crate::compile::Compiler;
use crate::document::Document;
use crate::expression::{Expression, Program};
use crate::instance::{Buffers, Failure, Flow, Hand, scope};
use crate::tape::CsvReader;
pub(crate) use change::Scratch;

/// One step.
#[derive(Debug)]
pub(crate) enum CompiledStep {
    Parse(parse::Parse),
    Validate(validate::Validate),
    Dedup(dedup::Dedup),
    Upsert(Box<upsert::Upsert>),
    Remove(remove::Remove),
    Enrich(enrich::Enrich),
    Remap(Box<Program>),
    Filter(Expression),
    Route(emit::Routes),
    Emit(Box<emit::Emit>),
}

/// `None` when something is wrong with it, which is noted.
pub(crate) fn compile(step: &Step, all: &[Step], compiler: &mut Compiler<'_>) -> Option<CompiledStep> {
    Some(match step {
        Step::Parse(spec) => CompiledStep::Parse(parse::Parse::compile(spec, all, compiler)?),
        Step::Validate(spec) => CompiledStep::Validate(validate::Validate::compile(spec, compiler)?),
        Step::Dedup(spec) => CompiledStep::Dedup(dedup::Dedup::compile(spec, compiler)?),
        Step::Upsert(spec) => CompiledStep::Upsert(Box::new(upsert::Upsert::compile(spec, compiler)?)),
        Step::Remove(spec) => CompiledStep::Remove(remove::Remove::compile(spec, compiler)?),
        Step::Enrich(spec) => CompiledStep::Enrich(enrich::Enrich::compile(spec, compiler)?),
        Step::Remap(program) => match Program::compile_remap(&program.text(), &mut compiler.types) {
            Ok(program) => CompiledStep::Remap(Box::new(program)),
            Err(error) => {
                compiler.expression_error("", error);
                return None;
            }
        },
        Step::Filter(expression) => CompiledStep::Filter(compiler.expression("", expression)?),
        Step::Route(spec) => CompiledStep::Route(emit::Routes::compile(spec, compiler)?),
        Step::Emit(spec) => CompiledStep::Emit(Box::new(emit::Emit::compile(spec, "", compiler)?)),
    })
}

/// The reader that a pipeline of CSV needs.
pub(crate) fn csv_reader(steps: &[CompiledStep]) -> Option<CsvReader> {
    steps.iter().find_map(|step| match step {
        CompiledStep::Parse(parse) => parse.csv_reader(),
        _ => None,
    })
}

/// A step that adds to the document puts what it adds only into the text, unless a step behind it looks at it.
pub(crate) fn share_what_later_steps_see(steps: &mut [CompiledStep]) {
    for index in 0..steps.len() {
        let (this, later) = steps[index..].split_first_mut().expect("the index is below the length");
        if let CompiledStep::Enrich(enrich) = this {
            enrich.seen_later = later.iter().any(|step| step.sees(enrich.into.as_str()));
        }
    }
}

impl CompiledStep {
    pub(crate) fn apply(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<Flow, Failure> {
        match self {
            CompiledStep::Parse(step) => return step.apply(hand, workspace),
            CompiledStep::Validate(step) => step.apply(hand)?,
            CompiledStep::Dedup(step) => return step.apply(hand, workspace),
            CompiledStep::Upsert(step) => step.apply(hand, workspace)?,
            CompiledStep::Remove(step) => step.apply(hand, workspace)?,
            CompiledStep::Enrich(step) => step.apply(hand, workspace)?,
            CompiledStep::Remap(program) => remap(program, hand)?,
            CompiledStep::Filter(expression) => {
                if !expression.holds(scope!(hand), &mut hand.buffers.vrl)? {
                    return Ok(Flow::End(Verdict::Filtered));
                }
            }
            CompiledStep::Route(step) => step.apply(hand, workspace)?,
            CompiledStep::Emit(step) => step.apply(hand, workspace)?,
        }
        Ok(Flow::Next)
    }

    /// What it runs in VRL.
    pub(crate) fn programs(&self) -> Vec<&Program> {
        match self {
            CompiledStep::Remap(program) => vec![program],
            _ => self.expressions().into_iter().filter_map(Expression::program).collect(),
        }
    }

    /// Every expression in it, but a `remap` program.
    pub(crate) fn expressions(&self) -> Vec<&Expression> {
        match self {
            CompiledStep::Parse(_) | CompiledStep::Validate(_) | CompiledStep::Remap(_) => vec![],
            CompiledStep::Dedup(step) => step.expressions(),
            CompiledStep::Upsert(step) => step.expressions(),
            CompiledStep::Remove(step) => step.expressions(),
            CompiledStep::Enrich(step) => step.expressions(),
            CompiledStep::Filter(expression) => vec![expression],
            CompiledStep::Route(step) => step.expressions(),
            CompiledStep::Emit(step) => step.expressions(),
        }
    }

    /// Whether it looks at a field of the document, other than by putting it out.
    fn sees(&self, field: &str) -> bool {
        match self {
            // A second enrich may have to write the document anew, the first one's part included.
            CompiledStep::Remap(_) | CompiledStep::Enrich(_) => true,
            CompiledStep::Validate(step) => step.sees(field),
            _ => self.expressions().iter().any(|expression| expression.sees(field)),
        }
    }
}

/// Runs a program; what it leaves is the document from then on, in the order that it had.
fn remap(program: &Program, hand: &mut Hand<'_>) -> Result<(), Failure> {
    hand.buffers.vrl.remap(program, scope!(hand))?;
    let Buffers { vrl, tape, spare_tape, .. } = &mut *hand.buffers;
    vrl.write_to(hand.text, tape, spare_tape)?;
    hand.form = crate::instance::Form::Changed;
    Ok(())
}
