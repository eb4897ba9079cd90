//! Trunks over sockets: both sides in one thread.

use std::collections::HashMap;

use otproxy_protocol::trunk::CREDIT;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::worker::scratch;

type Opened = mpsc::UnboundedReceiver<(OpenRequest, Stream)>;

/// The core's side, which hands on what is opened.
struct Core(mpsc::UnboundedSender<(OpenRequest, Stream)>);

impl TrunkOwner for Core {
    fn opened(&self, request: OpenRequest, stream: TrunkStream) {
        if request.listener == "unknown" {
            return stream.refuse(ResetReason::UnknownListener);
        }
        self.0.send((request, stream.into())).unwrap();
    }
}

/// The edge's side, on which nothing is opened.
struct Edge;

impl TrunkOwner for Edge {
    fn opened(&self, _: OpenRequest, _: TrunkStream) {
        panic!("a core opens nothing");
    }
}

fn request(listener: &str) -> OpenRequest {
    let address = |text: &str| text.parse().unwrap();
    OpenRequest {
        listener: listener.to_owned(),
        player: address("192.0.2.7:5"),
        destination: address("192.0.2.1:7162"),
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), test).await.expect("it hangs") });
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A side that runs.
struct RunningSide {
    trunk: Rc<Trunk>,
    end: JoinHandle<TrunkEnd>,
}

fn start(side: Side, socket: TcpStream, owner: impl TrunkOwner + 'static) -> RunningSide {
    let (trunk, stream) = (Trunk::new(side, CREDIT, Arc::default()), Stream::new(socket).unwrap());
    let running = Rc::clone(&trunk);
    let end = tokio::task::spawn_local(async move { running.run(stream, Vec::new(), &scratch(), &owner).await });
    RunningSide { trunk, end }
}

async fn trunk() -> (RunningSide, RunningSide, Opened) {
    let (near, far) = sockets().await;
    let (sender, opened) = mpsc::unbounded_channel();
    (start(Side::Edge, near, Edge), start(Side::Core, far, Core(sender)), opened)
}

async fn read(stream: &Stream, count: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, scratch) = (Vec::new(), scratch());
    loop {
        let missing = count - bytes.len();
        if missing == 0 || stream.read_onto(&mut bytes, missing, &scratch).await? == 0 {
            return Ok(bytes);
        }
    }
}

async fn shut_down(stream: &Stream) {
    poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
}

#[test]
fn many_streams_go_both_ways_at_once() {
    run(async {
        let (edge, core, mut opened) = trunk().await;
        let echo = tokio::task::spawn_local(async move {
            let mut echoes = Vec::new();
            while let Some((request, stream)) = opened.recv().await {
                assert_eq!(request.listener, "links");
                echoes.push(tokio::task::spawn_local(async move {
                    let scratch = scratch();
                    loop {
                        let mut part = Vec::new();
                        if stream.read_onto(&mut part, 5000, &scratch).await.unwrap() == 0 {
                            return shut_down(&stream).await;
                        }
                        stream.write_all(&part).await.unwrap();
                    }
                }));
                if echoes.len() == 50 {
                    break;
                }
            }
            for echo in echoes {
                echo.await.unwrap();
            }
        });
        let players: Vec<_> = (0..50_u8)
            .map(|n| {
                let stream = Stream::from(edge.trunk.open(&request("links")).unwrap());
                tokio::task::spawn_local(async move {
                    // Several times what credit allows and the trunk holds.
                    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at / 7) as u8 ^ n).collect();
                    let writing = async {
                        stream.write_all(&bytes).await.unwrap();
                        shut_down(&stream).await;
                    };
                    let (got, ()) = tokio::join!(read(&stream, usize::MAX / 2), writing);
                    assert!(got.unwrap() == bytes, "stream {n}");
                })
            })
            .collect();
        for player in players {
            player.await.unwrap();
        }
        echo.await.unwrap();
        while edge.trunk.streams() + core.trunk.streams() > 0 {
            tokio::task::yield_now().await;
        }
        let [sent, came] = [&edge, &core].map(|side| side.trunk.stats().bytes_out.load(Ordering::Relaxed));
        assert!(sent > 50 * 200_000 && came > 50 * 200_000);
        assert_eq!(edge.trunk.stats().streams.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_stream_that_nobody_reads_stops_itself_alone() {
    run(async {
        let (edge, _core, mut opened) = trunk().await;
        let [full, other] = ["full", "other"].map(|name| Stream::from(edge.trunk.open(&request(name)).unwrap()));
        let ends: HashMap<_, _> =
            [opened.recv().await.unwrap(), opened.recv().await.unwrap()].map(|(r, s)| (r.listener, s)).into();
        let mut sent = 0;
        let filling = poll_fn(|cx| {
            while let Poll::Ready(count) = full.poll_write(cx, &[7; 1000]) {
                sent += count.unwrap();
            }
            if sent == CREDIT as usize { Poll::Ready(()) } else { Poll::Pending }
        });
        filling.await;
        for _ in 0..100 {
            other.write_all(b"over here").await.unwrap();
            assert_eq!(read(&ends["other"], 9).await.unwrap(), b"over here");
        }
        assert_eq!(read(&ends["full"], CREDIT as usize).await.unwrap().len(), CREDIT as usize);
        full.write_all(b"goes on").await.unwrap();
        assert_eq!(read(&ends["full"], 7).await.unwrap(), b"goes on");
    });
}

#[test]
fn a_stream_that_is_dropped_is_cut_and_the_trunk_goes_on() {
    run(async {
        let (edge, core, mut opened) = trunk().await;
        let cut = Stream::from(edge.trunk.open(&request("links")).unwrap());
        cut.write_all(b"half a pack").await.unwrap();
        let (_, far) = opened.recv().await.unwrap();
        assert_eq!(read(&far, 11).await.unwrap(), b"half a pack");
        drop(cut);
        assert_eq!(read(&far, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(far.try_write(&[IoSlice::new(b"x")]).is_err());
        drop(far);
        let refused = Stream::from(edge.trunk.open(&request("unknown")).unwrap());
        assert_eq!(read(&refused, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        drop(refused);
        assert_eq!((edge.trunk.streams(), core.trunk.streams()), (0, 0));
        let next = Stream::from(edge.trunk.open(&request("links")).unwrap());
        next.write_all(b"on").await.unwrap();
        assert_eq!(read(&opened.recv().await.unwrap().1, 2).await.unwrap(), b"on");
    });
}

#[test]
fn a_trunk_that_ends_cuts_its_streams_behind_what_came() {
    run(async {
        for ours in [true, false] {
            let (edge, core, mut opened) = trunk().await;
            let near = Stream::from(edge.trunk.open(&request("links")).unwrap());
            near.write_all(b"last words").await.unwrap();
            let (_, far) = opened.recv().await.unwrap();
            if ours {
                core.trunk.close()
            } else {
                edge.trunk.close()
            }
            let (first, second) = if ours { (core, edge) } else { (edge, core) };
            assert!(matches!(first.end.await.unwrap(), TrunkEnd::Ours));
            assert!(matches!(second.end.await.unwrap(), TrunkEnd::Closed));
            assert_eq!(read(&far, 10).await.unwrap(), b"last words");
            assert_eq!(read(&far, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            assert_eq!(read(&near, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            assert!(near.try_write(&[IoSlice::new(b"x")]).is_err());
            assert!(first.trunk.open(&request("links")).is_none());
        }
    });
}

#[test]
fn who_goes_away_gets_no_more_streams_and_keeps_those_that_are() {
    run(async {
        let (edge, core, mut opened) = trunk().await;
        let near = Stream::from(edge.trunk.open(&request("links")).unwrap());
        let (_, far) = opened.recv().await.unwrap();
        core.trunk.go_away();
        far.write_all(b"bye").await.unwrap();
        assert_eq!(read(&near, 3).await.unwrap(), b"bye");
        assert!(edge.trunk.open(&request("links")).is_none() && !edge.trunk.takes_streams());
        near.write_all(b"still here").await.unwrap();
        assert_eq!(read(&far, 10).await.unwrap(), b"still here");
    });
}

#[test]
fn what_is_no_trunk_ends_it() {
    run(async {
        let (mut near, far) = sockets().await;
        let (sender, _opened) = mpsc::unbounded_channel();
        let core = start(Side::Core, far, Core(sender));
        tokio::io::AsyncWriteExt::write_all(&mut near, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(matches!(core.end.await.unwrap(), TrunkEnd::Protocol(_)));
    });
}

#[test]
fn a_trunk_from_which_nothing_comes_is_given_up_and_before_that_it_stalls() {
    run(async {
        let (near, far) = sockets().await;
        let edge = start(Side::Edge, near, Edge);
        // Its first ping is out.
        far.peek(&mut [0]).await.unwrap();
        tokio::time::pause();
        let asked = edge.trunk.asked.get().unwrap();
        assert!(!edge.trunk.is_stalled(asked) && edge.trunk.is_stalled(asked + STALLED));
        tokio::time::resume();
        drop(edge);
    });
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (near, _far) = sockets().await;
        let edge = start(Side::Edge, near, Edge);
        let trunk = Rc::clone(&edge.trunk);
        // The clock jumps from tick to tick, as nothing else happens.
        tokio::time::pause();
        let waited = tokio::time::Instant::now();
        assert!(matches!(edge.end.await.unwrap(), TrunkEnd::Silent));
        let waited = waited.elapsed();
        assert!(waited >= SILENCE && waited <= SILENCE + HEARTBEAT, "{waited:?}");
        assert!(!trunk.takes_streams());
    });
}

#[test]
fn round_trips_are_measured() {
    run(async {
        let (edge, core, _opened) = trunk().await;
        let known = |side: &RunningSide| side.trunk.stats().round_trip.load(Ordering::Relaxed) > 0;
        while !known(&edge) || !known(&core) {
            tokio::task::yield_now().await;
        }
        assert!(edge.trunk.asked.get().is_none());
    });
}
