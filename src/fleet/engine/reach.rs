//! The reach of an edge, by one round's evidence.

use std::collections::HashMap;
use std::sync::Arc;

use super::EdgeCause;
use crate::fleet::evidence::EdgeEvidence;

/// The reach of an edge in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgeReach {
    /// It can be used.
    Good,
    /// It cannot.
    Bad(EdgeCause),
    /// There is no sign.
    Unknown,
}

/// Judges the reach of an edge by the evidence of a round about all edges.
///
/// The edge has to have a trunk, where there is a tunnel. Then players have the first word: one through whose links they are
/// heard is there, whatever other edges say, as the way between two edges may be broken, or a limit refuse their visits. If players
/// are not heard, those of the visits count whose edge is known to have a way out itself.
pub(super) fn reach(edge: &str, evidence: &HashMap<Arc<str>, EdgeEvidence>) -> EdgeReach {
    let Some(seen) = evidence.get(edge) else { return EdgeReach::Unknown };
    if seen.trunks == Some(0) {
        return EdgeReach::Bad(EdgeCause::NoTrunk);
    }
    if is_heard(seen) {
        return EdgeReach::Good;
    }
    let reached = seen.probes.iter().filter(|probe| probe.round_trip.is_some()).count();
    let failed = seen
        .probes
        .iter()
        .filter(|probe| probe.round_trip.is_none() && is_credible(&probe.from, edge, evidence))
        .count();
    if reached > 0 && reached >= failed {
        EdgeReach::Good
    } else if failed > 0 || (seen.links > 0 && seen.heard == 0) {
        // Clients say something every 2.5 s, on every link.
        EdgeReach::Bad(EdgeCause::Unreachable)
    } else {
        EdgeReach::Unknown
    }
}

/// Returns whether players are heard over an edge: over at least half of their links, as some may be left of a way that is gone.
fn is_heard(seen: &EdgeEvidence) -> bool {
    seen.heard > 0 && seen.heard.saturating_mul(2) >= seen.links
}

/// Returns whether the edge `from`, which did not reach `edge`, has a way out itself: it reached another one, was reached, or
/// players are heard over it. Else its own side may be what is cut.
fn is_credible(from: &str, edge: &str, evidence: &HashMap<Arc<str>, EdgeEvidence>) -> bool {
    let reached_another = evidence.iter().any(|(name, seen)| {
        **name != *edge && seen.probes.iter().any(|probe| *probe.from == *from && probe.round_trip.is_some())
    });
    let own = evidence.get(from);
    reached_another || own.is_some_and(|own| is_heard(own) || own.probes.iter().any(|probe| probe.round_trip.is_some()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::evidence::EdgeProbe;

    /// An edge over whose `links` so many are heard, and that is visited by these: a capital letter reached it.
    fn seen(links: u64, heard: u64, by: &str) -> EdgeEvidence {
        let probe = |from: char| EdgeProbe {
            from: from.to_ascii_lowercase().to_string().into(),
            round_trip: from.is_uppercase().then_some(Duration::from_millis(20)),
        };
        EdgeEvidence {
            trunks: Some(4),
            links,
            heard,
            probes: by.chars().map(probe).collect(),
            ..EdgeEvidence::default()
        }
    }

    fn judged<const N: usize>(all: [(&str, EdgeEvidence); N]) -> String {
        let evidence: HashMap<Arc<str>, _> = all.into_iter().map(|(name, seen)| (name.into(), seen)).collect();
        let mut names: Vec<_> = evidence.keys().cloned().collect();
        names.sort_unstable();
        let letter = |name: Arc<str>| match reach(&name, &evidence) {
            EdgeReach::Good => '+',
            EdgeReach::Bad(_) => '-',
            EdgeReach::Unknown => '?',
        };
        names.into_iter().map(letter).collect()
    }

    #[test]
    fn the_edge_that_is_cut_is_the_bad_one_and_not_those_that_it_does_not_reach() {
        // All is well, with players and without.
        assert_eq!(judged([("a", seen(9, 9, "BC")), ("b", seen(9, 9, "AC")), ("c", seen(9, 9, "AB"))]), "+++");
        assert_eq!(judged([("a", seen(0, 0, "BC")), ("b", seen(0, 0, "AC")), ("c", seen(0, 0, "AB"))]), "+++");
        // The public side of a is cut: it reaches nobody, and nobody it.
        assert_eq!(judged([("a", seen(9, 0, "bc")), ("b", seen(9, 9, "aC")), ("c", seen(9, 9, "aB"))]), "-++");
        assert_eq!(judged([("a", seen(0, 0, "bc")), ("b", seen(0, 0, "aC")), ("c", seen(0, 0, "aB"))]), "-++");
        // Of two edges.
        assert_eq!(judged([("a", seen(9, 0, "b")), ("b", seen(9, 9, "a"))]), "-+");
        assert_eq!(
            judged([("a", seen(0, 0, "b")), ("b", seen(9, 9, "a"))]),
            "-+",
            "players have none over it any more"
        );
        assert_eq!(judged([("a", seen(0, 0, "b")), ("b", seen(0, 0, "A"))]), "-+", "it gets out, and nothing gets in");
        assert_eq!(
            judged([("a", seen(0, 0, "b")), ("b", seen(0, 0, "a"))]),
            "??",
            "one is cut, and who can tell which"
        );
        // Of one.
        assert_eq!(judged([("a", seen(9, 0, ""))]) + &judged([("a", seen(0, 0, ""))]), "-?");
    }

    #[test]
    fn players_have_the_first_word_and_without_a_trunk_there_are_none() {
        // The way between two edges is broken, or their visits are refused.
        assert_eq!(judged([("a", seen(9, 9, "bC")), ("b", seen(9, 9, "aC")), ("c", seen(9, 9, "AB"))]), "+++");
        assert_eq!(judged([("a", seen(9, 9, "bc")), ("b", seen(9, 9, "AC")), ("c", seen(9, 9, "AB"))]), "+++");
        // Some links of a way that is gone are left to be heard of.
        assert_eq!(judged([("a", seen(9, 2, "bc")), ("b", seen(9, 9, "aC")), ("c", seen(9, 9, "aB"))]), "-++");
        let away = EdgeEvidence { trunks: Some(0), ..seen(9, 9, "BC") };
        assert_eq!(judged([("a", away), ("b", seen(9, 9, "C")), ("c", seen(9, 9, "B"))]), "-++");
        let plain = EdgeEvidence { trunks: None, ..seen(9, 9, "") };
        assert_eq!(judged([("a", plain.clone()), ("b", EdgeEvidence { heard: 0, ..plain })]), "+-");
        assert_eq!(reach("x", &HashMap::new()), EdgeReach::Unknown);
    }

    #[test]
    fn the_majority_of_visits_counts() {
        let fine = || seen(0, 0, "ABC");
        assert_eq!(judged([("a", seen(0, 0, "bCd")), ("b", fine()), ("c", fine()), ("d", fine())]), "-+++");
        assert_eq!(judged([("a", seen(0, 0, "BCd")), ("b", fine()), ("c", fine()), ("d", fine())]), "++++");
    }
}
