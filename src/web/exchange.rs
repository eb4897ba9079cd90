//! One request and its answer.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::iter::successors;
use std::net::SocketAddr;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::answer::WebAnswer;
use super::ask::{self, AnswerError, Asker, WebRequest, ask};
use super::classic::{self, ClassicLogin};
use super::io::CountedStream;
use super::kept::Known;
use super::login::told;
use super::report::ServedReport;
use super::route::{self, Route, WebResult};
use super::{LINGER, MAX_BODY, MAX_HEAD, STATUS_FRESH, Web, by_player, real_ip};
use crate::admission::{AddressKey, AdmissionGuard, Carrier};
use crate::connection::{AdmissionError, CloseReason};
use crate::forward::{ConnectFor, Connected, ConnectionLogGuard};
use otproxy_config as config;
use otproxy_config::REPORT_PATH;
use otproxy_net::Stream;
use otproxy_protocol::edge_list::WebObject;
use otproxy_protocol::login::http::{self, ErrorCode, Unchanged};
use otproxy_protocol::status::ServerStatus;

/// One connection, while its request is answered.
pub(super) struct Exchange<'a> {
    pub web: &'a Web,
    pub guard: AdmissionGuard,
    pub peer: SocketAddr,
    pub destination: SocketAddr,
    pub accepted: Instant,
    pub player: Cell<(SocketAddr, AddressKey)>,
    pub record: RefCell<ConnectionLogGuard<'a>>,
    /// Notified when the request is whole.
    pub asked: Notify,
    pub answered: Cell<bool>,
}

impl Exchange<'_> {
    /// Reads the request and answers it; returns the reason of the end.
    pub async fn carry(&self, stream: Stream, early: Vec<u8>, own_tls: bool) -> CloseReason {
        let (inbound, shared) = (self.web.inbound(), &self.web.shared);
        let patience = inbound.timeout(inbound.config().timeouts.header);
        let stream = match shared.tls.server_config() {
            Ok(Some(config)) if own_tls => match patience.within(stream.tls_accept_public(config)).await {
                Some(Ok(stream)) => stream,
                Some(Err(_)) => return CloseReason::ClientError,
                None => return CloseReason::NoRequest,
            },
            Err(()) if own_tls => return CloseReason::ConnectFailed,
            _ => stream,
        };
        let counted = CountedStream::new(stream, early, self.guard.handle(), inbound.metrics());
        let mut builder = http1::Builder::new();
        builder.keep_alive(false).max_buf_size(MAX_HEAD).half_close(true);
        let answer = service_fn(|request| Box::pin(self.answer(request)));
        let mut serving = builder.serve_connection(TokioIo::new(counted), answer);
        let asking = async {
            tokio::select! {
                ended = poll_fn(|cx| serving.poll_without_shutdown(cx)) => Some(ended),
                () = self.asked.notified() => None,
            }
        };
        let ended = match patience.within(asking).await {
            None => return CloseReason::NoRequest,
            Some(Some(ended)) => Some(ended),
            Some(None) => inbound.idle_timeout().within(poll_fn(|cx| serving.poll_without_shutdown(cx))).await,
        };
        if let Some(Ok(())) = ended {
            let counted = serving.into_parts().io.into_inner();
            // A client that does not close has had its time.
            let _ = timeout(LINGER, counted.linger()).await;
        }
        match ended {
            None => CloseReason::Idle,
            Some(Ok(())) if self.answered.get() => CloseReason::Answered,
            // As a health check does.
            Some(Ok(())) => CloseReason::Client,
            Some(Err(error)) if error.is_parse() => CloseReason::NoRequest,
            Some(Err(_)) => CloseReason::ClientError,
        }
    }

    /// Answers the request.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let head_only = request.method() == Method::HEAD;
        let (route, result, answer) = self.decide(request).await;
        self.web.count(route, result);
        self.answered.set(true);
        Ok(answer.into_response(head_only))
    }

    async fn decide(&self, request: Request<Incoming>) -> (Route, WebResult, WebAnswer) {
        let (head, body) = request.into_parts();
        let is_post = head.method == Method::POST;
        let path = head.uri.path();
        let known = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS].contains(&head.method);
        let report = self.web.shared.report.as_ref().filter(|_| path.starts_with(REPORT_PATH));
        let route = match &self.web.shared.routes {
            _ if report.is_some() => Route::Report,
            Some(routes) => route::at_core(routes, path),
            None => route::at_edge(path, is_post),
        };
        if let Err(reason) = self.meet(&head.headers) {
            self.asked.notify_one();
            let status = if reason.breaks_rule() { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::FORBIDDEN };
            return (route, WebResult::Refused, WebAnswer::problem(status, "refused"));
        }
        if !known {
            self.asked.notify_one();
            let (result, answer) = wrong_method("GET, HEAD, POST, OPTIONS");
            return (route, result, answer);
        }
        if let Some(report) = report {
            self.asked.notify_one();
            let (result, answer) = self.report(report, &head).await;
            return (route, result, answer);
        }
        let body = match to_bytes(Body::new(body), MAX_BODY).await {
            Ok(body) => body,
            Err(error) => {
                self.asked.notify_one();
                return (route, WebResult::Refused, no_body(&error));
            }
        };
        self.asked.notify_one();
        // A query makes no other answer of a list, and must not get past what is kept.
        let asked = if is_post { head.uri.path_and_query().map_or(path, |whole| whole.as_str()) } else { path };
        let request = WebRequest::new(head.method, asked.to_owned(), &head.headers, body);
        let (result, answer) = match &self.web.shared.routes {
            Some(routes) => self.at_core(routes, route, &request).await,
            None => self.at_edge(route, &request).await,
        };
        (route, result, answer)
    }

    /// Finds out who the player is, if the peer is a proxy for web sites, and lets it in.
    fn meet(&self, headers: &HeaderMap) -> Result<(), AdmissionError> {
        let inbound = self.web.inbound();
        let Some(real_ip) = inbound.config().real_ip.as_ref().filter(|real_ip| real_ip.believes(self.peer.ip())) else {
            return Ok(());
        };
        let told = real_ip::told(headers, &real_ip.header);
        let player = inbound.admit_told(&self.guard, (self.peer, self.accepted), told)?;
        self.record.borrow_mut().set_player(player.0, player.1);
        self.player.set(player);
        Ok(())
    }

    /// Answers a request for a file of the process's own report, whatever the role.
    async fn report(&self, report: &ServedReport, head: &Parts) -> (WebResult, WebAnswer) {
        let within = self.web.inbound().config().timeouts.connect;
        let (player, asked) = (self.player.get().0.ip(), (head.uri.path(), &head.headers));
        match report.answer(player, asked, within).await {
            (WebResult::Ok, _) if !matches!(head.method, Method::GET | Method::HEAD) => wrong_method("GET, HEAD"),
            answered => answered,
        }
    }

    /// Answers what there is at a core.
    async fn at_core(&self, routes: &config::WebRoutes, route: Route, request: &WebRequest) -> (WebResult, WebAnswer) {
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        match route {
            Route::Proxies if reads => match route::list_name(routes, &request.path) {
                Some(named) => {
                    let list = self.web.inbound().edges().list();
                    let web = named.web.as_ref().map(WebObject::raw);
                    (WebResult::Ok, {
                        // An edge keeps it for all players.
                        let for_all = self.guard.handle().edge().is_some();
                        by_player::list(&list, web, for_all, self.player.get().0.ip())
                    })
                }
                None => not_found(),
            },
            Route::Status if reads => self.status().await,
            Route::Login if request.method == Method::POST => self.login(routes, request).await,
            // A browser asks so whether pages of another site may log in: the login service says.
            Route::Login if request.method == Method::OPTIONS && routes.classic.is_none() => {
                self.lead(request, true).await
            }
            Route::Proxies | Route::Status => wrong_method("GET, HEAD"),
            Route::Login => wrong_method(if routes.classic.is_none() { "POST, OPTIONS" } else { "POST" }),
            Route::Report | Route::Other => not_found(),
        }
    }

    /// Leads a request to the core, or answers it with what is kept.
    async fn at_edge(&self, route: Route, request: &WebRequest) -> (WebResult, WebAnswer) {
        let (result, answer) = self.at_edge_for_all(route, request).await;
        (result, by_player::in_order(answer, self.player.get().0.ip()))
    }

    /// Does the same, with an answer that may be for all players.
    async fn at_edge_for_all(&self, route: Route, request: &WebRequest) -> (WebResult, WebAnswer) {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return self.lead(request, false).await;
        }
        let known = self.web.shared.kept.lock().look_up(&request.path, Instant::now());
        let before = match known {
            Known::Fresh(answer) => return (WebResult::Kept, answer),
            Known::Stale { answer, ask: false } => return (WebResult::Stale, answer),
            Known::Stale { answer, ask: true } => Some(answer),
            Known::Nothing => None,
        };
        // The answer to a HEAD has no body to be kept.
        let get = WebRequest {
            method: Method::GET,
            headers: request.headers.clone(),
            path: request.path.clone(),
            body: request.body.clone(),
        };
        let (result, answer) = self.lead(&get, false).await;
        let unknown = result == WebResult::Failed || answer.status.is_server_error();
        let mut kept = self.web.shared.kept.lock();
        match (answer.fresh_for(), before) {
            (Some(fresh), _) if route != Route::Other => {
                kept.keep(&request.path, answer.clone(), fresh, Instant::now())
            }
            (_, Some(before)) if unknown => return (WebResult::Stale, before),
            _ => kept.forget(&request.path),
        }
        (result, answer)
    }

    /// Leads a request to a target, and returns its answer.
    async fn lead(&self, request: &WebRequest, by_header: bool) -> (WebResult, WebAnswer) {
        let asker = Asker { by_header, ..self.asker(ConnectFor::Service) };
        let exchange = async |connected| ask::exchange(connected, request, &asker).await;
        self.ask(request, asker, exchange).await
    }

    /// Puts a login to a game server that knows no logins over HTTP.
    async fn log_in(
        &self,
        request: &WebRequest,
        login: &http::LoginRequest,
        config: &config::ClassicLogins,
    ) -> (WebResult, WebAnswer) {
        let login = match ClassicLogin::new(login, config) {
            Ok(login) => login,
            Err(answer) => return (WebResult::Ok, *answer),
        };
        let scratch = self.web.inbound().scratch();
        let exchange = async |connected| Ok(login.exchange(connected, scratch).await?);
        self.ask(request, self.asker(ConnectFor::Player(self.player.get().1)), exchange).await
    }

    fn asker(&self, connect_for: ConnectFor) -> Asker {
        Asker { player: self.player.get().0, connect_for, destination: self.destination, by_header: true }
    }

    /// Asks the targets by `exchange`.
    async fn ask(
        &self,
        request: &WebRequest,
        asker: Asker,
        exchange: impl AsyncFn(Connected) -> Result<WebAnswer, AnswerError>,
    ) -> (WebResult, WebAnswer) {
        let whole = self.web.inbound().config().timeouts.connect;
        // A core answers before the edge in front of it gives up.
        let within = if asker.by_header { whole / 8 * 7 } else { whole };
        match ask(&self.web.forward, asker, within, exchange, &self.web.shared.unusable).await {
            Ok(asked) => {
                self.record.borrow_mut().reached(asked.target, asked.retries, asked.after);
                let result =
                    if asked.answer.status == StatusCode::NOT_FOUND { WebResult::NotFound } else { WebResult::Ok };
                (result, asked.answer)
            }
            Err(missed) => {
                self.record.borrow_mut().missed(missed);
                (WebResult::Failed, unavailable(request))
            }
        }
    }

    /// Leads a login to a login service, and puts the edges into its answer.
    async fn login(&self, routes: &config::WebRoutes, request: &WebRequest) -> (WebResult, WebAnswer) {
        let (result, mut answer) = match &routes.classic {
            None => self.lead(request, true).await,
            Some(classic) => match http::Request::read(&request.body) {
                http::Request::Login(login) => self.log_in(request, &login, classic).await,
                http::Request::Other => (WebResult::Ok, classic::no_login()),
            },
        };
        let edges = self.web.inbound().edges().list().for_player(self.player.get().0.ip());
        let logins = &self.web.logins;
        match (result, told(routes.worlds, request, &edges)) {
            (WebResult::Failed, _) => logins.unanswered.inc(),
            (_, Some(address)) => match http::rewrite(&answer.body, &edges, address) {
                Ok(body) => {
                    answer.body = body.into();
                    logins.rewritten.inc();
                }
                Err(reason) => logins.unchanged.inc(reason),
            },
            (_, None) => logins.unchanged.inc(Unchanged::NoEdges),
        }
        (result, answer)
    }

    /// Answers who is online.
    async fn status(&self) -> (WebResult, WebAnswer) {
        let known = match &self.web.status {
            Some(listener) => listener.status().await.and_then(|xml| ServerStatus::read(&xml)),
            None => None,
        };
        match known {
            Some(status) => (WebResult::Ok, WebAnswer::public(status_json(Some(&status)), STATUS_FRESH)),
            None => (WebResult::Failed, WebAnswer::public(status_json(None), STATUS_FRESH)),
        }
    }
}

/// Returns the status as web sites read it; `None` is that of a server which does not answer.
fn status_json(status: Option<&ServerStatus>) -> String {
    match status {
        None => json!({ "online": false }).to_string(),
        Some(ServerStatus { name, address, port, online, max }) => {
            let players = json!({ "online": online, "max": max });
            let port = port.parse::<u16>().ok();
            json!({ "online": true, "players": players, "name": name, "address": address, "port": port }).to_string()
        }
    }
}

/// Returns the answer to a request for which nothing can be reached: to a login the error that clients show.
fn unavailable(request: &WebRequest) -> WebAnswer {
    const TEXT: &str = "The login server cannot be reached. Please try again in a moment.";
    if request.method == Method::POST {
        WebAnswer::json(StatusCode::OK, http::error_body(ErrorCode::Login, TEXT))
    } else {
        WebAnswer::problem(StatusCode::SERVICE_UNAVAILABLE, "not available now")
    }
}

/// Returns the answer to a request whose body cannot be had whole.
fn no_body(error: &(dyn Error + 'static)) -> WebAnswer {
    // The connection's own error says that it ended too early, or is no HTTP; all else is the limit.
    if successors(Some(error), |&error| error.source()).any(|error| error.is::<hyper::Error>()) {
        WebAnswer::problem(StatusCode::BAD_REQUEST, "the request is not whole")
    } else {
        WebAnswer::problem(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long")
    }
}

pub(super) fn not_found() -> (WebResult, WebAnswer) {
    (WebResult::NotFound, WebAnswer::problem(StatusCode::NOT_FOUND, "there is nothing here"))
}

fn wrong_method(allowed: &'static str) -> (WebResult, WebAnswer) {
    let mut answer = WebAnswer::problem(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this path");
    answer.headers.insert(ALLOW, HeaderValue::from_static(allowed));
    (WebResult::NotFound, answer)
}
