//! How Rust files look: a header, no file and no function that does not fit the eye. Works on text; a small lexer tells code from comments
//! and strings, so that a brace in a string counts for nothing.

use std::ops::Range;

use crate::repository::TextFile;

/// Lines of production code in a file.
pub const FILE_LINES_MAX: usize = 400;

/// Lines of a function, from `fn` to its closing brace: one screen.
pub const FUNCTION_LINES_MAX: usize = 70;

/// A file or function that may be longer, up to a limit of its own.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// The file, from the root.
    pub path: &'static str,
    /// The function; `None`: the file as a whole.
    pub function: Option<&'static str>,
    /// The most lines that it may have.
    pub lines_max: usize,
    /// Why.
    pub reason: &'static str,
}

/// Something longer than the rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Long {
    /// The file, from the root.
    pub path: String,
    /// The function; `None`: the file as a whole.
    pub function: Option<String>,
    /// Where it begins, from 1.
    pub line: usize,
    /// How many lines it has.
    pub lines: usize,
}

/// Whether the file opens with what it is; `Some` says that it does not.
pub fn check_header(file: &TextFile) -> Option<String> {
    let said = file.text.lines().next().and_then(|line| line.strip_prefix("//!")).is_some_and(|words| !words.trim().is_empty());
    (!said).then(|| format!("{}:1: opens without `//!`; say what the file is, and what it must not do", file.path))
}

/// A line for each place with the keyword `unsafe`.
pub fn find_unsafe(file: &TextFile) -> Vec<String> {
    let code = code_only(&file.text);
    let has_it = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let lines = (1..).zip(code.lines()).filter(|(_, line)| has_it(line));
    lines
        .map(|(number, _)| format!("{}:{number}: `unsafe`; only what no library offers is worth it, in a file of its own", file.path))
        .collect()
}

/// The file itself and its functions, where they are too long by the rule.
pub fn find_long(file: &TextFile) -> Vec<Long> {
    let code = code_only(&file.text);
    let mut found = Vec::new();
    let lines = production_lines(&code);
    if !is_test(&file.path) && lines > FILE_LINES_MAX {
        found.push(Long { path: file.path.clone(), function: None, line: 1, lines });
    }
    for (name, range) in functions(&code) {
        let lines = newlines(&code[range.clone()]) + 1;
        if lines > FUNCTION_LINES_MAX {
            let line = newlines(&code[..range.start]) + 1;
            found.push(Long { path: file.path.clone(), function: Some(name), line, lines });
        }
    }
    found
}

/// What is too long without an exception, and exceptions that nothing needs any more.
pub fn judge(long: &[Long], exceptions: &[Exception]) -> Vec<String> {
    let is_of = |exception: &Exception, long: &Long| exception.path == long.path && exception.function == long.function.as_deref();
    let mut findings = Vec::new();
    for long in long {
        let what = long.function.as_ref().map_or_else(|| "production code".to_owned(), |name| format!("fn {name}"));
        let allowed = exceptions.iter().find(|exception| is_of(exception, long)).map(|exception| exception.lines_max);
        let rule = if long.function.is_some() { FUNCTION_LINES_MAX } else { FILE_LINES_MAX };
        if long.lines > allowed.unwrap_or(rule) {
            let most = allowed.unwrap_or(rule);
            findings.push(format!("{}:{}: {what} has {} lines, more than {most}; split it", long.path, long.line, long.lines));
        }
    }
    for exception in exceptions.iter().filter(|exception| !long.iter().any(|long| is_of(exception, long))) {
        let what = exception.function.map_or(String::new(), |name| format!(", fn {name},"));
        findings.push(format!("{}{what} needs its exception no more; delete it from the table", exception.path));
    }
    findings
}

/// Whether a file holds tests and nothing else.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// The text with comments, strings and characters blanked out. Line ends stay where they are.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end > at {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            // One byte for one character, so that places in it are places in lines.
            code.push(if chars[at].is_ascii() { chars[at] } else { '?' });
            at += 1;
        }
    }
    code
}

/// Behind the comment, string or character that begins at `at`; `at` itself when none does.
fn skipped(chars: &[char], at: usize) -> usize {
    let after = |text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    match chars[at] {
        '/' if after("//") => (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()),
        '/' if after("/*") => behind_comment(chars, at),
        '"' => behind_quote(chars, at + 1, '"'),
        '\'' if chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'') => behind_quote(chars, at + 1, '\''),
        'r' if at == 0 || !is_word(chars[at - 1]) || matches!(chars[at - 1], 'b' | 'c') => behind_raw(chars, at).unwrap_or(at),
        _ => at,
    }
}

fn behind_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn behind_quote(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `None` when the `r` begins no raw string.
fn behind_raw(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let from = at + 1 + hashes;
    if chars.get(from) != Some(&'"') {
        return None;
    }
    let closes = |i: &usize| chars[*i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    Some((from + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes))
}

/// Lines less those of items that exist in tests only.
fn production_lines(code: &str) -> usize {
    const TEST_ONLY: &str = "#[cfg(test)]";
    let (mut lines, mut from) = (code.lines().count(), 0);
    while let Some(at) = code[from..].find(TEST_ONLY).map(|at| from + at) {
        let end = end_of_item(code, at + TEST_ONLY.len());
        lines -= (newlines(&code[at..end]) + 1).min(lines);
        from = end;
    }
    lines
}

/// Names of all functions that have a body, and where they stand, from `fn` to the closing brace.
fn functions(code: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].trim_start().chars().take_while(|c| is_word(*c)).collect();
        let is_word_alone = at == 0 || !code[..at].ends_with(is_word);
        let end = end_of_item(code, at);
        if is_word_alone && !name.is_empty() && code[..end].ends_with('}') {
            found.push((name, at..end));
        }
    }
    found
}

/// Behind the semicolon or the closing brace that ends the item in which `from` lies.
fn end_of_item(code: &str, from: usize) -> usize {
    let (mut inside, mut braces) = (0_usize, 0_usize);
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => inside += 1,
            ')' | ']' => inside = inside.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return from + at + 1,
            '}' => braces -= 1,
            ';' if inside == 0 && braces == 0 => return from + at + 1,
            _ => {}
        }
    }
    code.len()
}

fn newlines(code: &str) -> usize {
    code.bytes().filter(|byte| *byte == b'\n').count()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests;
