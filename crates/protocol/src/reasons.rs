//! Reasons: enums whose variants have fixed words.

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
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])+ $variant:ident = $word:literal),+ $(,)? }) => {
        $crate::words! { $(#[$doc])* pub enum $name { $($(#[$vdoc])+ $variant = $word),+ } }
    };
}
