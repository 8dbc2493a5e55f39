//! The steps' shapes: what is read, what is refused, what is written back.

use super::*;

/// Calls `each` with the path and the schema of every property.
fn properties(schema: &serde_json::Value, path: &str, each: &mut dyn FnMut(&str, &serde_json::Value, bool)) {
    match schema {
        serde_json::Value::Object(members) => {
            for (name, inner) in members {
                let path = format!("{path}/{name}");
                if name == "properties" {
                    // A step is an object with one property: what describes the object describes the step.
                    let fields = inner.as_object().into_iter().flatten();
                    let is_described_step = members.contains_key("description") && fields.clone().count() == 1;
                    for (property, schema) in fields {
                        each(&format!("{path}/{property}"), schema, is_described_step);
                    }
                }
                properties(inner, &path, each);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| properties(item, path, each)),
        _ => {}
    }
}

#[test]
fn every_field_of_every_step_is_described_in_the_schema() {
    let schema = serde_json::to_value(schemars::schema_for!(Vec<Step>)).unwrap();
    let mut seen = 0;
    properties(&schema, "", &mut |path, schema, is_described_step| {
        seen += 1;
        // The name of a step is described by what it holds.
        let described = is_described_step || schema.get("description").is_some() || schema.get("$ref").is_some();
        assert!(described, "{path} has no description: {schema}");
    });
    assert!(seen > 50, "only {seen} properties were found");
}

#[test]
fn an_expression_is_text_or_an_integer_and_is_written_back_as_it_came() {
    let check = |json: &str, text: &str| {
        let expression: Expression = serde_json::from_str(json).unwrap();
        assert_eq!((expression.text().as_ref(), serde_json::to_string(&expression).unwrap().as_str()), (text, json));
    };
    check("1", "1");
    check("-9223372036854775808", "-9223372036854775808");
    check("\".a > 1\"", ".a > 1");
    for json in ["1.5", "true", "null", "[1]", "9223372036854775808"] {
        let error = serde_json::from_str::<Expression>(json).unwrap_err().to_string();
        assert!(error.contains("quotes"), "{json}: {error}");
    }
}

#[test]
fn a_step_names_its_topics_and_its_table() {
    let check = |json: &str, topics: &[&str], table: Option<(&str, TableKind)>| {
        let step: Step = serde_json::from_str(json).unwrap();
        assert_eq!((step.output_topics().as_slice(), step.table()), (topics, table), "{json}");
    };
    check(r#"{"dedup":{"by":[".id"],"last":1}}"#, &[], Some(("dedup", TableKind::Seen)));
    check(r#"{"dedup":{"by":[".id"],"within":"1h","table":"d"}}"#, &[], Some(("d", TableKind::Seen)));
    check(r#"{"upsert":{"table":"t","set":{"a":".a"},"emit":{"topic":"d"}}}"#, &["d"], Some(("t", TableKind::Entities)));
    check(r#"{"remove":{"table":"t"}}"#, &[], Some(("t", TableKind::Entities)));
    check(r#"{"enrich":{"table":"t","into":"e"}}"#, &[], Some(("t", TableKind::Entities)));
    check(r#"{"route":[{"when":".a","emit":{"topic":"x"}},{"otherwise":true,"emit":{"topic":"y"}}]}"#, &["x", "y"], None);
    check(r#"{"emit":{"topic":"x"}}"#, &["x"], None);
    check(r#"{"filter":".a"}"#, &[], None);
}

#[test]
fn what_is_written_by_default_is_left_out_when_it_is_written_back() {
    let short = r#"[{"parse":{"format":"json"}},{"dedup":{"by":[".id"],"last":1}},{"emit":{"topic":"x"}}]"#;
    let long = r#"[{"parse":{"format":"json","tombstone":"reject","empty":"reject","oversized":"reject"}},
        {"dedup":{"by":[".id"],"last":1,"table":"dedup"}},{"emit":{"topic":"x","partitioner":"murmur2","headers":{}}}]"#;
    let read = |json: &str| serde_json::from_str::<Vec<Step>>(json).unwrap();
    assert_eq!(read(long), read(short));
    assert_eq!(serde_json::to_string(&read(long)).unwrap(), short);
}
