//! A response as a test reads it.

use http1::chunked::Decoder;

/// A response, as a client gets it.
///
/// ```
/// use handover::{Json, Router, test::Client};
///
/// let client = Client::new(Router::new().get("/", |_| Json(["a", "b"])));
/// let answer = client.get("/").send();
/// assert_eq!(answer.status(), 200);
/// assert_eq!(answer.header("content-type"), Some("application/json"));
/// assert_eq!(answer.text(), r#"["a","b"]"#);
/// assert_eq!(answer.json::<Vec<String>>(), ["a", "b"]);
/// assert_eq!((answer.bytes().len(), answer.headers().len(), answer.is_complete()), (9, 3, true));
/// ```
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    complete: bool,
}

impl Response {
    /// Reads all that a server has sent for a request.
    #[track_caller]
    pub(super) fn read(mut bytes: &[u8], is_head: bool) -> Response {
        loop {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            let Some(end) = end else { panic!("no response: {:?}", String::from_utf8_lossy(bytes)) };
            let (head, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
            let Some(status) = status else { panic!("no status line: {head:?}") };
            if (100..200).contains(&status) && status != 101 {
                bytes = body;
                continue;
            }
            let field = |line: &str| {
                let (name, value) = line.split_once(": ").unwrap_or((line, ""));
                (name.to_owned(), value.to_owned())
            };
            let headers = lines.map(field).collect();
            let response = Response { status, headers, body: Vec::new(), complete: true };
            let has_none = is_head || matches!(status, 101 | 204 | 304);
            return if has_none { response } else { response.with_body(body) };
        }
    }

    fn with_body(self, bytes: &[u8]) -> Response {
        if self.header("Transfer-Encoding").is_some() {
            let (body, complete) = decode(bytes);
            return Response { body, complete, ..self };
        }
        let length = self.header("Content-Length").and_then(|length| length.parse::<usize>().ok());
        let all = length.unwrap_or(bytes.len());
        Response { body: bytes[..all.min(bytes.len())].to_vec(), complete: all <= bytes.len(), ..self }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of that field. Names ignore case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All fields, in order.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Panics
    /// A body that is no UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of UTF-8")
    }

    /// The body, read as JSON. With the feature `json`, which is on.
    ///
    /// # Panics
    /// A body that is no JSON, or another value.
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Whether the body ended as its head had said; a handler that fails while it pushes cuts it.
    ///
    /// ```
    /// use handover::{Body, Router, test::Client};
    /// let cut = |_: &mut handover::Request| Body::stream(|writer| {
    ///     writer.write_all(b"half")?;
    ///     Err(std::io::Error::other("the disk is gone"))
    /// });
    /// let answer = Client::new(Router::new().get("/", cut)).get("/").send();
    /// assert_eq!((answer.text(), answer.is_complete()), ("half", false));
    /// ```
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

/// What the chunks hold, and whether the last one is there.
fn decode(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut decoder, mut body) = (Decoder::default(), Vec::new());
    loop {
        match decoder.decode(bytes) {
            Ok(step) => {
                body.extend_from_slice(&bytes[step.data.clone()]);
                if step.done || step.consumed == 0 {
                    return (body, step.done);
                }
                bytes = &bytes[step.consumed..];
            }
            Err(_) => return (body, false),
        }
    }
}
