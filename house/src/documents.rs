//! Documents that do not lie: links lead somewhere, paths in the map exist, every metric is described.

use std::collections::BTreeSet;

use crate::repository::TextFile;

/// A line for each link between files of the repository that leads nowhere. `files` are all of them.
pub fn check_links(file: &TextFile, files: &[TextFile]) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (line, target) in links(&file.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(path, anchor)| (path, Some(anchor)));
        let place = format!("{}:{line}", file.path);
        let Some(path) = (if path.is_empty() { Some(file.path.clone()) } else { resolve(folder, path) }) else {
            findings.push(format!("{place}: {target} leads out of the repository"));
            continue;
        };
        if !exists(&path, files) {
            findings.push(format!("{place}: {target} does not exist"));
        } else if let (Some(anchor), Some(there)) = (anchor, files.iter().find(|there| there.path == path && path.ends_with(".md")))
            && !anchors(&there.text).contains(anchor)
        {
            findings.push(format!("{place}: {path} has no heading #{anchor}"));
        }
    }
    findings
}

/// A line for each path in backquotes that does not exist: what holds a slash and ends in one, or in the name of a file of ours.
pub fn check_paths(file: &TextFile, files: &[TextFile]) -> Vec<String> {
    const ENDINGS: [&str; 6] = ["/", ".rs", ".md", ".toml", ".yaml", ".sh"];
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(without_fences(&file.text)) {
        for word in line.split('`').skip(1).step_by(2) {
            let is_path =
                word.contains('/') && ENDINGS.iter().any(|ending| word.ends_with(ending)) && !word.contains([' ', '<', '*', '{', '$', ':']);
            if is_path && !exists(word.trim_end_matches('/'), files) {
                findings.push(format!("{}:{number}: `{word}` does not exist", file.path));
            }
        }
    }
    findings
}

/// Metrics that are rendered and not described, and the other way round.
pub fn check_metrics(source: &str, document: &str) -> Vec<String> {
    let rendered: BTreeSet<&str> = source.split('"').skip(1).step_by(2).filter(|text| is_metric(text)).collect();
    let described: BTreeSet<&str> = document.split('`').skip(1).step_by(2).filter(|text| is_metric(text)).collect();
    let missing = rendered.difference(&described).map(|name| format!("metric {name} is not described in docs/metrics.md"));
    let gone = described.difference(&rendered).map(|name| format!("docs/metrics.md describes {name}, which no code renders"));
    missing.chain(gone).collect()
}

/// Reasons of conditions and events that the operator gives and that no table below `heading` has in its first column, and the other way round. `own` are those
/// that others give.
pub fn check_reasons(sources: &[&str], document: &str, heading: &str, own: &[&str]) -> Vec<String> {
    let production = |source: &&str| source.split("#[cfg(test)]").next().map(str::to_owned);
    let code: Vec<String> = sources.iter().filter_map(production).collect();
    let literals = code.iter().flat_map(|text| text.split('"').skip(1).step_by(2));
    let given: BTreeSet<&str> = literals.filter(|text| is_reason(text)).chain(own.iter().copied()).collect();
    let section = document.split_once(heading).map_or("", |(_, rest)| rest.split("\n## ").next().unwrap_or_default());
    let cells = section.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    let cells = cells.filter(|cell| !cell.trim_start().starts_with("reason of"));
    let described: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let missing = given.difference(&described).map(|name| format!("reason {name} is in no table below {heading:?}"));
    let gone = described.difference(&given).map(|name| format!("a table below {heading:?} has {name}, which no code says"));
    missing.chain(gone).collect()
}

/// One word in capitals and small letters, but for the conditions themselves and their status.
fn is_reason(text: &str) -> bool {
    let is_word = text.len() > 2 && text.starts_with(|c: char| c.is_ascii_uppercase()) && text.chars().all(|c| c.is_ascii_alphabetic());
    is_word && !["Ready", "Reconciling", "True", "False"].contains(&text)
}

/// Metrics that a rule or a dashboard asks for and that are not described. A histogram has three names for one.
pub fn check_metrics_used(file: &TextFile, document: &str) -> Vec<String> {
    let described: BTreeSet<&str> = document.split('`').skip(1).step_by(2).filter(|text| is_metric(text)).collect();
    let words = file.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| is_metric(word));
    let is_known = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|ending| name.strip_suffix(ending));
        described.contains(name) || of_histogram.into_iter().any(|name| described.contains(name))
    };
    let unknown: BTreeSet<&str> = words.filter(|name| !is_known(name)).collect();
    unknown.into_iter().map(|name| format!("{}: {name} is not described in docs/metrics.md", file.path)).collect()
}

/// Alerts without a section in the runbooks, or that do not name theirs, and sections of alerts that are gone.
pub fn check_runbooks(rules: &TextFile, runbooks: &TextFile) -> Vec<String> {
    let alerts: BTreeSet<&str> = rules.text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let sections: BTreeSet<&str> = runbooks.text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let missing = alerts.difference(&sections).map(|name| format!("{} has no section for alert {name}", runbooks.path));
    let gone = sections.difference(&alerts).map(|name| format!("{} has a section for {name}, which is no alert", runbooks.path));
    let names_its_own = |name: &&&str| rules.text.contains(&format!("runbook: {}#{}\n", runbooks.path, name.to_lowercase()));
    let unnamed =
        alerts.iter().filter(|name| !names_its_own(name)).map(|name| format!("{}: alert {name} does not name its section", rules.path));
    missing.chain(gone).chain(unnamed).collect()
}

fn is_metric(text: &str) -> bool {
    text.strip_prefix("forebay_").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
}

/// Line and target of each link, those in code left out.
fn links(markdown: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(without_fences(markdown)) {
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
        // `[name]: target`, on a line of its own.
        if let Some((_, target)) = text.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            found.push((number, target.split(' ').next().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// The lines, those of code blocks empty.
fn without_fences(markdown: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    markdown.lines().map(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        inside ^= is_fence;
        if inside || is_fence { "" } else { line }
    })
}

/// As GitHub makes them of headings.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in without_fences(markdown).filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}")).find(|name| !found.contains(name));
        let name = if found.contains(&anchor) { again.unwrap_or_default() } else { anchor };
        found.insert(name);
    }
    found
}

/// A path from the root; `None` when it leads out of it.
fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// A file, or a folder that holds one.
fn exists(path: &str, files: &[TextFile]) -> bool {
    path.is_empty() || files.iter().any(|file| file.path == path || file.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.into(), text: text.into() }
    }

    fn check(text: &str, expected: &[&str]) {
        let all = [file("README.md", "# Read me\n## A `b` c?\n## Twice\n## Twice\n"), file("docs/x.md", text), file("src/lib.rs", "")];
        assert_eq!(check_links(&all[1], &all), expected, "{text}");
    }

    #[test]
    fn links_that_lead_somewhere_are_fine() {
        check("[a](../README.md) [b](../src/) [c](https://x.y/z) [d](x.md#t) [e](../README.md#a-b-c) [f](../README.md#twice-1)\n# t", &[]);
        check("`[a](nowhere.md)`\n```\n[b](nowhere.md)\n```\n", &[]);
    }

    #[test]
    fn links_that_lead_nowhere_are_found_with_their_place() {
        check("\n[a](y.md)", &["docs/x.md:2: y.md does not exist"]);
        check("[a](README.md)", &["docs/x.md:1: README.md does not exist"]);
        check("[a](../../b)", &["docs/x.md:1: ../../b leads out of the repository"]);
        check("[a](../README.md#gone)", &["docs/x.md:1: README.md has no heading #gone"]);
        check("[a](#gone)", &["docs/x.md:1: docs/x.md has no heading #gone"]);
        check("[a]: y.md", &["docs/x.md:1: y.md does not exist"]);
        check("`code` [a](y.md \"title\")", &["docs/x.md:1: y.md does not exist"]);
    }

    #[test]
    fn reasons_are_compared_with_the_tables_of_one_section() {
        let document = "# A\n| `Elsewhere` |\n### Why\n| reason of `Stalled` | what |\n|---|---|\n| `Gone`, `Known` | `Words` |\n\n## B\n| `Behind` |\n";
        let sources = [r#"say("Known", "Ready", "some words"); say("New");
#[cfg(test)] "Tested""#];
        let findings = check_reasons(&sources, document, "\n### Why\n", &["Other"]);
        let missing = |name: &str| format!("reason {name} is in no table below \"\\n### Why\\n\"");
        assert_eq!(findings, [missing("New"), missing("Other"), "a table below \"\\n### Why\\n\" has Gone, which no code says".to_owned()]);
    }

    #[test]
    fn a_path_that_does_not_exist_is_found_and_words_that_are_no_paths_are_not() {
        let map = file("MAP.md", "`src/lib.rs` and `src/` and `gone/lib.rs`, `a.rs`, `forebay run`, `files/<shard>/`\n`old/`\n");
        let all = [map.clone(), file("src/lib.rs", "")];
        assert_eq!(check_paths(&map, &all), ["MAP.md:1: `gone/lib.rs` does not exist", "MAP.md:2: `old/` does not exist"]);
    }

    #[test]
    fn what_rules_and_dashboards_ask_for_is_described() {
        let rules = file("r.yaml", r#"sum by (le) (rate(forebay_b_seconds_bucket[5m])) / forebay_a_total{x="forebay"} > forebay_c_count"#);
        assert_eq!(
            check_metrics_used(&rules, "`forebay_b_seconds`, `forebay_a_total`"),
            ["r.yaml: forebay_c_count is not described in docs/metrics.md"]
        );
    }

    #[test]
    fn alerts_and_runbooks_are_compared_both_ways() {
        let rules = file("r.yaml", "  - alert: One\n      runbook: b.md#one\n  - alert: Two\n      runbook: b.md#one\n");
        let books = file("b.md", "# Runbooks\n## One\n## Three\n");
        let expected = [
            "b.md has no section for alert Two",
            "b.md has a section for Three, which is no alert",
            "r.yaml: alert Two does not name its section",
        ];
        assert_eq!(check_runbooks(&rules, &books), expected);
    }

    #[test]
    fn metrics_are_compared_both_ways() {
        let source = r#"("forebay_a_total", "Help.", x), name("forebay_b")"#;
        assert_eq!(check_metrics(source, "`forebay_a_total`, `forebay_b`"), Vec::<String>::new());
        assert_eq!(
            check_metrics(source, "`forebay_a_total` and `forebay_c`"),
            ["metric forebay_b is not described in docs/metrics.md", "docs/metrics.md describes forebay_c, which no code renders"]
        );
    }
}
