//! The cost of a packet apart from system calls: `cargo bench`, or `cargo bench -- frame` for some.
//!
//! Figures are worth something beside those of the same machine a moment before, and no others.

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

use std::hint::black_box;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use divan::counter::ItemsCount;
use divan::{Bencher, bench};
use ipnet::IpNet;
use otproxy::admission::{AddressKey, BANS, BanMetrics, BanPolicy, Bans, RateLimit};
use otproxy::metrics::Metrics;
use otproxy_config::{AddressSet, Framing};
use otproxy_protocol::core::{
    AdmittedSession, ClientMachine, ClientOwner, Effect, LinkKey, OpenError, OpenRules, SessionKey, SessionLimits,
};
use otproxy_protocol::frame::{self, Frame, PacketId, SessionId};
use otproxy_protocol::game_packet::GamePacketDecoder;
use otproxy_protocol::proxy_header;
use otproxy_protocol::quota::Quota;

fn main() {
    divan::main();
}

const S: SessionId = SessionId(7);
/// Packets in each input: as many as a busy link brings in one read.
const PACKETS: u32 = 64;
/// Bytes of a packet: of a player's, of a game server's, and of a large one.
const SIZES: [usize; 3] = [24, 120, 4096];

/// Makes a packet of `size` bytes, its length included.
fn packet(size: usize) -> Vec<u8> {
    let mut packet = vec![b'.'; size];
    packet[..2].copy_from_slice(&((size - 2) as u16).to_le_bytes());
    packet
}

fn data(number: u32, ack: u32, packet: &[u8]) -> Vec<u8> {
    [&frame::data_header(S, PacketId(number), PacketId(ack), packet.len()), packet].concat()
}

/// The owner of the machine, whose answers cost nothing.
struct Host {
    max_packets_per_second: Option<u32>,
    now: Instant,
}

impl ClientOwner for Host {
    type Link = ();
    type Session = ();
    type Player = ();

    fn now(&self) -> Instant {
        self.now
    }

    fn rules(&self) -> OpenRules {
        OpenRules { max_per_link: 16, bind_to_player: true }
    }

    fn player(&self, (): &()) {}

    fn admit(&self, (): &(), _session: SessionId, _port: u32) -> Result<AdmittedSession<()>, OpenError> {
        let limits = SessionLimits {
            linger: Duration::from_secs(30),
            leave_grace: Duration::from_secs(2),
            unacked: 4 << 20,
            reorder: 256 << 10,
            pending: 4 << 20,
        };
        let Self { max_packets_per_second, .. } = *self;
        Ok(AdmittedSession { session: (), limits, framing: Framing::Auto, max_packets_per_second })
    }
}

/// A client whose links carry one session that is connected to its game server.
struct Player {
    client: ClientMachine<Host>,
    host: Host,
    links: Vec<LinkKey>,
    session: SessionKey,
}

impl Player {
    fn new(links: usize, max_packets_per_second: Option<u32>) -> Self {
        let (mut client, host) = (ClientMachine::default(), Host { max_packets_per_second, now: Instant::now() });
        let links: Vec<_> = (0..links).map(|_| client.add_link(())).collect();
        let mut session = None;
        for &link in &links {
            let open = frame::open(S, 7172);
            let mut turn = client.receive(link, &open);
            while let Some(effect) = client.next_effect(&mut turn, &host) {
                if let Effect::Connect(key) = effect {
                    client.connected(key, b"");
                    session = Some(key);
                }
            }
        }
        Self { client, host, links, session: session.expect("a session") }
    }

    /// Takes the bytes of one read of a link, with a game server that takes all; returns packets and doubles.
    fn receive(&mut self, link: usize, bytes: &[u8]) -> (u32, u32) {
        let mut all = 0;
        let mut turn = self.client.receive(self.links[link], bytes);
        while let Some(effect) = self.client.next_effect(&mut turn, &self.host) {
            let Effect::WriteGame { session, packets } = effect else { panic!("{effect:?}") };
            all += packets;
            let now = || self.host.now;
            let full = self.client.write_game(session, now, |(), bytes| Ok(black_box(bytes).len()));
            assert!(!full);
        }
        (all, turn.take_counts().duplicate)
    }

    /// Takes the bytes of one read of the game server, and has each link take as much as `room` at a time.
    fn send(&mut self, bytes: &[u8], room: usize) {
        let framed = self.client.game_bytes(self.session, bytes);
        assert_eq!(framed.packets, PACKETS);
        for &link in &self.links {
            let mut frames = 0;
            loop {
                let some = |(): &(), slices: &[IoSlice<'_>]| {
                    Ok(slices.iter().map(|slice| black_box(slice).len()).sum::<usize>().min(room))
                };
                let written = self.client.write_link(link, some).expect("written");
                frames += written.first + written.duplicate;
                if !written.blocked {
                    break;
                }
            }
            assert_eq!(frames, PACKETS);
        }
    }

    /// Acknowledges all that was sent; the packet that does it is an old one.
    fn acknowledge(&mut self) {
        let sent = self.client.figures(self.session).expect("a session").packets_out;
        self.receive(0, &data(1, sent.0, &packet(2)));
        assert_eq!(self.client.figures(self.session).expect("a session").unacked, 0);
    }
}

/// Packets of a client in the order of `numbers`, as one read.
fn packets(numbers: impl Iterator<Item = u32>, packet: &[u8]) -> Vec<u8> {
    numbers.flat_map(|number| data(number, 0, packet)).collect()
}

#[bench(args = SIZES)]
fn frames_split(bencher: Bencher<'_, '_>, size: usize) {
    let input: Vec<u8> = (1..=PACKETS).flat_map(|number| data(number, 0, &packet(size))).collect();
    let bencher = bencher.counter(ItemsCount::new(PACKETS));
    bencher.bench_local(|| {
        let mut rest = black_box(&input[..]);
        let mut count = 0;
        while let Some((frame, next)) = Frame::split(rest).expect("frames") {
            black_box(frame.from_client());
            rest = next;
            count += 1;
        }
        assert_eq!(count, PACKETS);
    });
}

#[bench(args = SIZES)]
fn game_packets_cut(bencher: Bencher<'_, '_>, size: usize) {
    let input = packet(size).repeat(PACKETS as usize);
    let bencher = bencher.counter(ItemsCount::new(PACKETS));
    bencher.bench_local(|| {
        let mut decoder = GamePacketDecoder::new(Framing::Auto);
        let mut rest = black_box(&input[..]);
        while let Some((packet, length)) = decoder.next(rest).expect("packets") {
            black_box(packet);
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    });
}

/// Takes each packet over two links: the second is a duplicate.
#[bench]
fn session_takes_packets_twice(bencher: Bencher<'_, '_>) {
    let input = packets(1..=PACKETS, &packet(24));
    bencher.counter(ItemsCount::new(PACKETS)).with_inputs(|| Player::new(2, None)).bench_local_refs(|player| {
        assert_eq!(player.receive(0, black_box(&input)), (PACKETS, 0));
        assert_eq!(player.receive(1, black_box(&input)), (0, PACKETS));
    });
}

/// Takes the first of all packets last, as after a loss on a path.
#[bench]
fn session_keeps_packets_ahead_of_their_turn(bencher: Bencher<'_, '_>) {
    let input = packets((1..=PACKETS).rev(), &packet(24));
    bencher.counter(ItemsCount::new(PACKETS)).with_inputs(|| Player::new(1, None)).bench_local_refs(|player| {
        assert_eq!(player.receive(0, black_box(&input)), (PACKETS, 0));
    });
}

/// Frames into the outbox, writes on each of `links` links, and frees by acks.
#[bench(args = [1, 2, 5])]
fn outbox_to_links(bencher: Bencher<'_, '_>, links: usize) {
    let input = packet(120).repeat(PACKETS as usize);
    let mut player = Player::new(links, None);
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
        player.send(black_box(&input), usize::MAX);
        player.acknowledge();
    });
}

/// Writes to a socket that takes 1000 bytes each time, which cuts frames.
#[bench]
fn link_writes_cut_frames(bencher: Bencher<'_, '_>) {
    let input = packet(120).repeat(PACKETS as usize);
    let mut player = Player::new(1, None);
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
        player.send(black_box(&input), 1000);
        player.acknowledge();
    });
}

/// Each packet comes in a read of its own, and is the game server's at once.
#[bench(args = [None, Some(1_000_000)])]
fn packets_to_the_game_server(bencher: Bencher<'_, '_>, max_packets_per_second: Option<u32>) {
    let packet = packet(24);
    let reads: Vec<_> = (1..=PACKETS).map(|number| data(number, 0, &packet)).collect();
    let player = || Player::new(1, max_packets_per_second);
    bencher.counter(ItemsCount::new(PACKETS)).with_inputs(player).bench_local_refs(|player| {
        for read in &reads {
            assert_eq!(player.receive(0, black_box(read)), (1, 0));
        }
    });
}

fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
    let [source, destination] = if v6 {
        ["[2001:db8::1234:5678]:50000", "[2001:db8:1::1]:7162"]
    } else {
        ["203.0.113.200:50000", "198.51.100.7:7162"]
    };
    (source.parse().expect("an address"), destination.parse().expect("an address"))
}

type Write = fn(&mut Vec<u8>, SocketAddr, SocketAddr);

const FORMS: [(&str, Write, bool); 4] = [
    ("v1", proxy_header::write_v1, false),
    ("v1 IPv6", proxy_header::write_v1, true),
    ("v2", proxy_header::write_v2, false),
    ("v2 IPv6", proxy_header::write_v2, true),
];

fn form(name: &str) -> (Write, SocketAddr, SocketAddr) {
    let (_, write, v6) = FORMS.into_iter().find(|(form, ..)| *form == name).expect("a form");
    let (source, destination) = addresses(v6);
    (write, source, destination)
}

#[bench(args = FORMS.map(|(name, ..)| name))]
fn proxy_header_read(bencher: Bencher<'_, '_>, name: &str) {
    let (write, source, destination) = form(name);
    let mut header = Vec::new();
    write(&mut header, source, destination);
    bencher.bench_local(|| {
        let (parsed, length) = proxy_header::parse(black_box(&header)).expect("a header").expect("a whole one");
        assert!(parsed.source == Some(source) && length == header.len());
    });
}

#[bench(args = FORMS.map(|(name, ..)| name))]
fn proxy_header_write(bencher: Bencher<'_, '_>, name: &str) {
    let (write, source, destination) = form(name);
    let mut header = Vec::with_capacity(128);
    bencher.bench_local(|| {
        header.clear();
        write(&mut header, black_box(source), black_box(destination));
        black_box(&header);
    });
}

/// Numbers that look random, and are the same each time.
fn scattered() -> impl Iterator<Item = u128> + Clone {
    (1u128..).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
}

/// Addresses that are looked up, one after the other.
const LOOK_UPS: usize = 1024;

/// Looks up an address in a list, as each connection does if there is one.
#[bench(args = [1, 1000, 100_000])]
fn address_in_a_list(bencher: Bencher<'_, '_>, entries: usize) {
    let address = |bits: u128| IpAddr::from(Ipv4Addr::from_bits((bits >> 96) as u32));
    look_up(bencher, entries, address);
}

#[bench(args = [1, 1000, 100_000])]
fn address_in_a_list_ipv6(bencher: Bencher<'_, '_>, entries: usize) {
    look_up(bencher, entries, |bits| IpAddr::from(Ipv6Addr::from_bits(bits | 0x2000 << 112)));
}

/// Looks up addresses, half of which are in the list.
fn look_up(bencher: Bencher<'_, '_>, entries: usize, address: fn(u128) -> IpAddr) {
    let list: AddressSet = scattered().take(entries).map(|bits| address(bits).into()).collect();
    let some = scattered().take(entries).step_by((entries / (LOOK_UPS / 2)).max(1)).cycle();
    let others = scattered().skip(entries);
    let addresses = some.zip(others).flat_map(|(listed, other)| [address(listed), address(other)]);
    let addresses: Vec<_> = addresses.take(LOOK_UPS).collect();
    bencher.counter(ItemsCount::new(LOOK_UPS)).bench_local(|| {
        let found = black_box(&addresses).iter().filter(|address| list.contains(**address)).count();
        assert!(found >= LOOK_UPS / 2);
    });
}

/// Looks up an address among bans of networks of several lengths, as each connection does. Without bans it reads one
/// number.
#[bench(args = [0, 1, BANS])]
fn address_in_bans(bencher: Bencher<'_, '_>, count: usize) {
    let address = |bits: u128| IpAddr::from(Ipv4Addr::from_bits((bits >> 96) as u32));
    let now = Instant::now();
    let rules = BanPolicy { after: None, lasting: Duration::from_secs(1), exempt: AddressSet::default() };
    let bans = Bans::new(rules, BanMetrics::new(&Metrics::new()));
    for (bits, length) in scattered().take(count).zip([32, 32, 32, 24, 16].into_iter().cycle()) {
        let network = IpNet::new(address(bits), length).expect("a length of IPv4");
        assert!(bans.ban(network, Duration::from_secs(3600), now));
    }
    let addresses: Vec<_> = scattered().skip(count).take(LOOK_UPS).map(address).collect();
    bencher.counter(ItemsCount::new(LOOK_UPS)).bench_local(|| {
        black_box(black_box(&addresses).iter().filter(|address| bans.check(**address, now).is_err()).count());
    });
}

/// Takes from the rate of connections with ever new addresses, as a flood does.
#[bench]
fn rate_of_new_addresses(bencher: Bencher<'_, '_>) {
    let limit = RateLimit::new(Quota::per(20, Duration::from_secs(10)));
    let (mut addresses, now) = (scattered(), Instant::now());
    bencher.counter(ItemsCount::new(LOOK_UPS)).bench_local(|| {
        for address in addresses.by_ref().take(LOOK_UPS) {
            assert!(limit.try_take(AddressKey::from(IpAddr::from(Ipv6Addr::from_bits(address))), black_box(now)));
        }
    });
}
