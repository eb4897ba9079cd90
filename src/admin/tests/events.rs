//! Tests of events and history.

use std::time::Instant;

use super::super::event_stream::MAX_STREAMS;
use super::*;
use crate::events::Happening;
use crate::history::{Figure, Row, WORLD_FIGURES};

fn defect(tasks: u64) -> Happening {
    Happening::Defect { tasks }
}

/// A stream of events, read message by message.
struct Listener {
    stream: UnixStream,
    text: String,
}

impl Listener {
    async fn new(server: &Admin, query: &str, headers: &str) -> Self {
        let mut stream = UnixStream::connect(&server.socket).await.unwrap();
        let request =
            format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut listener = Self { stream, text: String::new() };
        let head = listener.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/event-stream\r\n"), "{head}");
        listener
    }

    /// Returns all up to a mark, with it.
    async fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.text.find(mark) {
                let rest = self.text.split_off(at + mark.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let mut bytes = [0; 4096];
            let read = timeout(Duration::from_secs(60), self.stream.read(&mut bytes)).await.expect("it tells").unwrap();
            assert!(read > 0, "it was closed: {}", self.text);
            self.text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }

    /// Returns the number and the content of the next message of a kind.
    async fn next(&mut self, kind: &str) -> (Option<u64>, Value) {
        loop {
            let message = self.until("\n\n").await;
            // HTTP has each piece with its length in front.
            let lines: Vec<_> = message.lines().collect();
            if !lines.contains(&format!("event: {kind}").as_str()) {
                continue;
            }
            let of = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
            return (of("id: ").map(|id| id.parse().unwrap()), serde_json::from_str(of("data: ").unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn events_are_listed_after_a_number_and_the_newest_last() {
    let server = Admin::core().await;
    let (status, all) = server.get("/api/v1/events").await;
    let events = all["events"].as_array().unwrap();
    assert_eq!((status, events.len()), (200, 2));
    assert_eq!(events[0]["text"], "world 7172 stood still for 1.8 s");
    assert_eq!(
        (&events[0]["kind"], &events[0]["port"], &events[0]["seconds"]),
        (&"game_stall".into(), &7172.into(), &1.8.into())
    );
    assert_eq!((&events[1]["serial"], &events[1]["ongoing"]), (&all["newest"], &true.into()));
    assert!(events[1].get("port").is_none(), "what makes no sense is missing");
    let (_, later) = server.get(&format!("/api/v1/events?after={}", events[0]["serial"])).await;
    assert_eq!(
        (&later["events"], later["events"].as_array().unwrap().len()),
        (&Value::from(vec![events[1].clone()]), 1)
    );
    let (_, newest) = server.get("/api/v1/events?limit=1").await;
    assert_eq!(newest["events"], later["events"]);
    let (_, none) = server.get(&format!("/api/v1/events?after={}", all["newest"])).await;
    assert_eq!((&none["newest"], none["events"].as_array().unwrap().len()), (&all["newest"], 0));
}

#[tokio::test]
async fn a_stream_tells_what_comes_and_figures_and_goes_on_where_a_listener_was_cut_off() {
    let server = Admin::core().await;
    let (events, newest) = (&server.operator.events, *server.operator.events.newest().borrow());
    let mut listener = Listener::new(&server, "", "").await;
    events.emit(defect(5));
    let (id, told) = listener.next("event").await;
    assert_eq!((id, &told["serial"], &told["count"]), (Some(newest + 1), &(newest + 1).into(), &5.into()));
    let mut row = Row::default();
    row.set(Figure::Sessions, 12.0);
    row.set(Figure::RoundTripP50, 0.031);
    row.worlds.push((7172, [f32::NAN; WORLD_FIGURES]));
    server.operator.history.push(&row, Instant::now() + Duration::from_secs(2));
    let (id, told) = listener.next("figures").await;
    assert_eq!((id, &told["figures"]["sessions"], &told["figures"]["trunks"]), (None, &12.into(), &Value::Null));
    assert_eq!(
        (&told["figures"]["round_trip_p50_seconds"], &told["worlds"]["7172"]["sessions"]),
        (&0.031.into(), &Value::Null)
    );
    drop(listener);
    events.emit(defect(6));
    let mut again = Listener::new(&server, "?after=0", &format!("Last-Event-ID: {}\r\n", newest + 1)).await;
    assert_eq!(again.next("event").await.1["count"], 6);
    for (query, first) in
        [("?after=0".to_owned(), 1), (format!("?after={newest}"), 5), ("?after=9000000000000000".to_owned(), 1)]
    {
        let mut other = Listener::new(&server, &query, "").await;
        let told = other.next("event").await.1;
        let count = if first == 1 { &told["port"] } else { &told["count"] };
        assert_eq!(*count, if first == 1 { Value::from(7172) } else { Value::from(first) }, "{query}");
    }
}

#[tokio::test]
async fn streams_are_few_and_end_with_the_server() {
    let mut server = Admin::core().await;
    let mut listeners = Vec::new();
    for _ in 0..MAX_STREAMS {
        listeners.push(Listener::new(&server, "", "").await);
    }
    let accept = ["Accept: text/event-stream"];
    let (status, _, body) = server.over_socket("GET", "/api/v1/events", &accept, "").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(server.get("/api/v1/events").await.0, 200);
    server.stop.take().unwrap().send(()).unwrap();
    timeout(Duration::from_secs(60), &mut server.task).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn history_is_columns_of_the_figures_that_are_asked_for() {
    let server = Admin::core().await;
    let (status, all) = server.get("/api/v1/history").await;
    assert_eq!((status, &all["step_seconds"], &all["rows"]), (200, &1.into(), &1.into()));
    assert_eq!((&all["figures"]["sessions"], &all["figures"]["trunks"]), (&vec![3].into(), &vec![Value::Null].into()));
    assert_eq!(all["edges"]["waw1"]["links"], Value::from(vec![0.5]));
    let (_, some) = server.get("/api/v1/history?figures=sessions,jitter_seconds&step=second").await;
    assert_eq!(some["figures"].as_object().unwrap().len(), 1);
    assert_eq!(some["edges"]["waw1"].as_object().unwrap().keys().collect::<Vec<_>>(), ["jitter_seconds"]);
    let (_, minutes) = server.get("/api/v1/history?step=minute").await;
    assert_eq!((&minutes["step_seconds"], &minutes["rows"]), (&60.into(), &0.into()));
    let (_, late) = server.get("/api/v1/history?since=2999-01-01T00:00:00Z").await;
    assert_eq!((&late["rows"], &late["figures"]["sessions"]), (&0.into(), &Value::Array(Vec::new())));
    for wrong in ["figures=session", "figures=", "step=hour", "since=yesterday", "limit=1"] {
        assert_eq!(server.get(&format!("/api/v1/history?{wrong}")).await.0, 400, "{wrong}");
    }
}
