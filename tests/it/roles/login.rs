//! A core's listeners with `login`: answers to classic logins tell players of the edges.

use std::fs;
use std::path::PathBuf;

use otproxy_protocol::edge_list::{EdgeList, ListedEdge};
use otproxy_protocol::login::{ClassicAnswer, ClassicRequest, Framing, LoginResult, RsaKey, XteaKey, first};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::common::sandbox::*;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// No time is over in tests that are not about one.
const PATIENT: &str = "timeouts: { connect: 1h, header: 1h, idle: 1h }";
const EDGES: &str = "edges: [{ name: waw1, address: 198.51.100.7, public: p1.example }, \
                     { name: fra1, address: 198.51.100.8, public: 198.51.100.8, priority: 20 }, \
                     { name: par1, address: 198.51.100.9, public: p3.example, disabled: true }]";

/// A login, the answer of a login server and what a player is to have in its place, of another implementation.
struct Known {
    name: String,
    login: Vec<u8>,
    answer: Vec<u8>,
    auto: Vec<u8>,
}

fn known() -> Vec<Known> {
    let text = fs::read_to_string(repository().join("crates/protocol/src/login/fixtures/logins.txt")).unwrap();
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let one = |line: &str| {
        let [version, client, login, answer, auto] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        Known { name: format!("{version} {client}"), login: bytes(login), answer: bytes(answer), auto: bytes(auto) }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(one).collect()
}

/// The login of an OTCv8 of 10.98.
fn one_known() -> Known {
    known().into_iter().find(|known| known.name == "1098 otcv8").unwrap()
}

/// A core whose listener `a` is for everybody, and the login server behind it, which the test plays.
async fn core(login: &str, more: &str, edges: &str) -> (Role, TcpListener) {
    let (server, addr) = target().await;
    let core = Role::core(&format!(
        "{edges}\nlisteners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{addr}\", send_proxy: none, \
         accept_proxy: none, login: {login}, {more} }}]"
    ));
    (core, server)
}

fn logins(result: LoginResult) -> String {
    format!("otproxy_logins_total{{listener=a,result={result},way=classic}}")
}

async fn client(core: &Role) -> TcpStream {
    connect_from("127.0.0.1", core.addr("a")).await
}

/// Sends `login`, plays the server that reads it and gives `answer`, and returns what the client has.
async fn exchange(core: &Role, server: &TcpListener, login: &[u8], answer: &[u8]) -> Vec<u8> {
    let mut client = client(core).await;
    client.write_all(login).await.unwrap();
    let mut serving = accept(server).await;
    assert_eq!(read(&mut serving, login.len()).await, login, "a login passes as it came");
    serving.write_all(answer).await.unwrap();
    drop(serving);
    read_to_close(&mut client).await
}

fn listed() -> EdgeList {
    let edge = |host: &str, port, priority| ListedEdge { host: host.to_owned(), port, priority, datacenter: None };
    EdgeList(vec![edge("p1.example", 7162, 0), edge("198.51.100.7", 7163, 20)])
}

#[test]
fn clients_of_each_form_are_told_the_edges() {
    run(async {
        // The edges that the known answers have.
        let edges = "edges: [{ name: waw1, address: 198.51.100.7, public: p1.example }, \
                     { name: fra1, address: 198.51.100.8, public: \"198.51.100.7:7163\", priority: 20 }]";
        let (core, server) = core("{}", PATIENT, edges).await;
        for (count, known) in (1..).zip(known()) {
            assert_eq!(exchange(&core, &server, &known.login, &known.answer).await, known.auto, "{}", known.name);
            core.wait_for(&logins(LoginResult::Rewritten), count).await;
        }
    });
}

/// Reads the answer to a login of 10.98.
fn answer_of(bytes: &[u8], known: &Known) -> ClassicAnswer {
    let key = first(&known.login, &RsaKey::standard()).unwrap().unwrap().key;
    ClassicAnswer::read(bytes, Framing::of(1098), key.as_ref(), 1098).unwrap().unwrap()
}

#[test]
fn the_words_of_worlds_and_edges_that_are_left_out() {
    run(async {
        let known = one_known();
        for (login, host, edges) in [
            ("{ worlds: auto }", "127.0.0.1", vec!["p1.example", "198.51.100.8"]),
            ("{ worlds: links }", "127.0.0.1", vec!["p1.example", "198.51.100.8"]),
            ("{ worlds: edge }", "p1.example", vec![]),
        ] {
            let (core, server) = core(login, PATIENT, EDGES).await;
            let answer = answer_of(&exchange(&core, &server, &known.login, &known.answer).await, &known);
            let told: Vec<_> = answer.edges.iter().flat_map(|list| &list.0).map(|edge| edge.host.as_str()).collect();
            assert_eq!(told, edges, "{login}");
            assert!(answer.characters.unwrap().worlds.iter().all(|world| world.host == host), "{login}");
        }
    });
}

#[test]
fn a_login_that_comes_in_pieces_has_a_whole_answer_and_what_follows_it_passes() {
    run(async {
        let (core, server) = core("{}", PATIENT, EDGES).await;
        let known = one_known();
        let mut client = client(&core).await;
        for piece in known.login.chunks(50) {
            client.write_all(piece).await.unwrap();
            client.flush().await.unwrap();
        }
        client.shutdown().await.unwrap();
        let mut serving = accept(&server).await;
        assert_eq!(read_to_close(&mut serving).await, known.login, "the client's end passes too");
        for piece in known.answer.chunks(50) {
            serving.write_all(piece).await.unwrap();
        }
        serving.write_all(b"more").await.unwrap();
        drop(serving);
        let got = read_to_close(&mut client).await;
        assert!(got.ends_with(b"more"));
        assert_eq!(answer_of(&got, &known).edges.unwrap().0.len(), 2);
    });
}

#[test]
fn what_is_not_known_passes_and_is_counted_by_its_reason() {
    run(async {
        let known = one_known();
        let key = XteaKey::from_bytes([7; 16]);
        let own = RsaKey::from_pem(&fs::read(pem("pkcs1.pem")).unwrap()).unwrap();
        let request = ClassicRequest { version: 1098, account: "a", password: "b", ..ClassicRequest::default() };
        let other_key = request.to_bytes(&own.public(), &key).unwrap();
        let listed_already = known.auto.clone();
        let mut broken = known.answer.clone();
        broken[20] ^= 1;
        let long = [&u16::MAX.to_le_bytes()[..], &[0; 70000]].concat();
        for (login, answer, result) in [
            (&other_key, &known.answer, LoginResult::OtherKey),
            (&known.login, &listed_already, LoginResult::Listed),
            (&known.login, &broken, LoginResult::Unknown),
            (&known.login, &long, LoginResult::TooLong),
            (&known.login, &known.answer[..30].to_vec(), LoginResult::Unanswered),
            (&known.login, &Vec::new(), LoginResult::Unanswered),
            (&b"GET / HTTP/1.1\r\n\r\n".to_vec(), &b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), LoginResult::NotLogin),
        ] {
            let (core, server) = core("{}", PATIENT, EDGES).await;
            assert_eq!(exchange(&core, &server, login, answer).await, *answer, "{result}");
            core.wait_for(&logins(result), 1).await;
        }
        // No edge is told.
        let (core, server) = core("{}", PATIENT, "edges: []").await;
        assert_eq!(exchange(&core, &server, &known.login, &known.answer).await, known.answer);
        core.wait_for(&logins(LoginResult::Unchanged), 1).await;
    });
}

#[test]
fn a_request_for_the_status_passes_and_is_no_login() {
    run(async {
        let (core, server) = core("{}", PATIENT, EDGES).await;
        assert_eq!(exchange(&core, &server, b"\x06\0\xFF\xFFinfo", b"<tsqp/>").await, b"<tsqp/>");
        for result in LoginResult::ALL {
            assert_eq!(core.series(&logins(*result)).await, 0.0, "{result}");
        }
    });
}

#[test]
fn a_client_that_says_nothing_is_forwarded_after_a_while() {
    run(async {
        let (core, server) = core("{}", "timeouts: { connect: 1h, header: 1ms, idle: 1h }", EDGES).await;
        let mut client = client(&core).await;
        let mut serving = accept(&server).await;
        serving.write_all(b"first").await.unwrap();
        assert_eq!(read(&mut client, 5).await, b"first");
        core.wait_for(&logins(LoginResult::NotLogin), 1).await;
    });
}

fn pem(name: &str) -> PathBuf {
    repository().join("crates/protocol/src/login/fixtures").join(name)
}

#[test]
fn a_reload_tells_other_edges() {
    run(async {
        let (server, addr) = target().await;
        let with = |edges: &str| {
            format!(
                "role: core\n{edges}\nlisteners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{addr}\", send_proxy: none, \
                 accept_proxy: none, login: {{}}, {PATIENT} }}]"
            )
        };
        let core = Role::start(&with(EDGES));
        let known = one_known();
        let told = async || answer_of(&exchange(&core, &server, &known.login, &known.answer).await, &known).edges;
        assert_ne!(told().await, Some(listed()));
        core.reload(&with(
            "edges: [{ name: waw1, address: 198.51.100.7, public: p1.example }, \
             { name: fra1, address: 198.51.100.8, public: \"198.51.100.7:7163\", priority: 20 }]",
        ))
        .await
        .unwrap();
        assert_eq!(told().await, Some(listed()));
    });
}
