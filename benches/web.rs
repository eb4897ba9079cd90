//! The cost of the list over HTTP for those who play meanwhile: `cargo bench --bench web`, or with `-- --help` behind it.
//!
//! A core, an edge with one worker, and a load test of players have processes of their own; this one asks for the list. The ratio of
//! round trips with it and without, in one round, is what counts.

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
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;

use self::processes::{Started, cpu, free_port, role, wait_for};

mod processes;

const OTPROXY: &str = env!("CARGO_BIN_EXE_otproxy");
/// Threads that ask, each at its part of the rate.
const THREADS: u32 = 8;

/// The cost of the list over HTTP for those who play meanwhile.
#[derive(Parser)]
struct Options {
    /// Players
    #[arg(long, default_value_t = 200)]
    players: u32,
    /// Requests for the list in a second
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// How long each is measured
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How often both are measured in turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo test`: nothing is measured then
    #[arg(long, hide = true)]
    test: bool,
}

fn main() {
    let options = Options::parse();
    if options.test || !options.bench {
        println!("nothing is measured: `cargo bench --bench web` does that");
        return;
    }
    let folder = std::env::temp_dir().join(format!("otproxy-bench-web-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("writable");
    let [core, game, links, web] = [(); 4].map(|()| free_port());
    let _core = start(&folder, core, game);
    let edge = Started(vec![edge(&folder, core, (links, web))]);
    [links, web].into_iter().for_each(wait_for);
    println!("{} players, {} requests a second, {} s each", options.players, options.rate, options.seconds);
    println!("CPU of the edge, which has one worker; round trip of players, ms; of a request, ms\n");
    println!("round            CPU    p50    p99  ratio  requests  failed  slowest");
    for round in 1..=options.rounds {
        let calm = measure(&options, (game, links), &edge, None);
        println!("{round:>5}  calm    {:>5.2} {:>6.1} {:>6.1}", calm.cpu, calm.p50, calm.p99);
        let asked = Arc::new(Asked::default());
        let busy = measure(&options, (game, links), &edge, Some((web, &asked)));
        println!(
            "{round:>5}  asked   {:>5.2} {:>6.1} {:>6.1} {:>6.2} {:>9} {:>7} {:>8.1}",
            busy.cpu,
            busy.p50,
            busy.p99,
            busy.p99 / calm.p99,
            asked.answered.load(Ordering::Relaxed),
            asked.failed.load(Ordering::Relaxed),
            asked.slowest.load(Ordering::Relaxed) as f64 / 1000.0
        );
    }
    let _ = fs::remove_dir_all(&folder);
}

/// The requests of one measurement.
#[derive(Default)]
struct Asked {
    answered: AtomicU64,
    failed: AtomicU64,
    /// In microseconds.
    slowest: AtomicU64,
    end: AtomicBool,
}

/// The figures of one measurement.
struct Figures {
    /// CPU of the edge, 1 for a whole one.
    cpu: f64,
    /// Of the round trip of players, in milliseconds.
    p50: f64,
    p99: f64,
}

fn measure(options: &Options, (game, links): (u16, u16), edge: &Started, ask: Option<(u16, &Arc<Asked>)>) -> Figures {
    let (before, began) = (cpu(edge), Instant::now());
    let asking: Vec<_> = ask
        .iter()
        .flat_map(|(web, asked)| {
            (0..THREADS).map(|_| {
                let (web, asked, every) = (*web, Arc::clone(asked), Duration::from_secs(1) * THREADS / options.rate);
                thread::spawn(move || keep_asking(web, &asked, every))
            })
        })
        .collect();
    let address = format!("127.0.0.1:{links}");
    let mut command = Command::new(OTPROXY);
    command.args(["bench", "--json", "--log-level", "error", "--edges", &format!("{address},{address}")]);
    command.args(["--port", &game.to_string(), "--serve", &format!("127.0.0.1:{game}")]);
    command.args(["--players", &options.players.to_string(), "--seconds", &options.seconds.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().expect("it runs");
    let (after, took) = (cpu(edge), began.elapsed().as_secs_f64());
    ask.iter().for_each(|(_, asked)| asked.end.store(true, Ordering::Relaxed));
    asking.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("the load test: {error}"));
    assert_eq!(said["passed"], true, "{said}");
    let round_trip = |part: &str| said["seconds"]["round_trip"][part].as_f64().expect("a time") * 1000.0;
    Figures { cpu: (after - before) / took, p50: round_trip("p50"), p99: round_trip("p99") }
}

/// Asks at a pace that no slow answer changes.
fn keep_asking(web: u16, asked: &Asked, every: Duration) {
    let mut due = Instant::now();
    while !asked.end.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        let counter = if ask(web).is_ok_and(|answer| answer.ends_with("\"priority\":0}]}")) {
            &asked.answered
        } else {
            &asked.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        asked.slowest.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        due += every;
    }
}

fn ask(web: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", web))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /proxies/myot HTTP/1.1\r\nHost: p1.example\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn start(folder: &Path, port: u16, game: u16) -> Started {
    for arguments in [&["init"][..], &["core"], &["edge", "waw1"]] {
        let mut command = Command::new(OTPROXY);
        command.arg("cert").args(arguments).arg("--dir").arg(folder).stdout(Stdio::null());
        assert!(command.status().expect("it runs").success(), "certificates");
    }
    let file = folder.join("core.yaml");
    let text = format!(
        "role: core\nworkers: 1\nadmin: {{ listen: \"off\", socket: \"off\" }}\n\
         tunnel: {{ accept: \"127.0.0.1:{port}\", tls: {{ ca: ca.pem, cert: core.pem, key: core.key }} }}\n\
         edges: [{{ name: waw1, public: p1.example }}]\n\
         listeners: [{{ name: links, kind: relay }}, {{ name: web, kind: web, routes: {{ proxies: [{{ name: myot }}] }} }}]\n\
         sessions: {{ max: 100000, max_per_address: 100000, opens_per_address: none }}\n\
         game_servers: [{{ port: {game}, address: \"127.0.0.1:{game}\" }}]\n"
    );
    fs::write(&file, text).expect("writable");
    let started = Started(vec![role(Path::new(OTPROXY), "core", &file)]);
    wait_for(port);
    started
}

fn edge(folder: &Path, core: u16, (links, web): (u16, u16)) -> std::process::Child {
    let file = folder.join("edge.yaml");
    let text = format!(
        "role: edge\nworkers: 1\nadmin: {{ listen: \"off\", socket: \"off\" }}\n\
         core: {{ dial: \"127.0.0.1:{core}\", tls: {{ ca: ca.pem, cert: waw1.pem, key: waw1.key }} }}\n\
         listeners:\n- {{ name: links, listen: \"127.0.0.1:{links}\", forward_to: core/links }}\n\
         - {{ name: web, kind: web, listen: \"127.0.0.1:{web}\", forward_to: core/web }}\n"
    );
    fs::write(&file, text).expect("writable");
    role(Path::new(OTPROXY), "edge", &file)
}
