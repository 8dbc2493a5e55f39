//! Which crate of the workspace depends on which: as cargo tells it, and as ARCHITECTURE.md has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What a crate depends on within the workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// Always.
    pub always: BTreeSet<String>,
    /// For its tests and examples only.
    pub tests: BTreeSet<String>,
}

/// By crate, without the prefix `forebay-`.
pub type Graph = BTreeMap<String, Edges>;

/// From what `cargo metadata --no-deps` prints. `Err` says what it lacks.
pub fn real(metadata: &str) -> Result<Graph, String> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata: no packages")?;
    let name_of = |value: &Value| value["name"].as_str().map(short).ok_or("cargo metadata: a package or dependency without a name");
    let members: BTreeSet<String> = packages.iter().map(name_of).collect::<Result<_, _>>()?;
    let mut graph = Graph::new();
    for package in packages {
        let edges = graph.entry(name_of(package)?).or_default();
        for dependency in package["dependencies"].as_array().ok_or("cargo metadata: a package without dependencies")? {
            let name = name_of(dependency)?;
            // What lies in a folder is the workspace's; a crate of the registry could bear the same short name.
            if dependency["path"].is_string() && members.contains(&name) {
                if dependency["kind"] == "dev" {
                    edges.tests.insert(name)
                } else {
                    edges.always.insert(name)
                };
            }
        }
    }
    Ok(graph)
}

/// A line for each crate that wants a feature of another one, by default features too. Cargo gives it to all that are built together.
pub fn who_asks_for(package: &str, feature: &str, metadata: &str) -> Result<Vec<String>, String> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata: no packages")?;
    let has = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(|name| *name == *feature));
    let mut findings = Vec::new();
    for asking in packages {
        if asking["name"] == *package && has(&asking["features"]["default"]) {
            findings.push(format!("{package} has the feature {feature} by default"));
        }
        let of_package = asking["dependencies"].as_array().into_iter().flatten().filter(|dependency| dependency["name"] == *package);
        if of_package.into_iter().any(|dependency| has(&dependency["features"])) {
            findings.push(format!("{} asks for the feature {feature} of {package}", asking["name"]));
        }
    }
    Ok(findings)
}

/// From the table in ARCHITECTURE.md: the one whose first column is called `crate`.
pub fn documented(markdown: &str) -> Result<Graph, String> {
    let mut rows = markdown.lines().skip_while(|line| cells(line).first().is_none_or(|cell| cell != "crate"));
    let head = rows.next().map(cells).ok_or("there is no table whose first column is called `crate`")?;
    if head != ["crate", "depends on", "in tests also on"] {
        return Err(format!("the table's columns are {head:?}; write crate, depends on, in tests also on"));
    }
    let mut graph = Graph::new();
    for row in rows.skip(1).take_while(|line| line.starts_with('|')) {
        let cells = cells(row);
        let [name, always, tests] = cells.as_slice() else { return Err(format!("this row has {} columns: {row}", cells.len())) };
        let edges = Edges { always: names(always), tests: names(tests) };
        if graph.insert(name.trim_matches('`').to_owned(), edges).is_some() {
            return Err(format!("{name} stands in the table twice"));
        }
    }
    Ok(graph)
}

/// A line for each edge that only one of them has.
pub fn compare(real: &Graph, documented: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    let none = Edges::default();
    for name in real.keys().chain(documented.keys()).collect::<BTreeSet<_>>() {
        match (real.contains_key(name), documented.contains_key(name)) {
            (true, false) => findings.push(format!("crate {name} is missing in the table of ARCHITECTURE.md")),
            (false, true) => findings.push(format!("crate {name} of the table in ARCHITECTURE.md does not exist")),
            (true, true) | (false, false) => {}
        }
        let (is, said) = (real.get(name).unwrap_or(&none), documented.get(name).unwrap_or(&none));
        for (is, said, when) in [(&is.always, &said.always, ""), (&is.tests, &said.tests, " in tests")] {
            findings.extend(is.difference(said).map(|to| format!("{name} depends on {to}{when}, and the table does not say so")));
            findings.extend(said.difference(is).map(|to| format!("{name} does not depend on {to}{when}, and the table says so")));
        }
    }
    findings
}

/// A way around in the graph, if there is one. Tests may close a circle, cargo allows them to.
pub fn circle(graph: &Graph) -> Option<Vec<String>> {
    graph.keys().find_map(|start| {
        let mut paths = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while let Some(path) = paths.pop() {
            let last = path.last().expect("a path has a start");
            for next in graph.get(last).into_iter().flat_map(|edges| &edges.always) {
                let longer: Vec<String> = path.iter().cloned().chain([next.clone()]).collect();
                if next == start {
                    return Some(longer);
                }
                if seen.insert(next.clone()) {
                    paths.push(longer);
                }
            }
        }
        None
    })
}

fn short(name: &str) -> String {
    name.strip_prefix("forebay-").unwrap_or(name).to_owned()
}

fn cells(line: &str) -> Vec<String> {
    let Some(inner) = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|')) else { return Vec::new() };
    inner.split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn names(cell: &str) -> BTreeSet<String> {
    cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).filter(|name| !name.is_empty() && name != "–").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages": [
        {"name": "forebay-a", "dependencies": [
            {"name": "forebay-b", "path": "/x/b", "kind": null}, {"name": "serde", "kind": null}, {"name": "forebay-c", "kind": null}]},
        {"name": "forebay-b", "dependencies": [{"name": "forebay-c", "path": "/x/c", "kind": "dev"}]},
        {"name": "forebay-c", "dependencies": []}]}"#;

    fn table(rows: &str) -> Graph {
        let text = format!("# Map\n\n| other |\n|---|\n| x |\n\n| crate | depends on | in tests also on |\n|---|---|---|\n{rows}\ntext");
        documented(&text).expect("a table as it should be")
    }

    fn check(rows: &str, expected: &[&str]) {
        assert_eq!(compare(&real(METADATA).expect("metadata as cargo prints it"), &table(rows)), expected);
    }

    #[test]
    fn a_table_that_says_what_cargo_says_has_no_findings() {
        check("| `a` | `b` | – |\n| `b` | – | `c` |\n| `c` | – | – |", &[]);
    }

    #[test]
    fn every_edge_and_crate_that_only_one_side_has_is_found() {
        check("| `a` | `b`, `c` | – |\n| `b` | – | `c` |\n| `c` | – | – |", &["a does not depend on c, and the table says so"]);
        check("| `a` | – | – |\n| `b` | – | `c` |\n| `c` | – | – |", &["a depends on b, and the table does not say so"]);
        check("| `a` | `b` | – |\n| `b` | – | – |\n| `c` | – | – |", &["b depends on c in tests, and the table does not say so"]);
        check("| `a` | `b` | – |\n| `b` | – | `c` |", &["crate c is missing in the table of ARCHITECTURE.md"]);
        check(
            "| `a` | `b` | – |\n| `b` | – | `c` |\n| `c` | – | – |\n| `d` | – | – |",
            &["crate d of the table in ARCHITECTURE.md does not exist"],
        );
    }

    #[test]
    fn who_asks_for_a_feature_is_found() {
        let of = |default: &str, features: &str| {
            let a = format!(r#"{{"name": "a", "features": {{"default": [{default}], "bugs": []}}, "dependencies": []}}"#);
            let b = format!(r#"{{"name": "b", "features": {{}}, "dependencies": [{{"name": "a", "features": [{features}]}}]}}"#);
            who_asks_for("a", "bugs", &format!(r#"{{"packages": [{a}, {b}]}}"#)).expect("metadata as cargo prints it")
        };
        assert_eq!(of("", "\"other\""), Vec::<String>::new());
        assert_eq!(of("", "\"bugs\""), ["\"b\" asks for the feature bugs of a"]);
        assert_eq!(of("\"bugs\"", ""), ["a has the feature bugs by default"]);
    }

    #[test]
    fn a_document_without_a_proper_table_is_an_error_and_never_an_empty_graph() {
        for text in
            ["", "# Map\n", "| crate | uses |\n|---|---|\n", "| crate | depends on | in tests also on |\n|---|---|---|\n| a | b |\n"]
        {
            assert!(documented(text).is_err(), "{text:?}");
        }
        assert!(real("{}").is_err() && real("[").is_err());
    }

    #[test]
    fn a_circle_is_found() {
        assert_eq!(circle(&table("| `a` | `b` | – |\n| `b` | – | `a` |")), None);
        let found = circle(&table("| `a` | `b` | – |\n| `b` | `c` | – |\n| `c` | `a` | – |"));
        assert_eq!(found, Some(["a", "b", "c", "a"].map(String::from).to_vec()));
    }
}
