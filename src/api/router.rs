//! Method and path to handler.

use super::request::decode;
use super::{Closure, Handler, IntoResponse, Layers, Next, Request, Response, known_header};
use std::collections::HashMap;
use tiny_http::{Method, StatusCode};

/// Routes by path, with `{name}` for one segment and `{*name}` for the rest, then by method.
///
/// An unknown path is 404, a known path with another method 405 with Allow, a method that neither RFC 9110 nor RFC 5789
/// nor any route has is 501; HEAD goes to the GET handler, and OPTIONS is answered from what is there.
///
/// ```
/// use handover::{Request, Router};
///
/// let router = Router::new()
///     .get("/hello/{name}", |request: &mut Request| format!("hello {}\n", request.param("name").unwrap_or("?")))
///     .post("/upload", |request: &mut Request| request.body_bytes().map(|body| format!("{} bytes\n", body.len())))
///     .max_body(16 << 20);
/// # let _ = handover::Server::builder().service(router);
/// ```
///
/// # Panics
/// A path that conflicts with an earlier one, or is no route, panics when it is added: the program is wrong.
#[derive(Default)]
pub struct Router {
    paths: matchit::Router<usize>,
    known: HashMap<String, usize>,
    routes: Vec<Vec<Route>>,
    last: Option<(usize, usize)>,
    /// Prefixes without a slash at the end, the longest first.
    mounts: Vec<(String, Box<dyn Handler>)>,
    fallback: Option<Box<dyn Handler>>,
    layers: Layers,
}

/// Parameters by name, decoded.
pub(super) type Params = Vec<(String, String)>;

struct Route {
    method: Method,
    handler: Box<dyn Handler>,
    max_body: Option<u64>,
}

impl Router {
    /// No routes.
    pub fn new() -> Router {
        Router::default()
    }

    /// Adds a closure for GET, and so for HEAD.
    pub fn get<F, R>(self, path: &str, handler: F) -> Router
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.route(Method::Get, path, handler)
    }

    /// Adds a closure for POST.
    pub fn post<F, R>(self, path: &str, handler: F) -> Router
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.route(Method::Post, path, handler)
    }

    /// Adds a closure for HEAD, which otherwise goes to the one for GET: for what costs much to make, and little to say.
    ///
    /// ```
    /// use handover::{Request, Router, test::Client};
    ///
    /// let router = Router::new()
    ///     .get("/report", |_: &mut Request| "a report that takes a while\n")
    ///     .head("/report", |_: &mut Request| ([("ETag", "\"7\"")], ""));
    /// assert_eq!(Client::new(router).head("/report").send().header("ETag"), Some("\"7\""));
    /// ```
    pub fn head<F, R>(self, path: &str, handler: F) -> Router
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.route(Method::Head, path, handler)
    }

    /// Adds a closure for PUT.
    ///
    /// ```
    /// use handover::{Request, Router, StatusCode, test::Client};
    ///
    /// let router = Router::new()
    ///     .put("/items/{id}", |_: &mut Request| StatusCode(201))
    ///     .patch("/items/{id}", |_: &mut Request| "changed\n")
    ///     .delete("/items/{id}", |_: &mut Request| ());
    /// let client = Client::new(router);
    /// assert_eq!(client.put("/items/1").send().status(), 201);
    /// assert_eq!(client.patch("/items/1").send().status(), 200);
    /// assert_eq!(client.delete("/items/1").send().status(), 204);
    /// let refused = client.get("/items/1").send();
    /// assert_eq!((refused.status(), refused.header("Allow")), (405, Some("PUT, PATCH, DELETE, OPTIONS")));
    /// ```
    pub fn put<F, R>(self, path: &str, handler: F) -> Router
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.route(Method::Put, path, handler)
    }

    /// Adds a closure for PATCH (RFC 5789), as [`put`](Router::put).
    pub fn patch<F, R>(self, path: &str, handler: F) -> Router
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.route(Method::Patch, path, handler)
    }

    /// Adds a closure for DELETE, as [`put`](Router::put).
    pub fn delete<F, R>(self, path: &str, handler: F) -> Router
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.route(Method::Delete, path, handler)
    }

    /// Adds a closure for any method.
    ///
    /// ```
    /// use handover::{Handler, Method, Request, Router, StatusCode, test::Client};
    ///
    /// let purge: Method = "PURGE".parse().expect("a token");
    /// let router = Router::new()
    ///     .route(purge, "/cache", |_: &mut Request| "purged\n")
    ///     .fallback(Router::new().get("/old", |_: &mut Request| StatusCode(410)));
    /// let client = Client::new(router);
    /// assert_eq!(client.request("PURGE", "/cache").send().text(), "purged\n");
    /// assert_eq!(client.get("/old").send().status(), 410);
    /// ```
    pub fn route<F, R>(self, method: Method, path: &str, handler: F) -> Router
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.service(method, path, Closure(handler))
    }

    /// Adds a [`Handler`] for any method.
    pub fn service(mut self, method: Method, path: &str, handler: impl Handler) -> Router {
        let index = match self.known.get(path) {
            Some(&index) => index,
            None => {
                let index = self.routes.len();
                if let Err(error) = self.paths.insert(path, index) {
                    panic!("route {path:?}: {error}");
                }
                self.known.insert(path.to_owned(), index);
                self.routes.push(Vec::new());
                index
            }
        };
        let routes = &mut self.routes[index];
        assert!(routes.iter().all(|route| route.method != method), "route {method} {path:?} was added twice");
        routes.push(Route { method, handler: Box::new(handler), max_body: None });
        self.last = Some((index, routes.len() - 1));
        self
    }

    /// The largest body in bytes for the route added last, instead of the server's limit. What is mounted, and a fallback, say
    /// their own ([`Handler::body_limit`]), as a [`Router`] there does by its routes.
    ///
    /// # Panics
    /// Behind anything but a route: the program is wrong.
    #[track_caller]
    pub fn max_body(mut self, bytes: u64) -> Router {
        let (path, route) = self.last.expect("max_body() follows a route, and no mount or fallback");
        self.routes[path][route].max_body = Some(bytes);
        self
    }

    /// What answers every method at a prefix and below it, where no route matches: whole segments, as they are sent. What
    /// stands behind the prefix is the parameter `rest`, decoded.
    ///
    /// ```
    /// use handover::{Handler, Request, Router};
    ///
    /// let api = |request: &mut Request| format!("{} of {:?}\n", request.method(), request.param("rest"));
    /// let router = Router::new().get("/api/version", |_: &mut Request| "1").mount("/api", api);
    /// let mut request = Request::from_head(b"PUT /api/a/b%20c HTTP/1.1\r\nHost: test\r\n\r\n").expect("a head");
    /// assert_eq!(router.handle(&mut request).status_code().0, 200);
    /// assert_eq!(request.param("rest"), Some("a/b c"));
    /// ```
    ///
    /// # Panics
    /// A prefix that does not begin with a slash, or was mounted before: the program is wrong.
    pub fn mount<F, R>(self, prefix: &str, handler: F) -> Router
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.mount_service(prefix, Closure(handler))
    }

    /// The same for a [`Handler`].
    ///
    /// # Panics
    /// As [`mount`](Router::mount).
    pub fn mount_service(mut self, prefix: &str, handler: impl Handler) -> Router {
        assert!(prefix.starts_with('/'), "{prefix:?} does not begin with a slash");
        let prefix = prefix.trim_end_matches('/');
        assert!(self.mounts.iter().all(|(other, _)| other != prefix), "{prefix:?} was mounted twice");
        let at = self.mounts.partition_point(|(other, _)| other.len() > prefix.len());
        self.mounts.insert(at, (prefix.to_owned(), Box::new(handler)));
        self.last = None;
        self
    }

    /// What answers where no path matches, instead of a 404; see the example of [`route`](Router::route). A closure is
    /// [mounted](Router::mount) at `/`.
    pub fn fallback(mut self, handler: impl Handler) -> Router {
        self.fallback = Some(Box::new(handler));
        self.last = None;
        self
    }

    /// Puts a layer around all that the router answers, wherever in the chain it is written: routes, mounts, the fallback, a
    /// 404 and a 405. Of several the first written sees a request first. It runs before a route is found, so
    /// [`param`](Request::param) says something behind [`Next::run`] alone.
    ///
    /// For a layer around some routes, put these into a router of their own and mount that; paths stay whole.
    ///
    /// ```
    /// use handover::{IntoResponse, Next, Request, Response, Router, StatusCode, test::Client};
    /// use std::time::Instant;
    ///
    /// fn timed(request: &mut Request, next: Next<'_>) -> Response {
    ///     let begun = Instant::now();
    ///     let response = next.run(request);
    ///     let time = format!("handler;dur={}", begun.elapsed().as_millis());
    ///     ([("Server-Timing", time)], response).into_response()
    /// }
    ///
    /// let only_known = |request: &mut Request, next: Next<'_>| match request.cookie("session") {
    ///     Some("4f1c") => Ok(next.run(request)),
    ///     _ => Err(StatusCode(403)),
    /// };
    /// let admin = Router::new().get("/admin/users", |_: &mut Request| "ada\n").layer(only_known);
    /// let router = Router::new().get("/", |_: &mut Request| "hello\n").mount_service("/admin", admin).layer(timed);
    ///
    /// let client = Client::new(router);
    /// let refused = client.get("/admin/users").send();
    /// assert!(refused.status() == 403 && refused.header("Server-Timing").is_some());
    /// assert_eq!(client.get("/").send().status(), 200);
    /// ```
    pub fn layer<F, R>(mut self, layer: F) -> Router
    where
        F: Fn(&mut Request, Next<'_>) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.layers.add(layer);
        self
    }

    /// What is mounted at that path, and what of it stands behind the prefix.
    fn mounted<'p>(&self, path: &'p str) -> Option<(&dyn Handler, &'p str)> {
        self.mounts.iter().find_map(|(prefix, handler)| {
            let rest = path.strip_prefix(prefix.as_str())?;
            match rest.strip_prefix('/') {
                Some(rest) => Some((&**handler, rest)),
                None => rest.is_empty().then_some((&**handler, "")),
            }
        })
    }

    /// Whether the method is one of the standard ones or a route's (RFC 9110 §9.1 tells them from the others).
    fn knows(&self, method: &Method) -> bool {
        let standard = !matches!(method, Method::NonStandard(_));
        standard || self.routes.iter().flatten().any(|route| route.method == *method)
    }

    /// The routes of the path, its parameters decoded.
    fn find(&self, path: &str) -> Option<(&[Route], Params)> {
        let matched = self.paths.at(path).ok()?;
        let params = matched.params.iter();
        let params = params.map(|(name, value)| (name.to_owned(), decode(value).into_owned()));
        Some((&self.routes[*matched.value], params.collect()))
    }
}

/// The route for the method; HEAD is GET without the body (RFC 9110 §9.3.2).
fn for_method<'r>(routes: &'r [Route], method: &Method) -> Option<&'r Route> {
    let exact = routes.iter().find(|route| route.method == *method);
    match method {
        Method::Head => exact.or_else(|| for_method(routes, &Method::Get)),
        _ => exact,
    }
}

/// What Allow says (RFC 9110 §10.2.1).
fn allowed(routes: &[Route]) -> String {
    let mut methods: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
    if methods.contains(&"GET") && !methods.contains(&"HEAD") {
        methods.push("HEAD");
    }
    if !methods.contains(&"OPTIONS") {
        methods.push("OPTIONS");
    }
    methods.join(", ")
}

impl Router {
    /// Answers without its layers.
    fn answer(&self, request: &mut Request) -> Response {
        let Some((routes, params)) = self.find(request.path()) else {
            if let Some((handler, rest)) = self.mounted(request.path()) {
                let (at, rest) = (request.path().len() - rest.len(), decode(rest).into_owned());
                // Its own slash is what stands in front of it, and a second one is part of it.
                request.set_rest_of_path(at - usize::from(request.path()[..at].ends_with('/')));
                request.set_params(vec![("rest".to_owned(), rest)]);
                return handler.handle(request);
            }
            return match (&self.fallback, request.path()) {
                (_, "*") => ().into_response(),
                (Some(fallback), _) => fallback.handle(request),
                (None, _) if !self.knows(request.method()) => StatusCode(501).into_response(),
                (None, _) => StatusCode(404).into_response(),
            };
        };
        if let Some(route) = for_method(routes, request.method()) {
            request.set_params(params);
            return route.handler.handle(request);
        }
        if !self.knows(request.method()) {
            return StatusCode(501).into_response();
        }
        let allow = known_header("Allow", &allowed(routes));
        match request.method() {
            Method::Options => ().into_response().with_header(allow),
            _ => StatusCode(405).into_response().with_header(allow),
        }
    }
}

impl Handler for Router {
    fn handle(&self, request: &mut Request) -> Response {
        if self.layers.is_empty() {
            return self.answer(request);
        }
        self.layers.run(request, &|request| self.answer(request))
    }

    fn body_limit(&self, head: &Request) -> Option<u64> {
        let Some((routes, _)) = self.find(head.path()) else {
            if let Some((handler, _)) = self.mounted(head.path()) {
                return handler.body_limit(head);
            }
            return self.fallback.as_ref()?.body_limit(head);
        };
        let route = for_method(routes, head.method())?;
        route.max_body.or_else(|| route.handler.body_limit(head))
    }

    fn allow(&self, head: &Request) -> Option<String> {
        match self.find(head.path()) {
            Some((routes, _)) => Some(allowed(routes)),
            None => match self.mounted(head.path()) {
                Some((handler, _)) => handler.allow(head),
                None => self.fallback.as_ref()?.allow(head),
            },
        }
    }

    fn describe(&self) -> Vec<String> {
        let mut paths: Vec<(&String, usize)> = self.known.iter().map(|(path, &index)| (path, index)).collect();
        paths.sort_unstable_by_key(|(_, index)| *index);
        let routes = paths.into_iter().map(|(path, index)| format!("{path} {}", allowed(&self.routes[index])));
        let mounts = self.mounts.iter().map(|(prefix, _)| format!("{prefix}/ any method"));
        routes.chain(mounts).chain(self.fallback.iter().flat_map(|fallback| fallback.describe())).collect()
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let routes = self.routes.iter().flatten().map(|route| &route.handler);
        let mounts = self.mounts.iter().map(|(_, handler)| handler);
        routes.chain(mounts).chain(&self.fallback).flat_map(|handler| handler.counters()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(router: &Router, line: &str) -> (u16, Option<String>) {
        let head = format!("{line} HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut request = Request::from_head(head.as_bytes()).expect("a head");
        let status = router.handle(&mut request).status_code().0;
        (status, request.param("rest").map(str::to_owned))
    }

    #[test]
    fn a_mount_answers_whole_segments_and_the_longest_prefix() {
        let router = Router::new()
            .get("/a/own", |_: &mut Request| "own")
            .mount("/a/", |_: &mut Request| StatusCode(201))
            .mount("/a/b", |_: &mut Request| StatusCode(202))
            .fallback(Closure(|_: &mut Request| StatusCode(404)));
        let rest = |rest: &str| Some(rest.to_owned());
        assert_eq!(text(&router, "GET /a/own"), (200, None));
        assert_eq!(text(&router, "GET /a"), (201, rest("")));
        assert_eq!(text(&router, "DELETE /a/x/y%2Fz"), (201, rest("x/y/z")));
        assert_eq!(text(&router, "BREW /a/b/c"), (202, rest("c")));
        assert_eq!(text(&router, "GET /a/bc"), (201, rest("bc")));
        assert_eq!(text(&router, "GET /ab"), (404, None));
        // A path that is a route's is the route's, whatever its methods.
        assert_eq!(text(&router, "POST /a/own").0, 405);
    }

    /// It was the limit of the route before: the mount took as much as ever, and that route less or more than it was to.
    #[test]
    fn a_limit_behind_a_mount_is_no_other_routes() {
        fn router() -> Router {
            Router::new().post("/a", |_: &mut Request| "a")
        }
        for wrong in [
            || router().mount("/b", |_: &mut Request| "b").max_body(1),
            || router().fallback(Router::new()).max_body(1),
            || Router::new().max_body(1),
        ] as [fn() -> Router; 3]
        {
            assert!(std::panic::catch_unwind(wrong).is_err());
        }
        assert!(router().max_body(1).mount("/b", |_: &mut Request| "b").fallback(Router::new()).layers.is_empty());
    }

    /// What stood there behind two slashes was taken for what stands behind one.
    #[test]
    fn a_second_slash_is_part_of_the_rest() {
        for (prefix, path, rest) in [("/a", "/a", ""), ("/a", "/a/", ""), ("/a", "/a//", "/"), ("/a", "/a//b", "/b")]
            .into_iter()
            .chain([("/", "/", ""), ("/", "//", "/"), ("/", "/b", "b"), ("/a", "/a/b/", "b/")])
        {
            let router = Router::new().mount(prefix, move |request: &mut Request| match request.rest_of_path() {
                found if found == rest => StatusCode(200),
                found => panic!("{found:?} behind {prefix} in {path}"),
            });
            assert_eq!(text(&router, &format!("GET {path}")), (200, Some(rest.to_owned())));
        }
    }

    #[test]
    fn everything_can_be_mounted() {
        let router = Router::new().mount("/", |_: &mut Request| "all");
        assert_eq!(text(&router, "GET /"), (200, Some(String::new())));
        assert_eq!(text(&router, "GET /x"), (200, Some("x".to_owned())));
    }
}
