//! The parsed record: reading, changing and writing it without losing a byte.

use forebay_crds::pipeline::{Csv, CsvColumn, CsvType};
use proptest::prelude::*;

use super::*;

fn json_of(tape: &Tape, text: &str) -> String {
    let mut bytes = Vec::new();
    Doc { text, tape }.root().write_json(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn reparsed(text: &str) -> Result<String, String> {
    let mut tape = Tape::default();
    tape.parse_json(text)?;
    Ok(json_of(&tape, text))
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
        "[a\"\\\\/\n\t\u{0}\u{1f}é]{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 100, 10, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..10).prop_map(Into::into),
            prop::collection::hash_map("[a-zé\"\\\\]{0,6}", inner, 0..40).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_parsed_means_the_same_when_written(members in prop::collection::hash_map("\\PC{0,10}", any_json(), 0..40)) {
        let value: serde_json::Value = members.into_iter().collect();
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            // serde_json may read a float one bit off, so both sides go through the same reader.
            let written: serde_json::Value = serde_json::from_str(&reparsed(&text).unwrap()).unwrap();
            prop_assert_eq!(written, serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }
    }

    #[test]
    fn a_value_is_the_same_in_the_document_and_in_the_state(value in any_json()) {
        let text = format!("{{\"a\":{value}}}");
        let mut tape = Tape::default();
        tape.parse_json(&text).unwrap();
        let item = Doc { text: &text, tape: &tape }.root().member("a").unwrap();
        let (mut from_document, mut from_state) = (Vec::new(), Vec::new());
        item.write_json(&mut from_document);
        let mut kept = Vec::new();
        item.encode(&mut kept);
        let kept = Value::of(&kept);
        kept.write_json(&mut from_state);
        prop_assert_eq!(&from_document, &from_state);
        // And it goes back into a document unchanged.
        let mut second = Tape::default();
        second.parse_json("{}").unwrap();
        second.append_member("a", kept);
        prop_assert_eq!(json_of(&second, "{}"), json_of(&tape, &text));
    }
}

/// Method: texts that are almost JSON, by one byte that is changed, added or left out; serde_json says which of them are. Where it differs by
/// design, the text is passed over: a name that comes twice, a number too large for a float, and what is no object.
#[test]
fn what_is_json_and_what_is_not_is_as_serde_json_has_it() {
    let whole =
        r#"{"a":[1,-2.5e+3,0,-0,1E2,"x\u00e9\n\ud83d\ude00"],"b":{"c":null, "d":[true,false,{}]},"é":"\\\"/","n":123456789012345678}"#;
    let bytes = whole.as_bytes();
    let mut alike = 0;
    for at in 0..bytes.len() {
        for byte in b"\"\\{}[]:,0159.-+eEunrtx \n\t\x01\x7f" {
            let changed = [&bytes[..at], &[*byte], &bytes[at + 1..]].concat();
            let added = [&bytes[..at], &[*byte], &bytes[at..]].concat();
            let cut = [&bytes[..at], &bytes[at + 1..]].concat();
            for text in [changed, added, cut].into_iter().filter_map(|text| String::from_utf8(text).ok()) {
                let ours = reparsed(&text);
                if let Err(reason) = &ours
                    && ["twice", "too large", "not an object"].iter().any(|known| reason.contains(known))
                {
                    continue;
                }
                let theirs = serde_json::from_str::<serde_json::Value>(&text);
                assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?}, {theirs:?}");
                if let Ok(ours) = ours {
                    // serde_json may read a float one bit off.
                    let exactly = |text: &str| sonic_rs::from_str::<serde_json::Value>(text).unwrap();
                    assert_eq!(exactly(&ours), exactly(&text), "{text}");
                    alike += 1;
                }
            }
        }
    }
    assert!(alike > 1000, "{alike}");
}

#[test]
fn a_container_without_white_space_is_passed_on_as_it_stands_and_one_with_it_is_written_anew() {
    let check = |text: &str, expected: &str| {
        let mut tape = Tape::default();
        tape.parse_json(text).unwrap();
        let mut bytes = Vec::new();
        Doc { text, tape: &tape }.find(&[Name::new("a")]).unwrap().write_json(&mut bytes);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    };
    check(r#" {"a" : {"b":[1.50,"\u0061 c"]} }"#, r#"{"b":[1.50,"\u0061 c"]}"#);
    check(r#"{"a":{"b": [1.50],"c":[1.50,"\u0061"]}}"#, r#"{"b":[1.50],"c":[1.50,"\u0061"]}"#);
    check(r#"{"a":[1.50 ,"\u0061"]}"#, r#"[1.5,"a"]"#);
}

#[test]
fn text_that_is_not_one_json_object_is_refused_with_its_fault() {
    let check = |text: &str, expected: &str| {
        let error = reparsed(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    };
    check("[1]", "an array and not an object");
    check("\"a\"", "a string and not an object");
    check("17", "a number and not an object");
    check("null", "null and not an object");
    check("true", "a boolean and not an object");
    check("", "is not JSON");
    check("{", "is not JSON");
    check("{\"a\":1} x", "is not JSON");
    check("{\"a\":1}{\"a\":1}", "is not JSON");
    check("{\"a\":01}", "is not JSON");
    check("{\"a\":NaN}", "is not JSON");
    check("{\"a\":1,}", "is not JSON");
    check("{'a':1}", "is not JSON");
    check("{\"a\":\"\u{1}\"}", "is not JSON");
    check("{\"a\":\"\\ud800\"}", "is not JSON");
    check("{\"a\":1e999}", "is not JSON");
}

#[test]
fn a_name_that_comes_twice_in_an_object_is_refused() {
    let check = |text: &str, expected: Option<&str>| match (reparsed(text), expected) {
        (Err(error), Some(name)) => assert!(error.contains(&format!("{name:?} comes twice")), "{error}"),
        (Ok(_), None) => {}
        (result, expected) => panic!("{text}: {result:?}, not {expected:?}"),
    };
    check(r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":2}]}"#, None);
    check(r#"{"a":1,"b":2,"a":1}"#, Some("a"));
    check(r#"{"x":{"b":1,"b":2}}"#, Some("b"));
    check(r#"{"a":1,"\u0061":2}"#, Some("a"));
    let many: Vec<String> = (0..100).map(|n| format!("\"f{n}\":{n}")).collect();
    check(&format!("{{{}}}", many.join(",")), None);
    check(&format!("{{{},\"f42\":0}}", many.join(",")), Some("f42"));
}

#[test]
fn every_field_is_found_however_many_there_are() {
    let names: Vec<String> = (0..300).map(|n| format!("f{n}")).collect();
    let members: Vec<String> = names.iter().enumerate().map(|(n, name)| format!("\"{name}\":{{\"f{}\":{n}}}", n + 1)).collect();
    let text = format!("{{{}}}", members.join(","));
    let mut tape = Tape::default();
    tape.parse_json(&text).unwrap();
    let doc = Doc { text: &text, tape: &tape };
    for (n, name) in names.iter().enumerate() {
        let path = [Name::new(name), Name::new(&format!("f{}", n + 1))];
        assert!(matches!(doc.find(&path).unwrap().kind(), Kind::Int(found) if found == i64::try_from(n).unwrap()));
        assert!(doc.find(&[Name::new(&format!("g{n}"))]).is_none());
    }
    // Those of a record before must not be found in the next.
    tape.parse_json("{\"f1\":1}").unwrap();
    let doc = Doc { text: "{\"f1\":1}", tape: &tape };
    assert_eq!(names.iter().filter(|name| doc.find(&[Name::new(name)]).is_some()).count(), 1);
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(reparsed(&nested(120)).is_ok());
    assert!(reparsed(&nested(130)).unwrap_err().contains("nested deeper than 128"));
    assert!(reparsed(&nested(100_000)).is_err());
}

#[test]
fn whole_numbers_keep_64_bits_and_larger_ones_become_floats() {
    assert_eq!(
        reparsed(r#"{"a":9223372036854775807,"b":-9223372036854775808,"c":18446744073709551615,"d":1.0,"e":1e3}"#).unwrap(),
        r#"{"a":9223372036854775807,"b":-9223372036854775808,"c":1.8446744073709552e+19,"d":1.0,"e":1000.0}"#
    );
}

#[test]
fn a_member_that_was_taken_away_is_gone_and_one_that_was_added_comes_last() {
    let text = r#"{"a":{"x":[1,2]},"b":2}"#;
    let mut tape = Tape::default();
    tape.parse_json(text).unwrap();
    let key_at = Doc { text, tape: &tape }.key_at(&Name::new("a")).unwrap();
    tape.remove_member(key_at);
    tape.append_member("a", Value::of(&[3]));
    assert_eq!(json_of(&tape, text), r#"{"b":2,"a":3}"#);
    assert!(matches!(Doc { text, tape: &tape }.find(&[Name::new("a")]).unwrap().kind(), Kind::Int(3)));
    assert!(Doc { text, tape: &tape }.find(&[Name::new("a"), Name::new("x")]).is_none());
}

fn csv(delimiter: &str, columns: &[(&str, CsvType)]) -> CsvReader {
    let columns = columns.iter().map(|(name, kind)| CsvColumn { name: (*name).into(), kind: *kind }).collect();
    CsvReader::new(&Csv { columns, delimiter: delimiter.into() })
}

#[test]
fn a_line_of_csv_becomes_an_object() {
    let mut reader = csv(";", &[("id", CsvType::String), ("n", CsvType::Integer), ("x", CsvType::Number), ("ok", CsvType::Boolean)]);
    let mut tape = Tape::default();
    let mut check = |line: &str, expected: &str| {
        reader.parse(line, &mut tape).unwrap();
        assert_eq!(json_of(&tape, line), expected, "{line:?}");
    };
    check("a;1;2.5;true", r#"{"id":"a","n":1,"x":2.5,"ok":true}"#);
    check("\"a;\"\"b\"\"\n\";-1;2;false\r\n", r#"{"id":"a;\"b\"\n","n":-1,"x":2,"ok":false}"#);
    check(";;;\n", r#"{"id":"","n":null,"x":null,"ok":null}"#);
    check("é;1;1e3;true", r#"{"id":"é","n":1,"x":1000.0,"ok":true}"#);
}

#[test]
fn a_value_that_is_no_line_of_these_columns_is_refused_with_its_fault() {
    let mut reader = csv(",", &[("id", CsvType::String), ("n", CsvType::Integer), ("x", CsvType::Number)]);
    let mut check = |line: &str, expected: &str| {
        let error = reader.parse(line, &mut Tape::default()).unwrap_err();
        assert!(error.contains(expected), "{line:?}: {error}");
    };
    check("a,1", "fewer columns instead of 3");
    check("a,1,2,3", "more columns instead of 3");
    check("a,1,2,3,4,5,6", "more columns instead of 3");
    check("a,one,2", "column n: \"one\" is not an integer");
    check("a,1,inf", "column x: \"inf\" is not a number");
    check("a,1,2\nb,1,2", "more than one line");
    check("\n", "no line");
}
