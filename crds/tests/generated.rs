//! The generated files are those that their sources make, and the definition is one that the API server takes.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

#[path = "generated/outputs.rs"]
mod outputs;

use serde_json::Value;

#[test]
fn the_committed_files_are_what_their_sources_make() {
    // Every generated file is compared with a fresh one, byte by byte.
    for (path, text) in outputs::outputs().unwrap() {
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{} is stale; run `make generate`", path.display());
    }
}

#[test]
fn the_definitions_are_small_enough_for_the_api_server() {
    // kubectl's client-side apply copies the object into an annotation, which may hold 256 KiB: half of that leaves room for years.
    for (file, text) in forebay_crds::crd::files() {
        assert!(text.len() < 128 << 10, "{file}: {} bytes", text.len());
    }
}

#[test]
fn every_field_says_what_it_is_and_the_schemas_are_structural() {
    // Walks the whole schema of the spec.
    for ((file, text), fields_min) in forebay_crds::crd::files().into_iter().zip([60, 2]) {
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut faults = Vec::new();
        let fields = walk(spec, "spec", &mut faults);
        assert!(fields >= fields_min, "{file}: only {fields} fields were seen");
        assert_eq!(faults, Vec::<String>::new(), "{file}");
    }
}

/// Counts fields; notes those without a description, those without a type, and what a structural schema may not hold.
fn walk(schema: &Value, at: &str, faults: &mut Vec<String>) -> usize {
    let is_free = schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["type"].is_null() && !is_free {
        faults.push(format!("{at} has no type"));
    }
    for word in ["$ref", "definitions", "$defs", "const", "patternProperties"] {
        if !schema[word].is_null() {
            faults.push(format!("{at} holds {word}"));
        }
    }
    let mut fields = 0;
    if let Value::Object(properties) = &schema["properties"] {
        for (name, property) in properties {
            let at = format!("{at}.{name}");
            if property["description"].as_str().is_none_or(str::is_empty) {
                faults.push(format!("{at} has no description"));
            }
            fields += 1 + walk(property, &at, faults);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            fields += walk(&schema[inner], &format!("{at}.{inner}"), faults);
        }
    }
    fields
}
