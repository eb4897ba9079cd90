//! JSON as text, in which single values change and every other byte stays.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::value::RawValue;

/// An object in a text.
#[derive(Debug)]
pub(super) struct Object<'t> {
    text: &'t str,
    members: BTreeMap<String, &'t RawValue>,
}

impl<'t> Object<'t> {
    /// Reads an object, and nothing within its members; `None` if it is something else.
    pub(super) fn read(text: &'t str) -> Option<Self> {
        let text = text.trim();
        Some(Self { text, members: serde_json::from_str(text).ok()? })
    }

    /// Returns a member. Of two with one name it is the last, as clients take it.
    pub(super) fn get(&self, name: &str) -> Option<&'t RawValue> {
        self.members.get(name).copied()
    }
}

/// Returns the elements of an array; `None` if it is something else.
pub(super) fn elements(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

/// Changes to a text, which are made all at once.
#[derive(Debug)]
pub(super) struct Edits<'t> {
    text: &'t str,
    changes: Vec<(Range<usize>, Cow<'t, str>)>,
    grows_by: usize,
}

impl<'t> Edits<'t> {
    /// Begins without any.
    pub(super) fn of(text: &'t str) -> Self {
        Self { text, changes: Vec::new(), grows_by: 0 }
    }

    /// Has a value of the text replaced.
    pub(super) fn replace(&mut self, value: &'t RawValue, by: &'t str) {
        let start = self.place(value.get());
        self.change(start..start + value.get().len(), by.into());
    }

    /// Has a member of an object replaced, or put behind all others, of which there are some.
    pub(super) fn set(&mut self, object: &Object<'t>, name: &str, to: &'t str) {
        match object.get(name) {
            Some(value) => self.replace(value, to),
            None => {
                let end = self.place(object.text) + object.text.len().saturating_sub("}".len());
                self.change(end..end, format!(",\"{name}\":{to}").into());
            }
        }
    }

    /// Returns how much longer the text will be at the most.
    pub(super) fn grows_by(&self) -> usize {
        self.grows_by
    }

    /// Returns the changed text; `None` if two changes are at one place.
    pub(super) fn apply(mut self) -> Option<String> {
        self.changes.sort_by_key(|(range, _)| range.start);
        let (mut changed, mut copied) = (String::with_capacity(self.text.len() + self.grows_by), 0);
        for (range, new) in &self.changes {
            changed.push_str(self.text.get(copied..range.start)?);
            changed.push_str(new);
            copied = range.end;
        }
        changed.push_str(self.text.get(copied..)?);
        Some(changed)
    }

    fn change(&mut self, range: Range<usize>, new: Cow<'t, str>) {
        self.grows_by += new.len();
        self.changes.push((range, new));
    }

    /// Returns where a part of the text begins. A value that is read from a text without copying is such a part.
    fn place(&self, part: &'t str) -> usize {
        part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_every_other_byte() {
        let text = "\t{ \"a\" : 1.10 ,\r\n \"b\":{\"c\":\"\\u0041\"}, \"a\":2e0 } ";
        let top = Object::read(text).unwrap();
        let inner = Object::read(top.get("b").unwrap().get()).unwrap();
        let mut edits = Edits::of(text);
        edits.set(&top, "d", "3");
        edits.set(&top, "a", "4");
        edits.set(&inner, "d", "5");
        assert_eq!(edits.grows_by(), 6 + 1 + 6);
        let changed = "\t{ \"a\" : 1.10 ,\r\n \"b\":{\"c\":\"\\u0041\",\"d\":5}, \"a\":4 ,\"d\":3} ";
        assert_eq!(edits.apply().as_deref(), Some(changed));
        assert_eq!(Edits::of(text).apply().as_deref(), Some(text));
    }

    #[test]
    fn depth_takes_no_stack() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Object::read(&deep).unwrap().get("a").unwrap().get().len(), 200_001);
    }

    #[test]
    fn other_kinds_of_values_are_no_objects_and_arrays() {
        for text in ["", "1", "null", "\"{}\"", "[]", "{} {}", "{\"a\"}"] {
            assert!(Object::read(text).is_none(), "{text}");
        }
        assert!(elements("{}").is_none());
        assert_eq!(elements("[1, [2]]").unwrap().len(), 2);
    }
}
