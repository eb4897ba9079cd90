//! Reasons: enums whose variants have fixed words.

/// An enum that [`reasons!`](crate::reasons!) has declared.
pub trait Reason: Copy + 'static {
    /// Every reason there is, in the order of declaration.
    const ALL: &'static [Self];

    /// Returns the word used in logs and as a metric label.
    fn as_str(self) -> &'static str;

    /// Returns its place in [`Reason::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum of reasons, each with the fixed word that logs show and metrics count.
///
/// The enum gets `ALL`, every reason in the order of declaration, `as_str`, and [`Display`](std::fmt::Display).
///
/// ```
/// otproxy_protocol::reasons! {
///     /// Why the door was shut.
///     Shut {
///         /// It was night.
///         Night = "night",
///         /// It rained.
///         Rain = "rain",
///     }
/// }
/// assert_eq!(Shut::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>(), ["night", "rain"]);
/// ```
#[macro_export]
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every reason there is, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word used in logs and as a metric label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl $crate::Reason for $name {
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
