//! Promise: the documents are true where a machine can tell: manifests and steps that they show are valid, fixtures that they show and those of the example pass, and
//! docs/cli.md has every flag and every variable that `--help` has, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::support::World;

/// Of a command what stands below "Commands:" in its help.
fn subcommands(help: &str) -> Vec<String> {
    let Some((_, rest)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = rest.lines().take_while(|line| !line.is_empty());
    // What is not right behind the margin is the rest of a line that was too long.
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// All commands that there are, with their help: the program itself, those that have subcommands, and those that do something.
fn commands(world: &World) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut left = vec![Vec::new()];
    while let Some(command) = left.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = world.ask(&words);
        left.extend(subcommands(&help).into_iter().map(|name| [command.clone(), vec![name]].concat()));
        found.push((command, help));
    }
    assert!(found.len() > 20, "too few commands were found: {found:?}");
    found
}

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
fn the_fixtures_of_the_example_pass() {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/flights/job.yaml");
    let rows = World::new().ask_json(&["test", "-f", manifest.to_str().unwrap()]);
    let last = rows.last().unwrap();
    assert!(last["casesPassed"].as_u64() > Some(0) && last["casesFailed"] == 0, "{rows:?}");
}

#[test]
fn every_flag_and_variable_is_in_the_page_and_no_other() {
    let world = World::new();
    let page = document("docs/cli.md");
    let (mut flags, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for (command, help) in commands(&world) {
        let has_examples = help.contains("Examples:");
        assert!(has_examples || !subcommands(&help).is_empty(), "{command:?} shows no examples");
        let options = help.split("Examples:").next().unwrap();
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

/// Method: the rows of the page's first table, then those of the table of documents.
#[test]
fn every_command_is_in_the_tables_of_the_page_and_no_other() {
    let commands: BTreeSet<String> = commands(&World::new())
        .into_iter()
        .filter(|(command, help)| !command.is_empty() && subcommands(help).is_empty())
        .map(|(command, _)| command.join(" "))
        .collect();
    let page = document("docs/cli.md");
    let rows = |head: &str| -> BTreeSet<String> {
        let (_, table) = page.split_once(&format!("{head}\n|---|---|\n")).unwrap();
        let cells = table.lines().map_while(|line| line.strip_prefix('|')?.split('|').next());
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let first = |command: &String| format!("forebay {}", command.split(' ').next().unwrap());
    assert_eq!(rows("| command | what |"), commands.iter().map(first).collect(), "in the table of commands");
    // A worker prints nothing, it answers its operator.
    let printing = commands.into_iter().filter(|command| command != "worker");
    assert_eq!(rows("| command | documents |"), printing.collect(), "in the table of documents");
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
