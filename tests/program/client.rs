//! The module for clients of `otproxy init`, run by Lua in stand-ins for clients, which lie in `tests/client` with the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use otproxy_config::MAX_CLIENT_EDGES;

use crate::common::process::{file, otproxy, text};

/// The interpreters that clients are built with, each with the Debian package that has it.
const INTERPRETERS: [&str; 2] = ["lua5.1", "luajit"];
/// The tests in `tests/client/run.lua`.
const TESTS: usize = 23;
const URLS: &str = "list_urls: ['https://one.example/edges.json', 'http://two.example/edges.json']\n";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Makes a set-up whose edges have these names, and returns its `otproxy.lua`.
fn module(name: &str, edges: &[&str], more: &str) -> PathBuf {
    let edge = |(number, public): (usize, &&str)| {
        let revoked = public.starts_with('!');
        let public = public.trim_start_matches('!');
        format!("  - {{ name: e{number}, address: 198.51.100.{number}, public: '{public}', revoked: {revoked} }}\n")
    };
    let edges: String = edges.iter().enumerate().map(edge).collect();
    let topology = format!("edges:\n{edges}{more}game_servers: [{{ port: 7172, address: '127.0.0.1:7172' }}]\n");
    let topology = file(&format!("client-{name}.yaml"), &topology);
    let out = topology.with_extension("out");
    let _ = fs::remove_dir_all(&out);
    let output = otproxy(&["init"]).arg(&topology).arg("--out").arg(&out).output().expect("the program starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    out.join("client/otproxy/otproxy.lua")
}

/// Returns the interpreters that are here. Without one that part has nothing to do; in CI it fails.
fn interpreters() -> Vec<&'static str> {
    let is_here = |program: &&str| {
        let here = Command::new(program).arg("-v").output().is_ok();
        assert!(
            here || std::env::var("CI").as_deref() != Ok("true"),
            "the program {program} is missing; apt-get install {program}"
        );
        if !here {
            eprintln!("skipped in part: the program {program} is missing (apt-get install {program})");
        }
        here
    };
    INTERPRETERS.into_iter().filter(is_here).collect()
}

#[test]
fn it_keeps_the_edges_in_a_client_whatever_happens() {
    let names = ["p1.example", "p2.example", "!p2.test"];
    let modules = [
        module("urls", &names, &format!("spare_names: 1\n{URLS}")),
        module("other", &names, &format!("spare_names: 2\n{URLS}")),
        module("alone", &names, "spare_names: 1\n"),
    ];
    for interpreter in interpreters() {
        let mut command = Command::new(interpreter);
        let output = command.arg(repository("tests/client/run.lua")).args(&modules).output().expect(interpreter);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{interpreter}:\n{said}");
        assert!(said.ends_with(&format!("{TESTS} tests, 0 failed\n")), "{interpreter}:\n{said}");
    }
}

#[test]
fn it_has_the_edges_that_clients_may_use() {
    let read = |module: PathBuf| fs::read_to_string(module).expect("there");
    let text = read(module("edges", &["p1.example", "198.51.100.7", "2001:db8::7", "!p9.example"], URLS));
    let edges: Vec<_> = text.lines().filter(|line| line.starts_with("  { host = ")).collect();
    assert_eq!(
        edges,
        ["  { host = \"p1.example:7162\", priority = 0 },", "  { host = \"198.51.100.7:7162\", priority = 0 },"]
    );
    assert!(text.contains("\n  -- 2001:db8::7 is left out: a list has names and IPv4 addresses alone\n"), "{text}");
    assert!(!text.contains("p9.example"));
    assert!(
        text.contains("{\n  \"https://one.example/edges.json\",\n  \"http://two.example/edges.json\",\n}\n"),
        "{text}"
    );

    let text = read(module("ahead", &["p1.example", "p2.example"], "spare_names: 8\n"));
    for number in 1..=10 {
        assert!(text.contains(&format!("\"p{number}.example:7162\"")), "{text}");
    }
    assert!(!text.contains("p11.example") && text.contains("local LIST_URLS = {\n}\n"), "{text}");
}

#[test]
fn the_document_has_its_numbers() {
    let lua = fs::read_to_string(repository("src/init/otproxy.lua")).expect("there");
    let document = fs::read_to_string(repository("docs/clients.md")).expect("there");
    let number = |name: &str| {
        let (_, rest) = lua.split_once(&format!("local {name} = ")).expect(name);
        rest.split_whitespace().next().expect(name).to_owned()
    };
    for (name, row) in [
        ("REFRESH", "from one look at the list to the next | N s"),
        ("RETRY", "the same while no link is up | N s"),
        ("SLOW", "an answer is waited for | N s"),
        ("MOST", "edges in a list | N"),
        ("LONGEST", "characters of a name | N"),
    ] {
        let row = format!("| {} |", row.replace('N', &number(name)));
        assert!(document.contains(&row), "no {row}");
    }
    assert_eq!(number("MOST"), MAX_CLIENT_EDGES.to_string());
}
