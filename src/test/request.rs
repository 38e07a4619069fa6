//! A request that a test makes.

use super::response::Response;

/// What answers requests.
pub(super) trait Ask {
    /// What Host says.
    fn host(&self) -> String;
    /// The answer to that request, head and body.
    fn ask(&self, request: &[u8]) -> Response;
}

/// A request of a [`Client`](super::Client) or a [`Server`](super::Server), to be sent.
///
/// ```
/// use handover::{Request, Router, test::Client};
///
/// let router = Router::new().post("/", |request: &mut Request| request.header("X-Color").map(str::to_owned));
/// let answer = Client::new(router).post("/").header("X-Color", "green").body("leaves").send();
/// assert_eq!(answer.text(), "green");
/// ```
#[must_use = "it is not sent before send()"]
pub struct RequestBuilder<'c> {
    to: &'c dyn Ask,
    line: String,
    /// Lines, each with its end.
    fields: String,
    has_host: bool,
    body: Option<Vec<u8>>,
}

impl<'c> RequestBuilder<'c> {
    pub(super) fn new(to: &'c dyn Ask, method: &str, target: &str) -> RequestBuilder<'c> {
        let line = format!("{method} {target} HTTP/1.1\r\n");
        // Its framing says that there is none (RFC 9110 §8.6).
        let body = matches!(method, "POST" | "PUT" | "PATCH").then(Vec::new);
        RequestBuilder { to, line, fields: String::new(), has_host: false, body }
    }

    /// A header field more, as it is given: what is no field is refused by the server's parser. Host is there if it is not
    /// said, and so is Content-Length where there is a body.
    pub fn header(mut self, name: &str, value: &str) -> RequestBuilder<'c> {
        self.has_host |= name.eq_ignore_ascii_case("host");
        self.fields.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// This body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> RequestBuilder<'c> {
        self.body = Some(body.into());
        self
    }

    /// This value as JSON, with its Content-Type. With the feature `json`, which is on.
    ///
    /// ```
    /// use handover::{Json, Rejection, Request, Router, test::Client};
    /// fn sum(request: &mut Request) -> Result<Json<u32>, Rejection> {
    ///     Ok(Json(request.json::<Vec<u32>>()?.iter().sum()))
    /// }
    /// let answer = Client::new(Router::new().post("/sum", sum)).post("/sum").json(&[1, 2, 3]).send();
    /// assert_eq!(answer.json::<u32>(), 6);
    /// ```
    ///
    /// # Panics
    /// A value that is no JSON.
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn json(self, value: &(impl serde::Serialize + ?Sized)) -> RequestBuilder<'c> {
        let body = serde_json::to_vec(value).expect("a value that can be JSON");
        self.header("Content-Type", "application/json").body(body)
    }

    /// These fields as a form, with its Content-Type; see the example of [`Request::form`](crate::Request::form). With the
    /// feature `form`, which is on.
    ///
    /// # Panics
    /// A value that is no form.
    #[cfg(feature = "form")]
    #[track_caller]
    pub fn form(self, fields: &(impl serde::Serialize + ?Sized)) -> RequestBuilder<'c> {
        let body = serde_urlencoded::to_string(fields).expect("a value that can be a form");
        self.header("Content-Type", "application/x-www-form-urlencoded").body(body)
    }

    /// Sends it, and waits for the answer.
    ///
    /// # Panics
    /// No answer, or one that is no HTTP/1.1.
    #[track_caller]
    pub fn send(self) -> Response {
        let host = if self.has_host { String::new() } else { format!("Host: {}\r\n", self.to.host()) };
        let length = self.body.as_ref().map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
        let mut request = format!("{}{host}{}{length}\r\n", self.line, self.fields).into_bytes();
        request.extend(self.body.unwrap_or_default());
        self.to.ask(&request)
    }
}
