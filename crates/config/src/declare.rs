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

use super::key::Key;
use super::scope::Scope;

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

#[cfg(test)]
mod tests;
