//! `docs/login.md` says what the code does with logins.

use otproxy_config::{GameServerProfile, PlayerAddress};
use otproxy_protocol::login::Worlds;
use otproxy_protocol::login::http::{Client, ErrorCode, Unchanged, error_body};

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/login.md")).expect("docs/login.md")
}

/// Returns the rows of the table whose first cell in the head is `first`.
fn table<'t>(text: &'t str, first: &str) -> Vec<Vec<&'t str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(&format!("| {first} |")));
    let rows = lines.take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<_>> = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    assert!(rows.len() > 2, "a table of {first}");
    rows[2..].to_vec()
}

#[test]
fn each_game_server_has_its_ways() {
    let text = document();
    let rows = table(&text, "`game_server`");
    let named: Vec<_> = rows.iter().flat_map(|row| row[0].split(", ")).map(|name| name.trim_matches('`')).collect();
    assert_eq!(named, GameServerProfile::ALL.iter().map(|profile| profile.as_str()).collect::<Vec<_>>());
    for row in rows {
        for profile in GameServerProfile::ALL.iter().filter(|profile| row[0].contains(&format!("`{profile}`"))) {
            let settings = profile.settings(PlayerAddress::None);
            assert_eq!(row[1].starts_with("the core, with `login`"), settings.edges_in_logins, "{profile}: {row:?}");
        }
    }
}

#[test]
fn every_reason_why_an_answer_passes_is_there() {
    let text = document();
    let reasons: Vec<_> = table(&text, "reason").iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(reasons, Unchanged::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>());
}

#[test]
fn what_each_client_is_told_is_there() {
    let text = document();
    let head = text.lines().find(|line| line.starts_with("| client |")).expect("the table of clients");
    assert!(head.ends_with("| `auto` | `links` | `edge` |"), "{head}");
    let rows = table(&text, "client");
    assert_eq!(rows.len(), Client::ALL.len());
    for (row, client) in rows.iter().zip(Client::ALL) {
        assert!(row[0].starts_with(&format!("`{client}`: ")), "{row:?}");
        let told = Worlds::ALL.iter().map(|worlds| if client.is_sent_over_links(*worlds) { "links" } else { "edge" });
        assert!(told.eq(row[2..].iter().copied()), "{row:?}");
    }
}

#[test]
fn errors_are_as_shown() {
    let text = document();
    assert!(text.contains(&format!("`{}`", error_body(ErrorCode::Login, "..."))));
    assert!(
        text.contains(&format!(
            "With code {} OTClient Redemption asks for a one-time password.",
            ErrorCode::Token as u8
        ))
    );
}
