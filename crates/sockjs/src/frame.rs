//! Frames, and the form that each transport gives them.

use crate::{Callback, Form};
use std::fmt::Write as _;

/// What a client gets at a time.
///
/// ```
/// use sockjs::{Form, Frame};
///
/// let messages = ["a".to_owned(), "\u{2028}".to_owned()];
/// assert_eq!(Frame::Messages(&messages).text(), r#"a["a","\u2028"]"#);
/// let mut out = Vec::new();
/// Form::EventSource.push(Frame::Close { code: 3000, reason: "100%" }, &mut out);
/// assert_eq!(out, b"data: c[3000,\"100%25\"]\r\n\r\n");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'f> {
    /// `o`: the session is new.
    Open,
    /// `h`: nothing, so that what is in between does not take the connection for dead.
    Heartbeat,
    /// `a["…","…"]`: messages, in their order.
    Messages(&'f [String]),
    /// `c[3000,"Go away!"]`: the session is closed.
    Close {
        /// 1000, or 3000 to 4999 for applications.
        code: u16,
        /// In words.
        reason: &'f str,
    },
}

impl Frame<'_> {
    /// As it is on a WebSocket, and before a transport puts something around it.
    pub fn text(self) -> String {
        match self {
            Frame::Open => "o".to_owned(),
            Frame::Heartbeat => "h".to_owned(),
            Frame::Messages(messages) => {
                let mut text = String::with_capacity(messages.iter().map(|message| message.len() + 8).sum());
                for message in messages {
                    text.push_str(if text.is_empty() { "a[" } else { "," });
                    push_quoted(&mut text, message);
                }
                text.push_str(if text.is_empty() { "a[]" } else { "]" });
                text
            }
            Frame::Close { code, reason } => format!("c[{code},{}]", quote(reason)),
        }
    }
}

impl Form {
    /// What comes before the first frame, as a piece of its own; nothing for polls and WebSockets. It does not count for the
    /// response limit.
    pub fn prelude(&self) -> Option<Vec<u8>> {
        match self {
            Form::Xhr | Form::Jsonp(_) | Form::WebSocket => None,
            // Internet Explorer shows nothing of a response before it has 2 KiB.
            Form::XhrStreaming => Some([&[b'h'; 2048][..], b"\n"].concat()),
            // Opera lost the first line.
            Form::EventSource => Some(b"\r\n".to_vec()),
            Form::HtmlFile(callback) => Some(head(callback).into_bytes()),
        }
    }

    /// Appends a frame. What `out` has more after it is what counts for the response limit.
    pub fn push(&self, frame: Frame<'_>, out: &mut Vec<u8>) {
        let text = frame.text();
        match self {
            Form::WebSocket => out.extend_from_slice(text.as_bytes()),
            Form::Xhr | Form::XhrStreaming => {
                out.extend_from_slice(text.as_bytes());
                out.push(b'\n');
            }
            Form::EventSource => {
                out.extend_from_slice(b"data: ");
                for byte in text.bytes() {
                    match byte {
                        // The client runs decodeURI. JSON has escaped the others, and would have to go on doing so.
                        b'%' => out.extend_from_slice(b"%25"),
                        b'\r' => out.extend_from_slice(b"%0D"),
                        b'\n' => out.extend_from_slice(b"%0A"),
                        b'\0' => out.extend_from_slice(b"%00"),
                        byte => out.push(byte),
                    }
                }
                out.extend_from_slice(b"\r\n\r\n");
            }
            Form::HtmlFile(_) => {
                out.extend_from_slice(b"<script>\np(");
                // Or a message ends the script and begins another, which sockjs-node lets it.
                out.extend_from_slice(quote(&text).replace('<', "\\u003c").replace('/', "\\/").as_bytes());
                out.extend_from_slice(b");\n</script>\r\n");
            }
            Form::Jsonp(callback) => {
                // The comment is against bytes that a browser would take for a Flash file.
                out.extend_from_slice(format!("/**/{callback}({});\r\n", quote(&text)).as_bytes());
            }
        }
    }
}

/// A JSON string, with what browsers and proxies are known to change escaped as well: besides what JSON asks for,
/// `[\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufff0-\uffff]`.
///
/// The suite also asks for halves of surrogate pairs: a `str` has none, and whole pairs are characters that go as they are.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

fn push_quoted(out: &mut String, text: &str) {
    // It cannot fail for a string; the quotes are there whatever happens.
    let json = serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned());
    // The first byte of each that is to be escaped.
    if !json.bytes().any(|byte| matches!(byte, 0xe2 | 0xef)) {
        out.push_str(&json);
        return;
    }
    for char in json.chars() {
        match char {
            '\u{200c}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{ffff}' => {
                // Writing into a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            char => out.push(char),
        }
    }
}

/// The beginning of the page, padded: browsers show nothing before they have 1 KiB.
fn head(callback: &Callback) -> String {
    let head = format!(
        r#"<!doctype html>
<html><head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
</head><body><h2>Don't panic!</h2>
  <script>
    document.domain = document.domain;
    var c = parent.{callback};
    c.start();
    function p(d) {{c.message(d);}};
    window.onload = function() {{c.stop();}};
  </script>"#
    );
    format!("{head:<1036}\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSE: Frame<'_> = Frame::Close { code: 3000, reason: "Go away!" };

    fn messages(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn written(form: &Form, frame: Frame<'_>) -> String {
        let mut out = Vec::new();
        form.push(frame, &mut out);
        String::from_utf8(out).expect("text")
    }

    fn callback() -> Callback {
        Callback::new("callback").expect("a name")
    }

    #[test]
    fn frames() {
        assert_eq!(Frame::Open.text(), "o");
        assert_eq!(Frame::Heartbeat.text(), "h");
        assert_eq!(Frame::Messages(&messages(&["x"])).text(), "a[\"x\"]");
        assert_eq!(Frame::Messages(&messages(&["", "a\"b", "\\"])).text(), r#"a["","a\"b","\\"]"#);
        assert_eq!(Frame::Messages(&[]).text(), "a[]");
        assert_eq!(CLOSE.text(), "c[3000,\"Go away!\"]");
        assert_eq!(Frame::Close { code: 1000, reason: "\"\u{2028}\n" }.text(), r#"c[1000,"\"\u2028\n"]"#);
    }

    /// The expression of the suite, and JSON's own, for every character.
    #[test]
    fn each_character_is_escaped_or_goes_as_it_is() {
        for char in '\0'..=char::MAX {
            let number = u32::from(char);
            let escaped = match number {
                0x22 => "\\\"".to_owned(),
                0x5c => "\\\\".to_owned(),
                0x08 => "\\b".to_owned(),
                0x0c => "\\f".to_owned(),
                0x0a => "\\n".to_owned(),
                0x0d => "\\r".to_owned(),
                0x09 => "\\t".to_owned(),
                0..0x20 | 0x200c..=0x200f | 0x2028..=0x202f | 0x2060..=0x206f | 0xfff0..=0xffff => {
                    format!("\\u{number:04x}")
                }
                _ => char.to_string(),
            };
            assert_eq!(quote(&char.to_string()), format!("\"{escaped}\""));
        }
        assert_eq!(quote("é\u{2028}\u{1f600}x\u{ffff}"), "\"é\\u2028\u{1f600}x\\uffff\"");
    }

    #[test]
    fn xhr() {
        for form in [Form::Xhr, Form::XhrStreaming] {
            assert_eq!(written(&form, Frame::Open), "o\n");
            assert_eq!(written(&form, Frame::Messages(&messages(&["x", "y\n"]))), "a[\"x\",\"y\\n\"]\n");
            assert_eq!(written(&form, CLOSE), "c[3000,\"Go away!\"]\n");
        }
        assert_eq!(Form::Xhr.prelude(), None);
        assert_eq!(Form::XhrStreaming.prelude(), Some(("h".repeat(2048) + "\n").into_bytes()));
    }

    #[test]
    fn event_streams() {
        let form = Form::EventSource;
        assert_eq!(form.prelude(), Some(b"\r\n".to_vec()));
        assert_eq!(written(&form, Frame::Open), "data: o\r\n\r\n");
        let odd = messages(&["  \0\n\r ", "100%25", "é"]);
        assert_eq!(written(&form, Frame::Messages(&odd)), "data: a[\"  \\u0000\\n\\r \",\"100%2525\",\"é\"]\r\n\r\n");
    }

    #[test]
    fn pages() {
        let form = Form::HtmlFile(callback());
        let head = String::from_utf8(form.prelude().expect("a head")).expect("text");
        assert!(head.len() > 1024);
        assert!(
            head.starts_with("<!doctype html>\n<html><head>\n  <meta ") && head.trim_end().ends_with("  </script>")
        );
        assert!(head.contains("\n    var c = parent.callback;\n    c.start();\n    function p(d) {c.message(d);};\n"));
        assert!(head.ends_with(" \r\n\r\n"));
        let long = Form::HtmlFile(Callback::new(&"x".repeat(32)).expect("a name"));
        assert_eq!(long.prelude().map(|head| head.len()), Some(head.len()));

        assert_eq!(written(&form, Frame::Open), "<script>\np(\"o\");\n</script>\r\n");
        let text = written(&form, Frame::Messages(&messages(&["x"])));
        assert_eq!(text, "<script>\np(\"a[\\\"x\\\"]\");\n</script>\r\n");
        let text = written(&form, Frame::Messages(&messages(&["</script><script>alert(1)//<!--"])));
        let inside = r#"\u003c\/script>\u003cscript>alert(1)\/\/\u003c!--"#;
        assert_eq!(text, format!("<script>\np(\"a[\\\"{inside}\\\"]\");\n</script>\r\n"));
    }

    #[test]
    fn calls_of_a_function() {
        let form = Form::Jsonp(callback());
        assert_eq!(form.prelude(), None);
        assert_eq!(written(&form, Frame::Open), "/**/callback(\"o\");\r\n");
        assert_eq!(written(&form, Frame::Messages(&messages(&["x"]))), "/**/callback(\"a[\\\"x\\\"]\");\r\n");
        assert_eq!(written(&form, CLOSE), "/**/callback(\"c[3000,\\\"Go away!\\\"]\");\r\n");
    }

    #[test]
    fn websockets() {
        assert_eq!(Form::WebSocket.prelude(), None);
        assert_eq!(written(&Form::WebSocket, Frame::Messages(&messages(&["x"]))), "a[\"x\"]");
    }
}
