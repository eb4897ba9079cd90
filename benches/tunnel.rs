//! The cost of the tunnel on one machine, beside plain edges of this program and of HAProxy and beside another build of it:
//! `cargo bench --bench tunnel`, or with `-- --help` behind it.
//!
//! Each way has processes of its own: a core, its edges and a load test, which plays players and game server. Processor time is
//! that of `/proc`, from the load test's start to its end. Ratios to the first way of the same round are what counts.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    reason = "a benchmark fails by a panic"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Parser;
use serde_json::Value;

use self::processes::{Started, cpu, descriptors, free_port, memory, role, wait_for};

mod processes;

const OTPROXY: &str = env!("CARGO_BIN_EXE_otproxy");

/// The cost of the tunnel beside plain edges.
#[derive(Parser)]
struct Options {
    /// Players
    #[arg(long, default_value_t = 200)]
    players: u32,
    /// Edges; each player has a link to each, and plays over two of them
    #[arg(long, default_value_t = 5)]
    edges: usize,
    /// Packets a second from each player
    #[arg(long, default_value_t = 5.0)]
    up: f64,
    /// Packets a second to each player
    #[arg(long, default_value_t = 10.0)]
    down: f64,
    /// How long each is measured
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How often all are measured in turn
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Workers of the core
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Processes of the load test, each with its part of the players: a process has only so many files
    #[arg(long, default_value_t = 1)]
    loads: u32,
    /// One way alone: `plain`, `tunnel`, `before` or `haproxy`
    #[arg(long, value_name = "WAY")]
    only: Option<String>,
    /// Another build of the program, whose tunnel is measured as well
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo test`: nothing is measured then
    #[arg(long, hide = true)]
    test: bool,
}

/// A way between players and core.
#[derive(Clone, Copy, PartialEq)]
enum Way<'a> {
    /// Edges of this program, with PROXY headers over TCP.
    Plain,
    /// Edges of HAProxy, likewise.
    HaProxy,
    /// Edges and a core of this build, with the tunnel between them.
    Tunnel(&'a Path),
}

/// The figures of one way in one round.
struct Figures {
    /// Of the core and of all edges, in microseconds for each packet of a player or a game server.
    core: f64,
    edges: f64,
    /// In MiB.
    memory: f64,
    descriptors: usize,
    /// Of the round trip, in milliseconds.
    p50: f64,
    p99: f64,
    p99_9: f64,
}

fn main() {
    let options = Options::parse();
    // `cargo bench` says so; else it only shows that it can be called.
    if options.test || !options.bench {
        println!("nothing is measured: `cargo bench --bench tunnel` does that");
        return;
    }
    let mut ways = vec![("plain", Way::Plain), ("tunnel", Way::Tunnel(Path::new(OTPROXY)))];
    ways.extend(options.before.as_deref().map(|build| ("before", Way::Tunnel(build))));
    match Command::new("haproxy").arg("-v").output() {
        Ok(_) => ways.push(("haproxy", Way::HaProxy)),
        Err(_) => eprintln!("there is no haproxy here: it is left out"),
    }
    ways.retain(|(name, _)| options.only.as_deref().is_none_or(|only| only == *name));
    println!(
        "{} players, {} edges, {} up and {} down a second, {} s, workers: {}",
        options.players, options.edges, options.up, options.down, options.seconds, options.workers
    );
    println!("core and edges: CPU for a packet, µs; memory of the core, MiB; round trip, ms\n");
    println!("round  way      core  ratio  edges  ratio  memory  files    p50    p99  p99.9");
    for round in 1..=options.rounds {
        let mut first = None;
        for (name, way) in &ways {
            let now = measure(*way, &options);
            let (core, edges) = *first.get_or_insert((now.core, now.edges));
            println!(
                "{round:>5}  {name:<7} {:>5.1} {:>6.2} {:>6.1} {:>6.2} {:>7.1} {:>6} {:>6.1} {:>6.1} {:>6.1}",
                now.core,
                now.core / core,
                now.edges,
                now.edges / edges,
                now.memory,
                now.descriptors,
                now.p50,
                now.p99,
                now.p99_9
            );
        }
    }
}

fn measure(way: Way<'_>, options: &Options) -> Figures {
    let folder = std::env::temp_dir().join(format!("otproxy-bench-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("writable");
    let program = if let Way::Tunnel(build) = way { build } else { Path::new(OTPROXY) };
    let (core, games) = (free_port(), (0..options.loads).map(|_| free_port()).collect::<Vec<_>>());
    let ports: Vec<u16> = (0..options.edges).map(|_| free_port()).collect();
    fs::write(folder.join("core.yaml"), core_yaml(way, core, &games, options)).expect("writable");
    if let Way::Tunnel(_) = way {
        let mut made = vec![vec!["init"], vec!["core"]];
        let names: Vec<String> = (0..options.edges).map(|edge| format!("e{edge}")).collect();
        made.extend(names.iter().map(|name| vec!["edge", name]));
        for arguments in made {
            let mut command = Command::new(program);
            command.arg("cert").args(arguments).arg("--dir").arg(&folder).stdout(Stdio::null());
            assert!(command.status().expect("it runs").success(), "certificates");
        }
    }
    let mut core_process = Started(vec![role(program, "core", &folder.join("core.yaml"))]);
    wait_for(core);
    let mut edges = Started(Vec::new());
    for (number, port) in ports.iter().enumerate() {
        edges.0.push(edge((way, program), &folder, (number, *port), core, options.players));
        wait_for(*port);
    }
    let before = (cpu(&core_process), cpu(&edges));
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let load = |game: &u16| {
        let mut command = Command::new(OTPROXY);
        command.args(["bench", "--json", "--log-level", "error", "--edges", &addresses.join(",")]);
        command.args(["--port", &game.to_string(), "--serve", &format!("127.0.0.1:{game}")]);
        let players = (options.players / options.loads).to_string();
        let (up, down, seconds) = (options.up.to_string(), options.down.to_string(), options.seconds.to_string());
        command.args(["--players", &players, "--up", &up, "--down", &down, "--seconds", &seconds]);
        command.stdout(Stdio::piped()).spawn().expect("it runs")
    };
    let loads: Vec<Child> = games.iter().map(load).collect();
    // All are there by the middle of the measurement.
    std::thread::sleep(Duration::from_secs(u64::from(2 + options.seconds / 2 + options.players / options.loads / 500)));
    let (memory, descriptors) = (memory(&core_process.0[0]), descriptors(&core_process.0[0]));
    let said: Vec<Value> = loads
        .into_iter()
        .map(|load| {
            let output = load.wait_with_output().expect("it ends");
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("the load test: {error}"))
        })
        .collect();
    let after = (cpu(&core_process), cpu(&edges));
    let count = |way: &str| said.iter().map(|said| said[way]["delivered"].as_f64().expect("a count")).sum::<f64>();
    for said in &said {
        assert_eq!(said["passed"], true, "{said}");
    }
    let packets = count("to_game") + count("to_players");
    let round_trip = |part: &str| {
        let of_all = said.iter().map(|said| said["seconds"]["round_trip"][part].as_f64().expect("a time"));
        of_all.fold(0.0, f64::max) * 1000.0
    };
    core_process.0.iter_mut().chain(&mut edges.0).for_each(|child| {
        child.kill().expect("it runs still");
    });
    let _ = fs::remove_dir_all(&folder);
    Figures {
        core: (after.0 - before.0) / packets * 1e6,
        edges: (after.1 - before.1) / packets * 1e6,
        memory,
        descriptors,
        p50: round_trip("p50"),
        p99: round_trip("p99"),
        p99_9: round_trip("p99_9"),
    }
}

fn core_yaml(way: Way<'_>, port: u16, games: &[u16], options: &Options) -> String {
    let game =
        |game: &u16| format!("  - {{ port: {game}, address: \"127.0.0.1:{game}\", max_packets_per_second: none }}\n");
    let games: String = games.iter().map(game).collect();
    let (tunnel, edges, listen) = match way {
        Way::Tunnel(_) => {
            let names: Vec<String> = (0..options.edges).map(|edge| format!("{{ name: e{edge} }}")).collect();
            let tls = "tls: { ca: ca.pem, cert: core.pem, key: core.key }";
            (format!("tunnel: {{ accept: \"127.0.0.1:{port}\", {tls} }}\n"), names.join(", "), String::new())
        }
        _ => (String::new(), "{ name: all, address: 127.0.0.1 }".to_owned(), format!(", listen: \"127.0.0.1:{port}\"")),
    };
    format!(
        "role: core\nworkers: {}\nadmin: {{ listen: \"off\", socket: \"off\" }}\n{tunnel}edges: [{edges}]\n\
         listeners: [{{ name: links, kind: relay{listen} }}]\n\
         sessions: {{ max: 100000, max_per_address: 100000, opens_per_address: none }}\ngame_servers:\n{games}",
        options.workers
    )
}

fn edge(
    (way, program): (Way<'_>, &Path),
    folder: &Path,
    (number, port): (usize, u16),
    core: u16,
    players: u32,
) -> Child {
    let file = folder.join(format!("edge{number}"));
    let (dial, to) = match way {
        Way::HaProxy => {
            let text = format!(
                "global\n  nbthread 1\n  maxconn {}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
                 listen links\n  bind 127.0.0.1:{port}\n  server core 127.0.0.1:{core} send-proxy-v2\n",
                players + 100
            );
            fs::write(&file, text).expect("writable");
            let mut command = Command::new("haproxy");
            return command.args(["-db", "-q", "-f"]).arg(&file).stderr(Stdio::null()).spawn().expect("it runs");
        }
        Way::Tunnel(_) => {
            let tls = format!("tls: {{ ca: ca.pem, cert: e{number}.pem, key: e{number}.key }}");
            (format!("core: {{ dial: \"127.0.0.1:{core}\", {tls} }}\n"), "core/links".to_owned())
        }
        Way::Plain => (String::new(), format!("127.0.0.1:{core}")),
    };
    let text = format!(
        "role: edge\nworkers: 1\nlimits: {{ connections: none }}\nadmin: {{ listen: \"off\", socket: \"off\" }}\n{dial}\
         listeners: [{{ name: links, listen: \"127.0.0.1:{port}\", forward_to: \"{to}\" }}]\n"
    );
    fs::write(&file, text).expect("writable");
    role(program, "edge", &file)
}
