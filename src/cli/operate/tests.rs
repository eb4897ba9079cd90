//! Tests of commands against an operator that records what it was asked.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use clap::Parser;
use tokio::sync::oneshot;

use super::super::{Cli, Command};
use super::*;
use crate::admin::api::{Operator, Role};
use crate::admin::fake::FakeOperator;
use crate::admin::{AdminServer, AdminState};
use crate::metrics::BuildInfo;
use otproxy_config as config;

/// A server on a thread of its own, until it is dropped.
struct Running {
    directory: PathBuf,
    operator: Arc<FakeOperator>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("otproxy-operate-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let socket = Some(directory.join("admin.sock"));
        let server =
            AdminServer::bind(&config::AdminConfig { socket, ..config::AdminConfig::default() }, None).unwrap();
        let operator = Arc::new(FakeOperator::new(Role::Core));
        let answering: Arc<dyn Operator> = operator.clone();
        let build = BuildInfo { version: "1.2.3", role: "core" };
        let state = AdminState { metrics: Vec::new(), ready: Arc::default(), build, operator: answering };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.serve(state, None, async { drop(stopped.await) })).unwrap();
        });
        Self { directory, operator, stop: Some(stop), thread: Some(thread) }
    }

    /// Runs a command; returns its exit code, stdout and stderr.
    fn run(&self, command: &str) -> (u8, String, String) {
        let socket = self.directory.join("admin.sock").display().to_string();
        let arguments = ["otproxy"].into_iter().chain(command.split_whitespace()).chain(["--socket", &socket]);
        let cli = match Cli::try_parse_from(arguments) {
            Ok(cli) => cli,
            Err(error) => return (error.exit_code() as u8, String::new(), error.to_string()),
        };
        let Command::Operate(operate) = cli.command else { panic!("{command}") };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let Said { code, out, err } = runtime.block_on(operate.ask()).unwrap();
        (code, out.show(None), err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(thread::JoinHandle::join));
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn each_command_asks_what_it_says() {
    let running = Running::start("commands");
    for (command, says) in [
        ("status", "core \"waw1\", otproxy 1.2.3, ready"),
        ("listeners", "rate 1 000 000"),
        ("targets", "12.3 ms"),
        ("connections --listener login --address 198.51.100.0/24 --limit 1", "1 of 2 connections; --limit shows more"),
        ("sessions --client 7", "\n7       1        198.51.100.7:50000"),
        ("addresses --by bytes --limit 1", "1 of 2 addresses"),
        ("bans --address 2001:db8::/32", "  rules"),
    ] {
        let (code, out, err) = running.run(command);
        assert!((code, &*err) == (0, "") && out.contains(says), "{command}: {code}: {out}{err}");
        assert!(running.operator.done().is_empty(), "{command}");
    }
    for (command, does, says) in [
        ("ban 198.51.100.7", "ban 198.51.100.7 None false", "198.51.100.7 is banned until "),
        ("ban 198.51.100.0/24 --for 10m --disconnect", "ban 198.51.100.0/24 Some(600s) true", "closed 1 connections"),
        ("unban 2001:db8::/32", "unban 2001:db8::/32", "2001:db8::/32 is not banned any more"),
        ("revoke waw1", "revoke waw1 false", "waw1 is revoked, closed 12 connections\na restart lets it in again"),
        ("revoke waw1 --undo", "revoke waw1 true", "waw1 is trusted"),
        ("disconnect --edge waw1", "Edge(\"waw1\")", "closed 1 connections"),
        ("disconnect --connection 7", "Connection(7)", "closed 1 connections, ended 2 sessions"),
        ("disconnect --client 7 --session 1", "Session(ClientId(7), SessionId(1))", "ended 2 sessions"),
        ("disconnect --listener login", "Listener(\"login\")", "closed"),
        ("drain", "drain None None", "login     draining     7"),
        ("drain login --deadline 5m", "drain Some(\"login\") Some(300s)", "draining"),
        ("undrain login", "undrain Some(\"login\")", "login     open"),
        ("target login first drain", "target first drain", "drain"),
        ("reload", "reload", "used only after a restart: workers"),
    ] {
        let before = running.operator.done().len();
        let (code, out, err) = running.run(command);
        assert!((code, &*err) == (0, "") && out.contains(says), "{command}: {code}: {out}{err}");
        assert_eq!(running.operator.done()[before..], [does], "{command}");
    }
}

#[test]
fn a_drain_that_waits_ends_when_none_is_left() {
    let running = Running::start("drain");
    let (code, out, err) = running.run("drain login --wait");
    assert_eq!((code, &*err), (0, ""));
    assert!(out.contains("drained     0"), "{out}");
    assert_eq!(*running.operator.draining.lock(), Some(0));
    // A drain that does not begin leaves nothing to wait for.
    assert_eq!(running.run("drain none --wait").0, 1);
}

/// Checks that a command with `--json` prints the API's answer to the letter.
#[test]
fn scripts_get_what_the_api_says() {
    let running = Running::start("json");
    let listeners = serde_json::to_string(&running.operator.listeners()).unwrap();
    assert_eq!(running.run("listeners --json"), (0, format!("{listeners}\n"), String::new()));
    let (code, out, err) = running.run("drain none --json");
    assert_eq!((code, &*err), (1, ""));
    assert_eq!(out, "{\"error\":\"there is no listener `none`\",\"remedy\":\"the listeners are: login\"}\n");
    let (_, out, _) = running.run("drain \u{9b}2J --json");
    assert!(out.starts_with("{\"error\":\"there is no listener `\\u009b2J`\""), "{out}");
}

#[test]
fn a_failure_has_its_exit_code() {
    let running = Running::start("failures");
    for (command, says) in [
        ("drain none", "otproxy: there is no listener `none`; the listeners are: login\n"),
        ("connections --listener none", "otproxy: there is no listener `none`; the listeners are: login\n"),
        ("ban 192.0.2.1", "otproxy: 192.0.2.1 is in `bans.exempt`; take it out of that, and reload\n"),
        ("revoke none", "otproxy: there is no edge `none`; the edges are: waw1, fra1\n"),
        ("revoke fra1 --undo", "otproxy: fra1 is revoked by the file; take `revoked` out of it, and reload\n"),
        ("target none first ready", "otproxy: there is no listener `none`; the listeners are: login\n"),
        ("drain \x1b[2J\u{9b}m", "otproxy: there is no listener `\\u{1b}[2J\\u{9b}m`; the listeners are: login\n"),
    ] {
        let (code, out, err) = running.run(command);
        assert_eq!((code, &*out, &*err), (1, "", says), "{command}");
    }
    running.operator.reloads.close();
    let says = "otproxy: the file is wrong, and all goes on as before; correct it, and reload again\n\
                edge.yaml:1:1: role: wrong\nand more\n";
    assert_eq!(running.run("reload"), (78, String::new(), says.to_owned()));
    for (command, says) in [
        ("ban nobody", "`nobody` is not an address or a CIDR"),
        ("ban 198.51.100.7 --for 1", "write it as `30s`"),
        ("disconnect", "required"),
        ("disconnect --session 1", "required"),
        ("disconnect --client 1 --connection 1", "cannot be used with"),
        ("disconnect --edge waw1 --client 1", "cannot be used with"),
        ("target a b off", "[possible values: ready, drain, maint]"),
        ("ban 198.51.100.7 --for 400d", "from 1s to 365d"),
        ("bans --limit 0", "a list has 1 to 10000 items"),
        ("status --url http://127.0.0.1:1", "cannot be used with"),
    ] {
        let (code, _, err) = running.run(command);
        assert!(code == 2 && err.contains(says), "{command}: {code}: {err}");
    }
}

#[test]
fn times_are_whole_seconds() {
    assert_eq!(ban_time("10m"), Ok(600));
    assert_eq!(ban_time("1h 30m"), Ok(5400));
    assert_eq!(drain_time("0s"), Ok(0));
    for wrong in ["", "10", "0s", "1500ms", "400days", "soon"] {
        assert!(ban_time(wrong).is_err(), "{wrong}");
    }
    assert_eq!(drain_time("2days"), Err("it has whole seconds, from 0s to 1d".to_owned()));
}

#[test]
fn a_terminal_is_as_wide_as_it_or_its_user_says() {
    assert_eq!(columns(Some("132"), Some(80)), 132);
    assert_eq!(columns(None, Some(100)), 100);
    for nothing in ["", "0", "wide", "-1"] {
        assert_eq!(columns(Some(nothing), Some(100)), 100, "{nothing}");
        assert_eq!(columns(Some(nothing), Some(0)), 80, "{nothing}");
    }
    assert_eq!(columns(None, None), 80);
}

/// `docs/admin.md`.
const DOCUMENT: &str = include_str!("../../../docs/admin.md");

/// Returns the lines of its examples that begin with this word.
fn examples(word: &str) -> impl Iterator<Item = &str> {
    let blocks = DOCUMENT.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).filter(move |line| line.split(' ').next() == Some(word))
}

/// Splits a line as a shell does, as far as the examples need it.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if c == open => quote = None,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words
}

#[test]
fn the_examples_of_the_document_do_what_they_say() {
    let running = Running::start("document");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let client = AdminClient::socket(&running.directory.join("admin.sock"));
    let mut count = 0;
    for line in examples("curl").filter(|line| line.contains("--unix-socket")) {
        let words = words(line);
        let path = words.iter().find_map(|word| word.strip_prefix("http://localhost")).expect(line);
        let json = words.iter().position(|word| word == "--json").map(|at| words[at + 1].clone());
        let answer = match json {
            Some(json) => runtime.block_on(client.post(path, json)),
            None => runtime.block_on(client.get(path)),
        };
        assert_eq!(answer.unwrap().status, 200, "{line}");
        count += 1;
    }
    assert!(count >= 6, "only {count} examples");
    let mut count = 0;
    for line in examples("otproxy") {
        Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
        count += 1;
    }
    assert!(count >= 7, "only {count} examples");
}

#[test]
fn the_document_has_every_command_and_path() {
    let running = Running::start("paths");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let client = AdminClient::socket(&running.directory.join("admin.sock"));
    let answer = runtime.block_on(client.get("/api/v1/openapi.json")).unwrap();
    let api: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let mut paths = 0;
    for (path, methods) in api["paths"].as_object().unwrap() {
        let method = if methods.get("get").is_some() { "GET" } else { "POST" };
        assert!(DOCUMENT.contains(&format!("| `{method} {path}` |")), "docs/admin.md has no {method} {path}");
        paths += 1;
    }
    assert_eq!(DOCUMENT.lines().filter(|line| line.contains("` |") && line.contains("/api/v1/")).count(), paths);
    for status in api["components"]["responses"].as_object().unwrap().keys() {
        assert!(DOCUMENT.contains(&format!("| {status} |")), "docs/admin.md has no status {status}");
    }
    // These two are roles as well, and so no commands of these.
    assert!(DOCUMENT.contains("| `otproxy edge NAME` |") && DOCUMENT.contains("| `otproxy upgrade -c FILE` |"));
    let mut commands = 2;
    for command in Operate::augment_subcommands(clap::Command::new("otproxy")).get_subcommands() {
        let name = command.get_name();
        assert!(
            DOCUMENT.lines().any(|line| line.starts_with(&format!("| `otproxy {name}"))),
            "docs/admin.md has no {name}"
        );
        commands += 1;
    }
    assert_eq!(DOCUMENT.lines().filter(|line| line.starts_with("| `otproxy ")).count(), commands);
}

#[test]
fn the_file_in_the_document_is_valid() {
    let block = DOCUMENT.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    config::parse("docs/admin.md", block).unwrap_or_else(|errors| panic!("{errors}"));
}
