//! Declarations of keys: all that there is to say about a key, said once.
//!
//! A mapping of the file is declared with [`section!`] as a struct, whose fields are its keys:
//!
//! ```ignore
//! section! {
//!     /// `sessions`
//!     #[derive(Debug, Clone, PartialEq)]
//!     pub struct Sessions {
//!         /// how long a session without links lives on
//!         linger: Duration = value(DURATION).or("30s"),
//!     }
//! }
//! ```
//!
//! The name is the field's (or the one behind `as`), the sentence is its doc comment, and the expression says what it takes, what
//! holds without it, and whether it takes a restart. The reader, the table of [all keys](super::KEYS) with the reference that is
//! made from it, and the list of keys that take a restart follow from that. A key's role and kind are those of the struct it is in.

use std::marker::PhantomData;
use std::path::Path;

use otproxy_protocol::Word;

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

    /// Sets a default for each kind of listener.
    pub fn or_by_kind(self, forward: &'static str, relay: &'static str) -> Leaf<T> {
        self.absent(WhenAbsent::ByKind { forward, relay })
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
        let key = Key { path, role: None, kind: None, default, form, example: "", meaning };
        Leaf { key, read, below, restart: false }
    }
}

/// A field of a section.
pub(super) trait Field {
    /// The field's type.
    type Value;

    /// Returns the keys that it stands for; `name` is its own, `meaning` its sentence.
    fn keys(&self, name: &str, meaning: &str) -> Vec<Key>;

    /// Returns its value; `None` where that is wrong, and reported.
    fn read(&self, scope: &Scope<'_>, name: &str) -> Option<Self::Value>;

    /// Returns which of its keys take a restart.
    fn restart_keys(&self, _name: &str) -> Vec<String> {
        Vec::new()
    }

    /// Returns which of its keys take a restart, and differ.
    fn changed(&self, _name: &str, _before: &Self::Value, _after: &Self::Value) -> Vec<String> {
        Vec::new()
    }

    /// Sets whatever takes a restart to what it is in `started`.
    fn keep(&self, _value: &mut Self::Value, _started: &Self::Value) {}
}

/// A mapping of the file. [`section!`] implements it.
pub(super) trait Section: Sized {
    /// Returns its keys, with their paths in it.
    fn keys() -> Vec<Key>;

    /// Returns which of its keys take a restart.
    fn restart_keys() -> Vec<String>;

    /// Returns which of its keys take a restart, and differ.
    fn changed(&self, after: &Self) -> Vec<String>;

    /// Sets whatever takes a restart to what it is in `started`.
    fn keep(&mut self, started: &Self);
}

/// A section that is read from its mapping alone.
pub(super) trait Read: Section {
    /// Returns the section; `None` where a value is wrong, and reported.
    fn read(scope: &Scope<'_>) -> Option<Self>;
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
        Self { key: self.key.only_with(Kind::Forward), ..self }
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

/// A mapping below the one that it is declared in.
pub(super) struct Nested<T> {
    /// Any change in it takes a restart.
    restart: bool,
    /// Keys with a sentence and an example that are for this place.
    said: &'static [(&'static str, &'static str, &'static str)],
    section: PhantomData<T>,
}

/// Declares a mapping below this one. If absent, it is empty, and its keys have their defaults.
pub(super) fn mapping<T: Section>() -> Nested<T> {
    Nested { restart: false, said: &[], section: PhantomData }
}

impl<T: Section> Nested<T> {
    /// Declares that a change of anything in it needs a restart.
    pub fn restart(self) -> Self {
        Self { restart: true, ..self }
    }

    /// Gives each of these keys another sentence and example.
    pub fn saying(self, said: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        Self { said, ..self }
    }

    /// Makes the mapping optional.
    pub fn optional(self) -> Optional<T> {
        Optional(self)
    }
}

impl<T: Section> Nested<T> {
    fn all_keys(&self, name: &str) -> Vec<Key> {
        let here = |mut key: Key| {
            if let Some((_, meaning, example)) = self.said.iter().find(|(said, ..)| *said == key.path) {
                (key.meaning, key.example) = ((*meaning).to_owned(), example);
            }
            key.within(name, ".")
        };
        T::keys().into_iter().map(here).collect()
    }
}

impl<T: Read + PartialEq + Clone> Field for Nested<T> {
    type Value = T;

    fn keys(&self, name: &str, _meaning: &str) -> Vec<Key> {
        self.all_keys(name)
    }

    fn read(&self, scope: &Scope<'_>, name: &str) -> Option<T> {
        T::read(&scope.section(name))
    }

    fn restart_keys(&self, name: &str) -> Vec<String> {
        if self.restart { vec![name.to_owned()] } else { within(name, T::restart_keys()) }
    }

    fn changed(&self, name: &str, before: &T, after: &T) -> Vec<String> {
        match self.restart {
            true if before != after => vec![name.to_owned()],
            true => Vec::new(),
            false => within(name, before.changed(after)),
        }
    }

    fn keep(&self, value: &mut T, started: &T) {
        if self.restart { value.clone_from(started) } else { value.keep(started) }
    }
}

/// A mapping that may be absent. If keys in it need a restart, so does its coming and going.
pub(super) struct Optional<T>(Nested<T>);

impl<T: Read + PartialEq + Clone> Field for Optional<T> {
    type Value = Option<T>;

    fn keys(&self, name: &str, _meaning: &str) -> Vec<Key> {
        self.0.all_keys(name)
    }

    fn read(&self, scope: &Scope<'_>, name: &str) -> Option<Option<T>> {
        if scope.has(name) { self.0.read(scope, name).map(Some) } else { Some(None) }
    }

    fn restart_keys(&self, name: &str) -> Vec<String> {
        let inner = T::restart_keys();
        let own = self.0.restart || !inner.is_empty();
        let inner = if self.0.restart { Vec::new() } else { within(name, inner) };
        own.then(|| name.to_owned()).into_iter().chain(inner).collect()
    }

    fn changed(&self, name: &str, before: &Option<T>, after: &Option<T>) -> Vec<String> {
        match (before, after) {
            (Some(before), Some(after)) => self.0.changed(name, before, after),
            (None, None) => Vec::new(),
            _ => self.restart_keys(name).into_iter().take(1).collect(),
        }
    }

    fn keep(&self, value: &mut Option<T>, started: &Option<T>) {
        match (value, started) {
            (Some(value), Some(started)) => self.0.keep(value, started),
            (value, started) if !self.restart_keys("").is_empty() => value.clone_from(started),
            _ => {}
        }
    }
}

/// Keys that stand directly in the mapping of the section that it is declared in.
pub(super) struct Flat<T>(PhantomData<T>);

/// Keys that stand directly in this mapping, and belong together.
pub(super) fn flat<T: Section>() -> Flat<T> {
    Flat(PhantomData)
}

impl<T: Read> Field for Flat<T> {
    type Value = T;

    fn keys(&self, _name: &str, _meaning: &str) -> Vec<Key> {
        T::keys()
    }

    fn read(&self, scope: &Scope<'_>, _name: &str) -> Option<T> {
        T::read(scope)
    }

    fn restart_keys(&self, _name: &str) -> Vec<String> {
        T::restart_keys()
    }

    fn changed(&self, _name: &str, before: &T, after: &T) -> Vec<String> {
        before.changed(after)
    }

    fn keep(&self, value: &mut T, started: &T) {
        value.keep(started);
    }
}

/// Declares a field whose keys are declared elsewhere, and whose value the reader of its section sets.
pub(super) struct Elsewhere<T>(PhantomData<T>);

/// Declares a field whose keys are declared elsewhere, and whose value the reader of its section sets.
pub(super) fn elsewhere<T>() -> Elsewhere<T> {
    Elsewhere(PhantomData)
}

impl<T> Field for Elsewhere<T> {
    type Value = T;

    fn keys(&self, _name: &str, _meaning: &str) -> Vec<Key> {
        Vec::new()
    }

    fn read(&self, _scope: &Scope<'_>, _name: &str) -> Option<T> {
        None
    }
}

fn within(section: &str, keys: Vec<String>) -> Vec<String> {
    keys.into_iter().map(|key| format!("{section}.{key}")).collect()
}

/// Returns `field`, whose value must be a `T`.
pub(super) fn of<T, F: Field<Value = T>>(field: F) -> F {
    field
}

/// Declares a mapping of the file as a struct; see [the module](self).
///
/// With `from NAME`, the struct `NAME` has each key as it was read, or `None` where it is wrong: for checks of keys with each other,
/// which must not wait until all are right. Its `complete` makes the section.
macro_rules! section {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])+ $field:ident $(as $key:literal)?: $type:ty = $declared:expr),+ $(,)?
        }
    ) => {
        section! { @section [$(#[$attribute])*] $name { $([$($doc)+] $field [$($key)?] [$type] [$declared])+ } }

        impl $crate::declare::Read for $name {
            fn read(scope: &$crate::scope::Scope<'_>) -> Option<Self> {
                use $crate::declare::{Field, of};
                // All are read, so that all errors are found, before any is looked at.
                $(let $field = of::<$type, _>($declared).read(scope, section!(@key $field $($key)?));)+
                Some(Self { $($field: $field?),+ })
            }
        }
    };
    (
        $(#[$attribute:meta])*
        pub struct $name:ident from $keys:ident {
            $($(#[doc = $doc:literal])+ $field:ident $(as $key:literal)?: $type:ty = $declared:expr),+ $(,)?
        }
    ) => {
        section! { @section [$(#[$attribute])*] $name { $([$($doc)+] $field [$($key)?] [$type] [$declared])+ } }

        struct $keys {
            $($field: Option<$type>),+
        }

        impl $keys {
            fn read(scope: &$crate::scope::Scope<'_>) -> Self {
                use $crate::declare::{Field, of};
                Self { $($field: of::<$type, _>($declared).read(scope, section!(@key $field $($key)?))),+ }
            }

            fn complete(self) -> Option<$name> {
                Some($name { $($field: self.$field?),+ })
            }
        }
    };
    (
        @section [$($attribute:tt)*] $name:ident {
            $([$($doc:literal)+] $field:ident [$($key:literal)?] [$type:ty] [$declared:expr])+
        }
    ) => {
        $($attribute)*
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type),+
        }

        impl $crate::declare::Section for $name {
            fn keys() -> Vec<$crate::key::Key> {
                use $crate::declare::{Field, of};
                let mut keys = Vec::new();
                $(keys.extend(of::<$type, _>($declared).keys(section!(@key $field $($key)?), concat!($($doc),+).trim()));)+
                keys
            }

            fn restart_keys() -> Vec<String> {
                use $crate::declare::{Field, of};
                let mut keys = Vec::new();
                $(keys.extend(of::<$type, _>($declared).restart_keys(section!(@key $field $($key)?)));)+
                keys
            }

            fn changed(&self, after: &Self) -> Vec<String> {
                use $crate::declare::{Field, of};
                let mut keys = Vec::new();
                $(keys.extend(
                    of::<$type, _>($declared).changed(section!(@key $field $($key)?), &self.$field, &after.$field),
                );)+
                keys
            }

            fn keep(&mut self, started: &Self) {
                use $crate::declare::{Field, of};
                $(of::<$type, _>($declared).keep(&mut self.$field, &started.$field);)+
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}
pub(super) use section;
