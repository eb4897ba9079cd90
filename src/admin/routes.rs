//! The paths of the API: their handlers and the document that describes them, from one list.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, Json, Query, Request, State};
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::field::display;
use tracing::{info, warn};

use super::access::{self, AuthError, Transport};
use super::answer;
use super::api::{
    AddressesQuestion, ApiError, BansQuestion, ConnectionsQuestion, DisconnectRequest, DrainRequest, EdgeRequest,
    EventView, EventsQuestion, EventsView, HistoryQuestion, HistoryView, NewBan, NoQuestion, Operator, ProbeRequest,
    ReloadRequest, RevokeRequest, SessionsQuestion, TargetRequest, TrafficQuestion, UnbanRequest, UndrainRequest,
    UpgradeRequest,
};
use super::caller::Caller;
use super::document::OpenApiDocument;
use super::errands::{OF_ITS_USER, OF_THE_CORE, UNSAID};
use super::event_stream::{self, EventFeed};
use super::tokens::{Permission, Tokens};
use crate::admission::REFUSED_LINES;
use otproxy_net::RateLimitedLog;

/// Bytes of a request's body; the longest that makes sense is under 300.
pub const MAX_REQUEST: usize = 16 * 1024;
/// Answers in memory at once, for `admin.listen` and the socket each. The longest has a few MiB.
pub const MAX_ANSWERS: usize = 4;

/// The context that every path needs.
#[derive(Clone)]
pub(super) struct ApiContext {
    pub door: Transport,
    pub tokens: Arc<Tokens>,
    pub operator: Arc<dyn Operator>,
    /// Permits for answers in memory.
    pub places: Arc<Semaphore>,
    /// Permits for streams of events.
    pub streams: Arc<Semaphore>,
    /// Cancelled when these are to end.
    pub stop: CancellationToken,
}

/// Returns all paths below `api::PREFIX`.
pub(super) fn routes() -> Router<ApiContext> {
    let answer = |State(context): State<ApiContext>, request: Request| async move {
        match context.allow(&request, Permission::Read) {
            Ok(_) => answer::text(document()),
            Err(denied) => answer::denied(denied),
        }
    };
    list(Routes::default())
        .router
        .route("/openapi.json", get(answer))
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
}

/// Returns the document of all paths, made when first asked for: few users ever ask, and making it takes more memory
/// than keeping it.
fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let write = || {
        let routes = list(Routes { document: Some(OpenApiDocument::default()), ..Routes::default() });
        routes.document.map(|document| document.finish().into()).unwrap_or_default()
    };
    DOCUMENT.get_or_init(write).clone()
}

/// Lists all paths.
fn list(routes: Routes) -> Routes {
    routes
        .see("/status", "The process as a whole", |operator, NoQuestion {}| async move { Ok(operator.status()) })
        .see("/listeners", "All listeners, with what they have counted", |operator, NoQuestion {}| async move {
            Ok(operator.listeners())
        })
        .see("/targets", "Where listeners lead, and whether it is up", |operator, NoQuestion {}| async move {
            Ok(operator.targets())
        })
        .see("/connections", "Open connections, newest first", |operator, asked: ConnectionsQuestion| async move {
            operator.connections(&asked)
        })
        .see(
            "/sessions",
            "Sessions of the core with their links, newest first",
            |operator, asked: SessionsQuestion| async move { operator.sessions(&asked).await },
        )
        .see("/edges", "The edges that the core knows", |operator, NoQuestion {}| async move { operator.edges() })
        .see(
            "/addresses",
            "Player addresses with the most connections or bytes",
            |operator, asked: AddressesQuestion| async move { Ok(operator.addresses(&asked)) },
        )
        .see("/bans", "Who is banned, longest first", |operator, asked: BansQuestion| async move {
            Ok(operator.bans(&asked))
        })
        .see("/traffic", "What the host of an edge has carried", |operator, asked: TrafficQuestion| async move {
            operator.traffic(asked.since).await
        })
        .see(
            "/history",
            "The figures of the last hour and of the last day",
            |operator, asked: HistoryQuestion| async move {
                let (now, step, names) = (SystemTime::now(), asked.step.into(), asked.figures.unwrap_or_default());
                // Nothing began in the future.
                let within = asked.since.map(|since| now.duration_since(since.0).unwrap_or_default());
                let columns = operator.history().columns(step, within, |name| names.has(name), Instant::now());
                Ok(HistoryView::new(step, columns, now))
            },
        )
        .watch("/events", "The last events, the newest last", |operator, asked: &EventsQuestion| {
            let log = operator.events();
            let newest = *log.newest().borrow();
            let events = log.after(asked.after.unwrap_or_default(), asked.limit.get());
            EventsView { newest, events: events.iter().map(EventView::from).collect() }
        })
        .act("/reload", "Read the file again, and use it if it is right", |operator, ReloadRequest {}| async move {
            operator.reload().await
        })
        .act(
            "/drain",
            "Refuse new connections, and let those go on that are there",
            |operator, asked: DrainRequest| async move {
                {
                    let deadline = asked.deadline()?;
                    match asked.edge {
                        None => operator.drain(asked.listener, deadline).await,
                        Some(edge) => operator.drain_edge(edge, asked.listener, deadline).await,
                    }
                }
            },
        )
        .act("/undrain", "Take connections again", |operator, asked: UndrainRequest| async move {
            match asked.edge {
                None => operator.undrain(asked.listener).await,
                Some(edge) => operator.undrain_edge(edge, asked.listener).await,
            }
        })
        .act("/ban", "Refuse an address or a network for a while", |operator, asked: NewBan| async move {
            operator.ban(asked.network, asked.lasts()?, asked.disconnect).await
        })
        .act("/unban", "End the bans of a network, and of all in it", |operator, asked: UnbanRequest| async move {
            operator.unban(asked.network).await
        })
        .act("/revoke", "Throw out an edge at once, or let it in again", |operator, asked: RevokeRequest| async move {
            operator.revoke(asked.edge, asked.undo).await
        })
        .act("/edge", "Decide by hand whether clients are told of an edge", |operator, asked: EdgeRequest| async move {
            operator.order_edge(asked).await
        })
        .act("/probe", "Visit edges as a player's client does", |operator, asked: ProbeRequest| async move {
            let within = asked.within()?;
            operator.probe(asked.edges, within).await
        })
        .act("/disconnect", "Close connections, and end sessions", |operator, asked: DisconnectRequest| async move {
            operator.disconnect(asked.what()?).await
        })
        .act("/target", "Say whether a target has connections", |operator, asked: TargetRequest| async move {
            operator.set_target(&asked.listener, &asked.target, asked.state)
        })
        .act(
            "/upgrade",
            "Hand everything over to a process that waits for it, as `otproxy upgrade` does",
            |operator, asked: UpgradeRequest| async move { operator.upgrade(asked).await },
        )
}

/// Paths, and their part of the document.
#[derive(Default)]
struct Routes {
    router: Router<ApiContext>,
    document: Option<OpenApiDocument>,
}

impl Routes {
    /// Adds a path that is read with the question `Q` and answers `A`.
    fn see<Q, A, F>(
        mut self,
        path: &'static str,
        about: &str,
        see: impl Fn(Arc<dyn Operator>, Q) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema,
        F: Future<Output = Result<A, ApiError>> + Send,
    {
        if let Some(document) = &mut self.document {
            document.see::<Q, A>(path, about);
        }
        let answer = move |State(context): State<ApiContext>, request: Request| async move {
            if let Err(denied) = context.allow(&request, Permission::Read) {
                return answer::denied(denied);
            }
            let (mut parts, _) = request.into_parts();
            let asked = match Query::<Q>::from_request_parts(&mut parts, &()).await {
                Ok(Query(asked)) => asked,
                Err(rejection) => return answer::wrong_query(&rejection),
            };
            // Acquiring fails only once the semaphore is closed, and nobody closes it.
            let place = Arc::clone(&context.places).acquire_owned().await.ok();
            match see(context.operator, asked).await {
                Ok(answer) => answer::list(place, &answer),
                Err(refusal) => answer::refused(&refusal),
            }
        };
        self.router = self.router.route(path, get(answer));
        self
    }

    /// Adds a path of events, which are read once, or told as they come to those who accept a stream.
    fn watch<A: Serialize + JsonSchema>(
        mut self,
        path: &'static str,
        about: &str,
        see: impl Fn(&dyn Operator, &EventsQuestion) -> A + Clone + Send + Sync + 'static,
    ) -> Self {
        if let Some(document) = &mut self.document {
            document.watch::<EventsQuestion, A>(path, about);
        }
        let answer = move |State(context): State<ApiContext>, request: Request| async move {
            if let Err(denied) = context.allow(&request, Permission::Read) {
                return answer::denied(denied);
            }
            let caller = caller(&request);
            let (mut parts, _) = request.into_parts();
            let asked = match Query::<EventsQuestion>::from_request_parts(&mut parts, &()).await {
                Ok(Query(asked)) => asked,
                Err(rejection) => return answer::wrong_query(&rejection),
            };
            if !event_stream::is_wanted(&parts.headers) {
                let place = Arc::clone(&context.places).acquire_owned().await.ok();
                return answer::list(place, &see(&*context.operator, &asked));
            }
            let Ok(place) = Arc::clone(&context.streams).try_acquire_owned() else {
                let error = ApiError::unavailable("as many listen as may", "close one, or ask now and then instead");
                return answer::refused(&error);
            };
            caller.time_limit.lift();
            let (events, history) = (context.operator.events(), context.operator.history());
            EventFeed { events, history, stop: context.stop }.answer(&asked, &parts.headers, place)
        };
        self.router = self.router.route(path, get(answer));
        self
    }

    /// Adds a path that does what the body `B` says and answers `A`.
    fn act<B, A, F>(
        mut self,
        path: &'static str,
        about: &str,
        act: impl Fn(Arc<dyn Operator>, B) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        B: DeserializeOwned + Serialize + JsonSchema + Send + 'static,
        A: Serialize + JsonSchema + Send + 'static,
        F: Future<Output = Result<A, ApiError>> + Send + 'static,
    {
        if let Some(document) = &mut self.document {
            document.act::<B, A>(path, about);
        }
        let answer = move |State(context): State<ApiContext>, request: Request| async move {
            let author = match context.allow(&request, Permission::Act) {
                Ok(author) => author,
                Err(denied) => return answer::denied(denied),
            };
            let asked = match Json::<Object<B>>::from_request(request, &()).await {
                Ok(Json(Object(asked))) => asked,
                Err(rejection) => return answer::wrong_body(&rejection),
            };
            let door = context.door.as_str();
            let Author { caller, token } = &author;
            let (uid, user, certificate) = (caller.uid, caller.user(), caller.certificate());
            let (address, token) =
                (caller.address.map(|address| address.to_string()), token.map(Permission::token_key));
            let request = serde_json::to_string(&asked).unwrap_or_default();
            // It runs as a task of its own: the client may leave or run out of time, but an action that has begun is
            // completed.
            let done = tokio::spawn(act(context.operator, asked)).await;
            match done {
                Ok(Ok(answer)) if UNSAID.contains(&path) => answer::ok(&answer),
                Ok(Ok(answer)) => {
                    info!(door, uid, user, address, certificate, token, act = path, request, "an operator has acted");
                    answer::ok(&answer)
                }
                Ok(Err(refusal)) => {
                    let error = display(&refusal);
                    warn!(
                        door,
                        uid,
                        user,
                        address,
                        certificate,
                        token,
                        act = path,
                        request,
                        error,
                        "an operator could not act"
                    );
                    answer::refused(&refusal)
                }
                Err(error) => answer::failed(&error.to_string()),
            }
        };
        self.router = self.router.route(path, post(answer));
        self
    }
}

/// The author of a request that is allowed.
struct Author {
    caller: Caller,
    /// The right of the token that it needed.
    token: Option<Permission>,
}

impl ApiContext {
    /// Checks that a request may be answered, and returns its author. Denied requests are logged, up to the log's limit.
    fn allow(&self, request: &Request, right: Permission) -> Result<Author, AuthError> {
        let (caller, path) = (caller(request), request.uri().path());
        let token = match (self.door, right) {
            (Transport::Tunnel, Permission::Act) if !OF_THE_CORE.contains(&path) => Err(AuthError::NotOfTheCore),
            (door, _) if OF_ITS_USER.contains(&path) && !(door == Transport::Socket && caller.is_own_user()) => {
                Err(AuthError::NotItsUser)
            }
            _ => access::check(self.door, &caller, &self.tokens, request.headers(), right),
        };
        let token = token.inspect_err(|denied| self.log_denied(request, *denied))?;
        Ok(Author { caller, token })
    }

    /// Checks the same of a request for a page beside the API.
    pub fn allow_page(&self, request: &Request) -> Result<(), AuthError> {
        let allowed = access::check_page(self.door, &self.tokens, request.headers());
        allowed.inspect_err(|denied| self.log_denied(request, *denied))
    }

    fn log_denied(&self, request: &Request, denied: AuthError) {
        static LOG: RateLimitedLog = RateLimitedLog::new(REFUSED_LINES);
        if let Some(suppressed) = LOG.allow(Instant::now()) {
            let (door, path, reason) = (self.door.as_str(), request.uri().path(), denied.text().0);
            let address = caller(request).address.map(|address| address.to_string());
            warn!(door, address, path, reason, suppressed, "a request to the admin server is refused");
        }
    }
}

/// Returns the caller of a request.
fn caller(request: &Request) -> Caller {
    let known = request.extensions().get::<ConnectInfo<Caller>>();
    known.map(|ConnectInfo(caller)| caller.clone()).unwrap_or_default()
}

/// A request that is a JSON object. Its type alone would accept an array of its fields as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }
}
