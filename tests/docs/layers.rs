//! The map of layers in `src/lib.rs` names every module of the program, and no module imports upward or from its own row.
//! Between crates cargo holds the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn source(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the row of each module, counted from the top, as the list in the first comment of `src/lib.rs` has them.
fn map(lib: &str) -> BTreeMap<String, usize> {
    let comment = lib.lines().map_while(|line| line.strip_prefix("//!"));
    let mut rows = BTreeMap::new();
    let mut row = 0;
    for line in comment.skip_while(|line| !line.starts_with(" - ")).take_while(|line| !line.is_empty()) {
        row += usize::from(line.starts_with(" - "));
        // As in [`admission`]: nothing else stands between such marks in the list.
        for name in line.split('`').skip(1).step_by(2) {
            assert_eq!(rows.insert(name.to_owned(), row), None, "{name} stands in two rows");
        }
    }
    rows
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Returns the lines of a file that are part of the program: no comments, and nothing that only tests have.
fn program(path: &Path, text: &str) -> Vec<String> {
    let of_tests = |name: &std::ffi::OsStr| ["tests", "tests.rs", "fake.rs"].iter().any(|test| name == *test);
    if path.iter().any(of_tests) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        if line.trim() == "#[cfg(test)]" {
            // The item behind it: one line, or all to the brace that closes it.
            let indent = line.len() - line.trim_start().len();
            let first = rest.next().unwrap_or_default();
            if first.ends_with('{') {
                rest.by_ref().find(|line| line.len() == indent + 1 && line.ends_with('}'));
            }
        } else if !line.trim_start().starts_with("//") {
            lines.push(line.to_owned());
        }
    }
    lines
}

#[test]
fn no_module_imports_upward() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = source(&src.join("lib.rs"));
    let rows = map(&lib);
    let modules = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let mut modules: Vec<_> = modules.map(|name| name.trim_end_matches(';').to_owned()).collect();
    modules.sort_unstable();
    assert_eq!(modules, rows.keys().cloned().collect::<Vec<_>>(), "the map of src/lib.rs and its modules");

    let mut found = Vec::new();
    files(&src, &mut found);
    let (mut imports, mut upward) = (0, Vec::new());
    for path in &found {
        let inner = path.strip_prefix(&src).expect("in src");
        let module = inner.iter().next().and_then(|name| name.to_str()).unwrap_or_default().trim_end_matches(".rs");
        let Some(from) = rows.get(module) else { continue };
        for line in program(inner, &source(path)) {
            assert!(!line.contains("crate::{"), "{}: import one module at a time: {line}", inner.display());
            for part in line.split("crate::").skip(1) {
                let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                imports += usize::from(name != module);
                if name != module && rows.get(&name).is_some_and(|to| to <= from) {
                    upward.push(format!("{}: {}", inner.display(), line.trim()));
                }
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
    assert!(imports > 100, "only {imports} imports: does the test still find them?");
}
