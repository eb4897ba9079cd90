//! A key of a file, as the reference, the reader and the tests see it.

use otproxy_protocol::words;

use self::WhenAbsent::{ByKind, ByRole, Computed, Required, Text};

words! {
    /// `role`: the part that a process plays.
    pub enum RoleKind {
        /// Forwards connections to the core.
        Edge = "edge",
        /// Relays sessions to the game servers.
        Core = "core",
    }
}

words! {
    /// `listeners[].kind`
    #[derive(PartialOrd, Ord)]
    pub enum ListenerType {
        /// TCP to TCP.
        Forward = "forward",
        /// HTTP.
        Web = "web",
        /// Links of the multi-path protocol.
        Relay = "relay",
    }
}

/// The value of a key that is absent. Values are YAML, as a user would write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAbsent {
    /// Its absence is an error.
    Required,
    /// This value.
    Text(&'static str),
    /// This value, by role.
    ByRole {
        /// For an edge.
        edge: &'static str,
        /// For the core.
        core: &'static str,
    },
    /// This value, by kind of listener.
    ByKind {
        /// For `kind: forward`.
        forward: &'static str,
        /// For all others.
        others: &'static str,
    },
    /// Found out at start; the text says how.
    Computed(&'static str),
}

/// One key.
#[derive(Debug, Clone)]
pub struct Key {
    /// The path, with `[]` for the items of a list: `listeners[].limits.connections`.
    pub path: String,
    /// The one role that has it; `None` for both.
    pub role: Option<RoleKind>,
    /// The kinds of listener that have it; none for all.
    pub kinds: &'static [ListenerType],
    /// The value without it.
    pub default: WhenAbsent,
    /// The format of its value.
    pub form: String,
    /// A value, for errors and examples.
    pub example: &'static str,
    /// One sentence.
    pub meaning: String,
}

impl Key {
    /// Returns the default as YAML, for this role and kind. `None` where there is none to write.
    #[must_use]
    pub fn default_for(&self, role: RoleKind, kind: Option<ListenerType>) -> Option<&'static str> {
        match (self.default, role, kind) {
            (Text(text), ..) => Some(text),
            (ByRole { edge, .. }, RoleKind::Edge, _) => Some(edge),
            (ByRole { core, .. }, RoleKind::Core, _) => Some(core),
            (ByKind { forward, .. }, _, None | Some(ListenerType::Forward)) => Some(forward),
            (ByKind { others, .. }, ..) => Some(others),
            (Required | Computed(_), ..) => None,
        }
    }

    /// Returns the same key as a part of `section`, in whose path it stands behind `joint`.
    pub(super) fn within(self, section: &str, joint: &str) -> Self {
        Self { path: format!("{section}{joint}{}", self.path), ..self }
    }

    /// Returns the same key for one role alone.
    pub(super) fn only_in(self, role: RoleKind) -> Self {
        Self { role: Some(role), ..self }
    }

    /// Returns the same key for these kinds of listener alone, or for those of them that it had.
    pub(super) fn only_with(self, kinds: &'static [ListenerType]) -> Self {
        if self.kinds.is_empty() { Self { kinds, ..self } } else { self }
    }

    /// Returns whether listeners of this kind have it.
    #[must_use]
    pub fn is_of_kind(&self, kind: ListenerType) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// Returns the kinds of listener that have it, as in `kind: forward` or `kind: web`; `None` for all.
    #[must_use]
    pub fn of_kinds(&self) -> Option<String> {
        let kinds: Vec<_> = self.kinds.iter().map(|kind| format!("`kind: {kind}`")).collect();
        (!kinds.is_empty()).then(|| kinds.join(" or "))
    }
}

/// Returns the key of this path.
pub(super) fn find<'k>(table: &'k [Key], path: &str) -> Option<&'k Key> {
    table.iter().find(|key| key.path == path)
}

/// Returns the key of this path and all keys below it.
pub(super) fn at_or_below<'k>(table: &'k [Key], path: &str) -> impl Iterator<Item = &'k Key> {
    table.iter().filter(move |key| {
        key.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
    })
}

/// Returns the words that may follow `path` directly.
pub(super) fn below<'k>(table: &'k [Key], path: &str) -> impl Iterator<Item = &'k str> {
    table.iter().filter_map(move |key| {
        let rest = if path.is_empty() { key.path.as_str() } else { key.path.strip_prefix(path)?.strip_prefix('.')? };
        rest.split(['.', '[']).next()
    })
}
