//! Commands, flags and exit codes.
//!
//! Data goes to stdout, logs and errors to stderr. Exit codes: 0; 1 if a command could not run, the demo or a load test
//! failed, a ping was not answered, players would not get in, or a certificate has expired; 2 for unknown flags; 78 for an invalid configuration.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::handover::{self, DescriptorStore, Left};
use crate::roles::{self, Control};
use crate::state::StateDir;
use crate::stderr;
use crate::unit;
use otproxy_config as config;
use otproxy_config::{Config, ConfigErrors, LogFormat, LogLevel, RestartMode};
use otproxy_protocol::printable::{Printable, printable_lines};

mod alert;
mod bench;
mod cert;
mod demo;
mod deploy;
mod doctor;
mod edge;
mod files;
mod init;
mod log;
mod man;
mod notify;
mod operate;
mod ping;
mod player_sources;
mod probe;
mod report;
mod signals;
mod text_table;
mod upgrade;

pub use files::{files_needed, raise_file_limit};

use bench::Bench;
use demo::Demo;
use deploy::Deploy;
use notify::{NotifyState, notify};
use ping::Ping;
use player_sources::try_player_sources;
use probe::Probe;
use signals::{Requests, Signals};
use upgrade::Upgrade;

/// The exit code of an invalid configuration: `EX_CONFIG` of sysexits.h. The systemd units do not restart after it.
const EXIT_CONFIG: u8 = 78;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "otproxy", version, about, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "Exit codes: 0; 1 where it could not run; 2 for wrong flags; 78 for a wrong configuration.")]
pub struct Cli {
    /// How logs on stderr look: text on a terminal and JSON otherwise, or always one of them
    #[arg(long, global = true, value_name = "FORMAT", env = "OTPROXY_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// The least important lines that are logged
    #[arg(long, global = true, value_name = "LEVEL", env = "OTPROXY_LOG_LEVEL")]
    log_level: Option<LogLevel>,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run an edge: forward players' connections to the core. With a name: show or steer one that a core knows
    ///
    /// `otproxy edge -c edge.yaml` runs one. `otproxy edge waw1`, where the core runs, shows what the core knows of the edge of that name;
    /// `otproxy edge waw1 out --for 2h --why "the provider is at work"` has clients told of it no more, `in` has them told of it however it
    /// does, and `auto` leaves it to the core again. Links that an edge has go on in any case, and the word holds over restarts.
    Edge(edge::Edge),
    /// Run the core: relay sessions to the game servers, forward login and status
    Core(ConfigFile),
    /// Take over from the edge or core that runs, with its connections, and be it from then on
    ///
    /// For hosts without systemd, where `systemctl restart` does the same. The new program is started beside the one that runs, with the
    /// same file or a new one, and as the same user. It has everything ready, is given listening sockets, sessions and connections over
    /// `admin.socket`, and the other one ends with exit code 0. If anything goes wrong before that, the other one goes on as if
    /// nothing had happened, and this one ends with the reason.
    Upgrade(Upgrade),
    /// Check a configuration file: print every error, or one line that says what would run
    Check(ConfigFile),
    /// Make the files of all hosts from one short topology: configuration, certificates, units, firewalls
    ///
    /// Give the topology as a file or with flags, or answer its questions on a terminal. Each host gets a folder, which
    /// `otproxy deploy` puts there. Running it again writes what has changed and nothing else; it overwrites no key, and no file that
    /// was edited.
    Init(init::Init),
    /// Put the folder of `otproxy init` onto its hosts, over ssh
    ///
    /// It runs `otproxy init` first, so an edge more is a line in the topology and this. Each host gets the program, its files and
    /// its firewall, which the host undoes by itself unless a second connection confirms it; then `otproxy doctor` runs there. What is
    /// in place is skipped, so it can be run again whatever happened. Nobody is disconnected.
    Deploy(Deploy),
    /// Try from here what a file needs: addresses, certificates, the tunnel, game servers
    ///
    /// One line for each thing, with the remedy where something is wrong; it takes seconds at most, and changes
    /// nothing. Exit code 1 if anything fails.
    Doctor(doctor::Doctor),
    /// Ping edges over links, as a player's client does: through the edge to the core and back
    ///
    /// It opens a link to each address of each edge and no session, so nobody is in the game for it. A line for each ping, then
    /// the round trips and what was lost, with remedies. Exit code 1 if any ping was not answered.
    Ping(Ping),
    /// Look at a set-up from a player's side: links, the edges that a client would choose, login, status
    ///
    /// From a host that is none of yours. One line for each thing, with the remedy if something is wrong; nobody is in the game for it.
    /// Exit code 1 if players would not get in, or if the core given with --core can be reached.
    Probe(Probe),
    /// Try the webhook that owners are told by
    #[command(subcommand)]
    Alert(alert::Alert),
    /// Work with the reports that edges write for lists of servers
    #[command(subcommand)]
    Report(report::Report),
    #[command(flatten)]
    Operate(operate::Operate),
    /// Make, renew and show the certificates that the core and the edges know each other by
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Play the whole topology on this machine, and cut edges while it runs
    ///
    /// A stand-in game server, a core, edges and multi-path players on free loopback ports. Ends with
    /// what was sent, delivered, lost, duplicated and reordered; exit code 1 if any of the last three
    /// is not zero.
    Demo(Demo),
    /// Test how much edges and a core carry: players with links, and a stand-in game server
    ///
    /// Name the edges that players connect to, and a port in `game_servers` of core.yaml that leads to
    /// the stand-in: `--serve` plays it in the same process, or alone on another host, until Ctrl-C. Each
    /// packet is sent at its time, whatever became of those before, and latencies count from that time.
    /// Exit code 1 if anything was lost, duplicated or reordered, or a session ended.
    Bench(Bench),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page of otproxy or of a command, as roff
    ///
    /// See it with `otproxy man target | man -l -`, or install all of them with --dir.
    Man(man::Man),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file, YAML
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: PathBuf,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Also if a panic ends it.
    let _flush = FlushedLog;
    let cli = match Cli::parse_these(arguments) {
        Ok(cli) => cli,
        Err(error) => return wrong_flags(&error),
    };
    let error = match cli.execute() {
        Ok(code) => return code,
        Err(error) => error,
    };
    if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
        stderr::write(printable_lines(&format!("{errors}\n")).as_bytes());
        ExitCode::from(EXIT_CONFIG)
    } else if let Some(error) = error.downcast_ref::<clap::Error>() {
        wrong_flags(error)
    } else {
        stderr::write(printable_lines(&format!("otproxy: {}\n", chain(&error))).as_bytes());
        ExitCode::FAILURE
    }
}

/// Returns an error and its causes in one line. A cause that an error has in its own text stands there once.
fn chain(error: &anyhow::Error) -> String {
    let mut said = Vec::<String>::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.last().is_none_or(|before| !before.contains(&cause)) {
            said.push(cause);
        }
    }
    said.join(": ")
}

/// A guard that waits for the last lines of the log.
struct FlushedLog;

impl Drop for FlushedLog {
    fn drop(&mut self) {
        stderr::flush();
    }
}

fn wrong_flags(error: &clap::Error) -> ExitCode {
    // If it cannot be printed there is nobody to read it.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

impl Cli {
    /// Parses a command line. A variable of the environment that is there and empty is as good as none.
    fn parse_these(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let command = Self::command().mut_args(|argument| {
            let empty = argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            if empty { argument.env(None::<&str>) } else { argument }
        });
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    fn execute(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::Edge(edge) => match edge.file()? {
                Some(file) => self.serve(file, Config::Edge(config::load_edge(file)?), None),
                None => edge.ask(),
            },
            Command::Core(ConfigFile { config }) => self.serve(config, Config::Core(config::load_core(config)?), None),
            Command::Upgrade(upgrade) => self.serve(upgrade.file(), upgrade.load()?, Some(upgrade)),
            Command::Check(ConfigFile { config }) => check(config),
            Command::Demo(demo) => {
                self.log_errors();
                demo.run()
            }
            Command::Bench(bench) => {
                self.log_errors();
                bench.run()
            }
            Command::Init(init) => init.run(),
            Command::Deploy(deploy) => deploy.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Ping(ping) => ping.run(),
            Command::Probe(probe) => probe.run(),
            Command::Alert(alert) => alert.run(),
            Command::Report(report) => report.run(),
            Command::Operate(operate) => operate.run(),
            Command::Cert(cert) => cert.execute(),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "otproxy", &mut script);
                print_raw(&script)
            }
            Command::Man(man) => man.run(),
        }
    }

    /// Starts the log of a command whose findings are no log lines.
    fn log_errors(&self) {
        log::start(self.log_format.unwrap_or(LogFormat::Auto), self.log_level.unwrap_or(LogLevel::Error));
    }

    /// Runs a role, configured by `file`, until a signal; in place of a process that runs, if this is an upgrade.
    fn serve(&self, file: &Path, config: Config, upgrade: Option<&Upgrade>) -> anyhow::Result<ExitCode> {
        // Before there are other threads.
        let left = if upgrade.is_some() { Ok(Left::Nothing) } else { handover::left() };
        let process = config.process();
        let format = self.log_format.unwrap_or(process.log.format);
        let log = log::start(format, self.log_level.unwrap_or(process.log.level));
        let (limit, level) = (raise_file_limit(), self.log_level);
        warn_of_files(limit, &config);
        warn_of_stock_servers(&config);
        // It is lost if it cannot be had, and players come again.
        let left = left.unwrap_or_else(|error| {
            error!(%error, "what the last process has left cannot be taken over");
            Left::Nothing
        });
        let (runtime, signals) = runtime()?;
        let requests = {
            let _inside = runtime.enter();
            Requests::catch().context("cannot catch signals")?
        };
        let store = DescriptorStore::there();
        let mut service = match upgrade {
            None => roles::succeed(config.clone(), left, store.clone())?,
            Some(upgrade) => {
                let predecessor = runtime.block_on(upgrade.call(&config))?;
                roles::succeed_beside(config.clone(), predecessor).context(roles::GOES_ON)?
            }
        };
        if store.is_none() && std::env::var_os("NOTIFY_SOCKET").is_some() && ends_games(&config) {
            warn!(
                "this unit has no store of descriptors, so a restart ends every game: take the unit that is shipped, or its lines \
                 FileDescriptorStoreMax= and Environment=FDSTORE="
            );
        }
        service.leave_in(store);
        stderr::count_lost(service.log_dropped());
        let listeners: Vec<_> = service.listeners().map(|(name, addresses)| listener(name, addresses)).collect();
        let admin = service.admin_address().map_or_else(|| "off".to_owned(), |address| address.to_string());
        let admin_socket = service.admin_socket().map_or_else(|| "off".to_owned(), |path| path.display().to_string());
        let control = service.control();
        control.set_file(file.to_owned(), move |config| {
            log.set_level(level.unwrap_or(config.process().log.level));
            warn_of_files(limit, config);
            warn_of_stock_servers(config);
        });
        let stop = async {
            // From here on connections that wait in the kernel are accepted: the workers are starting.
            info!(role = %config.role(), name = process.name, listeners = listeners.join(", "), admin, admin_socket, "ready");
            notify(NotifyState::Ready);
            try_player_sources(&config);
            let _reloads = AbortOnDropHandle::new(tokio::spawn(reload_at(requests, control)));
            signals.caught().await;
            notify(NotifyState::Stopping);
        };
        let ran = runtime.block_on(service.run(stop)).context("cannot run");
        // A name look-up that hangs does not delay the end.
        runtime.shutdown_background();
        ran?;
        info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes the error of flags that are only wrong together, in the parser's form.
fn wrong_together(command: &str, kind: ErrorKind, message: &str) -> clap::Error {
    let mut cli = Cli::command();
    cli.build();
    let command = cli.find_subcommand_mut(command);
    command.map_or_else(Cli::command, |command| command.clone()).error(kind, message)
}

/// Warns if the limit of open files is too low for what a configuration allows.
fn warn_of_files(limit: u64, config: &Config) {
    let needed = files_needed(config);
    if limit < needed {
        warn!(
            limit,
            needed, "too few open files are allowed for the configured limits; raise LimitNOFILE or `ulimit -Hn`"
        );
    }
}

/// Returns whether games end with the process, though the file says that the next one is to go on with them.
fn ends_games(config: &Config) -> bool {
    matches!(config, Config::Core(core) if !core.game_servers.is_empty() && core.process.restart == RestartMode::Keep)
}

/// Warns of servers to which all players seem to be one.
fn warn_of_stock_servers(config: &Config) {
    for config::StockServerWarning { path, message, remedy, .. } in config.stock_server_warnings() {
        warn!(key = path, "{message}; {remedy}");
    }
}

/// Reads the configuration again at each signal that asks for it, forever.
async fn reload_at(mut requests: Requests, control: Control) {
    loop {
        requests.reload().await;
        notify(NotifyState::Reloading);
        // The result is in the log.
        let _ = control.reload().await;
        notify(NotifyState::Ready);
    }
}

fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let config = config::load(file)?;
    let soon = match roles::check_files(&config) {
        Ok(soon) => soon,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}: {}", file.display(), Printable(error));
            return Ok(ExitCode::from(EXIT_CONFIG));
        }
    };
    soon.iter().for_each(|soon| drop(writeln!(io::stderr(), "{}: warning: {}", file.display(), Printable(soon))));
    // Whoever runs this may read what the service may not.
    let unreadable = unit::unreadable(&config, file);
    if !unreadable.is_empty() {
        unreadable.iter().for_each(|unreadable| drop(writeln!(io::stderr(), "{}", Printable(unreadable))));
        return Ok(ExitCode::from(EXIT_CONFIG));
    }
    if let Err(error) = StateDir::new(config.process().state_dir.as_deref()).check() {
        let _ = writeln!(io::stderr(), "{}: warning: state_dir: {}", file.display(), Printable(error));
    }
    for config::StockServerWarning { path, message, remedy, .. } in config.stock_server_warnings() {
        let _ = writeln!(io::stderr(), "{}: warning: {path}: {message}; {remedy}", file.display());
    }
    print(format!("{}: ok: {}\n", file.display(), config.summary()).as_bytes())
}

fn listener(name: &str, addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().fold(name.to_owned(), |text, address| format!("{text} {address}"))
}

/// Builds the runtime of the main thread, and catches the process's signals from now on.
fn runtime() -> anyhow::Result<(Runtime, Signals)> {
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let signals = {
        let _inside = runtime.enter();
        Signals::catch().context("cannot catch signals")?
    };
    Ok((runtime, signals))
}

/// Returns whether colours are wanted on a stream: it is a terminal that has some, and nobody has set NO_COLOR.
fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && wants_colours(|name| std::env::var_os(name))
}

/// Returns whether these variables of the environment allow colours: see <https://no-color.org>.
fn wants_colours(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty()) && variable("TERM").is_none_or(|term| term != "dumb")
}

/// Writes text for people to stdout. A part of it may come from a file or another host.
fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    print_raw(printable_lines(&String::from_utf8_lossy(text)).as_bytes())
}

/// Writes to stdout as it is. A reader that has closed it is no failure.
fn print_raw(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_an_error_is_said_twice() {
        let file = std::path::Path::new("/nonexistent/token");
        let admin = otproxy_config::AdminConfig { token_file: Some(file.to_owned()), ..Default::default() };
        let error = anyhow::Error::from(crate::admin::check_files(&admin, None).unwrap_err()).context("cannot start");
        let said = chain(&error);
        assert!(said.starts_with("cannot start: admin: /nonexistent/token: cannot be read: No such file"), "{said}");
        assert_eq!(said.matches("cannot be read").count(), 1, "{said}");
        // An error whose text leaves its cause out.
        let plain = anyhow::Error::from(io::Error::other("why")).context("cannot run");
        assert_eq!(chain(&plain), "cannot run: why");
    }

    #[test]
    fn colours_are_left_out_where_nobody_wants_them() {
        let with = |name, value: &str| wants_colours(|asked| (asked == name).then(|| value.into()));
        assert!(wants_colours(|_| None) && with("TERM", "xterm-256color"));
        assert!(with("NO_COLOR", ""), "an empty variable is as good as none");
        assert!(!with("NO_COLOR", "1") && !with("TERM", "dumb"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
