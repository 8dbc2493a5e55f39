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
    // Walks the whole schemas of all versions, from what the kinds themselves say to the last field of spec and status.
    for ((file, text), [spec_min, status_min]) in forebay_crds::crd::files().into_iter().zip([[60, 15], [2, 6]]) {
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let schema = &version["schema"]["openAPIV3Schema"];
            let mut faults = Vec::new();
            walk(schema, "", &mut faults);
            assert!(schema["description"].is_string(), "{file} does not say what it is");
            for (part, fields_min) in [("spec", spec_min), ("status", status_min)] {
                let fields = walk(&schema["properties"][part], part, &mut Vec::new());
                assert!(fields >= fields_min, "{file}: only {fields} fields of {part} were seen");
            }
            assert_eq!(faults, Vec::<String>::new(), "{file}");
        }
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
