//! `otproxy init`: reads the topology from a file or from flags, and reports what was done.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueHint;
use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;

use super::{print, wrong_together};
use crate::init::{self, FileOutcome};
use crate::stderr;
use otproxy_config as config;
use otproxy_config::{CoreMode, GameServerProfile, Topology};
use otproxy_protocol::printable::printable_json;

mod dialogue;

#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub(super) struct Init {
    /// The topology, YAML: edges, core, game servers. Or give it with the flags below. On a terminal with none of both it is asked for
    #[arg(value_name = "TOPOLOGY", value_hint = ValueHint::FilePath, conflicts_with_all = FLAGS)]
    topology: Option<PathBuf>,
    /// The folder to fill [default: the one that it has filled before, if TOPOLOGY or this directory is in it; else otproxy-hosts]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// An edge: its name, its address, and what clients are told if that is another; once for each
    #[arg(long, value_name = "NAME=ADDRESS[,PUBLIC]", value_parser = edge)]
    edge: Vec<Edge>,
    /// A world: its port, as clients ask for it, and its game server; once for each
    #[arg(long, value_name = "PORT=HOST:PORT", value_parser = game)]
    game: Vec<Game>,
    /// The game server's login and status [default: 127.0.0.1:7171]
    #[arg(long, value_name = "HOST:PORT")]
    login: Option<String>,
    /// The game server's status, where it has a port of its own [default: at the login]
    #[arg(long, value_name = "HOST:PORT")]
    status: Option<String>,
    /// The core's host, for `otproxy deploy`; with `--core-mode accept` the edges connect there
    #[arg(long, value_name = "ADDRESS")]
    core: Option<String>,
    /// The side that connects: the core to the edges, or the edges to the core, which `accept`s [default: dial]
    #[arg(long, value_name = "MODE")]
    core_mode: Option<CoreMode>,
    /// The tunnel's port [default: 7100]
    #[arg(long, value_name = "PORT")]
    tunnel_port: Option<String>,
    /// The server that the game servers are, from which all settings for it follow [default: tfs14-otc]
    #[arg(long, value_name = "SERVER", value_parser = PossibleValuesParser::new(GameServerProfile::ALL.iter().map(|known| known.as_str())))]
    game_server: Option<String>,
    /// How game servers of another kind are told players' addresses: otc, otc_reversed, proxy_v2, proxy_v1, none
    #[arg(long, value_name = "HOW")]
    player_address: Option<String>,
    /// Names ahead in the clients' list, which go on from those of the edges, as p3.example from p1.example and p2.example
    #[arg(long, value_name = "N")]
    spare_names: Option<String>,
    /// A URL of a newer list of the edges, for clients; once for each, in the order in which they are tried
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    list_url: Vec<String>,
    /// Has edges serve the list of edges over HTTP by this name, at /proxies/NAME, and who is online, at /status
    #[arg(long, value_name = "NAME")]
    web_list: Option<String>,
    /// The port at which edges take HTTP [default: 8080]
    #[arg(long, value_name = "PORT", requires = "web_list")]
    web_port: Option<String>,
    /// The login service over HTTP, as seen from the core, for which edges take logins at /login and /login.php
    #[arg(long, value_name = "HOST:PORT", requires = "web_list")]
    web_login: Option<String>,
}

/// What a topology's text comes from.
const FROM_FLAGS: &str = "the flags of";
const FROM_ANSWERS: &str = "your answers to";
/// The folder that is filled the first time.
const OUT: &str = "otproxy-hosts";
/// The flags that describe a topology.
const FLAGS: [&str; 14] = [
    "edge",
    "game",
    "login",
    "status",
    "core",
    "core_mode",
    "tunnel_port",
    "game_server",
    "player_address",
    "spare_names",
    "list_url",
    "web_list",
    "web_port",
    "web_login",
];

#[derive(Debug, Clone, PartialEq)]
struct Edge {
    name: String,
    address: String,
    public: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Game {
    port: String,
    address: String,
    /// No flag has it.
    name: Option<String>,
}

fn edge(text: &str) -> Result<Edge, &'static str> {
    let (name, hosts) = text.split_once('=').ok_or("write it as in waw1=198.51.100.7")?;
    let (address, public) = hosts.split_once(',').map_or((hosts, None), |(address, public)| (address, Some(public)));
    Ok(Edge { name: name.to_owned(), address: address.to_owned(), public: public.map(str::to_owned) })
}

fn game(text: &str) -> Result<Game, &'static str> {
    let (port, address) = text.split_once('=').ok_or("write it as in 7172=127.0.0.1:7172")?;
    Ok(Game { port: port.to_owned(), address: address.to_owned(), name: None })
}

impl Init {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (topology, text) = match &self.topology {
            Some(file) => (config::load_topology(file)?, None),
            None => {
                let Some(text) = self.given_or_asked()? else {
                    stderr::write(b"nothing was written\n");
                    return Ok(ExitCode::FAILURE);
                };
                (self.parse(&text)?, Some(text))
            }
        };
        let out = folder(self.out.as_deref(), self.topology.as_deref());
        let report = init::run(&topology, text.as_deref(), &out).context("cannot make the set-up")?;
        print(lines(&report, &out).as_bytes())
    }

    /// Returns the topology that the flags are, or without any the answers on the terminal; `None` if there it is not wanted.
    fn given_or_asked(&self) -> anyhow::Result<Option<String>> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let is_bare = *self == Self { out: self.out.clone(), ..Self::default() };
        if !(is_bare && stdin.is_terminal() && stdout.is_terminal()) {
            return Ok(Some(self.text(FROM_FLAGS)?));
        }
        let file = folder(self.out.as_deref(), None).join(init::TOPOLOGY_FILE);
        if file.exists() {
            let file = file.display();
            let message = format!(
                "{file} is there already: change it there, then run `otproxy deploy`, or `otproxy init {file}`"
            );
            return Err(wrong_together("init", ErrorKind::MissingRequiredArgument, &message).into());
        }
        let asked = dialogue::ask(stdin.lock(), stdout, &file.display().to_string()).context("cannot ask")?;
        Ok(asked.map(|answers| answers.text(FROM_ANSWERS)).transpose()?)
    }

    /// Writes the flags as a topology file, so that there is one reader for both. `origin` says what they come from.
    fn text(&self, origin: &str) -> Result<String, clap::Error> {
        let mut missing = Vec::new();
        if self.edge.is_empty() {
            missing.push("an edge, as in `--edge waw1=198.51.100.7`");
        }
        if self.game.is_empty() {
            missing.push("a game server, as in `--game 7172=127.0.0.1:7172`");
        }
        if self.core_mode == Some(CoreMode::Accept) && self.core.is_none() {
            missing.push("where the edges connect, as in `--core core.example`");
        }
        if !missing.is_empty() {
            let message = format!("missing: {}; or give a topology file, which has them all", missing.join("; "));
            return Err(wrong_together("init", ErrorKind::MissingRequiredArgument, &message));
        }
        let mut text = format!("# The topology, from {origin} `otproxy init`. From now on change it here.\nedges:\n");
        for Edge { name, address, public } in &self.edge {
            let public = public.as_ref().map(|public| format!(", public: {}", quoted(public))).unwrap_or_default();
            let _ = writeln!(text, "  - {{ name: {}, address: {}{public} }}", quoted(name), quoted(address));
        }
        let mode = self.core_mode.map(|mode| match mode {
            CoreMode::Dial => "mode: dial".to_owned(),
            CoreMode::Accept => "mode: accept".to_owned(),
        });
        let address = self.core.as_ref().map(|core| format!("address: {}", quoted(core)));
        let core: Vec<_> = mode.into_iter().chain(address).collect();
        if !core.is_empty() {
            let _ = writeln!(text, "core: {{ {} }}", core.join(", "));
        }
        for (key, value) in [
            ("tunnel_port", &self.tunnel_port),
            ("login", &self.login),
            ("status", &self.status),
            ("game_server", &self.game_server),
            ("player_address", &self.player_address),
            ("spare_names", &self.spare_names),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key}: {}", quoted(value));
            }
        }
        if !self.list_url.is_empty() {
            let urls: Vec<_> = self.list_url.iter().map(|url| quoted(url)).collect();
            let _ = writeln!(text, "list_urls: [{}]", urls.join(", "));
        }
        let web = [("list", &self.web_list), ("port", &self.web_port), ("login", &self.web_login)];
        let web: Vec<_> =
            web.iter().filter_map(|(key, value)| Some(format!("{key}: {}", quoted(value.as_ref()?)))).collect();
        if !web.is_empty() {
            let _ = writeln!(text, "web: {{ {} }}", web.join(", "));
        }
        text += "game_servers:\n";
        for Game { port, address, name } in &self.game {
            let name = name.as_ref().map(|name| format!(", name: {}", quoted(name))).unwrap_or_default();
            let _ = writeln!(text, "  - {{ port: {}, address: {}{name} }}", quoted(port), quoted(address));
        }
        Ok(text)
    }

    /// Parses the topology. Errors name flags, not places of a file that nobody wrote.
    fn parse(&self, text: &str) -> Result<Topology, clap::Error> {
        config::parse_topology("", text).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(|error| format!("{}: {}", flag(&error.key), error.message)).collect();
            wrong_together("init", ErrorKind::ValueValidation, &lines.join("\n       "))
        })
    }
}

/// Returns the folder to fill, if it is not given. One that was filled before is filled again: another one inside it would get
/// another authority.
pub(super) fn folder(out: Option<&Path>, topology: Option<&Path>) -> PathBuf {
    let here = Path::new(".");
    let of_topology = topology.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    let mut candidates = of_topology.into_iter().chain([here]);
    let filled = candidates.find(|folder| init::is_filled(folder)).unwrap_or(Path::new(OUT));
    out.unwrap_or(filled).to_owned()
}

/// Returns the flag that sets this key.
fn flag(key: &str) -> String {
    let word = key.split('[').next().unwrap_or_default();
    match word {
        "edges" => "--edge".to_owned(),
        "game_servers" => "--game".to_owned(),
        "list_urls" => "--list-url".to_owned(),
        "core.address" => "--core".to_owned(),
        word => format!("--{}", word.replace(['_', '.'], "-")),
    }
}

/// Quotes any text as a YAML value.
fn quoted(text: &str) -> String {
    // JSON lets control characters stand that YAML does not.
    printable_json(&serde_json::Value::from(text).to_string()).into_owned()
}

fn lines(report: &init::InitReport, out: &Path) -> String {
    let text = of_files(report, |_| true);
    let out = out.display();
    if is_still(report) {
        format!("{text}{out}: nothing has changed\n")
    } else {
        format!("{text}{out}: done; {out}/README.md says what goes where, in order\n")
    }
}

/// Returns the lines of what is new, and a last one.
pub(super) fn changes(report: &init::InitReport, out: &Path) -> String {
    let text = of_files(report, |outcome| outcome != FileOutcome::Unchanged);
    format!("{text}{}: {}\n", out.display(), if is_still(report) { "nothing has changed" } else { "is up to date" })
}

/// Returns whether nothing was written.
fn is_still(report: &init::InitReport) -> bool {
    report.files.iter().all(|(_, outcome)| matches!(outcome, FileOutcome::Unchanged | FileOutcome::Edited))
}

/// Returns a line for each file that is `shown`, and the notes.
fn of_files(report: &init::InitReport, shown: impl Fn(FileOutcome) -> bool) -> String {
    let mut text = String::new();
    for (path, outcome) in report.files.iter().filter(|(_, outcome)| shown(*outcome)) {
        let more = match outcome {
            FileOutcome::Beside => format!(" by hand, and left so; the new one is {path}.new"),
            FileOutcome::Edited => " by hand, and left so; there is nothing new for it".to_owned(),
            _ => String::new(),
        };
        let _ = writeln!(text, "{outcome:<9} {path}{more}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}
