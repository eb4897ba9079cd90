//! `otproxy report pull`: the reports of all hosts, in one folder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Subcommand, ValueHint};
use serde_json::{Value, json as value};

use super::operate::width;
use super::text_table::TextTable;
use super::{print, print_raw, runtime, wrong_together};
use crate::admin::{TokenPurpose, read_token};
use crate::certs::roots::Roots;
use crate::pull::{Fetcher, FolderLock, OldReport, Pulled, PulledReport, ReportSource, pull, whole};
use otproxy_config as config;
use otproxy_protocol::printable::printable_json;

/// The shortest and the longest time for which a report counts as one of now.
const OLDEST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(24 * 60 * 60)];

#[derive(Debug, Subcommand)]
pub(super) enum Report {
    /// Fetch the reports of all edges into one folder, for lists of servers
    ///
    /// Each host gets a folder of its name in DIR, with the files that it writes itself, checked by their MD5. One line for each host; if
    /// one fails, the others are there all the same, and the exit code is 1. A report that is older than --max-age is no report of now: it is an
    /// error, and what lies in DIR is removed when it is that old.
    Pull(Pull),
}

#[derive(Debug, clap::Args)]
pub(super) struct Pull {
    /// The hosts, each with the URL of its listener of `kind: web`, as in waw1=https://p1.example
    #[arg(value_name = "NAME=URL", required_unless_present = "topology")]
    hosts: Vec<ReportSource>,
    /// The edges of this topology too, as `otproxy init` reads it, at their public addresses
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    topology: Option<PathBuf>,
    /// With --topology: the port of the edges' listeners of `kind: web` [default: that of the topology's `web`]
    #[arg(long, value_name = "PORT", requires = "topology", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// With --topology: the edges' listeners of `kind: web` have `tls`
    #[arg(long, requires = "topology")]
    https: bool,
    /// The folder that has a folder for each host
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    into: PathBuf,
    /// The file of the token that is in `report.token_file` there; it is sent over https, and within this host
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// The file of the authority that the certificates come from [default: those of the system]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// The time after which a report is too old
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = oldest)]
    max_age: Duration,
    /// One JSON object on stdout instead of lines
    #[arg(long)]
    json: bool,
}

/// Parses `--max-age`.
fn oldest(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| "write it as `90s` or `5m`".to_owned())?;
    let [least, most] = OLDEST;
    if (least..=most).contains(&time) { Ok(time) } else { Err("from 1s to 1day".to_owned()) }
}

impl Report {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let Self::Pull(pull) = self;
        pull.run()
    }
}

impl Pull {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let sources = self.sources()?;
        let token = self.token_file.as_deref().map(|file| read_token(file, TokenPurpose::Report)).transpose()?;
        let roots = sources.iter().any(|source| source.url.is_tls()).then(|| Roots { ca: self.ca.clone() });
        let fetcher = Fetcher::new(roots.as_ref(), token.as_deref()).map_err(anyhow::Error::msg)?;
        let folder = FolderLock::take(&self.into)?;
        let (runtime, signals) = runtime()?;
        let pulled = runtime.block_on(async {
            tokio::select! {
                pulled = pull(sources, fetcher, &folder, self.max_age) => Some(pulled),
                () = signals.caught() => None,
            }
        });
        // A name look-up that hangs would delay the end.
        runtime.shutdown_background();
        let Some(pulled) = pulled else { return Ok(ExitCode::FAILURE) };
        if self.json {
            print_raw(json(&pulled).as_bytes())?;
        } else {
            print(table(&pulled).text(width()).as_bytes())?;
        }
        Ok(if pulled.iter().all(|host| host.result.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn sources(&self) -> anyhow::Result<Vec<ReportSource>> {
        let mut sources = self.hosts.clone();
        if let Some(file) = &self.topology {
            let edges = ReportSource::of_topology(&config::load_topology(file)?, self.port, self.https);
            sources.extend(edges.map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?);
        }
        let mut names: Vec<_> = sources.iter().map(|source| source.name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        if let Some((name, _)) = names.iter().zip(names.iter().skip(1)).find(|(name, next)| name == next) {
            let message = format!("two hosts have the name `{name}`, and so the same folder; give each its own");
            return Err(wrong_together("report", ErrorKind::ArgumentConflict, &message).into());
        }
        Ok(sources)
    }
}

/// Returns the results for people.
fn table(pulled: &[Pulled]) -> TextTable {
    let mut table = TextTable::new(["HOST", ">ROWS", ">COUNTED", ">AGE", "STATE"]);
    for Pulled { source, result } in pulled {
        let cells = match result {
            Ok(PulledReport { rows, players, age }) => {
                let counted = players.map_or_else(none, |players| players.counted.to_string());
                [rows.to_string(), counted, age.map_or_else(none, |age| whole(age).to_string()), "ok".to_owned()]
            }
            Err((error, old)) => [none(), none(), none(), format!("{error}{}", of_old(*old))],
        };
        let [rows, counted, age, state] = cells;
        table.row([source.name.clone(), rows, counted, age, state]);
    }
    table
}

fn none() -> String {
    "-".to_owned()
}

fn of_old(old: OldReport) -> String {
    match old {
        OldReport::None => String::new(),
        OldReport::Kept(age) => format!("; the report of {} ago stays", whole(age)),
        OldReport::Removed => "; the last report was too old, and is removed".to_owned(),
    }
}

/// Returns the results for programs.
fn json(pulled: &[Pulled]) -> String {
    let hosts: Vec<Value> = pulled.iter().map(of_host).collect();
    let ok = pulled.iter().all(|host| host.result.is_ok());
    let mut text = value!({ "ok": ok, "hosts": hosts }).to_string();
    text.push('\n');
    printable_json(&text).into_owned()
}

fn of_host(Pulled { source, result }: &Pulled) -> Value {
    let (name, url) = (&source.name, source.url.to_string());
    match result {
        Ok(PulledReport { rows, players, age }) => value!({
            "name": name, "url": url, "ok": true, "rows": rows,
            "online": players.map(|players| players.online),
            "unique": players.map(|players| players.unique),
            "counted": players.map(|players| players.counted),
            "age_seconds": age.map(|age| age.as_secs()),
        }),
        Err((error, old)) => value!({
            "name": name, "url": url, "ok": false, "error": error.to_string(),
            "kept_age_seconds": match old { OldReport::Kept(age) => Some(age.as_secs()), _ => None },
            "removed": *old == OldReport::Removed,
        }),
    }
}
