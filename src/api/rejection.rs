//! Why a request is not what its handler wanted.

use super::{Body, IntoResponse, Response, answers};
use crate::logging::rate_limit::log_rate_limited;
use std::fmt;
use tiny_http::StatusCode;

/// Characters of a message, the rest of which is left out: it may have what the client has sent.
pub(super) const LONGEST: usize = 300;

/// Why a request is not what its handler wanted, as a response: a status, and one line that says what is wrong and where.
/// [`Request::json`](crate::Request::json), [`form`](crate::Request::form), [`query_as`](crate::Request::query_as) and
/// [`param_as`](crate::Request::param_as) answer it, so that `?` is all that a handler writes. It becomes a [`Response`] by
/// itself where that is a handler's error, and keeps its status in a `Box<dyn Error + Send + Sync>`.
///
/// ```
/// use handover::{Json, Rejection, Request, Router};
///
/// fn double(request: &mut Request) -> Result<Json<u64>, Rejection> {
///     let number: u64 = request.json()?;
///     number.checked_mul(2).map(Json).ok_or_else(|| Rejection::new(422, "that is too large to be doubled"))
/// }
///
/// let client = handover::test::Client::new(Router::new().post("/double", double));
/// assert_eq!(client.post("/double").json(&21).send().text(), "42");
/// let answer = client.post("/double").json(&u64::MAX).send();
/// assert_eq!((answer.status(), answer.text()), (422, "that is too large to be doubled\n"));
/// ```
#[derive(Clone, Debug)]
pub struct Rejection {
    status: StatusCode,
    message: String,
    /// What would be taken, where that is the question.
    accept: Option<&'static str>,
}

impl Rejection {
    /// A status, and the line that goes with it, without its end. Control characters become U+FFFD, and 300 characters are
    /// the most. See the example [above](Rejection).
    pub fn new(status: impl Into<StatusCode>, message: impl fmt::Display) -> Rejection {
        let shown = |char: char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char };
        let message = message.to_string().chars().take(LONGEST).map(shown).collect();
        Rejection { status: status.into(), message, accept: None }
    }

    /// A body of another type than the one that is taken (RFC 9110 §15.5.16).
    #[cfg(any(feature = "json", feature = "form"))]
    pub(super) fn media_type(found: Option<&str>, accept: &'static str) -> Rejection {
        let found = found.map_or("there is none".to_owned(), |found| format!("it is {found:?}"));
        let rejection = Rejection::new(415, format_args!("the Content-Type has to be {accept}, and {found}"));
        Rejection { accept: Some(accept), ..rejection }
    }

    /// The status.
    ///
    /// ```
    /// assert_eq!(handover::Rejection::new(404, "there is no such item").status(), handover::StatusCode(404));
    /// ```
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejection {}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let accept = self.accept.map(|accept| ("Accept", accept));
        let answer = (self.status, self.message + "\n").into_response();
        if accept.is_some() { answers::with_fields(answer, accept) } else { answer }
    }
}

/// A [`Rejection`] in it keeps its status.
impl IntoResponse for Box<dyn std::error::Error + Send + Sync> {
    fn into_response(self) -> Response {
        match self.downcast::<Rejection>() {
            Ok(rejection) => rejection.into_response(),
            Err(error) => {
                log_rate_limited!(error, "handler failed: {error}");
                StatusCode(500).into_response()
            }
        }
    }
}

/// So that `?` works where a handler's error is a response.
impl From<Rejection> for tiny_http::Response<Body> {
    fn from(rejection: Rejection) -> Response {
        rejection.into_response()
    }
}
