//! `forebay test`: fixtures through a pipeline in memory, with no broker, cluster or clock.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use forebay_engine::ids::{InputId, Partition, TableId, Timestamp};
use forebay_engine::journal::Books;
use forebay_pipeline::InputContext;
use forebay_pipeline::fixture::{FixtureRecord, FixtureRun, fixture_context, run_fixture_with};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::Unusable;
use crate::job::{self, Loaded};
use crate::output::Output;

/// Partitions of a fixture's inputs: enough that keys meet different ones.
const PARTITIONS: u32 = 12;

/// What `forebay test` is told.
#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay test -f job.yaml                        all *.test.yaml beside the manifest
  forebay test -f job.yaml late.yaml more.yaml
  forebay test -f job.yaml -o json | jq 'select(.passed == false)'")]
pub struct Test {
    /// The manifest
    #[arg(short = 'f', long, value_name = "FILE", env = "FOREBAY_FILE")]
    file: PathBuf,
    /// Fixture files (YAML or JSON) [default: all *.test.yaml beside the manifest]
    fixtures: Vec<PathBuf>,
}

/// A fixture file: cases in order, each with a state of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    records: Vec<Record>,
    #[serde(default)]
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Record {
    /// The input's name; the first by default.
    input: Option<String>,
    partition: Option<u32>,
    /// Milliseconds since 1970; 0 by default.
    #[serde(default)]
    timestamp: i64,
    key: Option<String>,
    /// Text as it is; anything else as JSON.
    value: Option<Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What is left out is not checked.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// Per topic all its records, in order.
    outputs: Option<BTreeMap<String, Vec<Expected>>>,
    /// Per table the entities that must be there; `None`: that must not.
    state: Option<BTreeMap<String, BTreeMap<String, Option<Value>>>>,
    books: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default, deserialize_with = "said")]
    key: Option<Option<String>>,
    /// Compared as JSON where it is JSON.
    #[serde(default, deserialize_with = "said")]
    value: Option<Option<Value>>,
    /// Those named must be there.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// A field that is there: with a null in it, it says something else than one that is left out.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// A line of `forebay test`.
#[derive(Serialize)]
struct CaseRow<'a> {
    file: String,
    case: &'a str,
    passed: bool,
    differences: Vec<String>,
}

impl fmt::Display for CaseRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.passed {
            true => write!(f, "ok    {}", self.case),
            false => write!(f, "FAIL  {}\n      {}", self.case, self.differences.join("\n      ")),
        }
    }
}

/// The last line of `forebay test`.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    cases_passed: u64,
    cases_failed: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.cases_passed, self.cases_failed)
    }
}

impl Test {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let loaded = job::load(&self.file)?;
        let files = if self.fixtures.is_empty() { beside(&self.file)? } else { self.fixtures.clone() };
        let mut printer = output.printer();
        let mut summary = Summary::default();
        for file in &files {
            let text = std::fs::read_to_string(file).map_err(|error| Unusable(format!("read {}: {error}", file.display())))?;
            let parsed: File = serde_saphyr::from_str(&text).map_err(|error| Unusable(format!("{}: {error}", file.display())))?;
            for case in &parsed.cases {
                let differences = run(&loaded, case)?;
                let passed = differences.is_empty();
                *if passed { &mut summary.cases_passed } else { &mut summary.cases_failed } += 1;
                printer.print(&CaseRow { file: file.display().to_string(), case: &case.name, passed, differences })?;
            }
        }
        printer.print(&summary)?;
        printer.finish()?;
        anyhow::ensure!(summary.cases_failed == 0, "{} cases failed", summary.cases_failed);
        Ok(())
    }
}

fn beside(manifest: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = manifest.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".test.yaml")));
    files.sort();
    if files.is_empty() {
        return Err(Unusable(format!("there is no *.test.yaml in {}; name fixture files behind -f", folder.display())).into());
    }
    Ok(files)
}

/// The differences between what came out and what was expected.
fn run(loaded: &Loaded, case: &Case) -> anyhow::Result<Vec<String>> {
    let job = &loaded.job;
    let inputs = job.inputs.iter().map(|input| InputContext { topic: input.topic.clone(), partitions: PARTITIONS }).collect();
    let context = fixture_context(&job.pipeline, inputs, &job.dead_letter);
    let (outputs, tables) = (context.outputs.clone(), context.tables.clone());
    let compiled = loaded.compile_in(context)?;
    let records = case.records.iter().map(|record| fixture_record(loaded, record)).collect::<Result<Vec<_>, _>>()?;
    let ran = run_fixture_with(&compiled, &records, &job::lifetimes(&loaded.job, &tables))?;
    let mut differences = Vec::new();
    for (topic, expected) in case.expect.outputs.iter().flatten() {
        let Some(id) = outputs.get(topic) else {
            differences.push(format!("outputs.{topic}: the job writes no such topic"));
            continue;
        };
        let got: Vec<_> = ran.outputs.iter().filter(|output| output.output == *id).collect();
        if got.len() != expected.len() {
            differences.push(format!("outputs.{topic}: {} records expected, {} came", expected.len(), got.len()));
        }
        for (number, (got, expected)) in got.iter().zip(expected).enumerate() {
            let at = format!("outputs.{topic}[{number}]");
            if let Some(key) = &expected.key {
                differ(&mut differences, &format!("{at}.key"), got.key.as_deref().map(text), key.as_deref().map(Value::from));
            }
            if let Some(value) = &expected.value {
                differ(&mut differences, &format!("{at}.value"), got.value.as_deref().map(parse), value.clone());
            }
            for (name, value) in &expected.headers {
                let header = got.headers.iter().find(|(header, _)| header == name).and_then(|(_, value)| value.as_deref());
                differ(&mut differences, &format!("{at}.headers.{name}"), header.map(text), Some(value.as_str().into()));
            }
        }
    }
    check_state(&mut differences, case, &ran, &tables);
    check_books(&mut differences, case, &ran.books)?;
    Ok(differences)
}

fn check_state(differences: &mut Vec<String>, case: &Case, ran: &FixtureRun, tables: &BTreeMap<String, TableId>) {
    for (table, entities) in case.expect.state.iter().flatten() {
        let Some(id) = tables.get(table) else {
            differences.push(format!("state.{table}: the job has no such table"));
            continue;
        };
        for (key, expected) in entities {
            let got = ran.state.get(&(*id, key.clone().into_bytes())).map(|document| parse(document.to_json().as_bytes()));
            differ(differences, &format!("state.{table}.{key}"), got, expected.clone());
        }
    }
}

fn check_books(differences: &mut Vec<String>, case: &Case, books: &Books) -> anyhow::Result<()> {
    let got = serde_json::to_value(books)?;
    for (name, expected) in case.expect.books.iter().flatten() {
        differ(differences, &format!("books.{name}"), got.get(name).cloned(), Some((*expected).into()));
    }
    Ok(())
}

fn differ(differences: &mut Vec<String>, at: &str, got: Option<Value>, expected: Option<Value>) {
    let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
    if got != expected {
        differences.push(format!("{at}: {} expected, {} came", shown(&expected), shown(&got)));
    }
}

fn fixture_record(loaded: &Loaded, record: &Record) -> anyhow::Result<FixtureRecord> {
    let position = match &record.input {
        None => 0,
        Some(name) => loaded
            .job
            .inputs
            .iter()
            .position(|input| input.name == *name)
            .ok_or_else(|| Unusable(format!("the job has no input {name}")))?,
    };
    Ok(FixtureRecord {
        input: InputId::new(u16::try_from(position)?),
        partition: record.partition.map(Partition::new),
        timestamp: Timestamp::from_millis(record.timestamp),
        now: None,
        key: record.key.clone().map(String::into_bytes),
        value: record.value.as_ref().map(|value| match value {
            Value::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        }),
        headers: record.headers.iter().map(|(name, value)| (name.clone(), Some(value.clone().into_bytes()))).collect(),
    })
}

/// JSON where it is JSON, else text.
fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| text(bytes))
}

fn text(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into()
}
