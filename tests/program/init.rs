//! `otproxy init`, run as users run it: what it writes, what it leaves alone, what it says.
//!
//! `OTPROXY_BLESS=1 cargo test --test program init` writes what it makes into `tests/init`, and the keys of the topology into
//! `docs/init.md`; read the difference before committing it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::SystemTime;

use otproxy::certs::authority::{Authority, IssueTerms};
use otproxy::certs::identity::{Identity, IdentityKind};
use otproxy::init::RENEW_DAYS;
use otproxy_config::name::Name;
use otproxy_config::{Config, GameServerProfile, PlayerAddress, TlsFiles, load, parse_topology, topology_table};
use proptest::prelude::*;

use crate::common::folder::assert_golden;
use crate::common::process::{failed, otproxy, text};
use crate::common::prometheus;
use crate::monitoring::RULES;

const FLAGS: [&str; 6] =
    ["--edge", "waw1=198.51.100.7,p1.example", "--edge", "fra1=198.51.100.9", "--game", "7172=127.0.0.1:7172"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder of one test, of this run, that is not there yet.
fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("init-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn init(arguments: &[&str], out: &Path) -> Output {
    let arguments: Vec<_> = ["init"].iter().chain(arguments).chain(&["--out", utf8(out)]).copied().collect();
    otproxy(&arguments).output().expect("the program starts")
}

/// What it says on stdout.
#[track_caller]
fn made(arguments: &[&str], out: &Path) -> String {
    let output = init(arguments, out);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    text(&output.stdout)
}

#[track_caller]
fn from_file(name: &str, out: &Path) -> String {
    made(&[utf8(&repository("tests/init").join(name))], out)
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    contents: Vec<u8>,
    mode: u32,
    modified: SystemTime,
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeMap<String, Seen> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = utf8(path.strip_prefix(folder).expect("below")).to_owned();
            let (contents, meta) = (fs::read(&path).expect("readable"), fs::metadata(&path).expect("there"));
            let seen =
                Seen { contents, mode: meta.permissions().mode() & 0o777, modified: meta.modified().expect("known") };
            found.insert(name, seen);
        }
    }
    found
}

/// The names of files that are not in both alike.
fn differing(before: &BTreeMap<String, Seen>, after: &BTreeMap<String, Seen>) -> Vec<String> {
    let mut names: Vec<_> = before.keys().chain(after.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| before.get(name) != after.get(name)).collect()
}

/// The names of the files of which it says `word`.
fn said(output: &str, word: &str) -> Vec<String> {
    let of =
        |line: &str| line.split_once(' ').filter(|(first, _)| *first == word).map(|(_, rest)| rest.trim().to_owned());
    let mut names: Vec<_> = output.lines().filter_map(of).collect();
    names.sort();
    names
}

#[test]
fn what_is_made_is_what_was_looked_at() {
    for name in ["dial", "accept"] {
        let out = fresh(&format!("golden-{name}"));
        from_file(&format!("{name}.yaml"), &out);
        let golden = repository("tests/init/golden").join(name);
        let mut count = 0;
        for (file, seen) in files(&out) {
            let own = [".pem", ".key", ".service", ".json"].iter().any(|ending| file.ends_with(ending));
            if !own {
                assert_golden(&golden.join(&file), &text(&seen.contents));
                count += 1;
            }
        }
        // None too many either.
        assert_eq!(files(&golden).len(), count);
        assert!(count >= 5 + 3 * 5, "{count}");
        for role in ["core", "edge"] {
            let folder = if role == "core" { "core" } else { "edge-waw1" };
            let unit = format!("otproxy-{role}.service");
            let own = fs::read(repository("systemd").join(&unit)).expect("a unit");
            assert_eq!(fs::read(out.join(folder).join(&unit)).expect("a copy"), own);
        }
    }
}

#[test]
fn every_file_is_accepted_by_what_reads_it() {
    let (nft, promtool) = (nft_is_here(), prometheus::is_here("promtool"));
    let mut count = (0, 0, 0);
    for name in ["dial", "accept"] {
        let out = fresh(&format!("valid-{name}"));
        from_file(&format!("{name}.yaml"), &out);
        for file in files(&out).into_keys() {
            let path = out.join(&file);
            let accepts = |program: &str, arguments: &[&str]| {
                let output = Command::new(program).args(arguments).arg(&path).output().expect(program);
                assert!(output.status.success(), "{file}: {}", text(&output.stderr));
            };
            if file.contains('/') && file.ends_with(".yaml") {
                let output = otproxy(&["check", "-c", utf8(&path)]).output().expect("the program starts");
                assert_eq!(text(&output.stderr), "", "{file}");
                assert!(output.status.success(), "{file}");
                // Its certificate too: with the key, for the name, and from the authority that stands beside it.
                let (tls, own, name) = match load(&path).expect("valid") {
                    Config::Edge(edge) => (edge.tunnel.expect("a tunnel").tls, IdentityKind::Edge, edge.process.name),
                    Config::Core(core) => (core.tunnel.expect("a tunnel").tls, IdentityKind::Core, "core".to_owned()),
                };
                let identity = Identity::load(&tls, own).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(identity.name(), name);
                count.0 += 1;
            } else if file.ends_with(".sh") {
                accepts("sh", &["-n"]);
                count.1 += 1;
            } else if file.ends_with("nftables.conf") && nft {
                accepts("nft", &["-c", "-f"]);
            } else if file == "prometheus.yml" && promtool {
                // The rules that it names, beside it, as they are put there.
                fs::copy(repository(RULES), out.join("otproxy.rules.yml")).expect("writable");
                accepts("promtool", &["check", "config"]);
                count.2 += 1;
            }
        }
    }
    assert_eq!(count, (8, 8, if promtool { 2 } else { 0 }));
}

/// Whether nftables can check a file here. Where it cannot, that part has nothing to do; in CI it fails.
fn nft_is_here() -> bool {
    let output = Command::new("nft").args(["-c", "flush ruleset"]).output();
    let why = match output {
        Ok(output) if output.status.success() => return true,
        Ok(output) => text(&output.stderr),
        Err(error) => error.to_string(),
    };
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "nft cannot be used: {why}; apt-get install nftables, as root"
    );
    eprintln!("skipped in part: nft cannot be used: {why} (apt-get install nftables, as root)");
    false
}

#[test]
fn the_second_run_changes_nothing() {
    for flags in [true, false] {
        let out = fresh(if flags { "second-flags" } else { "second-file" });
        let run = || if flags { made(&FLAGS, &out) } else { from_file("dial.yaml", &out) };
        let first = run();
        let before = files(&out);
        let second = run();
        assert_eq!(differing(&before, &files(&out)), [""; 0]);
        // Each file is named, and as what it is.
        let names: Vec<_> = before.keys().filter(|name| *name != ".otproxy-init.json").cloned().collect();
        assert_eq!(said(&first, "created"), names);
        assert_eq!(said(&second, "unchanged"), names);
        let notes = second.lines().filter(|line| line.starts_with("note: ")).count();
        assert_eq!(second.lines().count(), names.len() + notes + 1, "{second}");
        assert!(second.ends_with(": nothing has changed\n"), "{second}");
    }
}

#[test]
fn what_was_filled_before_is_filled_again_and_gets_no_second_authority() {
    let out = fresh("inside");
    made(&FLAGS, &out);
    let before = files(&out);
    let elsewhere =
        crate::common::process::file("inside.yaml", &String::from_utf8_lossy(&before["topology.yaml"].contents));
    let in_it = |arguments: &[&str], directory: &Path| {
        let output = otproxy(arguments).current_dir(directory).output().expect("starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.ends_with(": nothing has changed\n"), "{arguments:?}: {said}");
    };
    in_it(&["init", "topology.yaml"], &out);
    in_it(&["init", utf8(&elsewhere)], &out);
    in_it(&[&["init"], &FLAGS[..]].concat(), &out);
    // From elsewhere, with the topology in it.
    in_it(&["init", "../topology.yaml"], &out.join("core"));
    in_it(&["init", utf8(&out.join("topology.yaml"))], Path::new("/"));
    assert_eq!(differing(&before, &files(&out)), [""; 0]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_topology_or_of_the_list() {
    let out = fresh("mark");
    made(&FLAGS, &out);
    for file in ["topology.yaml", ".otproxy-init.json"] {
        let path = out.join(file);
        let text = fs::read(&path).expect("there");
        fs::write(&path, [&b"\xEF\xBB\xBF"[..], &text].concat()).expect("own file");
    }
    let said = made(&[utf8(&out.join("topology.yaml"))], &out);
    assert!(said.ends_with(": nothing has changed\n"), "{said}");
}

#[test]
fn edges_of_both_families_are_no_trap() {
    for (second, both) in [("fra1=2001:db8::9", true), ("fra1=198.51.100.9", false)] {
        let out = fresh("families");
        let edges = ["--edge", "waw1=198.51.100.7", "--edge", second];
        let said = made(&[&edges[..], &FLAGS[4..]].concat(), &out);
        let core = fs::read_to_string(out.join("core/core.yaml")).expect("there");
        assert_eq!(core.contains("\nsessions: { bind_sessions: client }\n"), both, "{core}");
        assert_eq!(
            said.contains("note: clients are told 2001:db8::9 for the edge fra1: players without IPv6"),
            both,
            "{said}"
        );
    }
    // The module for clients takes no IPv6 address, and says so.
    let out = fresh("families");
    let said = made(&["--edge", "waw1=2001:db8::9", "--game", "7172=127.0.0.1:7172"], &out);
    assert!(said.contains("and client/otproxy/ leaves it out"), "{said}");
    // Each edge listens on both.
    let edge = fs::read_to_string(repository("tests/init/golden/dial/edge-waw1/edge.yaml")).expect("there");
    for port in [7162, 7171, 7100] {
        assert!(edge.contains(&format!("[\"0.0.0.0:{port}\", \"[::]:{port}\"]")), "{edge}");
    }
}

#[test]
fn nobody_else_can_read_keys() {
    let out = fresh("modes");
    made(&FLAGS, &out);
    let files = files(&out);
    let keys: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".key")).collect();
    assert_eq!(keys.len(), 4);
    for (name, seen) in keys {
        assert_eq!(seen.mode, 0o600, "{name}");
    }
    for folder in ["", "ca", "core", "edge-waw1", "edge-fra1"] {
        let mode = fs::metadata(out.join(folder)).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    // A key that has come to be open is no reason to replace it, but to say so.
    let key = out.join("core/core.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("own file");
    let said = made(&FLAGS, &out);
    assert!(said.contains(&format!("note: others can read {0}: chmod 600 {0}\n", key.display())), "{said}");
}

#[test]
fn keys_and_good_certificates_stay() {
    let out = fresh("keys");
    made(&FLAGS, &out);
    let before = files(&out);
    let edge = Name::edge("waw1").expect("a name");
    let authority = Authority::open(&out.join("ca")).expect("an authority");
    let issue = |days| {
        let terms = IssueTerms { days, ..IssueTerms::default() };
        authority.issue(&edge, &out.join("edge-waw1"), terms).expect("issued");
        fs::read(out.join("edge-waw1/waw1.pem")).expect("a certificate")
    };
    let days = u32::try_from(RENEW_DAYS).expect("few");

    // Good for long enough.
    let long = issue(days + 2);
    assert_eq!(said(&made(&FLAGS, &out), "changed"), [""; 0]);
    assert_eq!(files(&out)["edge-waw1/waw1.pem"].contents, long);
    // Not any more: a new certificate, for the same key.
    issue(days - 1);
    assert_eq!(said(&made(&FLAGS, &out), "changed"), ["edge-waw1/waw1.pem"]);
    // Lost: the same.
    fs::remove_file(out.join("edge-waw1/waw1.pem")).expect("there");
    assert_eq!(said(&made(&FLAGS, &out), "created"), ["edge-waw1/waw1.pem"]);
    assert_eq!(differing(&before, &files(&out)), ["edge-waw1/waw1.pem"]);
    // A lost key means a new one, and a certificate for it; nobody else's changes.
    fs::remove_file(out.join("edge-waw1/waw1.key")).expect("there");
    let output = made(&FLAGS, &out);
    assert_eq!(
        (said(&output, "created"), said(&output, "changed")),
        (vec!["edge-waw1/waw1.key".to_owned()], vec!["edge-waw1/waw1.pem".to_owned()])
    );
    assert_eq!(differing(&before, &files(&out)), ["edge-waw1/waw1.key", "edge-waw1/waw1.pem"]);
    let folder = out.join("edge-waw1");
    let [ca, cert, key] = ["ca.pem", "waw1.pem", "waw1.key"].map(|file| folder.join(file));
    assert!(Identity::load(&TlsFiles { ca, cert, key }, IdentityKind::Edge).is_ok());
}

#[test]
fn without_its_key_an_authority_is_not_replaced() {
    let out = fresh("no-ca-key");
    made(&FLAGS, &out);
    fs::rename(out.join("ca/ca.key"), out.join("elsewhere")).expect("there");
    let before = files(&out);
    let error = failed(&init(&FLAGS, &out), 1);
    let says =
        "ca/ca.key: is missing, and only it can issue certificates; put it back, or move the folder away for a new";
    assert!(error.contains(says), "{error}");
    assert_eq!(differing(&before, &files(&out)), [""; 0]);
    // What was written before the error is still the program's.
    let more = [&FLAGS[..], &["--edge", "lon1=198.51.100.11"]].concat();
    failed(&init(&more, &out), 1);
    assert_ne!(differing(&before, &files(&out)), [""; 0]);
    fs::rename(out.join("elsewhere"), out.join("ca/ca.key")).expect("there");
    assert_eq!(said(&made(&FLAGS, &out), "edited"), [""; 0]);
    fs::remove_file(out.join("ca/ca.key")).expect("there");
    // Moved away: a new authority, and certificates from it for the keys that are there.
    fs::rename(out.join("ca"), out.join("old-ca")).expect("there");
    let output = made(&FLAGS, &out);
    assert_eq!(said(&output, "created"), ["ca/ca.key", "ca/ca.pem"]);
    let of = |folder: &str, name: &str| [format!("{folder}/ca.pem"), format!("{folder}/{name}.pem")];
    let changed = [of("core", "core"), of("edge-fra1", "fra1"), of("edge-waw1", "waw1")].concat();
    assert_eq!(said(&output, "changed"), changed);
}

#[test]
fn what_was_edited_by_hand_is_left_alone() {
    let out = fresh("edited");
    made(&FLAGS, &out);
    let file = out.join("core/core.yaml");
    let edited = fs::read_to_string(&file).expect("there") + "workers: 3\n";
    fs::write(&file, &edited).expect("own file");

    // Nothing new for it: nothing beside it.
    let output = made(&FLAGS, &out);
    assert_eq!(said(&output, "edited"), ["core/core.yaml by hand, and left so; there is nothing new for it"]);
    assert!(!out.join("core/core.yaml.new").exists());

    // Something new.
    let more = [&FLAGS[..], &["--edge", "lon1=198.51.100.11"]].concat();
    let output = made(&more, &out);
    assert_eq!(said(&output, "edited"), ["core/core.yaml by hand, and left so; the new one is core/core.yaml.new"]);
    assert_eq!(fs::read_to_string(&file).expect("there"), edited);
    let new = fs::read_to_string(out.join("core/core.yaml.new")).expect("beside it");
    assert!(new.contains("lon1") && !new.contains("workers"), "{new}");
    // Said once, as that was all that was new.
    assert!(made(&more, &out).contains("there is nothing new for it"));

    // Taken over: it is the program's again.
    fs::rename(out.join("core/core.yaml.new"), &file).expect("there");
    assert_eq!(said(&made(&more, &out), "edited"), [""; 0]);
    assert!(said(&made(&FLAGS, &out), "changed").contains(&"core/core.yaml".to_owned()));
}

#[test]
fn without_the_list_nothing_that_differs_is_overwritten() {
    let out = fresh("no-list");
    made(&FLAGS, &out);
    let list = out.join(".otproxy-init.json");
    fs::write(&list, "{").expect("own file");
    let error = failed(&init(&FLAGS, &out), 1);
    assert!(error.contains(".otproxy-init.json: is damaged: ") && error.contains("remove it"), "{error}");
    fs::remove_file(&list).expect("there");
    fs::write(out.join("config.lua"), "-- mine\n").expect("own file");
    let output = made(&FLAGS, &out);
    assert_eq!(said(&output, "edited"), ["config.lua by hand, and left so; the new one is config.lua.new"]);
    assert_eq!(fs::read_to_string(out.join("config.lua")).expect("there"), "-- mine\n");
}

#[test]
fn what_was_made_for_clients_before_is_named() {
    let out = fresh("former");
    assert!(!made(&FLAGS, &out).contains("client.lua"));
    fs::write(out.join("client.lua"), "g_proxy.addProxy(\"p1.example\", 7162, 0)\n").expect("own file");
    let said = made(&FLAGS, &out);
    assert!(said.contains("note: client.lua is no longer made, ") && said.contains("use client/otproxy/\n"), "{said}");
    assert!(out.join("client.lua").exists());
}

#[test]
fn a_new_edge_changes_what_names_edges_and_nothing_else() {
    let out = fresh("new-edge");
    made(&FLAGS, &out);
    let before = files(&out);
    let more = [&FLAGS[..], &["--edge", "lon1=198.51.100.11"]].concat();
    let output = made(&more, &out);
    let changed = ["README.md", "client/otproxy/otproxy.lua", "core/core.yaml", "proxies.sql", "topology.yaml"];
    assert_eq!(said(&output, "changed"), changed);
    let after = files(&out);
    let rest: Vec<_> = differing(&before, &after).into_iter().filter(|name| !name.starts_with("edge-lon1/")).collect();
    assert_eq!(rest, [&[".otproxy-init.json"], &changed[..]].concat());
    assert_eq!(after.keys().filter(|name| name.starts_with("edge-lon1/")).count(), 9);
}

#[test]
fn an_edge_that_is_gone_is_not_forgotten() {
    let out = fresh("gone");
    made(&FLAGS, &out);
    let before = files(&out);
    let less = [&FLAGS[..2], &FLAGS[4..]].concat();
    let output = made(&less, &out);
    let note =
        "note: the edge fra1 is no longer in the topology. Its folder stays. Keep the edge there with `revoked: true`";
    assert!(output.contains(note), "{output}");
    assert!(differing(&before, &files(&out)).iter().all(|name| !name.starts_with("edge-fra1/")));
    assert!(made(&less, &out).contains(note));

    // Revoked: the core is told, the clients are not, and nothing more is made for it.
    let topology = out.join("topology.yaml");
    let text = fs::read_to_string(&topology).expect("there");
    fs::write(
        &topology,
        text.replace("edges:\n", "edges:\n  - { name: fra1, address: 198.51.100.9, revoked: true }\n"),
    )
    .expect("own");
    let output = made(&[utf8(&topology)], &out);
    assert!(!output.contains("note: ") && !output.contains("edge-fra1"), "{output}");
    let read = |file: &str| fs::read_to_string(out.join(file)).expect(file);
    assert!(read("core/core.yaml").contains("{ name: \"fra1\", dial: \"198.51.100.9:7100\", revoked: true }"));
    assert!(read("proxies.sql").contains("SET `disabled` = 1 WHERE `host` = '198.51.100.9' AND `port` = 7162;"));
    assert!(!read("client/otproxy/otproxy.lua").contains("198.51.100.9"));

    // Once the folder is removed there is nothing to say.
    fs::remove_dir_all(out.join("edge-fra1")).expect("there");
    assert!(!made(&less, &out).contains("note: "));
}

/// What init is for: who has an edge learns nothing about the core, but where the edge connects to it.
#[test]
fn no_file_of_an_edge_says_where_the_core_is() {
    let out = fresh("hidden");
    let names = |word: &str, out: &Path| -> Vec<String> {
        let has = |seen: &Seen| text(&seen.contents).contains(word);
        files(out).into_iter().filter(|(_, seen)| has(seen)).map(|(name, _)| name).collect()
    };
    from_file("dial.yaml", &out);
    // The commands that copy the core's folder there.
    assert_eq!(names("hidden.example", &out), ["README.md"]);
    for world in ["10.1.2.3", "7273", "Antica"] {
        assert!(names(world, &out).iter().all(|name| !name.starts_with("edge-")), "{world}");
    }
    let out = fresh("not-hidden");
    from_file("accept.yaml", &out);
    assert_eq!(names("core.example", &out), ["README.md", "edge-true/edge.yaml", "edge-waw1/edge.yaml"]);
    // And nowhere but with its owner is the authority's key.
    let key = fs::read_to_string(out.join("ca/ca.key")).expect("there");
    let line = key.lines().nth(1).expect("PEM");
    assert_eq!(names(line, &out), ["ca/ca.key"]);
}

#[test]
fn flags_and_a_file_make_the_same() {
    let (by_flags, by_file) = (fresh("by-flags"), fresh("by-file"));
    let flags = [
        "--edge",
        "waw1=198.51.100.7,p1.example",
        "--edge",
        "true=2001:db8::7",
        "--core",
        "core.example",
        "--core-mode",
        "accept",
        "--tunnel-port",
        "7443",
        "--player-address",
        "none",
        "--login",
        "localhost:7170",
        "--status",
        "localhost:7173",
        "--web-list",
        "myot",
        "--web-login",
        "127.0.0.1:8081",
        "--game",
        "7172=127.0.0.1:7172",
    ];
    made(&flags, &by_flags);
    from_file("accept.yaml", &by_file);
    let text = |out: &Path| -> BTreeMap<String, Vec<u8>> {
        let own = |name: &str| ![".pem", ".key", ".json"].iter().any(|ending| name.ends_with(ending));
        files(out).into_iter().filter(|(name, _)| own(name)).map(|(name, seen)| (name, seen.contents)).collect()
    };
    let mut made_by_flags = text(&by_flags);
    assert!(made_by_flags.remove("topology.yaml").is_some(), "kept for the next time");
    assert_eq!(made_by_flags, text(&by_file));
    // The next time.
    let again = made(&[utf8(&by_flags.join("topology.yaml"))], &by_flags);
    assert!(again.ends_with(": nothing has changed\n"), "{again}");
}

#[test]
fn wrong_topologies_say_all_that_is_wrong() {
    let mut count = 0;
    for entry in fs::read_dir(repository("tests/init/wrong")).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let out = fresh("wrong");
        let mut command = otproxy(&["init", utf8(Path::new(path.file_name().expect("a file"))), "--out", utf8(&out)]);
        let error = failed(&command.current_dir(repository("tests/init/wrong")).output().expect("starts"), 78);
        assert_golden(&path.with_extension("err"), &error);
        assert!(!out.exists(), "something was made of {}", path.display());
        count += 1;
    }
    assert_eq!(count, 7);
}

proptest! {
    #[test]
    fn any_text_is_a_topology_or_errors(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        if let Err(errors) = parse_topology("any.yaml", &words.concat()) {
            prop_assert!(errors.iter().count() > 0);
        }
    }
}

/// What gets deep into the reader.
const WORDS: &[&str] = &[
    "edges:",
    "core:",
    "game_servers:",
    "login:",
    "tunnel_port:",
    "player_address:",
    "spare_names: 8",
    "list_urls:",
    "\n",
    "\n  ",
    "\n  - ",
    "- ",
    "{ ",
    " }",
    "[",
    "]",
    ", ",
    "name: waw1",
    "name: ca",
    "address: 198.51.100.7",
    "address: core.example",
    "address: '127.0.0.1:7172'",
    "public: ''",
    "revoked: true",
    "mode: accept",
    "mode: dial",
    "port: 7172",
    " 7100",
    " '127.0.0.1:7171'",
    " otc",
    " ~",
    "&a ",
    "*a",
    "!t ",
    "<<: *a",
    "---\n",
    "#",
    "\u{feff}",
];

#[test]
fn flags_say_what_is_missing_or_wrong() {
    let out = fresh("flags");
    let says = |flags: &[&str], lines: &[&str]| {
        let error = failed(&init(flags, &out), 2);
        for line in lines {
            assert!(error.contains(line), "{flags:?}: no {line:?} in:\n{error}");
        }
        assert!(!out.exists());
    };
    says(
        &[],
        &[
            "error: missing: an edge, as in `--edge waw1=198.51.100.7`; a game server, as in `--game 7172=127.0.0.1:7172`; or give a \
         topology file, which has them all",
        ],
    );
    says(
        &[&FLAGS[..], &["--core-mode", "accept"]].concat(),
        &["error: missing: where the edges connect, as in `--core core.example`"],
    );
    says(&["--edge", "waw1"], &["invalid value 'waw1' for '--edge", "write it as in waw1=198.51.100.7"]);
    says(&["topology.yaml", "--edge", "waw1=198.51.100.7"], &["cannot be used with"]);
    says(
        &[&FLAGS[..], &["--spare-names", "8", "--list-url", "https://a.example/", "--list-url", "a.example"]].concat(),
        &[
            "--spare-names: the names ahead go on from those of the edges, as p3.example from p1.example and p2.example, and \
             `198.51.100.9`, the name of the edge fra1, is in no such row; give it a `public` like that, or leave this out\n",
            "--list-url: `a.example` is not a URL; write it as `https://www.example/edges.json`\n",
        ],
    );
    says(
        &[
            "--edge",
            "waw1=198.51.100.7:7162",
            "--edge",
            "core=\"# x",
            "--game",
            "0=127.0.0.1",
            "--login",
            "7171",
            "--core",
            "a:7100",
        ],
        &[
            "--core: `a:7100` has a port, and this is a host alone; write `a`\n",
            "--edge: `198.51.100.7:7162` has a port, and this is a host alone; write `198.51.100.7`\n",
            "--edge: `core` is no edge's name: `core`, `other` and `ca` have a meaning of their own; choose another\n",
            "--edge: `\"# x` is not a host; write it as `198.51.100.7`, `p1.example` or `2001:db8::7`\n",
            "--game: `0` is not a port; write a number from 1 to 65535\n",
            "--game: `127.0.0.1` has no port; write it as `127.0.0.1:7171`\n",
            "--login: `7171` has no port; write it as `203.0.113.9:7171`, `game.example:7171` or",
        ],
    );
}

/// `otproxy init` on a terminal of its own, which `script` makes.
struct Terminal {
    child: Child,
    said: String,
}

impl Terminal {
    fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("writable");
        let command = format!("{} init", env!("CARGO_BIN_EXE_otproxy"));
        // A shell has what it runs in the background ignore Ctrl-C, and all that this runs inherits that.
        let mut script = Command::new("env");
        script.args(["--default-signal=INT", "script", "-qec", &command, "/dev/null"]);
        script.current_dir(folder).env("TERM", "dumb");
        let child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of bsdutils");
        Self { child, said: String::new() }
    }

    /// Reads until it has said that.
    fn hears(&mut self, what: &str) {
        let stdout = self.child.stdout.as_mut().expect("piped");
        while !self.said.contains(what) {
            let mut part = [0; 256];
            let len = stdout.read(&mut part).expect("readable");
            assert_ne!(len, 0, "no {what:?} in:\n{}", self.said);
            self.said += &String::from_utf8_lossy(&part[..len]);
        }
    }

    fn types(&mut self, keys: &str) {
        self.child.stdin.as_mut().expect("piped").write_all(keys.as_bytes()).expect("it reads");
    }

    /// Waits for its end; returns its exit code, and all that it has said.
    fn ends(mut self) -> (Option<i32>, String) {
        let mut rest = Vec::new();
        self.child.stdout.as_mut().expect("piped").read_to_end(&mut rest).expect("readable");
        let code = self.child.wait().expect("it ends").code();
        (code, (self.said + &String::from_utf8_lossy(&rest)).replace('\r', ""))
    }
}

#[test]
fn on_a_terminal_it_asks() {
    let here = fresh("asks");
    let mut terminal = Terminal::new(&here);
    terminal.hears("The core's way [dial]: ");
    terminal.types("\n\n198.51.100.7\nwaw1\np1.example\n\ncanary\n\n\nAntica\n\n");
    terminal.hears("and make the files? [yes]: ");
    assert!(!here.join("otproxy-hosts").exists(), "nothing is written yet");
    terminal.types("\n");
    let (code, said) = terminal.ends();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("created   topology.yaml\n") && said.contains("otproxy-hosts: done; "), "{said}");
    let out = here.join("otproxy-hosts");
    let again = made(&[utf8(&out.join("topology.yaml"))], &out);
    assert!(again.ends_with(": nothing has changed\n"), "{again}");
    let core = fs::read_to_string(out.join("core/core.yaml")).expect("there");
    assert!(core.contains("Antica") && core.contains("player_address: none"), "{core}");

    // A topology that is there is not asked for.
    let before = files(&out);
    let (code, said) = Terminal::new(&here).ends();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("otproxy-hosts/topology.yaml is there already: change it there"), "{said}");
    assert_eq!(differing(&before, &files(&out)), [""; 0]);
}

#[test]
fn keys_that_end_the_questions_write_nothing() {
    for (key, expected) in [("\u{4}", Some(1)), ("\u{3}", Some(130))] {
        let here = fresh("asks-and-ends");
        let mut terminal = Terminal::new(&here);
        terminal.hears("The core's way [dial]: ");
        terminal.types("\n\n198.51.100.7\n");
        terminal.hears("Edge 1: its name");
        terminal.types(key);
        let (code, said) = terminal.ends();
        assert_eq!(code, expected, "{said}");
        assert_eq!(said.contains("nothing was written\n"), code == Some(1), "{said}");
        assert_eq!(fs::read_dir(&here).expect("a folder").count(), 0);
    }
}

/// `install.sh`, with everything that would change this host replaced.
struct Installing {
    out: PathBuf,
    root: PathBuf,
}

impl Installing {
    fn new(name: &str) -> Self {
        let out = fresh(name);
        from_file("dial.yaml", &out);
        let root = out.join("root");
        Self { out, root }
    }

    /// Returns how to run it. `active` is the exit code of the question whether the unit runs.
    fn command(&self, folder: &str, active: &str) -> Command {
        let path = format!("{}:{}", utf8(&repository("tests/init/programs")), std::env::var("PATH").expect("a path"));
        let mut command = Command::new("sh");
        command.arg(self.out.join(folder).join("install.sh")).current_dir("/");
        command
            .env("PATH", path)
            .env("DESTDIR", &self.root)
            .env("OTPROXY", env!("CARGO_BIN_EXE_otproxy"))
            .env("ACTIVE", active);
        command
    }

    fn run(&self, folder: &str, active: &str) -> Output {
        self.command(folder, active).output().expect("a shell")
    }

    fn succeeds(&self, folder: &str, active: &str) -> String {
        let output = self.run(folder, active);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

#[test]
fn the_script_puts_files_where_the_unit_looks_for_them() {
    let installing = Installing::new("install");
    for (folder, role, name) in [("core", "core", "core"), ("edge-waw1", "edge", "waw1")] {
        let done = installing.succeeds(folder, "3");
        assert!(
            done.contains("useradd --system --user-group --no-create-home --shell /usr/sbin/nologin otproxy\n"),
            "{done}"
        );
        assert!(done.contains(&format!("install -m 600 -o otproxy -g otproxy {name}.key ")), "{done}");
        assert!(
            done.ends_with(&format!("systemctl daemon-reload\nsystemctl enable --now otproxy-{role}.service\n")),
            "{done}"
        );
        let etc = installing.root.join("etc");
        let unit = fs::read_to_string(etc.join(format!("systemd/system/otproxy-{role}.service"))).expect("the unit");
        let file = format!("/etc/otproxy/{role}.yaml");
        assert!(unit.contains(&format!("otproxy {role} -c {file}\n")), "{unit}");
        let drop_in = etc.join(format!("systemd/system/otproxy-{role}.service.d/tunnel.conf"));
        assert!(fs::read_to_string(drop_in).expect("the drop-in").contains("\nUser=otproxy\n"));
        let (tls, own) = match load(&installing.root.join(&file[1..])).expect("valid") {
            Config::Edge(edge) => (edge.tunnel.expect("a tunnel").tls, IdentityKind::Edge),
            Config::Core(core) => (core.tunnel.expect("a tunnel").tls, IdentityKind::Core),
        };
        Identity::load(&tls, own).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(fs::metadata(&tls.key).expect("the key").permissions().mode() & 0o777, 0o600);
        // It can be run again, and does not restart what carries players.
        let again = installing.succeeds(folder, "0");
        assert!(again.contains(&format!("systemctl reload otproxy-{role}.service\n")), "{again}");
        assert!(!again.contains("enable") && again.contains("has read its files again"), "{again}");
    }
    // Nothing is left but what belongs there.
    let left: Vec<_> =
        files(&installing.root).into_keys().filter(|file| file.contains("/.") || file.ends_with(".new")).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_script_that_fails_changes_nothing() {
    let installing = Installing::new("install-wrong");
    installing.succeeds("edge-waw1", "3");
    // What the owner has put there may be named by the file.
    let list = installing.root.join("etc/otproxy/deny.txt");
    fs::write(&list, "192.0.2.1\n").expect("own file");
    let yaml = installing.out.join("edge-waw1/edge.yaml");
    let good = fs::read_to_string(&yaml).expect("there");
    fs::write(&yaml, format!("{good}deny: [{{ file: deny.txt }}]\n")).expect("own file");
    installing.succeeds("edge-waw1", "0");
    let before = files(&installing.root);

    fs::write(&yaml, format!("{good}worker: 1\n")).expect("own file");
    fs::copy(installing.out.join("edge-fra1/fra1.key"), installing.out.join("edge-waw1/waw1.key")).expect("own file");
    let failed = installing.run("edge-waw1", "0");
    assert_eq!(failed.status.code(), Some(78));
    assert!(text(&failed.stderr).contains("worker: unknown key"), "{}", text(&failed.stderr));
    assert!(!text(&failed.stdout).contains("systemctl"), "{}", text(&failed.stdout));
    assert_eq!(differing(&before, &files(&installing.root)), [""; 0]);
}

/// A package puts its program in place before `install.sh` runs.
#[test]
fn a_process_whose_program_was_replaced_is_told() {
    let installing = Installing::new("install-packaged");
    installing.succeeds("edge-waw1", "3");
    let program = installing.out.join("old");
    fs::copy("/bin/cat", &program).expect("writable");
    let mut runs = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let said = |pid: u32| {
        let output = installing.command("edge-waw1", "0").env("RUNS", pid.to_string()).output().expect("a shell");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    // It runs as soon as it answers.
    runs.stdin.as_mut().expect("piped").write_all(b"x").expect("it reads");
    runs.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("it answers");
    assert!(said(runs.id()).contains("has read its files again"), "{}", said(runs.id()));
    fs::remove_file(&program).expect("own file");
    assert!(said(runs.id()).contains("still runs the old program, and takes up the new one with a restart:"));
    runs.kill().expect("own process");
    runs.wait().expect("own process");
}

/// A program that runs cannot be written to ("text file busy"), so it is copied beside it.
#[test]
fn a_new_program_takes_the_place_of_the_one_that_runs() {
    let installing = Installing::new("install-program");
    let bin = installing.root.join("usr/local/bin");
    fs::create_dir_all(&bin).expect("writable");
    let program = |name: &str, code: u8| {
        fs::write(bin.join(name), format!("#!/bin/sh\nexit {code} # {name}\n")).expect("writable");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o644)).expect("own file");
    };
    program("otproxy", 0);
    program("otproxy.new", 0);
    let said = installing.succeeds("edge-waw1", "0");
    assert!(said.contains("still runs the old program, and takes up the new one with a restart:"), "{said}");
    let there = fs::read_to_string(bin.join("otproxy")).expect("there");
    assert!(there.contains("# otproxy.new") && !bin.join("otproxy.new").exists(), "{there}");
    assert_eq!(fs::metadata(bin.join("otproxy")).expect("there").permissions().mode() & 0o777, 0o755);
    // One that does not run here, as of another machine.
    program("otproxy.new", 1);
    let failed = installing.run("edge-waw1", "0");
    assert!(!failed.status.success() && text(&failed.stderr).contains("does not run on this host"));
    assert_eq!(fs::read_to_string(bin.join("otproxy")).expect("there"), there);
    // What the guides say copies to that place.
    let guide = fs::read_to_string(installing.out.join("README.md")).expect("there");
    let copies: Vec<_> = guide.lines().filter(|line| line.starts_with("scp \"$(command -v otproxy)\"")).collect();
    assert_eq!(copies.len(), 5);
    assert!(copies.iter().all(|line| line.ends_with(":/usr/local/bin/otproxy.new'")), "{copies:?}");
}

/// A unit in /etc would hide the package's, and a program in /usr/local the package's too.
#[test]
fn program_and_unit_of_a_package_stay_where_they_are() {
    let installing = Installing::new("install-packaged");
    installing.succeeds("edge-waw1", "3");
    let unit = "systemd/system/otproxy-edge.service";
    let (own, packaged) = (installing.root.join("etc").join(unit), installing.root.join("usr/lib").join(unit));
    assert!(own.exists());
    fs::create_dir_all(packaged.parent().expect("a folder")).expect("writable");
    fs::write(&packaged, "the package's\n").expect("writable");
    let run = installing.run("edge-waw1", "0");
    assert!(run.status.success() && !text(&run.stderr).contains("rm "), "{}", text(&run.stderr));
    assert!(!own.exists(), "it hides the package's");
    assert_eq!(fs::read_to_string(&packaged).expect("there"), "the package's\n");
    assert!(installing.root.join("etc").join(unit.to_owned() + ".d/tunnel.conf").exists());
    // Two programs: the one that runs is named.
    for bin in ["usr/local/bin", "usr/bin"] {
        fs::create_dir_all(installing.root.join(bin)).expect("writable");
        fs::write(installing.root.join(bin).join("otproxy"), "").expect("writable");
    }
    let run = installing.run("edge-waw1", "0");
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("rm /usr/local/bin/otproxy"), "{}", text(&run.stderr));
}

#[test]
fn the_keys_in_the_document_are_generated() {
    let path = repository("docs/init.md");
    let mut text = fs::read_to_string(&path).expect("the document");
    let (begin, end) = ("<!-- keys: topology -->\n", "<!-- end of keys -->");
    let from = text.find(begin).expect("a place") + begin.len();
    let len = text[from..].find(end).expect("an end");
    text.replace_range(from..from + len, &topology_table());
    assert_golden(&path, &text);
    assert!(text.contains(&format!("{RENEW_DAYS} days")), "when certificates are issued anew");
}

#[test]
fn topologies_in_the_document_can_be_used() {
    let text = fs::read_to_string(repository("docs/init.md")).expect("the document");
    let blocks: Vec<_> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for (number, block) in blocks.into_iter().enumerate() {
        let out = fresh(&format!("document-{number}"));
        let file = crate::common::process::file(&format!("document-{number}.yaml"), block);
        made(&[utf8(&file)], &out);
    }
}

#[test]
fn the_bans_of_an_edge_are_those_that_the_documents_explain() {
    let read = |file: &str| fs::read_to_string(repository(file)).expect(file);
    let edge = read("tests/init/golden/accept/edge-waw1/edge.yaml");
    assert!(edge.contains("bans: { after: 600/60s, for: 10m }"));
    assert!(read("docs/configuration.md").contains("The edges of [`otproxy init`](init.md) have `600/60s`"));
    // And so are its limits, those of links and of logins.
    let limits: Vec<_> = edge.lines().map(str::trim).filter(|line| line.starts_with("limits: ")).collect();
    let operations = read("docs/operations.md");
    let promised: Vec<_> = operations.lines().map(str::trim).filter(|line| line.starts_with("limits: ")).collect();
    assert_eq!(promised.len(), 2);
    assert!(limits.len() == 4 && limits.iter().all(|line| promised.contains(line)), "{limits:?}, {promised:?}");
}

#[test]
fn commands_in_the_documents_can_be_typed() {
    let read = |file: &str| fs::read_to_string(repository(file)).expect(file);
    let (readme, document) = (read("README.md"), read("docs/init.md"));
    let command = |text: &str| text.lines().find(|line| line.starts_with("otproxy init --")).map(str::to_owned);
    let line = command(&readme).expect("a command");
    assert!(document.contains(&line), "the document has another than the README");
    let flags: Vec<_> = line.split_whitespace().skip(2).collect();
    let out = fresh("document-flags");
    made(&flags, &out);
    // What is typed then is what the folder says.
    let steps = fs::read_to_string(out.join("README.md")).expect("there");
    let (_, after) = readme.split_once(&line).expect("there");
    let commands = after.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("two commands");
    assert_eq!(commands.lines().count(), 2);
    assert!(steps.contains(commands), "{steps}");
    // Without `--out`, the folder that the documents name.
    let here = fresh("default-folder");
    fs::create_dir_all(&here).expect("writable");
    let arguments: Vec<_> = ["init"].iter().chain(&flags).copied().collect();
    let output = otproxy(&arguments).current_dir(&here).output().expect("starts");
    assert!(output.status.success() && here.join("otproxy-hosts/README.md").exists());
}

#[test]
fn each_game_server_has_the_settings_that_are_documented() {
    let mut table = "\
| `game_server` | `player_address` | `send_proxy` of forwards | `framing` | on the core's host | elsewhere | players without links |
|---|---|---|---|---|---|---|
"
    .to_owned();
    for profile in GameServerProfile::ALL {
        let settings = profile.settings(PlayerAddress::Otc);
        let rows = [("127.0.0.1:7172", true), ("192.0.2.5:7172", false)].map(|(address, here)| {
            let out = fresh(&format!("profile-{profile}-{here}"));
            let (world, login) = (format!("7172={address}"), address.replace("7172", "7171"));
            let flags = ["--game", &world, "--login", &login, "--game-server", profile.as_str()];
            made(&[&FLAGS[..4], &flags].concat(), &out);
            let Config::Core(core) = load(&out.join("core/core.yaml")).unwrap_or_else(|errors| panic!("{errors}"))
            else {
                panic!("a core")
            };
            for server in &core.game_servers {
                assert_eq!((server.player_address, server.framing), (settings.player_address, settings.framing));
            }
            let forwards: Vec<_> = core.listeners.iter().filter_map(|listener| listener.forward()).collect();
            let names: Vec<_> = forwards.iter().map(|forward| forward.inbound.name.as_str()).collect();
            let expected: &[_] = if settings.lets_others_play() { &["login", "game-7172"] } else { &["login"] };
            assert_eq!(names, expected, "{profile}");
            assert!(forwards.iter().all(|forward| forward.send_proxy == settings.send_proxy), "{profile}");
            let told = |forward: &&&otproxy_config::ForwardConfig| forward.login.is_some();
            let told: Vec<_> = forwards.iter().filter(told).map(|forward| forward.inbound.name.as_str()).collect();
            assert_eq!(told, if settings.edges_in_logins { &["login"][..] } else { &[] }, "{profile}");
            // A warning here would be one in everybody's log.
            assert_eq!(Config::Core(core).stock_server_warnings(), [], "{profile} at {address}");
            let lua = fs::read_to_string(out.join("config.lua")).expect("made");
            let switches = ["allowOtcProxy = true\n", "allowHaProxy = true\n", "statusIp = \"p1.example\"\n"];
            let otc = matches!(profile, GameServerProfile::Tfs14Otc | GameServerProfile::Tfs16Otc);
            assert!(switches.iter().all(|line| lua.contains(line) == otc), "{profile}: {lua}");
            let old = lua.contains("legacy860GameProtocolPort = 7172\ngameProtocolPort = 7173 ");
            assert_eq!(old, *profile == GameServerProfile::Canary860, "{lua}");
            let yaml = fs::read_to_string(out.join("core/core.yaml")).expect("made");
            let own = ["source: player", "connects: 1/600ms"]
                .into_iter()
                .filter(|setting| yaml.lines().any(|line| line.starts_with("  - {") && line.contains(setting)))
                .map(|setting| format!("`{setting}`"));
            let own: Vec<_> = own.collect();
            if own.is_empty() { "-".to_owned() } else { own.join(", ") }
        });
        let row = [
            profile.to_string(),
            settings.player_address.to_string(),
            settings.send_proxy.to_string(),
            settings.framing.to_string(),
        ];
        let told =
            if *profile == GameServerProfile::Custom { "as its `player_address` says; here for `otc`: " } else { "" };
        let plain = if settings.lets_others_play() { "yes" } else { "no" };
        table += &format!(
            "| `{}` | {told}`{}` | `{}` | `{}` | {} | {} | {plain} |\n",
            row[0], row[1], row[2], row[3], rows[0], rows[1]
        );
    }
    let path = repository("docs/game-servers.md");
    let document = fs::read_to_string(&path).expect("a document");
    let (before, rest) = document.split_once("<!-- profiles -->\n").expect("where it begins");
    let (_, after) = rest.split_once("<!-- end of profiles -->").expect("where it ends");
    assert_golden(&path, &format!("{before}<!-- profiles -->\n{table}<!-- end of profiles -->{after}"));
    let heads: Vec<_> = document.lines().filter(|line| line.starts_with("## `")).collect();
    for profile in GameServerProfile::ALL {
        assert!(heads.iter().any(|head| head.contains(&format!("`{profile}`"))), "no section for {profile}");
    }
}
