//! What an `upsert` does to one field. Each operation writes into the delta what brings any copy of the entity to the same value, and only if
//! something changed.

use std::cmp::Ordering;
use std::sync::Arc;

use super::delta::{Delta, Part};
use crate::document::{Array, Fields, Text, Value, write_string};
use crate::expression::{Expression, Operand, Scope, Vrl, compare};

/// One operation on one field.
#[derive(Debug)]
pub(super) struct Change {
    field: Text,
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
    pub(super) fn apply(&self, scope: Scope<'_>, vrl: &mut Vrl, fields: &mut Fields, delta: &mut Delta<'_>) -> Result<(), String> {
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
                if fields.get(&self.field).is_none_or(|value| !operand.equals(value)) {
                    self.set(operand, fields, delta);
                }
                Ok(())
            }
            Operation::Increment(_) => self.increment(&operand, fields, delta),
            Operation::Min(_) => self.keep(operand, Ordering::Less, fields, delta),
            Operation::Max(_) => self.keep(operand, Ordering::Greater, fields, delta),
            Operation::Append(_, cap) => self.append(operand, *cap, fields, delta),
            Operation::Unset => {
                if fields.remove(&self.field) {
                    delta.field(Part::Unset, &self.name_json);
                }
                Ok(())
            }
            Operation::AddToSet(_) => self.add_to_set(operand, fields, delta),
            Operation::RemoveFromSet(_) => self.remove_from_set(operand, fields, delta),
        }
    }

    fn set(&self, operand: Operand<'_>, fields: &mut Fields, delta: &mut Delta<'_>) {
        operand.write_json(delta.field(Part::Set, &self.name_json));
        fields.insert(&self.field, operand.into_value());
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum with a float is a float")]
    fn increment(&self, by: &Operand<'_>, fields: &mut Fields, delta: &mut Delta<'_>) -> Result<(), String> {
        let sum = match (fields.get(&self.field), by) {
            (None | Some(Value::Null), Operand::Int(by)) => Operand::Int(*by),
            (None | Some(Value::Null), Operand::Float(by)) => Operand::Float(*by),
            (Some(Value::Int(number)), Operand::Int(by)) => {
                let sum = number.checked_add(*by);
                Operand::Int(sum.ok_or_else(|| format!("{}: {number} incremented by {by} does not fit into 64 bits", self.field))?)
            }
            (Some(Value::Int(number)), Operand::Float(by)) => Operand::Float(*number as f64 + by),
            (Some(Value::Float(number)), Operand::Int(by)) => Operand::Float(number + *by as f64),
            (Some(Value::Float(number)), Operand::Float(by)) => Operand::Float(number + by),
            (_, Operand::Int(_) | Operand::Float(_)) => return Err(self.holds(fields, "cannot be incremented")),
            _ => return Err(format!("{}: cannot be incremented by {by}", self.field)),
        };
        if matches!(sum, Operand::Float(sum) if !sum.is_finite()) {
            return Err(format!("{}: the sum is too large", self.field));
        }
        if fields.get(&self.field).is_none_or(|value| !sum.equals(value)) {
            self.set(sum, fields, delta);
        }
        Ok(())
    }

    /// Sets the field if it is missing, or if the operand is on that side of it.
    fn keep(&self, operand: Operand<'_>, side: Ordering, fields: &mut Fields, delta: &mut Delta<'_>) -> Result<(), String> {
        if !matches!(operand, Operand::Int(_) | Operand::Float(_) | Operand::Text(_)) {
            return Err(format!("{}: {operand} is neither a number nor a string, so it has no order", self.field));
        }
        let order = match fields.get(&self.field) {
            None | Some(Value::Null) => Some(side),
            Some(Value::Int(number)) => compare(&operand, &Operand::Int(*number)),
            Some(Value::Float(number)) => compare(&operand, &Operand::Float(*number)),
            Some(Value::Text(text)) => compare(&operand, &Operand::Text(text.as_str().into())),
            Some(_) => None,
        };
        if order.ok_or_else(|| self.holds(fields, &format!("cannot be compared with {operand}")))? == side {
            self.set(operand, fields, delta);
        }
        Ok(())
    }

    /// The array as a whole is in the delta: an append is not the same when it is applied twice.
    fn append(&self, operand: Operand<'_>, cap: usize, fields: &mut Fields, delta: &mut Delta<'_>) -> Result<(), String> {
        let array = self.array(fields)?;
        array.push(operand.into_value());
        array.keep_newest(cap);
        array.write_json(delta.field(Part::Set, &self.name_json));
        Ok(())
    }

    fn add_to_set(&self, operand: Operand<'_>, fields: &mut Fields, delta: &mut Delta<'_>) -> Result<(), String> {
        let mut added = Members::default();
        for_each_member(operand, &mut |member| {
            if matches!(fields.get(&self.field), Some(Value::Array(array)) if array.contains(&member)) {
                return Ok(());
            }
            added.write(&member, Part::AddToSet, &self.name_json, delta);
            self.array(fields)?.push(member);
            Ok(())
        })?;
        added.end(delta);
        Ok(())
    }

    fn remove_from_set(&self, operand: Operand<'_>, fields: &mut Fields, delta: &mut Delta<'_>) -> Result<(), String> {
        let mut removed = Members::default();
        for_each_member(operand, &mut |member| {
            match fields.get(&self.field) {
                None | Some(Value::Null) => return Ok(()),
                Some(Value::Array(array)) if !array.contains(&member) => return Ok(()),
                Some(_) => {}
            }
            self.array(fields)?.remove(&member);
            removed.write(&member, Part::RemoveFromSet, &self.name_json, delta);
            Ok(())
        })?;
        removed.end(delta);
        Ok(())
    }

    /// The field as an array to change; a new one if it is missing.
    fn array<'f>(&self, fields: &'f mut Fields) -> Result<&'f mut Array, String> {
        if matches!(fields.get(&self.field), None | Some(Value::Null)) {
            fields.insert(&self.field, Value::Array(Arc::default()));
        }
        match fields.get_mut(&self.field) {
            Some(Value::Array(array)) => Ok(Arc::make_mut(array)),
            Some(other) => Err(format!("{}: the entity holds {} there, no array", self.field, other.kind())),
            None => unreachable!("it was just put there"),
        }
    }

    fn holds(&self, fields: &Fields, so: &str) -> String {
        let kind = fields.get(&self.field).map_or("nothing", Value::kind);
        format!("{}: the entity holds {kind} there, which {so}", self.field)
    }
}

/// The elements of an array, or the one value; nulls are left out.
fn for_each_member(operand: Operand<'_>, each: &mut dyn FnMut(Value) -> Result<(), String>) -> Result<(), String> {
    let mut each = |member: Value| if member == Value::Null { Ok(()) } else { each(member) };
    match operand {
        Operand::Item(item) if item.is_array() => item.elements().try_for_each(|element| each(element.to_value())),
        Operand::Made(Value::Array(array)) => array.items().iter().cloned().try_for_each(each),
        single => each(single.into_value()),
    }
}

/// The list of members in a delta's part; opened by the first.
#[derive(Default)]
struct Members {
    open: bool,
}

impl Members {
    fn write(&mut self, member: &Value, part: Part, name_json: &[u8], delta: &mut Delta<'_>) {
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
