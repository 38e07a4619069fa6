//! How long a request body is (RFC 9112 §6), decided here and nowhere else.

use super::head::Head;
use super::{Reject, is_same_name, list_elements};
use crate::number::decimal;

/// The body's framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body.
    None,
    /// That many bytes, at least one.
    Length(u64),
    /// Chunks up to the last one.
    Chunked,
}

/// Decides the framing of the request whose head is `bytes`.
pub fn body_framing(head: &Head, bytes: &[u8]) -> Result<BodyFraming, Reject> {
    if !head.present.framing {
        return Ok(BodyFraming::None);
    }
    let mut encodings = head.all(bytes, "transfer-encoding").peekable();
    let mut lengths = head.all(bytes, "content-length");
    let length = lengths.next();
    // §6.3: differing values are an attack; identical ones we refuse as well rather than guess.
    if lengths.next().is_some() {
        return Err(Reject::BadContentLength);
    }
    if encodings.peek().is_none() {
        return match length.map(|digits| str::from_utf8(digits).ok().and_then(decimal)) {
            None => Ok(BodyFraming::None),
            Some(None) => Err(Reject::BadContentLength),
            Some(Some(0)) => Ok(BodyFraming::None),
            Some(Some(length)) => Ok(BodyFraming::Length(length)),
        };
    }
    if length.is_some() {
        return Err(Reject::LengthAndEncoding);
    }
    if head.minor == 0 {
        return Err(Reject::EncodingInHttp10);
    }
    let mut chunked = false;
    let mut unknown = false;
    for coding in encodings.flat_map(list_elements) {
        // Whatever follows `chunked`, `chunked` itself included, makes the length unknowable (§6.3).
        if chunked {
            return Err(Reject::ChunkedNotLast);
        }
        chunked = is_same_name(coding, b"chunked");
        unknown |= !chunked;
    }
    match (chunked, unknown) {
        (false, _) => Err(Reject::ChunkedNotLast),
        (true, true) => Err(Reject::UnknownCoding),
        (true, false) => Ok(BodyFraming::Chunked),
    }
}

/// Whether the client waits for `100 Continue` (RFC 9110 §10.1.1): from HTTP/1.0 the field is ignored.
pub fn expects_continue(head: &Head, bytes: &[u8]) -> Result<bool, Reject> {
    if head.minor == 0 || !head.present.expect {
        return Ok(false);
    }
    let mut expects = false;
    for expectation in head.all(bytes, "expect").flat_map(list_elements) {
        if !is_same_name(expectation, b"100-continue") {
            return Err(Reject::Expectation);
        }
        expects = true;
    }
    Ok(expects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::HeadLimits;

    fn framing(fields: &str) -> Result<BodyFraming, Reject> {
        versioned("HTTP/1.1", fields)
    }

    fn versioned(version: &str, fields: &str) -> Result<BodyFraming, Reject> {
        let text = format!("POST / {version}\r\nHost: x\r\n{fields}\r\n");
        let mut head = Head::default();
        let limits = HeadLimits { size: 4096, target: 100, fields: 100 };
        head.parse(text.as_bytes(), &limits)?;
        body_framing(&head, text.as_bytes())
    }

    #[test]
    fn framing_by_the_rfc() {
        use BodyFraming::*;
        assert_eq!(framing(""), Ok(None));
        assert_eq!(framing("Content-Length: 0\r\n"), Ok(None));
        assert_eq!(framing("Content-Length: 00007\r\n"), Ok(Length(7)));
        assert_eq!(framing("Content-Length: 18446744073709551615\r\n"), Ok(Length(u64::MAX)));
        assert_eq!(framing("Transfer-Encoding: CHUNKED\r\n"), Ok(Chunked));
        assert_eq!(framing("Transfer-Encoding: ,chunked,\r\n"), Ok(Chunked));
        for bad in ["+7", "-7", "7 7", "7,7", "0x7", "", "18446744073709551616", "7\u{b2}"] {
            assert_eq!(framing(&format!("Content-Length: {bad}\r\n")), Err(Reject::BadContentLength), "{bad}");
        }
        assert_eq!(framing("Content-Length: 7\r\nContent-Length: 7\r\n"), Err(Reject::BadContentLength));
        assert_eq!(framing("Content-Length: 7\r\nTransfer-Encoding: chunked\r\n"), Err(Reject::LengthAndEncoding));
        assert_eq!(framing("Transfer-Encoding: gzip, chunked\r\n"), Err(Reject::UnknownCoding));
        assert_eq!(framing("Transfer-Encoding: chunked, gzip\r\n"), Err(Reject::ChunkedNotLast));
        assert_eq!(
            framing("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            Err(Reject::ChunkedNotLast)
        );
        assert_eq!(framing("Transfer-Encoding: gzip\r\n"), Err(Reject::ChunkedNotLast));
        assert_eq!(framing("Transfer-Encoding:\r\n"), Err(Reject::ChunkedNotLast));
        assert_eq!(versioned("HTTP/1.0", "Transfer-Encoding: chunked\r\n"), Err(Reject::EncodingInHttp10));
    }
}
