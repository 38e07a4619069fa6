//! Which URL below a service's prefix is what, and by which method.

use crate::Transport;

/// The longest session id, in bytes: the client chooses it, and we keep it.
pub const SESSION_ID: usize = 128;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'p> {
    /// The service itself: `Welcome to SockJS!`.
    Greeting,
    /// The page that old browsers load into a frame, for scripts of another origin.
    Iframe,
    /// What the service offers, and entropy.
    Info,
    /// A URL of a session. It is known by `session` alone; `server` is for balancers in front.
    Session {
        /// What balancers may look at.
        server: &'p str,
        /// The session's id, as it was sent.
        session: &'p str,
        /// What is to be done with it.
        endpoint: Endpoint,
    },
    /// A WebSocket without frames of SockJS, and without a session.
    RawWebSocket,
    /// OPTIONS, where the methods are these.
    Preflight {
        /// The value of Access-Control-Allow-Methods.
        allow: &'static str,
    },
    /// 405.
    MethodNotAllowed {
        /// The value of Allow.
        allow: &'static str,
    },
    /// 404.
    NotFound,
}

/// What a URL of a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// To get frames.
    Receive(Transport),
    /// `xhr_send`: the body is an array of messages; see [`crate::payload::xhr_send`].
    XhrSend,
    /// `jsonp_send`: the same in a form; see [`crate::payload::jsonp_send`].
    JsonpSend,
}

impl Endpoint {
    /// By the last part of its path.
    fn named(name: &str) -> Option<Endpoint> {
        Some(match name {
            "xhr_send" => Endpoint::XhrSend,
            "jsonp_send" => Endpoint::JsonpSend,
            name => Endpoint::Receive(Transport::ALL.into_iter().find(|transport| transport.name() == name)?),
        })
    }

    /// The method, and what is said of it.
    fn method(self) -> (&'static str, &'static str) {
        match self {
            Endpoint::Receive(Transport::Xhr | Transport::XhrStreaming) | Endpoint::XhrSend | Endpoint::JsonpSend => {
                ("POST", "OPTIONS, POST")
            }
            Endpoint::Receive(_) => ("GET", "OPTIONS, GET"),
        }
    }
}

/// What a service has besides XHR and event streams. What it does not have is 404, whatever the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Both WebSockets; on by default.
    pub websocket: bool,
    /// `jsonp` and `jsonp_send`. Off by default: answers are scripts that any page can load.
    pub jsonp: bool,
    /// `htmlfile`. Off by default: for browsers that nobody has any more.
    pub htmlfile: bool,
    /// The page for frames. Off by default: it runs a script of another origin as ours.
    pub iframe: bool,
}

impl Default for Features {
    fn default() -> Features {
        Features { websocket: true, jsonp: false, htmlfile: false, iframe: false }
    }
}

impl Features {
    /// Everything that SockJS has; what its own suite expects.
    pub const ALL: Features = Features { websocket: true, jsonp: true, htmlfile: true, iframe: true };

    fn has(self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Receive(Transport::WebSocket) => self.websocket,
            Endpoint::Receive(Transport::HtmlFile) => self.htmlfile,
            Endpoint::Receive(Transport::Jsonp) | Endpoint::JsonpSend => self.jsonp,
            Endpoint::Receive(_) | Endpoint::XhrSend => true,
        }
    }
}

/// What is asked for by a method and what stands behind the service's prefix, up to the query.
///
/// The path is as it was sent: **nothing of it is percent-decoded**, here or later. So `%2F` and `%2E` mean nothing, and two
/// spellings of an id are two sessions; clients send one, and its letters need no escape.
///
/// ```
/// use sockjs::{Endpoint, Features, Route, Transport, route};
///
/// let endpoint = Endpoint::Receive(Transport::Xhr);
/// assert_eq!(route("POST", "/000/x7/xhr", Features::default()), Route::Session { server: "000", session: "x7", endpoint });
/// assert_eq!(route("GET", "/000/x7/xhr", Features::default()), Route::MethodNotAllowed { allow: "OPTIONS, POST" });
/// assert_eq!(route("GET", "/", Features::default()), Route::Greeting);
/// ```
pub fn route<'p>(method: &str, path: &'p str, features: Features) -> Route<'p> {
    // HEAD is for who reads what a GET would get; it never opens a session.
    let page = |route| match method {
        "GET" | "HEAD" => route,
        _ => Route::MethodNotAllowed { allow: "GET, HEAD" },
    };
    if path.is_empty() || path == "/" {
        return page(Route::Greeting);
    }
    let Some(path) = path.strip_prefix('/') else { return Route::NotFound };
    let mut parts = path.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("info"), None, ..) => match method {
            "GET" | "HEAD" => Route::Info,
            "OPTIONS" => Route::Preflight { allow: "OPTIONS, GET" },
            _ => Route::MethodNotAllowed { allow: "OPTIONS, GET, HEAD" },
        },
        (Some("websocket"), None, ..) if features.websocket => match method {
            "GET" => Route::RawWebSocket,
            _ => Route::MethodNotAllowed { allow: "GET" },
        },
        (Some(name), None, ..) if features.iframe && is_iframe(name) => page(Route::Iframe),
        (Some(server), Some(session), Some(name), None) if is_part(server) && is_part(session) => {
            match Endpoint::named(name).filter(|endpoint| features.has(*endpoint)) {
                Some(_) if session.len() > SESSION_ID => Route::NotFound,
                Some(endpoint) => match endpoint.method() {
                    (wanted, _) if method == wanted => Route::Session { server, session, endpoint },
                    (_, allow) if method == "OPTIONS" => Route::Preflight { allow },
                    (_, allow) => Route::MethodNotAllowed { allow },
                },
                None => Route::NotFound,
            }
        }
        _ => Route::NotFound,
    }
}

/// `iframe[0-9-.a-z_]*.html`; clients put their version in between.
fn is_iframe(name: &str) -> bool {
    let version = name.strip_prefix("iframe").and_then(|rest| rest.strip_suffix(".html"));
    let allowed = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'.' | b'_');
    version.is_some_and(|version| version.bytes().all(allowed))
}

/// Anything but nothing, and dots; slashes end it.
fn is_part(part: &str) -> bool {
    !part.is_empty() && !part.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "OPTIONS, GET";
    const POST: &str = "OPTIONS, POST";

    fn all<'p>(method: &str, path: &'p str) -> Route<'p> {
        route(method, path, Features::ALL)
    }

    #[test]
    fn greeting() {
        for path in ["", "/"] {
            assert_eq!(all("GET", path), Route::Greeting);
            assert_eq!(all("HEAD", path), Route::Greeting);
            assert_eq!(all("POST", path), Route::MethodNotAllowed { allow: "GET, HEAD" });
        }
        for path in ["/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "a", "/info/", "/xhr", "/websocket/"] {
            for method in ["GET", "POST", "OPTIONS", "DELETE"] {
                assert_eq!(all(method, path), Route::NotFound, "{method} {path}");
            }
        }
    }

    #[test]
    fn iframes() {
        for name in ["", "-a", "-", "-0.1.2", "-0.1.2abc-dirty.2144", "..", "_"] {
            let path = format!("/iframe{name}.html");
            assert_eq!(all("GET", &path), Route::Iframe);
            assert_eq!(all("POST", &path), Route::MethodNotAllowed { allow: "GET, HEAD" });
            assert_eq!(route("GET", &path, Features::default()), Route::NotFound);
        }
        for name in ["iframe.htm", "iframe", "IFRAME.HTML", "IFRAME", "iframe.HTML", "iframe.xml", "iframe-/.html"] {
            assert_eq!(all("GET", &format!("/{name}")), Route::NotFound, "{name}");
        }
        for name in ["iframe-A.html", "iframe%2e.html", "iframe.html/", "iframexhtml", "iframe/.html", "xiframe.html"] {
            assert_eq!(all("GET", &format!("/{name}")), Route::NotFound, "{name}");
        }
    }

    #[test]
    fn info() {
        assert_eq!(all("GET", "/info"), Route::Info);
        assert_eq!(all("HEAD", "/info"), Route::Info);
        assert_eq!(all("OPTIONS", "/info"), Route::Preflight { allow: GET });
        assert_eq!(all("POST", "/info"), Route::MethodNotAllowed { allow: "OPTIONS, GET, HEAD" });
        assert_eq!(all("get", "/info"), Route::MethodNotAllowed { allow: "OPTIONS, GET, HEAD" });
    }

    #[test]
    fn endpoints_of_a_session() {
        let rows = [
            ("xhr", "POST", POST, Endpoint::Receive(Transport::Xhr), true),
            ("xhr_streaming", "POST", POST, Endpoint::Receive(Transport::XhrStreaming), true),
            ("xhr_send", "POST", POST, Endpoint::XhrSend, true),
            ("eventsource", "GET", GET, Endpoint::Receive(Transport::EventSource), true),
            ("htmlfile", "GET", GET, Endpoint::Receive(Transport::HtmlFile), false),
            ("jsonp", "GET", GET, Endpoint::Receive(Transport::Jsonp), false),
            ("jsonp_send", "POST", POST, Endpoint::JsonpSend, false),
            ("websocket", "GET", GET, Endpoint::Receive(Transport::WebSocket), true),
        ];
        for (name, wanted, allow, endpoint, by_default) in rows {
            let path = format!("/000/abc/{name}");
            let found = Route::Session { server: "000", session: "abc", endpoint };
            for method in ["GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE"] {
                let expected = match method {
                    method if method == wanted => found,
                    "OPTIONS" => Route::Preflight { allow },
                    _ => Route::MethodNotAllowed { allow },
                };
                assert_eq!(all(method, &path), expected, "{method} {path}");
                let expected = if by_default { expected } else { Route::NotFound };
                assert_eq!(route(method, &path, Features::default()), expected, "{method} {path}");
            }
        }
        for name in ["", "XHR", "xhr_", "xhr/", "xhr%73end", "chunking_test", "xhr?t=1"] {
            assert_eq!(all("POST", &format!("/a/a/{name}")), Route::NotFound, "{name}");
        }
    }

    #[test]
    fn servers_and_sessions_are_anything_without_dots() {
        let endpoint = Endpoint::Receive(Transport::Xhr);
        for (server, session) in
            [("a", "a"), ("_", "_"), ("1", "1"), ("abcdefgh_i-j%20", "abcdefg_i-j%20"), ("%2e", "é~%")]
        {
            let path = format!("/{server}/{session}/xhr");
            assert_eq!(all("POST", &path), Route::Session { server, session, endpoint });
        }
        for part in ["//", "/a./a", "/a/a.", "/./.", "/", "///", "/a/", "//a", "/a/a/a", "/../x"] {
            for method in ["GET", "POST"] {
                assert_eq!(all(method, &format!("{part}/xhr")), Route::NotFound, "{part}");
            }
        }
        let longest = "x".repeat(SESSION_ID);
        let path = format!("/a/{longest}/xhr");
        assert_eq!(all("POST", &path), Route::Session { server: "a", session: &longest, endpoint });
        for method in ["POST", "GET", "OPTIONS"] {
            assert_eq!(all(method, &format!("/a/{longest}x/xhr")), Route::NotFound);
        }
    }

    #[test]
    fn websockets_may_be_off() {
        let off = Features { websocket: false, ..Features::ALL };
        for path in ["/websocket", "/a/a/websocket"] {
            assert_eq!(route("GET", path, off), Route::NotFound);
            assert_eq!(route("POST", path, off), Route::NotFound);
        }
        assert_eq!(all("GET", "/websocket"), Route::RawWebSocket);
        assert_eq!(all("POST", "/websocket"), Route::MethodNotAllowed { allow: "GET" });
    }
}
