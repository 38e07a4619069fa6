//! What an application writes: a [`Handler`] that takes a [`Request`] and answers something [`IntoResponse`].

mod body;
mod request;
mod router;

pub use body::{Body, IntoResponse, Response};
pub(crate) use body::{Bytes, Kind, StreamFn, known_header};
pub use request::{Request, RequestBody};
pub use router::Router;

/// Answers requests, on many threads at once.
///
/// A closure `Fn(&mut Request) -> impl IntoResponse` enters by `Builder::handler`; an object of this trait, a
/// [`Router`] for example, by `Builder::service`.
///
/// ```
/// use handover::{Handler, IntoResponse, Request, Response};
///
/// struct Greeter { name: String }
///
/// impl Handler for Greeter {
///     fn handle(&self, _: &mut Request) -> Response {
///         format!("hello {}\n", self.name).into_response()
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. It may block; a panic answers 500.
    fn handle(&self, request: &mut Request) -> Response;

    /// The largest body, in bytes, for the request whose head has arrived; `None` is the server's own limit.
    fn body_limit(&self, head: &Request) -> Option<u64> {
        let _ = head;
        None
    }

    /// What `--check` says of it: a line for each route, its path first.
    fn describe(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<H: Handler + ?Sized> Handler for Box<H> {
    fn handle(&self, request: &mut Request) -> Response {
        (**self).handle(request)
    }

    fn body_limit(&self, head: &Request) -> Option<u64> {
        (**self).body_limit(head)
    }

    fn describe(&self) -> Vec<String> {
        (**self).describe()
    }
}

/// A closure as a [`Handler`].
pub(crate) struct Closure<F>(pub F);

impl<F, R> Handler for Closure<F>
where
    F: Fn(&mut Request) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    fn handle(&self, request: &mut Request) -> Response {
        (self.0)(request).into_response()
    }
}
