//! `otproxy doctor` beside stand-ins of the game servers that people run: it tells which one it is, and what to change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use otproxy_protocol::frame::{self, ClientId, SessionId};
use rustix::process::Signal;

use crate::common::folder::Folder;
use crate::common::process::{Running, otproxy};
use crate::doctor::{NO_ADMIN, Said, doctor, doctor_and, free};

/// A game server, as far as the first bytes of a connection go.
#[derive(Clone, Copy, Default)]
struct Kind {
    reads_otc: bool,
    reads_proxy: bool,
    /// It takes the bytes of addresses in the other order.
    backwards: bool,
    /// It counts blocks in the length of a packet.
    blocks: bool,
    /// The address that its status shows.
    shows: &'static str,
    /// The addresses whose connects it counts, and blocks from the sixth on.
    blocks_who: Blocks,
}

/// The addresses that a server blocks.
#[derive(Clone, Copy, Default, PartialEq)]
enum Blocks {
    #[default]
    Nobody,
    /// Each peer, for itself.
    Peers,
    /// All together.
    All,
}

const STOCK: Kind = Kind {
    reads_otc: false,
    reads_proxy: false,
    backwards: false,
    blocks: false,
    shows: "127.0.0.1",
    blocks_who: Blocks::Nobody,
};
const PATCHED: Kind = Kind { reads_otc: true, reads_proxy: true, ..STOCK };
const BACKWARDS: Kind = Kind { backwards: true, ..PATCHED };

/// The ports of a server that runs until the test ends.
struct Server {
    login: SocketAddr,
    game: SocketAddr,
}

impl Server {
    fn start(kind: Kind) -> Self {
        let [login, game] = [false, true].map(|is_game| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = listener.local_addr().expect("an address");
            // Others than 127.0.0.1 are answered once, as if the five seconds never passed.
            let answered = Arc::new(Mutex::new(BTreeSet::new()));
            thread::spawn(move || {
                let mut connects = BTreeMap::<_, u32>::new();
                for stream in listener.incoming().map_while(Result::ok) {
                    let peer = stream.peer_addr().expect("connected").ip();
                    // Other checks come from 127.0.0.1, so that those of the throttle are the first of their addresses.
                    let who = Some(peer).filter(|_| kind.blocks_who == Blocks::Peers);
                    let count = connects.entry(who).or_default();
                    *count += u32::from(peer != Ipv4Addr::LOCALHOST);
                    if *count > 5 && kind.blocks_who != Blocks::Nobody {
                        continue;
                    }
                    let answered = Arc::clone(&answered);
                    thread::spawn(move || drop(serve(stream, kind, is_game, &answered)));
                }
            });
            address
        });
        Self { login, game }
    }

    /// Has the doctor look at a core in front of it.
    fn examined(&self, player_address: &str, send_proxy: &str, framing: &str) -> Said {
        doctor(&self.core(player_address, send_proxy, &format!("framing: {framing}")))
    }

    /// Returns the file of a core in front of it, with more keys of the world.
    fn core(&self, player_address: &str, send_proxy: &str, world: &str) -> String {
        let Self { login, game } = self;
        format!(
            "role: core\n{NO_ADMIN}edges: [{{ name: waw1, address: 192.0.2.1 }}]\n\
             listeners:\n\
             - {{ name: links, kind: relay, listen: '127.0.0.1:0' }}\n\
             - {{ name: login, listen: '127.0.0.1:0', forward_to: '{login}', send_proxy: {send_proxy} }}\n\
             game_servers:\n\
             - {{ port: 7171, address: '{login}', player_address: {player_address} }}\n\
             - {{ port: 7172, address: '{game}', player_address: {player_address}, {world} }}\n"
        )
    }
}

fn serve(mut stream: TcpStream, kind: Kind, is_game: bool, answered: &Mutex<BTreeSet<IpAddr>>) -> std::io::Result<()> {
    if is_game {
        let packet: &[u8] = if kind.blocks { b"\x01\0abcdefghijkl" } else { b"\x0C\0abcdefghijkl" };
        stream.write_all(packet)?;
    }
    let mut player = stream.peer_addr()?.ip();
    let mut told = |stream: &mut TcpStream| -> std::io::Result<()> {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes)?;
        if kind.backwards {
            bytes.reverse();
        }
        player = IpAddr::from(bytes);
        Ok(())
    };
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    if length == [0xFE, 0xFF] && kind.reads_otc {
        told(&mut stream)?;
        stream.read_exact(&mut length)?;
    } else if length == *b"\r\n" && kind.reads_proxy {
        stream.read_exact(&mut [0; 14])?;
        told(&mut stream)?;
        stream.read_exact(&mut [0; 8])?;
        stream.read_exact(&mut length)?;
    }
    let length = u16::from_le_bytes(length);
    if length > 24_590 {
        return Ok(());
    }
    let mut packet = vec![0; length.into()];
    stream.read_exact(&mut packet)?;
    if packet == b"\xFF\xFFinfo" && (player == Ipv4Addr::LOCALHOST || answered.lock().unwrap().insert(player)) {
        write!(stream, "<?xml version=\"1.0\"?><tsqp><serverinfo ip=\"{}\" port=\"7171\"/></tsqp>", kind.shows)?;
    }
    Ok(())
}

#[test]
fn a_server_that_reads_what_it_is_told() {
    for (kind, form, header) in [(PATCHED, "otc", "v2"), (BACKWARDS, "otc_reversed", "v2_reversed")] {
        let said = Server::start(kind).examined(form, header, "auto");
        said.says("ok    player_address 7171", &["reads `player_address: ", form, "answers a request for the status"]);
        said.says("ok    player_address 7172", &["speaks first", form, "no proof"]);
        said.says("ok    player_address login", &["reads `send_proxy: ", header]);
    }
    let said = Server::start(STOCK).examined("none", "none", "auto");
    said.says("ok    player_address 7171", &["without a header, and with none other"]);
    said.says("ok    player_address 7172", &["speaks first"]);
    said.says("ok    player_address login", &["without a header"]);
}

#[test]
fn another_program_that_speaks_first() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let at = listener.local_addr().expect("an address");
    thread::spawn(move || {
        // They stay until the other side has gone.
        let mut open: Vec<_> = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"SSH-2.0-x\r\n");
            open.push(stream);
        }
    });
    let said = Server { login: at, game: at }.examined("otc", "v2", "auto");
    for subject in ["7171", "7172", "login"] {
        let what = ["speaks first, and not as a game server: `SSH-2.0-x`", "`ss -ltnp`"];
        said.says(&format!("fail  player_address {subject}"), &what);
    }
}

#[test]
fn a_server_whose_switches_are_off_or_that_has_no_patch() {
    let said = Server::start(STOCK).examined("otc", "v2", "auto");
    let switch = "set `allowOtcProxy = true` in its config.lua (one branch of TFS 1.4 reads `binaryPlayerItems = true`";
    for port in ["7171", "7172"] {
        let closes = ["accepts, and closes on `FE FF`", switch, "`player_address: none` if it has no patch"];
        said.says(&format!("fail  player_address {port}"), &closes);
    }
    let reads_none = ["does not read `send_proxy: v2`", "set `allowHaProxy = true`", "`send_proxy: none`"];
    said.says("fail  player_address login", &reads_none);
}

#[test]
fn a_server_that_reads_addresses_backwards() {
    let said = Server::start(BACKWARDS).examined("otc", "v2", "auto");
    let reverses = "reverses addresses";
    said.says("fail  player_address 7171", &[reverses, "7.113.0.203", "`player_address: otc_reversed`"]);
    said.says("fail  player_address login", &[reverses, "`send_proxy: v2_reversed`"]);
    let said = Server::start(PATCHED).examined("otc_reversed", "v2_reversed", "auto");
    said.says("fail  player_address 7171", &[reverses, "`player_address: otc`"]);
    said.says("fail  player_address login", &[reverses, "`send_proxy: v2`"]);
}

#[test]
fn a_server_that_would_read_a_header_and_is_told_nothing() {
    let said = Server::start(PATCHED).examined("none", "none", "auto");
    said.says("warn  player_address 7171", &["is told no player's address", "`player_address: otc`"]);
    said.says("warn  player_address login", &["is told no player's address", "`send_proxy: v2`"]);
}

#[test]
fn framings_that_differ() {
    let blocks = Kind { blocks: true, ..PATCHED };
    let said = Server::start(blocks).examined("otc", "v2", "bytes");
    said.says(
        "fail  player_address 7172",
        &["counts blocks", "`framing: bytes`", "needs `framing: blocks`, or `auto`"],
    );
    let said = Server::start(PATCHED).examined("otc", "v2", "blocks");
    said.says("fail  player_address 7172", &["counts bytes", "needs `framing: bytes`"]);
    for framing in ["blocks", "auto"] {
        Server::start(blocks).examined("otc", "v2", framing).says("ok    player_address 7172", &["speaks first"]);
    }
}

#[test]
fn a_core_whose_sessions_all_end_at_once_names_the_key() {
    let (server, folder, listen) = (Server::start(STOCK), Folder::new(), free());
    let file = folder.join("core.yaml");
    let yaml = format!(
        "role: core\nshutdown_timeout: 0s\n{NO_ADMIN}listeners: [{{ name: links, kind: relay, listen: '{listen}', accept_proxy: none }}]\n\
         game_servers: [{{ port: 7172, address: '{}' }}]\n",
        server.game
    );
    std::fs::write(&file, yaml).expect("writable");
    let (mut core, _) = Running::start(otproxy(&["core", "-c", file.to_str().expect("UTF-8")]));
    for client in 1..=5 {
        let mut link = TcpStream::connect(&listen).expect("a link");
        let open = [&frame::ping(ClientId(client), 0)[..], &frame::open(SessionId(1), 7172)].concat();
        link.write_all(&open).expect("sent");
        // The server's first packet, and the end of the session.
        let mut seen = Vec::new();
        while !seen.windows(12).any(|bytes| bytes == b"abcdefghijkl") || seen.ends_with(b"abcdefghijkl") {
            let mut byte = [0];
            link.read_exact(&mut byte).expect("an end");
            seen.extend(byte);
        }
    }
    let line = core.line_with("closed the last 5 sessions after no more than a first packet");
    assert!(line.contains("\"port\":7172") && line.contains("\"player_address\":\"otc\""), "{line}");
    core.signal(Signal::TERM);
    let (_, rest) = core.end();
    assert!(!rest.contains("after no more than a first packet"), "{rest}");
}

#[test]
fn a_server_that_blocks_who_connects_too_often() {
    let together = "blocks the others; remedy: give one of its `game_servers` `connects: 1/600ms`";
    let cases = [
        (Blocks::Nobody, "", "ok    connects", "takes 8 connects"),
        (Blocks::Peers, "", "ok    connects", "tells players apart: no other was blocked"),
        (Blocks::All, "", "fail  connects", together),
        (Blocks::All, "connects: 1/600ms", "ok    connects", "`connects` makes them slow enough"),
    ];
    // The doctor takes its time, so as not to be blocked itself.
    thread::scope(|all| {
        for (blocks_who, world, beginning, words) in cases {
            all.spawn(move || {
                let server = Server::start(Kind { blocks_who, ..STOCK });
                doctor_and(&["--try-connects"], &server.core("none", "none", world)).says(beginning, &[words]);
            });
        }
        let yaml = Server::start(STOCK).core("none", "none", "");
        all.spawn(move || assert!(!doctor(&yaml).text.contains("  connects "), "not unasked"));
    });
}
