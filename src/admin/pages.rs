//! The pages beside the API: metrics and health, for Prometheus and load balancers.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{self, Request};
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{self, Next, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::AdminState;
use super::answer;
use super::api::PREFIX;
use super::routes::{self, ApiContext};
use crate::metrics;

const INDEX: &str = "\
otproxy
/metrics  metrics, for Prometheus
/live     200 while the process runs
/ready    200 while it takes connections, 503 while it starts, is drained or shuts down
/api/v1/  what an operator can see and do; /api/v1/openapi.json describes it
";

/// Returns the router of everything that is served.
pub(super) fn router(state: AdminState, context: ApiContext) -> Router {
    let pages = Router::new()
        .route("/", get(INDEX))
        .route("/live", get("live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .with_state(Arc::new(state))
        .layer(middleware::from_fn_with_state(context.clone(), guard));
    pages.nest(PREFIX, routes::routes().with_state(context)).layer(map_response(close))
}

/// Answers a request unless a web page may have sent it. The pages hold no secret of a player, but tell a stranger that
/// otproxy runs here, as what, and how much it carries.
async fn guard(extract::State(context): extract::State<ApiContext>, request: Request, next: Next) -> Response {
    match context.allow_page(&request) {
        Ok(()) => next.run(request).await,
        Err(denied) => answer::denied(denied),
    }
}

async fn not_found(path: Uri) -> Response {
    if path.path().starts_with("/api/") {
        answer::not_found()
    } else {
        (StatusCode::NOT_FOUND, "not found\n").into_response()
    }
}

async fn ready(extract::State(state): extract::State<Arc<AdminState>>) -> impl IntoResponse {
    if state.ready.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(extract::State(state): extract::State<Arc<AdminState>>) -> impl IntoResponse {
    let edges = state.operator.edges_metrics().await.unwrap_or_default();
    let own = metrics::render(&state.metrics, state.build);
    let all = if edges.is_empty() { own } else { metrics::with_edges(&own, &edges) };
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], all)
}

/// Closes the connection after one request: an idle kept-alive one would hold its permit until its time is up.
async fn close(mut response: Response) -> Result<Response, Infallible> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}
