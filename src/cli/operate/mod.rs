//! `otproxy status` and the other commands that query or control a running otproxy.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{ArgGroup, Subcommand, ValueEnum};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::{EXIT_CONFIG, print};
use crate::admin::api::{
    AddressesQuestion, AddressesView, ApiError, Banned, BansQuestion, BansView, ConnectionsQuestion, ConnectionsView,
    DisconnectRequest, Disconnected, DrainRequest, Drained, EdgeRequest, EdgeView, EdgesView, LONGEST_BAN,
    LONGEST_DRAIN, LONGEST_ORDER, ListenerState, ListenersView, MOST, Network, NewBan, NoQuestion, PageSize,
    ReloadRequest, Reloaded, RevokeRequest, Revoked, SessionsQuestion, SessionsView, StatusView, TargetRequest,
    TargetState, TargetView, TargetsView, Top, UnbanRequest, Unbanned, UndrainRequest,
};
use crate::admin::{AdminClient, ApiAnswer};
use otproxy_protocol::printable::{Printable, printable_json};

mod find;
mod human;
mod show;

use find::ApiLocation;
use show::Show;

/// The time between two looks at a drain.
const LOOK: Duration = Duration::from_millis(500);

/// What flags all of these have.
#[derive(Debug, clap::Args)]
pub(super) struct ApiFlags {
    #[command(flatten)]
    place: ApiLocation,
    /// Print the answer as it is in the admin API, JSON, instead of a table
    #[arg(long)]
    json: bool,
}

/// What to ask an otproxy that runs, or to have it do.
#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Show how an otproxy that runs is doing
    ///
    /// It is found by --socket, --url or -c, and without them at the places where the units have it.
    Status {
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Show its listeners: what they have taken, refused and carried
    Listeners {
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Show the targets of its listeners, and whether they are up
    Targets {
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Show open connections, newest first
    Connections {
        /// Only those of this listener
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// Only those of players in this address or CIDR
        #[arg(long, value_name = "NETWORK")]
        address: Option<Network>,
        /// At the most [default: 100]
        #[arg(long, value_name = "N", value_parser = most)]
        limit: Option<usize>,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Show the sessions of a core with their links, newest first
    Sessions {
        /// Only those of this client
        #[arg(long, value_name = "ID")]
        client: Option<u32>,
        /// Only those of players in this address or CIDR
        #[arg(long, value_name = "NETWORK")]
        address: Option<Network>,
        /// At the most [default: 100]
        #[arg(long, value_name = "N", value_parser = most)]
        limit: Option<usize>,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Show the edges that a core knows: their states, what clients are told of them, and their connections
    Edges {
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Show the player addresses that have the most open
    Addresses {
        /// What they have the most of
        #[arg(long, value_enum, default_value_t = TopBy::Connections)]
        by: TopBy,
        /// At the most [default: 20]
        #[arg(long, value_name = "N", value_parser = most)]
        limit: Option<usize>,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Show who is banned, longest first
    Bans {
        /// Only bans that hold a part of this address or CIDR
        #[arg(long, value_name = "NETWORK")]
        address: Option<Network>,
        /// At the most [default: 100]
        #[arg(long, value_name = "N", value_parser = most)]
        limit: Option<usize>,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Refuse an address or a CIDR for a while
    Ban {
        /// An address or a CIDR
        network: Network,
        /// For how long, as in `30m` [default: bans.for of the file]
        #[arg(long = "for", value_name = "DURATION", value_parser = ban_time)]
        lasts: Option<u32>,
        /// Close what it has open, too
        #[arg(long)]
        disconnect: bool,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// End the bans of an address or a CIDR, and of all in it
    Unban {
        /// An address or a CIDR
        network: Network,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Throw out an edge at once, as one whose key is stolen
    ///
    /// For a core. What the edge has open is closed, and it is refused over reloads, until --undo or a restart: so write
    /// `revoked: true` into the file as well. No file is read for it.
    Revoke {
        /// The edge, as `edges` in the core's file names it
        edge: String,
        /// Let it in again, as the file says
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Close connections, and end sessions
    ///
    /// A player comes back at once, unless banned as well: see `otproxy ban --disconnect`.
    #[command(group(ArgGroup::new("what").required(true).multiple(true).args(["connection", "listener", "address", "edge", "client"])))]
    Disconnect {
        /// The connection with this id; a session that it carries goes on over its other links
        #[arg(long, value_name = "ID", conflicts_with_all = ["listener", "address", "edge", "client"])]
        connection: Option<u64>,
        /// All connections of this listener
        #[arg(long, value_name = "NAME", conflicts_with = "client")]
        listener: Option<String>,
        /// All connections and sessions of players in this address or CIDR; with --listener only its connections
        #[arg(long, value_name = "NETWORK", conflicts_with = "client")]
        address: Option<Network>,
        /// At a core: all connections that came through this edge
        #[arg(long, value_name = "NAME", conflicts_with_all = ["listener", "address", "client"])]
        edge: Option<String>,
        /// All links and sessions of this client
        #[arg(long, value_name = "ID")]
        client: Option<u32>,
        /// Only this session of the client, and none of its links
        #[arg(long, value_name = "ID", requires = "client")]
        session: Option<u32>,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Refuse new connections, of one listener or of all, and let those go on that are there
    Drain {
        /// The listener; all of them without it, and `/ready` says no
        listener: Option<String>,
        /// Close those that are left after so long, as in `5m`
        #[arg(long, value_name = "DURATION", value_parser = drain_time)]
        deadline: Option<u32>,
        /// Wait until none is left
        #[arg(long)]
        wait: bool,
        /// At a core: have this edge do it, through the tunnel
        #[arg(long, value_name = "NAME", conflicts_with = "wait")]
        edge: Option<String>,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Take connections again, on one listener or on all
    Undrain {
        /// The listener; all of them without it
        listener: Option<String>,
        /// At a core: have this edge do it, through the tunnel
        #[arg(long, value_name = "NAME")]
        edge: Option<String>,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Say whether a target has connections: `ready` if it is up, `drain` no new ones, `maint` nor checks
    Target {
        /// The listener
        listener: String,
        /// The target: its name, or its place in the list, from 1
        target: String,
        /// What is wanted of it
        #[arg(value_enum)]
        state: TargetState,
        #[command(flatten)]
        asking: ApiFlags,
    },
    /// Have it read its file again
    ///
    /// Exit code 78 if the file is wrong, with everything that is; all goes on as before then.
    Reload {
        #[command(flatten)]
        asking: ApiFlags,
    },
}

/// `--by`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TopBy {
    /// Connections
    Connections,
    /// Bytes, in both directions together
    Bytes,
}

/// The output of a command.
pub(super) struct Said {
    code: u8,
    /// The part for stdout.
    out: Box<dyn Show>,
    /// The part for stderr.
    err: String,
}

/// Runs a command that asks, and prints what it says.
pub(super) fn run(asking: impl Future<Output = anyhow::Result<Said>>) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let said = runtime.block_on(asking);
    // A name look-up that hangs would delay the end.
    runtime.shutdown_background();
    let Said { code, out, err } = said?;
    let _ = io::stderr().write_all(err.as_bytes());
    print(out.show(width()).as_bytes())?;
    Ok(ExitCode::from(code))
}

impl Operate {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        run(self.ask())
    }

    async fn ask(&self) -> anyhow::Result<Said> {
        match self {
            Self::Status { asking } => asking.see::<StatusView>("status", &NoQuestion {}).await,
            Self::Listeners { asking } => asking.see::<ListenersView>("listeners", &NoQuestion {}).await,
            Self::Targets { asking } => asking.see::<TargetsView>("targets", &NoQuestion {}).await,
            Self::Connections { listener, address, limit, asking } => {
                let (listener, limit) = (listener.clone(), at_most(*limit));
                asking
                    .see::<ConnectionsView>("connections", &ConnectionsQuestion { listener, address: *address, limit })
                    .await
            }
            Self::Sessions { client, address, limit, asking } => {
                let question = SessionsQuestion { client: *client, address: *address, limit: at_most(*limit) };
                asking.see::<SessionsView>("sessions", &question).await
            }
            Self::Edges { asking } => asking.see::<EdgesView>("edges", &NoQuestion {}).await,
            Self::Addresses { by, limit, asking } => {
                let by = match by {
                    TopBy::Connections => Top::Connections,
                    TopBy::Bytes => Top::Bytes,
                };
                asking.see::<AddressesView>("addresses", &AddressesQuestion { by, limit: at_most(*limit) }).await
            }
            Self::Bans { address, limit, asking } => {
                asking.see::<BansView>("bans", &BansQuestion { address: *address, limit: at_most(*limit) }).await
            }
            Self::Ban { network, lasts, disconnect, asking } => {
                let ban = NewBan { network: *network, for_seconds: *lasts, disconnect: *disconnect };
                asking.act::<Banned>("ban", &ban).await
            }
            Self::Unban { network, asking } => {
                asking.act::<Unbanned>("unban", &UnbanRequest { network: *network }).await
            }
            Self::Revoke { edge, undo, asking } => {
                asking.act::<Revoked>("revoke", &RevokeRequest { edge: edge.clone(), undo: *undo }).await
            }
            Self::Disconnect { connection, listener, address, edge, client, session, asking } => {
                let request = DisconnectRequest {
                    connection: *connection,
                    listener: listener.clone(),
                    address: *address,
                    edge: edge.clone(),
                    client: *client,
                    session: *session,
                };
                asking.act::<Disconnected>("disconnect", &request).await
            }
            Self::Drain { listener, deadline, wait, edge, asking } => {
                let request =
                    DrainRequest { listener: listener.clone(), deadline_seconds: *deadline, edge: edge.clone() };
                asking.drain(&request, *wait).await
            }
            Self::Undrain { listener, edge, asking } => {
                let request = UndrainRequest { listener: listener.clone(), edge: edge.clone() };
                asking.act::<Drained>("undrain", &request).await
            }
            Self::Target { listener, target, state, asking } => {
                let request = TargetRequest { listener: listener.clone(), target: target.clone(), state: *state };
                asking.act::<TargetView>("target", &request).await
            }
            Self::Reload { asking } => asking.act::<Reloaded>("reload", &ReloadRequest {}).await,
        }
    }
}

impl ApiFlags {
    /// Returns the file of `--config`.
    ///
    /// # Errors
    /// Returns a flag that has no meaning without a question.
    pub(super) fn only_config(&self) -> Result<Option<&Path>, &'static str> {
        if self.json { Err("--json") } else { self.place.only_config() }
    }

    /// Shows one edge of a core.
    pub(super) async fn see_edge(&self, name: &str) -> anyhow::Result<Said> {
        let client = self.place.client().await?;
        let answer = client.get("/api/v1/edges").await.with_context(|| unreachable(&client))?;
        if answer.status != 200 {
            return self.tell::<EdgesView>(&answer);
        }
        let edges = parse::<EdgesView>(&answer)?.edges;
        let names: Vec<_> = edges.iter().map(|edge| edge.name.clone()).collect();
        let Some(edge) = edges.into_iter().find(|edge| edge.name == name) else {
            return Err(anyhow!("there is no edge `{name}`; the edges are: {}", names.join(", ")));
        };
        let body = serde_json::to_vec(&edge).context("cannot show it")?;
        self.tell::<EdgeView>(&ApiAnswer { status: 200, body: body.into() })
    }

    /// Has a core go by a word on one of its edges.
    pub(super) async fn act_on_edge(&self, request: &EdgeRequest) -> anyhow::Result<Said> {
        self.act::<EdgeView>("edge", request).await
    }

    async fn see<A: DeserializeOwned + Show + 'static>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> anyhow::Result<Said> {
        let client = self.place.client().await?;
        let query = serde_urlencoded::to_string(question).context("cannot ask that")?;
        let answer = client.get(&format!("/api/v1/{path}?{query}")).await.with_context(|| unreachable(&client))?;
        self.tell::<A>(&answer)
    }

    async fn act<A: DeserializeOwned + Show + 'static>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> anyhow::Result<Said> {
        self.tell::<A>(&post(&self.place.client().await?, path, request).await?)
    }

    async fn drain(&self, request: &DrainRequest, wait: bool) -> anyhow::Result<Said> {
        let client = self.place.client().await?;
        let answer = post(&client, "drain", request).await?;
        if !wait || answer.status != 200 {
            return self.tell::<Drained>(&answer);
        }
        let drained: Drained = parse(&answer)?;
        let names: Vec<_> = drained.listeners.into_iter().map(|listener| listener.name).collect();
        let shows = io::stderr().is_terminal();
        let answer = loop {
            let answer = client.get("/api/v1/listeners").await.with_context(|| unreachable(&client))?;
            if answer.status != 200 {
                return self.tell::<ListenersView>(&answer);
            }
            let listeners = parse::<ListenersView>(&answer)?.listeners;
            let left = listeners.iter().filter(|listener| names.contains(&listener.name));
            let left: Vec<_> = left.filter(|listener| listener.connections.open > 0).collect();
            if let Some(listener) = left.iter().find(|listener| listener.state == ListenerState::Open) {
                return Err(anyhow!("listener `{}` takes connections again: somebody has undrained it", listener.name));
            }
            let open: u64 = left.iter().map(|listener| listener.connections.open).sum();
            if shows {
                // The terminal, and its reader, may be gone by now.
                let _ = write!(io::stderr(), "\r{} connections left   ", human::count(open));
            }
            if left.is_empty() {
                break answer;
            }
            sleep(LOOK).await;
        };
        if shows {
            let _ = writeln!(io::stderr());
        }
        self.tell::<ListenersView>(&answer)
    }

    /// Returns the output for an answer. A refusal goes to stderr, for people, and is a failure.
    fn tell<A: DeserializeOwned + Show + 'static>(&self, answer: &ApiAnswer) -> anyhow::Result<Said> {
        let json = || format!("{}\n", printable_json(&String::from_utf8_lossy(&answer.body)));
        if answer.status == 200 {
            let out: Box<dyn Show> = if self.json { Box::new(json()) } else { Box::new(parse::<A>(answer)?) };
            return Ok(Said { code: 0, out, err: String::new() });
        }
        let refusal: ApiError = parse(answer)?;
        let code = if refusal.errors.is_empty() { 1 } else { EXIT_CONFIG };
        if self.json {
            return Ok(Said { code, out: Box::new(json()), err: String::new() });
        }
        let mut err = format!("otproxy: {}; {}\n", Printable(refusal.error), Printable(refusal.remedy));
        refusal.errors.iter().for_each(|error| err.push_str(&format!("{}\n", Printable(error))));
        Ok(Said { code, out: Box::new(String::new()), err })
    }
}

async fn post(client: &AdminClient, path: &str, request: &impl Serialize) -> anyhow::Result<ApiAnswer> {
    let body = serde_json::to_string(request).context("cannot ask that")?;
    client.post(&format!("/api/v1/{path}"), body).await.with_context(|| unreachable(client))
}

fn unreachable(client: &AdminClient) -> String {
    format!("otproxy at {} cannot be asked; does it run, and may this user reach it?", client.place())
}

fn parse<T: DeserializeOwned>(answer: &ApiAnswer) -> anyhow::Result<T> {
    let what = || format!("what answers (status {}) is no otproxy, or one of another version", answer.status);
    serde_json::from_slice(&answer.body).with_context(what)
}

/// Returns the columns of the terminal that is printed to; `None` if it is none: what is piped is for programs.
pub(super) fn width() -> Option<usize> {
    let stdout = io::stdout();
    let size = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col);
    stdout.is_terminal().then(|| columns(env::var("COLUMNS").ok().as_deref(), size()))
}

/// Returns the columns by the variable of the environment, else by the terminal, else those that most have.
fn columns(variable: Option<&str>, terminal: Option<u16>) -> usize {
    let variable = variable.and_then(|columns| columns.parse().ok());
    let known = [variable, terminal].into_iter().flatten().find(|columns| *columns > 0);
    usize::from(known.unwrap_or(80))
}

fn at_most<const DEFAULT: usize>(limit: Option<usize>) -> PageSize<DEFAULT> {
    limit.and_then(PageSize::new).unwrap_or_default()
}

/// Parses `--limit`.
fn most(text: &str) -> Result<usize, String> {
    let items = text.parse().ok().filter(|items| (1..=MOST).contains(items));
    items.ok_or_else(|| format!("a list has 1 to {MOST} items"))
}

/// Parses `ban --for`.
fn ban_time(text: &str) -> Result<u32, String> {
    seconds(text, 1, LONGEST_BAN)
}

/// Parses `edge --for`.
pub(super) fn order_time(text: &str) -> Result<u32, String> {
    seconds(text, 1, LONGEST_ORDER)
}

/// Parses `drain --deadline`.
fn drain_time(text: &str) -> Result<u32, String> {
    seconds(text, 0, LONGEST_DRAIN)
}

fn seconds(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let time = humantime::parse_duration(text).map_err(|_| "write it as `30s`, `10m` or `2h`".to_owned())?;
    let seconds = u32::try_from(time.as_secs()).ok().filter(|seconds| (least..=most).contains(seconds));
    let seconds = seconds.filter(|_| time.subsec_nanos() == 0);
    seconds.ok_or_else(|| format!("it has whole seconds, from {least}s to {}", human::round(most)))
}

#[cfg(test)]
mod tests;
