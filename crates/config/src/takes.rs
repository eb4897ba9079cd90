//! Keys with a value: what they take, and what holds without them.

use std::path::Path;

use otproxy_protocol::Word;

use super::declare::{Field, Read};
use super::key::{Key, Kind, WhenAbsent};
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

    fn read(&self, scope: &Scope<'_>, name: &str) -> Option<T> {
        let value = scope.value(name, self.parse)?;
        Some(match scope.folder() {
            Some(folder) => (self.seen_from)(value, folder),
            None => value,
        })
    }
}

type Reader<T> = Box<dyn Fn(&Scope<'_>, &str) -> Option<T>>;

/// What a key takes. One more call says what holds where it is absent, and makes it a [`Leaf`].
pub(super) struct Takes<T> {
    form: String,
    read: Reader<T>,
    /// The keys of the mappings in its list.
    below: Vec<Key>,
}

/// A key that takes one value.
pub(super) fn value<T: 'static>(format: Format<T>) -> Takes<T> {
    Takes::new(format.form, move |scope, name| format.read(scope, name))
}

/// A key that takes one word of a few.
pub(super) fn word<T: Word>() -> Takes<T> {
    let words: Vec<_> = T::ALL.iter().map(|value| format!("`{}`", value.as_str())).collect();
    let form = match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    };
    Takes::new(form, |scope, name| scope.value(name, word::word))
}

/// A key that takes a list, or a bare value as a list of one.
pub(super) fn list<T: 'static>(format: Format<T>) -> Takes<Vec<T>> {
    Takes::new(format!("{}, or a list", format.form), move |scope, name| scope.list(name, format.parse).map(values))
}

/// As [`list`], where an empty list is an error.
pub(super) fn some<T: 'static>(format: Format<T>) -> Takes<Vec<T>> {
    Takes::new(format!("{}, or a list", format.form), move |scope, name| scope.some(name, format.parse).map(values))
}

/// A key that takes a list of mappings.
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
    /// A key with a reader of its own. `form` is its name in the reference.
    pub fn new(form: impl Into<String>, read: impl Fn(&Scope<'_>, &str) -> Option<T> + 'static) -> Self {
        Self { form: form.into(), read: Box::new(read), below: Vec::new() }
    }

    /// The items of its list may be mappings with these keys.
    pub fn with_items(self, keys: Vec<Key>) -> Self {
        Self { below: keys, ..self }
    }

    /// The same, where each value must be another one than those of the same key in other mappings.
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

    /// The same, which is not looked at beside the key `other`: that both are there is the mistake, which the section's reader reports.
    pub fn not_beside(self, other: &'static str) -> Self {
        let read = self.read;
        let read = move |scope: &Scope<'_>, name: &str| if scope.has(other) { None } else { read(scope, name) };
        Self { read: Box::new(read), ..self }
    }

    /// The same, of which `make` makes something else; `None` where the reader has reported it.
    pub fn and_then<U: 'static>(self, make: fn(T) -> Option<U>) -> Takes<U> {
        let Self { form, read, below } = self;
        Takes { form, read: Box::new(move |scope, name| read(scope, name).and_then(make)), below }
    }

    /// Where it is absent, it is as if this YAML stood there.
    pub fn or(self, default: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::Text(default)).example(default)
    }

    /// As [`Takes::or`], for each role.
    pub fn or_by_role(self, edge: &'static str, core: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::ByRole { edge, core })
    }

    /// As [`Takes::or`], for each kind of listener.
    pub fn or_by_kind(self, forward: &'static str, relay: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::ByKind { forward, relay })
    }

    /// Its absence is an error, which shows this value.
    pub fn required(self, example: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::Required).example(example)
    }

    /// As [`Takes::required`], except where `waived` says that it may be left out.
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

    /// Where it is absent, `fallback` finds the value; `how` says so in the reference.
    pub fn or_else(self, how: &'static str, fallback: fn() -> T) -> Leaf<T> {
        let read = self.read;
        let read =
            move |scope: &Scope<'_>, name: &str| if scope.has(name) { read(scope, name) } else { Some(fallback()) };
        Self { read: Box::new(read), ..self }.absent(WhenAbsent::Computed(how))
    }

    /// Where it is absent, there is none; `meaning` says in the reference what that comes to.
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
        let key = Key { path, role: None, kind: None, default, form, example: "", meaning };
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
    /// A value for the reference's tests, and for the error where it is required.
    pub fn example(mut self, example: &'static str) -> Self {
        self.key.example = example;
        self
    }

    /// A change of it takes a restart.
    pub fn restart(self) -> Self {
        Self { restart: true, ..self }
    }

    /// It is only for listeners of `kind: forward`, though the section is for all.
    pub fn only_forward(self) -> Self {
        Self { key: self.key.only_with(Kind::Forward), ..self }
    }

    /// It is read before the rest of its section, whose reader sets it.
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
