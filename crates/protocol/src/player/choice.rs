//! The choice of the links that carry a session: the best ones, kept until another is clearly better.

use std::time::Duration;

use super::clocks::BETTER_BY;
use super::link::LinkId;

/// A link that a session could use: its first ping is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCandidate {
    /// The link.
    pub link: LinkId,
    /// Measured ping and the operator's priority together; less is better.
    pub cost: Duration,
}

/// The result of a session check. At most one link joins at each check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    /// The links stay as they are.
    Keep,
    /// The link joins.
    Join(LinkId),
    /// The first joins, and then the second is left.
    Swap {
        /// Joins first.
        join: LinkId,
        /// Is left afterwards.
        leave: LinkId,
    },
}

/// Decides on the links of a session that `in_use` carry and at most `wanted` may.
///
/// Links in use that are not among `ready` are dead; the caller has dropped them before, or they
/// count as places that are taken. Of equal candidates the first wins.
pub fn choose(wanted: usize, in_use: &[LinkId], ready: &[LinkCandidate]) -> LinkChange {
    let Some(best) = ready.iter().filter(|c| !in_use.contains(&c.link)).min_by_key(|c| c.cost) else {
        return LinkChange::Keep;
    };
    if in_use.len() < wanted {
        return LinkChange::Join(best.link);
    }
    let worst = ready.iter().filter(|c| in_use.contains(&c.link)).max_by_key(|c| c.cost);
    match worst {
        Some(worst) if worst.cost > best.cost + BETTER_BY => LinkChange::Swap { join: best.link, leave: worst.link },
        _ => LinkChange::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(0);
    const B: LinkId = LinkId(1);
    const C: LinkId = LinkId(2);

    fn ready(costs: &[(LinkId, u64)]) -> Vec<LinkCandidate> {
        costs.iter().map(|&(link, ms)| LinkCandidate { link, cost: Duration::from_millis(ms) }).collect()
    }

    #[test]
    fn joins_the_best_first_one_at_a_time() {
        let links = ready(&[(A, 30), (B, 10), (C, 20)]);
        assert_eq!(choose(2, &[], &links), LinkChange::Join(B));
        assert_eq!(choose(2, &[B], &links), LinkChange::Join(C));
        assert_eq!(choose(2, &[B, C], &links), LinkChange::Keep);
        assert_eq!(choose(3, &[B, C], &links), LinkChange::Join(A));
    }

    #[test]
    fn nothing_ready_nothing_joined() {
        assert_eq!(choose(2, &[], &[]), LinkChange::Keep);
        assert_eq!(choose(2, &[A], &ready(&[(A, 1)])), LinkChange::Keep);
    }

    #[test]
    fn keeps_a_link_unless_another_is_over_twenty_ms_better() {
        assert_eq!(choose(2, &[A, B], &ready(&[(A, 10), (B, 60), (C, 40)])), LinkChange::Keep, "exactly 20 ms");
        assert_eq!(
            choose(2, &[A, B], &ready(&[(A, 10), (B, 61), (C, 40)])),
            LinkChange::Swap { join: C, leave: B },
            "21 ms"
        );
        assert_eq!(choose(2, &[A, B], &ready(&[(A, 10), (B, 40), (C, 11)])), LinkChange::Swap { join: C, leave: B });
    }

    #[test]
    fn first_of_equals_wins() {
        assert_eq!(choose(1, &[], &ready(&[(C, 5), (A, 5)])), LinkChange::Join(C));
    }
}
