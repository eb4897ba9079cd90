//! Fields that are mappings: below the section's own, or in it.

use std::marker::PhantomData;

use super::declare::{Field, Read, Section};
use super::key::{Key, RoleKind};
use super::scope::Scope;

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
        Optional { nested: self, role: None }
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
pub(super) struct Optional<T> {
    nested: Nested<T>,
    /// The one role that may have it.
    role: Option<RoleKind>,
}

impl<T> Optional<T> {
    /// Declares that only this role has it.
    pub fn only_in(self, role: RoleKind) -> Self {
        Self { role: Some(role), ..self }
    }
}

impl<T: Read + PartialEq + Clone> Field for Optional<T> {
    type Value = Option<T>;

    fn keys(&self, name: &str, _meaning: &str) -> Vec<Key> {
        let keys = self.nested.all_keys(name).into_iter();
        keys.map(|key| self.role.map_or(key.clone(), |role| key.only_in(role))).collect()
    }

    fn read(&self, scope: &Scope<'_>, name: &str) -> Option<Option<T>> {
        if scope.has(name) { self.nested.read(scope, name).map(Some) } else { Some(None) }
    }

    fn restart_keys(&self, name: &str) -> Vec<String> {
        let inner = T::restart_keys();
        let own = self.nested.restart || !inner.is_empty();
        let inner = if self.nested.restart { Vec::new() } else { within(name, inner) };
        own.then(|| name.to_owned()).into_iter().chain(inner).collect()
    }

    fn changed(&self, name: &str, before: &Option<T>, after: &Option<T>) -> Vec<String> {
        match (before, after) {
            (Some(before), Some(after)) => self.nested.changed(name, before, after),
            (None, None) => Vec::new(),
            _ => self.restart_keys(name).into_iter().take(1).collect(),
        }
    }

    fn keep(&self, value: &mut Option<T>, started: &Option<T>) {
        match (value, started) {
            (Some(value), Some(started)) => self.nested.keep(value, started),
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
