//! The fields of an object, in the order in which they came. Objects are small, so a field is looked for one by one.

use super::{Text, Value};

/// What a field is looked for by: a `str`, or a [`Text`] that is kept for it, which is compared faster.
pub trait FieldName {
    /// Whether it is this name.
    fn is(&self, name: &Text) -> bool;

    /// The name, to keep.
    fn to_text(&self) -> Text;
}

impl FieldName for str {
    fn is(&self, name: &Text) -> bool {
        self.as_bytes() == name.as_bytes()
    }

    fn to_text(&self) -> Text {
        Text::from(self)
    }
}

impl FieldName for Text {
    fn is(&self, name: &Text) -> bool {
        self == name
    }

    fn to_text(&self) -> Text {
        self.clone()
    }
}

/// Names and values; each name once.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(Text, Value)>);

impl Fields {
    /// The value of a field.
    pub fn get(&self, name: &(impl FieldName + ?Sized)) -> Option<&Value> {
        self.position(name).map(|at| &self.0[at].1)
    }

    /// The value of a field, to change.
    pub fn get_mut(&mut self, name: &(impl FieldName + ?Sized)) -> Option<&mut Value> {
        self.position(name).map(|at| &mut self.0[at].1)
    }

    /// Sets a field; a new one comes last.
    pub fn insert(&mut self, name: &(impl FieldName + ?Sized), value: Value) {
        match self.position(name) {
            Some(at) => self.0[at].1 = value,
            None => self.0.push((name.to_text(), value)),
        }
    }

    /// Removes a field; says whether it was there.
    pub fn remove(&mut self, name: &(impl FieldName + ?Sized)) -> bool {
        let position = self.position(name);
        if let Some(at) = position {
            self.0.remove(at);
        }
        position.is_some()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The caller promises that the name is not there yet.
    pub(crate) fn push_new(&mut self, name: Text, value: Value) {
        self.0.push((name, value));
    }

    pub(crate) fn with_capacity(fields: usize) -> Self {
        Self(Vec::with_capacity(fields))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let inside: usize = self.0.iter().map(|(name, value)| name.heap_bytes() + value.heap_bytes()).sum();
        self.0.capacity() * size_of::<(Text, Value)>() + inside
    }

    fn position(&self, name: &(impl FieldName + ?Sized)) -> Option<usize> {
        self.0.iter().position(|(there, _)| name.is(there))
    }
}

/// Objects have no order when they are compared.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}
