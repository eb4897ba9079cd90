//! `otproxy cert` as users run it, and what docs/certificates.md says about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use otproxy::certs::authority::{BACKDATED, DAYS, SERIAL_LEN, YEARS};
use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::process::{failed, otproxy, text};

/// A folder that `otproxy cert` is run in.
struct Papers(Folder);

impl Papers {
    fn new() -> Self {
        Self(Folder::new())
    }

    /// One with an authority.
    fn with_authority() -> Self {
        let folder = Self::new();
        folder.succeeds(&["init"]);
        folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect(name)
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.file(name)).expect(name).permissions().mode() & 0o7777
    }

    /// Runs `otproxy cert` there.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = otproxy(&["cert"]);
        command.args(arguments).current_dir(&self.0).output().expect("the program starts")
    }

    /// What it says on stdout; stderr must be empty.
    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
        text(&output.stdout)
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        failed(&self.run(arguments), code)
    }

    /// What `cert show --json` says about each certificate in the files.
    #[track_caller]
    fn shown(&self, files: &[&str]) -> Vec<Value> {
        let arguments: Vec<_> = ["show", "--json"].iter().chain(files).copied().collect();
        serde_json::from_str(&self.succeeds(&arguments)).expect("a JSON array")
    }
}

/// Whether OpenSSL is there, for a second opinion. Where it is not, a test has nothing to do and
/// says so; in CI, which sets `CI=true`, it fails.
fn openssl_is_here() -> bool {
    let found = Command::new("openssl").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "openssl is missing: apt-get install openssl");
    eprintln!("skipped: the program openssl is missing (apt-get install openssl)");
    false
}

#[test]
fn an_authority_and_certificates_from_nothing() {
    let folder = Papers::new();
    let said = folder.succeeds(&["init", "--dir", "new/ca"]);
    for part in [
        "made the authority `CA ",
        "new/ca/ca.pem  goes to the core's host and to every edge\n",
        "new/ca/ca.key  stays here: ",
        "`otproxy cert edge NAME` for each edge, with `--dir new/ca`\n",
    ] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    let said = folder.succeeds(&["core", "--dir", "new/ca"]);
    for part in [
        "made the certificate of `core`, valid until 20",
        "new/ca/core.pem  goes to the core's host, as `tunnel.tls.cert`; new/ca/ca.pem goes there as well, as `tunnel.tls.ca`\n",
        "new/ca/core.key  new: goes to the core's host, as `tunnel.tls.key`, readable by otproxy alone\n",
        "new/ca/ca.key  stays here\n",
    ] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    let said = folder.succeeds(&["edge", "waw1", "--dir", "new/ca"]);
    assert!(said.contains("new/ca/waw1.pem  goes to the host of waw1, as `core.tls.cert`; "), "{said}");
    assert_eq!((folder.mode("new"), folder.mode("new/ca")), (0o700, 0o700));
    for name in ["ca", "core", "waw1"] {
        let modes = ["pem", "key"].map(|kind| folder.mode(&format!("new/ca/{name}.{kind}")));
        assert_eq!(modes, [0o644, 0o600], "{name}");
    }
}

#[test]
fn modes_do_not_depend_on_the_mask() {
    for mask in ["000", "077"] {
        let folder = Papers::new();
        let script = format!("umask {mask}; for c in init core 'edge waw1'; do \"$0\" cert $c --dir d || exit; done");
        let command = otproxy(&[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(command.get_program()).current_dir(&folder.0);
        let output = shell.output().expect("sh starts");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        assert_eq!(folder.mode("d"), 0o700);
        for name in ["ca", "core", "waw1"] {
            let modes = ["pem", "key"].map(|kind| folder.mode(&format!("d/{name}.{kind}")));
            assert_eq!(modes, [0o644, 0o600], "{name} with umask {mask}");
        }
    }
}

#[test]
fn an_authority_is_not_overwritten() {
    let folder = Papers::with_authority();
    let before = (folder.read("ca.pem"), folder.read("ca.key"));
    let said = folder.fails(&["init"], 1);
    assert_eq!(
        said,
        "otproxy: ./ca.pem: is there already, and is never overwritten; name another directory with `--dir`, or move it away\n"
    );
    assert_eq!((folder.read("ca.pem"), folder.read("ca.key")), before);
}

#[test]
fn renewing_keeps_the_key() {
    let folder = Papers::with_authority();
    folder.succeeds(&["edge", "waw1", "--days", "30"]);
    let (key, first) = (folder.read("waw1.key"), folder.shown(&["waw1.pem"]));
    assert_eq!(first[0]["days_left"], 29);
    let said = folder.succeeds(&["edge", "waw1"]);
    assert!(said.starts_with("renewed the certificate of `waw1`, valid until 20"), "{said}");
    assert!(said.contains("`core.tls.cert`; it is taken up without a restart\n"), "{said}");
    assert!(said.contains("./waw1.key  the same key as before: leave it where it is\n"), "{said}");
    assert_eq!(folder.read("waw1.key"), key);
    let second = folder.shown(&["waw1.pem"]);
    assert_eq!(second[0]["days_left"], DAYS - 1);
    assert_ne!(first[0]["serial"], second[0]["serial"]);
    let said = folder.succeeds(&["edge", "waw1", "--new-key"]);
    assert!(said.contains("./waw1.key  NEW: goes to the host of waw1 together with the certificate; "), "{said}");
    assert_ne!(folder.read("waw1.key"), key);
}

#[test]
fn a_new_authority_in_the_same_place_is_told_to_be_copied() {
    let folder = Papers::with_authority();
    folder.succeeds(&["core"]);
    for file in ["ca.pem", "ca.key"] {
        fs::remove_file(folder.file(file)).expect(file);
    }
    folder.succeeds(&["init"]);
    let said = folder.succeeds(&["core"]);
    assert!(said.starts_with("made the certificate of `core`"), "{said}");
    assert!(said.contains("./ca.pem goes there as well"), "{said}");
}

#[test]
fn no_certificate_outlives_its_authority() {
    let folder = Papers::new();
    folder.succeeds(&["init", "--years", "1"]);
    let said = folder.succeeds(&["core"]);
    assert!(said.lines().next().is_some_and(|line| line.ends_with(", as long as its authority")), "{said}");
    let shown = folder.shown(&["ca.pem", "core.pem"]);
    assert_eq!(shown[0]["valid_until"], shown[1]["valid_until"]);
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    let folder = Papers::with_authority();
    fs::set_permissions(folder.file("ca.key"), fs::Permissions::from_mode(0o644)).expect("own file");
    let output = folder.run(&["core"]);
    assert_eq!(output.status.code(), Some(0));
    let warning = "otproxy: warning: ./ca.key can be read by others; run `chmod 600 ./ca.key`\n";
    assert_eq!(text(&output.stderr), warning);
}

#[test]
fn what_cannot_be_done_is_said_with_the_remedy() {
    let folder = Papers::new();
    let said = folder.fails(&["core"], 1);
    assert_eq!(
        said,
        "otproxy: ./ca.key: there is no authority here; make one with `otproxy cert init`, or name its directory with `--dir`\n"
    );
    for name in ["core", "other", "ca", "CORE", "a/b", "../x", "-a", "a.1", ""] {
        assert!(folder.fails(&["edge", "--", name], 2).contains("invalid value"), "{name}");
    }
    folder.fails(&["edge"], 2);
    folder.fails(&["core", "--days", "0"], 2);
    folder.fails(&["init", "--years", "31"], 2);
    folder.fails(&["show"], 2);
    assert_eq!(fs::read_dir(&folder.0).expect("directory").count(), 0);
}

#[test]
fn show_says_what_certificates_hold() {
    let folder = Papers::with_authority();
    folder.succeeds(&["core"]);
    folder.succeeds(&["edge", "waw1"]);
    let shown = folder.shown(&["ca.pem", "core.pem", "waw1.pem"]);
    let field = |name: &str| shown.iter().map(|shown| shown[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("file"), ["ca.pem", "core.pem", "waw1.pem"]);
    assert_eq!(field("role"), ["ca", "core", "edge"]);
    assert_eq!(field("ca"), [true, false, false]);
    assert_eq!(field("state"), ["valid", "valid", "valid"]);
    assert_eq!(field("names"), [Value::from(Vec::<&str>::new()), vec!["core"].into(), vec!["waw1"].into()]);
    assert_eq!(field("issuer"), vec![shown[0]["subject"].clone(); 3]);
    assert_eq!(field("days_left"), [3651, DAYS - 1, DAYS - 1]);
    for (shown, name) in shown.iter().zip(["ca.pem", "core.pem", "waw1.pem"]) {
        let text = folder.succeeds(&["show", name]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines[0], lines.len()), (name, 10), "{text}");
        for field in ["role", "issuer", "serial", "valid_from", "valid_until", "sha256"] {
            let value = shown[field].as_str().expect(field);
            assert!(lines.iter().any(|line| line.ends_with(&format!("  {value}"))), "no {value} in:\n{text}");
        }
        let days = format!("  days left         {}", shown["days_left"]);
        assert!(lines.contains(&&days[..]), "{text}");
        assert_eq!(shown["serial"].as_str().expect("serial").split(':').count(), SERIAL_LEN);
    }
    // All that is in a file is shown, with an empty line between.
    fs::write(folder.file("all.pem"), folder.read("ca.pem") + &folder.read("core.pem")).expect("writable");
    assert_eq!(folder.succeeds(&["show", "all.pem"]).split("\n\n").count(), 2);
}

#[test]
fn show_fails_where_one_is_unreadable_and_shows_the_others() {
    let folder = Papers::with_authority();
    let output = folder.run(&["show", "missing.pem", "ca.pem", "ca.key"]);
    assert_eq!(output.status.code(), Some(1));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.starts_with("ca.pem\n  name "), "{out}");
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    assert_eq!(lines[0], "otproxy: missing.pem: cannot be read: No such file or directory (os error 2)");
    assert!(lines[1].starts_with("otproxy: ca.key: holds no certificate in PEM form"), "{err}");
    let output = folder.run(&["show", "--json", "missing.pem", "ca.pem"]);
    assert_eq!(output.status.code(), Some(1));
    let shown: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a JSON array");
    assert_eq!(shown[0]["role"], "ca");
    assert_eq!((&shown[1]["file"], shown[1]["error"].is_string()), (&Value::from("missing.pem"), true));
}

/// A certificate for `old.example` that was valid on one day of the year 2020.
const EXPIRED: &str = include_str!("../common/expired.pem");

#[test]
fn show_fails_where_one_has_expired() {
    let folder = Papers::new();
    fs::write(folder.file("old.pem"), EXPIRED).expect("writable");
    let output = folder.run(&["show", "old.pem"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "otproxy: old.pem: the certificate of `old.example` has expired: it was valid until 2020-01-02T00:00:00Z\n"
    );
    let out = text(&output.stdout);
    assert!(out.contains("  valid from        2020-01-01T00:00:00Z\n"), "{out}");
    assert!(out.contains(" (EXPIRED)\n"), "{out}");
    let output = folder.run(&["show", "--json", "old.pem"]);
    assert_eq!(output.status.code(), Some(1));
    let shown: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a JSON array");
    assert_eq!(shown[0]["state"], "expired");
    assert!(shown[0]["days_left"].as_i64().is_some_and(|days| days < -2000));
}

#[test]
fn openssl_agrees() {
    if !openssl_is_here() {
        return;
    }
    let folder = Papers::with_authority();
    folder.succeeds(&["core"]);
    folder.succeeds(&["edge", "waw1"]);
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(&folder.0).output().expect("openssl starts");
        (output.status.success(), text(&output.stdout))
    };
    for (name, purpose) in [("core", "sslserver"), ("core", "sslclient"), ("waw1", "sslserver"), ("waw1", "sslclient")]
    {
        let file = format!("{name}.pem");
        let arguments =
            ["verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose", purpose, "-verify_hostname", name, &file];
        assert_eq!(openssl(&arguments), (true, format!("{file}: OK\n")), "{purpose}");
    }
    // A leaf is no authority.
    assert!(!openssl(&["verify", "-CAfile", "core.pem", "waw1.pem"]).0);
    let (_, fingerprint) = openssl(&["x509", "-in", "waw1.pem", "-noout", "-fingerprint", "-sha256"]);
    let ours = folder.shown(&["waw1.pem"])[0]["sha256"].as_str().expect("sha256").to_uppercase();
    assert_eq!(fingerprint.trim().rsplit('=').next(), Some(&ours[..]));
    let (_, key) = openssl(&["pkey", "-in", "waw1.key", "-noout", "-text"]);
    assert!(key.contains("NIST CURVE: P-256"), "{key}");
}

#[test]
fn the_document_has_the_codes_numbers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/certificates.md");
    let document = fs::read_to_string(path).expect("docs/certificates.md");
    let rows: Vec<Vec<_>> = document
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let value = |what: &str| {
        let row = rows.iter().find(|row| row[0] == what).unwrap_or_else(|| panic!("no row {what}"));
        row[1].to_owned()
    };
    assert_eq!(value("an authority is valid"), format!("{YEARS} years (`--years`)"));
    assert_eq!(value("a certificate is valid"), format!("{DAYS} days (`--days`), never longer than its authority"));
    assert_eq!(value("both begin"), format!("{} hour before they are made", BACKDATED.as_secs() / 3600));
    assert_eq!(value("serial number"), format!("{SERIAL_LEN} random bytes"));
    let help = help_of("init") + &help_of("edge");
    assert!(help.contains(&format!("[default: {YEARS}]")) && help.contains(&format!("[default: {DAYS}]")), "{help}");
}

fn help_of(command: &str) -> String {
    text(&otproxy(&["cert", command, "--help"]).output().expect("the program starts").stdout)
}

#[test]
fn the_documents_commands_can_be_typed() {
    let folder = Papers::new();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/certificates.md");
    let document = fs::read_to_string(path).expect("docs/certificates.md");
    let mut count = 0;
    for line in document.lines().filter_map(|line| line.strip_prefix("otproxy cert ")) {
        let arguments: Vec<_> = line.split_whitespace().collect();
        folder.succeeds(&arguments);
        count += 1;
    }
    assert!(count >= 5, "only {count}");
    for file in ["ca/core.key", "ca/waw1.key", "ca/fra1.key"] {
        assert!(folder.file(file).exists(), "{file}");
    }
}
