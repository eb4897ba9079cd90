//! Names in certificates, which identify the hosts of the tunnel.

use std::fmt;

/// The name in the core's certificate. No edge has it: roles are told apart by names.
pub const CORE_NAME: &str = "core";
/// Characters of a name, as for `edges[].name`.
const MAX_LEN: usize = 64;
/// Characters between two dots, as in a host name.
const MAX_PART: usize = 63;
/// Names that no edge has: the core, the label of peers that are no edge, and the authority, whose files have that
/// name.
const RESERVED: [&str; 3] = [CORE_NAME, "other", "ca"];

/// The name that a certificate is for: the core or an edge. Its files have that name too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Text that cannot be the name of an edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// One of the names that have a meaning.
    #[error("`{0}` is no edge's name: `core`, `other` and `ca` have a meaning of their own; choose another")]
    Reserved(String),
    /// It is not like a host name.
    #[error(
        "`{0}` cannot be the name in a certificate; write it like a host name, as in `waw1`: at most {MAX_LEN} letters \
         a-z and A-Z, digits, `-`, `_` and `.`"
    )]
    Unfit(String),
}

impl Name {
    /// Returns the core's name.
    pub fn core() -> Self {
        Self(CORE_NAME.to_owned())
    }

    /// Checks an edge's name, as in `edges[].name`.
    ///
    /// # Errors
    /// Fails if no edge can have that name.
    pub fn edge(text: &str) -> Result<Self, NameError> {
        // TLS does not tell letters' cases apart: `CORE` could play the core.
        if RESERVED.iter().any(|reserved| text.eq_ignore_ascii_case(reserved)) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        let part = |part: &str| {
            (1..=MAX_PART).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        // Digits at the end are an address, or an attempt at one.
        let fits = text.len() <= MAX_LEN && text.split('.').all(part) && !last.bytes().all(|b| b.is_ascii_digit());
        if fits { Ok(Self(text.to_owned())) } else { Err(NameError::Unfit(text.escape_debug().to_string())) }
    }

    /// Returns it as it is in the certificate.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the arguments of `otproxy cert` that issue its certificate.
    pub fn command(&self) -> String {
        if self.0 == CORE_NAME { self.0.clone() } else { format!("edge {}", self.0) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether a core with a tunnel may have an edge of that name.
    fn configurable(name: &str) -> bool {
        let text = format!(
            "role: core\ntunnel: {{ accept: '127.0.0.1:1', tls: {{ ca: a, cert: b, key: c }} }}\nedges:\n- {{ name: '{name}' }}\n\
             listeners:\n- {{ name: links, kind: relay }}\n\
             game_servers:\n- {{ port: 7172, address: '127.0.0.1:7172' }}\n"
        );
        let wrong = crate::parse("core.yaml", &text).map_err(|errors| errors.to_string()).err();
        assert!(wrong.iter().all(|wrong| wrong.contains(": edges[0].name: ")), "{wrong:?}");
        wrong.is_none()
    }

    #[test]
    fn edges_are_called_as_the_configuration_demands() {
        let longest = format!("{}.b", "a".repeat(62));
        for name in ["waw1", "a", "WAW-1", "p1.example", "under_score", "_a_", "1a", "1.a", "core1", &longest] {
            assert_eq!(Name::edge(name).as_ref().map(Name::as_str), Ok(name));
            assert!(configurable(name), "{name}");
        }
        let (long, part) = (format!("{}.b", "a".repeat(63)), "a".repeat(64));
        for name in
            ["", ".", "..", ".a", "a..b", "-a", "a-", "a.-b", "a b", "a/b", "../a", "ä", "*", "1", "a.1", &long, &part]
        {
            assert_eq!(Name::edge(name), Err(NameError::Unfit(name.to_owned())));
            assert!(!configurable(name), "{name}");
        }
        assert_eq!(Name::edge("a\n"), Err(NameError::Unfit("a\\n".to_owned())));
    }

    #[test]
    fn no_edge_is_called_like_the_core_in_any_case_of_letters() {
        for name in ["core", "CORE", "Core", "other", "ca", "CA"] {
            assert_eq!(Name::edge(name), Err(NameError::Reserved(name.to_owned())));
        }
    }
}
