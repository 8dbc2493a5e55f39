//! Typed values out of a tree. Serde stops at the first error; here the error's node is then taken out of the tree and the rest read
//! again, so that one run reports everything.

use std::sync::Arc;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::{Error, Kind, type_in_words};
use super::tree::{Content, Entry, Mark, Node, Style};
use crate::finding::{Finding, Place};
use crate::path::{Path, Segment};

/// More than anybody reads at once; bounds the rounds of [`deserialize`].
const FINDINGS_MAX: usize = 50;
/// These may have more fields than their types: the one has its header read elsewhere, the other may have been written by a newer version.
const TOLERANT: [&str; 2] = ["IngestionJob", "IngestionJobStatus"];

/// Reads a `T` out of `root`, or says everything that is in its way.
pub(crate) fn deserialize<T: for<'de> Deserialize<'de>>(root: &Node, file: &Arc<str>) -> Result<T, Vec<Finding>> {
    let mut rest = root.clone();
    let mut findings = Vec::new();
    loop {
        let error = match T::deserialize(NodeDeserializer { node: &rest, path: Path::root() }) {
            Ok(value) if findings.is_empty() => return Ok(value),
            Ok(_) => return Err(findings),
            Err(error) => *error.0,
        };
        let (path, mark) = error.at.clone().unwrap_or_default();
        let is_known = match &error.kind {
            // The field is missing because it was taken out after an error of its own.
            Kind::Missing(field) => is_pruned(&rest, &path, field),
            Kind::Emptied => true,
            Kind::Unknown { .. } | Kind::Other => false,
        };
        if !is_known {
            let place = (mark != Mark::default()).then(|| Place { file: file.clone(), line: mark.line, column: mark.column });
            findings.push(Finding { path: path.clone(), offset: None, place, message: error.message, help: error.help });
        }
        if findings.len() >= FINDINGS_MAX || !prune(&mut rest, path.segments()) {
            return Err(findings);
        }
        if let Kind::Unknown { meant: Some(field) } = error.kind
            && let Some(parent) = path.parent()
        {
            // Who wrote `topics` did not forget `topic`.
            prune_absent(&mut rest, parent.segments(), field);
        }
    }
}

fn is_pruned(root: &Node, path: &Path, field: &str) -> bool {
    let node = path.segments().iter().try_fold(root, child);
    matches!(node.map(|node| &node.content), Some(Content::Map { pruned, .. }) if pruned.iter().any(|key| key == field))
}

fn child<'a>(node: &'a Node, segment: &Segment) -> Option<&'a Node> {
    match (&node.content, segment) {
        (Content::Map { entries, .. }, Segment::Key(key)) => entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.value),
        (Content::List { items, .. }, Segment::Index(index)) => items.iter().find(|(at, _)| at == index).map(|(_, item)| item),
        _ => None,
    }
}

/// Takes out what stands at the path. `false`: nothing does.
fn prune(node: &mut Node, path: &[Segment]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match (&mut node.content, first) {
        (Content::Map { entries, pruned, .. }, Segment::Key(key)) => {
            let Some(at) = entries.iter().position(|entry| entry.key == *key) else { return false };
            if !rest.is_empty() {
                return prune(&mut entries[at].value, rest);
            }
            pruned.push(entries.remove(at).key);
            true
        }
        (Content::List { items, .. }, Segment::Index(index)) => {
            let Some(at) = items.iter().position(|(at, _)| at == index) else { return false };
            if !rest.is_empty() {
                return prune(&mut items[at].1, rest);
            }
            items.remove(at);
            true
        }
        _ => false,
    }
}

/// Counts `field` of the map at the path as taken out.
fn prune_absent(node: &mut Node, path: &[Segment], field: &str) {
    match (&mut node.content, path.split_first()) {
        (Content::Map { pruned, .. }, None) => pruned.push(field.to_owned()),
        (Content::Map { entries, .. }, Some((Segment::Key(key), rest))) => {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
                prune_absent(&mut entry.value, rest, field);
            }
        }
        (Content::List { items, .. }, Some((Segment::Index(index), rest))) => {
            if let Some((_, item)) = items.iter_mut().find(|(at, _)| at == index) {
                prune_absent(item, rest, field);
            }
        }
        _ => {}
    }
}

/// Reads one node.
struct NodeDeserializer<'a> {
    node: &'a Node,
    path: Path,
}

impl<'a> NodeDeserializer<'a> {
    fn read<T>(node: &'a Node, path: Path, read: impl FnOnce(Self) -> Result<T, Error>) -> Result<T, Error> {
        read(Self { node, path: path.clone() }).map_err(|error| error.at(&path, node.start))
    }

    fn scalar<'de, V: Visitor<'de>>(text: &str, style: Style, visitor: V) -> Result<V::Value, Error> {
        if style != Style::Plain {
            return visitor.visit_str(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return visitor.visit_unit(),
            "true" | "True" | "TRUE" => return visitor.visit_bool(true),
            "false" | "False" | "FALSE" => return visitor.visit_bool(false),
            _ => {}
        }
        if let Ok(number) = text.strip_prefix('+').unwrap_or(text).parse() {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = text.parse() {
            return visitor.visit_i64(number);
        }
        // Rust reads `inf`, `nan` and `infinity` as numbers, YAML reads them as text.
        match text.parse() {
            Ok(number) if !text.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')) => visitor.visit_f64(number),
            _ => visitor.visit_str(text),
        }
    }
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.content {
            Content::Scalar { text, style } => Self::scalar(text, *style, visitor),
            Content::List { items, .. } => visitor.visit_seq(Items { items: items.iter(), path: self.path }),
            Content::Map { entries, .. } => visitor.visit_map(Entries { entries: entries.iter(), current: None, path: self.path }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.content {
            Content::Scalar { text, style: Style::Plain } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") => {
                visitor.visit_none()
            }
            Content::Scalar { .. } | Content::List { .. } | Content::Map { .. } => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // Kubernetes' own types ignore what they do not know; its API server does not.
        if !TOLERANT.contains(&name)
            && let Content::Map { entries, .. } = &self.node.content
            && let Some(unknown) = entries.iter().find(|entry| !fields.contains(&entry.key.as_str()))
        {
            let error = <Error as de::Error>::unknown_field(&unknown.key, fields);
            return Err(error.at(&self.path.key(&unknown.key), unknown.key_start));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let known = || format!("known here: {}", variants.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
        let variant = |text, mark, value| Variant { kind: name, name: text, mark, path: self.path.clone(), value };
        match &self.node.content {
            Content::Scalar { text, style: Style::Plain } if text.is_empty() => Err(Error::new("nothing stands here", known())),
            Content::Scalar { text, .. } => visitor.visit_enum(variant(text, self.node.start, None)),
            Content::List { .. } => Err(Error::new(format!("a list stands where one {} belongs", type_in_words(name)), known())),
            Content::Map { entries, pruned, .. } => match entries.as_slice() {
                [Entry { key, key_start, value }] => visitor.visit_enum(variant(key, *key_start, Some(value))),
                [] => {
                    let mut error = Error::new("nothing stands here", known());
                    if !pruned.is_empty() {
                        error.0.kind = Kind::Emptied;
                    }
                    Err(error)
                }
                [_, second, ..] => {
                    let names: Vec<_> = entries.iter().map(|entry| format!("`{}`", entry.key)).collect();
                    let message = format!("{} stand together where one {} belongs", names.join(" and "), type_in_words(name));
                    let help = match self.path.segments().last() {
                        Some(Segment::Index(_)) => "start each with a dash of its own, or check the indentation",
                        Some(Segment::Key(_)) | None => "delete all but one, or check the indentation",
                    };
                    Err(Error::new(message, help).at(&self.path, second.key_start))
                }
            },
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, (usize, Node)>,
    path: Path,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        NodeDeserializer::read(node, self.path.index(*index), |node| seed.deserialize(node)).map(Some)
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
    path: Path,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.entries.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(&self.path.key(&entry.key), entry.key_start))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let entry = self.current.take().expect("serde asks for a value after its key");
        NodeDeserializer::read(&entry.value, self.path.key(&entry.key), |node| seed.deserialize(node))
    }
}

struct Variant<'a> {
    kind: &'static str,
    name: &'a str,
    mark: Mark,
    path: Path,
    value: Option<&'a Node>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        let unknown = |mut error: Error| {
            if matches!(error.0.kind, Kind::Unknown { .. }) {
                error.0.message = format!("`{}` is no {}", self.name, type_in_words(self.kind));
            }
            error.at(&self.path, self.mark)
        };
        let value = seed.deserialize(name).map_err(unknown)?;
        Ok((value, self))
    }
}

impl Variant<'_> {
    fn content<T>(self, read: impl FnOnce(NodeDeserializer<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let path = self.path.key(self.name);
        match self.value {
            Some(node) => NodeDeserializer::read(node, path, read),
            None => {
                let message = format!("`{}` says too little", self.name);
                Err(Error::new(message, format!("write `{}:` with its fields below", self.name)).at(&self.path, self.mark))
            }
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.value {
            None => Ok(()),
            Some(node) => {
                Err(Error::new(format!("`{}` takes no value", self.name), "write the name alone").at(&self.path.key(self.name), node.start))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.content(|node| seed.deserialize(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.content(|node| node.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.content(|node| node.deserialize_struct("", fields, visitor))
    }
}
