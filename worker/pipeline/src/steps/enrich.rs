//! `enrich`: adds fields of an entity to the document.
//!
//! When the document is still the record's own text, the new member is written behind it and the text stays as it is.

use forebay_crds::pipeline as spec;
use forebay_engine::ids::TableId;
use forebay_engine::pipeline::Workspace;

use crate::compile::Compiler;
use crate::document::{Document, FieldName, Fields, Value, write_bytes_string, write_string};
use crate::expression::Expression;
use crate::instance::{Failure, Form, Hand, entity_key, scope};
use crate::tape::Name;

#[derive(Debug)]
pub(crate) struct Enrich {
    table: TableId,
    key: Option<Expression>,
    pub(super) into: Name,
    /// The member's name as JSON.
    into_json: Box<[u8]>,
    /// Names, also as JSON; none for all.
    fields: Vec<(FieldName, Box<[u8]>)>,
    /// Whether a later step looks at what is added.
    pub(super) seen_later: bool,
}

impl Enrich {
    pub(super) fn compile(spec: &spec::Enrich, compiler: &mut Compiler<'_>) -> Option<Self> {
        let key = compiler.optional(".key", spec.key.as_ref());
        compiler.types.forget(&spec.into);
        let fields = spec.fields.iter().map(|name| (name.as_str().into(), name_json(name))).collect();
        let table = compiler.table(".table", &spec.table)?;
        Some(Self { table, key, into: Name::new(&spec.into), into_json: name_json(&spec.into), fields, seen_later: false })
    }

    pub(super) fn apply(&self, hand: &mut Hand<'_>, workspace: &mut Workspace<'_, Document>) -> Result<(), Failure> {
        let scope = scope!(hand);
        let key = entity_key(self.key.as_ref(), scope, hand.context, &mut hand.buffers.vrl, &mut hand.buffers.key)?;
        let fields = workspace.get(self.table, key)?.and_then(Document::fields);
        let replaced = scope.doc.key_at(&self.into);
        let is_empty = || scope.doc.root().members().next().is_none();
        if replaced.is_none() && matches!(hand.form, Form::Original | Form::Extended(_)) {
            if hand.form == Form::Original {
                hand.buffers.suffix.clear();
                hand.form = Form::Extended(hand.text.trim_end().len() - 1);
            }
            if !(hand.buffers.suffix.is_empty() && is_empty()) {
                hand.buffers.suffix.push(b',');
            }
            hand.buffers.suffix.extend_from_slice(&self.into_json);
            hand.buffers.suffix.push(b':');
            self.write_object(fields, &mut hand.buffers.suffix);
            if self.seen_later {
                self.append_object(fields, hand);
                hand.buffers.vrl.document_changed();
            }
        } else {
            if let Some(key_at) = replaced {
                hand.buffers.tape.remove_member(key_at);
            }
            self.append_object(fields, hand);
            hand.changed();
        }
        Ok(())
    }

    pub(super) fn expressions(&self) -> Vec<&Expression> {
        self.key.iter().collect()
    }

    fn write_object(&self, fields: Option<&Fields>, into: &mut Vec<u8>) {
        let Some(fields) = fields else {
            into.extend_from_slice(b"null");
            return;
        };
        into.push(b'{');
        let mut separate = false;
        let mut begin = |into: &mut Vec<u8>| {
            if std::mem::replace(&mut separate, true) {
                into.push(b',');
            }
        };
        let mut near = 0;
        for (name, json) in &self.fields {
            if let Some(place) = fields.place(name, &mut near) {
                begin(into);
                into.extend_from_slice(json);
                into.push(b':');
                fields.at(place).write_json(into);
            }
        }
        if self.fields.is_empty() {
            for (name, value) in fields.iter() {
                begin(into);
                write_bytes_string(name.text(), into);
                into.push(b':');
                value.write_json(into);
            }
        }
        into.push(b'}');
    }

    fn append_object(&self, fields: Option<&Fields>, hand: &mut Hand<'_>) {
        let tape = &mut hand.buffers.tape;
        match fields {
            Some(fields) if self.fields.is_empty() => {
                tape.append_object(self.into.as_str(), Some(fields.iter().map(|(name, value)| (name.text(), value))))
            }
            Some(fields) => {
                let wanted = self.fields.iter().filter_map(|(name, _)| Some((name.as_str().as_bytes(), fields.get(name)?)));
                tape.append_object(self.into.as_str(), Some(wanted));
            }
            None => tape.append_member(self.into.as_str(), Value::NULL),
        }
    }
}

fn name_json(name: &str) -> Box<[u8]> {
    let mut bytes = Vec::new();
    write_string(name, &mut bytes);
    bytes.into()
}
