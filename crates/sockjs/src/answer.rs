//! What is answered without a session, and the fields of what is answered with one.

use crate::{Endpoint, Features, Refusal, Route, Transport};
use http1::date::Date;
use http1::list_elements;
use std::borrow::Cow;

/// A year in seconds: for how long what never changes is kept by clients.
const YEAR: u64 = 31_536_000;

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=UTF-8");
const NO_CACHE: (&str, &str) = ("Cache-Control", "no-store, no-cache, no-transform, must-revalidate, max-age=0");

/// The longest value of a cookie, or of Access-Control-Request-Headers, that is sent back.
const ECHOED: usize = 1024;

/// A field of a response: its name and its value.
pub type Field = (&'static str, Cow<'static, str>);

/// A response, but for what a server says itself: Date, Content-Length, Connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The fields, each name once.
    pub fields: Vec<Field>,
    /// The body; for HEAD its length counts.
    pub body: Cow<'static, [u8]>,
}

impl Answer {
    fn new(status: u16, body: &'static str) -> Answer {
        Answer { status, fields: Vec::new(), body: Cow::Borrowed(body.as_bytes()) }
    }

    fn with(mut self, fields: impl IntoIterator<Item = Field>) -> Answer {
        self.fields.extend(fields);
        self
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// What of a request's fields counts here; each as it was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'r> {
    /// Origin.
    pub origin: Option<&'r str>,
    /// Access-Control-Request-Headers.
    pub request_headers: Option<&'r str>,
    /// Cookie.
    pub cookie: Option<&'r str>,
    /// If-None-Match.
    pub if_none_match: Option<&'r str>,
}

/// Whose pages may use a service from other origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// These: `https://example.org`, compared byte for byte. `*` stands for all but `null`, which is what files, sandboxed
    /// frames and redirects have, and has to be listed itself.
    pub fn new<S: Into<String>>(origins: impl IntoIterator<Item = S>) -> Origins {
        Origins(origins.into_iter().map(Into::into).collect())
    }

    /// Whether that one is among them.
    pub fn allow(&self, origin: &str) -> bool {
        // What no browser sends does not come into a response's field.
        let is_sound = !origin.is_empty() && origin.bytes().all(|byte| byte.is_ascii_graphic());
        is_sound && self.0.iter().any(|one| one == origin || (one == "*" && origin != "null"))
    }
}

/// A SockJS service: what its answers depend on besides the request.
///
/// ```
/// use sockjs::{Asked, Features, Origins, Service, route};
///
/// let service = Service { origins: Origins::new(["https://example.org"]), ..Service::default() };
/// let asked = Asked { origin: Some("https://example.org"), ..Asked::default() };
/// let answer = service.answer(route("GET", "/info", service.features), asked, 4_000_000_000, 0).expect("no session");
/// assert_eq!(answer.status, 200);
/// assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("https://example.org"));
/// assert_eq!(&*answer.body, br#"{"websocket":true,"cookie_needed":false,"origins":["*:*"],"entropy":4000000000}"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it has; see there.
    pub features: Features,
    /// Whose pages may use it; nobody's of another origin by default.
    pub origins: Origins,
    /// Whether the cookie JSESSIONID is set on the URLs of sessions, for balancers that go by it; off by default.
    pub cookie: bool,
    /// Where the page for frames finds sockjs-client: an absolute path or URL.
    pub script_url: String,
}

impl Default for Service {
    fn default() -> Service {
        Service {
            features: Features::default(),
            origins: Origins::default(),
            cookie: false,
            script_url: "/sockjs.min.js".to_owned(),
        }
    }
}

impl Service {
    /// The whole answer, unless the route is a session's or a WebSocket's. `entropy` has to be fresh and unpredictable, `now`
    /// is in seconds since 1970.
    pub fn answer(&self, route: Route<'_>, asked: Asked<'_>, entropy: u32, now: u64) -> Option<Answer> {
        Some(match route {
            Route::Greeting => Answer::new(200, "Welcome to SockJS!\n").with(fixed([TEXT])),
            Route::Iframe => self.iframe(asked, now),
            Route::Info => self.info(asked, entropy),
            Route::Preflight { allow } => self.preflight(allow, asked, now),
            // Without a type: the suite wants none.
            Route::MethodNotAllowed { allow } => Answer::new(405, "").with(fixed([("Allow", allow)])),
            Route::NotFound => Answer::new(404, "Not found.\n").with(fixed([TEXT])),
            Route::Session { .. } | Route::RawWebSocket => return None,
        })
    }

    fn iframe(&self, asked: Asked<'_>, now: u64) -> Answer {
        let page = self.page();
        let etag = etag(page.as_bytes());
        // Weak comparison (RFC 9110 §13.1.2).
        let is_it = |one: &[u8]| one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == etag.as_bytes();
        let is_known = asked.if_none_match.is_some_and(|value| list_elements(value.as_bytes()).any(is_it));
        let kept = kept_for_a_year(now).into_iter().chain([("ETag", etag.into())]);
        if is_known {
            return Answer::new(304, "").with(kept);
        }
        let answer = Answer::new(200, "").with(fixed([("Content-Type", "text/html; charset=UTF-8")])).with(kept);
        Answer { body: Cow::Owned(page.into_bytes()), ..answer }
    }

    /// The bytes that the suite asks for.
    fn page(&self) -> String {
        let url = self.script_url.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
        format!(
            r#"<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script src="{url}"></script>
  <script>
    document.domain = document.domain;
    SockJS.bootstrap_iframe();
  </script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>"#
        )
    }

    fn info(&self, asked: Asked<'_>, entropy: u32) -> Answer {
        // `origins` is a constant of the protocol, which no client looks at.
        let json = format!(
            r#"{{"websocket":{},"cookie_needed":{},"origins":["*:*"],"entropy":{entropy}}}"#,
            self.features.websocket, self.cookie
        );
        let answer = Answer::new(200, "")
            .with(fixed([("Content-Type", "application/json; charset=UTF-8"), NO_CACHE]))
            .with(self.cors(asked));
        Answer { body: Cow::Owned(json.into_bytes()), ..answer }
    }

    fn preflight(&self, allow: &'static str, asked: Asked<'_>, now: u64) -> Answer {
        let max_age = YEAR.to_string();
        Answer::new(204, "")
            .with(fixed([("Access-Control-Allow-Methods", allow)]))
            .with([("Access-Control-Max-Age", max_age.into())])
            .with(kept_for_a_year(now))
            .with(self.cors(asked))
    }

    /// The head of a receiver's response, which frames follow; for a WebSocket what goes into its 101.
    pub fn receiving(&self, transport: Transport, asked: Asked<'_>) -> Answer {
        let (status, content_type) = match transport.content_type() {
            Some(content_type) => (200, Some(("Content-Type", content_type))),
            None => (101, None),
        };
        let cors = match transport {
            Transport::Xhr | Transport::XhrStreaming | Transport::EventSource => self.cors(asked),
            // Scripts, pages and WebSockets go by no such fields.
            Transport::HtmlFile | Transport::Jsonp | Transport::WebSocket => Vec::new(),
        };
        Answer::new(status, "")
            .with(fixed(content_type))
            .with(fixed(content_type.map(|_| NO_CACHE)))
            .with(fixed(transport.is_streaming().then_some(("X-Accel-Buffering", "no"))))
            .with(fixed(content_type.map(|_| ("X-Content-Type-Options", "nosniff"))))
            .with(cors)
            .with(content_type.and_then(|_| self.session_cookie(asked)))
    }

    /// That what a client has sent was taken: 204, or 200 `ok` for JSONP. `None` for what sends nothing.
    pub fn taken(&self, endpoint: Endpoint, asked: Asked<'_>) -> Option<Answer> {
        let answer = match endpoint {
            // With a type: Firefox takes it for XML otherwise, and complains.
            Endpoint::XhrSend => Answer::new(204, "").with(self.cors(asked)),
            // Konqueror made something odd of a 204.
            Endpoint::JsonpSend => Answer::new(200, "ok"),
            Endpoint::Receive(_) => return None,
        };
        Some(answer.with(fixed([TEXT, NO_CACHE])).with(self.session_cookie(asked)))
    }

    /// That a request of a session is refused, with the reason as the body.
    pub fn refused(&self, refusal: Refusal, asked: Asked<'_>) -> Answer {
        // A client that hears of it may be of another origin.
        Answer::new(refusal.status(), refusal.text())
            .with(fixed([TEXT, NO_CACHE]))
            .with(self.cors(asked))
            .with(self.session_cookie(asked))
    }

    /// The fields that let a page of another origin read the answer (Fetch §3.3). Without an Origin everybody may, without
    /// credentials; one that is not allowed gets none of them. Caches are told in each case that it depends on it.
    pub fn cors(&self, asked: Asked<'_>) -> Vec<Field> {
        let mut fields = fixed([("Vary", "Origin")]);
        match asked.origin {
            None => fields.push(("Access-Control-Allow-Origin", "*".into())),
            Some(origin) if self.origins.allow(origin) => {
                fields.push(("Access-Control-Allow-Origin", origin.to_owned().into()));
                fields.push(("Access-Control-Allow-Credentials", "true".into()));
            }
            Some(_) => return fields,
        }
        // Names in a list, and nothing else.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, \t".contains(&byte);
        if let Some(names) = asked.request_headers
            && !names.is_empty()
            && names.len() <= ECHOED
            && names.bytes().all(allowed)
        {
            fields.push(("Access-Control-Allow-Headers", names.to_owned().into()));
        }
        fields
    }

    /// The cookie, if it is switched on: the client's own value again, or `dummy`. A value that is none (RFC 6265 §4.1.1) is
    /// taken for none.
    fn session_cookie(&self, asked: Asked<'_>) -> Option<Field> {
        let allowed = |byte| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
        let is_value = |value: &&str| !value.is_empty() && value.len() <= ECHOED && value.bytes().all(allowed);
        let mut pairs = asked.cookie.unwrap_or_default().split(';').map(str::trim);
        let value = pairs.find_map(|pair| pair.strip_prefix("JSESSIONID=")).filter(is_value).unwrap_or("dummy");
        self.cookie.then(|| ("Set-Cookie", format!("JSESSIONID={value}; path=/").into()))
    }
}

/// Whether a GET of a WebSocket asks for one, by its Upgrade and its Connection. What the handshake needs besides is not
/// SockJS's.
///
/// # Errors
/// [`Refusal::NoUpgrade`] or [`Refusal::NotConnected`].
pub fn check_upgrade(upgrade: Option<&str>, connection: Option<&str>) -> Result<(), Refusal> {
    let has = |value: Option<&str>, name: &str| {
        list_elements(value.unwrap_or_default().as_bytes()).any(|one| one.eq_ignore_ascii_case(name.as_bytes()))
    };
    match (has(upgrade, "websocket"), has(connection, "upgrade")) {
        (false, _) => Err(Refusal::NoUpgrade),
        (true, false) => Err(Refusal::NotConnected),
        (true, true) => Ok(()),
    }
}

fn fixed(fields: impl IntoIterator<Item = (&'static str, &'static str)>) -> Vec<Field> {
    fields.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect()
}

fn kept_for_a_year(now: u64) -> [Field; 2] {
    [
        ("Cache-Control", format!("public, max-age={YEAR}").into()),
        ("Expires", Date(now.saturating_add(YEAR)).to_string().into()),
    ]
}

/// The same for the same bytes in each process and build: FNV-1a, which nobody has to withstand.
fn etag(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("\"{hash:016x}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route;

    const NOW: u64 = 784_111_777;

    fn service() -> Service {
        Service {
            features: Features::ALL,
            origins: Origins::new(["https://one.example", "null"]),
            cookie: true,
            script_url: "/lib/sockjs.js".to_owned(),
        }
    }

    fn from(origin: &str) -> Asked<'_> {
        Asked { origin: Some(origin), ..Asked::default() }
    }

    fn get(path: &str, asked: Asked<'_>) -> Answer {
        service().answer(route("GET", path, Features::ALL), asked, 7, NOW).expect("no session")
    }

    fn text(answer: &Answer) -> &str {
        std::str::from_utf8(&answer.body).expect("text")
    }

    fn names(answer: &Answer) -> Vec<&str> {
        answer.fields.iter().map(|(name, _)| *name).collect()
    }

    #[track_caller]
    fn is_cors(answer: &Answer, origin: &str) {
        assert_eq!(answer.field("Access-Control-Allow-Origin"), Some(origin));
        assert_eq!(answer.field("Access-Control-Allow-Credentials"), (origin != "*").then_some("true"));
        assert_eq!(answer.field("Vary"), Some("Origin"));
    }

    #[track_caller]
    fn is_not_cached(answer: &Answer) {
        let wanted = "no-store, no-cache, no-transform, must-revalidate, max-age=0";
        assert_eq!(answer.field("Cache-Control"), Some(wanted));
        assert!(answer.field("Expires").is_none() && answer.field("Last-Modified").is_none());
    }

    #[track_caller]
    fn is_cached(answer: &Answer) {
        assert_eq!(answer.field("Cache-Control"), Some("public, max-age=31536000"));
        assert_eq!(answer.field("Expires"), Some("Mon, 06 Nov 1995 08:49:37 GMT"));
        assert_eq!(answer.field("Last-Modified"), None);
    }

    #[test]
    fn greeting() {
        for path in ["", "/"] {
            let answer = get(path, from("https://one.example"));
            assert_eq!((answer.status, text(&answer)), (200, "Welcome to SockJS!\n"));
            assert_eq!(answer.fields, [("Content-Type", "text/plain; charset=UTF-8".into())]);
        }
    }

    #[test]
    fn not_found_and_not_allowed() {
        assert_eq!(get("/a", Asked::default()).status, 404);
        let answer = get("/000/a/xhr", Asked::default());
        assert_eq!((answer.status, text(&answer)), (405, ""));
        assert_eq!(answer.fields, fixed([("Allow", "OPTIONS, POST")]));
    }

    #[test]
    fn iframes() {
        let answer = get("/iframe-1.6.html", Asked::default());
        assert_eq!(answer.status, 200);
        let head = "<!DOCTYPE html>\n<html>\n<head>\n  <meta http-equiv=\"X-UA-Compatible\" content=\"IE=edge\" />\n  \
            <meta http-equiv=\"Content-Type\" content=\"text/html; charset=UTF-8\" />\n  \
            <script src=\"/lib/sockjs.js\"></script>\n  <script>\n    document.domain = document.domain;\n    \
            SockJS.bootstrap_iframe();\n  </script>\n</head>\n<body>\n  <h2>Don't panic!</h2>\n  \
            <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>\n</body>\n</html>";
        assert_eq!(text(&answer), head);
        assert_eq!(names(&answer), ["Content-Type", "Cache-Control", "Expires", "ETag"]);
        assert_eq!(answer.field("Content-Type"), Some("text/html; charset=UTF-8"));
        is_cached(&answer);
        let etag = answer.field("ETag").expect("a tag").to_owned();
        for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            let answer = get("/iframe.html", Asked { if_none_match: Some(&known), ..Asked::default() });
            assert_eq!((answer.status, text(&answer)), (304, ""), "{known}");
            assert_eq!(names(&answer), ["Cache-Control", "Expires", "ETag"]);
        }
        for other in ["", "\"x\"", "x", &etag[1..]] {
            let answer = get("/iframe.html", Asked { if_none_match: Some(other), ..Asked::default() });
            assert_eq!(answer.status, 200, "{other}");
        }
        let odd = Service { script_url: "/a?b&c\"><script>".to_owned(), ..service() };
        assert!(odd.page().contains("<script src=\"/a?b&amp;c&quot;>&lt;script>\"></script>"));
        assert_ne!(super::etag(odd.page().as_bytes()), etag);
    }

    #[test]
    fn info() {
        let answer = get("/info", from("https://one.example"));
        assert_eq!(answer.status, 200);
        assert_eq!(text(&answer), r#"{"websocket":true,"cookie_needed":true,"origins":["*:*"],"entropy":7}"#);
        assert_eq!(answer.field("Content-Type"), Some("application/json; charset=UTF-8"));
        assert_eq!(answer.field("Set-Cookie"), None);
        is_not_cached(&answer);
        is_cors(&answer, "https://one.example");
        let off = Service { features: Features { websocket: false, ..Features::ALL }, cookie: false, ..service() };
        let answer = off.answer(Route::Info, Asked::default(), u32::MAX, NOW).expect("no session");
        assert_eq!(
            text(&answer),
            r#"{"websocket":false,"cookie_needed":false,"origins":["*:*"],"entropy":4294967295}"#
        );
        is_cors(&answer, "*");
    }

    #[test]
    fn preflights() {
        for (path, allow) in
            [("/info", "OPTIONS, GET"), ("/a/a/xhr", "OPTIONS, POST"), ("/a/a/eventsource", "OPTIONS, GET")]
        {
            for origin in ["https://one.example", "null"] {
                let asked = Asked { request_headers: Some("a, b, c"), cookie: Some("JSESSIONID=x"), ..from(origin) };
                let route = route("OPTIONS", path, Features::ALL);
                let answer = service().answer(route, asked, 0, NOW).expect("no session");
                assert_eq!((answer.status, text(&answer)), (204, ""));
                assert_eq!(answer.field("Access-Control-Allow-Methods"), Some(allow));
                assert_eq!(answer.field("Access-Control-Max-Age"), Some("31536000"));
                assert_eq!(answer.field("Access-Control-Allow-Headers"), Some("a, b, c"));
                assert_eq!(answer.field("Set-Cookie"), None);
                is_cached(&answer);
                is_cors(&answer, origin);
            }
        }
    }

    #[test]
    fn whose_pages_may_read() {
        let allowed = |asked| service().cors(asked);
        assert_eq!(allowed(from("https://two.example")), fixed([("Vary", "Origin")]));
        for odd in ["", "https://one.example\r\nX: y", "https://ONE.example", "https://one.example/", "*", "é"] {
            assert_eq!(allowed(from(odd)), fixed([("Vary", "Origin")]), "{odd:?}");
        }
        let all = Origins::new(["*"]);
        assert!(all.allow("https://one.example") && !all.allow("null") && !all.allow("a b") && !all.allow("a\n"));
        assert!(Origins::new(["*", "null"]).allow("null") && !Origins::default().allow("x"));
        for odd in ["", "a\r\nb", "a:b", "é", &"x".repeat(1025)] {
            let asked = Asked { request_headers: Some(odd), ..from("null") };
            assert!(allowed(asked).iter().all(|(name, _)| *name != "Access-Control-Allow-Headers"), "{odd:?}");
        }
    }

    #[test]
    fn receivers() {
        let cases = [
            (Transport::Xhr, "application/javascript; charset=UTF-8", true, false),
            (Transport::XhrStreaming, "application/javascript; charset=UTF-8", true, true),
            (Transport::EventSource, "text/event-stream", true, true),
            (Transport::HtmlFile, "text/html; charset=UTF-8", false, true),
            (Transport::Jsonp, "application/javascript; charset=UTF-8", false, false),
        ];
        for (transport, content_type, cors, streams) in cases {
            let answer = service().receiving(transport, from("https://one.example"));
            assert_eq!((answer.status, text(&answer)), (200, ""));
            assert_eq!(answer.field("Content-Type"), Some(content_type));
            assert_eq!(answer.field("Access-Control-Allow-Origin").is_some(), cors);
            assert_eq!(answer.field("X-Accel-Buffering").is_some(), streams);
            assert_eq!(answer.field("Set-Cookie"), Some("JSESSIONID=dummy; path=/"));
            is_not_cached(&answer);
        }
        let answer = service().receiving(Transport::WebSocket, Asked::default());
        assert_eq!((answer.status, answer.fields.len()), (101, 0));
    }

    #[test]
    fn what_was_sent() {
        let answer = service().taken(Endpoint::XhrSend, from("null")).expect("it sends");
        assert_eq!((answer.status, text(&answer)), (204, ""));
        assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=UTF-8"));
        is_cors(&answer, "null");
        is_not_cached(&answer);
        let answer = service().taken(Endpoint::JsonpSend, Asked::default()).expect("it sends");
        assert_eq!((answer.status, text(&answer)), (200, "ok"));
        assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=UTF-8"));
        assert_eq!(answer.field("Set-Cookie"), Some("JSESSIONID=dummy; path=/"));
        is_not_cached(&answer);
        assert_eq!(service().taken(Endpoint::Receive(Transport::Xhr), Asked::default()), None);
    }

    #[test]
    fn what_is_refused() {
        let rows = [
            (Refusal::PayloadExpected, 500, "Payload expected."),
            (Refusal::BrokenJson, 500, "Broken JSON encoding."),
            (Refusal::CallbackRequired, 500, "\"callback\" parameter required"),
            (Refusal::InvalidCallback, 500, "invalid \"callback\" parameter"),
            (Refusal::NoUpgrade, 400, "Can \"Upgrade\" only to \"WebSocket\"."),
            (Refusal::NotConnected, 400, "\"Connection\" must be \"Upgrade\"."),
            (Refusal::TooLarge, 413, "Payload too large."),
            (Refusal::TooManyMessages, 413, "Too many messages."),
            (Refusal::UnknownSession, 404, "Unknown session."),
        ];
        for (refusal, status, body) in rows {
            let answer = service().refused(refusal, from("https://one.example"));
            assert_eq!((answer.status, text(&answer)), (status, body));
            is_cors(&answer, "https://one.example");
        }
    }

    #[test]
    fn upgrades() {
        assert_eq!(check_upgrade(None, None), Err(Refusal::NoUpgrade));
        assert_eq!(check_upgrade(Some("h2c"), Some("Upgrade")), Err(Refusal::NoUpgrade));
        assert_eq!(check_upgrade(Some("WebSocket"), Some("close")), Err(Refusal::NotConnected));
        assert_eq!(check_upgrade(Some("WebSocket"), None), Err(Refusal::NotConnected));
        assert_eq!(check_upgrade(Some("WebSocket"), Some("keep-alive, Upgrade")), Ok(()));
        assert_eq!(check_upgrade(Some("h2c, websocket"), Some("upgrade")), Ok(()));
    }

    #[test]
    fn cookies() {
        let set = |cookie| {
            let answer = service().receiving(Transport::Xhr, Asked { cookie, ..Asked::default() });
            answer.field("Set-Cookie").expect("it is on").to_owned()
        };
        assert_eq!(set(Some("JSESSIONID=abcdef")), "JSESSIONID=abcdef; path=/");
        assert_eq!(set(Some("a=b;  JSESSIONID=x.node-1 ; c")), "JSESSIONID=x.node-1; path=/");
        for odd in [
            "",
            "a=b",
            "JSESSIONID",
            "JSESSIONID=",
            "jsessionid=x",
            "JSESSIONID=a b",
            "JSESSIONID=a\r\nb",
            "XJSESSIONID=x",
        ] {
            assert_eq!(set(Some(odd)), "JSESSIONID=dummy; path=/", "{odd:?}");
        }
        let off = Service { cookie: false, ..service() };
        assert_eq!(off.receiving(Transport::Xhr, Asked::default()).field("Set-Cookie"), None);
        assert_eq!(off.taken(Endpoint::XhrSend, Asked::default()).expect("it sends").field("Set-Cookie"), None);
    }
}
