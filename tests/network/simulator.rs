//! A network of slow, lossy links on one machine.
//!
//! Each host is a network namespace with the kernel's own TCP; each end of a link is a TUN device on
//! its host. What a host sends there comes to this process, which passes it to the other end when and if the link's [`Conditions`] say so.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio_tun::Tun;
use tokio_util::sync::CancellationToken;

use crate::host::{self, Host};
use crate::link::{Conditions, Direction};

/// The largest packet of a link.
const MTU: usize = 1500;
/// How often the thread that gives out packets looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// A link to be made: two hosts, and what it is like at first.
pub type Spec = ([&'static str; 2], Conditions);

/// How many packets a link has passed and dropped, from its first end and from its second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came out at the other end, or will.
    pub passed: [u64; 2],
    /// Packets that did not.
    pub dropped: [u64; 2],
}

#[derive(Debug)]
struct Link {
    ends: [&'static str; 2],
    conditions: Conditions,
    directions: [Direction; 2],
}

type Links = Arc<Vec<Mutex<Link>>>;

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hosts and links. Dropping it takes them down, with all that runs on the hosts.
#[derive(Debug)]
pub struct Network {
    hosts: BTreeMap<&'static str, Host>,
    links: Links,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Makes the hosts and links. The same `seed` loses the same packets: of each link and
    /// direction, those with the same number.
    pub fn new(seed: u64, specs: &[Spec]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        host::remove_leftovers();
        let mut hosts = BTreeMap::new();
        for name in specs.iter().flat_map(|(ends, _)| *ends) {
            hosts.entry(name).or_insert_with(|| Host::make(&format!("{number}-{name}")));
        }
        let directions = |link: usize| [0, 1].map(|side| Direction::new(seed << 16 | (link as u64) << 1 | side));
        let links = specs
            .iter()
            .enumerate()
            .map(|(index, &(ends, conditions))| Mutex::new(Link { ends, conditions, directions: directions(index) }));
        let mut network =
            Self { hosts, links: Arc::new(links.collect()), stop: CancellationToken::new(), thread: None };
        network.start();
        for (index, (ends, _)) in specs.iter().enumerate() {
            for (side, end) in ends.iter().enumerate() {
                let (device, here, there) = (device(ends), address(index, side), address(index, 1 - side));
                network.host(end).ip(&format!(
                    "addr add {here} peer {there} dev {device}\nlink set {device} up mtu {MTU} txqueuelen 1000\n"
                ));
            }
        }
        network
    }

    /// Starts the thread that passes packets, and waits until it has the devices.
    fn start(&mut self) {
        // The thread enters every host and cannot borrow them.
        let mut builders: Vec<Box<dyn FnOnce() -> Tun + Send>> = Vec::new();
        for link in self.links.iter() {
            let ends = lock(link).ends;
            for end in ends {
                let enter = self.host(end).entrance();
                builders.push(Box::new(move || {
                    enter();
                    let mut devices = Tun::builder().name(&device(&ends)).build().unwrap();
                    devices.pop().unwrap()
                }));
            }
        }
        let (links, stop) = (Arc::clone(&self.links), self.stop.clone());
        let (ready, is_ready) = mpsc::channel();
        let main = move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let _inside = runtime.enter();
            let devices = builders.into_iter().map(|build| build()).collect();
            let (under_way, sooner) = (Mutex::default(), Condvar::new());
            let wires = Arc::new(Wires { devices, links, under_way, sooner, stop: stop.clone() });
            for end in 0..wires.devices.len() {
                runtime.spawn(Arc::clone(&wires).take_in(end));
            }
            ready.send(()).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| wires.give_out());
                runtime.block_on(stop.cancelled());
            });
        };
        self.thread = Some(thread::Builder::new().name("network".to_owned()).spawn(main).unwrap());
        is_ready.recv().expect("the devices can be made");
    }

    /// Returns whether there is such a host.
    pub fn has(&self, name: &str) -> bool {
        self.hosts.contains_key(name)
    }

    /// A host.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).unwrap_or_else(|| panic!("no host {name}"))
    }

    /// The address of the first host on its link with the second.
    pub fn address(&self, host: &str, other: &str) -> Ipv4Addr {
        let index = self.index([host, other]);
        let side = lock(&self.links[index]).ends.iter().position(|end| *end == host).unwrap();
        address(index, side)
    }

    /// Changes the link between two hosts.
    pub fn change(&self, ends: [&str; 2], change: impl FnOnce(&mut Conditions)) {
        change(&mut lock(&self.links[self.index(ends)]).conditions);
    }

    /// What the link between two hosts has passed and dropped.
    pub fn counts(&self, ends: [&str; 2]) -> Counts {
        let link = lock(&self.links[self.index(ends)]);
        let count = |of: fn(&Direction) -> u64| [of(&link.directions[0]), of(&link.directions[1])];
        Counts { passed: count(|d| d.passed), dropped: count(|d| d.dropped) }
    }

    fn index(&self, [a, b]: [&str; 2]) -> usize {
        let found = self.links.iter().position(|link| {
            let ends = lock(link).ends;
            ends == [a, b] || ends == [b, a]
        });
        found.unwrap_or_else(|| panic!("no link {a} - {b}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a link's device is called on both hosts; the kernel takes 15 bytes.
fn device(ends: &[&str; 2]) -> String {
    ends.join("-")
}

fn address(link: usize, side: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, link as u8 + 1, side as u8 + 1)
}

/// A packet on its way: when it comes out, its number, at which device, its bytes.
type Packet = Reverse<(Instant, u64, usize, Vec<u8>)>;

/// All devices, and the packets that are on their way between them.
struct Wires {
    /// Two for each link.
    devices: Vec<Tun>,
    links: Links,
    under_way: Mutex<BinaryHeap<Packet>>,
    /// There is a packet that comes out before all others.
    sooner: Condvar,
    stop: CancellationToken,
}

impl Wires {
    fn under_way(&self) -> MutexGuard<'_, BinaryHeap<Packet>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a host sends, for ever.
    async fn take_in(self: Arc<Self>, from: usize) {
        let mut buffer = [0; MTU];
        let mut number = 0;
        while let Ok(size) = self.devices[from].recv(&mut buffer).await {
            let out = {
                let mut link = lock(&self.links[from / 2]);
                let conditions = link.conditions;
                link.directions[from % 2].pass(&conditions, size, Instant::now())
            };
            let Some(at) = out else { continue };
            number += 1;
            let mut under_way = self.under_way();
            if under_way.peek().is_none_or(|Reverse((next, ..))| at < *next) {
                self.sooner.notify_one();
            }
            under_way.push(Reverse((at, number, from ^ 1, buffer[..size].to_vec())));
        }
    }

    /// Gives out what has been on its way for long enough, until the stop. A thread of its own: tokio's
    /// timers round up to milliseconds.
    fn give_out(&self) {
        let mut under_way = self.under_way();
        while !self.stop.is_cancelled() {
            let now = Instant::now();
            let wait = match under_way.peek() {
                Some(Reverse((at, ..))) if *at <= now => Duration::ZERO,
                Some(Reverse((at, ..))) => (*at - now).min(LOOK),
                None => LOOK,
            };
            if !wait.is_zero() {
                under_way = self.sooner.wait_timeout(under_way, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(Reverse((_, _, to, packet))) = under_way.pop() else { continue };
            drop(under_way);
            let mut link = lock(&self.links[to / 2]);
            // What is on its way when a link is cut does not arrive; nor does what a host has no room for.
            if !link.conditions.up || self.devices[to].try_send(&packet).is_err() {
                link.directions[1 - to % 2].lose();
            }
            drop(link);
            under_way = self.under_way();
        }
    }
}
