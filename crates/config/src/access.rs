//! `deny` and `allow`, of the process and of each listener: lists of addresses, and of files with more of them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::AddressSet;
use super::document::{unread, without_byte_order_mark};
use super::scope::{Scope, Spot};
use super::takes::Takes;
use super::tree::{Node, Value};
use super::{address, formats};

/// Bytes of a file of `deny` or `allow`: more than all networks of the Internet take.
pub const MAX_LIST_LEN: u64 = 64 << 20;
/// The characters that begin a comment in such a file. Known lists use one or the other.
const COMMENTS: [char; 2] = ['#', ';'];
/// The name of such a list in the reference.
const FORM: &str = "address, CIDR or `{ file: path }`, or a list";

/// Declares a key of addresses that are refused.
pub(super) fn denied() -> Takes<Arc<AddressSet>> {
    Takes::new(FORM, |scope, name| networks(scope, scope.list(name, entry)?))
}

/// Declares a key of the only addresses that are admitted.
pub(super) fn allowed() -> Takes<Arc<AddressSet>> {
    Takes::new(FORM, |scope, name| {
        let allow = networks(scope, scope.some(name, entry)?)?;
        // A list that somebody cut short must not turn everybody away.
        if allow.is_empty() && scope.folder().is_some() {
            scope.wrong(name, "has files without an address in them; nobody could connect");
            return None;
        }
        Some(allow)
    })
}

/// One entry of a list.
enum Entry {
    Network(IpNet),
    File(PathBuf),
}

fn entry(node: &Node) -> Result<Entry, String> {
    match &node.value {
        Value::Map(entries) => match entries.as_slice() {
            [entry] if entry.key == "file" => formats::path(&entry.node).map(Entry::File),
            _ => Err("is a mapping, which takes one key here, as in `{ file: deny.txt }`".to_owned()),
        },
        _ => address::network(node)
            .map(Entry::Network)
            .map_err(|message| format!("{message}; a list in a file is `{{ file: deny.txt }}`")),
    }
}

fn networks(scope: &Scope<'_>, entries: Vec<(Spot, Entry)>) -> Option<Arc<AddressSet>> {
    let (mut networks, mut right) = (Vec::new(), true);
    for (spot, entry) in entries {
        match (entry, scope.folder()) {
            (Entry::Network(network), _) => networks.push(network),
            (Entry::File(path), Some(folder)) => {
                if let Err(message) = read(&folder.join(path), MAX_LIST_LEN, &mut networks) {
                    scope.wrong_at(&spot, message);
                    right = false;
                }
            }
            (Entry::File(_), None) => {}
        }
    }
    right.then(|| Arc::new(networks.into_iter().collect()))
}

/// Reads a file with an address or a CIDR on each line, onto `networks`.
fn read(path: &Path, max_len: u64, networks: &mut Vec<IpNet>) -> Result<(), String> {
    let path_shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|opened| opened.take(max_len + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("{path_shown}: {}", unread(path, &error)))?;
    if bytes.len() as u64 > max_len {
        return Err(format!("{path_shown}: is longer than {max_len} bytes, and cannot be a list of addresses"));
    }
    for (number, line) in (1..).zip(without_byte_order_mark(&bytes).split(|byte| *byte == b'\n')) {
        let wrong = |message: &str| format!("{path_shown}:{number}: {message}");
        let line = std::str::from_utf8(line).map_err(|_| wrong("is not UTF-8"))?;
        let text = line.split(COMMENTS).next().unwrap_or_default().trim();
        if !text.is_empty() {
            networks.push(address::network_text(text).map_err(|message| wrong(&message))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Config, ProcessConfig, load};
    use super::*;

    /// A folder of its own, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("otproxy-gate-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            path
        }

        /// Parses an edge with more YAML at its end; the error is the text after the place.
        fn edge(&self, more: &str) -> Result<super::super::EdgeConfig, String> {
            let text =
                format!("role: edge\nlisteners: [{{ name: a, listen: 127.0.0.1:0, forward_to: a:1 }}]\n{more}\n");
            match load(&self.write("edge.yaml", text)) {
                Ok(Config::Edge(edge)) => Ok(edge),
                Ok(Config::Core(_)) => panic!("a core"),
                Err(errors) => Err(errors.to_string().replace(&format!("{}/", self.0.display()), "")),
            }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn check(process: &ProcessConfig, address: &str) -> bool {
        let address = address.parse().unwrap();
        !process.deny.contains(address) && process.allow.as_ref().is_none_or(|allow| allow.contains(address))
    }

    #[test]
    fn files_are_read_beside_what_stands_in_the_list() {
        let folder = Folder::new("right");
        folder
            .write("deny.txt", "# what we know\r\n198.51.100.7\n\n  10.0.0.0/8 # and why\r\n2001:db8::/32 ; theirs\n#");
        folder.write("allow.txt", "0.0.0.0/0");
        let edge = folder.edge("deny: [192.0.2.0/24, { file: deny.txt }]\nallow: { file: allow.txt }").unwrap();
        let access = &edge.process;
        for denied in ["192.0.2.1", "198.51.100.7", "10.9.9.9"] {
            assert!(!check(access, denied), "{denied}");
        }
        assert!(check(access, "198.51.100.8"));
        assert!(access.deny.contains("2001:db8::1".parse().unwrap()) && !check(access, "2001:db9::1"));
        // Files of an editor of Windows; the first line is as good as the others.
        folder.write("deny.txt", "\u{feff}192.0.2.7\r\n198.51.100.7\r\n");
        let marked = folder.edge("deny: { file: deny.txt }").unwrap();
        assert!(!check(&marked.process, "192.0.2.7") && !check(&marked.process, "198.51.100.7"));
        let inbound = edge.listeners[0].inbound();
        assert_eq!((&*inbound.deny, &inbound.allow), (&AddressSet::default(), &None));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_its_line() {
        let folder = Folder::new("wrong");
        for (list, content, says) in [
            ("deny", &b"192.0.2.1\nfoo # bar\n"[..], "edge.yaml:3:8: deny[0]: list.txt:2: `foo` is not an address"),
            ("deny", b"192.0.2.1/24", "edge.yaml:3:8: deny[0]: list.txt:1: `192.0.2.1/24` has bits set behind"),
            ("deny", b"\n\n\xFF", "edge.yaml:3:8: deny[0]: list.txt:3: is not UTF-8"),
            ("allow", b"# nobody\n", "edge.yaml:3:8: allow: has files without an address in them"),
        ] {
            folder.write("list.txt", content);
            let error = folder.edge(&format!("{list}: [{{ file: list.txt }}]")).unwrap_err();
            assert!(error.starts_with(says) && !error.contains('\n'), "{error}");
        }
        let error = folder.edge("deny: [{ file: none.txt }, { file: . }]").unwrap_err();
        assert!(error.starts_with("edge.yaml:3:8: deny[0]: none.txt: cannot be read: No such file"), "{error}");
        assert!(error.contains("deny[1]: .: cannot be read: "), "{error}");
    }

    #[test]
    fn a_file_has_a_length_and_no_more() {
        let folder = Folder::new("long");
        let path = folder.write("list.txt", "192.0.2.1\n");
        let mut networks = Vec::new();
        assert_eq!(read(&path, 10, &mut networks), Ok(()));
        assert!(read(&path, 9, &mut networks).unwrap_err().contains("is longer than 9 bytes"));
        assert_eq!(networks.len(), 1);
    }
}
