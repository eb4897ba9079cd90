//! The routes of requests.

use otproxy_config::{LISTS_PATH, STATUS_PATH, WebRoutes};
use otproxy_protocol::words;

words! {
    /// The kind of what a request asks for.
    pub enum Route {
        /// A list of edges.
        Proxies = "proxies",
        /// The status: who is online.
        Status = "status",
        /// A login.
        Login = "login",
        /// A file of the process's own report.
        Report = "report",
        /// Anything else.
        Other = "other",
    }
}

words! {
    /// The result of a request.
    pub enum WebResult {
        /// It was answered here, or by the target.
        Ok = "ok",
        /// It was answered with what was kept, and is fresh.
        Kept = "kept",
        /// It was answered with what was kept, and is not fresh, as there is no newer answer yet.
        Stale = "stale",
        /// There is no answer: nothing behind it can be reached, or answers.
        Failed = "failed",
        /// There is nothing at that path, or not with that method.
        NotFound = "not_found",
        /// It was refused: a limit, a ban, a body that is too long, or a report that is for others.
        Refused = "refused",
    }
}

/// Returns what a path asks for, at an edge: the core decides what there is.
pub fn at_edge(path: &str, is_post: bool) -> Route {
    if path.starts_with(LISTS_PATH) {
        Route::Proxies
    } else if path == STATUS_PATH {
        Route::Status
    } else if is_post {
        Route::Login
    } else {
        Route::Other
    }
}

/// Returns what a path asks for, at a core; [`Route::Other`] if there is nothing.
pub fn at_core(routes: &WebRoutes, path: &str) -> Route {
    if list_name(routes, path).is_some() {
        Route::Proxies
    } else if path == STATUS_PATH && routes.status.is_some() {
        Route::Status
    } else if routes.login.iter().any(|login| login == path) {
        Route::Login
    } else {
        Route::Other
    }
}

/// Returns the list that a path names.
pub fn list_name<'r>(routes: &'r WebRoutes, path: &str) -> Option<&'r otproxy_config::WebList> {
    let name = path.strip_prefix(LISTS_PATH)?;
    routes.proxies.iter().find(|list| list.name == name)
}

#[cfg(test)]
mod tests {
    use otproxy_config::WebList;
    use otproxy_protocol::login::Worlds;

    use super::*;

    #[test]
    fn paths() {
        let routes = WebRoutes {
            proxies: vec![WebList { name: "myot".to_owned(), web: None }],
            status: Some("login".to_owned()),
            login: vec!["/login.php".to_owned()],
            worlds: Worlds::Auto,
            classic: None,
        };
        for (path, core, get, post) in [
            ("/proxies/myot", Route::Proxies, Route::Proxies, Route::Proxies),
            ("/proxies/other", Route::Other, Route::Proxies, Route::Proxies),
            ("/proxies/", Route::Other, Route::Proxies, Route::Proxies),
            ("/proxies", Route::Other, Route::Other, Route::Login),
            ("/proxies/myot/", Route::Other, Route::Proxies, Route::Proxies),
            ("/status", Route::Status, Route::Status, Route::Status),
            ("/login.php", Route::Login, Route::Other, Route::Login),
            ("/login", Route::Other, Route::Other, Route::Login),
            ("/", Route::Other, Route::Other, Route::Login),
        ] {
            assert_eq!(
                (at_core(&routes, path), at_edge(path, false), at_edge(path, true)),
                (core, get, post),
                "{path}"
            );
        }
        let without = WebRoutes { status: None, ..routes };
        assert_eq!(at_core(&without, "/status"), Route::Other);
    }
}
