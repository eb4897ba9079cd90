//! The configuration: example files, files that are wrong, and the reference.
//!
//! `OTPROXY_BLESS=1 cargo test --test it config` writes what the code says into the expected errors
//! and the tables of the reference; read the difference before committing it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use otproxy_config::{Config, KEYS, ListenerType, RoleKind, WhenAbsent, load, load_core, load_edge, parse, tables};
use proptest::prelude::*;
use serde_yaml::Value;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The YAML files of a folder, of which there must be so many.
fn files(folder: &str, count: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join(folder)).expect(folder);
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert_eq!(files.len(), count, "files in {folder}; does the test know of all?");
    files
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

/// Compares the file with what the code says, or writes it there.
fn assert_says(path: &Path, text: &str) {
    if std::env::var_os("OTPROXY_BLESS").is_some() {
        fs::write(path, text).expect("writable file");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; OTPROXY_BLESS=1 rewrites it", path.display());
}

#[test]
fn examples_are_valid() {
    for path in files("configs", 7) {
        load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn valid_files_say_what_would_run() {
    let mut summaries = String::new();
    for path in files("tests/config/valid", 13) {
        let text = fs::read_to_string(&path).expect("readable file");
        // The host name and the number of CPUs are those of the machine.
        let text = if text.contains("\nname: ") { text } else { format!("name: here\n{text}") };
        let config = parse(&name(&path), &text).unwrap_or_else(|errors| panic!("{errors}"));
        summaries.push_str(&format!("{}: ok: {}\n", name(&path), config.summary()));
    }
    assert_says(&repository().join("tests/config/valid/summaries.txt"), &summaries);
}

#[test]
fn invalid_files_say_all_that_is_wrong() {
    for path in files("tests/config/invalid", 44) {
        let text = fs::read_to_string(&path).expect("readable file");
        let errors = parse(&name(&path), &text).expect_err(&name(&path));
        let lines: Vec<_> = errors.iter().map(|error| error.location.expect("a place")).collect();
        assert!(lines.is_sorted(), "{errors}");
        assert_says(&path.with_extension("err"), &format!("{errors}\n"));
    }
}

#[test]
fn what_is_no_configuration_is_one_error() {
    let missing = load(Path::new("no/such/file.yaml")).expect_err("missing").to_string();
    assert!(missing.starts_with("no/such/file.yaml: cannot be read: No such file"), "{missing}");
    let folder = load(&repository()).expect_err("a folder").to_string();
    assert!(folder.contains(": cannot be read: "), "{folder}");
    let long = parse("long.yaml", &"#\n".repeat(1 << 20)).expect_err("too long").to_string();
    assert!(long.starts_with("long.yaml: is longer than 1048576 bytes"), "{long}");

    let path = std::env::temp_dir().join(format!("otproxy-config-{}.yaml", std::process::id()));
    fs::write(&path, b"role: edge\nname: \xC3\xBC\xFF\n").expect("writable file");
    let binary = load(&path).expect_err("not UTF-8").to_string();
    fs::remove_file(&path).expect("removable file");
    assert!(binary.ends_with(":2:8: is not UTF-8 here; save the file as UTF-8"), "{binary}");
}

#[test]
fn files_of_an_editor_of_windows_are_read_and_utf_16_is_called_by_its_name() {
    let path = std::env::temp_dir().join(format!("otproxy-config-mark-{}.yaml", std::process::id()));
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("writable file");
        load(&path).map_err(|errors| errors.to_string())
    };
    let text = "role: edge\r\nlisteners:\r\n- { name: a, listen: 127.0.0.1:0, forward_to: a:1 }\r\n";
    assert_eq!(read(format!("\u{feff}{text}").as_bytes()), read(text.as_bytes()));
    assert!(read(text.as_bytes()).is_ok());
    // The mark takes no column.
    let error = read("\u{feff}role: egde\r\n".as_bytes()).expect_err("no role");
    assert!(error.contains(".yaml:1:7: role: `egde`"), "{error}");
    let utf_16: Vec<u8> = std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let error = read(&utf_16).expect_err("UTF-16");
    fs::remove_file(&path).expect("removable file");
    assert!(error.ends_with(".yaml:1:1: is UTF-16; save the file as UTF-8"), "{error}");
}

#[test]
fn errors_stay_inside_a_file_whose_last_line_has_no_end() {
    for (text, at) in [("role: [edge", ":1:12: "), ("role: [edge\n", ":2:1: "), ("a: 1\r\nb: {\u{fc}", ":2:6: ")] {
        let errors = parse("cut.yaml", text).expect_err("a list without an end").to_string();
        assert!(errors.starts_with(&format!("cut.yaml{at}")), "{errors}");
    }
}

#[test]
fn too_many_errors_are_cut() {
    let text: String = (0..150).map(|n| format!("key{n}: 1\n")).collect();
    let errors = parse("many.yaml", &text).expect_err("unknown keys");
    assert_eq!(errors.iter().count(), 100);
    assert!(errors.to_string().ends_with("many.yaml: and 52 more; correct these first"), "{errors}");
}

#[test]
fn a_role_refuses_the_file_of_the_other() {
    let [core, edge] = ["configs/core-minimal.yaml", "configs/edge-minimal.yaml"].map(|path| repository().join(path));
    assert!(load_core(&core).is_ok());
    assert!(load_edge(&edge).is_ok());
    let error = load_edge(&core).expect_err("a core").to_string();
    assert!(error.contains("core-minimal.yaml:2:7: role: `core` is not what `otproxy edge` runs"), "{error}");
    let error = load_core(&edge).expect_err("an edge").to_string();
    assert!(error.contains("edge-minimal.yaml:2:7: role: `edge` is not what `otproxy core` runs"), "{error}");
}

#[test]
fn the_core_trusts_its_edges() {
    let Config::Core(core) = load(&repository().join("configs/core-minimal.yaml")).expect("valid") else {
        panic!("a core");
    };
    let networks: Vec<_> = core.edges.iter().flat_map(|edge| edge.addresses.clone()).collect();
    assert_eq!(networks.len(), 2);
    assert_eq!(core.listeners[0].inbound().trusted_peers, networks);
    assert_eq!(core.listeners[1].inbound().trusted_peers, networks);
    assert_eq!(core.listeners[0].inbound().timeouts.idle.as_secs(), 10);
    assert_eq!(core.listeners[1].inbound().timeouts.idle.as_secs(), 50);
}

/// `text` with the keys that stand behind `#` without a space. Where such a key repeats one that is
/// set, it takes its place.
fn uncommented(text: &str) -> String {
    let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let body = line.trim_start();
        let indent = &line[..line.len() - body.len()];
        match body.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => {
                let line = format!("{indent}{rest}");
                match lines.last_mut().filter(|last| key(last) == key(&line)) {
                    Some(last) => *last = line,
                    None => lines.push(line),
                }
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// Each key of the file, as in the table of keys, with its value and the kind of its listener.
fn keys_of(
    value: &Value,
    path: &str,
    kind: Option<ListenerType>,
    found: &mut Vec<(String, Value, Option<ListenerType>)>,
) {
    match value {
        Value::Mapping(map) => {
            let kind = match map.get("kind").and_then(Value::as_str) {
                Some(word) => ListenerType::ALL.iter().copied().find(|kind| kind.as_str() == word),
                None => kind,
            };
            for (key, value) in map {
                let key = key.as_str().expect("keys are words");
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                found.push((path.clone(), value.clone(), kind));
                keys_of(value, &path, kind, found);
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| keys_of(item, &format!("{path}[]"), kind, found)),
        _ => {}
    }
}

#[test]
fn the_full_examples_have_every_key_at_its_default() {
    for (file, role) in [("configs/edge.yaml", RoleKind::Edge), ("configs/core.yaml", RoleKind::Core)] {
        let text = fs::read_to_string(repository().join(file)).expect(file);
        let whole = uncommented(&text);
        parse(file, &whole).unwrap_or_else(|errors| panic!("with what is commented out: {errors}"));

        let mut all = Vec::new();
        keys_of(&serde_yaml::from_str(&whole).expect(file), "", None, &mut all);
        if role == RoleKind::Edge {
            // The other way to have a tunnel, which cannot stand in the same file.
            let reverse = fs::read_to_string(repository().join("configs/edge-reverse.yaml")).expect("an example");
            keys_of(&serde_yaml::from_str(&reverse).expect("valid"), "", None, &mut all);
        } else {
            // The other ways to a database, likewise.
            for way in ["address: \"127.0.0.1:3306\"", "url_file: database.url"] {
                assert!(text.contains(&format!("`{way}`")), "{way}");
                let mapping = format!("proxies_table: {{ {way} }}");
                keys_of(&serde_yaml::from_str(&mapping).expect("valid"), "", None, &mut all);
            }
        }
        let present: BTreeSet<_> = all.iter().map(|(path, ..)| path.as_str()).collect();
        for key in KEYS.iter().filter(|key| key.role.is_none_or(|own| own == role)) {
            assert!(present.contains(key.path.as_str()), "{file} has no {}", key.path);
        }

        let mut set = Vec::new();
        keys_of(&serde_yaml::from_str(&text).expect(file), "", None, &mut set);
        for (path, value, kind) in set {
            let Some(key) = KEYS.iter().find(|key| key.path == path) else { continue };
            assert!(!matches!(key.default, WhenAbsent::Computed(_)), "{file} sets {path}: comment it out");
            // A list of items is there to be filled; the kind is what makes a listener a relay.
            if matches!(path.as_str(), "edges" | "game_servers" | "listeners[].kind" | "listeners[].routes.proxies") {
                continue;
            }
            if let Some(default) = key.default_for(role, kind) {
                let default: Value = serde_yaml::from_str(default).expect("defaults are YAML");
                assert_eq!(value, default, "{file} sets {path}, and not to its default");
            }
        }
    }
}

#[test]
fn the_table_of_keys_reads_alike() {
    for key in KEYS.iter() {
        assert!(key.meaning.starts_with(|c: char| c.is_lowercase() || c == '`'), "{}", key.path);
        assert!(!key.meaning.ends_with('.'), "{}", key.path);
        assert!(!key.form.is_empty() && !key.example.is_empty(), "{}", key.path);
        assert!(serde_yaml::from_str::<Value>(key.example).is_ok(), "{}", key.path);
    }
}

#[test]
fn the_reference_is_generated() {
    let path = repository().join("docs/configuration.md");
    let mut text = fs::read_to_string(&path).expect("the reference");
    for (name, table) in tables() {
        let (begin, end) = (format!("<!-- keys: {name} -->\n"), "<!-- end of keys -->");
        let from = text.find(&begin).expect(name) + begin.len();
        let len = text[from..].find(end).expect(name);
        text.replace_range(from..from + len, &table);
    }
    assert_says(&path, &text);
}

#[test]
fn files_in_the_reference_are_valid() {
    let text = fs::read_to_string(repository().join("docs/configuration.md")).expect("the reference");
    let blocks: Vec<_> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        parse("docs/configuration.md", block).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let text: String = tables().into_iter().map(|(_, table)| table).collect();
    for key in KEYS.iter() {
        assert_eq!(text.matches(&format!("| `{}` |", key.path)).count(), 1, "{}", key.path);
    }
}

/// Text that is close enough to a configuration to get deep into the reader.
fn almost_yaml() -> impl Strategy<Value = String> {
    let mut words: Vec<String> = KEYS
        .iter()
        .flat_map(|key| key.path.split(['.', '[', ']']).map(|word| format!("{word}: ")).chain([key.example.to_owned()]))
        .collect();
    let marks =
        ["\n", "\n  ", "\n  - ", "\n    ", "- ", "[", "]", "{", "}", ", ", ": ", "&a ", "*a", "!t ", "<<: *a", "|\n"];
    words.extend(marks.map(str::to_owned));
    words.extend(
        ["---\n", "...\n", "'", "\"", "~", "0", "-1", "1e9", "#", "? ", "%YAML 1.1\n", "\u{feff}"].map(str::to_owned),
    );
    prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_errors(text in ".{0,200}") {
        if let Err(errors) = parse("any.yaml", &text) {
            prop_assert!(errors.iter().count() > 0);
        }
    }

    #[test]
    fn almost_a_configuration_is_one_or_errors_with_places(text in almost_yaml()) {
        if let Err(errors) = parse("almost.yaml", &format!("role: core\n{text}")) {
            prop_assert!(errors.iter().count() > 0);
            for line in errors.to_string().lines() {
                prop_assert!(line.starts_with("almost.yaml"), "{}", line);
            }
        }
    }
}
