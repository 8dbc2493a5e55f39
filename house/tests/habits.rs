//! Method: every check of this crate on every file of the repository. What each check finds in bad input is shown beside it.

use std::process::Command;

use forebay_house::repository::{TextFile, root, text_files};
use forebay_house::sources::{Exception, check_header, find_long, find_unsafe, judge};
use forebay_house::{dependencies, documents, toolchain, words};

/// What may be longer than the rule, up to its own limit, and why.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        path: "worker/engine/src/worker.rs",
        function: None,
        lines_max: 560,
        reason: "one state machine: its events, actions and phases are read together, and what can be read alone has files of its own already",
    },
    Exception { path: "api/src/v1.rs", function: None, lines_max: 700, reason: "generated from the contract, and never read" },
    Exception { path: "api/src/v1.rs", function: Some("call"), lines_max: 200, reason: "generated from the contract, and never read" },
    Exception {
        path: "crds/src/pipeline.rs",
        function: None,
        lines_max: 450,
        reason: "the manifest's vocabulary in one place: types with their documentation, which becomes the resource definition's, and no logic",
    },
];

/// The files that may be unsafe: they call what the allocator and librdkafka offer and no safe crate does. The last is part of no product.
const UNSAFE: [&str; 3] = ["cli/src/allocator.rs", "worker/connect/kafka/src/native.rs", "bench/load/src/librdkafka.rs"];

fn check(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn rust_files() -> Vec<TextFile> {
    let files: Vec<_> = text_files(&root()).into_iter().filter(|file| file.path.ends_with(".rs")).collect();
    assert!(files.len() > 50, "only {} Rust files were found", files.len());
    files
}

fn markdown_files(files: &[TextFile]) -> impl Iterator<Item = &TextFile> {
    files.iter().filter(|file| file.path.ends_with(".md"))
}

fn text_of<'a>(files: &'a [TextFile], path: &str) -> &'a TextFile {
    files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("there is no {path}"))
}

#[test]
fn every_rust_file_opens_with_what_it_is() {
    let findings: Vec<String> = rust_files().iter().filter_map(check_header).collect();
    check(&findings);
}

#[test]
fn files_and_functions_fit_the_eye() {
    let long: Vec<_> = rust_files().iter().flat_map(find_long).collect();
    check(&judge(&long, EXCEPTIONS));
    assert!(EXCEPTIONS.iter().all(|exception| exception.reason.len() > 20), "an exception needs a reason");
}

#[test]
fn no_file_is_unsafe_but_the_named_ones() {
    let files = rust_files();
    let (allowed, others): (Vec<_>, Vec<_>) = files.iter().partition(|file| UNSAFE.contains(&file.path.as_str()));
    check(&others.into_iter().flat_map(find_unsafe).collect::<Vec<_>>());
    let needed = allowed.into_iter().filter(|file| !find_unsafe(file).is_empty()).count();
    assert_eq!(needed, UNSAFE.len(), "one of {UNSAFE:?} needs its exception no more");
}

fn cargo_metadata() -> String {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs this test, so it is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes text")
}

#[test]
fn crates_depend_on_each_other_as_the_map_says() {
    let real = dependencies::real(&cargo_metadata()).expect("cargo's own output");
    let documented =
        dependencies::documented(&text_of(&text_files(&root()), "ARCHITECTURE.md").text).expect("the table in ARCHITECTURE.md");
    check(&dependencies::compare(&real, &documented));
    assert_eq!(dependencies::circle(&real), None);
}

#[test]
fn nobody_but_the_simulator_has_the_deliberate_bugs() {
    check(&dependencies::who_asks_for("forebay-engine", "mutants", &cargo_metadata()).expect("cargo's own output"));
    let real = dependencies::real(&cargo_metadata()).expect("cargo's own output");
    let with_bugs = |edges: &dependencies::Edges| edges.always.contains("engine-mutants") || edges.tests.contains("engine-mutants");
    let crates: Vec<_> = real.iter().filter(|(_, edges)| with_bugs(edges)).map(|(name, _)| name.as_str()).collect();
    assert_eq!(crates, ["sim"]);
}

#[test]
fn links_between_files_lead_somewhere() {
    let files = text_files(&root());
    let findings: Vec<String> = markdown_files(&files).flat_map(|file| documents::check_links(file, &files)).collect();
    check(&findings);
}

#[test]
fn the_map_and_the_guide_name_paths_that_exist() {
    let files = text_files(&root());
    let named = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"];
    let findings: Vec<String> = named.iter().flat_map(|path| documents::check_paths(text_of(&files, path), &files)).collect();
    check(&findings);
}

#[test]
fn every_metric_is_described() {
    let files = text_files(&root());
    let sources = ["worker/src/http.rs", "operator/src/http.rs"].map(|path| text_of(&files, path).text.as_str()).join("\n");
    check(&documents::check_metrics(&sources, &text_of(&files, "docs/metrics.md").text));
}

#[test]
fn every_reason_of_a_condition_or_an_event_is_described() {
    let files = text_files(&root());
    let is_source = |path: &str| {
        let at = ["operator/src/report", "operator/src/plan/trouble", "operator/src/savepoint", "operator/src/teardown"]
            .iter()
            .any(|place| path.starts_with(place));
        at && path.ends_with(".rs") && !path.ends_with("/tests.rs")
    };
    let sources: Vec<&str> = files.iter().filter(|file| is_source(&file.path)).map(|file| file.text.as_str()).collect();
    assert!(sources.len() > 5, "only {} files were found", sources.len());
    // Kubernetes says this of a process that ended.
    check(&documents::check_reasons(&sources, &text_of(&files, "docs/operator.md").text, "\n### Troubleshooting by reason\n", &["Error"]));
}

#[test]
fn every_phase_of_a_job_is_described_where_jobs_are_counted_by_phase() {
    let files = text_files(&root());
    let definition = &text_of(&files, "crds/ingestionjobs.forebay.dev.yaml").text;
    let (_, phases) = definition.split_once("description: The job in one word.\n                enum:\n").expect("the phases of a job");
    let phases: Vec<&str> = phases.lines().map_while(|line| line.trim_start().strip_prefix("- ")).collect();
    assert!(phases.len() > 5, "{phases:?}");
    let metrics = &text_of(&files, "docs/metrics.md").text;
    let row = metrics.lines().find(|line| line.starts_with("| `forebay_operator_jobs` |")).expect("the metric's row");
    check(
        &phases
            .iter()
            .filter(|phase| !row.contains(&format!("`{phase}`")))
            .map(|phase| format!("{phase} is not in {row}"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist_and_each_alert_has_its_runbook() {
    let files = text_files(&root());
    let rules = text_of(&files, "kustomize/components/monitoring/prometheus-rule.yaml");
    let metrics = &text_of(&files, "docs/metrics.md").text;
    check(&documents::check_metrics_used(rules, metrics));
    check(&documents::check_metrics_used(text_of(&files, "kustomize/components/monitoring/dashboard.json"), metrics));
    check(&documents::check_runbooks(rules, text_of(&files, "docs/runbooks.md")));
}

#[test]
fn the_image_and_all_else_is_built_by_one_exact_version_of_the_rust_that_is_asked_for() {
    let files = text_files(&root());
    let [dockerfile, manifest, toolchain] = ["Dockerfile", "Cargo.toml", "rust-toolchain.toml"].map(|path| &text_of(&files, path).text);
    check(&toolchain::check(dockerfile, manifest, toolchain));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let findings: Vec<String> = text_files(&root()).iter().flat_map(words::check).collect();
    check(&findings);
}
