//! Forms: of a body, and of a query.

use super::{Rejection, Request};
use serde::de::DeserializeOwned;

/// What a form in a body is called (RFC 9110 has no word of it; the HTML standard does).
const FORM: &str = "application/x-www-form-urlencoded";

impl Request {
    /// Fields that a form, or a query that is read as one, may have: 1,000. What has more is 413 and not read.
    ///
    /// ```
    /// let fields = "a=1&".repeat(handover::Request::MAX_FORM_FIELDS + 1);
    /// let head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n";
    /// let mut request = handover::Request::from_head(head).expect("a head").with_body(fields);
    /// let rejection = request.form::<Vec<(String, String)>>().expect_err("too many");
    /// assert_eq!(rejection.to_string(), "the form has more than 1000 fields");
    /// ```
    pub const MAX_FORM_FIELDS: usize = 1000;

    /// The body, read as a form: `a=1&b=2`, where `+` is a space and what is no UTF-8 is replaced. The Content-Type has to be
    /// `application/x-www-form-urlencoded`; a form with files (`multipart/form-data`) is not read. With the feature `form`,
    /// which is on.
    ///
    /// ```
    /// use handover::{Rejection, Request, Router, test::Client};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Login { name: String, stay: Option<bool> }
    ///
    /// fn login(request: &mut Request) -> Result<String, Rejection> {
    ///     let Login { name, stay } = request.form()?;
    ///     Ok(format!("hello {name}{}\n", if stay == Some(true) { ", you may stay" } else { "" }))
    /// }
    ///
    /// let client = Client::new(Router::new().post("/login", login));
    /// let answer = client.post("/login").form(&[("name", "ada b"), ("stay", "true")]).send();
    /// assert_eq!(answer.text(), "hello ada b, you may stay\n");
    /// ```
    ///
    /// # Errors
    /// 415 for another Content-Type or none, or a body that is compressed (RFC 9110 §15.5.16), 413 for more than [`MAX_FORM_FIELDS`](Request::MAX_FORM_FIELDS)
    /// fields or a body beyond the limit, 400 for a field that is missing or another value, with its name.
    pub fn form<T: DeserializeOwned>(&mut self) -> Result<T, Rejection> {
        let found = self.header("Content-Type");
        let essence = found.and_then(|found| found.split(';').next()).unwrap_or_default().trim_ascii();
        if !essence.eq_ignore_ascii_case(FORM) {
            return Err(Rejection::media_type(found, FORM));
        }
        read("form", &self.whole_body()?)
    }

    /// The query, read as [`form`](Request::form) reads a body; without a query there are no fields. With the feature
    /// `form`, which is on.
    ///
    /// ```
    /// use handover::{Rejection, Request, Router, test::Client};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Page { from: u32, #[serde(default)] search: String }
    ///
    /// fn list(request: &mut Request) -> Result<String, Rejection> {
    ///     let Page { from, search } = request.query_as()?;
    ///     Ok(format!("{search:?} from {from}\n"))
    /// }
    ///
    /// let client = Client::new(Router::new().get("/items", list));
    /// assert_eq!(client.get("/items?from=20&search=a+b").send().text(), "\"a b\" from 20\n");
    /// let answer = client.get("/items?from=x").send();
    /// assert_eq!((answer.status(), answer.text()), (400, "the query is not what is wanted: from: invalid digit found in string\n"));
    /// ```
    ///
    /// # Errors
    /// 400 for a field that is missing or another value, 413 for too many fields.
    pub fn query_as<T: DeserializeOwned>(&self) -> Result<T, Rejection> {
        read("query", self.query().unwrap_or_default().as_bytes())
    }
}

fn read<T: DeserializeOwned>(what: &str, fields: &[u8]) -> Result<T, Rejection> {
    // Empty ones are none. Counted before anything is made of them.
    let count = fields.split(|&byte| byte == b'&').filter(|field| !field.is_empty());
    if count.take(Request::MAX_FORM_FIELDS + 1).count() > Request::MAX_FORM_FIELDS {
        let most = Request::MAX_FORM_FIELDS;
        return Err(Rejection::new(413, format_args!("the {what} has more than {most} fields")));
    }
    let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(fields));
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner());
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        Rejection::new(400, format_args!("the {what} is not what is wanted: {place}{inner}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Person {
        name: String,
        age: Option<u8>,
    }

    fn form(content_type: &str, body: &str) -> Result<Person, (u16, String)> {
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\n\r\n");
        let mut request = Request::from_head(head.as_bytes()).expect("a head").with_body(body);
        request.form().map_err(|rejection| (rejection.status().0, rejection.to_string()))
    }

    #[test]
    fn a_form_is_read_or_says_which_field_is_wrong() {
        let of = |body: &str| form("Application/x-www-form-urlencoded; charset=utf-8", body);
        assert_eq!(of("name=a+b%26c&&age=7"), Ok(Person { name: "a b&c".into(), age: Some(7) }));
        assert_eq!(of("name=%ff"), Ok(Person { name: "\u{fffd}".into(), age: None }));
        for (body, says) in [
            ("age=7", "missing field `name`"),
            ("name=a&name=b", "duplicate field `name`"),
            ("name=a&age=300", "age: number too large to fit in target type"),
        ] {
            assert_eq!(of(body), Err((400, format!("the form is not what is wanted: {says}"))));
        }
    }

    #[test]
    fn a_form_of_another_type_or_with_too_many_fields_is_refused() {
        let (status, says) = form("multipart/form-data; boundary=x", "").expect_err("another type");
        assert_eq!((status, says.contains("multipart/form-data")), (415, true), "{says}");
        let fields = |count: usize| "name=a&".repeat(count);
        let (status, _) = form(FORM, &fields(Request::MAX_FORM_FIELDS)).expect_err("the same field again and again");
        assert_eq!(status, 400);
        let (status, says) = form(FORM, &fields(10_000)).expect_err("too many");
        assert_eq!((status, says.as_str()), (413, "the form has more than 1000 fields"));
    }
}
