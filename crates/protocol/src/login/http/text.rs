//! JSON as text, in which single values change and every other byte stays.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::value::RawValue;

/// Members of an object, by name. Of two with one name it has the last, as clients do.
pub(super) type Members<'t> = BTreeMap<String, &'t RawValue>;

/// Returns the members of an object; `None` if it is something else.
pub(super) fn members(text: &str) -> Option<Members<'_>> {
    serde_json::from_str(text).ok()
}

/// Returns the elements of an array; `None` if it is something else.
pub(super) fn elements(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

/// Changes to a text, which are made all at once.
#[derive(Debug)]
pub(super) struct Edits<'t> {
    text: &'t str,
    changes: Vec<(Range<usize>, &'t str)>,
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
        self.change(start..start + value.get().len(), by);
    }

    /// Has text added to an object of the text, behind its members.
    pub(super) fn add(&mut self, object: &'t str, new: &'t str) {
        let end = self.place(object) + object.len().saturating_sub("}".len());
        self.change(end..end, new);
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

    fn change(&mut self, range: Range<usize>, new: &'t str) {
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
        let object = text.trim();
        let top = members(object).unwrap();
        let mut edits = Edits::of(text);
        edits.add(object, r#","d":3"#);
        edits.replace(top["a"], "4");
        edits.add(top["b"].get(), r#","d":5"#);
        assert_eq!(edits.grows_by(), 6 + 1 + 6);
        let changed = "\t{ \"a\" : 1.10 ,\r\n \"b\":{\"c\":\"\\u0041\",\"d\":5}, \"a\":4 ,\"d\":3} ";
        assert_eq!(edits.apply().as_deref(), Some(changed));
        assert_eq!(Edits::of(text).apply().as_deref(), Some(text));
    }

    #[test]
    fn depth_takes_no_stack() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(members(&deep).unwrap()["a"].get().len(), 200_001);
    }

    #[test]
    fn other_kinds_of_values_are_no_objects_and_arrays() {
        for text in ["", "1", "null", "\"{}\"", "[]", "{} {}", "{\"a\"}"] {
            assert!(members(text).is_none(), "{text}");
        }
        assert!(elements("{}").is_none());
        assert_eq!(elements("[1, [2]]").unwrap().len(), 2);
    }
}
