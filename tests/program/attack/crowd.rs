//! Attackers: many connections of one kind, from many addresses.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use otproxy_protocol::frame::{self, ClientId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Interval, interval, sleep, timeout};

use crate::attack::login_server::STATUS;
use crate::common;

/// Tells a process of this program which crowd it is.
const VARIABLE: &str = "OTPROXY_ATTACK_CROWD";
/// However long nobody tells a crowd to stop.
const LONGEST: Duration = Duration::from_secs(600);
/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Between two bytes of who takes his time.
const SLOW: Duration = Duration::from_secs(1);
/// Between two pings of who does not read the answers.
const UNREAD: Duration = Duration::from_secs(1);
/// Between two pings of a client.
const PING: Duration = Duration::from_millis(2500);

/// What attackers do with a connection. Each has several ways, which take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Silent,
    /// Noise, HTTP, TLS.
    Garbage,
    /// Half a ping or half a login, byte by byte; pings whose answers are not read.
    Slow,
    /// Links that ping as a client does, status requests, logins.
    Valid,
    /// Links that ping, and nothing else.
    Links,
}

impl Kind {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Silent, "silent"),
        (Self::Garbage, "garbage"),
        (Self::Slow, "slow"),
        (Self::Valid, "valid"),
        (Self::Links, "links"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find_map(|(kind, name)| (kind == self).then_some(name)).unwrap()
    }

    fn of(name: &str) -> Self {
        Self::ALL.into_iter().find_map(|(kind, known)| (known == name).then_some(kind)).unwrap()
    }
}

/// So many connections at once, and a new one for each that is closed, at a pace.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub kind: Kind,
    /// The edge's listeners.
    pub links: SocketAddr,
    pub login: SocketAddr,
    /// Addresses are in 127.N.0.0/16, two in each /24.
    pub network: u8,
    pub addresses: usize,
    pub connections: usize,
    pub connects_per_second: usize,
}

impl Crowd {
    fn address(&self, number: usize) -> Ipv4Addr {
        let number = number % self.addresses;
        Ipv4Addr::new(127, self.network, (number / 2) as u8, 1 + (number % 2) as u8)
    }

    /// Attacks until it is dropped.
    pub async fn attack(self) {
        let pace = Arc::new(Mutex::new(interval(Duration::from_secs(1) / self.connects_per_second as u32)));
        let mut all = JoinSet::new();
        for number in 0..self.connections {
            all.spawn(self.keep_attacking(number, Arc::clone(&pace)));
        }
        while all.join_next().await.is_some() {}
    }

    async fn keep_attacking(self, number: usize, pace: Arc<Mutex<Interval>>) {
        // Its turns are spread over the ways that its kind has, whatever the number of addresses.
        for turn in number / self.addresses.min(self.connections).. {
            pace.lock().await.tick().await;
            let (to_login, manner) = self.manner(number + turn);
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((self.address(number), 0).into()).unwrap();
            let connect = socket.connect(if to_login { self.login } else { self.links });
            // What fails is tried again, as attackers do.
            if let Ok(Ok(stream)) = timeout(CONNECT, connect).await {
                manner.keep(stream).await;
            }
        }
    }

    /// Where one connection leads, and what is done with it.
    fn manner(&self, turn: usize) -> (bool, Manner) {
        let ping = || frame::ping(ClientId(0xA000_0000 | (usize::from(self.network) << 20 | turn) as u32), 0).to_vec();
        match (self.kind, turn % 3) {
            (Kind::Silent, turn) => (turn == 1, Manner::Once(Vec::new())),
            (Kind::Garbage, 0) => {
                (false, Manner::Once((0..64).map(|n: usize| (n * 181 + turn * 59 + 119) as u8).collect()))
            }
            (Kind::Garbage, 1) => (true, Manner::Once(b"GET / HTTP/1.1\r\nHost: play.example\r\n\r\n".to_vec())),
            (Kind::Garbage, _) => {
                (turn.is_multiple_of(2), Manner::Once(b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03".to_vec()))
            }
            (Kind::Slow, 0) => (false, Manner::Trickle(ping())),
            (Kind::Slow, 1) => (true, Manner::Trickle(login())),
            (Kind::Slow, _) => (false, Manner::Unread(ping())),
            (Kind::Valid, 0) | (Kind::Links, _) => (false, Manner::Client(ping())),
            (Kind::Valid, 1) => (true, Manner::Once(STATUS.to_vec())),
            (Kind::Valid, _) => (true, Manner::Once(login())),
        }
    }

    /// Attacks from a process of its own, until the handle is dropped.
    pub fn start(&self) -> Attackers {
        let Self { kind, links, login, network, addresses, connections, connects_per_second } = self;
        let crowd =
            format!("{} {links} {login} {network} {addresses} {connections} {connects_per_second}", kind.name());
        // The players' own machines would not be as busy as the attackers': those have what is left.
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "attack::crowd::attack_as_told"]).env(VARIABLE, crowd);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("`nice` of coreutils");
        Attackers { told: child.stdin.take(), child }
    }

    fn told(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let [kind, links, login, network, addresses, connections, per_second] = words[..] else { panic!("{text}") };
        Self {
            kind: Kind::of(kind),
            links: links.parse().unwrap(),
            login: login.parse().unwrap(),
            network: network.parse().unwrap(),
            addresses: addresses.parse().unwrap(),
            connections: connections.parse().unwrap(),
            connects_per_second: per_second.parse().unwrap(),
        }
    }
}

/// A crowd's process. It ends with its standard input, and so with this or with who started it.
pub struct Attackers {
    told: Option<ChildStdin>,
    child: Child,
}

impl Drop for Attackers {
    fn drop(&mut self) {
        drop(self.told.take());
        let _ = self.child.wait();
    }
}

/// Not a test: what [`Crowd::start`] starts.
#[test]
#[ignore = "is what a large attack starts, and nothing by itself"]
fn attack_as_told() {
    let Ok(crowd) = std::env::var(VARIABLE) else { return };
    assert!(crate::common::role_process::may_open(Crowd::told(&crowd).connections as u64 + 64));
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        stop.cancel();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let attack = timeout(LONGEST, Crowd::told(&crowd).attack());
        let _ = stopped.run_until_cancelled(attack).await;
    });
    runtime.shutdown_timeout(common::HANG);
}

/// What is done with a connection, until it is closed.
enum Manner {
    /// Sends this at once.
    Once(Vec<u8>),
    /// Sends this byte by byte.
    Trickle(Vec<u8>),
    /// Sends this again and again, and reads nothing.
    Unread(Vec<u8>),
    /// Sends this as often as clients do, and reads the answers.
    Client(Vec<u8>),
}

impl Manner {
    async fn keep(self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let (mut read, mut write) = stream.split();
        let mut buffer = [0; 256];
        let closed = async { while read.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
        match self {
            Self::Once(bytes) => {
                let _ = write.write_all(&bytes).await;
                closed.await;
            }
            Self::Trickle(bytes) => {
                let trickle = async {
                    for byte in bytes {
                        if write.write_all(&[byte]).await.is_err() {
                            return;
                        }
                        sleep(SLOW).await;
                    }
                };
                tokio::join!(trickle, closed);
            }
            // It finds out that it is closed when it writes.
            Self::Unread(bytes) => {
                while write.write_all(&bytes).await.is_ok() {
                    sleep(UNREAD).await;
                }
            }
            Self::Client(bytes) => {
                let pings = async {
                    while write.write_all(&bytes).await.is_ok() {
                        sleep(PING).await;
                    }
                };
                tokio::select! {
                    () = pings => {}
                    () = closed => {}
                }
            }
        }
    }
}

/// A packet that nobody but a login server can tell from a login.
fn login() -> Vec<u8> {
    let mut packet = vec![150, 0, 0x01];
    packet.resize(152, 7);
    packet
}
