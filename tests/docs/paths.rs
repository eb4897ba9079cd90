//! Paths of this repository that the documents name are there.

use std::fs;
use std::path::Path;

/// The folders at the top whose paths are checked.
const TOP: [&str; 9] =
    ["src/", "crates/", "tests/", "fuzz/", "benches/", "docs/", "configs/", "systemd/", "packaging/"];

/// Returns all Markdown files of the project's own, by their paths from the root.
fn documents(root: &Path) -> Vec<String> {
    let docs = fs::read_dir(root.join("docs")).expect("docs").map(|entry| {
        let name = entry.expect("readable").file_name();
        format!("docs/{}", name.to_str().expect("UTF-8"))
    });
    let top = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "packaging/README.md"].map(str::to_owned);
    docs.chain(top).filter(|path| path.ends_with(".md")).collect()
}

#[test]
fn every_path_in_the_documents_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut count, mut missing) = (0, Vec::new());
    let documents = documents(root);
    assert!(documents.len() >= 20, "only {documents:?}");
    for document in documents {
        let text = fs::read_to_string(root.join(&document)).expect("readable");
        for word in text.split('`').skip(1).step_by(2).flat_map(str::split_whitespace) {
            // As in `src/net/`, `fuzz/found/NAME` and `tests/it/roles/haproxy.rs`.
            let path = word.trim_end_matches([',', '/']);
            let is_ours = TOP.iter().any(|top| path.starts_with(top));
            let is_pattern = path.contains(|c: char| c.is_ascii_uppercase() || "*<>{}$".contains(c));
            if is_ours && !is_pattern && !path.starts_with("fuzz/found") && !path.starts_with("fuzz/artifacts") {
                count += 1;
                if !root.join(path).exists() {
                    missing.push(format!("{document}: {path}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count >= 30, "only {count} paths: does the test still find them?");
}
