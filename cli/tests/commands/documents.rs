//! Promise: the documents are true where a machine can tell: manifests and steps that they show are valid, fixtures that they show pass, and
//! docs/cli.md has every flag and every variable that `--help` has, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::support::World;

const COMMANDS: [&[&str]; 21] = [
    &[],
    &["run"],
    &["worker"],
    &["validate"],
    &["test"],
    &["log", "produce"],
    &["log", "consume"],
    &["log", "topics"],
    &["state", "ls"],
    &["state", "get"],
    &["state", "scan"],
    &["snapshot", "ls"],
    &["snapshot", "inspect"],
    &["snapshot", "verify"],
    &["savepoint", "take"],
    &["savepoint", "delete"],
    &["dlq", "ls"],
    &["dlq", "replay"],
    &["rewind"],
    &["cleanup"],
    &["books"],
];

fn document(path: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// The code blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn manifests_and_steps_in_documents_are_valid() {
    let world = World::new();
    let mut checked = 0;
    for path in ["README.md", "docs/pipeline.md", "docs/cli.md", "docs/operations.md", "docs/permissions.md"] {
        for block in blocks(&document(path), "yaml") {
            let manifest = if block.starts_with("apiVersion") {
                block.clone()
            } else if block.starts_with("- ") {
                let (head, _) = crate::support::JOB.split_once("  pipeline:\n").unwrap();
                let parse = if block.starts_with("- parse") { "" } else { "- parse: {format: json}\n" };
                let steps: String =
                    format!("{parse}{block}- emit: {{topic: at-the-end}}\n").lines().map(|line| format!("    {line}\n")).collect();
                format!("{head}  pipeline:\n{steps}")
            } else {
                continue;
            };
            world.write("job.yaml", &manifest);
            let said = world.call(&["validate"]);
            assert_eq!(said.code, Some(0), "{path} shows\n{block}\nand {}", said.stderr);
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} manifests and steps were found");
}

#[test]
fn fixtures_in_documents_pass() {
    let world = World::new();
    world.write("job.yaml", &document("examples/flights/job.yaml"));
    let shown: Vec<String> = blocks(&document("docs/cli.md"), "yaml").into_iter().filter(|block| block.starts_with("cases:")).collect();
    assert!(!shown.is_empty(), "docs/cli.md shows no fixture");
    for block in shown {
        world.write("job.test.yaml", &block);
        let said = world.call(&["test"]);
        assert_eq!(said.code, Some(0), "{block}\n{said:?}");
    }
}

#[test]
fn every_flag_and_variable_is_in_the_page_and_no_other() {
    let world = World::new();
    let page = document("docs/cli.md");
    let (mut flags, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for command in COMMANDS {
        let help = world.ask(&[command, &["--help"]].concat());
        assert!(help.contains("Examples:"), "{command:?} shows no examples");
        let (options, _examples) = help.split_once("Examples:").unwrap();
        flags.extend(words(options, "--"));
        variables.extend(words(options, "FOREBAY_"));
    }
    for known in ["--help", "--version"] {
        assert!(flags.remove(known));
    }
    let told: BTreeSet<String> = words(&page, "--").union(&words(&page, "FOREBAY_")).cloned().collect();
    // `-o` is what people write for it.
    let missing: Vec<_> = flags.union(&variables).filter(|word| !told.contains(*word) && *word != "--output").collect();
    assert_eq!(missing, Vec::<&String>::new(), "docs/cli.md lacks these");
    // Of other programs.
    let strange = ["--reset-offsets"];
    let unknown: Vec<_> =
        told.iter().filter(|word| !flags.contains(*word) && !variables.contains(*word) && !strange.contains(&word.as_str())).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "docs/cli.md speaks of these, which are not there");
}

/// The words of a text that begin so and go on with letters, digits, `-` and `_`.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let found = text.match_indices(start).filter(|(at, _)| !text[..*at].ends_with(is_part)).map(|(at, _)| {
        let rest = &text[at + start.len()..];
        let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        format!("{start}{}", &rest[..end])
    });
    found.filter(|word| word[start.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())).collect()
}
