//! Reading a whole file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ipnet::IpNet;

use super::error::{Errors, Location};
use super::keys::{KEYS, Role};
use super::listener::{self, Listener, Taken};
use super::scope::{Report, Scope};
use super::tree::{self, Entry, NodeId, Value};
use super::{AccessLog, AccessLogFile, Config, Core, Edge, EdgeTunnel, Forward, Process, Reach, Relay};
use super::{admin, bans, core, formats, gate, tunnel};

/// Bytes of a file; a longer one is not a configuration.
pub const MAX_FILE_LEN: u64 = 1 << 20;

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// Everything that is wrong with it, or that it could not be read.
pub fn load(path: &Path) -> Result<Config, Errors> {
    load_wanted(path, None)
}

/// As [`load`], where the file must be that of an edge.
///
/// # Errors
///
/// As [`load`]; a file of the other role is an error at its `role`.
pub fn load_edge(path: &Path) -> Result<Edge, Errors> {
    match load_for(path, Role::Edge)? {
        Config::Edge(edge) => Ok(edge),
        Config::Core(_) => Err(Errors::one(&path.display().to_string(), None, other_role(Role::Edge))),
    }
}

/// As [`load`], where the file must be that of a core.
///
/// # Errors
///
/// As [`load`]; a file of the other role is an error at its `role`.
pub fn load_core(path: &Path) -> Result<Core, Errors> {
    match load_for(path, Role::Core)? {
        Config::Core(core) => Ok(core),
        Config::Edge(_) => Err(Errors::one(&path.display().to_string(), None, other_role(Role::Core))),
    }
}

/// Reads and checks `text`, which errors call `file`. Paths in it stay as they are written, and the files of
/// `deny` and `allow` are not read.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Config, Errors> {
    parse_for(file, text, None, None)
}

/// As [`load`], where the file must be that of this role.
///
/// # Errors
///
/// As [`load`]; a file of the other role is an error at its `role`.
pub fn load_for(path: &Path, role: Role) -> Result<Config, Errors> {
    load_wanted(path, Some(role))
}

fn load_wanted(path: &Path, wanted: Option<Role>) -> Result<Config, Errors> {
    let (file, text) = text_of(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse_for(&file, &text, wanted, Some(folder)).map(|config| config.relative_to(folder))
}

/// The file's name, as errors call it, and its text.
pub(super) fn text_of(path: &Path) -> Result<(String, String), Errors> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|opened| opened.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes))
        .map_err(|error| Errors::one(&file, None, format!("cannot be read: {error}")))?;
    if too_long(bytes.len()) {
        return Err(file_too_long(&file));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((file, text)),
        Err(error) => {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to());
            let location =
                Location::end_of(valid.and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default());
            Err(Errors::one(&file, Some(location), "is not UTF-8 here; save the file as UTF-8".to_owned()))
        }
    }
}

/// Reads the mapping that `text` is with `read`, which reports what is wrong and gives nothing then. `smallest`
/// says what an empty file lacks, `begin` how a file begins.
pub(super) fn document<T>(
    file: &str,
    text: &str,
    (smallest, begin): (&str, &str),
    read: impl FnOnce(&Report, NodeId, &[Entry]) -> Option<T>,
) -> Result<T, Errors> {
    if too_long(text.len()) {
        return Err(file_too_long(file));
    }
    let root = tree::build(text).map_err(|error| Errors::one(file, error.location, error.message))?;
    let start = Location { line: 1, column: 1 };
    let entries = match &root.value {
        Value::Map(entries) => entries,
        Value::Null => return Err(Errors::one(file, Some(start), format!("is empty; {smallest}"))),
        _ => {
            let message = format!("{} is not a mapping; begin with {begin}", root.quoted());
            return Err(Errors::one(file, tree::locate(text, root.id), message));
        }
    };
    let report = Report::default();
    let read = read(&report, root.id, entries);
    if let Some(errors) = report.into_errors(file, |id| tree::locate(text, id)) {
        return Err(errors);
    }
    read.ok_or_else(|| Errors::one(file, Some(start), "cannot be read, for an unknown reason".to_owned()))
}

/// `folder` is where the file is; without one, no other files are read.
fn parse_for(file: &str, text: &str, wanted: Option<Role>, folder: Option<&Path>) -> Result<Config, Errors> {
    let shape = ("the smallest file has `role` and `listeners`", "`role: edge` or `role: core`");
    document(file, text, shape, |report, at, entries| {
        let guess = guess_role(entries, wanted);
        let scope = Scope::root(report, KEYS, guess, at, entries).in_folder(folder);
        match role(&scope, wanted).unwrap_or(guess) {
            Role::Edge => edge(&scope).map(Config::Edge),
            Role::Core => self::core(&scope).map(Config::Core),
        }
    })
}

/// The role of a file, right or not, so that all the rest of it can be checked too.
fn guess_role(entries: &[Entry], wanted: Option<Role>) -> Role {
    let written = entries.iter().find(|entry| entry.key == "role").and_then(|entry| formats::word(&entry.node).ok());
    let core_only = |entry: &Entry| KEYS.iter().any(|key| key.path == entry.key && key.role == Some(Role::Core));
    let implied = entries.iter().any(core_only).then_some(Role::Core);
    written.or(wanted).or(implied).unwrap_or(Role::Edge)
}

fn role(root: &Scope<'_>, wanted: Option<Role>) -> Option<Role> {
    let role = root.value("role", formats::word)?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != role) {
        root.wrong("role", other_role(wanted));
    }
    Some(role)
}

fn other_role(wanted: Role) -> String {
    let other = match wanted {
        Role::Edge => Role::Core,
        Role::Core => Role::Edge,
    };
    format!("`{other}` is not what `otproxy {wanted}` runs; use `otproxy {other}`, or give it the file of the {wanted}")
}

fn edge(root: &Scope<'_>) -> Option<Edge> {
    let process = process(root);
    let tunnel = tunnel::of_edge(root);
    let mut taken = Taken::default();
    taken.reserve("admin.listen", process.iter().filter_map(|process| process.admin.listen));
    if let Some(Some(EdgeTunnel { reach: Reach::Accept(addresses), .. })) = &tunnel {
        taken.reserve("core.accept", addresses.iter().copied());
    }
    let (listeners, _) = listener::read(root, Some(&[]), taken).map(by_kind)?;
    let mut process = process?;
    process.bans.exempt.extend(listeners.iter().flat_map(|listener| &listener.inbound.trusted_peers));
    Some(Edge { process, listeners, tunnel: tunnel? })
}

fn core(root: &Scope<'_>) -> Option<Core> {
    let process = process(root);
    let edges = core::edges(root);
    let tunnel = tunnel::of_core(root, edges.as_deref());
    let mut taken = Taken::default();
    taken.reserve("admin.listen", process.iter().filter_map(|process| process.admin.listen));
    taken.reserve("tunnel.accept", tunnel.iter().flatten().flat_map(|tunnel| tunnel.accept.iter().copied()));
    let trusted = edges.as_ref().map(|edges| {
        let trusted = edges.iter().filter(|edge| !edge.revoked);
        trusted.flat_map(|edge| edge.addresses.iter().copied()).collect::<Vec<IpNet>>()
    });
    let listeners = listener::read(root, trusted.as_deref(), taken).map(by_kind);
    let relay = listeners.as_ref().is_some_and(|(_, relays)| !relays.is_empty());
    let game_servers = core::game_servers(root, relay);
    let sessions = core::sessions(root);
    let (forwards, relays) = listeners?;
    let (mut process, trusted) = (process?, trusted?);
    let inbounds = forwards.iter().map(|forward| &forward.inbound).chain(relays.iter().map(|relay| &relay.inbound));
    process.bans.exempt.extend(inbounds.flat_map(|inbound| &inbound.trusted_peers).chain(&trusted));
    Some(Core {
        process,
        edges: edges?,
        tunnel: tunnel?,
        forwards,
        relays,
        game_servers: game_servers?,
        sessions: sessions?,
    })
}

impl Config {
    /// The same, with its paths as seen from where its file is.
    fn relative_to(mut self, folder: &Path) -> Self {
        let (process, tls) = match &mut self {
            Self::Edge(edge) => (&mut edge.process, edge.tunnel.as_mut().map(|tunnel| &mut tunnel.tls)),
            Self::Core(core) => (&mut core.process, core.tunnel.as_mut().map(|tunnel| &mut tunnel.tls)),
        };
        process.admin.relative_to(folder);
        if let Some(AccessLog { file: AccessLogFile::Path(path), .. }) = &mut process.access_log {
            *path = folder.join(&path);
        }
        if let Some(files) = tls {
            for path in [&mut files.ca, &mut files.cert, &mut files.key] {
                *path = folder.join(&path);
            }
        }
        self
    }
}

fn by_kind(listeners: Vec<Listener>) -> (Vec<Forward>, Vec<Relay>) {
    let (mut forwards, mut relays) = (Vec::new(), Vec::new());
    for listener in listeners {
        match listener {
            Listener::Forward(forward) => forwards.push(forward),
            Listener::Relay(relay) => relays.push(relay),
        }
    }
    (forwards, relays)
}

fn process(root: &Scope<'_>) -> Option<Process> {
    let name = root.optional("name", formats::process_name);
    let workers = root.optional("workers", formats::workers);
    let admin = admin::read(root);
    let log = root.section("log");
    let log_format = log.value("format", formats::word);
    let log_level = log.value("level", formats::word);
    let access_log = access_log(&root.section("access_log"));
    let access = gate::access(root);
    let limits = gate::limits(&root.section("limits"), formats::or_none(formats::connections));
    let bans = bans::bans(&root.section("bans"));
    let shutdown_timeout = root.value("shutdown_timeout", formats::duration);
    Some(Process {
        name: name?.unwrap_or_else(formats::host_name),
        workers: workers?.unwrap_or_else(formats::default_workers),
        admin: admin?,
        access: access?.into(),
        limits: limits?,
        bans: bans?,
        shutdown_timeout: shutdown_timeout?,
        log_format: log_format?,
        log_level: log_level?,
        access_log: access_log?,
    })
}

/// Reads `access_log`; the inner `None` is none.
fn access_log(section: &Scope<'_>) -> Option<Option<AccessLog>> {
    let format = section.value("format", formats::word);
    let file = section.value("file", formats::access_log_file);
    if format.is_some() && section.has("format") && !section.has("file") {
        section.wrong("format", "says how lines look that go nowhere; give `file` too, as in `file: stderr`");
    }
    let (format, file) = (format?, file?);
    Some(file.map(|file| AccessLog { format, file }))
}

fn too_long(len: usize) -> bool {
    u64::try_from(len).is_ok_and(|len| len > MAX_FILE_LEN)
}

fn file_too_long(file: &str) -> Errors {
    Errors::one(file, None, format!("is longer than {MAX_FILE_LEN} bytes, and cannot be a configuration"))
}
