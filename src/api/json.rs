//! Bodies of JSON, in both directions.

use super::body::typed;
use super::{IntoResponse, Rejection, Request, Response};
use crate::logging::rate_limit::log_rate_limited;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tiny_http::StatusCode;

/// An answer in JSON, with the Content-Type `application/json` (RFC 8259). A value that is none, as a map whose keys are no
/// text, is a logged 500. With the feature `json`, which is on.
///
/// ```
/// use handover::{Json, Router, test::Client};
///
/// #[derive(serde::Serialize)]
/// struct Item { name: &'static str }
///
/// let client = Client::new(Router::new().get("/", |_| Json(Item { name: "bolt" })));
/// assert_eq!(client.get("/").send().text(), r#"{"name":"bolt"}"#);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => typed(bytes.into(), "application/json"),
            Err(error) => {
                log_rate_limited!(error, "the handler's response cannot be sent: it is no JSON: {error}");
                StatusCode(500).into_response()
            }
        }
    }
}

/// Up to here the path to what is wrong is said. To remember it takes another 3 KiB of stack a level.
const DEEPEST_PATH: usize = Request::MAX_JSON_DEPTH / 2;

impl Request {
    /// Levels in which arrays and objects of a body in JSON may stand in each other: 64. Each takes stack, of which a worker has
    /// 256 KiB: in a program without optimisation up to 2.7 KiB, and behind its end is the end of the process. Who needs more
    /// reads [`body_bytes`](Request::body_bytes), and says [`worker_stack`](crate::Config::worker_stack).
    ///
    /// ```
    /// let deep = "[".repeat(handover::Request::MAX_JSON_DEPTH + 1);
    /// let head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\r\n";
    /// let mut request = handover::Request::from_head(head).expect("a head").with_body(deep);
    /// let rejection = request.json::<serde_json::Value>().expect_err("too deep");
    /// assert_eq!(rejection.to_string(), "the body has arrays and objects in more than 64 levels");
    /// ```
    pub const MAX_JSON_DEPTH: usize = 64;

    /// The body, read as JSON. The Content-Type has to be `application/json`, or what ends in `+json` (RFC 6839). With the
    /// feature `json`, which is on.
    ///
    /// ```
    /// use handover::{Rejection, Request, Router, test::Client};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Item { name: String, price: u32 }
    ///
    /// fn add(request: &mut Request) -> Result<String, Rejection> {
    ///     let item: Item = request.json()?;
    ///     Ok(format!("{} for {}\n", item.name, item.price))
    /// }
    ///
    /// let client = Client::new(Router::new().post("/items", add));
    /// let item = serde_json::json!({ "name": "bolt", "price": "cheap" });
    /// let answer = client.post("/items").json(&item).send();
    /// assert_eq!(answer.status(), 400);
    /// assert!(answer.text().starts_with("the body is not what is wanted: price: invalid type: string \"cheap\""));
    /// ```
    ///
    /// # Errors
    /// 415 for another Content-Type or none, or a body that is compressed (RFC 9110 §15.5.16), 400 for what is no JSON or
    /// another value, with line, column and the path to it. A body beyond the limit is 413, before the handler is called or behind it.
    pub fn json<T: DeserializeOwned>(&mut self) -> Result<T, Rejection> {
        let found = self.header("Content-Type");
        if !found.is_some_and(is_json) {
            return Err(Rejection::media_type(found, "application/json"));
        }
        let body = self.whole_body()?;
        let depth = depth(&body);
        if depth > Request::MAX_JSON_DEPTH {
            let most = Request::MAX_JSON_DEPTH;
            return Err(Rejection::new(
                400,
                format_args!("the body has arrays and objects in more than {most} levels"),
            ));
        }
        serde_json::from_slice(&body).map_err(|error| match error.classify() {
            Category::Data if depth <= DEEPEST_PATH => with_path::<T>(&body, &error),
            _ => wrong(".", &error),
        })
    }
}

/// The same error with the path to it, for which all is read again: to remember the way costs who sends what is wanted nothing.
fn with_path<T: DeserializeOwned>(body: &[u8], error: &serde_json::Error) -> Rejection {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => wrong(&error.path().to_string(), error.inner()),
        Ok(_) => wrong(".", error),
    }
}

/// In how many levels arrays and objects stand in each other, up to where it is no JSON.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn wrong(path: &str, error: &serde_json::Error) -> Rejection {
    match (error.classify(), path) {
        (Category::Syntax | Category::Eof | Category::Io, _) => {
            Rejection::new(400, format_args!("the body is no JSON: {error}"))
        }
        (Category::Data, ".") => Rejection::new(400, format_args!("the body is not what is wanted: {error}")),
        (Category::Data, path) => Rejection::new(400, format_args!("the body is not what is wanted: {path}: {error}")),
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim_ascii();
    let (kind, subtype) = essence.split_once('/').unwrap_or_default();
    let suffix = subtype.rsplit_once('+').map_or(subtype, |(_, suffix)| suffix);
    kind.eq_ignore_ascii_case("application") && suffix.eq_ignore_ascii_case("json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[expect(dead_code)]
        lines: Vec<Line>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        #[expect(dead_code)]
        count: u32,
    }

    fn refused(content_type: &str, body: &str) -> (u16, String) {
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\n{content_type}\r\n");
        let mut request = Request::from_head(head.as_bytes()).expect("a head").with_body(body);
        let rejection = request.json::<Order>().expect_err(body);
        (rejection.status().0, rejection.to_string())
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let of = |body: &str| refused("Content-Type: application/json; charset=utf-8\r\n", body);
        let data = "the body is not what is wanted: ";
        for (body, says) in [
            (
                "{\n \"lines\": [{\"count\": 1}, {\"count\": -2}]}",
                "lines[1].count: invalid value: integer `-2`, expected u32 at line 2 column 37",
            ),
            ("[]", "invalid length 0, expected struct Order with 1 element at line 1 column 2"),
            (
                "{\"lines\": [], \"a\\nb\": 1}",
                "a\u{fffd}b: unknown field `a\u{fffd}b`, expected `lines` at line 1 column 20",
            ),
        ] {
            assert_eq!(of(body), (400, format!("{data}{says}")));
        }
        for (body, says) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\"lines\": []} x", "trailing characters at line 1 column 15"),
            ("{\"lines\": [}", "expected value at line 1 column 12"),
        ] {
            assert_eq!(of(body), (400, format!("the body is no JSON: {says}")));
        }
        for deep in ["[".repeat(100_000), "[{\"a\":".repeat(40), format!("{}5", "[\"\\\"[\",[".repeat(40))] {
            let says = "the body has arrays and objects in more than 64 levels";
            assert_eq!(of(&format!("{{\"lines\": {deep}")), (400, says.to_owned()));
        }
        let (_, long) = of(&format!("{{\"{}\": 1}}", "x".repeat(10_000)));
        assert_eq!(long.chars().count(), super::super::rejection::LONGEST);
    }

    #[test]
    fn another_type_is_refused_by_its_name() {
        let wanted = "the Content-Type has to be application/json, and ";
        assert_eq!(refused("", "{}"), (415, format!("{wanted}there is none")));
        for other in ["text/json", "application/jsonp", "application/x-www-form-urlencoded", "json", "text/a+json"] {
            assert_eq!(refused(&format!("Content-Type: {other}\r\n"), "{}"), (415, format!("{wanted}it is {other:?}")));
        }
        for json in
            ["application/json", "Application/JSON;charset=x", "application/vnd.api+json", "application/json ;a"]
        {
            assert!(is_json(json), "{json}");
        }
    }

    #[test]
    fn levels_are_counted_as_a_parser_meets_them() {
        for (body, levels) in [
            ("", 0),
            ("1", 0),
            ("[]", 1),
            ("[{}]", 2),
            ("[[],[[]],{}]", 3),
            ("\"[[[\"", 0),
            ("[\"\\\"[\"]", 1),
            ("]]][", 1),
        ] {
            assert_eq!(depth(body.as_bytes()), levels, "{body}");
        }
    }

    /// It took 271 KiB of stack for 100 levels, of which a worker has 256: the process was gone, and its clients with it.
    #[test]
    fn what_is_nested_as_deep_as_may_be_is_read_and_refused_on_the_stack_of_a_worker() {
        #[derive(Debug, Deserialize)]
        struct Tree {
            #[expect(dead_code)]
            next: Option<Box<Tree>>,
        }
        let stack = crate::Config::default().worker_stack;
        let deep = || {
            let arrays = |levels: usize| ("[".repeat(levels), "]".repeat(levels));
            let objects = |levels: usize| ("{\"next\":".repeat(levels), "}".repeat(levels));
            // Behind the second of these the path is said too.
            let [most, path] = [Request::MAX_JSON_DEPTH, DEEPEST_PATH];
            for (begins, ends) in [arrays(most), objects(most), arrays(path), objects(path)] {
                let head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\r\n";
                let request = |inside: &str| {
                    Request::from_head(head).expect("a head").with_body(format!("{begins}{inside}{ends}"))
                };
                let inside = if begins.starts_with('[') { "" } else { "null" };
                assert!(request(inside).json::<serde_json::Value>().is_ok());
                assert_eq!(request(inside).json::<Tree>().is_ok(), inside == "null");
                assert!(request("5").json::<Tree>().is_err());
            }
        };
        std::thread::Builder::new().stack_size(stack).spawn(deep).expect("a thread").join().expect("no panic");
    }

    /// It was said to be no JSON, in line 1, column 1.
    #[test]
    fn a_body_that_is_compressed_is_refused_by_its_coding() {
        let says = (415, "a body with Content-Encoding \"gzip\" is not decoded here".to_owned());
        assert_eq!(refused("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", "\x1f"), says);
        let (status, _) = refused("Content-Type: application/json\r\nContent-Encoding: Identity\r\n", "{}");
        assert_eq!(status, 400);
    }

    #[test]
    fn a_value_that_is_no_json_is_a_500() {
        assert_eq!(Json(BTreeMap::from([((1, 2), 3)])).into_response().status_code().0, 500);
    }
}
