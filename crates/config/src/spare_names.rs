//! Names that edges may have later: they go on from those of the edges, as `p3.example` from `p1.example` and `p2.example`.

use std::net::IpAddr;

use super::topology::TopologyEdge;
use super::tree::quote;

/// Digits of a number in a name at most.
const MAX_DIGITS: usize = 6;

/// A name with a number at the end of its first part.
struct Numbered<'n> {
    /// The name up to the number.
    stem: &'n str,
    number: u32,
    digits: usize,
    /// The name from the first dot on; empty without one.
    domain: &'n str,
}

impl<'n> Numbered<'n> {
    /// Parses a name; `None` for an address, and for a name without a number there.
    fn of(name: &'n str) -> Option<Self> {
        if name.parse::<IpAddr>().is_ok() {
            return None;
        }
        let (first, domain) = name.split_at(name.find('.').unwrap_or(name.len()));
        let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = first.strip_prefix(stem).filter(|number| number.len() <= MAX_DIGITS)?;
        Some(Self { stem, number: number.parse().ok()?, digits: number.len(), domain })
    }

    fn is_of_a_row_with(&self, other: &Numbered<'_>) -> bool {
        self.stem.eq_ignore_ascii_case(other.stem) && self.domain.eq_ignore_ascii_case(other.domain)
    }
}

/// Returns the `count` names that follow those of the edges.
///
/// # Errors
///
/// The edge whose name is not in one row with the others', with the remedy.
pub(super) fn spare_names(edges: &[TopologyEdge], count: u32) -> Result<Vec<String>, String> {
    let mut live = edges.iter().filter(|edge| !edge.revoked);
    let wrong = |edge: &TopologyEdge| {
        format!(
            "the names ahead go on from those of the edges, as p3.example from p1.example and p2.example, and {}, the name of the \
             edge {}, is in no such row; give it a `public` like that, or leave this out",
            quote(&edge.public),
            edge.name
        )
    };
    let Some(edge) = live.next() else {
        return Err("every edge is revoked, so there are no names to go on from; leave this out".to_owned());
    };
    let first = Numbered::of(&edge.public).ok_or_else(|| wrong(edge))?;
    for edge in live {
        Numbered::of(&edge.public).filter(|name| name.is_of_a_row_with(&first)).ok_or_else(|| wrong(edge))?;
    }
    // The name of an edge that is given up is not taken again.
    let row = edges.iter().filter_map(|edge| Numbered::of(&edge.public)).filter(|name| name.is_of_a_row_with(&first));
    let last = row.max_by_key(|name| name.number).unwrap_or(first);
    let Numbered { stem, number, digits, domain } = last;
    Ok((1..=count).map(|ahead| format!("{stem}{:0digits$}{domain}", number.saturating_add(ahead))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::name::Name;
    use super::*;

    fn names(publics: &[&str], count: u32) -> Result<Vec<String>, String> {
        let edge = |(number, public): (usize, &&str)| TopologyEdge {
            name: Name::edge(&format!("e{number}")).unwrap(),
            address: String::new(),
            public: public.trim_start_matches('!').to_owned(),
            priority: 0,
            priority_under_attack: None,
            reserve: false,
            datacenter: None,
            traffic: None,
            revoked: public.starts_with('!'),
            ssh: None,
        };
        spare_names(&publics.iter().enumerate().map(edge).collect::<Vec<_>>(), count)
    }

    #[test]
    fn names_go_on_from_the_last_one() {
        for (publics, count, ahead) in [
            (&["p1.example", "p2.example"][..], 2, &["p3.example", "p4.example"][..]),
            (&["p9.example"], 2, &["p10.example", "p11.example"]),
            (&["p08.example", "p09.example"], 2, &["p10.example", "p11.example"]),
            (&["edge-1.eu.example", "EDGE-3.eu.example"], 1, &["EDGE-4.eu.example"]),
            (&["p1"], 1, &["p2"]),
            (&["a1b2.x1.example"], 1, &["a1b3.x1.example"]),
            (&["p1.example", "!p4.example", "!198.51.100.8"], 1, &["p5.example"]),
            (&["p1.example"], 0, &[]),
        ] {
            assert_eq!(names(publics, count).unwrap(), ahead, "{publics:?}");
        }
    }

    #[test]
    fn a_name_in_no_row_is_named() {
        for (publics, named) in [
            (&["waw.example"][..], "`waw.example`, the name of the edge e0"),
            (&["p1.example", "fra1.example"], "`fra1.example`, the name of the edge e1"),
            (&["p1.example", "p2.test"], "`p2.test`, the name of the edge e1"),
            (&["p1.example", "198.51.100.7"], "`198.51.100.7`, the name of the edge e1"),
            (&["2001:db8::7"], "`2001:db8::7`, the name of the edge e0"),
            (&["p1234567.example"], "`p1234567.example`, the name of the edge e0"),
            (&["!p1.example"], "every edge is revoked"),
        ] {
            let error = names(publics, 1).expect_err(named);
            assert!(error.contains(named) && error.contains("leave this out"), "{publics:?}: {error}");
        }
    }
}
