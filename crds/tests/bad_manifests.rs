//! What users see when a manifest is wrong: every message, word for word.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

#[path = "bad_manifests/mistakes.rs"]
mod mistakes;

use std::fmt::Write;

use forebay_crds::{Finding, Manifest};
use mistakes::{GOOD, MISTAKES};

#[test]
fn every_mistake_is_named_with_its_place_and_the_way_out() {
    let mut report = String::new();
    for (mistake, from, to) in MISTAKES {
        assert_eq!(GOOD.matches(from).count(), 1, "{mistake}: {from:?} does not say what to replace");
        writeln!(report, "{mistake}:").unwrap();
        for line in complaints(&GOOD.replace(from, to)) {
            writeln!(report, "  {line}").unwrap();
        }
    }
    insta::assert_snapshot!(report);
}

/// What is wrong with a file as a whole, where no field can be named.
const OF_THE_FILE: [&str; 4] = ["the file is empty", "this is no manifest", "this is not YAML", "a second document starts here"];

#[test]
fn every_finding_names_a_field_its_place_and_the_way_out() {
    for (mistake, from, to) in MISTAKES {
        let findings = findings(&GOOD.replace(from, to));
        assert!(!findings.is_empty(), "{mistake} is not found");
        for finding in findings {
            let (message, help) = (finding.message.as_str(), finding.help.as_str());
            // At the top the message names the field that is missing.
            let names_field = !finding.path.segments().is_empty() || message.starts_with("the field `");
            assert!(names_field || OF_THE_FILE.iter().any(|whole| message.starts_with(whole)), "{mistake} names no field: {finding}");
            assert!(finding.place.is_some(), "{mistake} has no place: {finding}");
            assert!(!message.is_empty() && help.split(' ').count() >= 2 && help != message, "{mistake} has no way out: {finding}");
        }
    }
}

#[test]
fn the_good_manifest_and_the_example_have_no_findings() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml");
    for yaml in [GOOD, &std::fs::read_to_string(example).unwrap()] {
        assert_eq!(complaints(yaml), Vec::<String>::new());
    }
}

/// All findings of the first stage that has any.
fn findings(yaml: &str) -> Vec<Finding> {
    Manifest::parse(yaml, "job.yaml").and_then(|manifest| manifest.validate()).err().unwrap_or_default()
}

fn complaints(yaml: &str) -> Vec<String> {
    findings(yaml).iter().map(ToString::to_string).collect()
}
