//! `otproxy probe`: a set-up, looked at from a player's side.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueHint;
use clap::error::ErrorKind;

use super::ping::edge;
use super::{colours, print_raw, runtime, wrong_together};
use crate::doctor::{self, EdgeList, EdgePorts, HiddenCore, MAX_LIST, Outside};
use otproxy_config as config;
use otproxy_config::{GAME_PORT, HostPort, LINKS_PORT, LOGIN_PORT, MAX_CLIENT_EDGES, TUNNEL_PORT};

#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// The edges, as clients are told them; port 7162 unless given
    #[arg(value_name = "HOST[:PORT]", value_parser = edge, required_unless_present_any = ["topology", "list"])]
    edges: Vec<HostPort>,
    /// The edges of this topology instead, as `otproxy init` reads it, with the ports that it has
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["edges", "list"])]
    topology: Option<PathBuf>,
    /// The edges of this list instead, JSON as clients fetch it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "edges")]
    list: Option<PathBuf>,
    /// The core's host, which must not be reachable from here; a port given with it is tried as well
    #[arg(long, value_name = "HOST[:PORT]", value_parser = edge)]
    core: Option<HostPort>,
    /// The edges' port for logins without links [default: 7171]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    login_port: Option<u16>,
    /// The edges' port for requests for the status [default: that of logins, or of the topology's `status`]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    status_port: Option<u16>,
    /// A port of the edges for games without links; nobody logs in [default: those of the topology]; once for each world
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    game_port: Vec<u16>,
    /// One JSON object on stdout instead of lines
    #[arg(long)]
    json: bool,
}

impl Probe {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let outside = self.outside()?;
        let (runtime, signals) = runtime()?;
        let report = runtime.block_on(async {
            tokio::select! {
                report = doctor::examine_outside(outside) => Some(report),
                () = signals.caught() => None,
            }
        });
        // A name look-up that hangs would delay the end.
        runtime.shutdown_background();
        let Some(report) = report else { return Ok(ExitCode::FAILURE) };
        let text = if self.json {
            doctor::outside_json(&report)
        } else {
            doctor::text(&report.checks, colours(&io::stdout()))
        };
        print_raw(text.as_bytes())?;
        Ok(if doctor::passed(&report.checks) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Returns the things to look at.
    fn outside(&self) -> anyhow::Result<Outside> {
        let topology = self.topology.as_deref().map(config::load_topology).transpose()?;
        let list = match (&topology, &self.list) {
            (Some(topology), _) => {
                EdgeList::of(topology.live().map(|edge| HostPort { host: edge.public.clone(), port: LINKS_PORT }))
            }
            (None, Some(file)) => of_file(file)?,
            (None, None) => EdgeList::of(self.edges.iter().cloned()),
        };
        if list.edges.len() > MAX_CLIENT_EDGES {
            let message =
                format!("{} edges are too many for a client; {MAX_CLIENT_EDGES} are the most", list.edges.len());
            return Err(wrong_together("probe", ErrorKind::TooManyValues, &message).into());
        }
        if list.edges.is_empty() {
            bail!("every edge of the topology is revoked");
        }
        let login_port = self.login_port.unwrap_or(LOGIN_PORT);
        let own_status = topology.as_ref().and_then(|topology| topology.status.as_ref()).map(|status| status.port);
        let tunnel_port = topology.as_ref().map_or(TUNNEL_PORT, |topology| topology.tunnel_port);
        let core = self.core.as_ref().map(|core| {
            let mut ports = vec![LINKS_PORT, LOGIN_PORT, GAME_PORT, tunnel_port, core.port];
            ports.extend(topology.iter().flat_map(|topology| &topology.worlds).map(|world| world.address.port));
            HiddenCore { host: core.host.clone(), ports }
        });
        let games = match &topology {
            Some(topology) if self.game_port.is_empty() => {
                topology.forwarded_worlds().map(|world| world.port).collect()
            }
            _ => self.game_port.clone(),
        };
        let status = self.status_port.or(own_status).unwrap_or(login_port);
        Ok(Outside { list, ports: EdgePorts { login: login_port, status, games }, core })
    }
}

/// Reads a list as far as it may go.
fn of_file(file: &Path) -> anyhow::Result<EdgeList> {
    let shown = file.display();
    let mut text = Vec::new();
    let most = u64::try_from(MAX_LIST).unwrap_or(u64::MAX);
    let read = File::open(file).and_then(|opened| opened.take(most.saturating_add(1)).read_to_end(&mut text));
    read.with_context(|| format!("cannot read {shown}"))?;
    if text.len() > MAX_LIST {
        bail!("{shown}: is no list of edges: it has more than {MAX_LIST} bytes");
    }
    doctor::read_list(&text).map_err(|error| anyhow::anyhow!("{shown}: {error}"))
}
