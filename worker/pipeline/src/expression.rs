//! Expressions of the manifest, compiled: VRL, and a way around it.
//!
//! Those that are only paths, literals, comparisons and logic are evaluated on the document as it was parsed; the rest run in VRL, for which
//! the parts that they touch are converted once per record. Where both are possible they give the same result, but for integers beyond 2⁵³,
//! which VRL compares as floats; and VRL's compiler wants to know types that are checked here when the expression runs (`!.flag`).
//!
//! What an expression can use:
//!
//! - `.field`, `.a.b`: the document; `%key`, `%topic`, `%partition`, `%offset`, `%timestamp` (milliseconds): the record; `%headers.name`;
//! - the whole VRL language, and of its functions those of [`functions`]; `now()` is the epoch's clock. VRL's own library is not built in:
//!   it brings over a hundred crates and C code.
//!
//! An expression may fail while it runs, without `!` or `??`: the record then goes to the dead-letter topic.

pub mod functions;
mod native;
mod operand;
mod parts;
mod touched;
mod vrl_program;

#[cfg(test)]
mod tests;

use forebay_crds::pipeline as spec;
use forebay_engine::ids::Timestamp;
use forebay_engine::record::InputRecord;

use crate::tape::Doc;
use native::Native;
pub(crate) use native::compare;
pub(crate) use operand::{Operand, event_time, instant_of, shorten};
pub(crate) use parts::Layout;
pub(crate) use touched::Touched;
pub(crate) use vrl_program::{Program, Types, Vrl};

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExpressionError {
    /// Bytes from the beginning of the expression.
    pub(crate) offset: Option<usize>,
    pub(crate) message: String,
    pub(crate) help: String,
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    /// As it stands in the manifest, for messages.
    text: Box<str>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Native(Native),
    Vrl(Box<Program>),
}

/// What an expression can see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) doc: Doc<'a>,
    pub(crate) record: &'a InputRecord<'a>,
    pub(crate) topic: &'a str,
    pub(crate) now: Timestamp,
}

impl Expression {
    pub(crate) fn compile(expression: &spec::Expression, types: &Types) -> Result<Self, ExpressionError> {
        let text = expression.text();
        let form = match Native::parse(&text) {
            Some(native) => Form::Native(native),
            None => Form::Vrl(Box::new(Program::compile_expression(&text, types)?)),
        };
        Ok(Self { text: text.into(), form })
    }

    /// The result, or why there is none. What it borrows is the document's and the expression's.
    pub(crate) fn evaluate<'a>(&'a self, scope: Scope<'a>, vrl: &mut Vrl) -> Result<Operand<'a>, String> {
        match &self.form {
            Form::Native(native) => native.evaluate(scope),
            Form::Vrl(program) => vrl.evaluate(program, scope),
        }
        .map_err(|reason| format!("{}: {reason}", self.text))
    }

    /// The result as a condition. Null is false, as in VRL's own `&&`.
    pub(crate) fn holds(&self, scope: Scope<'_>, vrl: &mut Vrl) -> Result<bool, String> {
        match self.evaluate(scope, vrl)? {
            Operand::Bool(holds) => Ok(holds),
            Operand::Null => Ok(false),
            other => Err(format!("{}: the condition is {other}, not true or false", self.text)),
        }
    }

    /// As it stands in the manifest.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What it runs in VRL; `None` when it needs no VRL.
    pub(crate) fn program(&self) -> Option<&Program> {
        match &self.form {
            Form::Native(_) => None,
            Form::Vrl(program) => Some(program),
        }
    }

    /// Whether it can see a field of the document.
    pub(crate) fn sees(&self, field: &str) -> bool {
        match &self.form {
            Form::Native(native) => native.sees(field),
            Form::Vrl(program) => program.touched().touches(field),
        }
    }
}
