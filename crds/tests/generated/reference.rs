//! The reference of all fields, in Markdown, from the schemas of the definitions.

use std::fmt::Write as _;

use serde_json::Value;

/// The page: each kind with its fields by path, what they take and what they are.
pub fn page(definitions: &[(&str, String)]) -> String {
    let mut page = String::from(
        "# Fields of the resources\n\n\
         Generated from the definitions in [crds/](../crds) by `make generate`; `kubectl explain ij.spec` shows the same. `[]` stands for each element of a list,\n\
         `<name>` for each key of a map. What the steps of a pipeline do, with examples, is in [pipeline.md](pipeline.md).\n",
    );
    for (file, text) in definitions {
        let crd: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let (names, version) = (&crd["spec"]["names"], &crd["spec"]["versions"][0]);
        let kind = names["kind"].as_str().unwrap_or_default();
        let short = names["shortNames"][0].as_str().unwrap_or_default();
        let _ = writeln!(page, "\n## {kind}\n\n`forebay.dev/{}`, short name `{short}`.", version["name"].as_str().unwrap_or_default());
        for part in ["spec", "status"] {
            let schema = &version["schema"]["openAPIV3Schema"]["properties"][part];
            let _ = writeln!(page, "\n### {kind}: {part}\n\n| field | takes | what |\n|---|---|---|");
            fields(schema, part, &mut page);
        }
    }
    page
}

fn fields(schema: &Value, at: &str, page: &mut String) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let must = if required.contains(&name.as_str()) { ", **must be given**" } else { "" };
        let what = field["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let rules = rules(field).concat();
        let _ = writeln!(page, "| `{at}` | {}{must} | {}{rules} |", takes(field), what.replace('|', "\\|"));
        below(field, &at, page);
    }
}

fn below(field: &Value, at: &str, page: &mut String) {
    if field["properties"].is_object() {
        fields(field, at, page);
    }
    for (inner, mark) in [("items", "[]"), ("additionalProperties", ".<name>")] {
        if field[inner].is_object() {
            below(&field[inner], &format!("{at}{mark}"), page);
        }
    }
}

/// What the API server refuses besides, in its own words. Those of a pattern say what the second column says.
fn rules(field: &Value) -> Vec<String> {
    let places = [field, &field["items"], &field["additionalProperties"]];
    let all = places.into_iter().flat_map(|place| place["x-kubernetes-validations"].as_array().into_iter().flatten());
    let rules = all.filter(|rule| !rule["rule"].as_str().is_some_and(|rule| rule.starts_with("self.matches(") && !rule.contains(" ? ")));
    let messages = rules.filter_map(|rule| rule["message"].as_str());
    messages.map(|message| format!(" Refused: “{}”.", message.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// The type and its limits, in words.
fn takes(field: &Value) -> String {
    let kind = match field["type"].as_str() {
        Some("array") => format!("list of {}", takes(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => format!("map to {}", takes(&field["additionalProperties"])),
        Some("integer") => "whole number".to_owned(),
        Some(kind) => kind.to_owned(),
        None => "anything".to_owned(),
    };
    let values: Vec<_> = field["enum"].as_array().into_iter().flatten().filter(|value| !value.is_null()).collect();
    if !values.is_empty() {
        return values
            .iter()
            .map(|value| format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect::<Vec<_>>()
            .join(", ");
    }
    let mut takes = kind;
    if let Some(format) = field["format"].as_str().filter(|format| *format == "date-time") {
        let _ = write!(takes, " ({format})");
    }
    let number = |name: &str| field[name].as_f64().map(|number| number.to_string());
    match (number("minimum"), number("maximum")) {
        (Some(least), Some(most)) => takes += &format!(" from {least} to {most}"),
        (Some(least), None) => takes += &format!(" from {least}"),
        (None, Some(most)) => takes += &format!(" up to {most}"),
        (None, None) => {}
    }
    match field["pattern"].as_str() {
        Some("^([0-9]+(ms|s|m|h|d))+$") => takes = "time span such as `1m30s`".to_owned(),
        Some("^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$") => takes = "size such as `8Mi`".to_owned(),
        Some(pattern) => takes += &format!(" like `{}`", pattern.replace('|', "\\|")),
        None => {}
    }
    if let Some(default) = field.get("default") {
        takes += &format!(", default `{default}`");
    }
    takes
}
