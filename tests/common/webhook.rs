//! The other side of a webhook: it takes requests one after the other, and answers each as it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A request.
#[derive(Debug)]
pub struct Posted {
    /// The first line, and the lines behind it.
    pub head: String,
    pub body: Value,
}

/// A webhook on loopback.
pub struct Webhook {
    pub addr: SocketAddr,
    posted: Receiver<Posted>,
}

impl Webhook {
    /// Starts one that gives these answers, and says 204 after them. An empty one is none: the connection stays open.
    pub fn new(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut answers = answers.iter().map(|answer| (*answer).to_owned()).collect::<Vec<_>>().into_iter();
        let (sender, posted) = channel();
        thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
                }
                let length = head.to_lowercase();
                let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                let body = serde_json::from_slice(&body).unwrap();
                let answer = answers.next().unwrap_or_else(|| "204 No Content\r\n\r\n".to_owned());
                if answer.is_empty() {
                    held.push(stream);
                } else {
                    let answer = format!("HTTP/1.1 {answer}");
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
                if sender.send(Posted { head, body }).is_err() {
                    return;
                }
            }
        });
        Self { addr, posted }
    }

    /// Waits for the next request.
    pub fn next(&self) -> Posted {
        self.posted.recv_timeout(Duration::from_secs(100)).expect("a request")
    }

    /// Returns whether there was no further one.
    pub fn is_quiet(&self) -> bool {
        self.posted.try_recv().is_err()
    }
}
