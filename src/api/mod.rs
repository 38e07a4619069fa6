//! What an application writes: a [`Handler`] that takes a [`Request`] and answers something [`IntoResponse`].

mod answers;
mod body;
mod extensions;
#[cfg(feature = "form")]
mod form;
#[cfg(feature = "json")]
mod json;
mod layer;
mod rejection;
mod request;
mod router;
mod session;
mod talk;

pub use answers::{Html, Redirect};
pub(crate) use body::{AnswerTo, Attach, Bytes, Kind, Later, StreamFn, Subscribe, known_header};
pub use body::{Body, IntoResponse, Response};
pub use extensions::Extensions;
#[cfg(feature = "json")]
pub use json::Json;
pub(crate) use layer::Layers;
pub use layer::{Layered, Next};
pub use rejection::Rejection;
pub(crate) use request::{ReadBehind, without_token};
pub use request::{Request, RequestBody};
pub use router::Router;
pub(crate) use session::{Arrived, HearError, Owner, Session, Sessions};
pub use talk::Closed;
pub(crate) use talk::{Conversations, Converse, Framed, Listener, Restore, Side, Talk, Talker, topics_of};

use tiny_http::{Method, StatusCode};

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
///
///     // What can be known before there is a body, or without any request; each has a default.
///     fn body_limit(&self, head: &Request) -> Option<u64> {
///         head.path().starts_with("/letters").then_some(10 << 20)
///     }
///
///     fn allow(&self, _: &Request) -> Option<String> {
///         Some("GET, HEAD, OPTIONS".into())
///     }
///
///     fn describe(&self) -> Vec<String> {
///         vec!["/ says hello".into()]
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

    /// What Allow says for the path of the request whose head has arrived, where the server refuses TRACE by itself;
    /// `None` is every method of RFC 9110 and RFC 5789 but CONNECT and TRACE.
    fn allow(&self, head: &Request) -> Option<String> {
        let _ = head;
        None
    }

    /// What `--check` says of it: a line for each route, its path first.
    fn describe(&self) -> Vec<String> {
        Vec::new()
    }

    /// What it counts, for `/-/metrics`: names as Prometheus has them, with labels if need be, and numbers that only grow
    /// (`jobs_done_total`, `jobs_done_total{kind="print"}`). They go on in a successor, which begins at nothing itself.
    ///
    /// ```
    /// use handover::{Handler, IntoResponse, Request, Response};
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// #[derive(Default)]
    /// struct Printer { jobs: AtomicUsize }
    ///
    /// impl Handler for Printer {
    ///     fn handle(&self, _: &mut Request) -> Response {
    ///         self.jobs.fetch_add(1, Ordering::Relaxed);
    ///         "printed\n".into_response()
    ///     }
    ///
    ///     fn counters(&self) -> Vec<(String, u64)> {
    ///         vec![("printer_jobs_total".into(), self.jobs.load(Ordering::Relaxed) as u64)]
    ///     }
    /// }
    /// ```
    fn counters(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Puts a layer around it, which sees each request before it and each answer behind it. Of several the first written
    /// sees a request first. What says something without a request, as [`body_limit`](Handler::body_limit), says the same
    /// with layers. A layer that panics costs its request: a 500. [`Router::layer`] is the same for a router, and
    /// [`Builder::layer`](crate::Builder::layer) for all that a server answers.
    ///
    /// ```
    /// use handover::{Files, Handler, Next, Request, Response, Router};
    ///
    /// let files = Files::open("examples/site".as_ref())?.layer(|request: &mut Request, next: Next<'_>| {
    ///     ([("X-Frame-Options", "DENY")], next.run(request))
    /// });
    /// let client = handover::test::Client::new(Router::new().mount_service("/site", files));
    /// assert_eq!(client.get("/site/index.html").send().header("X-Frame-Options"), Some("DENY"));
    /// # Ok::<(), handover::Error>(())
    /// ```
    fn layer<F, R>(self, layer: F) -> Layered<Self>
    where
        Self: Sized,
        F: Fn(&mut Request, Next<'_>) -> R + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        Layered::new(Layers::default(), self).layer(layer)
    }
}

impl<H: Handler + ?Sized> Handler for Box<H> {
    fn handle(&self, request: &mut Request) -> Response {
        (**self).handle(request)
    }

    fn body_limit(&self, head: &Request) -> Option<u64> {
        (**self).body_limit(head)
    }

    fn allow(&self, head: &Request) -> Option<String> {
        (**self).allow(head)
    }

    fn describe(&self) -> Vec<String> {
        (**self).describe()
    }

    fn counters(&self) -> Vec<(String, u64)> {
        (**self).counters()
    }
}

/// What Allow says where there are GET and HEAD alone.
pub(crate) const READ_ONLY: &str = "GET, HEAD, OPTIONS";

/// The answer to every method but GET and HEAD where there are no others: 204 to OPTIONS (RFC 9110 §9.3.7), 405 to
/// those that are known (§15.5.6), 501 to the others (§15.6.2).
pub(crate) fn refuse_unless_read(method: &Method) -> Option<Response> {
    let response = match method {
        Method::Get | Method::Head => return None,
        Method::Options => ().into_response(),
        Method::NonStandard(_) => return Some(StatusCode(501).into_response()),
        _ => StatusCode(405).into_response(),
    };
    Some(response.with_header(known_header("Allow", READ_ONLY)))
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
