//! A core that is killed while people play.

use otproxy::handover::MOST_TRIES;
use otproxy_protocol::frame;
use otproxy_testkit::player::ClientClocks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::sessions::{ended, play, yaml};
use super::{Service, over_the_tunnel, replaced, same_connections};
use crate::common::crew::{Crew, pushing};
use crate::common::process::Running;
use crate::common::{run, tunnel};

const GOES_ON: &str = "goes on with the sessions of the process before";

impl Service {
    /// Kills it at this moment.
    fn kill(&mut self) {
        self.running.take().unwrap().kill();
        // Its queue may be made anew at this moment: then the manager has two.
        assert!((1..=2).contains(&self.manager.kept().len()), "{:?}", self.manager.kept());
    }

    /// Kills it at this moment, and starts the next one.
    fn crash(&mut self) {
        self.kill();
        self.starts_with(GOES_ON);
    }

    /// Starts the next one, and kills it once it has taken over what was left, and has nothing else yet.
    fn starts_and_is_killed(&mut self) {
        let before = self.manager.kept();
        let mut running = Running::of(self.command().spawn().unwrap());
        self.manager.keeps(|kept| kept.iter().any(|name| !before.contains(name)));
        running.kill();
    }
}

#[test]
fn sessions_go_on_to_the_byte() {
    run(async {
        let game = pushing().await;
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 2, &[game.addr()]));
        let mut crew = Crew::with(10, &[listen; 2], ClientClocks::default()).await;
        replaced(&mut crew, |workers| {
            core.write(&yaml(listen, workers, &[game.addr()]));
            core.crash();
        })
        .await;
        // One that is told to end leaves sessions that were recorded, and the next one records what was left.
        core.end();
        core.starts_with(GOES_ON);
        crew.play().await;
        core.crash();
        crew.rejoin().await;
        crew.play().await;
        crew.lost_nothing().await;
        same_connections(&game, 10);
        crew.leave().await;
    });
}

#[test]
fn links_of_the_tunnel_come_back() {
    run(async {
        over_the_tunnel(Service::core, Service::crash).await;
    });
}

#[test]
fn one_that_is_killed_as_it_starts_loses_nothing_and_many_of_them_in_a_row_lose_all() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 1, &[game.local_addr().unwrap()]));
        let (link, mut playing) = play(listen, &game, 7172, 1).await;
        core.kill();
        core.starts_and_is_killed();
        core.starts_and_is_killed();
        core.starts_with(GOES_ON);
        drop(link);
        playing.write_all(b"\x02\0yo").await.unwrap();
        let mut again = TcpStream::connect(listen).await.unwrap();
        let open = [&frame::ping(frame::ClientId(1), 0)[..], &frame::open(frame::SessionId(1), 7172)].concat();
        again.write_all(&open).await.unwrap();
        let mut both = [0; frame::HEADER_LEN * 3 + 8];
        again.read_exact(&mut both).await.unwrap();
        assert!(both.ends_with(b"\x02\0yo"));

        // How many there were so far depends on whether the last one has lasted.
        core.kill();
        for _ in 0..MOST_TRIES {
            if core.manager.kept().is_empty() {
                break;
            }
            let before = core.manager.kept();
            let mut running = Running::of(core.command().spawn().unwrap());
            core.manager.keeps(|kept| kept.is_empty() || kept.iter().any(|name| !before.contains(name)));
            running.kill();
        }
        core.manager.keeps(|kept| kept.len() <= 1);
        let mut running = Running::of(core.command().spawn().unwrap());
        running.line_with("ready");
        assert_eq!(playing.read(&mut [0]).await.unwrap_or(0), 0, "the connection is closed at last");
        core.running = Some(running);
    });
}

#[test]
fn what_happens_while_there_is_no_core_is_noticed() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 1, &[game.local_addr().unwrap()]));
        let (closed, mut closing) = play(listen, &game, 7172, 1).await;
        let (_away, mut open) = play(listen, &game, 7172, 2).await;
        core.kill();
        // The game server says a last word to one, and closes; the other one's goes on.
        closing.write_all(b"\x03\0bye").await.unwrap();
        drop((closing, closed));
        open.write_all(b"\x02\0yo").await.unwrap();
        core.starts_with(GOES_ON);
        for (client, last) in [(1, &b"bye"[..]), (2, b"yo")] {
            let mut back = TcpStream::connect(listen).await.unwrap();
            let ping = frame::ping(frame::ClientId(client), 0);
            back.write_all(&[&ping[..], &frame::open(frame::SessionId(1), 7172)].concat()).await.unwrap();
            // The pong, the packet that was never acknowledged, and the one that came since.
            let mut all = vec![0; frame::HEADER_LEN * 3 + 4 + 2 + last.len()];
            back.read_exact(&mut all).await.unwrap();
            assert!(all.ends_with(last), "{all:?}");
            if client == 1 {
                ended(&mut back).await;
            }
        }
        // And what a client sends arrives once, though part of it came before.
        let mut again = TcpStream::connect(listen).await.unwrap();
        let data = frame::data_header(frame::SessionId(1), frame::PacketId(1), frame::PacketId(2), 3);
        let all = [&frame::ping(frame::ClientId(2), 0)[..], &frame::open(frame::SessionId(1), 7172), &data, b"\x01\0x"];
        again.write_all(&all.concat()).await.unwrap();
        let mut packet = [0; 3];
        open.read_exact(&mut packet).await.unwrap();
        core.crash();
        let mut once_more = TcpStream::connect(listen).await.unwrap();
        let next = frame::data_header(frame::SessionId(1), frame::PacketId(2), frame::PacketId(2), 3);
        once_more.write_all(&[&all.concat()[..], &next, b"\x01\0y"].concat()).await.unwrap();
        open.read_exact(&mut packet).await.unwrap();
        assert_eq!(&packet, b"\x01\0y", "the first one is not there twice");
    });
}

#[test]
fn a_file_that_says_end_keeps_nothing() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let mut core = Service::core(&(yaml(listen, 1, &[game.local_addr().unwrap()]) + "restart: end\n"));
        let (mut link, mut playing) = play(listen, &game, 7172, 1).await;
        assert!(core.manager.kept().is_empty());
        core.running.take().unwrap().kill();
        assert_eq!(playing.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(link.read(&mut [0]).await.unwrap_or(0), 0);
    });
}
