//! The metrics of edges beside those of their core, in one text.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

/// Series that are taken from one edge at the most; it has a few hundred.
const MOST: usize = 20_000;
/// The words of a type that has more than one series for each set of labels.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// A family of metrics as text.
#[derive(Debug)]
struct Family {
    help: String,
    kind: String,
    /// Its series, a line each.
    series: Vec<String>,
}

/// Returns the text of a core's metrics with those of its `edges`, by name: each series of an edge has two labels more,
/// `role="edge"` and `edge`, its name.
///
/// The words of an edge are checked, as one line that is wrong would cost Prometheus all others: lines that are no series, series that
/// are there twice or that belong to no family, and families of another type than the core's are left out. An edge speaks for
/// itself alone, whatever labels it gives.
pub fn with_edges(own: &str, edges: &[(String, String)]) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    read(own, |name, help, kind, line| {
        let new = || Family { help: help.to_owned(), kind: kind.to_owned(), series: Vec::new() };
        families.entry(name.to_owned()).or_insert_with(new).series.extend(line.map(str::to_owned));
    });
    for (edge, text) in edges {
        let (mut seen, mut taken) = (HashSet::new(), 0);
        read(text, |name, help, kind, line| {
            let Some(Series { name: of, labels, value }) = line.and_then(|line| series(line, edge)) else { return };
            let new = format!("{of}{{{labels}}}");
            if taken == MOST || !belongs(&of, name, kind) || seen.contains(&new) {
                return;
            }
            let family = families.entry(name.to_owned()).or_insert_with(|| Family {
                help: help.to_owned(),
                kind: kind.to_owned(),
                series: Vec::new(),
            });
            if family.kind == kind {
                family.series.push(format!("{new} {value}"));
                seen.insert(new);
                taken += 1;
            }
        });
    }
    let mut text = String::new();
    for (name, Family { help, kind, series }) in families {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        series.iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
    }
    text
}

/// Calls `take` with the name, help and type of a family and one line of its series; or without a line at the family's start.
fn read<'a>(text: &'a str, mut take: impl FnMut(&'a str, &'a str, &'a str, Option<&'a str>)) {
    let (mut about, mut family) = (None, None);
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            about = said.split_once(' ');
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            family = said.split_once(' ').filter(|(name, kind)| is_name(name) && is_kind(kind)).map(|(name, kind)| {
                let help = about.filter(|(of, _)| *of == name).map_or("", |(_, help)| help);
                take(name, help, kind, None);
                (name, help, kind)
            });
        } else if let (Some((name, help, kind)), false) = (family, line.starts_with('#') || line.is_empty()) {
            take(name, help, kind, Some(line));
        }
    }
}

fn is_kind(kind: &str) -> bool {
    ["counter", "gauge", "histogram"].contains(&kind)
}

fn is_name(name: &str) -> bool {
    let of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.starts_with(|letter: char| letter.is_ascii_alphabetic()) && name.chars().all(of_name)
}

/// Returns whether a series of this name belongs to a family.
fn belongs(series: &str, family: &str, kind: &str) -> bool {
    match series.strip_prefix(family) {
        Some("") => kind != "histogram",
        Some(part) => kind == "histogram" && PARTS.contains(&part),
        None => false,
    }
}

/// A series of an edge.
struct Series<'a> {
    name: String,
    /// Its labels in order, as they are written.
    labels: String,
    value: &'a str,
}

/// Reads a line `name{label="value",..} value`, and gives it the labels of its edge.
fn series<'a>(line: &'a str, edge: &str) -> Option<Series<'a>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(end)?;
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        while let Some((label, behind)) = inside.split_once("=\"") {
            let end = end_of_value(behind)?;
            let (value, behind) = behind.split_at_checked(end)?;
            if !is_name(label) || labels.insert(label, value).is_some() {
                return None;
            }
            inside = behind.strip_prefix('"')?;
            match inside.strip_prefix(',') {
                Some(more) => inside = more,
                None => break,
            }
        }
        rest = inside.strip_prefix('}')?;
    }
    let value = rest.strip_prefix(' ')?;
    value.parse::<f64>().ok().filter(|_| is_name(name))?;
    // Names of edges need no escape.
    labels.insert("edge", edge);
    labels.insert("role", "edge");
    let labels: Vec<_> = labels.into_iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    Some(Series { name: name.to_owned(), labels: labels.join(","), value })
}

/// Returns the place of the quotation mark at a label's end; `None` if there is none, or an escape that is none.
fn end_of_value(text: &str) -> Option<usize> {
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return Some(place),
            '\\' if !matches!(letters.next(), Some((_, '\\' | '"' | 'n'))) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "# HELP a_total Things.\n# TYPE a_total counter\na_total{listener=\"links\"} 7\n\
        # HELP otproxy_tunnel_trunks Trunks.\n# TYPE otproxy_tunnel_trunks gauge\notproxy_tunnel_trunks{edge=\"waw1\"} 4\n";

    fn merged(edge: &str) -> Vec<String> {
        let text = with_edges(OWN, &[("waw1".to_owned(), edge.to_owned())]);
        assert!(text.starts_with("# HELP a_total Things.\n# TYPE a_total counter\na_total{listener=\"links\"} 7\n"));
        let own: HashSet<_> = OWN.lines().collect();
        text.lines().filter(|line| !own.contains(line)).map(str::to_owned).collect()
    }

    #[test]
    fn series_of_edges_stand_in_the_families_of_the_core() {
        let edge = "# HELP a_total Things.\n# TYPE a_total counter\na_total{listener=\"a\\\"b\\\\\"} 1e3\na_total 2\n\
            # TYPE otproxy_tunnel_trunks gauge\notproxy_tunnel_trunks{edge=\"waw1\"} 4\n\
            # HELP h_seconds Time.\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"+Inf\"} 1\nh_seconds_sum 0.5\n\
            h_seconds_count 1\n";
        assert_eq!(
            merged(edge),
            [
                r#"a_total{edge="waw1",listener="a\"b\\",role="edge"} 1e3"#,
                r#"a_total{edge="waw1",role="edge"} 2"#,
                "# HELP h_seconds Time.",
                "# TYPE h_seconds histogram",
                r#"h_seconds_bucket{edge="waw1",le="+Inf",role="edge"} 1"#,
                r#"h_seconds_sum{edge="waw1",role="edge"} 0.5"#,
                r#"h_seconds_count{edge="waw1",role="edge"} 1"#,
                r#"otproxy_tunnel_trunks{edge="waw1",role="edge"} 4"#,
            ]
        );
        assert_eq!(with_edges(OWN, &[]), OWN);
    }

    #[test]
    fn an_edge_speaks_for_itself_alone_and_spoils_nothing() {
        let line = |line: &str| merged(&format!("# TYPE a_total counter\n{line}\n"));
        assert_eq!(line("a_total{edge=\"fra1\",role=\"core\"} 9"), [r#"a_total{edge="waw1",role="edge"} 9"#]);
        for wrong in [
            "a_total",
            "a_total{} x",
            "a_total 1 1700000000",
            "a_total{a=\"1\",a=\"2\"} 1",
            "a_total{a=\"1} 1",
            "a_total{a=\"\\x\"} 1",
            "a_total{a=\"1\" 1",
            "a_total{1a=\"1\"} 1",
            "a_total{a=\"1\"}1",
            "a_totally 1",
            "a_total_sum 1",
            "b_total 1",
            "# EOF",
            "a total 1",
            "{a=\"1\"} 1",
            "é_total 1",
        ] {
            assert_eq!(line(wrong), [""; 0], "{wrong}");
        }
        // There twice; of another type; of no family.
        assert_eq!(line("a_total{b=\"1\",a=\"2\"} 1\na_total{a=\"2\",b=\"1\"} 1").len(), 1);
        assert_eq!(merged("# TYPE a_total gauge\na_total 1\n"), [""; 0]);
        assert_eq!(
            merged("a_total 1\n# TYPE x_total nonsense\nx_total 1\n# TYPE 1_total counter\n1_total 2\n"),
            [""; 0]
        );
        let flood: String = (0..MOST + 10).map(|n| format!("a_total{{n=\"{n}\"}} 1\n")).collect();
        assert_eq!(line(&flood).len(), MOST);
    }
}
