use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Instant;

use tokio::task::{LocalSet, spawn_local};

use super::*;
use otproxy_config as config;
use otproxy_testkit::mock::{ConnectThrottle, ThrottleBy};

/// A stock server on another host, with a login port and two worlds, and what leads there.
const STOCK: &str = "role: core\nadmin: { listen: off }\nlisteners:\n\
    - { name: links, kind: relay, listen: '127.0.0.1:1', accept_proxy: none }\n\
    - { name: login, listen: '127.0.0.1:2', accept_proxy: none, forward_to: 'stock.example:7171', send_proxy: none }\n\
    game_servers:\n\
    - { port: 7172, address: 'stock.example:7172', player_address: none, connects: 1/600ms }\n\
    - { port: 7173, address: 'Stock.example:7173', player_address: none }\n";

fn queues(text: &str) -> Arc<ConnectQueues> {
    ConnectQueues::new(&config::parse("core.yaml", text).unwrap())
}

fn target(text: &str) -> HostPort {
    let (host, port) = text.rsplit_once(':').unwrap();
    HostPort { host: host.to_owned(), port: port.parse().unwrap() }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Connects to these ports of the stock server at once, for players of as many networks, and behind them again and again as a
/// check and a fetch of the status would; returns how many the server's throttle did not let in.
fn refused(queues: &Arc<ConnectQueues>, ports: &[u16]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let throttle = Rc::new(ConnectThrottle::new(ThrottleBy::All));
    let core = IpAddr::from([192, 0, 2, 1]);
    runtime.block_on(LocalSet::new().run_until(async {
        let mut players = Vec::new();
        for (number, port) in (0..).zip(ports) {
            let (queue, throttle) = (queues.of(&target(&format!("stock.example:{port}"))), Rc::clone(&throttle));
            players.push(spawn_local(async move {
                if let Some(queue) = queue {
                    let player = IpAddr::from(Ipv4Addr::new(10, number, 0, 1));
                    queue.join(player.into(), now(), now() + Duration::from_secs(60)).unwrap().turn().await.unwrap();
                }
                throttle.admits(core, now());
            }));
        }
        let (own_queue, own_throttle) = (queues.of(&target("stock.example:7171")), Rc::clone(&throttle));
        let own = spawn_local(async move {
            loop {
                if let Some(queue) = &own_queue {
                    queue.turn_behind(now() + Duration::from_secs(5)).await.unwrap();
                }
                own_throttle.admits(core, now());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        for player in players {
            player.await.unwrap();
        }
        own.abort();
    }));
    throttle.refused()
}

#[test]
fn no_connect_to_a_stock_server_is_refused_if_all_that_leads_there_takes_turns() {
    let ports: Vec<u16> = (0..36).map(|n| 7171 + n % 3).collect();
    assert_eq!(refused(&queues(STOCK), &ports), 0);
    assert!(refused(&queues(&STOCK.replace("1/600ms", "none")), &ports) > 20, "the throttle is one");
}

#[test]
fn hosts_have_queues_of_their_own_and_keep_them_over_a_reload() {
    let queues = queues(STOCK);
    let of = |text: &str| queues.of(&target(text));
    let (login, world) = (of("stock.example:7171").unwrap(), of("stock.example:7173").unwrap());
    assert!(Arc::ptr_eq(&login, &world));
    assert!(of("other.example:7171").is_none(), "nothing there asks for turns");
    let moved = STOCK.replace("Stock.example:7173", "127.0.0.1:7173");
    queues.set(&config::parse("core.yaml", &moved).unwrap());
    assert!(Arc::ptr_eq(&login, &of("stock.example:7171").unwrap()), "its turns are remembered");
    assert!(!Arc::ptr_eq(&login, &of("localhost:7171").unwrap()));
    queues.set(&config::parse("core.yaml", &moved.replace("stock.example:7172", "[::1]:7172")).unwrap());
    assert!(of("stock.example:7171").is_none());
}

#[test]
fn a_forward_alone_may_ask_for_turns_at_an_edge_too() {
    let text = "role: edge\nadmin: { listen: off }\nlisteners:\n\
        - { name: login, listen: '127.0.0.1:2', forward_to: ['core.example:7171', 'stock.example:7171'], connects: 5/1s }\n\
        - { name: other, listen: '127.0.0.1:3', forward_to: '192.0.2.9:7171' }\n";
    let queues = queues(text);
    let there = ["core.example:1", "stock.example:1", "192.0.2.9:7171"].map(|host| queues.of(&target(host)).is_some());
    assert_eq!(there, [true, true, false]);
}
