use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;

use otproxy_net::Source;

use super::*;

const EVERY: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(60);

fn name(every: Duration) -> ResolvedAddresses {
    ResolvedAddresses::new(config::HostPort { host: "core.example".to_owned(), port: 7162 }, every)
}

fn run<F: Future<Output = ()>>(paused: bool, test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(24 * 60 * 60), test).await.expect("it hangs") });
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Returns the addresses that a connect would try, in order.
async fn known(name: &ResolvedAddresses) -> Result<Vec<SocketAddr>, ConnectResult> {
    name.answer(WITHIN).await.map(|answer| answer.addresses.clone())
}

async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn an_address_needs_no_look_up() {
    run(true, async {
        let literal = ResolvedAddresses::new("[2001:db8::9]:7162".parse::<SocketAddr>().unwrap().into(), EVERY);
        literal.refresh("a", |_| async { unreachable!("there is no name") }).await;
        assert_eq!(known(&literal).await, Ok(addresses(&["[2001:db8::9]:7162"])));
        name(Duration::ZERO).refresh("a", |_| async { unreachable!("each connection does it") }).await;
    });
}

#[test]
fn the_last_good_answer_is_kept_and_a_new_one_takes_its_place() {
    run(true, async {
        let (one, two) = (addresses(&["192.0.2.1:1", "[2001:db8::1]:1"]), addresses(&["192.0.2.2:1"]));
        let name = name(EVERY);
        let (began, looks) = (Instant::now(), RefCell::new(Vec::new()));
        let lookup = |target: config::HostPort| {
            assert_eq!(target.to_string(), "core.example:7162");
            looks.borrow_mut().push(began.elapsed());
            let answer = match looks.borrow().len() {
                1 => Ok(one.clone()),
                2 => Err(io::Error::other("no name server")),
                3 => Ok(Vec::new()),
                _ => Ok(two.clone()),
            };
            async { answer }
        };
        let test = async {
            for expected in [&one, &one, &one, &two] {
                sleep(Duration::from_secs(1)).await;
                assert_eq!(known(&name).await.as_ref(), Ok(expected));
                sleep(EVERY - Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            biased;
            () = name.refresh("a", lookup) => unreachable!(),
            () = test => {}
        }
        let looks: Vec<_> = looks.borrow().iter().map(Duration::as_secs).collect();
        assert_eq!(looks[..4], [0, 30, 60, 90], "once in each `resolve`, whether or not it failed");
    });
}

#[test]
fn without_an_answer_it_is_tried_again_soon_and_nobody_waits() {
    run(true, async {
        let name = name(EVERY);
        let (began, looks) = (Instant::now(), RefCell::new(Vec::new()));
        let lookup = |_| {
            looks.borrow_mut().push(began.elapsed().as_secs());
            async { Err(io::Error::other("no name server")) }
        };
        let test = async {
            sleep(Duration::from_millis(1)).await;
            let asked = Instant::now();
            assert_eq!(known(&name).await, Err(ConnectResult::Resolve));
            assert_eq!(asked.elapsed(), Duration::ZERO);
            sleep(Duration::from_secs(100)).await;
        };
        tokio::select! {
            () = name.refresh("a", lookup) => unreachable!(),
            () = test => {}
        }
        assert_eq!(*looks.borrow(), [0, 1, 3, 7, 15, 31, 61, 91]);
    });
}

#[test]
fn the_first_connections_wait_for_the_first_answer_and_one_look_up_serves_all() {
    run(true, async {
        let one = addresses(&["192.0.2.1:1"]);
        let name = name(EVERY);
        let looks = Cell::new(0);
        let lookup = |_| {
            looks.set(looks.get() + 1);
            let answer = one.clone();
            async {
                sleep(Duration::from_secs(5)).await;
                Ok(answer)
            }
        };
        let waiting = async {
            let (first, second) = tokio::join!(known(&name), known(&name));
            assert_eq!((first, second), (Ok(one.clone()), Ok(one.clone())));
        };
        tokio::select! {
            () = name.refresh("a", lookup) => unreachable!(),
            () = waiting => {}
        }
        assert_eq!(looks.get(), 1);
    });
}

#[test]
fn a_resolver_that_hangs_is_asked_once_and_waited_for_no_longer_than_a_connect_may_take() {
    run(true, async {
        let name = name(EVERY);
        let looks = Rc::new(Cell::new(0));
        let lookup = |_| {
            looks.set(looks.get() + 1);
            pending()
        };
        let began = Instant::now();
        tokio::select! {
            () = name.refresh("a", lookup) => unreachable!(),
            result = known(&name) => assert_eq!(result, Err(ConnectResult::Resolve)),
        }
        assert_eq!((began.elapsed(), looks.get()), (WITHIN, 1));
    });
}

#[test]
fn all_addresses_are_tried_and_the_one_that_answered_is_the_next_ones_first() {
    run(false, async {
        let ((first_dead, dead), (_two, dead_too), (listener, alive)) = (refusing(), refusing(), listening().await);
        let name = name(EVERY);
        assert!(name.learn(Some(vec![dead, dead_too, alive])));
        let first = |name: &ResolvedAddresses| match &*name.known.borrow() {
            Known::Answer(answer) => answer.addresses[answer.first.load(Relaxed)],
            other => panic!("{other:?}"),
        };
        assert_eq!(first(&name), dead);
        assert_eq!(name.connect(Source::Kernel, WITHIN).await.unwrap().1, alive);
        assert_eq!(first(&name), alive);
        // The same addresses in another order, as many resolvers rotate them: nothing has changed.
        assert!(name.learn(Some(vec![dead_too, dead, alive])));
        assert_eq!((first(&name), name.connect(Source::Kernel, WITHIN).await.unwrap().1), (alive, alive));
        // Once that one is gone, those before it are tried again.
        drop(listener);
        assert_eq!(name.connect(Source::Kernel, WITHIN).await.unwrap_err(), ConnectResult::Refused);
        drop(first_dead);
        let _back = TcpListener::bind(dead).await.unwrap();
        assert_eq!(name.connect(Source::Kernel, WITHIN).await.unwrap().1, dead);
        let (_new, other) = listening().await;
        assert!(name.learn(Some(vec![dead_too, other])));
        assert_eq!(first(&name), dead_too);
        assert_eq!(name.connect(Source::Kernel, WITHIN).await.unwrap().1, other);
    });
}

#[test]
fn connections_follow_the_name() {
    run(false, async {
        let ((one, first), (two, second)) = (listening().await, listening().await);
        let name = name(Duration::from_millis(1));
        let now = Cell::new(first);
        let lookup = |_| {
            let answer = Ok(vec![now.get()]);
            async { answer }
        };
        let moving = async {
            assert_eq!(name.connect(Source::Kernel, WITHIN).await.unwrap().1, first);
            one.accept().await.unwrap();
            now.set(second);
            while name.connect(Source::Kernel, WITHIN).await.unwrap().1 != second {}
            two.accept().await.unwrap();
        };
        tokio::select! {
            () = name.refresh("a", lookup) => unreachable!(),
            () = moving => {}
        }
    });
}
