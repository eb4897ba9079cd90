//! Commands, flags and exit codes.
//!
//! Data goes to stdout, logs and errors to stderr. Exit codes: 0; 1 where a command could not run or
//! the demo failed; 2 for flags that do not exist; 78 for a wrong configuration.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use crate::config::{self, Config, Errors, LogFormat, LogLevel};
use crate::demo::{self, DemoOptions};
use crate::roles::{self, Service};

mod files;
mod log;
mod signals;

pub use files::{files_needed, raise_file_limit};

use signals::Signals;

/// A wrong configuration: `EX_CONFIG` of sysexits.h. The systemd units do not restart after it.
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
    /// Run an edge: forward players' connections to the core
    Edge(ConfigFile),
    /// Run the core: relay sessions to the game servers, forward login and status
    Core(ConfigFile),
    /// Check a configuration file: print every error, or one line that says what would run
    Check(ConfigFile),
    /// Play the whole topology on this machine, and cut edges while it runs
    ///
    /// A stand-in game server, a core, edges and multi-path players on free loopback ports. Ends with
    /// what was sent, delivered, lost, duplicated and reordered; exit code 1 if any of the last three
    /// is not zero.
    Demo(Demo),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, as roff
    Man,
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file, YAML
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Demo {
    /// Players, each with a link to every edge
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=2000))]
    players: u16,
    /// Edges
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    edges: u8,
    /// How long they play
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86400))]
    seconds: u32,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Where it cannot be printed there is nobody to read it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.execute() {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<Errors>() {
            Some(errors) => {
                let _ = writeln!(io::stderr(), "{errors}");
                ExitCode::from(EXIT_CONFIG)
            }
            None => {
                let _ = writeln!(io::stderr(), "otproxy: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

impl Cli {
    fn execute(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::Edge(ConfigFile { config }) => {
                let edge = config::load_edge(config)?;
                self.serve(Config::Edge(edge.clone()), || roles::edge::bind(edge))
            }
            Command::Core(ConfigFile { config }) => {
                let core = config::load_core(config)?;
                self.serve(Config::Core(core.clone()), || roles::core::bind(core))
            }
            Command::Check(ConfigFile { config }) => check(config),
            Command::Demo(options) => self.demo(options),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "otproxy", &mut script);
                print(&script)
            }
            Command::Man => {
                let mut page = Vec::new();
                clap_mangen::Man::new(Self::command()).render(&mut page)?;
                print(&page)
            }
        }
    }

    /// Runs a role until a signal.
    fn serve(
        &self,
        config: Config,
        bind: impl FnOnce() -> Result<Service, roles::StartError>,
    ) -> anyhow::Result<ExitCode> {
        let process = config.process();
        let format = self.log_format.unwrap_or(process.log_format);
        log::start(format, self.log_level.unwrap_or(process.log_level));
        let (limit, needed) = (raise_file_limit(), files_needed(&config));
        if limit < needed {
            warn!(
                limit,
                needed, "too few open files are allowed for the configured limits; raise LimitNOFILE or `ulimit -Hn`"
            );
        }
        let (runtime, signals) = runtime()?;
        let service = bind()?;
        let listeners: Vec<_> = service.listeners().map(|(name, addresses)| listener(name, addresses)).collect();
        let admin = service.admin_address().map_or_else(|| "off".to_owned(), |address| address.to_string());
        let stop = async {
            // From here on connections that wait in the kernel are taken: the workers are starting.
            info!(role = %config.role(), name = process.name, listeners = listeners.join(", "), admin, "ready");
            notify(NotifyState::Ready);
            signals.caught().await;
            notify(NotifyState::Stopping);
        };
        runtime.block_on(service.run(stop)).context("cannot run")?;
        info!("stopped");
        Ok(ExitCode::SUCCESS)
    }

    fn demo(&self, options: &Demo) -> anyhow::Result<ExitCode> {
        // Edges that are cut on purpose are no news: the table says all that matters.
        log::start(self.log_format.unwrap_or(LogFormat::Auto), self.log_level.unwrap_or(LogLevel::Error));
        let options = DemoOptions {
            players: usize::from(options.players),
            edges: usize::from(options.edges),
            duration: Duration::from_secs(options.seconds.into()),
            file_limit: raise_file_limit(),
        };
        let (runtime, signals) = runtime()?;
        let outcome = runtime.block_on(demo::run(options, signals.caught()))?;
        Ok(if outcome.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let config = config::load(file)?;
    print(format!("{}: ok: {}\n", file.display(), config.summary()).as_bytes())
}

fn listener(name: &str, addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().fold(name.to_owned(), |text, address| format!("{text} {address}"))
}

/// The runtime of the main thread, and the signals of the process, caught from now on.
fn runtime() -> anyhow::Result<(Runtime, Signals)> {
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let signals = {
        let _inside = runtime.enter();
        Signals::catch().context("cannot catch signals")?
    };
    Ok((runtime, signals))
}

/// Tells systemd, where it listens.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "cannot tell systemd about it");
    }
}

/// Writes to stdout. A reader that has seen enough is no failure.
fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
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
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
