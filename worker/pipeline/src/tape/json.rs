//! JSON into a tape. The grammar is sonic-rs's; on top of it an object must not have a name twice: readers of JSON disagree on what that
//! means, and a document that means two things is no fact to count.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Doc, Kind, Node, Span, Tape, hash, narrow, slot_of};

/// More than any document needs; recursion over a document stays far from the end of a thread's stack.
const DEPTH_MAX: usize = 128;

/// The depth at which the members of the document itself are read.
const OWN_DEPTH: usize = 1;

impl Tape {
    /// Reads one JSON object, and nothing behind it but white space. `Err` says what is wrong with the text.
    pub(crate) fn parse_json(&mut self, text: &str) -> Result<(), String> {
        self.clear();
        let mut deserializer = sonic_rs::Deserializer::from_str(text);
        let builder = Builder { tape: self, text, depth: 0 };
        builder.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(|e| {
            // The lines that follow show the text around the place, which the dead letter has anyway.
            let message = e.to_string();
            format!("the value is not JSON: {}", message.lines().next().unwrap_or_default())
        })?;
        match (Doc { text, tape: self }).root().kind() {
            Kind::Object => Ok(()),
            Kind::Null => Err("the value is JSON, but null and not an object".into()),
            Kind::Bool(_) => Err("the value is JSON, but a boolean and not an object".into()),
            Kind::Int(_) | Kind::Float(_) => Err("the value is JSON, but a number and not an object".into()),
            Kind::Text(_) => Err("the value is JSON, but a string and not an object".into()),
            Kind::Array => Err("the value is JSON, but an array and not an object".into()),
        }
    }
}

struct Builder<'t> {
    tape: &'t mut Tape,
    text: &'t str,
    depth: usize,
}

impl Builder<'_> {
    fn inner(&mut self) -> Builder<'_> {
        Builder { tape: self.tape, text: self.text, depth: self.depth + 1 }
    }

    /// A borrowed string's place in the text is a difference of addresses.
    fn borrowed(&self, text: &str) -> Span {
        Span { start: narrow(text.as_ptr().addr() - self.text.as_ptr().addr()), len: narrow(text.len()) }
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.depth < DEPTH_MAX { Ok(()) } else { Err(E::custom(format!("it is nested deeper than {DEPTH_MAX}"))) }
    }
}

impl<'de> DeserializeSeed<'de> for Builder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Builder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.tape.nodes.push(Node::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.tape.nodes.push(Node::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.tape.nodes.push(Node::Int(value));
        Ok(())
    }

    /// One that is too large for the language of expressions becomes a float there; what is passed on keeps its text.
    #[expect(clippy::cast_precision_loss, reason = "said above")]
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.tape.nodes.push(i64::try_from(value).map_or(Node::Float(value as f64), Node::Int));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.tape.nodes.push(Node::Float(value));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        let span = self.borrowed(text);
        self.tape.nodes.push(Node::Text(span));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let span = self.tape.intern(text);
        self.tape.nodes.push(Node::Text(span));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let at = self.tape.open();
        while elements.next_element_seed(self.inner())?.is_some() {}
        self.tape.close(at, |end| Node::Array { end });
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let at = self.tape.open();
        let names_from = self.tape.fingerprints.len();
        while members.next_key_seed(KeyBuilder(self.inner()))?.is_some() {
            members.next_value_seed(self.inner())?;
        }
        self.tape.close(at, |end| Node::Object { end });
        self.check_names(names_from)?;
        self.tape.fingerprints.truncate(names_from);
        Ok(())
    }
}

impl Builder<'_> {
    fn check_names<E: Error>(&mut self, from: usize) -> Result<(), E> {
        let names = &mut self.tape.fingerprints[from..];
        // Few names are compared with each other, which is faster than putting them in order.
        let twice = if names.len() <= 24 {
            let twice = |(index, (print, _)): (usize, &(u64, u32))| names[..index].iter().any(|(before, _)| before == print);
            names.iter().enumerate().any(twice)
        } else {
            names.sort_unstable();
            names.windows(2).any(|pair| pair[0].0 == pair[1].0)
        };
        if twice { self.check_names_for_certain(from) } else { Ok(()) }
    }

    /// Two fingerprints are the same: maybe two names are.
    #[cold]
    fn check_names_for_certain<E: Error>(&self, from: usize) -> Result<(), E> {
        let doc = Doc { text: self.text, tape: self.tape };
        let mut seen = std::collections::HashSet::new();
        for (_, key_at) in &self.tape.fingerprints[from..] {
            let Node::Key(span) = self.tape.nodes[*key_at as usize] else { unreachable!("fingerprints are of keys") };
            if !seen.insert(doc.span(span)) {
                return Err(E::custom(format!("the name {:?} comes twice in one object", doc.span(span))));
            }
        }
        Ok(())
    }
}

/// Reads a member's name.
struct KeyBuilder<'t>(Builder<'t>);

impl KeyBuilder<'_> {
    fn push(self, name: &str, span: Span) {
        let Builder { tape, depth, .. } = self.0;
        let (hash, at) = (hash(name), narrow(tape.nodes.len()));
        tape.fingerprints.push((hash, at));
        if depth == OWN_DEPTH {
            tape.slots[slot_of(hash)] = at;
        }
        tape.nodes.push(Node::Key(span));
    }
}

impl<'de> DeserializeSeed<'de> for KeyBuilder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyBuilder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<(), E> {
        let span = self.0.borrowed(name);
        self.push(name, span);
        Ok(())
    }

    fn visit_str<E>(self, name: &str) -> Result<(), E> {
        let span = self.0.tape.intern(name);
        self.push(name, span);
        Ok(())
    }
}
