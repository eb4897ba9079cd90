use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::check::check;
use super::*;
use otproxy_protocol::frame::{Frame, FromClient, PONG};
use otproxy_protocol::proxy_header;

const WITHIN: Duration = Duration::from_secs(60);

/// Checks a target of which `play` plays the other side.
fn checked<P: Future<Output = ()>>(
    kind: CheckKind,
    send_proxy: SendProxy,
    within: Duration,
    play: impl FnOnce(TcpStream) -> P,
) -> Result<Option<Duration>, CheckResult> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = ResolvedAddresses::new(listener.local_addr().unwrap().into(), Duration::ZERO);
        let playing = async { play(listener.accept().await.unwrap().0).await };
        let (result, ()) = tokio::join!(check(&addresses, kind, send_proxy, Source::Kernel, within), playing);
        result
    };
    runtime.block_on(async { timeout(Duration::from_secs(90), test).await.expect("it hangs") })
}

/// Reads everything until the end.
async fn read_all(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[test]
fn a_connect_is_all_that_tcp_is() {
    let result = checked(CheckKind::Tcp, SendProxy::V2, WITHIN, async |stream| assert_eq!(read_all(stream).await, b""));
    assert_eq!(result, Ok(None));
}

#[test]
fn proxy_sends_the_header_that_means_a_check() {
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let result = checked(CheckKind::Proxy, SendProxy::V2, WITHIN, async |stream| {
        assert_eq!(read_all(stream).await, LOCAL);
    });
    assert_eq!(result, Ok(None));
}

#[test]
fn ping_is_a_link_behind_the_header_that_the_target_expects() {
    for (send_proxy, header) in [
        (SendProxy::V2, &b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..]),
        (SendProxy::V1, b"PROXY UNKNOWN\r\n"),
        (SendProxy::None, b""),
    ] {
        if !header.is_empty() {
            let (parsed, len) = proxy_header::parse(header).unwrap().expect("whole");
            assert_eq!((parsed.source, len), (None, header.len()));
        }
        let result = checked(CheckKind::Ping, send_proxy, WITHIN, async |mut stream| {
            let mut bytes = vec![0; header.len() + 18];
            stream.read_exact(&mut bytes).await.unwrap();
            let (start, ping) = bytes.split_at(header.len());
            assert_eq!(start, header);
            let (frame, rest) = Frame::split(ping).unwrap().expect("a frame");
            assert!(matches!(frame.from_client(), FromClient::Ping { rtt: None, .. }) && rest.is_empty());
            stream.write_all(&PONG).await.unwrap();
            assert_eq!(read_all(stream).await, b"", "and nothing more");
        });
        assert!(matches!(result, Ok(Some(_))), "{result:?}");
    }
}

#[test]
fn what_accepts_and_is_no_relay_does_not_pass_a_ping() {
    let closes = checked(CheckKind::Ping, SendProxy::V2, WITHIN, async |stream| drop(stream));
    assert_eq!(closes, Err(CheckResult::NoPong));
    let says_else = checked(CheckKind::Ping, SendProxy::V2, WITHIN, async |mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(says_else, Err(CheckResult::NoPong));
    let mut half = PONG.to_vec();
    half.pop();
    let says_less = checked(CheckKind::Ping, SendProxy::V2, WITHIN, async |mut stream| {
        stream.write_all(&half).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(says_less, Err(CheckResult::NoPong));
    let says_nothing = checked(CheckKind::Ping, SendProxy::V2, Duration::from_millis(50), async |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(says_nothing, Err(CheckResult::Timeout));
}

#[test]
fn what_refuses_is_not_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address: SocketAddr = socket.local_addr().unwrap();
        let addresses = ResolvedAddresses::new(address.into(), Duration::ZERO);
        for kind in [CheckKind::Tcp, CheckKind::Proxy, CheckKind::Ping] {
            assert_eq!(check(&addresses, kind, SendProxy::V2, Source::Kernel, WITHIN).await, Err(CheckResult::Refused));
        }
    });
}

#[test]
fn what_this_host_lacks_is_not_the_targets_failure() {
    let text = "role: edge\nlisteners:\n- { name: a, listen: '127.0.0.1:1', forward_to: ['127.0.0.1:2', '127.0.0.1:3'], \
                check: tcp, fall: 1 }\n";
    let Ok(config::Config::Edge(edge)) = config::parse("edge.yaml", text) else { panic!("an edge") };
    let ways = TargetWays { pool: None, connects: Arc::default(), pseudo_ipv4: PseudoIpv4::new([1; 16]) };
    let targets = Targets::new(edge.listeners[0].forward().unwrap(), ways, &Arc::new(Metrics::new()));
    let next = || targets.choose(IpAddr::from([127, 0, 0, 1]), &mut Vec::new()).unwrap();
    assert_eq!(next().tried.target, 0);
    next().failed(ConnectResult::Error);
    next().failed(ConnectResult::NoAddress);
    next().failed(ConnectResult::Queue);
    assert_eq!((next().tried.target, targets.now().list[0].up.get()), (0, 1));
    next().failed(ConnectResult::Refused);
    assert_eq!((next().tried.target, targets.now().list[0].up.get()), (1, 0));
    // Dropped attempts no longer count.
    assert!(format!("{:?}", targets.now().health).matches("connections: 0").count() == 2);
}
