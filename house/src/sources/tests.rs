//! The checks of Rust files, on files that are bad on purpose.

use super::*;

fn file(path: &str, text: impl Into<String>) -> TextFile {
    TextFile { path: path.into(), text: text.into() }
}

fn function(name: &str, lines: usize) -> String {
    format!("fn {name}() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
}

#[test]
fn a_file_without_a_header_is_found() {
    for (text, is_bad) in [("//! What it is.\n", false), ("", true), ("use x;\n", true), ("//!\n", true), ("\n//! Late.\n", true)] {
        assert_eq!(check_header(&file("a.rs", text)).is_some(), is_bad, "{text:?}");
    }
}

#[test]
fn braces_in_comments_strings_and_characters_are_no_code() {
    let text = "a /* { /* { */ } */ b // {\n\"{ \\\" {\" '{' '\\'' r#\"{ \" {\"# br\"{\" b'{' c <'x> r#in é";
    let code = code_only(text);
    assert!(!code.contains('{') && !code.contains('}'), "{code}");
    for word in ["a ", " b ", " c ", "<'x>", "r#in"] {
        assert!(code.contains(word), "{word:?} is gone from {code:?}");
    }
    assert_eq!(code.lines().count(), 2);
    assert_eq!(code.len(), text.chars().count());
}

#[test]
fn the_keyword_unsafe_is_found_and_the_word_is_not() {
    let text =
        "//! An unsafe file.\n#![allow(unsafe_code)]\nlet unsafety = \"unsafe\"; // unsafe\nunsafe fn f() {}\nlet x = unsafe { f() };\n";
    let found: Vec<String> = find_unsafe(&file("a.rs", text)).iter().filter_map(|line| Some(line.split(": ").next()?.to_owned())).collect();
    assert_eq!(found, ["a.rs:4", "a.rs:5"]);
}

#[test]
fn a_function_is_as_long_as_from_its_name_to_its_closing_brace() {
    let check = |text: &str, expected: &[(&str, usize)]| {
        let code = code_only(text);
        let found: Vec<_> = functions(&code).into_iter().map(|(name, range)| (name, newlines(&code[range]) + 1)).collect();
        let expected: Vec<_> = expected.iter().map(|(name, lines)| ((*name).to_owned(), *lines)).collect();
        assert_eq!(found, expected, "{text}");
    };
    check("fn a() {}", &[("a", 1)]);
    check("pub fn a(x: [u8; 4]) -> [u8; 2]\nwhere\n  X: Y,\n{\n  if x { y }\n}\nfn b() {\n}", &[("a", 6), ("b", 2)]);
    check("trait T { fn only_named(&self); fn given(&self) { } }", &[("given", 1)]);
    check("type F = fn (u8); let my_fn = 1; // fn c() {\n\"fn d() {\";", &[]);
    check("fn outer() {\n  fn inner() {\n  }\n}", &[("outer", 4), ("inner", 2)]);
}

#[test]
fn long_functions_and_files_are_found_and_just_fitting_ones_are_not() {
    assert_eq!(find_long(&file("a.rs", function("fits", 70))), []);
    let text = format!("//! A.\n{}", function("long", 71));
    let long = |function: Option<&str>, line, lines| Long { path: "a.rs".into(), function: function.map(Into::into), line, lines };
    assert_eq!(find_long(&file("a.rs", text)), [long(Some("long"), 2, 71)]);
    assert_eq!(find_long(&file("a.rs", "x;\n".repeat(400))), []);
    assert_eq!(find_long(&file("a.rs", "x;\n".repeat(401))), [long(None, 1, 401)]);
}

#[test]
fn tests_do_not_count_as_production_code() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    x;\n".repeat(500));
    let check = |text: String, expected: usize| assert_eq!(production_lines(&code_only(&text)), expected);
    check("x;\n".repeat(10) + &tests, 10);
    check(tests.clone() + &"x;\n".repeat(10), 10);
    check("#[cfg(test)]\nmod tests;\n".to_owned() + &"x;\n".repeat(410), 410);
    assert_eq!(find_long(&file("a/tests/b.rs", "x;\n".repeat(500))), []);
    assert_eq!(find_long(&file("a/src/b/tests.rs", "x;\n".repeat(500))), []);
}

#[test]
fn an_exception_bounds_what_it_allows_and_must_be_needed() {
    let exception = Exception { path: "a.rs", function: Some("f"), lines_max: 80, reason: "a table" };
    let long = |lines| Long { path: "a.rs".into(), function: Some("f".into()), line: 3, lines };
    assert_eq!(judge(&[long(80)], &[exception]), Vec::<String>::new());
    assert_eq!(judge(&[long(81)], &[exception]), ["a.rs:3: fn f has 81 lines, more than 80; split it"]);
    assert_eq!(judge(&[long(80)], &[]), ["a.rs:3: fn f has 80 lines, more than 70; split it"]);
    assert_eq!(judge(&[], &[exception]), ["a.rs, fn f, needs its exception no more; delete it from the table"]);
}
