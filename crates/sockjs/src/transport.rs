//! The ways in which a client gets frames.

use crate::Refusal;
use crate::payload::form_value;
use std::fmt;

/// A way in which a client gets frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A poll: one frame and a line feed.
    Xhr,
    /// A response that goes on until its limit; a frame is a line.
    XhrStreaming,
    /// An event stream (WHATWG HTML §9.2).
    EventSource,
    /// A page that goes on; a frame is a script.
    HtmlFile,
    /// A poll: one frame as an argument of the client's function.
    Jsonp,
    /// A WebSocket (RFC 6455): a frame is a text message.
    WebSocket,
}

impl Transport {
    /// All of them.
    pub const ALL: [Transport; 6] = [
        Transport::Xhr,
        Transport::XhrStreaming,
        Transport::EventSource,
        Transport::HtmlFile,
        Transport::Jsonp,
        Transport::WebSocket,
    ];

    /// The last part of its path.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Xhr => "xhr",
            Transport::XhrStreaming => "xhr_streaming",
            Transport::EventSource => "eventsource",
            Transport::HtmlFile => "htmlfile",
            Transport::Jsonp => "jsonp",
            Transport::WebSocket => "websocket",
        }
    }

    /// The Content-Type of its response; a WebSocket has none.
    pub fn content_type(self) -> Option<&'static str> {
        match self {
            Transport::Xhr | Transport::XhrStreaming | Transport::Jsonp => {
                Some("application/javascript; charset=UTF-8")
            }
            // Without a charset, which the suite would take for another type; it is UTF-8 anyway.
            Transport::EventSource => Some("text/event-stream"),
            Transport::HtmlFile => Some("text/html; charset=UTF-8"),
            Transport::WebSocket => None,
        }
    }

    /// Whether its response ends behind one frame.
    pub fn is_polling(self) -> bool {
        matches!(self, Transport::Xhr | Transport::Jsonp)
    }

    /// Whether it is a response that goes on, but has to end at its limit.
    pub fn is_streaming(self) -> bool {
        matches!(self, Transport::XhrStreaming | Transport::EventSource | Transport::HtmlFile)
    }
}

/// A transport, and what it needs to know to write a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// See [`Transport::Xhr`].
    Xhr,
    /// See [`Transport::XhrStreaming`].
    XhrStreaming,
    /// See [`Transport::EventSource`].
    EventSource,
    /// See [`Transport::HtmlFile`]; with the client's object.
    HtmlFile(Callback),
    /// See [`Transport::Jsonp`]; with the client's function.
    Jsonp(Callback),
    /// See [`Transport::WebSocket`].
    WebSocket,
}

impl Form {
    /// With what the query of the request says; it is without its `?`, and as it was sent.
    ///
    /// # Errors
    /// Where a callback is needed: what is wrong with it.
    pub fn new(transport: Transport, query: Option<&str>) -> Result<Form, Refusal> {
        Ok(match transport {
            Transport::Xhr => Form::Xhr,
            Transport::XhrStreaming => Form::XhrStreaming,
            Transport::EventSource => Form::EventSource,
            Transport::HtmlFile => Form::HtmlFile(Callback::in_query(query)?),
            Transport::Jsonp => Form::Jsonp(Callback::in_query(query)?),
            Transport::WebSocket => Form::WebSocket,
        })
    }

    /// Without what it needs to know.
    pub fn transport(&self) -> Transport {
        match self {
            Form::Xhr => Transport::Xhr,
            Form::XhrStreaming => Transport::XhrStreaming,
            Form::EventSource => Transport::EventSource,
            Form::HtmlFile(_) => Transport::HtmlFile,
            Form::Jsonp(_) => Transport::Jsonp,
            Form::WebSocket => Transport::WebSocket,
        }
    }
}

/// The name that a client has given its function: 1 to 32 of `a-zA-Z0-9-_.`, so that nothing else can be put into the
/// script. The client's have 11.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback(String);

/// The longest name; sockjs-node's bound as well.
const LONGEST: usize = 32;

impl Callback {
    /// Of that name.
    ///
    /// # Errors
    /// [`Refusal::CallbackRequired`] where there is none, [`Refusal::InvalidCallback`] for what is none.
    pub fn new(name: &str) -> Result<Callback, Refusal> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        match name {
            "" => Err(Refusal::CallbackRequired),
            name if name.len() <= LONGEST && name.bytes().all(allowed) => Ok(Callback(name.to_owned())),
            _ => Err(Refusal::InvalidCallback),
        }
    }

    /// The value of `c`, percent-decoded. Two of them are none: who reads the first and who reads the last would disagree.
    fn in_query(query: Option<&str>) -> Result<Callback, Refusal> {
        match form_value(query.unwrap_or_default().as_bytes(), "c") {
            Ok(Some(name)) => Callback::new(&name),
            Ok(None) => Err(Refusal::CallbackRequired),
            Err(()) => Err(Refusal::InvalidCallback),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks() {
        let named = |query: &str| match Form::new(Transport::Jsonp, Some(query)) {
            Ok(Form::Jsonp(callback)) => Ok(callback.to_string()),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        };
        assert_eq!(named("c=%63allback"), Ok("callback".into()));
        assert_eq!(named("t=1&c=_jp.a1b-2&x"), Ok("_jp.a1b-2".into()));
        assert_eq!(named(&format!("c={}", "x".repeat(32))), Ok("x".repeat(32)));
        for query in ["", "t=1", "c=", "c", "C=x", "callback=x"] {
            assert_eq!(named(query), Err(Refusal::CallbackRequired), "{query}");
        }
        let long = format!("c={}", "x".repeat(33));
        for query in ["c=%20", "c=*", "c=abc(", "c=abc%28", "c=a+b", "c=%00", "c=%ff", "c=\u{e9}", "c=a&c=a", &long] {
            assert_eq!(named(query), Err(Refusal::InvalidCallback), "{query}");
        }
        assert_eq!(Form::new(Transport::HtmlFile, None), Err(Refusal::CallbackRequired));
        for transport in Transport::ALL {
            assert_eq!(Form::new(transport, Some("c=f")).map(|form| form.transport()), Ok(transport));
        }
    }
}
