//! Messages that clients send: the body of a request, or a message of a WebSocket.
//!
//! Messages are strings. sockjs-node and sockjs-tornado also hand on numbers, objects and whatever else stands in the array,
//! as values of their language; clients never send any, since SockJS speaks of strings as WebSocket does. To us a message is
//! text, and what text `1.0` or `{}` would be is nothing to guess: a payload with anything else is refused as a whole, with
//! what both answer where there is no array. So nothing nested is ever read, however deep it is.

use crate::Refusal;
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::error::Category;
use std::borrow::Cow;
use std::fmt;

/// What is taken in one request or one message of a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many messages; 1024 by default.
    pub messages: usize,
    /// So many bytes, as they come; 128 KiB by default. Messages are never longer than what they come as.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { messages: 1024, bytes: 128 << 10 }
    }
}

/// The messages in the body of an `xhr_send`, whatever its Content-Type: a JSON array of strings. None are fine.
///
/// A half of a surrogate pair (`\ud800`), which JavaScript's strings may have and Rust's cannot, becomes U+FFFD, as it does
/// in what a browser sends by WebSocket or by a form.
///
/// ```
/// use sockjs::Refusal;
/// use sockjs::payload::{Limits, xhr_send};
///
/// assert_eq!(xhr_send(br#"["a","b"]"#, Limits::default()), Ok(vec!["a".to_owned(), "b".to_owned()]));
/// assert_eq!(xhr_send(b"", Limits::default()), Err(Refusal::PayloadExpected));
/// assert_eq!(xhr_send(br#"["a"#, Limits::default()), Err(Refusal::BrokenJson));
/// ```
///
/// # Errors
/// Whatever is no such array, or beyond a limit; nothing of it is to be delivered then.
pub fn xhr_send(body: &[u8], limits: Limits) -> Result<Vec<String>, Refusal> {
    if body.len() > limits.bytes {
        return Err(Refusal::TooLarge);
    }
    array(std::str::from_utf8(body).map_err(|_| Refusal::BrokenJson)?, limits)
}

/// The messages in the body of a `jsonp_send`: the same array, in a form the value of `d`, else as it is.
///
/// # Errors
/// As [`xhr_send`]; also where a form has no `d`, or two.
pub fn jsonp_send(content_type: Option<&str>, body: &[u8], limits: Limits) -> Result<Vec<String>, Refusal> {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return xhr_send(body, limits);
    }
    if body.len() > limits.bytes {
        return Err(Refusal::TooLarge);
    }
    match form_value(body, "d") {
        Ok(Some(value)) => array(&value, limits),
        Ok(None) => Err(Refusal::PayloadExpected),
        Err(()) => Err(Refusal::BrokenJson),
    }
}

/// The messages in a text message of a WebSocket: an array, or one JSON string. Nothing is none.
///
/// # Errors
/// What is neither, or beyond a limit; the connection is to be closed with [`Refusal::close_code`].
pub fn websocket_message(text: &str, limits: Limits) -> Result<Vec<String>, Refusal> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.len() > limits.bytes {
        return Err(Refusal::TooLarge);
    }
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('"') {
        return array(text, limits);
    }
    if limits.messages == 0 {
        return Err(Refusal::TooManyMessages);
    }
    let message: String = serde_json::from_str(&whole_surrogates(text)).map_err(|error| refusal(&error))?;
    Ok(vec![message])
}

fn array(text: &str, limits: Limits) -> Result<Vec<String>, Refusal> {
    if text.is_empty() {
        return Err(Refusal::PayloadExpected);
    }
    let text = whole_surrogates(text);
    let mut found = Found { messages: Vec::new(), limit: limits.messages, is_over: false };
    let mut json = serde_json::Deserializer::from_str(&text);
    match found.deserialize(&mut json).and_then(|()| json.end()) {
        Ok(()) => Ok(found.messages),
        Err(_) if found.is_over => Err(Refusal::TooManyMessages),
        Err(error) => Err(refusal(&error)),
    }
}

fn refusal(error: &serde_json::Error) -> Refusal {
    match error.classify() {
        // It is JSON as far as it was read, but not what is wanted.
        Category::Data => Refusal::PayloadExpected,
        Category::Syntax | Category::Eof | Category::Io => Refusal::BrokenJson,
    }
}

/// An array of strings, which is read no further than the limit.
struct Found {
    messages: Vec<String>,
    limit: usize,
    is_over: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Found {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Found {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(message) = elements.next_element::<String>()? {
            if self.messages.len() == self.limit {
                self.is_over = true;
                return Err(A::Error::custom("too many messages"));
            }
            self.messages.push(message);
        }
        Ok(())
    }
}

/// JSON in which each half of a surrogate pair that is alone is an escaped U+FFFD. Outside of strings a backslash is broken
/// JSON whatever follows, so none has to be told from the others.
fn whole_surrogates(json: &str) -> Cow<'_, str> {
    if !json.contains("\\ud") && !json.contains("\\uD") {
        return Cow::Borrowed(json);
    }
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        // Without the check `+` would be a digit to it.
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let mut out = String::with_capacity(json.len());
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = json[at..].find('\\') {
        at += found;
        let length = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push_str(&json[copied..at]);
                out.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            // A backslash behind this one is escaped by it.
            _ => 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        at += length;
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// The value of a name in `application/x-www-form-urlencoded`: `+` is a space, and a `%` that escapes nothing is itself, as
/// WHATWG URL §5.1 has it.
///
/// # Errors
/// Two of them, or no UTF-8.
pub(crate) fn form_value(form: &[u8], name: &str) -> Result<Option<String>, ()> {
    let form = std::str::from_utf8(form).map_err(drop)?;
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8().map(Cow::into_owned).map_err(drop)
    };
    let mut value = None;
    for pair in form.split('&') {
        let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key).as_deref() == Ok(name) {
            let before = value.replace(decoded(text)?);
            if before.is_some() {
                return Err(());
            }
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { messages: 3, bytes: 60 };
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

    fn sent(body: &[u8]) -> Result<Vec<String>, Refusal> {
        xhr_send(body, LIMITS)
    }

    fn texts(texts: &[&str]) -> Result<Vec<String>, Refusal> {
        Ok(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn xhr_send_takes_an_array_of_strings() {
        assert_eq!(sent(b"[]"), texts(&[]));
        assert_eq!(sent(br#"["a"]"#), texts(&["a"]));
        assert_eq!(sent(b" [ \"a\" ,\r\n\t\"\" ] "), texts(&["a", ""]));
        assert_eq!(sent(br#"["  \u0000\n\r "]"#), texts(&["  \0\n\r "]));
        assert_eq!(sent("[\"\u{e9}\u{10ffff}\"]".as_bytes()), texts(&["\u{e9}\u{10ffff}"]));
        assert_eq!(sent(b""), Err(Refusal::PayloadExpected));
        for broken in [
            "[\"x",
            "[",
            " ",
            "x",
            "[\"a\",]",
            "[\"a\"] x",
            "[\"a\"][]",
            "[\"a\nb\"]",
            "['a']",
            "[\"\\x\"]",
            "\u{feff}[]",
        ] {
            assert_eq!(sent(broken.as_bytes()), Err(Refusal::BrokenJson), "{broken:?}");
        }
        assert_eq!(sent(b"[\"\xff\"]"), Err(Refusal::BrokenJson));
        assert_eq!(sent(b"[\"\xed\xa0\x80\"]"), Err(Refusal::BrokenJson));
    }

    #[test]
    fn all_of_its_elements_are_strings_or_none_is_taken() {
        for other in ["null", "1", "1.5", "true", "{}", "[]", "[\"a\"]", "{\"a\":\"b\"}"] {
            for body in [format!("[{other}]"), format!("[\"a\",{other}]"), format!("[\"a\",{other},\"b\"]")] {
                assert_eq!(sent(body.as_bytes()), Err(Refusal::PayloadExpected), "{body}");
            }
        }
        for body in ["{}", "null", "true", "7", "\"a\"", "{\"d\":[]}"] {
            assert_eq!(sent(body.as_bytes()), Err(Refusal::PayloadExpected), "{body}");
        }
    }

    #[test]
    fn what_is_cut_anywhere_is_broken() {
        let body = "[\"a\\n\\ud83d\\ude00\",\"\u{e9}\"]".as_bytes();
        assert!(sent(body).is_ok());
        for end in 1..body.len() {
            assert_eq!(sent(&body[..end]), Err(Refusal::BrokenJson), "{end}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(sent(br#"["a","b","c"]"#), texts(&["a", "b", "c"]));
        assert_eq!(sent(br#"["a","b","c","d"]"#), Err(Refusal::TooManyMessages));
        assert_eq!(sent(br#"["a","b","c","d"#), Err(Refusal::BrokenJson));
        let longest = format!("[\"{}\"]", "x".repeat(56));
        assert_eq!(sent(longest.as_bytes()), texts(&[&"x".repeat(56)]));
        assert_eq!(sent(format!("{longest} ").as_bytes()), Err(Refusal::TooLarge));
        assert_eq!(jsonp_send(FORM, "d".repeat(61).as_bytes(), LIMITS), Err(Refusal::TooLarge));
        assert_eq!(websocket_message(&" ".repeat(61), LIMITS), Err(Refusal::TooLarge));
        let none = Limits { messages: 0, ..LIMITS };
        assert_eq!(websocket_message("\"a\"", none), Err(Refusal::TooManyMessages));
        assert_eq!(xhr_send(b"[]", none), texts(&[]));
    }

    #[test]
    fn depth_is_nothing() {
        let limits = Limits { messages: 10, bytes: 1 << 20 };
        for open in ["[", "{\"a\":", "[\"a\",[", "[{"] {
            let bomb = open.repeat(100_000);
            assert_eq!(xhr_send(bomb.as_bytes(), limits), Err(Refusal::PayloadExpected), "{open}");
            assert_eq!(websocket_message(&bomb, limits), Err(Refusal::PayloadExpected), "{open}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_a_replacement() {
        let read = |text: &str| sent(format!("[\"{text}\"]").as_bytes());
        assert_eq!(read(r"\ud83d\ude00\uD83D\uDE00"), texts(&["\u{1f600}\u{1f600}"]));
        assert_eq!(read(r"a\ud800"), texts(&["a\u{fffd}"]));
        assert_eq!(read(r"\ud800b"), texts(&["\u{fffd}b"]));
        assert_eq!(read(r"\udc00\ud800"), texts(&["\u{fffd}\u{fffd}"]));
        assert_eq!(read(r"\ud800\ud83d\ude00"), texts(&["\u{fffd}\u{1f600}"]));
        assert_eq!(read(r"\ud800\n"), texts(&["\u{fffd}\n"]));
        assert_eq!(read(r"\\ud800"), texts(&[r"\ud800"]));
        assert_eq!(read("\\\\\u{e9}\\ud800"), texts(&["\\\u{e9}\u{fffd}"]));
        for broken in [r"\ud8", r"\ud8zz", r"\ud800\", r"\ud80", r"\ud+00"] {
            assert_eq!(read(broken), Err(Refusal::BrokenJson), "{broken}");
        }
        assert_eq!(websocket_message(r#""\ud800""#, LIMITS), texts(&["\u{fffd}"]));
    }

    #[test]
    fn jsonp_send_reads_a_form() {
        let read = |body: &str| jsonp_send(FORM, body.as_bytes(), LIMITS);
        assert_eq!(read("d=%5B%22x%22%5D"), texts(&["x"]));
        assert_eq!(read("d=[%22a+b%2b%22]"), texts(&["a b+"]));
        assert_eq!(read("t=1&d=%5B%5D&x"), texts(&[]));
        assert_eq!(read("%64=%5B%22x%22%5D"), texts(&["x"]));
        assert_eq!(read("d=[\"100%\"]"), texts(&["100%"]));
        assert_eq!(read("d=%5B%22x"), Err(Refusal::BrokenJson));
        assert_eq!(read("d=%5B%22%ff%22%5D"), Err(Refusal::BrokenJson));
        assert_eq!(read("d=[]&d=[]"), Err(Refusal::BrokenJson));
        for body in ["", "d=", "d", "p=p", "=[]", "d=1", "D=[]", "[\"x\"]"] {
            assert_eq!(read(body), Err(Refusal::PayloadExpected), "{body}");
        }
        for form in ["application/x-www-form-urlencoded; charset=UTF-8", "Application/X-WWW-Form-URLencoded ;x"] {
            assert_eq!(jsonp_send(Some(form), b"d=[]", LIMITS), texts(&[]));
        }
        for other in [None, Some("text/plain"), Some("text/plain; charset=UTF-8"), Some(""), Some("T")] {
            assert_eq!(jsonp_send(other, br#"["%61bc"]"#, LIMITS), texts(&["%61bc"]));
            assert_eq!(jsonp_send(other, b"", LIMITS), Err(Refusal::PayloadExpected));
            assert_eq!(jsonp_send(other, b"d=[]", LIMITS), Err(Refusal::BrokenJson));
        }
    }

    #[test]
    fn a_websocket_sends_an_array_or_a_string() {
        let read = |text: &str| websocket_message(text, LIMITS);
        assert_eq!(read(""), texts(&[]));
        assert_eq!(read("[]"), texts(&[]));
        assert_eq!(read(r#"["a","b"]"#), texts(&["a", "b"]));
        assert_eq!(read(r#""a""#), texts(&["a"]));
        assert_eq!(read(r#" "a" "#), texts(&["a"]));
        assert_eq!(read(r#""""#), texts(&[""]));
        for broken in ["[\"a", "\"a", "a", " ", "\"a\"x", "\"a\",\"b\"", "\u{a0}\"a\""] {
            assert_eq!(read(broken), Err(Refusal::BrokenJson), "{broken}");
        }
        for other in ["1", "null", "{}", "[1]", "[[\"a\"]]"] {
            assert_eq!(read(other), Err(Refusal::PayloadExpected), "{other}");
        }
        assert_eq!(Refusal::BrokenJson.close_code(), 1007);
        assert_eq!(Refusal::TooLarge.close_code(), 1009);
    }
}
