//! Metrics and health over HTTP/1, for Prometheus, load balancers and people.
//!
//! Meant for loopback or a private network, and still bounded: only so many connections at once,
//! each for one request and for a limited time, whatever the peer does or leaves undone.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::{self, BuildInfo, Metrics};

pub mod api;
mod bounded;

use bounded::BoundedListener;

/// Connections at once; more wait to be accepted. A scraper and a few people need under ten.
pub const MAX_CONNECTIONS: usize = 32;
/// How long a connection may take from accept to the last byte of its answer.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

const INDEX: &str = "\
otproxy
/metrics  metrics, for Prometheus
/live     200 while the process runs
/ready    200 while it takes connections, 503 while it starts or shuts down
";

/// What there is to tell.
#[derive(Debug, Clone)]
pub struct State {
    /// Every worker's metrics.
    pub metrics: Vec<Arc<Metrics>>,
    /// Whether all listeners are bound and shutdown has not begun.
    pub ready: Arc<AtomicBool>,
    /// The version and the role.
    pub build: BuildInfo,
}

/// Serves until `shutdown`, then for as long as open requests take: at most ten seconds.
pub async fn serve(listener: TcpListener, state: State, shutdown: impl Future<Output = ()> + Send + 'static) {
    serve_bounded(BoundedListener::new(listener, MAX_CONNECTIONS, CONNECTION_TIMEOUT), state, shutdown).await;
}

async fn serve_bounded(listener: BoundedListener, state: State, shutdown: impl Future<Output = ()> + Send + 'static) {
    let served = axum::serve(listener, router(state)).with_graceful_shutdown(shutdown).await;
    if let Err(error) = served {
        // Accept errors are retried below, so none is known to come here.
        tracing::error!(%error, "the admin server ended");
    }
}

fn router(state: State) -> Router {
    Router::new()
        .route("/", get(INDEX))
        .route("/live", get("live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback((StatusCode::NOT_FOUND, "not found\n"))
        .with_state(Arc::new(state))
        .layer(map_response(close))
}

async fn ready(extract::State(state): extract::State<Arc<State>>) -> impl IntoResponse {
    if state.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(extract::State(state): extract::State<Arc<State>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&state.metrics, state.build))
}

/// One request for each connection: an idle kept-alive one would hold a place until its time is up.
async fn close(mut response: Response) -> Result<Response, Infallible> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

#[cfg(test)]
mod tests;
