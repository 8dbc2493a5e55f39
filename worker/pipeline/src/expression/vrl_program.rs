//! VRL programs: compiling them with the types that `validate` promises, and running them on the record in hand.

use std::sync::Arc;

use forebay_crds::pipeline::{FieldRule, FieldType};
use forebay_engine::ids::Timestamp;
use vrl::compiler::conversion::Conversion;
use vrl::compiler::runtime::Runtime;
use vrl::compiler::state::ExternalEnv;
use vrl::compiler::{CompileConfig, TimeZone, TypeState};
use vrl::diagnostic::DiagnosticList;
use vrl::path::{OwnedTargetPath, OwnedValuePath, PathPrefix};
use vrl::value::kind::Collection;
use vrl::value::{Kind, ObjectMap, Secrets, Value};

use super::parts::{Hand, Layout, Parts};
use super::{ExpressionError, Operand, Scope, Touched, functions, touched};
use crate::tape::{Name, Tape};

/// The code of VRL's "this may fail and nothing handles it".
const UNHANDLED: usize = 100;

/// More of an expression in its error's message would hide the message.
const SNIPPET_BYTES_MAX: usize = 60;

/// Where the clock lies for `now()`.
pub(super) const NOW: &str = "now";

/// A compiled program.
#[derive(Debug)]
pub(crate) struct Program {
    program: vrl::compiler::Program,
    /// Whether its result is a pair of the result and an error.
    paired: bool,
    /// Whether it reads more of `%` than the clock.
    reads_record: bool,
    touched: Touched,
}

/// What is known about the document's fields at a step.
#[derive(Clone, Debug)]
pub(crate) struct Types(ExternalEnv);

impl Default for Types {
    fn default() -> Self {
        let record = [
            ("key", Kind::bytes().or_null()),
            ("topic", Kind::bytes()),
            ("partition", Kind::integer()),
            ("offset", Kind::integer()),
            ("timestamp", Kind::integer()),
            ("headers", Kind::object(Collection::any())),
            (NOW, Kind::timestamp()),
        ];
        let mut metadata = Kind::object(Collection::any());
        for (name, kind) in record {
            metadata.insert(&OwnedValuePath::single_field(name), kind);
        }
        Self(ExternalEnv::new_with_kind(Kind::object(Collection::any()), metadata))
    }
}

impl Types {
    /// From here on the field is as the rule says.
    pub(crate) fn learn(&mut self, path: &[Name], rule: &FieldRule) {
        let Some(kind) = rule.kind else { return };
        let kind = match kind {
            FieldType::String | FieldType::Timestamp => Kind::bytes(),
            FieldType::Integer => Kind::integer(),
            FieldType::Number => Kind::integer().or_float(),
            FieldType::Boolean => Kind::boolean(),
            FieldType::Array => Kind::array(Collection::any()),
            FieldType::Object => Kind::object(Collection::any()),
        };
        let kind = if rule.required { kind } else { kind.or_null().or_undefined() };
        let mut value_path = OwnedValuePath::root();
        path.iter().for_each(|name| value_path.push_field(name.as_str()));
        // A field inside an object that may not be there says nothing about the object.
        if path.len() == 1 || rule.required {
            self.set(&value_path, kind);
        }
    }

    /// From here on nothing is known about the field.
    pub(crate) fn forget(&mut self, field: &str) {
        self.set(&OwnedValuePath::single_field(field), Kind::any());
    }

    fn set(&mut self, path: &OwnedValuePath, kind: Kind) {
        let mut target = self.0.target_kind().clone();
        target.insert(path, kind);
        self.0 = ExternalEnv::new_with_kind(target, self.0.metadata_kind().clone());
    }
}

impl Program {
    /// Compiles an expression. It must not change the document; it may fail while it runs.
    pub(crate) fn compile_expression(source: &str, types: &Types) -> Result<Self, ExpressionError> {
        let read_only = [OwnedTargetPath::event_root(), OwnedTargetPath::metadata_root()];
        match compile(source, types, &read_only) {
            Ok(program) => Ok(Self::new(program, false)),
            // VRL wants every error handled; here the dead-letter topic handles them.
            Err(errors) if errors.iter().all(|error| error.code == UNHANDLED) => {
                let paired = format!("forebay_result, forebay_error = {{\n{source}\n}}\n[forebay_result, forebay_error]");
                let program = compile(&paired, types, &read_only).map_err(|_| describe(&errors, source))?;
                Ok(Self::new(program, true))
            }
            Err(errors) => Err(describe(&errors, source)),
        }
    }

    /// Compiles the program of a `remap` step, and learns what it leaves.
    pub(crate) fn compile_remap(source: &str, types: &mut Types) -> Result<Self, ExpressionError> {
        let program = compile(source, types, &[OwnedTargetPath::metadata_root()]).map_err(|errors| describe(&errors, source))?;
        types.0 = program.final_type_info().state.external;
        Ok(Self::new(program, false))
    }

    fn new(program: vrl::compiler::Program, paired: bool) -> Self {
        let reads_record = program.info().target_queries.iter().any(|path| path.prefix == PathPrefix::Metadata);
        let touched = Touched::by(&program);
        Self { program, paired, reads_record, touched }
    }

    /// The paths into the document that it uses.
    pub(super) fn paths(&self) -> impl Iterator<Item = &OwnedValuePath> {
        touched::paths(&self.program)
    }

    /// The parts of the document that it touches.
    pub(crate) fn touched(&self) -> &Touched {
        &self.touched
    }
}

fn compile(source: &str, types: &Types, read_only: &[OwnedTargetPath]) -> Result<vrl::compiler::Program, DiagnosticList> {
    let mut config = CompileConfig::default();
    config.disable_unused_expression_check();
    for path in read_only {
        config.set_read_only_path(path.clone(), true);
    }
    let state = TypeState { external: types.0.clone(), ..TypeState::default() };
    vrl::compiler::compile_with_state(source, &functions::all(), &state, config).map(|compiled| compiled.program)
}

/// The first error, in one line, with what VRL advises.
fn describe(errors: &DiagnosticList, source: &str) -> ExpressionError {
    let Some(error) = errors.iter().find(|error| error.is_problem()) else {
        return ExpressionError { offset: None, message: "it cannot be compiled".into(), help: "simplify it".into() };
    };
    let primary = error.labels.iter().find(|label| label.primary).or(error.labels.first());
    let mut message = error.message.clone();
    if let Some(label) = primary {
        if !message.contains(&label.message) {
            message = format!("{message}: {}", label.message);
        }
        if let Some(snippet) = source.get(label.span.range()).filter(|snippet| !snippet.is_empty() && snippet.len() <= SNIPPET_BYTES_MAX) {
            message = format!("{message}: `{snippet}`");
        }
    }
    let contexts = error.labels.iter().filter(|label| !label.primary).map(|label| label.message.clone());
    let notes = error.notes.iter().map(ToString::to_string);
    let advice: Vec<String> = contexts.chain(notes).map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    let help = if advice.is_empty() { "see the VRL reference, vrl.dev".to_owned() } else { advice.join("; ") };
    let offset = primary.map(|label| label.span.start().min(source.len()));
    ExpressionError { offset, message: message.replace('\n', " "), help: help.replace('\n', " ") }
}

/// The record in hand as VRL sees it. Made when the first program needs it, and then used by all.
#[derive(Debug)]
pub(crate) struct Vrl {
    layout: Arc<Layout>,
    runtime: Runtime,
    parts: Parts,
    metadata: Value,
    record_ready: bool,
    clock: Option<Timestamp>,
    secrets: Secrets,
}

impl Vrl {
    pub(crate) fn new(layout: Arc<Layout>) -> Self {
        Self {
            runtime: Runtime::default(),
            parts: Parts::new(&layout),
            layout,
            metadata: Value::Object(ObjectMap::new()),
            record_ready: false,
            clock: None,
            secrets: Secrets::new(),
        }
    }

    /// A new record is in hand.
    pub(crate) fn begin_record(&mut self) {
        self.parts.begin_record();
        self.record_ready = false;
    }

    /// A step changed the document.
    pub(crate) fn document_changed(&mut self) {
        self.parts.forget();
    }

    pub(super) fn evaluate(&mut self, program: &Program, scope: Scope<'_>) -> Result<Operand<'static>, String> {
        let result = self.run(program, scope)?;
        match (program.paired, result) {
            (true, Value::Array(mut pair)) if pair.len() == 2 => match (pair.pop(), pair.pop()) {
                (Some(Value::Null), Some(result)) => Ok(Operand::from(result)),
                (error, _) => Err(error.unwrap_or(Value::Null).to_string_lossy().into_owned()),
            },
            (_, result) => Ok(Operand::from(result)),
        }
    }

    /// Runs a `remap` program. What it sets and removes is told to the document by [`Vrl::write_to`]. `Err` of either: the record is to be given up, for what programs
    /// see is not what the document is.
    pub(crate) fn remap(&mut self, program: &Program, scope: Scope<'_>) -> Result<(), String> {
        self.run(program, scope).map(drop)
    }

    /// Tells the document what programs have set and removed; `spare` is memory for it.
    pub(crate) fn write_to(&mut self, text: &str, tape: &mut Tape, spare: &mut Tape) -> Result<(), String> {
        self.parts.write_to(&self.layout, text, tape, spare)
    }

    fn run(&mut self, program: &Program, scope: Scope<'_>) -> Result<Value, String> {
        self.prepare(program, scope)?;
        self.runtime.clear();
        let Self { layout, parts, metadata, secrets, runtime, .. } = self;
        let mut target = Hand { layout, doc: scope.doc, parts, metadata, secrets };
        runtime.resolve(&mut target, &program.program, &TimeZone::default()).map_err(|error| {
            let message = error.to_string();
            message.lines().next().unwrap_or("the program failed").to_owned()
        })
    }

    fn prepare(&mut self, program: &Program, scope: Scope<'_>) -> Result<(), String> {
        let metadata = self.metadata.as_object_mut().expect("it is made as an object, and programs may not write to it");
        if self.clock != Some(scope.now) {
            metadata.insert(NOW.into(), clock_value(scope.now)?);
            self.clock = Some(scope.now);
        }
        if program.reads_record && !self.record_ready {
            write_record(metadata, scope);
            self.record_ready = true;
        }
        Ok(())
    }
}

fn clock_value(now: Timestamp) -> Result<Value, String> {
    let instant = jiff::Timestamp::from_millisecond(now.as_millis()).map_err(|e| format!("the clock is out of range: {e}"))?;
    Conversion::Timestamp(TimeZone::default()).convert::<Value>(instant.to_string().into()).map_err(|e| e.to_string())
}

fn write_record(metadata: &mut ObjectMap, scope: Scope<'_>) {
    let record = scope.record;
    let bytes = |bytes: &[u8]| Value::Bytes(bytes::Bytes::copy_from_slice(bytes));
    let headers = record.headers.iter().map(|header| (header.name.into(), header.value.map_or(Value::Null, bytes)));
    metadata.insert("key".into(), record.key.map_or(Value::Null, bytes));
    metadata.insert("topic".into(), bytes(scope.topic.as_bytes()));
    metadata.insert("partition".into(), Value::Integer(i64::from(record.partition.get())));
    metadata.insert("offset".into(), Value::Integer(i64::try_from(record.offset.get()).unwrap_or(i64::MAX)));
    metadata.insert("timestamp".into(), Value::Integer(record.timestamp.as_millis()));
    metadata.insert("headers".into(), Value::Object(headers.collect()));
}
