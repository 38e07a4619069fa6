//! Answers that handlers make all the time: with header fields, HTML, another place to go to.

use super::body::typed;
use super::{Body, IntoResponse, Response};
use crate::logging::rate_limit::log_rate_limited;
use http1::response::{InvalidResponse, is_valid_field};
use percent_encoding::{AsciiSet, utf8_percent_encode};
use tiny_http::{Header, StatusCode};

/// A field, if there can be one: the name a token, the value ASCII without control characters.
fn field(name: &str, value: &str) -> Option<Header> {
    let header = Header::from_bytes(name, value).ok();
    header.filter(|_| is_valid_field(name.as_bytes(), value.as_bytes()))
}

/// These fields instead of those of the same names. One that can be none is the handler's mistake: a 500.
pub(super) fn with_fields<N: AsRef<str>, V: AsRef<str>>(
    response: Response,
    fields: impl IntoIterator<Item = (N, V)>,
) -> Response {
    let mut own = Vec::new();
    for (name, value) in fields {
        let Some(header) = field(name.as_ref(), value.as_ref()) else {
            let wrong = InvalidResponse::Field(name.as_ref().to_owned());
            let allowed = "allowed is a token, and ASCII without control characters";
            log_rate_limited!(error, "the handler's response cannot be sent: {wrong}, {allowed}");
            return StatusCode(500).into_response();
        };
        own.push(header);
    }
    let (status, mut headers) = (response.status_code(), response.headers().to_vec());
    let mut body = response.into_reader();
    headers.append(&mut body.take_fields());
    // Each Set-Cookie is a field by itself (RFC 9110 §5.3), and what a layer's answer hangs on does not change what its handler's
    // does (§12.5.5): a cache that is not told of one of them gives somebody what is another's.
    headers.retain(|there| {
        let is_replaced = own.iter().any(|header: &Header| header.field == there.field);
        !is_replaced || there.field.equiv("Set-Cookie") || there.field.equiv("Vary")
    });
    headers.append(&mut own);
    body.into_response_with(status.0, headers)
}

/// Fields instead of those of the same names that the answer has, but for Set-Cookie and Vary, of which all stay. A name that is no
/// token, or a value that is not ASCII or has a control character, is a logged 500, and never a second response. What
/// frames a message (Content-Length, Transfer-Encoding, Connection, Upgrade, Trailer) is the server's, and left out.
///
/// ```
/// use handover::IntoResponse;
/// let answer = ([("Content-Type", "text/css"), ("Cache-Control", "max-age=60")], "p { color: red }").into_response();
/// assert_eq!(answer.headers().len(), 2);
/// let split = ([("Location", "/a\r\nSet-Cookie: a=b")], "").into_response();
/// assert_eq!((split.status_code().0, split.headers().len()), (500, 0));
/// ```
impl<N: AsRef<str>, V: AsRef<str>, T: IntoResponse, const COUNT: usize> IntoResponse for ([(N, V); COUNT], T) {
    fn into_response(self) -> Response {
        with_fields(self.1.into_response(), self.0)
    }
}

/// As for an array.
impl<N: AsRef<str>, V: AsRef<str>, T: IntoResponse> IntoResponse for (Vec<(N, V)>, T) {
    fn into_response(self) -> Response {
        with_fields(self.1.into_response(), self.0)
    }
}

impl<N: AsRef<str>, V: AsRef<str>, T: IntoResponse, const COUNT: usize> IntoResponse
    for (StatusCode, [(N, V); COUNT], T)
{
    fn into_response(self) -> Response {
        with_fields((self.0, self.2).into_response(), self.1)
    }
}

/// HTML: text or bytes with the Content-Type `text/html; charset=utf-8`. Nothing of it is escaped.
///
/// ```
/// use handover::{Html, Router, test::Client};
/// let router = Router::new().get("/", |_| Html("<!doctype html><title>hello</title>"));
/// let answer = Client::new(router).get("/").send();
/// assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Html<T>(pub T);

impl<T: Into<Body>> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        typed(self.0.into(), "text/html; charset=utf-8")
    }
}

/// Sends the client to another place. What of it is not ASCII is percent-encoded (RFC 3987 §3.1), and all else is the
/// handler's to encode: a location that a client has named leads anywhere (`//elsewhere`). What is no field value, as one with
/// a line end, is a logged 500.
///
/// ```
/// use handover::{Redirect, Request, Router, test::Client};
/// let router = Router::new().post("/items", |_: &mut Request| Redirect::to("/items/1"));
/// let answer = Client::new(router).post("/items").send();
/// assert_eq!((answer.status(), answer.header("location")), (303, Some("/items/1")));
/// ```
#[derive(Clone, Debug)]
pub struct Redirect {
    status: u16,
    location: String,
}

impl Redirect {
    /// To be asked for by GET, whatever this was: 303 (RFC 9110 §15.4.4), the answer to a form. See the example
    /// [above](Redirect).
    pub fn to(location: impl Into<String>) -> Redirect {
        Redirect { status: 303, location: location.into() }
    }

    /// For this time, by the same method and with the same body: 307 (RFC 9110 §15.4.8). Otherwise as in the example
    /// [above](Redirect).
    pub fn temporary(location: impl Into<String>) -> Redirect {
        Redirect { status: 307, location: location.into() }
    }

    /// For good, by the same method and with the same body: 308 (RFC 9110 §15.4.9). Otherwise as in the example
    /// [above](Redirect).
    pub fn permanent(location: impl Into<String>) -> Redirect {
        Redirect { status: 308, location: location.into() }
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        let location = utf8_percent_encode(&self.location, &AsciiSet::EMPTY).to_string();
        with_fields(StatusCode(self.status).into_response(), [("Location", location)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(response: &Response) -> Vec<(String, String)> {
        let text = |header: &Header| (header.field.to_string(), header.value.to_string());
        response.headers().iter().map(text).collect()
    }

    #[test]
    fn what_is_no_field_is_a_500_and_no_second_response() {
        for (name, value) in [
            ("A", "b\r\nC: d"),
            ("A", "b\n"),
            ("A", "b\0"),
            ("A", "\u{e9}"),
            ("A B", "c"),
            ("A:", "c"),
            ("", "c"),
            ("A\r\nB", "c"),
            ("\u{e9}", "c"),
        ] {
            let response = ([("X", "y"), (name, value)], "body").into_response();
            assert_eq!((response.status_code().0, fields(&response)), (500, Vec::new()), "{name:?}: {value:?}");
        }
        assert_eq!(Redirect::to("/a\r\nSet-Cookie: a=b").into_response().status_code().0, 500);
    }

    /// Whoever put a name in it had 500 for some users and not for others.
    #[test]
    fn a_redirect_to_what_is_not_ascii_is_encoded() {
        for (location, encoded) in
            [("/users/J\u{fc}rgen?a=\u{20ac}", "/users/J%C3%BCrgen?a=%E2%82%AC"), ("/a%20b?c#d e", "/a%20b?c#d e")]
        {
            let response = Redirect::to(location).into_response();
            assert_eq!(fields(&response), [("Location".to_owned(), encoded.to_owned())]);
        }
    }

    #[test]
    fn a_field_takes_the_place_of_those_of_its_name_and_no_cookie_or_vary_is_lost() {
        let inner =
            (StatusCode(201), [("X-A", "1"), ("X-B", "2"), ("Set-Cookie", "a=1"), ("Vary", "Accept-Encoding")], "body");
        let outer =
            (vec![("x-a", "3"), ("x-a", "4"), ("set-cookie", "b=2"), ("Vary", "Origin")], inner).into_response();
        assert_eq!(outer.status_code().0, 201);
        let wanted = [
            ("X-B", "2"),
            ("Set-Cookie", "a=1"),
            ("Vary", "Accept-Encoding"),
            ("x-a", "3"),
            ("x-a", "4"),
            ("set-cookie", "b=2"),
            ("Vary", "Origin"),
        ];
        assert_eq!(fields(&outer), wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(outer.into_reader().content_type, Some("text/plain; charset=utf-8"));
    }
}
