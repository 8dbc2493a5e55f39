//! What an `upsert` does to one field. Each operation writes into the delta what brings any copy of the entity to the same value, and only if
//! something changed.

use std::cmp::Ordering;

use super::delta::{Delta, Part};
use crate::document::{Elements, FieldName, Fields, Place, Shape, Value, msgpack, write_string};
use crate::expression::{Expression, Operand, Scope, Vrl, compare};

/// One operation on one field.
#[derive(Debug)]
pub(super) struct Change {
    field: FieldName,
    /// The field's name as JSON.
    name_json: Box<[u8]>,
    operation: Operation,
}

#[derive(Debug)]
pub(super) enum Operation {
    Set(Expression),
    Increment(Expression),
    Min(Expression),
    Max(Expression),
    Append(Expression, usize),
    Unset,
    AddToSet(Expression),
    RemoveFromSet(Expression),
}

/// The entity in hand, and what is told of its change.
pub(super) struct Edit<'e, 'b> {
    pub(super) fields: &'e mut Fields,
    pub(super) delta: Delta<'b>,
    pub(super) scratch: &'e mut Scratch,
    /// Where the last field was found.
    pub(super) near: usize,
}

/// Memory that is used again for each record: an operand as the bytes that it has in a document, and an array that gets others.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    value: Vec<u8>,
    array: Vec<u8>,
}

impl Scratch {
    /// `Err`: no entity can hold it, for it could not be read again.
    fn encode(&mut self, field: &FieldName, operand: &Operand<'_>) -> Result<(), String> {
        self.value.clear();
        operand.encode(&mut self.value);
        if msgpack::fits_depth(&self.value) {
            return Ok(());
        }
        Err(format!("{field}: {operand} is nested deeper than the {} levels that an entity can hold", msgpack::VALUE_DEPTH_MAX))
    }

    /// Begins an array with these elements, for so many in all.
    fn begin_array(&mut self, len: usize, elements: &[u8]) {
        self.array.clear();
        msgpack::write_array_header(len, &mut self.array);
        self.array.extend_from_slice(elements);
    }
}

impl Change {
    pub(super) fn new(field: &str, operation: Operation) -> Self {
        let mut name_json = Vec::new();
        write_string(field, &mut name_json);
        Self { field: field.into(), name_json: name_json.into(), operation }
    }

    pub(super) fn expression(&self) -> Option<&Expression> {
        match &self.operation {
            Operation::Set(expression)
            | Operation::Increment(expression)
            | Operation::Min(expression)
            | Operation::Max(expression)
            | Operation::Append(expression, _)
            | Operation::AddToSet(expression)
            | Operation::RemoveFromSet(expression) => Some(expression),
            Operation::Unset => None,
        }
    }

    /// `Err` says what is wrong with the operand or the field.
    pub(super) fn apply(&self, scope: Scope<'_>, vrl: &mut Vrl, edit: &mut Edit<'_, '_>) -> Result<(), String> {
        let operand = match self.expression() {
            Some(expression) => expression.evaluate(scope, vrl).map_err(|reason| format!("{}: {reason}", self.field))?,
            None => Operand::Null,
        };
        // Null is no value to count, compare or collect; what it sets is null.
        let collects = !matches!(self.operation, Operation::Set(_) | Operation::Unset);
        if collects && operand.is_null() {
            return Ok(());
        }
        match &self.operation {
            Operation::Set(_) => {
                let place = edit.fields.place(&self.field, &mut edit.near);
                self.set(&operand, place, edit)
            }
            Operation::Increment(_) => self.increment(&operand, edit),
            Operation::Min(_) => self.keep(&operand, Ordering::Less, edit),
            Operation::Max(_) => self.keep(&operand, Ordering::Greater, edit),
            Operation::Append(_, cap) => self.append(&operand, *cap, edit),
            Operation::Unset => {
                if edit.fields.remove(&self.field, &mut edit.near) {
                    edit.delta.field(Part::Unset, &self.name_json);
                }
                Ok(())
            }
            Operation::AddToSet(_) => self.add_to_set(&operand, edit),
            Operation::RemoveFromSet(_) => self.remove_from_set(&operand, edit),
        }
    }

    fn set(&self, operand: &Operand<'_>, place: Option<Place>, edit: &mut Edit<'_, '_>) -> Result<(), String> {
        edit.scratch.encode(&self.field, operand)?;
        if edit.fields.set(&self.field, place, Value::of(&edit.scratch.value)) {
            operand.write_json(edit.delta.field(Part::Set, &self.name_json));
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum with a float is a float")]
    fn increment(&self, by: &Operand<'_>, edit: &mut Edit<'_, '_>) -> Result<(), String> {
        let place = edit.fields.place(&self.field, &mut edit.near);
        let sum = match (shape_at(edit.fields, place), by) {
            (Shape::Null, Operand::Int(by)) => Operand::Int(*by),
            (Shape::Null, Operand::Float(by)) => Operand::Float(*by),
            (Shape::Int(number), Operand::Int(by)) => {
                let sum = number.checked_add(*by);
                Operand::Int(sum.ok_or_else(|| format!("{}: {number} incremented by {by} does not fit into 64 bits", self.field))?)
            }
            (Shape::Int(number), Operand::Float(by)) => Operand::Float(number as f64 + by),
            (Shape::Float(number), Operand::Int(by)) => Operand::Float(number + *by as f64),
            (Shape::Float(number), Operand::Float(by)) => Operand::Float(number + by),
            (_, Operand::Int(_) | Operand::Float(_)) => return Err(self.holds(edit.fields, "cannot be incremented")),
            _ => return Err(format!("{}: cannot be incremented by {by}", self.field)),
        };
        if matches!(sum, Operand::Float(sum) if !sum.is_finite()) {
            return Err(format!("{}: the sum is too large", self.field));
        }
        self.set(&sum, place, edit)
    }

    /// Sets the field if it is missing, or if the operand is on that side of it.
    fn keep(&self, operand: &Operand<'_>, side: Ordering, edit: &mut Edit<'_, '_>) -> Result<(), String> {
        if !matches!(operand, Operand::Int(_) | Operand::Float(_) | Operand::Text(_)) {
            return Err(format!("{}: {operand} is neither a number nor a string, so it has no order", self.field));
        }
        let place = edit.fields.place(&self.field, &mut edit.near);
        let order = match (shape_at(edit.fields, place), operand) {
            (Shape::Null, _) => Some(side),
            (Shape::Int(number), operand) => compare(operand, &Operand::Int(number)),
            (Shape::Float(number), operand) => compare(operand, &Operand::Float(number)),
            (Shape::Text(text), Operand::Text(operand)) => Some(operand.as_bytes().cmp(text)),
            _ => None,
        };
        if order.ok_or_else(|| self.holds(edit.fields, &format!("cannot be compared with {operand}")))? == side {
            self.set(operand, place, edit)?;
        }
        Ok(())
    }

    /// The array as a whole is in the delta: an append is not the same when it is applied twice.
    fn append(&self, operand: &Operand<'_>, cap: usize, edit: &mut Edit<'_, '_>) -> Result<(), String> {
        edit.scratch.encode(&self.field, operand)?;
        let place = edit.fields.place(&self.field, &mut edit.near);
        let mut kept = self.elements(edit.fields, place)?;
        while kept.len() >= cap.max(1) {
            kept.next();
        }
        edit.scratch.begin_array(kept.len() + 1, kept.bytes());
        let Scratch { value, array } = &mut *edit.scratch;
        array.extend_from_slice(value);
        edit.fields.set(&self.field, place, Value::of(array));
        Value::of(array).write_json(edit.delta.field(Part::Set, &self.name_json));
        Ok(())
    }

    fn add_to_set(&self, operand: &Operand<'_>, edit: &mut Edit<'_, '_>) -> Result<(), String> {
        let mut added = Told::default();
        self.for_each_member(
            operand,
            edit,
            |member, set, array| {
                if set.into_iter().any(|there| there == member) {
                    return false;
                }
                msgpack::write_array_header(set.len() + 1, array);
                array.extend_from_slice(set.bytes());
                array.extend_from_slice(member.bytes());
                true
            },
            &mut |member, delta| added.write(member, Part::AddToSet, &self.name_json, delta),
        )?;
        added.end(&mut edit.delta);
        Ok(())
    }

    fn remove_from_set(&self, operand: &Operand<'_>, edit: &mut Edit<'_, '_>) -> Result<(), String> {
        let mut removed = Told::default();
        self.for_each_member(
            operand,
            edit,
            |member, set, array| {
                let Some(at) = set.into_iter().position(|there| there == member) else { return false };
                msgpack::write_array_header(set.len() - 1, array);
                let kept = set.enumerate().filter(|(index, _)| *index != at);
                kept.for_each(|(_, there)| array.extend_from_slice(there.bytes()));
                true
            },
            &mut |member, delta| removed.write(member, Part::RemoveFromSet, &self.name_json, delta),
        )?;
        removed.end(&mut edit.delta);
        Ok(())
    }

    /// The elements of an array, or the one value; nulls are left out.
    fn for_each_member(
        &self,
        operand: &Operand<'_>,
        edit: &mut Edit<'_, '_>,
        change: impl Fn(Value<'_>, Elements<'_>, &mut Vec<u8>) -> bool,
        tell: &mut dyn FnMut(Value<'_>, &mut Delta<'_>),
    ) -> Result<(), String> {
        edit.scratch.encode(&self.field, operand)?;
        let Scratch { value, array } = &mut *edit.scratch;
        let value = Value::of(value);
        let members = match value.shape() {
            Shape::Array(elements) => elements,
            _ => Elements::one(value),
        };
        for member in members.filter(|member| !member.is_null()) {
            array.clear();
            let place = edit.fields.place(&self.field, &mut edit.near);
            if change(member, self.elements(edit.fields, place)?, array) {
                edit.fields.set(&self.field, place, Value::of(array));
                tell(member, &mut edit.delta);
            }
        }
        Ok(())
    }

    /// The elements of the array in the field; none if it is missing.
    fn elements<'f>(&self, fields: &'f Fields, place: Option<Place>) -> Result<Elements<'f>, String> {
        match shape_at(fields, place) {
            Shape::Null => Ok(Elements::default()),
            Shape::Array(elements) => Ok(elements),
            _ => Err(format!(
                "{}: the entity holds {} there, no array",
                self.field,
                place.map_or("nothing", |place| fields.at(place).kind())
            )),
        }
    }

    fn holds(&self, fields: &Fields, so: &str) -> String {
        let kind = fields.get(&self.field).map_or("nothing", Value::kind);
        format!("{}: the entity holds {kind} there, which {so}", self.field)
    }
}

/// What a field holds; one that is missing counts as null.
fn shape_at(fields: &Fields, place: Option<Place>) -> Shape<'_> {
    place.map_or(Shape::Null, |place| fields.at(place).shape())
}

/// The list of members in a delta's part; opened by the first.
#[derive(Default)]
struct Told {
    open: bool,
}

impl Told {
    fn write(&mut self, member: Value<'_>, part: Part, name_json: &[u8], delta: &mut Delta<'_>) {
        let bytes = if self.open {
            let bytes = delta.bytes();
            bytes.push(b',');
            bytes
        } else {
            self.open = true;
            let bytes = delta.field(part, name_json);
            bytes.push(b'[');
            bytes
        };
        member.write_json(bytes);
    }

    fn end(self, delta: &mut Delta<'_>) {
        if self.open {
            delta.bytes().push(b']');
        }
    }
}
