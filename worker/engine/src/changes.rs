//! The state changes of an epoch as its journal record holds them: keys with whole values, patches or removals, in one run of bytes. They become
//! a [`StateBatch`] again with the help of the state before the epoch.
//!
//! One change: the key's length, then the value's length times four plus what it is (0 a value, 1 a patch, 2 a removal), both as postcard has
//! its numbers (LEB128), then key and value. The layout is part of the journal's format.

use crate::patch;
use crate::state::{StateBatch, StateError};

const PUT: u64 = 0;
const PATCH: u64 = 1;
const DELETE: u64 = 2;

/// The changes of one epoch, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(Vec<u8>);

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Its whole value.
    Put(&'a [u8]),
    /// How its value follows from the one before the epoch; see [`patch`].
    Patch(&'a [u8]),
    /// It is gone.
    Delete,
}

impl Changes {
    /// Bytes that [`Changes::as_bytes`] gave. Their content is looked at by [`Changes::iter`].
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As the journal has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Forgets all changes and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends a change.
    pub fn push(&mut self, key: &[u8], change: Change<'_>) {
        let (value, kind) = match change {
            Change::Put(value) => (value, PUT),
            Change::Patch(patch) => (patch, PATCH),
            Change::Delete => (&[][..], DELETE),
        };
        patch::write_number(key.len() as u64, &mut self.0);
        patch::write_number((value.len() as u64) << 2 | kind, &mut self.0);
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value);
    }

    /// Keys and what became of them, in order. `Err`, then the end: the bytes are not what was written.
    pub fn iter(&self) -> impl Iterator<Item = Result<(&[u8], Change<'_>), String>> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let next = take(&mut rest);
            if next.is_none() {
                rest = &[];
            }
            Some(next.ok_or_else(|| "state changes end in the middle of one, or hold an unknown kind".to_owned()))
        })
    }

    /// The values that the changes lead to. `old` gives a key's value before the epoch: appends it and says whether there is one.
    pub fn resolve(&self, mut old: impl FnMut(&[u8], &mut Vec<u8>) -> Result<bool, StateError>) -> Result<StateBatch, StateError> {
        let corrupt = |reason| StateError::Corrupt { action: "apply an epoch of the journal".into(), reason };
        let mut batch = StateBatch::default();
        let mut before = Vec::new();
        for change in self.iter() {
            let (key, change) = change.map_err(corrupt)?;
            match change {
                Change::Put(value) => batch.put(key, value),
                Change::Delete => batch.delete(key),
                Change::Patch(patch) => {
                    let at = || format!("key {}", key.escape_ascii());
                    before.clear();
                    if !old(key, &mut before)? {
                        return Err(corrupt(format!("{}: a patch for a value that is not there", at())));
                    }
                    let mut outcome = Ok(());
                    batch.put_with(key, |arena| outcome = patch::apply(&before, patch, arena));
                    outcome.map_err(|reason| corrupt(format!("{}: {reason}", at())))?;
                }
            }
        }
        Ok(batch)
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Change<'a>)> {
    let key_len = usize::try_from(patch::read_number(rest)?).ok()?;
    let number = patch::read_number(rest)?;
    let (key, behind) = rest.split_at_checked(key_len)?;
    let (value, behind) = behind.split_at_checked(usize::try_from(number >> 2).ok()?)?;
    *rest = behind;
    let change = match number & 3 {
        PUT => Change::Put(value),
        PATCH => Change::Patch(value),
        DELETE if value.is_empty() => Change::Delete,
        _ => return None,
    };
    Some((key, change))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Changes {
        let mut changes = Changes::default();
        changes.push(b"a", Change::Put(b"1"));
        changes.push(b"b", Change::Delete);
        changes.push(&[7; 300], Change::Patch(&[1 << 2, 1 << 2 | 2, b'!']));
        changes
    }

    #[test]
    fn changes_come_back_in_order_and_patches_become_values() {
        let bytes = three().as_bytes().to_vec();
        let changes = Changes::from_bytes(bytes);
        let batch = changes
            .resolve(|key, into| {
                assert_eq!(key, [7; 300]);
                into.push(b'x');
                Ok(true)
            })
            .unwrap();
        let all: Vec<_> = batch.iter().collect();
        assert_eq!(all, vec![(&b"a"[..], Some(&b"1"[..])), (b"b", None), (&[7; 300], Some(b"x!"))]);
    }

    #[test]
    fn a_patch_without_its_value_and_torn_bytes_are_errors() {
        assert!(three().resolve(|_, _| Ok(false)).is_err());
        let bytes = three().as_bytes().to_vec();
        for len in [1, 2, 3, 5, bytes.len() - 1] {
            let torn = Changes::from_bytes(bytes[..len].to_vec());
            let whole = torn.iter().all(|change| change.is_ok());
            assert!(!whole, "{len} bytes of {}", bytes.len());
        }
        assert!(Changes::from_bytes(vec![1, 3, b'k']).iter().any(|change| change.is_err()));
    }
}
