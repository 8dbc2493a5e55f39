//! Serde's errors in the words of a manifest's author: no types of Rust, the value that stands there, and the way out.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::tree::Mark;
use crate::finding::{did_you_mean, nearest};
use crate::path::Path;

/// An error on its way up; whoever knows the place first puts it in.
#[derive(Debug)]
pub(super) struct Error(pub(super) Box<Details>);

#[derive(Debug)]
pub(super) struct Details {
    pub at: Option<(Path, Mark)>,
    pub kind: Kind,
    pub message: String,
    pub help: String,
}

#[derive(Debug)]
pub(super) enum Kind {
    Missing(&'static str),
    Unknown {
        meant: Option<&'static str>,
    },
    /// Nothing is left of what was there, since it had errors of its own.
    Emptied,
    Other,
}

impl Error {
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self(Box::new(Details { at: None, kind: Kind::Other, message: message.into(), help: help.into() }))
    }

    pub fn at(mut self, path: &Path, mark: Mark) -> Self {
        self.0.at.get_or_insert_with(|| (path.clone(), mark));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        match text.split_once("; ") {
            Some((message, help)) => Self::new(message, help),
            // Of a type of Kubernetes; ours say it.
            None => Self::new(text, "write what the type takes, or leave the field out"),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let help = match (found, expected_in_words(expected, false).as_str()) {
            (Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) | Unexpected::Bool(_), TEXT) => {
                "put quotes around it".to_owned()
            }
            (Unexpected::Unit, _) => "write a value, or leave the field out".to_owned(),
            (_, A_BLOCK) => "write its fields below it, indented, or in braces".to_owned(),
            (_, A_LIST) => "start each element with a dash, or put brackets around them".to_owned(),
            _ => format!("write {}", expected_in_words(expected, false)),
        };
        Self::new(format!("{} stands where {} belongs", in_words(found), expected_in_words(expected, false)), help)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("{} does not fit", in_words(found)), format!("write {}", expected_in_words(expected, true)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("{length} elements do not fit"), format!("write {}", expected_in_words(expected, true)))
    }

    fn unknown_variant(unknown: &str, known: &'static [&'static str]) -> Self {
        let mut error = Self::new(format!("`{unknown}` is not known here"), did_you_mean(unknown, known.iter().copied()));
        error.0.kind = Kind::Unknown { meant: None };
        error
    }

    fn unknown_field(unknown: &str, known: &'static [&'static str]) -> Self {
        let mut error = Self::new("unknown field", did_you_mean(unknown, known.iter().copied()));
        error.0.kind = Kind::Unknown { meant: nearest(unknown, known.iter().copied()) };
        error
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::new(format!("the field `{field}` is missing"), format!("add `{field}:`"));
        error.0.kind = Kind::Missing(field);
        error
    }
}

fn in_words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a block of fields".to_owned(),
        other => other.to_string(),
    }
}

const A_BLOCK: &str = "a block of fields";
const A_LIST: &str = "a list";
const TEXT: &str = "text";

/// Serde speaks of Rust's types; a manifest's author does not. `exact`: with the limits of a number.
fn expected_in_words(expected: &dyn Expected, exact: bool) -> String {
    let text = expected.to_string();
    let (first, _) = text.split_once(' ').unwrap_or((&text, ""));
    let words = match (first, text.as_str()) {
        ("struct", _) | (_, "a map") => A_BLOCK,
        ("tuple", _) | (_, "a sequence") => A_LIST,
        ("u8", _) if exact => "a whole number from 0 to 255",
        ("u16", _) if exact => "a whole number from 0 to 65535",
        ("u32", _) if exact => "a whole number from 0 to 4294967295",
        ("u64" | "usize", _) if exact => "a whole number, 0 or more",
        ("u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64", _) => "a whole number",
        ("f32" | "f64", _) => "a number",
        (_, "a string") => TEXT,
        (_, "a boolean") => "true or false",
        (_, "IntOrString") => "a whole number or text",
        // Kubernetes' types say their names.
        _ if text.starts_with(char::is_uppercase) && !text.contains(' ') => A_BLOCK,
        _ => return text,
    };
    words.to_owned()
}

/// The name of a Rust type as words: `InputPartitioner` is an `input partitioner`, `StoreSpec` a `store`.
pub(super) fn type_in_words(name: &str) -> String {
    let mut words = String::new();
    for c in name.strip_suffix("Spec").unwrap_or(name).chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}
