//! The large attack: 20,000 connections at once, with all protections and without each; the table in
//! docs/performance.md.

use std::time::{Duration, Instant};

use otproxy_testkit::bench::LoadReport;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::attack::arena::{ACCEPTED, Arena, CLOSED, REJECTED};
use crate::attack::crowd::{Attackers, Crowd, Kind};
use crate::attack::players::{Players, newcomer};
use crate::common::metrics::Metered;
use crate::common::metrics::{scrape, sum};
use crate::common::role_process::{MIB, may_open};

const PLAYERS: usize = 100;
/// What a process may need: the edge and the core may have all that this machine lets them.
const FILES: u64 = 20_000;
/// From the first attacker until it is measured: by then all have come.
const WARMUP: Duration = Duration::from_secs(12);
const MEASURED: Duration = Duration::from_secs(15);
/// Between two who want to play.
const NEWCOMERS: Duration = Duration::from_millis(250);
/// Of all attackers together.
const CONNECTS_PER_SECOND: usize = 2000;

/// What the edge has against attacks, each as a person would turn it off.
#[derive(Debug, Clone, Copy)]
struct Protections {
    expect: bool,
    per_address: bool,
    rate: bool,
    status: bool,
    limit: bool,
    fair_share: bool,
    pressure: bool,
    bans: bool,
}

const ALL: Protections = Protections {
    expect: true,
    per_address: true,
    rate: true,
    status: true,
    limit: true,
    fair_share: true,
    pressure: true,
    bans: true,
};
const NONE: Protections = Protections {
    expect: false,
    per_address: false,
    rate: false,
    status: false,
    limit: false,
    fair_share: false,
    pressure: false,
    bans: false,
};
/// What an edge has without a word in its file.
const DEFAULT: Protections = Protections { limit: true, fair_share: true, pressure: true, ..NONE };

impl Protections {
    async fn arena(self) -> Arena {
        let if_on = |on: bool, text: &str| if on { text.to_owned() } else { String::new() };
        let listener = |expect: &str, rate: &str| {
            let expect = if_on(self.expect, &format!(", expect: {expect}"));
            let per_address = if_on(self.per_address, "connections_per_address: 20, ");
            let rate = if_on(self.rate, &format!("rate_per_address: {rate}"));
            format!("{expect}, limits: {{ {per_address}{rate} }}")
        };
        let status = if_on(self.status, ", status: { address: play.example }");
        let both = format!(
            "limits: {{ connections: {}, fair_share: {}, pressure: {} }}\nbans: {{ after: {} }}\n",
            if self.limit { "auto" } else { "none" },
            self.fair_share,
            self.pressure,
            if self.bans { "600/60s" } else { "none" }
        );
        let (links, login) = (listener("links", "40/10s"), listener("login", "20/10s") + &status);
        match std::env::var("OTPROXY_ATTACK_WAY").as_deref() {
            Ok("tunnel") => Arena::with_tunnel(&links, &login, &both).await,
            _ => Arena::new(&links, &login, &both).await,
        }
    }
}

/// Who attacks.
#[derive(Debug, Clone, Copy)]
enum Attack {
    Nobody,
    /// 20,000 connections of one kind, from 500 addresses.
    Of(Kind),
    /// 5,000 of each kind, each from 125 addresses.
    Mixed,
    /// 12,000 links from one address, and one from each of 500 others.
    OneAddress,
}

impl Attack {
    fn crowds(self, arena: &Arena) -> Vec<Crowd> {
        let (links, login) = (arena.edge.addr("links"), arena.edge.addr("login"));
        let crowd = |kind, network, addresses, connections, connects_per_second| Crowd {
            kind,
            links,
            login,
            network,
            addresses,
            connections,
            connects_per_second,
        };
        let quarters = |kinds: [Kind; 4]| {
            let quarter = |(network, kind)| crowd(kind, network, 125, 5000, CONNECTS_PER_SECOND / 4);
            (16..).zip(kinds).map(quarter).collect()
        };
        match self {
            Self::Nobody => Vec::new(),
            Self::Of(kind) => quarters([kind; 4]),
            Self::Mixed => quarters([Kind::Silent, Kind::Garbage, Kind::Slow, Kind::Valid]),
            Self::OneAddress => {
                vec![crowd(Kind::Links, 16, 1, 12_000, 1200), crowd(Kind::Links, 17, 500, 500, 100)]
            }
        }
    }
}

/// What one attack has shown.
struct Row {
    figures: LoadReport,
    during: During,
    /// What the edge and the core counted, as text.
    edge: String,
    core: String,
}

/// What is seen while it lasts, beside the players' own figures.
struct During {
    newcomers: Vec<Option<Duration>>,
    /// Processor time of the edge, and how long that was.
    cpu: (Duration, Duration),
    memory: usize,
    descriptors: usize,
}

impl During {
    /// Looks for [`MEASURED`].
    async fn watch(arena: &Arena) -> Self {
        let (start, cpu) = (Instant::now(), arena.edge.cpu());
        let (mut arriving, mut pace) = (JoinSet::new(), interval(NEWCOMERS));
        for number in 0..u16::MAX {
            pace.tick().await;
            if start.elapsed() >= MEASURED {
                break;
            }
            arriving.spawn(newcomer(arena.edge.addr("links"), number));
        }
        let cpu = (arena.edge.cpu() - cpu, start.elapsed());
        let (memory, descriptors) = (arena.edge.peak(), arena.edge.descriptors());
        Self { newcomers: arriving.join_all().await, cpu, memory, descriptors }
    }
}

async fn row(name: &str, protections: Protections, attack: Attack) {
    let arena = protections.arena().await;
    let mut crowds: Vec<Attackers> = Vec::new();
    let meanwhile = async {
        crowds.extend(attack.crowds(&arena).iter().map(Crowd::start));
        sleep(WARMUP).await;
        During::watch(&arena).await
    };
    let players = Players { warmup: WARMUP, ..Players::new(PLAYERS) };
    let (figures, during) = players.play(&arena, meanwhile).await;
    // A process without descriptors cannot be asked before they are gone.
    drop(crowds);
    let (edge, core) = tokio::join!(scrape(arena.edge.admin()), scrape(arena.core.admin()));
    println!("{}", Row { figures, during, edge, core }.text(name));
    arena.stop().await;
}

const HEAD: &str = "\
| attack, protections | p50 | p99 | max | lost | links lost | newcomers in | after, median | refused | closed | core | CPU | memory | descriptors |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

impl Row {
    fn text(&self, name: &str) -> String {
        let millis = |nanos: u64| format!("{:.1}", nanos as f64 / 1e6);
        let trip = &self.figures.round_trip;
        let lost = self.figures.to_game.lost + self.figures.to_players.lost;
        let links_lost: u64 = self.figures.paths.iter().map(|path| path.links_lost).sum();
        let During { newcomers, cpu: (cpu, whole), memory, descriptors } = &self.during;
        let mut took: Vec<_> = newcomers.iter().flatten().collect();
        took.sort_unstable();
        let median = took.get(took.len() / 2).map_or("-".to_owned(), |took| format!("{} ms", took.as_millis()));
        [
            "",
            name,
            &millis(trip.quantile(0.5)),
            &millis(trip.quantile(0.99)),
            &millis(trip.highest()),
            &lost.to_string(),
            &links_lost.to_string(),
            &format!("{} of {}", took.len(), newcomers.len()),
            &median,
            &by_reason(&self.edge, REJECTED),
            &by_reason(&self.edge, CLOSED),
            &sum(&self.core, ACCEPTED, &[]).to_string(),
            &format!("{:.0} %", 100.0 * cpu.as_secs_f64() / whole.as_secs_f64()),
            &format!("{} MiB", memory / MIB),
            &descriptors.to_string(),
            "",
        ]
        .join(" | ")
        .trim()
        .to_owned()
    }
}

/// The counts of a metric by reason, those that are not zero.
fn by_reason(text: &str, name: &str) -> String {
    let mut reasons: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| Some(line.split_once("reason=\"")?.1.split_once('"')?.0))
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    let counts = reasons.into_iter().map(|reason| (reason, sum(text, name, &[&format!("reason=\"{reason}\"")])));
    let counts: Vec<_> = counts.filter(|(_, count)| *count > 0.0).map(|(r, count)| format!("`{r}` {count}")).collect();
    counts.join(", ")
}

/// Prints the table.
#[test]
#[ignore = "takes minutes, and two cores for itself"]
fn table() {
    if !may_open(FILES) {
        return;
    }
    let only = std::env::var("OTPROXY_ATTACK_ROWS").ok();
    let links = Attack::Of(Kind::Links);
    let rows = [
        ("nobody; all", ALL, Attack::Nobody),
        ("mixed; all", ALL, Attack::Mixed),
        ("mixed; no `expect`", Protections { expect: false, ..ALL }, Attack::Mixed),
        ("mixed; no `connections_per_address`", Protections { per_address: false, ..ALL }, Attack::Mixed),
        ("mixed; no `rate_per_address`", Protections { rate: false, ..ALL }, Attack::Mixed),
        ("mixed; no `status`", Protections { status: false, ..ALL }, Attack::Mixed),
        ("mixed; no `fair_share`", Protections { fair_share: false, ..ALL }, Attack::Mixed),
        ("mixed; no `pressure`", Protections { pressure: false, ..ALL }, Attack::Mixed),
        ("mixed; defaults alone", DEFAULT, Attack::Mixed),
        ("mixed; none", NONE, Attack::Mixed),
        ("links; all", ALL, links),
        ("links; no `fair_share`", Protections { fair_share: false, ..ALL }, links),
        ("links; no `connections_per_address`", Protections { per_address: false, ..ALL }, links),
        ("links; defaults alone", DEFAULT, links),
        ("links; none", NONE, links),
        ("one address; all", ALL, Attack::OneAddress),
        ("one address; no `bans`", Protections { bans: false, ..ALL }, Attack::OneAddress),
        ("one address; defaults alone", DEFAULT, Attack::OneAddress),
        ("one address; none", NONE, Attack::OneAddress),
        ("silent; all", ALL, Attack::Of(Kind::Silent)),
        ("garbage; all", ALL, Attack::Of(Kind::Garbage)),
        ("slow; all", ALL, Attack::Of(Kind::Slow)),
        ("valid; all", ALL, Attack::Of(Kind::Valid)),
        ("nobody; all, again", ALL, Attack::Nobody),
    ];
    println!("{HEAD}");
    for (name, protections, attack) in rows {
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(row(name, protections, attack));
        runtime.shutdown_background();
    }
}
