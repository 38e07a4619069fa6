//! Method and path to handler.

use super::request::decode;
use super::{Closure, Handler, IntoResponse, Request, Response, known_header};
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
    fallback: Option<Box<dyn Handler>>,
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

    /// Adds a closure for any method.
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

    /// The largest body in bytes for the route added last, instead of the server's limit.
    pub fn max_body(mut self, bytes: u64) -> Router {
        let (path, route) = self.last.expect("max_body() follows a route");
        self.routes[path][route].max_body = Some(bytes);
        self
    }

    /// What answers where no path matches, instead of a 404.
    pub fn fallback(mut self, handler: impl Handler) -> Router {
        self.fallback = Some(Box::new(handler));
        self
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

impl Handler for Router {
    fn handle(&self, request: &mut Request) -> Response {
        let Some((routes, params)) = self.find(request.path()) else {
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

    fn body_limit(&self, head: &Request) -> Option<u64> {
        let Some((routes, _)) = self.find(head.path()) else {
            return self.fallback.as_ref()?.body_limit(head);
        };
        let route = for_method(routes, head.method())?;
        route.max_body.or_else(|| route.handler.body_limit(head))
    }

    fn allow(&self, head: &Request) -> Option<String> {
        match self.find(head.path()) {
            Some((routes, _)) => Some(allowed(routes)),
            None => self.fallback.as_ref()?.allow(head),
        }
    }

    fn describe(&self) -> Vec<String> {
        let mut paths: Vec<(&String, usize)> = self.known.iter().map(|(path, &index)| (path, index)).collect();
        paths.sort_unstable_by_key(|(_, index)| *index);
        let routes = paths.into_iter().map(|(path, index)| format!("{path} {}", allowed(&self.routes[index])));
        routes.chain(self.fallback.iter().flat_map(|fallback| fallback.describe())).collect()
    }
}
