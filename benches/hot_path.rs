//! What a packet costs apart from system calls: `cargo bench`, or `cargo bench -- frame` for some.
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

use std::cell::RefCell;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use divan::counter::ItemsCount;
use divan::{Bencher, bench};
use ipnet::IpNet;
use otproxy::admission::{AddressKey, BANS, BanMetrics, BanRules, Bans, RateLimit};
use otproxy::metrics::Metrics;
use otproxy_config::{AddressSet, Framing};
use otproxy_protocol::core::{Arrival, Batch, LinkWriter, Machine, MachineLimits, Upstream};
use otproxy_protocol::frame::{self, Frame, PacketId, SessionId};
use otproxy_protocol::game_packet::Cutter;
use otproxy_protocol::proxy_header;
use otproxy_protocol::rate::Rate;

fn main() {
    divan::main();
}

const S: SessionId = SessionId(7);
/// Packets in each input: as many as a busy link brings in one read.
const PACKETS: u32 = 64;
/// Bytes of a packet: of a player's, of a game server's, and of a large one.
const SIZES: [usize; 3] = [24, 120, 4096];

/// A packet of `size` bytes, its length included.
fn packet(size: usize) -> Vec<u8> {
    let mut packet = vec![b'.'; size];
    packet[..2].copy_from_slice(&((size - 2) as u16).to_le_bytes());
    packet
}

fn data(number: u32, ack: u32, packet: &[u8]) -> Vec<u8> {
    [&frame::data_header(S, PacketId(number), PacketId(ack), packet.len()), packet].concat()
}

fn machine() -> Machine {
    let limits = MachineLimits {
        linger: Duration::from_secs(30),
        leave_grace: Duration::from_secs(2),
        unacked: 4 << 20,
        reorder: 256 << 10,
    };
    Machine::new(S, limits, Instant::now())
}

/// What one read from the game server becomes.
fn batch(first: PacketId, packet: &[u8]) -> Batch {
    let mut batch = Batch::with_capacity(PACKETS as usize * (frame::HEADER_LEN + packet.len()));
    let mut number = first;
    for _ in 0..PACKETS {
        batch.push(S, number, PacketId::NONE, (packet.len() - 2) as u16, &packet[2..]);
        number = number.next();
    }
    batch
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
        let mut cutter = Cutter::new(Framing::Auto);
        let mut rest = black_box(&input[..]);
        while let Some((packet, length)) = cutter.next(rest).expect("packets") {
            black_box(packet);
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    });
}

/// Each packet comes over two links: the second is a double.
#[bench]
fn session_takes_packets_twice(bencher: Bencher<'_, '_>) {
    let packet = packet(24);
    bencher.counter(ItemsCount::new(PACKETS)).with_inputs(machine).bench_local_refs(|machine| {
        for number in 1..=PACKETS {
            let arrival = machine.accept(PacketId(number), black_box(&packet));
            assert!(matches!(arrival, Ok(Arrival::InOrder)));
            let arrival = machine.accept(PacketId(number), black_box(&packet));
            assert!(matches!(arrival, Ok(Arrival::Duplicate)));
        }
    });
}

/// The first of all packets comes last, as where a path lost it.
#[bench]
fn session_keeps_packets_ahead_of_their_turn(bencher: Bencher<'_, '_>) {
    let packet = packet(24);
    bencher.counter(ItemsCount::new(PACKETS)).with_inputs(machine).bench_local_refs(|machine| {
        for number in (1..=PACKETS).rev() {
            black_box(machine.accept(PacketId(number), black_box(&packet))).expect("within the limits");
        }
        let held = std::iter::from_fn(|| machine.pop_held()).count();
        assert_eq!(held, PACKETS as usize - 1);
    });
}

/// Framing into the outbox, writing on each of `links` links, and the acks that free it.
#[bench(args = [1, 2, 5])]
fn outbox_to_links(bencher: Bencher<'_, '_>, links: usize) {
    let packet = packet(120);
    let machine = Rc::new(RefCell::new(machine()));
    let mut writers: Vec<_> = (0..links).map(|_| LinkWriter::default()).collect();
    writers.iter_mut().for_each(|writer| writer.join(machine.clone()));
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
        let first = machine.borrow().outbox().next();
        machine.borrow_mut().push(batch(first, black_box(&packet)));
        for writer in &mut writers {
            let all = |slices: &[std::io::IoSlice<'_>]| Ok(slices.iter().map(|slice| black_box(slice).len()).sum());
            let written = writer.write_to(all).expect("written");
            assert_eq!(written.first + written.duplicate, PACKETS);
        }
        let last = machine.borrow().sent();
        machine.borrow_mut().ack(last).expect("sent before");
        assert_eq!(machine.borrow().outbox().unacked(), 0);
    });
}

/// A socket that takes 1000 bytes each time: frames are cut.
#[bench]
fn link_writes_cut_frames(bencher: Bencher<'_, '_>) {
    let packet = packet(120);
    let machine = Rc::new(RefCell::new(machine()));
    let mut writer = LinkWriter::default();
    writer.join(machine.clone());
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
        let first = machine.borrow().outbox().next();
        machine.borrow_mut().push(batch(first, &packet));
        loop {
            let some =
                |slices: &[std::io::IoSlice<'_>]| Ok(slices.iter().map(|slice| slice.len()).sum::<usize>().min(1000));
            if !black_box(writer.write_to(some).expect("written")).blocked {
                break;
            }
        }
        let last = machine.borrow().sent();
        machine.borrow_mut().ack(last).expect("sent before");
    });
}

#[bench(args = [None, Some(1_000_000)])]
fn upstream(bencher: Bencher<'_, '_>, max_packets_per_second: Option<u32>) {
    let packet = packet(24);
    let now = Instant::now();
    bencher.counter(ItemsCount::new(PACKETS)).with_inputs(|| Upstream::new(max_packets_per_second)).bench_local_refs(
        |upstream| {
            for _ in 0..PACKETS {
                upstream.push(black_box(&packet));
                let length = upstream.writable(|| now).len();
                upstream.wrote(length);
            }
        },
    );
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

/// Whether an address is in a list of so many: what each connection costs where there is one.
#[bench(args = [1, 1000, 100_000])]
fn address_in_a_list(bencher: Bencher<'_, '_>, entries: usize) {
    let address = |bits: u128| IpAddr::from(Ipv4Addr::from_bits((bits >> 96) as u32));
    look_up(bencher, entries, address);
}

#[bench(args = [1, 1000, 100_000])]
fn address_in_a_list_ipv6(bencher: Bencher<'_, '_>, entries: usize) {
    look_up(bencher, entries, |bits| IpAddr::from(Ipv6Addr::from_bits(bits | 0x2000 << 112)));
}

/// Half of the addresses that are looked up are in the list.
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

/// Whether an address is banned, among so many that are, and networks of some lengths: what each connection costs. With
/// none it is a look at one number.
#[bench(args = [0, 1, BANS])]
fn address_in_bans(bencher: Bencher<'_, '_>, count: usize) {
    let address = |bits: u128| IpAddr::from(Ipv4Addr::from_bits((bits >> 96) as u32));
    let now = Instant::now();
    let rules = BanRules { after: None, lasting: Duration::from_secs(1), exempt: AddressSet::default() };
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

/// The rate of connections, of ever other addresses: what a flood from many costs.
#[bench]
fn rate_of_new_addresses(bencher: Bencher<'_, '_>) {
    let limit = RateLimit::new(Rate::per(20, Duration::from_secs(10)));
    let (mut addresses, now) = (scattered(), Instant::now());
    bencher.counter(ItemsCount::new(LOOK_UPS)).bench_local(|| {
        for address in addresses.by_ref().take(LOOK_UPS) {
            assert!(limit.try_take(AddressKey::V6((address >> 64) as u64), black_box(now)));
        }
    });
}
