//! A core that is restarted while people play.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use otproxy::handover::{Inheritance, receive, send};
use otproxy_protocol::frame;
use otproxy_testkit::player::ClientClocks;
use rustix::process::{Resource, Rlimit, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Service, over_the_tunnel, replaced, same_connections};
use crate::common::crew::{Crew, pushing};
use crate::common::process::Running;
use crate::common::{link, run, tunnel};

/// Returns the YAML of a core with worlds on ports from 7172 on.
pub fn yaml(listen: SocketAddr, workers: usize, worlds: &[SocketAddr]) -> String {
    let world = |(port, address)| format!("- {{ port: {port}, address: '{address}', player_address: none }}\n");
    let worlds: String = (link::PORT..).zip(worlds).map(world).collect();
    format!(
        "workers: {workers}\nlisteners: [{{ name: links, kind: relay, listen: '{listen}', accept_proxy: none }}]\n\
         game_servers:\n{worlds}"
    )
}

#[test]
fn sessions_and_plain_links_go_on() {
    run(async {
        let game = pushing().await;
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 2, &[game.addr()]));
        // With clocks as clients have them, a machine that is busy for a moment looks like no dead link.
        let mut crew = Crew::with(10, &[listen; 2], ClientClocks::default()).await;
        replaced(&mut crew, |workers| {
            core.write(&yaml(listen, workers, &[game.addr()]));
            let log = core.restart();
            assert!(log.contains("left the sessions to the next process"), "{log}");
        })
        .await;
        crew.play().await;
        let lost = crew.lost_nothing().await;
        assert_eq!(lost, vec![0; 10], "not even a link");
        same_connections(&game, 10);
        crew.leave().await;
    });
}

#[test]
fn clients_that_take_a_busy_moment_for_a_dead_link_lose_nothing() {
    run(async {
        let game = pushing().await;
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 2, &[game.addr()]));
        let mut crew = Crew::start(10, &[listen; 2]).await;
        replaced(&mut crew, |workers| {
            core.write(&yaml(listen, workers, &[game.addr()]));
            core.restart();
        })
        .await;
        crew.lost_nothing().await;
        same_connections(&game, 10);
        crew.leave().await;
    });
}

#[test]
fn links_of_the_tunnel_come_back_and_nothing_is_lost() {
    run(async {
        let lost = over_the_tunnel(Service::core, |core| drop(core.restart())).await;
        // A player may not have noticed one restart before the next.
        assert!(lost.iter().all(|losses| *losses > 0), "{lost:?}");
    });
}

/// A client's link, with a session, and the game server's side of it.
pub async fn play(listen: SocketAddr, game: &TcpListener, port: u16, client: u32) -> (TcpStream, TcpStream) {
    let mut link = TcpStream::connect(listen).await.unwrap();
    let open = [&frame::ping(frame::ClientId(client), 0)[..], &frame::open(frame::SessionId(1), port)].concat();
    link.write_all(&open).await.unwrap();
    let (mut game, _) = game.accept().await.unwrap();
    game.write_all(b"\x02\0hi").await.unwrap();
    let mut first = [0; frame::HEADER_LEN * 2 + 4];
    link.read_exact(&mut first).await.unwrap();
    assert_eq!((&first[..frame::HEADER_LEN], first.last()), (&frame::PONG[..], Some(&b'i')));
    (link, game)
}

/// Sends a packet of the game server, and reads it at the client.
pub async fn reaches(game: &mut TcpStream, link: &mut TcpStream) {
    game.write_all(b"\x02\0yo").await.unwrap();
    let mut packet = [0; frame::HEADER_LEN + 4];
    link.read_exact(&mut packet).await.unwrap();
    assert!(packet.ends_with(b"yo"));
}

/// Reads the end of the session.
pub async fn ended(link: &mut TcpStream) {
    let mut end = [0; frame::HEADER_LEN];
    link.read_exact(&mut end).await.unwrap();
    assert_eq!(end, frame::end(frame::SessionId(1)));
}

#[test]
fn what_happens_between_two_processes_is_noticed() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 1, &[game.local_addr().unwrap()]));
        let (mut closed, closing) = play(listen, &game, 7172, 1).await;
        let (mut left, mut leaving) = play(listen, &game, 7172, 2).await;
        let (gone, mut without) = play(listen, &game, 7172, 3).await;
        core.end();
        // The game server closes, a client leaves, another one is gone, and somebody else comes.
        drop((closing, gone));
        left.write_all(&frame::end(frame::SessionId(1))).await.unwrap();
        core.go();
        ended(&mut closed).await;
        assert_eq!(leaving.read(&mut [0]).await.unwrap(), 0, "the client has left");
        let (_link, mut game_of_other) = play(listen, &game, 7172, 4).await;
        // Packets for one that is gone are kept for it.
        without.write_all(b"\x02\0yo").await.unwrap();
        let mut again = TcpStream::connect(listen).await.unwrap();
        let ack = frame::data_header(frame::SessionId(1), frame::PacketId(1), frame::PacketId(1), 3);
        let back = [&frame::ping(frame::ClientId(3), 0)[..], &frame::open(frame::SessionId(1), 7172), &ack, b"\x01\0x"];
        again.write_all(&back.concat()).await.unwrap();
        let mut packet = [0; 3];
        without.read_exact(&mut packet).await.unwrap();
        assert_eq!(&packet, b"\x01\0x");
        let mut rest = vec![0; frame::HEADER_LEN * 2 + 4];
        loop {
            // The first packet comes once more if the acknowledgement is behind it.
            again.read_exact(&mut rest).await.unwrap();
            if rest.ends_with(b"yo") {
                break;
            }
            rest = vec![0; frame::HEADER_LEN + 4];
        }
        game_of_other.write_all(b"\x02\0ok").await.unwrap();
    });
}

#[test]
fn a_world_that_is_gone_ends_its_sessions_alone() {
    run(async {
        let games = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let addresses = games.each_ref().map(|game| game.local_addr().unwrap());
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 1, &addresses));
        let (mut stays, mut game) = play(listen, &games[0], 7172, 1).await;
        let (mut goes, mut gone) = play(listen, &games[1], 7173, 2).await;
        core.end();
        core.write(&yaml(listen, 1, &addresses[..1]));
        core.starts_with("in game_servers no more");
        ended(&mut goes).await;
        assert_eq!(gone.read(&mut [0]).await.unwrap(), 0);
        reaches(&mut game, &mut stays).await;
    });
}

#[test]
fn a_wrong_file_says_so_and_the_next_start_goes_on() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (listen, address) = (tunnel::free_address(), game.local_addr().unwrap());
        let mut core = Service::core(&yaml(listen, 1, &[address]));
        let (mut link, mut game) = play(listen, &game, 7172, 1).await;
        core.end();
        core.write("listeners: nonsense\n");
        let output = core.command().output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        assert!(String::from_utf8_lossy(&output.stderr).contains("listeners"));
        core.write(&yaml(listen, 1, &[address]));
        core.go();
        reaches(&mut game, &mut link).await;
    });
}

#[test]
fn an_address_that_cannot_be_had_loses_nothing() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (listen, address) = (tunnel::free_address(), game.local_addr().unwrap());
        let mut core = Service::core(&yaml(listen, 1, &[address]));
        let (mut link, mut game) = play(listen, &game, 7172, 1).await;
        core.end();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let wrong = yaml(listen, 1, &[address]) + &format!("admin: {{ listen: '{}' }}\n", taken.local_addr().unwrap());
        for _ in 0..2 {
            core.write(&wrong);
            let text = std::fs::read_to_string(core.file()).unwrap().replace("admin: { listen: off }\n", "");
            std::fs::write(core.file(), text).unwrap();
            let output = core.command().output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("cannot listen on") && said.contains("there for the next start"), "{said}");
            assert_eq!(core.manager.kept(), ["otproxy"]);
        }
        // Somebody connects meanwhile, and waits.
        let _waits = TcpStream::connect(listen).await.unwrap();
        core.write(&yaml(listen, 1, &[address]));
        core.go();
        reaches(&mut game, &mut link).await;
    });
}

#[test]
fn a_store_without_room_ends_sessions_as_without_one() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let text = yaml(listen, 1, &[game.local_addr().unwrap()]) + "shutdown_timeout: 0s\n";
        let mut core = Service::core(&text);
        let (mut link, mut game) = play(listen, &game, 7172, 1).await;
        core.manager.fill();
        let log = core.end();
        assert!(log.contains("raise FileDescriptorStoreMax="), "{log}");
        assert!(log.contains("session ended") && core.manager.kept().is_empty(), "{log}");
        ended(&mut link).await;
        assert_eq!(game.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_state_that_is_not_understood_ends_its_sessions_and_nothing_else() {
    run(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 1, &[server.local_addr().unwrap()]));
        type Change = fn(&mut Vec<u8>);
        let changes: [(Change, &str); 3] = [
            (|state| state[0] = 99, "it is of format 99"),
            (|state| state.truncate(state.len() - 1), "it is damaged"),
            (|state| state.truncate(1), "it is damaged"),
        ];
        for (client, (change, says)) in (1..).zip(changes) {
            let (mut link, mut game) = play(listen, &server, 7172, client).await;
            core.end();
            core.manager.replace(|descriptor| {
                let Inheritance { mut state, listeners, sockets } = receive(&UnixStream::from(descriptor)).unwrap();
                change(&mut state);
                let (ours, theirs) = UnixStream::pair().unwrap();
                let listeners: Vec<_> = listeners.iter().map(|listener| listener.as_fd()).collect();
                let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
                send(&ours, &state, &listeners, &sockets).unwrap();
                theirs.into()
            });
            core.starts_with(says);
            assert_eq!(game.read(&mut [0]).await.unwrap_or(0), 0, "{says}");
            assert_eq!(link.read(&mut [0]).await.unwrap_or(0), 0, "{says}");
            let _others = play(listen, &server, 7172, 100 + client).await;
        }
    });
}

#[test]
fn a_session_that_waits_for_its_turn_to_connect_has_it_in_the_next_process() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let text = yaml(listen, 1, &[game.local_addr().unwrap()]);
        let mut core = Service::core(&text.replace("player_address: none", "player_address: none, connects: 1/20s"));
        let (_first, mut first_game) = play(listen, &game, 7172, 1).await;
        let mut second = TcpStream::connect(listen).await.unwrap();
        let open = [&frame::ping(frame::ClientId(2), 0)[..], &frame::open(frame::SessionId(1), 7172)].concat();
        second.write_all(&open).await.unwrap();
        let mut pong = [0; frame::HEADER_LEN];
        second.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, frame::PONG, "the open came with it");
        core.restart();
        let (mut second_game, _) = game.accept().await.unwrap();
        reaches(&mut second_game, &mut second).await;
        first_game.write_all(b"\x02\0yo").await.unwrap();
    });
}

#[test]
fn limits_of_the_new_file_end_no_session_that_there_is() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (listen, address) = (tunnel::free_address(), game.local_addr().unwrap());
        let mut core = Service::core(&yaml(listen, 2, &[address]));
        let mut players = [play(listen, &game, 7172, 1).await, play(listen, &game, 7172, 2).await];
        core.write(&(yaml(listen, 2, &[address]) + "sessions: { max: 1, max_per_address: 1 }\n"));
        core.restart();
        for (link, game) in &mut players {
            reaches(game, link).await;
        }
        let mut third = TcpStream::connect(listen).await.unwrap();
        let open = [&frame::ping(frame::ClientId(3), 0)[..], &frame::open(frame::SessionId(1), 7172)].concat();
        third.write_all(&open).await.unwrap();
        let mut answers = [0; frame::HEADER_LEN * 2];
        third.read_exact(&mut answers).await.unwrap();
        assert_eq!(answers, [frame::PONG, frame::end(frame::SessionId(1))].concat()[..], "they count");
    });
}

#[test]
fn a_core_whose_unit_has_no_store_says_so() {
    let mut core = Service::new("core");
    core.write(&yaml(tunnel::free_address(), 1, &[([127, 0, 0, 1], 9).into()]));
    let mut command = core.command();
    command.env_remove("FDSTORE");
    let mut running = Running::of(command.spawn().unwrap());
    running.line_with("FileDescriptorStoreMax=");
    running.line_with("ready");
    core.running = Some(running);
    assert!(!core.end().contains("to the next process"));
}

#[test]
fn without_descriptors_sessions_end_as_without_a_store() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let text = yaml(listen, 1, &[game.local_addr().unwrap()]) + "shutdown_timeout: 0s\n";
        let mut core = Service::core(&text);
        let (mut link, mut game) = play(listen, &game, 7172, 1).await;
        let none = Rlimit { current: Some(3), maximum: Some(3) };
        prlimit(Some(core.running.as_ref().unwrap().pid()), Resource::Nofile, none).unwrap();
        let log = core.end();
        assert!(log.contains("raise LimitNOFILE") && log.contains("cannot be left to the next process"), "{log}");
        assert!(log.contains("session ended"), "{log}");
        // There is no descriptor by which the process could wait for that.
        core.manager.keeps(<[String]>::is_empty);
        ended(&mut link).await;
        assert_eq!(game.read(&mut [0]).await.unwrap(), 0);
    });
}
