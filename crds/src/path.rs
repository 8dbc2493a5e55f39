//! Where in a manifest something stands: `spec.pipeline[2].dedup.last`. A path names a field, whatever the file looks like.

use std::fmt;

use serde::{Serialize, Serializer};

/// One step down into a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A field, or a key of a map.
    Key(String),
    /// An element of a list, counted from 0.
    Index(usize),
}

/// A field's path from the top of the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Segment>);

impl Path {
    /// The whole manifest.
    pub fn root() -> Self {
        Self::default()
    }

    /// `spec`.
    pub fn spec() -> Self {
        Self::root().key("spec")
    }

    /// The field or map key `key` of what this path names.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.child(Segment::Key(key.to_owned()))
    }

    /// The element `index`, counted from 0, of the list that this path names.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.child(Segment::Index(index))
    }

    /// Where something is whose path begins at what this path names.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
    }

    /// The way from the top.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// What contains this; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, parents) = self.0.split_last()?;
        Some(Self(parents.to_vec()))
    }

    /// The inverse of `to_string` for keys without dots: `spec.pipeline[2].dedup`. Any text is a path; one that names nothing is found nowhere.
    pub fn parse(text: &str) -> Self {
        let mut path = Self::root();
        for part in text.split('.') {
            let (key, mut rest) = part.split_once('[').map_or((part, ""), |(key, rest)| (key, rest));
            path = path.key(key);
            while let Some((index, behind)) = rest.split_once(']') {
                let Ok(index) = index.parse() else { break };
                path = path.index(index);
                rest = behind.strip_prefix('[').unwrap_or("");
            }
        }
        path
    }

    fn child(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if !is_plain(key) => write!(f, "[{key:?}]")?,
                Segment::Key(key) if at == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Path {
    /// As text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether a key can be told from its surroundings without quotes.
fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_dotted_keys_comes_back_from_its_text() {
        let path = Path::spec().key("pipeline").index(3).key("route").index(0).key("emit");
        assert_eq!(Path::parse(&path.to_string()), path);
    }

    #[test]
    fn a_path_reads_like_code_and_quotes_keys_that_hold_dots() {
        let path = Path::spec().key("pipeline").index(3).key("upsert").key("last_airport");
        assert_eq!(path.to_string(), "spec.pipeline[3].upsert.last_airport");
        let path = Path::spec().key("kafka").key("properties").key("sasl.password").key("env");
        assert_eq!(path.to_string(), r#"spec.kafka.properties["sasl.password"].env"#);
    }
}
