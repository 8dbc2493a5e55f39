//! Runs a pipeline that is written as YAML on records that are written by hand.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_crds::pipeline::Step;
use forebay_engine::ids::{OutputId, TableId, Timestamp};
use forebay_engine::pipeline::Verdict;
use forebay_pipeline::fixture::{FixtureOutput, FixtureRecord, FixtureRun, fixture_context, run_fixture};
use forebay_pipeline::{CompileContext, CompileError, CompiledPipeline, Document, InputContext};

pub const DEAD: &str = "dead";

pub struct Job {
    pipeline: Arc<CompiledPipeline>,
    outputs: BTreeMap<String, OutputId>,
    tables: BTreeMap<String, TableId>,
}

pub struct Run {
    pub raw: FixtureRun,
    outputs: BTreeMap<String, OutputId>,
    tables: BTreeMap<String, TableId>,
}

pub fn steps(yaml: &str) -> Vec<Step> {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"))
}

pub fn context(steps: &[Step]) -> CompileContext {
    let inputs = vec![InputContext { topic: "in".into(), partitions: 4 }];
    CompileContext { job: "job".into(), revision: "rev7".into(), ..fixture_context(steps, inputs, DEAD) }
}

pub fn compile_errors(yaml: &str) -> Vec<CompileError> {
    let steps = steps(yaml);
    CompiledPipeline::compile(&steps, context(&steps)).err().unwrap_or_default()
}

impl Job {
    pub fn new(yaml: &str) -> Self {
        Self::from_steps(&steps(yaml))
    }

    pub fn from_steps(steps: &[Step]) -> Self {
        Self::with(steps, |context| context)
    }

    pub fn with(steps: &[Step], change: impl FnOnce(CompileContext) -> CompileContext) -> Self {
        let context = change(context(steps));
        let (outputs, tables) = (context.outputs.clone(), context.tables.clone());
        let pipeline = CompiledPipeline::compile(steps, context).unwrap_or_else(|errors| panic!("{errors:#?}"));
        Self { pipeline, outputs, tables }
    }

    pub fn run(&self, records: &[FixtureRecord]) -> Run {
        let raw = run_fixture(&self.pipeline, records).unwrap();
        assert!(raw.books.balance());
        assert_eq!(raw.books.records_in, records.len() as u64);
        Run { raw, outputs: self.outputs.clone(), tables: self.tables.clone() }
    }

    /// Runs values under the key `k`, each a millisecond after the one before.
    pub fn run_values(&self, values: &[&str]) -> Run {
        self.run(&values.iter().zip(1..).map(|(value, at)| record("k", value, at)).collect::<Vec<_>>())
    }
}

impl Run {
    pub fn records(&self, topic: &str) -> Vec<&FixtureOutput> {
        let id = self.outputs[topic];
        self.raw.outputs.iter().filter(|output| output.output == id).collect()
    }

    /// The values that went to a topic, as text.
    pub fn values(&self, topic: &str) -> Vec<&str> {
        self.records(topic).iter().map(|output| std::str::from_utf8(output.value.as_deref().unwrap()).unwrap()).collect()
    }

    /// Step and error of each dead letter.
    pub fn dead(&self) -> Vec<(&str, &str)> {
        self.records(DEAD).into_iter().map(|output| (header(output, "forebay.step"), header(output, "forebay.error"))).collect()
    }

    pub fn entity(&self, table: &str, key: &str) -> Option<&Document> {
        self.raw.state.get(&(self.tables[table], key.as_bytes().to_vec()))
    }

    /// An entity as JSON.
    pub fn state(&self, table: &str, key: &str) -> String {
        self.entity(table, key).map_or("none".into(), Document::to_json)
    }

    pub fn verdicts(&self) -> &[Verdict] {
        &self.raw.verdicts
    }
}

pub fn record(key: &str, value: &str, at: i64) -> FixtureRecord {
    FixtureRecord {
        timestamp: Timestamp::from_millis(at),
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        ..FixtureRecord::default()
    }
}

pub fn header<'o>(output: &'o FixtureOutput, name: &str) -> &'o str {
    let mut values = output.headers.iter().filter(|(there, _)| there == name).map(|(_, value)| value.as_deref().unwrap());
    let value = values.next().unwrap_or_else(|| panic!("no header {name} in {output:?}"));
    assert_eq!(values.next(), None, "{name} comes twice");
    std::str::from_utf8(value).unwrap()
}
