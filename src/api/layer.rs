//! What stands around a handler: authentication, request ids, timing.

use super::body::with_all_headers;
use super::{Handler, IntoResponse, Request, Response};

type Layer = Box<dyn Fn(&mut Request, Next<'_>) -> Response + Send + Sync>;

/// What stands behind a layer: the next one, or what answers in the end.
///
/// ```
/// use handover::{IntoResponse, Next, Request, Response, Router, StatusCode};
///
/// fn only_with_a_key(request: &mut Request, next: Next<'_>) -> Response {
///     match request.header("X-Key") {
///         Some("4f1c") => next.run(request),
///         _ => StatusCode(403).into_response(),
///     }
/// }
///
/// let router = Router::new().get("/", |_| "hello\n").layer(only_with_a_key);
/// let client = handover::test::Client::new(router);
/// assert_eq!(client.get("/").send().status(), 403);
/// assert_eq!(client.get("/").header("X-Key", "4f1c").send().status(), 200);
/// ```
pub struct Next<'n> {
    layers: &'n [Layer],
    answer: &'n dyn Fn(&mut Request) -> Response,
}

impl Next<'_> {
    /// Has the request answered, as in the example [above](Next). A layer that does not call it answers itself.
    pub fn run(self, request: &mut Request) -> Response {
        match self.layers.split_first() {
            Some((layer, layers)) => layer(request, Next { layers, answer: self.answer }),
            // What a site or a hub has prepared for many answers is to be seen and replaced like any other field.
            None => with_all_headers((self.answer)(request)),
        }
    }
}

/// Layers in the order in which a request meets them.
#[derive(Default)]
pub(crate) struct Layers(Vec<Layer>);

impl Layers {
    /// Adds one inside of the others.
    pub fn add<F, R>(&mut self, layer: F)
    where
        F: Fn(&mut Request, Next<'_>) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.0.push(Box::new(move |request, next| layer(request, next).into_response()));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes through all of them to `answer`.
    pub fn run(&self, request: &mut Request, answer: &dyn Fn(&mut Request) -> Response) -> Response {
        Next { layers: &self.0, answer }.run(request)
    }
}

/// A [`Handler`] with layers around it: what [`Handler::layer`] makes.
pub struct Layered<H> {
    layers: Layers,
    handler: H,
}

impl<H: Handler> Layered<H> {
    pub(crate) fn new(layers: Layers, handler: H) -> Layered<H> {
        Layered { layers, handler }
    }

    /// Adds a layer inside of those that are there: the first written sees a request first. See [`Handler::layer`].
    pub fn layer<F, R>(mut self, layer: F) -> Layered<H>
    where
        F: Fn(&mut Request, Next<'_>) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.layers.add(layer);
        self
    }
}

impl<H: Handler> Handler for Layered<H> {
    fn handle(&self, request: &mut Request) -> Response {
        self.layers.run(request, &|request| self.handler.handle(request))
    }

    fn body_limit(&self, head: &Request) -> Option<u64> {
        self.handler.body_limit(head)
    }

    fn allow(&self, head: &Request) -> Option<String> {
        self.handler.allow(head)
    }

    fn describe(&self) -> Vec<String> {
        self.handler.describe()
    }

    fn counters(&self) -> Vec<(String, u64)> {
        self.handler.counters()
    }
}
