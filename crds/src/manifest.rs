//! A manifest's way from text to a job: structure, header, types, meaning. Each stage reports all that it finds; a stage runs when the one
//! before it found nothing.

use crate::finding::{Finding, did_you_mean};
use crate::job::IngestionJob;
use crate::path::Path;
use crate::validate::{ValidatedJob, validate};
use crate::yaml::{Content, Locator, Node};

const API_VERSION: &str = "forebay.dev/v1alpha1";
const KIND: &str = "IngestionJob";

/// A job and the file that it came from.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The job as it is written.
    pub job: IngestionJob,
    /// Where its fields stand.
    pub locator: Locator,
}

/// Reads a job from YAML (or JSON). `file` is the name that findings show. `Err` lists all that is wrong with the text, in its order.
pub fn parse(yaml: &str, file: &str) -> Result<IngestionJob, Vec<Finding>> {
    Manifest::parse(yaml, file).map(|manifest| manifest.job)
}

impl Manifest {
    /// Reads a job from YAML (or JSON) and keeps the places of its fields, for findings of later stages.
    pub fn parse(yaml: &str, file: &str) -> Result<Self, Vec<Finding>> {
        let locator = Locator::new(yaml, file).map_err(|finding| vec![finding])?;
        let mut findings = check_header(locator.root());
        // A manifest of another kind or version is not worth reading further.
        if findings.is_empty() {
            match locator.read() {
                Ok(job) => return Ok(Self { job, locator }),
                Err(found) => findings = found,
            }
        }
        locator.locate(&mut findings);
        Err(findings)
    }

    /// Checks what the job means. `Err` lists all that is wrong, with places.
    pub fn validate(&self) -> Result<ValidatedJob, Vec<Finding>> {
        validate(&self.job).map_err(|mut findings| {
            self.locator.locate(&mut findings);
            findings
        })
    }
}

fn check_header(root: &Node) -> Vec<Finding> {
    let top = Path::root();
    let Content::Map { entries, .. } = &root.content else {
        return vec![Finding::new(&top, "this is no manifest", format!("start with `apiVersion: {API_VERSION}`"))];
    };
    let mut findings = Vec::new();
    for (field, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match root.get(field).map(|entry| &entry.value.content) {
            Some(Content::Scalar { text, .. }) if text == expected => {}
            Some(Content::Scalar { text, .. }) => {
                findings.push(Finding::new(&top.key(field), format!("{text:?} is not read here"), format!("write {expected}")));
            }
            Some(Content::List { .. } | Content::Map { .. }) => {
                findings.push(Finding::new(&top.key(field), "this is not a name", format!("write {expected}")));
            }
            None => findings.push(Finding::new(&top, format!("the field `{field}` is missing"), format!("add `{field}: {expected}`"))),
        }
    }
    const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    for entry in entries.iter().filter(|entry| !FIELDS.contains(&entry.key.as_str())) {
        findings.push(Finding::new(&top.key(&entry.key), "unknown field", did_you_mean(&entry.key, FIELDS)));
    }
    findings
}
