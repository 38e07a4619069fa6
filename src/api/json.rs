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

impl Request {
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
    /// 415 for another Content-Type or none (RFC 9110 §15.5.16), 400 for what is no JSON or another value, with line,
    /// column and the path to it. A body beyond the limit is 413, before the handler is called or behind it.
    pub fn json<T: DeserializeOwned>(&mut self) -> Result<T, Rejection> {
        let found = self.header("Content-Type");
        if !found.is_some_and(is_json) {
            return Err(Rejection::media_type(found, "application/json"));
        }
        let body = self.whole_body()?;
        let mut deserializer = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            wrong(&path, error.inner())
        })?;
        deserializer.end().map_err(|error| wrong(".", &error))?;
        Ok(value)
    }
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
        let (status, deep) = of(&format!("{{\"lines\": {}", "[".repeat(100_000)));
        assert!(status == 400 && deep.len() < 200, "{deep}");
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
    fn a_value_that_is_no_json_is_a_500() {
        assert_eq!(Json(BTreeMap::from([((1, 2), 3)])).into_response().status_code().0, 500);
    }
}
