//! The parts of the record's document that VRL programs touch, as VRL wants them: each is made when a program first asks for it, and kept until the document
//! changes.

use std::cell::OnceCell;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use vrl::compiler::{SecretTarget, Target};
use vrl::path::{OwnedTargetPath, OwnedValuePath, PathPrefix};
use vrl::value::{Secrets, Value};

use super::{Program, Touched};
use crate::tape::{Doc, Name, Tape};

/// Which parts there are, for all programs of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    touched: Touched,
    /// Where each part lies, none in another, in the order of their names.
    places: Vec<Place>,
    /// By the paths that programs use: the part, and the way from there.
    ways: FxHashMap<OwnedValuePath, (usize, OwnedValuePath)>,
}

#[derive(Debug)]
struct Place {
    names: Vec<Name>,
    path: OwnedValuePath,
}

impl Layout {
    pub(crate) fn of<'p>(programs: impl IntoIterator<Item = &'p Program>) -> Self {
        let (mut touched, mut paths) = (Touched::default(), Vec::new());
        for program in programs {
            touched.add(program.touched());
            paths.extend(program.paths());
        }
        let mut places = Vec::new();
        touched.list_whole(&mut Vec::new(), &mut places);
        let place = |names: Vec<&str>| {
            let mut path = OwnedValuePath::root();
            names.iter().for_each(|name| path.push_field(name));
            Place { names: names.into_iter().map(Name::new).collect(), path }
        };
        let places: Vec<Place> = places.into_iter().map(place).collect();
        let mut ways = FxHashMap::default();
        for path in paths {
            let leads_there = |place: &Place| path.segments.starts_with(&place.path.segments);
            let part = places.iter().position(leads_there).expect("every path that a program uses is touched");
            let rest = path.segments[places[part].names.len()..].to_vec();
            ways.insert(path.clone(), (part, OwnedValuePath::from(rest)));
        }
        Self { touched, places, ways }
    }
}

/// The parts of the document in hand.
#[derive(Debug)]
pub(super) struct Parts {
    parts: Vec<Part>,
    /// The record's text, which the parts' strings are slices of.
    text: OnceCell<Bytes>,
}

#[derive(Debug, Default)]
struct Part {
    /// `None`: there is no such member.
    value: OnceCell<Option<Value>>,
    /// Whether a program has set or removed any of it.
    written: bool,
}

impl Parts {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { parts: layout.places.iter().map(|_| Part::default()).collect(), text: OnceCell::new() }
    }

    /// Another record is in hand.
    pub(super) fn begin_record(&mut self) {
        self.forget();
        self.text.take();
    }

    /// The document is another one.
    pub(super) fn forget(&mut self) {
        self.parts.fill_with(Part::default);
    }

    /// Tells the document what was written: where it stands, or, when there is no room, by making it anew with the help of `spare`. `Err`: the programs have left
    /// no object.
    pub(super) fn write_to(&self, layout: &Layout, text: &str, tape: &mut Tape, spare: &mut Tape) -> Result<(), String> {
        let written = || self.parts.iter().zip(&layout.places).filter(|(part, _)| part.written);
        let changes = written().map(|(part, place)| (place.names.as_slice(), part.left()));
        if !tape.change(text, changes) {
            let before = Doc { text, tape };
            let mut whole = layout.touched.to_vrl(before.root(), self.text(before));
            for (part, place) in written() {
                // What was set and removed again has left the objects around it.
                let removed = part.left().is_none();
                whole.insert(&place.path, part.left().cloned().unwrap_or(Value::Null));
                if removed {
                    whole.remove(&place.path, false);
                }
            }
            let members = whole.as_object().ok_or("the program must leave an object in `.`")?;
            spare.rebuild(members, &layout.touched, before);
            std::mem::swap(tape, spare);
        }
        Ok(())
    }

    fn text(&self, doc: Doc<'_>) -> &Bytes {
        self.text.get_or_init(|| Bytes::copy_from_slice(doc.text.as_bytes()))
    }
}

impl Part {
    /// What programs have left of it.
    fn left(&self) -> Option<&Value> {
        self.value.get().and_then(Option::as_ref)
    }
}

/// What a running program reads and writes.
#[derive(Debug)]
pub(super) struct Hand<'h> {
    pub(super) layout: &'h Layout,
    pub(super) doc: Doc<'h>,
    pub(super) parts: &'h mut Parts,
    pub(super) metadata: &'h mut Value,
    pub(super) secrets: &'h mut Secrets,
}

impl<'h> Hand<'h> {
    /// The part that a path leads to, and the way from there.
    fn way(&self, path: &OwnedValuePath) -> Result<(usize, &'h OwnedValuePath), String> {
        let way = self.layout.ways.get(path).ok_or_else(|| format!(".{path} is none of the parts that programs touch"));
        way.map(|(part, rest)| (*part, rest))
    }

    fn value(&self, part: usize) -> Option<&Value> {
        let make = || {
            let item = self.doc.find(&self.layout.places[part].names)?;
            Some(Touched::Whole.to_vrl(item, self.parts.text(self.doc)))
        };
        self.parts.parts[part].value.get_or_init(make).as_ref()
    }

    fn value_mut(&mut self, part: usize) -> &mut Option<Value> {
        self.value(part);
        let part = &mut self.parts.parts[part];
        part.written = true;
        part.value.get_mut().expect("it was made just now")
    }
}

impl Target for Hand<'_> {
    fn target_insert(&mut self, path: &OwnedTargetPath, value: Value) -> Result<(), String> {
        if path.prefix == PathPrefix::Metadata {
            self.metadata.insert(&path.path, value);
            return Ok(());
        }
        let (part, rest) = self.way(&path.path)?;
        self.value_mut(part).get_or_insert(Value::Null).insert(rest, value);
        Ok(())
    }

    fn target_get(&self, path: &OwnedTargetPath) -> Result<Option<&Value>, String> {
        if path.prefix == PathPrefix::Metadata {
            return Ok(self.metadata.get(&path.path));
        }
        match self.way(&path.path) {
            Ok((part, rest)) => Ok(self.value(part).and_then(|value| value.get(rest))),
            // Before a program VRL itself asks whether there is a document, whatever it is.
            Err(_) if path.path.is_root() => Ok(Some(self.metadata)),
            Err(reason) => Err(reason),
        }
    }

    fn target_get_mut(&mut self, path: &OwnedTargetPath) -> Result<Option<&mut Value>, String> {
        if path.prefix == PathPrefix::Metadata {
            return Ok(self.metadata.get_mut(&path.path));
        }
        let (part, rest) = self.way(&path.path)?;
        Ok(self.value_mut(part).as_mut().and_then(|value| value.get_mut(rest)))
    }

    fn target_remove(&mut self, path: &OwnedTargetPath, compact: bool) -> Result<Option<Value>, String> {
        if path.prefix == PathPrefix::Metadata {
            return Ok(self.metadata.remove(&path.path, compact));
        }
        let (part, rest) = self.way(&path.path)?;
        if self.value(part).is_none() {
            return Ok(None);
        }
        let is_member = rest.is_root() && !path.path.is_root();
        let value = self.value_mut(part);
        Ok(if is_member { value.take() } else { value.as_mut().and_then(|value| value.remove(rest, compact)) })
    }
}

impl SecretTarget for Hand<'_> {
    fn get_secret(&self, key: &str) -> Option<&str> {
        self.secrets.get_secret(key)
    }

    fn insert_secret(&mut self, key: &str, value: &str) {
        self.secrets.insert_secret(key, value);
    }

    fn remove_secret(&mut self, key: &str) {
        self.secrets.remove_secret(key);
    }
}
