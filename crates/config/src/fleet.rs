//! `fleet`: when edges count as out; and the traffic that an edge's provider allows.

use std::time::Duration;

use otproxy_protocol::words;

use super::declare::section;
use super::edges::EdgePeer;
use super::formats::{COUNT, QUANTITY, ROUND};
use super::scope::Scope;
use super::takes::{Format, value, word};
use super::tree::{Node, Value};

/// A share of something, in percent.
const PERCENT: Format<u8> = Format::new("1% to 100%", percent);
/// Bytes of a month.
const TRAFFIC: Format<u64> = Format::new("size", traffic);
/// A day of a month that each month has.
const DAY: Format<u8> = Format::new("1 to 28", day);
/// The last day that each month has.
const LAST_DAY: u8 = 28;

section! {
    /// `fleet`: how a core judges its edges, and how many of them clients are told of at the least.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FleetConfig {
        /// from one look at all edges to the next
        every: Duration = value(ROUND).or("3s"),
        /// looks one after the other at which an edge cannot be used, until it is out
        fall: u32 = value(COUNT).or("3"),
        /// looks one after the other at which it can, until it is back
        rise: u32 = value(COUNT).or("10"),
        /// clients are told of so many edges, whatever becomes of them, but for those that the file or an operator takes out
        min_edges: usize = value(QUANTITY).or("1"),
    }
}

section! {
    /// `edges[].traffic`: the traffic in a month that an edge's provider allows.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct EdgeTraffic {
        /// bytes in a month of the bill; beyond it clients are not told of the edge
        month: u64 = value(TRAFFIC).required("1TB"),
        /// the share of it from which on clients add 100 ms to round trips over the edge
        soft: u8 = value(PERCENT).or("80%"),
        /// the direction of the host's traffic that counts
        count: CountedTraffic = word().or("both"),
        /// the day of a month on which the bill begins, in UTC
        day: u8 = value(DAY).or("1"),
    }
}

words! {
    /// `edges[].traffic.count`: the direction of traffic that a provider counts.
    pub enum CountedTraffic {
        /// Both what the host gets and what it sends.
        Both = "both",
        /// That alone which it sends.
        Out = "out",
    }
}

impl FleetConfig {
    /// Reports what cannot be together with these edges.
    pub(super) fn check(&self, root: &Scope<'_>, edges: &[EdgePeer]) {
        let public = edges.iter().filter(|edge| edge.public.is_some()).count();
        if root.has("fleet.min_edges") && self.min_edges > public {
            root.wrong(
                "fleet.min_edges",
                format!("is {}, and only {public} of `edges` have a `public` that clients can be told", self.min_edges),
            );
        }
    }
}

fn percent(node: &Node) -> Result<u8, String> {
    let wrong = || format!("{} is no share; write it as `80%`", node.quoted());
    let Value::Text(text) = &node.value else { return Err(wrong()) };
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    number.filter(|share| (1..=100).contains(share)).ok_or_else(wrong)
}

fn traffic(node: &Node) -> Result<u64, String> {
    let wrong = || format!("{} is not a size; write one as `1TB`, `500GB`, or in bytes", node.quoted());
    let bytes = match &node.value {
        Value::Int(bytes) => u64::try_from(*bytes).map_err(|_| wrong())?,
        Value::Text(text) => text.parse::<bytesize::ByteSize>().map_err(|_| wrong())?.as_u64(),
        _ => return Err(wrong()),
    };
    if bytes == 0 { Err("must not be 0; write a size as `1TB`, or leave `traffic` out".to_owned()) } else { Ok(bytes) }
}

fn day(node: &Node) -> Result<u8, String> {
    let day = match &node.value {
        Value::Int(day) => u8::try_from(*day).ok(),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    let wrong = || format!("{} is no day that each month has; write one from 1 to {LAST_DAY}", node.quoted());
    day.filter(|day| (1..=LAST_DAY).contains(day)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::super::tree::fragment;
    use super::*;

    #[test]
    fn shares_sizes_and_days() {
        assert_eq!(["80%", "1 %", "100%"].map(|text| percent(&fragment(text)).ok()), [Some(80), Some(1), Some(100)]);
        for wrong in ["80", "0%", "101%", "a%", "'%'", "[80%]"] {
            assert!(percent(&fragment(wrong)).unwrap_err().contains("write it as `80%`"), "{wrong}");
        }
        assert_eq!(traffic(&fragment("1TB")), Ok(1_000_000_000_000));
        assert_eq!(traffic(&fragment("1TiB")), Ok(1 << 40));
        assert!(traffic(&fragment("0")).unwrap_err().contains("leave `traffic` out"));
        assert!(traffic(&fragment("much")).is_err());
        assert_eq!((day(&fragment("1")), day(&fragment("28"))), (Ok(1), Ok(28)));
        for wrong in ["0", "29", "x", "-1"] {
            assert!(day(&fragment(wrong)).is_err(), "{wrong}");
        }
    }
}
