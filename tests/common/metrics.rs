//! Metrics, scraped as an operator would.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(10);
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

pub async fn scrape(admin: SocketAddr) -> String {
    scrape_over(TcpStream::connect(admin).await.unwrap()).await
}

/// Scrapes over a connection that stands already.
pub async fn scrape_over(mut stream: TcpStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// The sum of all series of `name` that have all `labels`, each as `key="value"`.
pub async fn metric(admin: SocketAddr, name: &str, labels: &[&str]) -> f64 {
    sum(&scrape(admin).await, name, labels)
}

/// Scrapes until that sum satisfies `condition`.
pub async fn wait_until(admin: SocketAddr, name: &str, labels: &[&str], condition: impl Fn(f64) -> bool) -> f64 {
    loop {
        let value = metric(admin, name, labels).await;
        if condition(value) {
            return value;
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(series, _)| {
        let (family, rest) = series.split_once('{').unwrap_or((series, ""));
        family == name && labels.iter().all(|label| rest.contains(label))
    });
    series.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}
