//! The tables of keys in the documents, generated from the keys that the reader knows.

use super::file::KEYS;
use super::key::{Key, WhenAbsent};
use super::topology::TOPOLOGY_KEYS;

/// Returns the tables, by the name that marks their place in `docs/configuration.md`, as Markdown.
#[must_use]
pub fn tables() -> Vec<(&'static str, String)> {
    let process = |key: &&Key| section(&key.path).is_empty();
    let of = |name: &'static str| move |key: &&Key| section(&key.path) == name;
    vec![
        ("process", table(KEYS.iter().filter(process))),
        ("listeners", table(KEYS.iter().filter(of("listeners")))),
        ("core", table(KEYS.iter().filter(of("core")))),
        ("tunnel", table(KEYS.iter().filter(of("tunnel")))),
        ("edges", table(KEYS.iter().filter(of("edges")))),
        ("game_servers", table(KEYS.iter().filter(of("game_servers")))),
        ("fleet", table(KEYS.iter().filter(of("fleet")))),
        ("proxies_table", table(KEYS.iter().filter(of("proxies_table")))),
        ("sessions", table(KEYS.iter().filter(of("sessions")))),
    ]
}

/// Returns the table of the keys of `otproxy init`'s file, as Markdown.
#[must_use]
pub fn topology_table() -> String {
    table(TOPOLOGY_KEYS.iter())
}

/// Returns the table that a key belongs to; empty for that of the whole process.
fn section(path: &str) -> &str {
    let first = path.split(['.', '[']).next().unwrap_or_default();
    if first == "log_core_address" {
        return "core";
    }
    // `listeners` itself is a key of the whole file; so are those with few keys below them.
    let whole = matches!(first, "admin" | "log" | "access_log" | "limits" | "bans" | "report" | "alerts")
        || (first == path && first == "listeners");
    let alone = first == path && !matches!(first, "edges" | "game_servers");
    if whole || alone { "" } else { first }
}

fn table<'k>(keys: impl Iterator<Item = &'k Key>) -> String {
    let mut table = String::from("| key | takes | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let only = key.of_kinds().map(|kinds| format!(" ({kinds} only)")).unwrap_or_default();
        table.push_str(&format!("| `{}` | {} | {} | {}{only} |\n", key.path, key.form, default(key), key.meaning));
    }
    table
}

fn default(key: &Key) -> String {
    match key.default {
        WhenAbsent::Required => "required".to_owned(),
        WhenAbsent::Text(text) => format!("`{text}`"),
        WhenAbsent::ByRole { edge, core } => format!("edge `{edge}`, core `{core}`"),
        WhenAbsent::ByKind { forward, others } => format!("forward `{forward}`, others `{others}`"),
        WhenAbsent::Computed(how) => how.to_owned(),
    }
}
