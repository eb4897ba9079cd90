//! Keys with a value: what they take, and what holds without them.

use std::path::Path;

use otproxy_protocol::Word;

use super::declare::{Field, Read};
use super::key::{Key, ListenerType, WhenAbsent};
use super::scope::{Scope, values};
use super::tree::Node;
use super::word;

/// A way to write a value.
pub(super) struct Format<T> {
    /// Its name in the reference.
    form: &'static str,
    /// Returns the value, or what is wrong with it and what to do.
    parse: fn(&Node) -> Result<T, String>,
    /// Returns the value as seen from the folder of the file.
    seen_from: fn(T, &Path) -> T,
}

impl<T> Format<T> {
    pub const fn new(form: &'static str, parse: fn(&Node) -> Result<T, String>) -> Self {
        Self { form, parse, seen_from: |value, _| value }
    }

    /// Returns the same for paths, which `join` puts behind the folder of the file.
    pub const fn seen_from(self, join: fn(T, &Path) -> T) -> Self {
        Self { seen_from: join, ..self }
    }

    pub fn read(&self, scope: &Scope<'_>, name: &str) -> Option<T> {
        let value = scope.value(name, self.parse)?;
        Some(match scope.folder() {
            Some(folder) => (self.seen_from)(value, folder),
            None => value,
        })
    }
}

type Reader<T> = Box<dyn Fn(&Scope<'_>, &str) -> Option<T>>;

/// The values that a key takes. One more call declares the meaning of its absence, and makes it a [`Leaf`].
pub(super) struct Takes<T> {
    form: String,
    read: Reader<T>,
    /// The keys of the mappings in its list.
    below: Vec<Key>,
}

/// Declares a key that takes one value.
pub(super) fn value<T: 'static>(format: Format<T>) -> Takes<T> {
    Takes::new(format.form, move |scope, name| format.read(scope, name))
}

/// Declares a key that takes one word of a few.
pub(super) fn word<T: Word>() -> Takes<T> {
    let words: Vec<_> = T::ALL.iter().map(|value| format!("`{}`", value.as_str())).collect();
    let form = match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    };
    Takes::new(form, |scope, name| scope.value(name, word::word))
}

/// Declares a key that takes a list, or a bare value as a list of one.
pub(super) fn list<T: 'static>(format: Format<T>) -> Takes<Vec<T>> {
    Takes::new(format!("{}, or a list", format.form), move |scope, name| scope.list(name, format.parse).map(values))
}

/// Declares a key as [`list`] does, but an empty list is an error.
pub(super) fn some<T: 'static>(format: Format<T>) -> Takes<Vec<T>> {
    Takes::new(format!("{}, or a list", format.form), move |scope, name| scope.some(name, format.parse).map(values))
}

/// Declares a key that takes a list of mappings.
pub(super) fn items<T: Read + 'static>() -> Takes<Vec<T>> {
    let read = |scope: &Scope<'_>, name: &str| {
        let read = |item: &Scope<'_>| {
            item.check_keys();
            T::read(item)
        };
        let items: Vec<_> = scope.items(name)?.iter().map(read).collect();
        items.into_iter().collect()
    };
    Takes::new("list", read).with_items(T::keys())
}

impl<T: 'static> Takes<T> {
    /// Makes a key with a reader of its own. `form` is its name in the reference.
    pub fn new(form: impl Into<String>, read: impl Fn(&Scope<'_>, &str) -> Option<T> + 'static) -> Self {
        Self { form: form.into(), read: Box::new(read), below: Vec::new() }
    }

    /// Lets items of its list be mappings with these keys.
    pub fn with_items(self, keys: Vec<Key>) -> Self {
        Self { below: keys, ..self }
    }

    /// Demands that each value differs from those of the same key in other mappings.
    pub fn unique(self) -> Self
    where
        T: ToString,
    {
        let read = self.read;
        let unique = move |scope: &Scope<'_>, name: &str| {
            let value = read(scope, name)?;
            scope.claim_own(name, value.to_string());
            Some(value)
        };
        Self { read: Box::new(unique), ..self }
    }

    /// Skips the value if the key `other` is there too: the section's reader reports that mistake.
    pub fn not_beside(self, other: &'static str) -> Self {
        let read = self.read;
        let read = move |scope: &Scope<'_>, name: &str| if scope.has(other) { None } else { read(scope, name) };
        Self { read: Box::new(read), ..self }
    }

    /// Converts the value with `make`, which returns `None` once it has reported an error.
    pub fn and_then<U: 'static>(self, make: fn(T) -> Option<U>) -> Takes<U> {
        let Self { form, read, below } = self;
        Takes { form, read: Box::new(move |scope, name| read(scope, name).and_then(make)), below }
    }

    /// Sets a default, as YAML.
    pub fn or(self, default: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::Text(default)).example(default)
    }

    /// Sets a default for each role.
    pub fn or_by_role(self, edge: &'static str, core: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::ByRole { edge, core })
    }

    /// Sets a default for listeners of `kind: forward`, and one for all others.
    pub fn or_by_kind(self, forward: &'static str, others: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::ByKind { forward, others })
    }

    /// Makes its absence an error, which shows this value.
    pub fn required(self, example: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::Required).example(example)
    }

    /// Makes its absence an error, except where `waived` says that it may be left out.
    pub fn required_unless(self, waived: fn(&Scope<'_>) -> bool, example: &'static str) -> Leaf<T>
    where
        T: Default,
    {
        let read = self.read;
        let read = move |scope: &Scope<'_>, name: &str| {
            if !scope.has(name) && waived(scope) { Some(T::default()) } else { read(scope, name) }
        };
        Self { read: Box::new(read), ..self }.required(example)
    }

    /// Makes `fallback` find the value if it is absent; `how` describes that in the reference.
    pub fn or_else(self, how: &'static str, fallback: fn() -> T) -> Leaf<T> {
        let read = self.read;
        let read =
            move |scope: &Scope<'_>, name: &str| if scope.has(name) { read(scope, name) } else { Some(fallback()) };
        Self { read: Box::new(read), ..self }.absent(WhenAbsent::Computed(how))
    }

    /// Makes it optional; `meaning` says in the reference what its absence means.
    pub fn optional(self, meaning: &'static str) -> Leaf<Option<T>> {
        let Self { form, read, below } = self;
        let read = move |scope: &Scope<'_>, name: &str| {
            if scope.has(name) { read(scope, name).map(Some) } else { Some(None) }
        };
        Takes { form, read: Box::new(read), below }.absent(WhenAbsent::Computed(meaning))
    }

    fn absent(self, default: WhenAbsent) -> Leaf<T> {
        let Self { form, read, below } = self;
        let (path, meaning) = (String::new(), String::new());
        let key = Key { path, role: None, kinds: &[], default, form, example: "", meaning };
        Leaf { key, read, below, restart: false }
    }
}

/// A key with a value.
pub(super) struct Leaf<T> {
    key: Key,
    read: Reader<T>,
    below: Vec<Key>,
    restart: bool,
}

impl<T: 'static> Leaf<T> {
    /// Sets a value for the reference's tests, and for the error of its absence.
    pub fn example(mut self, example: &'static str) -> Self {
        self.key.example = example;
        self
    }

    /// Declares that a change of it needs a restart.
    pub fn restart(self) -> Self {
        Self { restart: true, ..self }
    }

    /// Restricts it to listeners of `kind: forward`, though the section is for all.
    pub fn only_forward(self) -> Self {
        Self { key: self.key.only_with(&[ListenerType::Forward]), ..self }
    }

    /// Declares that it is read before the rest of its section, whose reader sets it.
    pub fn read_before(self) -> Self {
        Self { read: Box::new(|_, _| None), ..self }
    }
}

impl<T: PartialEq + Clone> Field for Leaf<T> {
    type Value = T;

    fn keys(&self, name: &str, meaning: &str) -> Vec<Key> {
        let (path, meaning) = (name.to_owned(), meaning.to_owned());
        let below = self.below.iter().cloned().map(|key| key.within(name, "[]."));
        std::iter::once(Key { path, meaning, ..self.key.clone() }).chain(below).collect()
    }

    fn read(&self, scope: &Scope<'_>, name: &str) -> Option<T> {
        (self.read)(scope, name)
    }

    fn restart_keys(&self, name: &str) -> Vec<String> {
        self.restart.then(|| name.to_owned()).into_iter().collect()
    }

    fn changed(&self, name: &str, before: &T, after: &T) -> Vec<String> {
        if before == after { Vec::new() } else { self.restart_keys(name) }
    }

    fn keep(&self, value: &mut T, started: &T) {
        if self.restart {
            value.clone_from(started);
        }
    }
}
