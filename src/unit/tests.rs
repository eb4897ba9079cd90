//! A host's files in a folder, and what its unit's user may do with them.

use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A folder in the place of `/`, removed at the end.
struct Host(PathBuf);

const DYNAMIC: &str = "[Service]\nDynamicUser=yes\nUser=otproxy\nExecStart=otproxy edge -c /etc/otproxy/edge.yaml\n";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\notproxy:x:997:996::/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\notproxy:x:996:\nssl-cert:x:110:postgres,otproxy\n";

impl Host {
    fn new(passwd: &str, unit: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let host = Self(std::env::temp_dir().join(format!("otproxy-unit-{}-{number}", std::process::id())));
        host.write("etc/passwd", passwd, 0o644);
        host.write("etc/group", GROUP, 0o644);
        host.write(
            "etc/systemd/system/otproxy-edge.service",
            &unit.replace("/etc/", &format!("{}/etc/", host.0.display())),
            0o644,
        );
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Writes the file that the unit runs, and its token, key and certificates.
    fn edge(&self) -> (Config, PathBuf) {
        let text = "role: edge\nadmin: { token_file: admin.token }\n\
             core: { dial: 'a:1', tls: { ca: ca.pem, cert: waw1.pem, key: waw1.key } }\n\
             listeners: [{ name: a, listen: 127.0.0.1:0, forward_to: a:1 }]\n";
        let file = self.write("etc/otproxy/edge.yaml", text, 0o644);
        for (name, mode) in [("ca.pem", 0o644), ("waw1.pem", 0o644), ("waw1.key", 0o600), ("admin.token", 0o600)] {
            self.write(&format!("etc/otproxy/{name}"), "", mode);
        }
        (otproxy_config::load(&file).unwrap(), file)
    }

    fn user(&self) -> Option<UnitUser> {
        UnitUser::under(&self.0, RoleKind::Edge, &self.path("etc/otproxy/edge.yaml"))
    }

    /// Returns what the unit's user cannot read, with the names of files alone.
    fn unreadable(&self) -> Vec<String> {
        let (config, file) = self.edge();
        self.among(&config, &file)
    }

    fn among(&self, config: &Config, file: &Path) -> Vec<String> {
        let folder = format!("{}/", self.path("etc/otproxy").display());
        let found = self.user().expect("a user").unreadable(config, file);
        found.iter().map(|file| file.to_string().replace(&folder, "")).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_user_that_exists_is_given_its_secrets() {
    let host = Host::new(PASSWD, DYNAMIC);
    let by = "cannot be read by the user `otproxy`, as which otproxy-edge.service runs";
    let give = |file: &str| format!("{file}: {by}; run `chown otproxy {file} && chmod 600 {file}`");
    // The tests' own user is another one.
    assert_eq!(host.unreadable(), [give("waw1.key"), give("admin.token")]);
    let (config, file) = host.edge();
    let mode = |name: &str, mode| host.write(&format!("etc/otproxy/{name}"), "", mode);
    mode("waw1.key", 0o644);
    mode("admin.token", 0o604);
    mode("edge.yaml", 0o600);
    mode("ca.pem", 0o640);
    let open = |file: &str| format!("{file}: {by}; run `chmod a+r {file}`");
    assert_eq!(host.among(&config, &file), [open("edge.yaml"), open("ca.pem")]);
}

#[test]
fn a_folder_that_nobody_else_enters_is_said() {
    let host = Host::new(PASSWD, DYNAMIC);
    let (config, file) = host.edge();
    fs::set_permissions(host.path("etc"), fs::Permissions::from_mode(0o700)).unwrap();
    let etc = host.path("etc").display().to_string();
    let found = host.among(&config, &file);
    assert_eq!(found.len(), 5, "{found:?}");
    for line in &found {
        let says = format!(
            "its folder {etc} cannot be entered by the user `otproxy`, as which otproxy-edge.service runs; run `chmod a+x {etc}`"
        );
        assert!(line.ends_with(&says), "{line}");
    }
}

#[test]
fn a_user_that_systemd_makes_gets_credentials() {
    let host = Host::new("root:x:0:0::/root:/bin/sh\n", DYNAMIC);
    let found = host.unreadable();
    assert_eq!(found.len(), 2, "{found:?}");
    for (line, name) in found.iter().zip(["waw1.key", "admin.token"]) {
        assert!(line.contains("have systemd hand it over, as its own user can own no file: "), "{line}");
        assert!(line.contains(&format!("`LoadCredential={name}:")), "{line}");
    }
    let drop_in = "[Service]\nLoadCredential=admin.token:/etc/otproxy/admin.token\n# LoadCredential=waw1.key\n";
    host.write("run/systemd/system/otproxy-edge.service.d/tokens.conf", drop_in, 0o644);
    let found = host.unreadable();
    assert!(found.len() == 1 && found[0].starts_with("waw1.key: "), "{found:?}");
    // A drop-in of the same name in an earlier folder takes its place.
    host.write("etc/systemd/system/otproxy-edge.service.d/tokens.conf", "[Service]\n", 0o644);
    assert_eq!(host.unreadable().len(), 2);
}

#[test]
fn a_unit_of_root_and_one_of_another_file_say_nothing() {
    let root = Host::new(PASSWD, "[Service]\nExecStart=otproxy edge -c /etc/otproxy/edge.yaml\n");
    root.edge();
    assert!(root.user().is_none());
    let other = Host::new(PASSWD, "[Service]\nUser=otproxy\nExecStart=otproxy edge --config=/etc/otproxy/other.yaml\n");
    other.edge();
    assert!(other.user().is_none());
    fs::rename(other.path("etc/otproxy/edge.yaml"), other.path("etc/otproxy/other.yaml")).unwrap();
    let found = |name: &str| UnitUser::under(&other.0, RoleKind::Edge, &other.path(name)).is_some();
    assert!(found("etc/otproxy/other.yaml") && found("etc/systemd/../otproxy/other.yaml"));
    assert!(!found("etc/otproxy/edge.yaml"));
}

#[test]
fn the_last_setting_of_a_unit_holds() {
    let mut settings = UnitSettings::default();
    settings.take("User=a\n[Unit]\nUser=b\n[Service]\nUser=c\nGroup=g\nDynamicUser=1\nLoadCredential=a:/a\n");
    assert_eq!((settings.user.as_deref(), settings.dynamic), (Some("c"), true));
    settings.take("; User=d\n[Service]\nUser=\nDynamicUser=no\nSupplementaryGroups=h \\\n i\nLoadCredential=\nSetCredential=b:text\n");
    assert_eq!((settings.user.as_deref(), settings.dynamic), (None, false));
    assert_eq!(settings.groups, ["g", "h", "i"]);
    assert_eq!(settings.credentials, ["b"]);
    settings.take(
        "[Service]\nExecStart=/bin/otproxy core -c /a.yaml\nExecStart=\nExecStart=/bin/otproxy core --config /b.yaml\n",
    );
    assert_eq!(settings.configs().collect::<Vec<_>>(), ["/b.yaml"]);
}

#[test]
fn the_first_of_owner_group_and_others_that_fits_decides() {
    let accounts = Host::new(PASSWD, DYNAMIC);
    let accounts = Accounts::read(&accounts.0);
    let user = accounts.user("otproxy").unwrap();
    assert_eq!((user.uid, &user.gids[..]), (997, &[996, 110][..]));
    assert_eq!(accounts.user("997"), Some(user.clone()));
    assert_eq!(accounts.user("nobody"), None);
    assert_eq!((accounts.group("ssl-cert"), accounts.group("7"), accounts.group("none")), (Some(110), Some(7), None));
    for (uid, gid, mode, extra, reads) in [
        (997, 0, 0o400, &[][..], true),
        (997, 0, 0o044, &[], false),
        (0, 996, 0o640, &[], true),
        (0, 110, 0o640, &[], true),
        (0, 996, 0o604, &[], false),
        (0, 5, 0o640, &[], false),
        (0, 5, 0o640, &[5], true),
        (0, 0, 0o644, &[], true),
        (0, 0, 0o600, &[], false),
    ] {
        let file = FileMode { uid, gid, mode };
        assert_eq!(file.allows(Some(&user), extra, FileMode::READ), reads, "{file:?}");
    }
    let others = FileMode { uid: 997, gid: 996, mode: 0o660 };
    assert!(!others.allows(None, &[], FileMode::READ) && others.allows(None, &[996], FileMode::READ));
}

#[test]
fn each_reader_has_its_way_to_make_a_token() {
    let (with, without) = (Host::new(PASSWD, DYNAMIC), Host::new("root:x:0:0::/root:/bin/sh\n", DYNAMIC));
    let account = |name: &str| SecretReader::Account(name.to_owned());
    for (host, uid, by_systemd, reader) in [
        (&with, 997, true, account("otproxy")),
        (&with, 0, false, account("otproxy")),
        (&without, 0, false, SecretReader::Dynamic),
        (&without, 61_234, true, SecretReader::Dynamic),
        (&without, 1000, false, account("1000")),
    ] {
        assert_eq!(SecretReader::of(&host.0, uid, by_systemd), reader, "{uid}");
    }
    fs::remove_file(without.path("etc/systemd/system/otproxy-edge.service")).unwrap();
    assert_eq!(SecretReader::of(&without.0, 0, false), account("root"));
    let file = Path::new("/etc/otproxy/admin.token");
    let made = account("otproxy").make(file);
    assert_eq!(
        made,
        "make one: `install -m 600 -o otproxy /dev/null /etc/otproxy/admin.token && openssl rand -hex 32 > /etc/otproxy/admin.token`"
    );
    let made = SecretReader::Dynamic.make(file);
    assert!(made.contains("`LoadCredential=admin.token:/etc/otproxy/admin.token`"), "{made}");
}

#[test]
fn the_owner_reads_its_own() {
    if !geteuid().is_root() {
        return;
    }
    let host = Host::new(PASSWD, DYNAMIC);
    let (config, file) = host.edge();
    for name in ["waw1.key", "admin.token"] {
        chown(host.path(&format!("etc/otproxy/{name}")), Some(997), None).unwrap();
    }
    assert_eq!(host.among(&config, &file), Vec::<String>::new());
}
