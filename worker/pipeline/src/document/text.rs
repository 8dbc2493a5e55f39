//! A string that costs no allocation when it is short, and none to clone when it is long.

use std::fmt;
use std::sync::Arc;

/// So that a value, tag included, fits into three words.
const INLINE_BYTES_MAX: usize = 22;

/// An immutable string.
#[derive(Clone)]
pub struct Text(Form);

#[derive(Clone)]
enum Form {
    Short { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Long(Arc<str>),
}

impl Text {
    /// The string.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Short { .. } => std::str::from_utf8(self.as_bytes()).expect("a text is made from a str"),
            Form::Long(text) => text,
        }
    }

    /// Its bytes; cheaper than [`Text::as_str`], which checks them.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Short { len, bytes } => &bytes[..usize::from(*len)],
            Form::Long(text) => text.as_bytes(),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Short { .. } => 0,
            Form::Long(text) => text.len() + 2 * size_of::<usize>(),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        if text.len() > INLINE_BYTES_MAX {
            return Text(Form::Long(text.into()));
        }
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Text(Form::Short { len: u8::try_from(text.len()).expect("it is at most 22"), bytes })
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            // Behind its end a short one holds zeros, so that both are compared as a whole, in a few instructions.
            (Form::Short { len, bytes }, Form::Short { len: other_len, bytes: other_bytes }) => len == other_len && bytes == other_bytes,
            (Form::Long(text), Form::Long(other)) => text == other,
            // A long one is longer.
            (Form::Short { .. }, Form::Long(_)) | (Form::Long(_), Form::Short { .. }) => false,
        }
    }
}

impl Eq for Text {}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
