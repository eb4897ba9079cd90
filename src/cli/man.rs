//! `otproxy man`: manual pages, one for each command, from the definition of the command line.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Command, CommandFactory, ValueHint};
use clap_mangen::Man as Page;

use super::{Cli, print, print_raw};

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// The command, as in `cert edge`; the page of otproxy itself without one
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the pages of all commands into this folder, as in /usr/local/share/man/man1
    #[arg(long, value_name = "DIR", conflicts_with = "command", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// The files of an installation.
const FILES: [(&str, &str); 6] = [
    (
        "/etc/otproxy/edge.yaml, /etc/otproxy/core.yaml",
        "the configuration that the units run with; docs/configuration.md has each key",
    ),
    (
        "/etc/otproxy/*.pem, /etc/otproxy/*.key",
        "certificates and private keys of the tunnel, as `otproxy init` places them",
    ),
    ("/run/otproxy-edge/admin.sock, /run/otproxy-core/admin.sock", "the sockets at which the commands find what runs"),
    (
        "/etc/systemd/system/otproxy-edge.service, otproxy-core.service",
        "the units, as install.sh places them; those of a package are in /usr/lib/systemd/system",
    ),
    (
        "otproxy-hosts/",
        "the folder that `otproxy init` fills, with one for each host; it keeps the authority's key, ca.key",
    ),
    ("ca.pem, ca.key", "the authority of `otproxy cert`; ca.key belongs on no host"),
];

/// The variables of the environment that are read.
const ENVIRONMENT: [(&str, &str); 16] = [
    ("OTPROXY_LOG_FORMAT", "as --log-format; an empty one is as good as none"),
    ("OTPROXY_LOG_LEVEL", "as --log-level; an empty one is as good as none"),
    ("NO_COLOR", "no colours, if it is not empty"),
    ("TERM", "no colours, if it is `dumb`"),
    ("COLUMNS", "the width of the terminal, if it is not what the terminal says; what is piped is never cut or folded"),
    ("RUNTIME_DIRECTORY", "the folder of `admin.sock`, as systemd sets it"),
    ("STATE_DIRECTORY", "the folder of what is kept over restarts, as systemd sets it"),
    ("CREDENTIALS_DIRECTORY", "the folder of what systemd hands over by `LoadCredential=`"),
    ("INVOCATION_ID", "tells that systemd has started it"),
    ("NOTIFY_SOCKET", "the socket for readiness, as systemd sets it; with it there is no `otproxy upgrade`"),
    ("SYSTEMD_EXEC_PID", "the process that systemd has started; if it is this one, the same"),
    (
        "FDSTORE",
        "how many descriptors systemd keeps over a restart; with it listening sockets are left to the next process",
    ),
    ("LISTEN_FDS", "how many descriptors systemd hands over, with LISTEN_PID: what the last process has left"),
    ("LISTEN_FDNAMES", "the names of these"),
    ("JOURNAL_STREAM", "tells that stderr is the journal, which is told each line's level then"),
    ("RUST_BACKTRACE", "with 1, the log line of a defect has the calls that led there"),
];

/// The signals, as an edge or a core takes them.
const SIGNALS: [(&str, &str); 4] = [
    ("SIGTERM, SIGINT", "end it in order, within `shutdown_timeout`; the second one ends it at once"),
    ("SIGHUP, SIGUSR2", "read the file again; all that is wrong with it is in the log, and then nothing changes"),
    ("SIGUSR1", "is answered by a log line, and changes nothing: drain with `otproxy drain`"),
    ("SIGPIPE", "is ignored"),
];

/// The exit codes.
const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "all is well"),
    ("1", "it could not run, was refused, or found a fault"),
    ("2", "the flags are wrong"),
    ("78", "the configuration is wrong"),
];

/// Examples, each with what it does. The first word behind `otproxy` is the command on whose page it stands too.
pub(super) const EXAMPLES: [(&str, &str); 23] = [
    ("otproxy init", "asks on a terminal for the hosts and worlds, and makes the files of all of them"),
    (
        "otproxy init --edge waw1=198.51.100.7 --edge fra1=203.0.113.9 --game 7172=127.0.0.1:7172",
        "makes the files of two edges and of the core, ready to copy",
    ),
    ("otproxy deploy --dry-run", "prints the commands that put the files onto their hosts"),
    (
        "otproxy deploy --edge fra1 --core",
        "puts what has changed onto the core and one edge, as after that edge was added",
    ),
    ("otproxy check -c /etc/otproxy/edge.yaml", "prints every error of a file, or what would run"),
    ("otproxy doctor -c /etc/otproxy/core.yaml", "tries what the file needs, with a remedy for what is wrong"),
    (
        "otproxy probe p1.example p2.example",
        "looks at a set-up from a player's side: run it on a host that is none of yours",
    ),
    (
        "otproxy probe --list edges.json --core 203.0.113.9",
        "the same for a list as clients fetch it; the core must be out of reach",
    ),
    (
        "otproxy report pull --into /var/www/reports --token-file report.token waw1=https://p1.example",
        "fetches an edge's report for lists of servers into /var/www/reports/waw1",
    ),
    ("otproxy status", "shows how the otproxy on this host is doing"),
    ("otproxy connections --listener login --limit 20", "shows the newest connections of a listener"),
    ("otproxy sessions --address 198.51.100.0/24", "shows a core's sessions of players in a network"),
    ("otproxy edges --json", "tells a script which edges a core knows"),
    ("otproxy edge waw1", "shows what a core knows of one edge: its state, why, and what other edges see of it"),
    ("otproxy edge waw1 out --for 2h --why maintenance", "has clients told of an edge no more for two hours"),
    ("otproxy ban 198.51.100.7 --for 30m --disconnect", "keeps an address out for half an hour"),
    ("otproxy revoke waw1", "throws out an edge whose key is stolen, at once and until a restart"),
    ("otproxy drain login --deadline 5m --wait", "lets a listener run empty, for five minutes at the most"),
    ("otproxy target login first maint", "leads no new connections to a target, and does not check it"),
    ("otproxy reload -c /etc/otproxy/edge.yaml", "has it read its file again; exit code 78 if the file is wrong"),
    (
        "otproxy upgrade -c /etc/otproxy/core.yaml",
        "takes over from the core that runs, with its sessions, on a host without systemd",
    ),
    ("otproxy cert show /etc/otproxy/waw1.pem", "shows what a certificate says, and how long it is valid"),
    ("otproxy man --dir /usr/local/share/man/man1", "installs these pages"),
];

impl Man {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let all = commands();
        if let Some(directory) = &self.dir {
            return write_all(&all, directory);
        }
        let mut command = &all;
        for name in &self.command {
            let known = || anyhow!("otproxy has no command `{}`; see `otproxy --help`", self.command.join(" "));
            command = command.find_subcommand(name).ok_or_else(known)?;
        }
        print_raw(&page(command)?)
    }
}

/// Returns the whole command line, with the full name of each command.
fn commands() -> Command {
    let mut all = Cli::command().disable_help_subcommand(true);
    all.build();
    all
}

/// Writes the pages of a command and of all below it, as `otproxy-cert-edge.1`.
fn write_all(command: &Command, directory: &Path) -> anyhow::Result<ExitCode> {
    let mut left = vec![command];
    let mut count = 0_usize;
    while let Some(command) = left.pop() {
        let file = directory.join(Page::new(command.clone()).get_filename());
        fs::write(&file, page(command)?).with_context(|| format!("cannot write {}", file.display()))?;
        left.extend(command.get_subcommands());
        count += 1;
    }
    print(format!("{count} pages are in {}; see `man otproxy`\n", directory.display()).as_bytes())
}

/// Returns the page of a command, as roff.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let is_whole = command.get_name() == "otproxy";
    let page = Page::new(command.clone()).source(format!("otproxy {}", env!("CARGO_PKG_VERSION"))).manual("otproxy");
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut out)?;
    }
    let mut more = String::new();
    section(&mut more, "EXIT STATUS", EXIT_STATUS);
    if is_whole {
        section(&mut more, "FILES", FILES);
        section(&mut more, "ENVIRONMENT", ENVIRONMENT);
        section(&mut more, "SIGNALS", SIGNALS);
    }
    let own = |(example, _): &(&str, &str)| {
        is_whole || example.replace(' ', "-").starts_with(&format!("{name}-")) || *example == name.replace('-', " ")
    };
    let examples: Vec<_> = EXAMPLES.into_iter().filter(own).collect();
    if !examples.is_empty() {
        section(&mut more, "EXAMPLES", examples);
    }
    if !is_whole {
        more.push_str(".SH \"SEE ALSO\"\n.BR otproxy (1)\n");
    }
    out.extend_from_slice(more.as_bytes());
    Ok(out)
}

/// Appends a section of terms, each with a sentence about it.
fn section(out: &mut String, heading: &str, terms: impl IntoIterator<Item = (&'static str, &'static str)>) {
    // Writing into a string never fails.
    let _ = writeln!(out, ".SH \"{heading}\"");
    for (term, text) in terms {
        let _ = writeln!(out, ".TP\n\\fB{}\\fR\n{}", escaped(term), escaped(text));
    }
}

/// Returns text that roff takes for nothing but text.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "\\(ga");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn text(path: &[&str]) -> String {
        let all = commands();
        let command = path.iter().fold(&all, |command, name| command.find_subcommand(name).expect(name));
        String::from_utf8(page(command).unwrap()).unwrap()
    }

    #[test]
    fn each_command_has_a_page() {
        let directory = std::env::temp_dir().join(format!("otproxy-man-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        write_all(&commands(), &directory).unwrap();
        let names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        for command in commands().get_subcommands() {
            let name = format!("otproxy-{}.1", command.get_name());
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for name in ["otproxy.1", "otproxy-cert-edge.1"] {
            assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_main_page_has_its_sections_and_the_others_their_examples() {
        let main = text(&[]);
        for section in ["EXIT STATUS", "FILES", "ENVIRONMENT", "SIGNALS", "EXAMPLES"] {
            assert!(main.contains(&format!(".SH \"{section}\"\n")), "{section}: {main}");
        }
        assert_eq!(main.matches("\n\\fBotproxy ").count(), EXAMPLES.len());
        let target = text(&["target"]);
        assert!(
            target.contains("\\fBotproxy target login first maint\\fR\n") && !target.contains("otproxy drain"),
            "{target}"
        );
        assert!(target.contains("maint") && target.contains("SEE ALSO"), "{target}");
        assert!(text(&["targets"]).lines().all(|line| !line.contains("login first")));
        assert!(text(&["status"]).contains("\\fBotproxy status\\fR\n"));
    }

    #[test]
    fn examples_are_what_can_be_typed() {
        for (example, _) in EXAMPLES {
            Cli::try_parse_from(example.split(' ')).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }

    #[test]
    fn roff_takes_text_for_text() {
        assert_eq!(escaped(".TH \\ --wait"), "\\&.TH \\e \\-\\-wait");
    }
}
