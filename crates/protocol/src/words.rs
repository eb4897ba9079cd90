//! Words: enums whose variants are written as fixed words.

/// A value that is written as one of a few words. [`words!`](crate::words!) implements it.
pub trait Word: Copy + 'static {
    /// Every value there is, in the order of declaration.
    const ALL: &'static [Self];

    /// Returns its word.
    fn as_str(self) -> &'static str;

    /// Returns its place in [`Word::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum with the fixed word of each variant, as configurations have it, logs show it and metrics count it.
///
/// The enum is [`Word`], and has `ALL`, every value in the order of declaration, `as_str`, and
/// [`Display`](std::fmt::Display).
///
/// ```
/// otproxy_protocol::words! {
///     /// The way a door is.
///     pub enum Door {
///         /// One can pass.
///         Open = "open",
///         /// One cannot.
///         Shut = "shut",
///     }
/// }
/// assert_eq!(Door::ALL.iter().map(|door| door.as_str()).collect::<Vec<_>>(), ["open", "shut"]);
/// ```
#[macro_export]
macro_rules! words {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident { $($(#[$variant_attribute:meta])+ $variant:ident = $word:literal),+ $(,)? }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_attribute])+ $variant),+ }

        impl $name {
            /// Every value there is, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word that files, logs and metrics have for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl $crate::Word for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
