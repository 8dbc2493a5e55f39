//! Expressions: the native ones agree with VRL, and errors point at their place.

use std::sync::Arc;

use forebay_crds::pipeline::{FieldRule, FieldType};
use forebay_engine::ids::{InputId, Offset, Partition};
use forebay_engine::record::Header;
use proptest::prelude::*;

use super::*;
use crate::tape::{Name, Tape};

const DOCUMENT: &str = r#"{"n":61,"f":1.5,"s":"abc","t":true,"z":null,"list":[1,2],"o":{"x":{"y":"deep"}},"empty":""}"#;

/// The result as JSON, or the error.
fn evaluate(expression: &Expression, document: &str) -> Result<String, String> {
    let mut tape = Tape::default();
    tape.parse_json(document).unwrap();
    let headers = [Header { name: "trace", value: Some(b"t1") }];
    let record = InputRecord {
        input: InputId::new(0),
        partition: Partition::new(3),
        offset: Offset::new(42),
        timestamp: Timestamp::from_millis(1_000),
        key: Some(b"key"),
        value: Some(document.as_bytes()),
        headers: &headers,
    };
    let scope = Scope { doc: Doc { text: document, tape: &tape }, record: &record, topic: "in", now: Timestamp::from_millis(86_400_000) };
    let mut vrl = Vrl::new(Arc::new(Layout::of(expression.program())));
    let mut json = Vec::new();
    expression.evaluate(scope, &mut vrl)?.write_json(&mut json);
    Ok(String::from_utf8(json).unwrap())
}

fn compile(text: &str) -> Result<Expression, ExpressionError> {
    Expression::compile(&spec::Expression::new(text), &Types::default())
}

fn check(text: &str, expected: &str) {
    assert_eq!(evaluate(&compile(text).unwrap(), DOCUMENT).as_deref(), Ok(expected), "{text}");
}

#[test]
fn paths_literals_and_comparisons_are_evaluated_without_vrl() {
    let cases = [
        (".n", "61"),
        (".o.x.y", r#""deep""#),
        (".o.x", r#"{"y":"deep"}"#),
        (".nothing.at.all", "null"),
        (".s.x", "null"),
        ("-17", "-17"),
        ("2.5", "2.5"),
        (r#""text""#, r#""text""#),
        (".n > 60", "true"),
        (".n>=61.0&&.s==\"abc\"", "true"),
        (".n < 60 || .t", "true"),
        ("!(.n == 61)", "false"),
        (".z == null", "true"),
        (".z && .t", "false"),
        (".z || .s", r#""abc""#),
        (".s != .n", "true"),
        (".s < \"abd\"", "true"),
        ("%key == \"key\" && %partition == 3 && %offset == 42 && %timestamp == 1000 && %topic == \"in\"", "true"),
        ("(.list)", "[1,2]"),
        ("if .s == \"abc\" { 1 }", "1"),
        ("if .s == \"abd\" { 1 }", "null"),
        ("if .n > 100 { .s } else if !(.t == true) { 2 } else { .o.x.y }", r#""deep""#),
    ];
    for (text, expected) in cases {
        assert!(matches!(compile(text).unwrap().form, Form::Native(_)), "{text} needs VRL");
        check(text, expected);
    }
}

#[test]
fn everything_else_is_vrl_and_sees_only_the_parts_that_it_touches() {
    let cases = [
        (".n + 1", "62", ".n"),
        (r#"upcase(string!(.s)) + "-" + to_string!(.n)"#, r#""ABC-61""#, ".n .s"),
        ("if .t == true { .list[1] } else { null }", "2", ".list .t"),
        ("exists(.z) && !exists(.y)", "true", ".y .z"),
        ("now()", r#""1970-01-02T00:00:00Z""#, ""),
        ("to_unix_timestamp(now())", "86400", ""),
        ("%headers.trace", r#""t1""#, ""),
        ("length(object!(.))", "8", "."),
        ("{\"a\": [.n, {\"b\": .s}]}", r#"{"a":[61,{"b":"abc"}]}"#, ".n .s"),
        ("[.o.x.y, .o.z, exists(.o.q)]", r#"["deep",null,false]"#, ".o.q .o.x.y .o.z"),
        ("[.o.x.y, is_object(.o)]", r#"["deep",true]"#, ".o"),
        ("[is_object(.o), .o.x.y, .s.t.u]", r#"[true,"deep",null]"#, ".o .s.t.u"),
    ];
    for (text, expected, touched) in cases {
        let expression = compile(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let mut paths = Vec::new();
        list_paths(expression.program().unwrap().touched(), "", &mut paths);
        assert_eq!(paths.join(" "), touched, "{text}");
        assert!(matches!(expression.form, Form::Vrl(_)), "{text} was taken for native");
        check(text, expected);
    }
}

fn list_paths(touched: &Touched, path: &str, into: &mut Vec<String>) {
    match touched {
        Touched::Whole => into.push(if path.is_empty() { ".".into() } else { path.into() }),
        Touched::Members(members) => members.iter().for_each(|(name, parts)| list_paths(parts, &format!("{path}.{name}"), into)),
    }
}

#[test]
fn functions_do_what_vrls_do() {
    let cases = [
        ("to_int!(\"12\") + to_int(true)", "13"),
        ("to_float!(\"1.5\")", "1.5"),
        ("to_bool!(\"yes\")", "true"),
        ("downcase(\"ÄB\")", r#""äb""#),
        ("strip_whitespace(\"  a \")", r#""a""#),
        ("contains(\"abc\", \"bc\") && starts_with(\"abc\", \"ab\") && ends_with(\"abc\", \"bc\")", "true"),
        ("join!(split(\"a-b-c\", \"-\"), \"+\")", r#""a+b+c""#),
        ("replace(\"a.b.c\", \".\", \"\")", r#""abc""#),
        ("strlen(\"äb\") == 2 && length(\"äb\") == 3", "true"),
        ("[abs(-3), floor(1.7), ceil(1.2), round(1.5), mod!(7, 4)]", "[3,1.0,2.0,2.0,3]"),
        ("includes([1, 2], 2)", "true"),
        ("push([1], \"a\")", r#"[1,"a"]"#),
        ("merge({\"a\": 1, \"b\": 1}, {\"b\": 2})", r#"{"a":1,"b":2}"#),
        (
            "[is_null(.z), is_string(.s), is_integer(.n), is_float(.f), is_boolean(.t), is_array(.list), is_object(.o)]",
            "[true,true,true,true,true,true,true]",
        ),
        (
            "[is_null(.s), is_string(.n), is_integer(.f), is_float(.n), is_boolean(.n), is_array(.o), is_object(.list)]",
            "[false,false,false,false,false,false,false]",
        ),
        ("int!(.n) + 1", "62"),
        ("float!(.f)", "1.5"),
        ("bool!(.t)", "true"),
        ("length(array!(.list))", "2"),
    ];
    for (text, expected) in cases {
        check(text, expected);
    }
}

#[test]
fn an_expression_that_fails_says_why_and_names_itself() {
    let cases = [
        (".s > 60", ".s > 60: \"abc\" cannot be compared with 60"),
        (".z > 60", "null cannot be compared with 60"),
        ("!.n", "wants true or false, not 61"),
        (".t && .n", "wants true or false, not 61"),
        (".s + 1", ".s + 1: "),
        ("to_int!(.s)", "invalid digit"),
        ("to_int(.s)", "invalid digit"),
        ("string!(.n)", "expected"),
    ];
    for (text, expected) in cases {
        let error = evaluate(&compile(text).unwrap_or_else(|error| panic!("{text}: {error:?}")), DOCUMENT).unwrap_err();
        assert!(error.starts_with(text) && error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_is_no_expression_is_refused_with_its_place_and_the_way_out() {
    let check = |text: &str, offset: usize, message: &str| {
        let error = compile(text).unwrap_err();
        assert_eq!(error.offset, Some(offset), "{text}: {error:?}");
        assert!(error.message.contains(message), "{text}: {error:?}");
        assert!(!error.help.is_empty(), "{text}: {error:?}");
    };
    check(".a >", 4, "syntax error");
    check(".a == ==", 6, "syntax error");
    check("  nosuch(.a)", 2, "undefined function: `nosuch`");
    check(".x = 1", 0, "read-only");
    check("del(.a)", 0, "read-only");
    check("a.b", 0, "undefined variable: `a`");
    check("1 < 2 < 3", 6, "chained");
}

#[test]
fn types_that_were_validated_need_no_handling_of_errors_in_a_remap() {
    let integer = |required| FieldRule { kind: Some(FieldType::Integer), required, ..FieldRule::default() };
    let program = ".n = .n + 1";
    let compile = |types: &Types| Program::compile_remap(program, &mut types.clone()).map(|_| ());
    assert!(compile(&Types::default()).unwrap_err().message.contains("unhandled fallible assignment"));
    let mut types = Types::default();
    types.learn(&[Name::new("n")], &integer(false));
    assert!(compile(&types).is_err());
    types.learn(&[Name::new("n")], &integer(true));
    assert_eq!(compile(&types), Ok(()));
    types.forget("n");
    assert!(compile(&types).is_err());
}

/// Expressions of the native part, over fields that are there, are null, or are of another type.
fn any_native() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![".n", ".f", ".s", ".t", ".z", ".list", ".o", ".o.x.y", ".missing", ".empty"]).prop_map(String::from),
        prop::sample::select(vec!["true", "false", "null", "61", "1.5", "-3", "\"abc\"", "\"\""]).prop_map(String::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec!["==", "!=", ">", ">=", "<", "<=", "&&", "||"]), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            inner.clone().prop_map(|inner| format!("!({inner})")),
            (inner.clone(), prop::sample::select(vec!["==", "<"]), inner.clone(), inner.clone(), inner).prop_map(
                |(left, operator, right, then, otherwise)| format!("(if {left} {operator} {right} {{ {then} }} else {{ {otherwise} }})")
            ),
        ]
    })
}

/// Programs that read, set and delete at every depth, whatever is there.
const REMAPS: &[&str] = &[
    ".a = .b",
    "del(.a.b)",
    ".a = 1",
    ".d = \"\\u{e9}\"; del(.b); .b = 2.5",
    "del(.a.b); .a.c = null; .a.b = .c.a",
    ".a.b = 1",
    ".a.b.c = .b.a",
    ".b = {\"a\": .a.b, \"x\": [.c]}",
    ".a[1] = .b",
    ".a.b[0].c = 2; del(.b)",
    "if exists(.a.b) { .c = is_object(.a.b) } else { del(.c.a) }",
    ".c = {}; .c.a = .a",
    ".a = .a; .b.b = .b.b",
    ".new = \"x\"; .a.new = {\"b\": [.a.c]}",
    ". = merge(object!(.), {\"b\": .a.a})",
];

/// What `remap` programs leave one after the other, as JSON, when VRL sees what they touch, or all.
fn remapped(programs: &[&Program], sees_all: bool, text: &str) -> Result<String, String> {
    let (mut tape, mut spare) = (Tape::default(), Tape::default());
    tape.parse_json(text).unwrap();
    let record = InputRecord {
        input: InputId::new(0),
        partition: Partition::new(0),
        offset: Offset::new(0),
        timestamp: Timestamp::from_millis(0),
        key: None,
        value: Some(text.as_bytes()),
        headers: &[],
    };
    let all = Program::compile_expression("is_object(.)", &Types::default()).unwrap();
    let mut vrl = Vrl::new(Arc::new(Layout::of(programs.iter().copied().chain(sees_all.then_some(&all)))));
    for program in programs {
        let doc = Doc { text, tape: &tape };
        vrl.remap(program, Scope { doc, record: &record, topic: "in", now: Timestamp::from_millis(0) })?;
        vrl.write_to(text, &mut tape, &mut spare)?;
    }
    let mut json = Vec::new();
    Doc { text, tape: &tape }.root().write_json(&mut json);
    Ok(String::from_utf8(json).unwrap())
}

fn any_document() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec!["1", "2.50", "true", "null", "\"a\\u0062\"", "\"x\"", "[]", "{}", "[ 1 ]"]).prop_map(String::from);
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..4).prop_map(|elements| format!("[{}]", elements.join(","))), members_of(inner),]
    });
    members_of(value)
}

fn members_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::hash_map(prop::sample::select(vec!["a", "b", "c", "d"]), value, 0..4).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn a_remap_that_sees_only_what_it_touches_leaves_what_it_leaves_when_it_sees_all(
        document in any_document(),
        sources in [prop::sample::select(REMAPS), prop::sample::select(REMAPS)],
    ) {
        let programs = sources.map(|source| Program::compile_remap(source, &mut Types::default()).unwrap());
        let programs = [&programs[0], &programs[1]];
        prop_assert_eq!(remapped(&programs, false, &document), remapped(&programs, true, &document), "{:?} on {}", sources, document);
    }

    #[test]
    fn a_remap_that_changes_nothing_leaves_every_byte(left in any_document(), right in any_document()) {
        let document = format!("{{\"a\":{left},\"b\":{right}}}");
        let program = Program::compile_remap("if exists(.a.b) { .a.b = .a.b }; .b = .b", &mut Types::default()).unwrap();
        let mut tape = Tape::default();
        tape.parse_json(&document).unwrap();
        let mut before = Vec::new();
        Doc { text: &document, tape: &tape }.root().write_json(&mut before);
        prop_assert_eq!(remapped(&[&program], false, &document), Ok(String::from_utf8(before).unwrap()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn evaluating_without_vrl_gives_what_vrl_gives(text in any_native()) {
        let expression = compile(&text).unwrap();
        prop_assert!(matches!(expression.form, Form::Native(_)), "{} needs VRL", text);
        // VRL refuses some for their types when it compiles, which are checked here when they run.
        let Ok(program) = Program::compile_expression(&text, &Types::default()) else { return Ok(()) };
        let through_vrl = Expression { text: text.as_str().into(), form: Form::Vrl(Box::new(program)) };
        let (native, vrl) = (evaluate(&expression, DOCUMENT), evaluate(&through_vrl, DOCUMENT));
        // The words of an error are each one's own.
        prop_assert_eq!(native.as_ref().ok(), vrl.as_ref().ok(), "{}: {:?} {:?}", text, native, vrl);
    }
}
