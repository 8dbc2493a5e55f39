//! What can be said about a pipeline without compiling its expressions: combinations that make no sense, with the way out.

use std::collections::BTreeSet;

use super::{Csv, Dedup, FieldRule, FieldType, Format, Parse, ROUTES_MAX, Route, Step, Upsert};

/// The longest name of a table, or of a field that a profile is put into: as long as a topic's may be.
const NAME_MAX: usize = 249;

/// Something wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: a path such as `spec.pipeline[2].dedup.last`.
    pub path: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// Checks a whole pipeline: each step by itself, and the steps together. `path` is where the list lies: `spec.pipeline`.
pub fn check_steps(steps: &[Step], path: &str) -> Vec<Finding> {
    let mut findings = Findings::default();
    if !matches!(steps.first(), Some(Step::Parse(_))) {
        findings.add(path.to_owned(), "the first step must be parse".into(), "start with `- parse: {format: json}`".into());
    }
    let mut dedup_tables = BTreeSet::new();
    let mut entity_tables = BTreeSet::new();
    for (index, step) in steps.iter().enumerate() {
        let path = format!("{path}[{index}]");
        findings.0.extend(step.check(&path));
        match step {
            Step::Parse(_) if index > 0 => {
                findings.add(format!("{path}.parse"), "parse comes first, and once".into(), "delete this step".into());
            }
            Step::Dedup(dedup) if !dedup_tables.insert(dedup.table.as_str()) => findings.add(
                format!("{path}.dedup.table"),
                format!("another dedup step keeps its state in table {:?} already", dedup.table),
                "give this step a table of its own, for example `table: dedup2`".into(),
            ),
            Step::Upsert(_) | Step::Remove(_) | Step::Enrich(_) => entity_tables.extend(step.table().map(|(table, _)| table)),
            _ => {}
        }
    }
    for table in dedup_tables.intersection(&entity_tables) {
        findings.add(path.to_owned(), format!("table {table:?} is used by dedup and by another step"), "give dedup another `table`".into());
    }
    if !steps.iter().any(|step| !step.output_topics().is_empty() || matches!(step, Step::Upsert(_))) {
        let help = "add an `emit` or `upsert` step".into();
        findings.add(path.to_owned(), "this pipeline puts nothing out and keeps no state".into(), help);
    }
    findings.0
}

impl Step {
    /// What is wrong with this step alone. `path` is where it lies: `spec.pipeline[2]`.
    pub fn check(&self, path: &str) -> Vec<Finding> {
        let mut findings = Findings::default();
        let path = format!("{path}.{}", self.name());
        match self {
            Step::Parse(step) => check_parse(step, &path, &mut findings),
            Step::Validate(step) => {
                for (field, rule) in &step.fields {
                    check_rule(rule, &format!("{path}.fields.{field}"), &mut findings);
                }
            }
            Step::Dedup(step) => check_dedup(step, &path, &mut findings),
            Step::Upsert(step) => check_upsert(step, &path, &mut findings),
            Step::Enrich(step) => {
                if step.into.is_empty() || step.into.len() > NAME_MAX || step.into.contains('.') {
                    findings.add(
                        format!("{path}.into"),
                        format!("{:?} is not the name of a field of the document itself", step.into),
                        format!("write a name of at most {NAME_MAX} characters without dots"),
                    );
                }
            }
            Step::Route(routes) => check_routes(routes, &path, &mut findings),
            Step::Remove(_) | Step::Remap(_) | Step::Filter(_) | Step::Emit(_) => {}
        }
        if let Some((table, _)) = self.table()
            && (table.is_empty()
                || table.len() > NAME_MAX
                || !table.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)))
        {
            let help = format!("use at most {NAME_MAX} letters, digits, `_` and `-`");
            findings.add(format!("{path}.table"), format!("{table:?} is no name for a table"), help);
        }
        findings.0
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, path: String, message: String, help: String) {
        self.0.push(Finding { path, message, help });
    }
}

fn check_parse(step: &Parse, path: &str, findings: &mut Findings) {
    match (step.format, &step.csv) {
        (Format::Csv, None) => {
            findings.add(path.to_owned(), "csv needs its columns".into(), "add `csv: {columns: [{name: id}, …]}`".into());
        }
        (Format::Json, Some(_)) => {
            findings.add(format!("{path}.csv"), "only `format: csv` has columns".into(), "delete it, or write `format: csv`".into());
        }
        (Format::Csv, Some(csv)) => check_csv(csv, &format!("{path}.csv"), findings),
        (Format::Json, None) => {}
    }
    if step.size_max.is_some_and(|size| size.get() == 0) {
        findings.add(
            format!("{path}.sizeMax"),
            "a limit of 0 bytes lets nothing through".into(),
            "write for example `sizeMax: 256Ki`".into(),
        );
    }
}

fn check_csv(csv: &Csv, path: &str, findings: &mut Findings) {
    if csv.delimiter.len() != 1 || matches!(csv.delimiter.as_bytes(), [b'"' | b'\n' | b'\r']) {
        findings.add(
            format!("{path}.delimiter"),
            format!("{:?} cannot be a delimiter", csv.delimiter),
            "write one ASCII character that is neither a quote nor a line end, for example \"\\t\"".into(),
        );
    }
    if csv.columns.is_empty() {
        findings.add(format!("{path}.columns"), "there must be at least one column".into(), "list the columns in order".into());
    }
    let mut names = BTreeSet::new();
    for (index, column) in csv.columns.iter().enumerate() {
        if !names.insert(&column.name) {
            let message = format!("column {:?} is there twice", column.name);
            findings.add(format!("{path}.columns[{index}].name"), message, "give each column a name of its own".into());
        }
    }
}

fn check_rule(rule: &FieldRule, path: &str, findings: &mut Findings) {
    use FieldType::{Array, Integer, Number, String, Timestamp};
    let mut only_for = |is_set: bool, name: &str, kinds: &[FieldType], words: &str| {
        if is_set && rule.kind.is_none_or(|kind| !kinds.contains(&kind)) {
            findings.add(format!("{path}.{name}"), format!("{name} is for {words}"), format!("add the `type`, or delete {name}"));
        }
    };
    only_for(rule.min.is_some(), "min", &[Integer, Number], "`type: integer` and `type: number`");
    only_for(rule.max.is_some(), "max", &[Integer, Number], "`type: integer` and `type: number`");
    only_for(rule.min_length.is_some(), "minLength", &[String, Array], "`type: string` and `type: array`");
    only_for(rule.max_length.is_some(), "maxLength", &[String, Array], "`type: string` and `type: array`");
    only_for(rule.pattern.is_some(), "pattern", &[String, Timestamp], "`type: string` and `type: timestamp`");
    let mut in_order = |low: Option<f64>, high: Option<f64>, names: (&str, &str)| {
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let message = format!("{} {low} is above {} {high}: nothing passes", names.0, names.1);
            findings.add(format!("{path}.{}", names.0), message, "swap them".into());
        }
    };
    in_order(rule.min, rule.max, ("min", "max"));
    in_order(rule.min_length.map(f64::from), rule.max_length.map(f64::from), ("minLength", "maxLength"));
    if rule.one_of.as_ref().is_some_and(Vec::is_empty) {
        findings.add(format!("{path}.oneOf"), "an empty list lets nothing through".into(), "list the values, or delete it".into());
    }
}

fn check_dedup(step: &Dedup, path: &str, findings: &mut Findings) {
    if step.by.is_empty() {
        findings.add(format!("{path}.by"), "there is nothing to tell records apart by".into(), "write for example `by: [.id]`".into());
    }
    if step.last.is_some() == step.within.is_some() {
        let message = if step.last.is_some() { "last and within exclude each other" } else { "it is not said how much to remember" };
        findings.add(path.to_owned(), message.into(), "write either `last: 64` or `within: 10m`".into());
    }
    if step.within_records_max.is_some() && step.within.is_none() {
        findings.add(format!("{path}.withinRecordsMax"), "it limits `within`, which is not there".into(), "delete it".into());
    }
    for (name, number) in [("last", step.last), ("withinRecordsMax", step.within_records_max)] {
        if number.is_some_and(|number| !(1..=100_000).contains(&number)) {
            findings.add(format!("{path}.{name}"), format!("{} is out of range", number.unwrap_or(0)), "write 1 to 100000".into());
        }
    }
    if step.within.is_some_and(|within| within.get().is_zero()) {
        findings.add(format!("{path}.within"), "no time at all".into(), "write for example `within: 10m`".into());
    }
}

fn check_upsert(step: &Upsert, path: &str, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    let operations: [(&str, Vec<&String>); 8] = [
        ("set", step.set.keys().collect()),
        ("unset", step.unset.iter().collect()),
        ("addToSet", step.add_to_set.keys().collect()),
        ("removeFromSet", step.remove_from_set.keys().collect()),
        ("increment", step.increment.keys().collect()),
        ("min", step.min.keys().collect()),
        ("max", step.max.keys().collect()),
        ("append", step.append.keys().collect()),
    ];
    for (operation, fields) in operations {
        for field in fields {
            let path = format!("{path}.{operation}.{field}");
            if field.is_empty() || field.contains('.') {
                findings.add(path.clone(), format!("{field:?} is not the name of a field"), "write a name without dots".into());
            }
            if !seen.insert(field) {
                let message = format!("field {field:?} is changed by two operations of one upsert");
                findings.add(path, message, "delete one of them, or write two upsert steps".into());
            }
        }
    }
    if seen.is_empty() {
        findings.add(path.to_owned(), "this upsert changes nothing".into(), "add for example `set: {name: .name}`".into());
    }
    for (field, append) in &step.append {
        if !(1..=100_000).contains(&append.cap) {
            let message = format!("cap {} is out of range", append.cap);
            findings.add(format!("{path}.append.{field}.cap"), message, "write 1 to 100000".into());
        }
    }
}

fn check_routes(routes: &[Route], path: &str, findings: &mut Findings) {
    if routes.is_empty() {
        findings.add(path.to_owned(), "there is no route".into(), "add `- when: …` with `emit: {topic: …}`".into());
    }
    if routes.len() > ROUTES_MAX as usize {
        let help = format!("write at most {ROUTES_MAX}, and the others in another `route` step");
        findings.add(path.to_owned(), format!("{} routes", routes.len()), help);
    }
    for (index, route) in routes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if route.when.is_some() == route.otherwise {
            let message = "a route has either `when` or `otherwise: true`";
            findings.add(path.clone(), message.into(), "write one of them".into());
        }
        if route.otherwise && (index + 1 < routes.len() || routes.len() == 1) {
            let message = "`otherwise` stands for what no other route took, so it is the last of several";
            findings.add(path, message.into(), "move it to the end; a lone one is an `emit` step".into());
        }
    }
}
