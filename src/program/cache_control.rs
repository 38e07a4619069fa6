//! What `control` of `[[cache]]` may say.

use http1::{is_token_byte, list_elements};

/// Whether a Cache-Control field may have that value (RFC 9111 §5.2): directives, and seconds where these are digits.
pub fn is_cache_control(value: &str) -> bool {
    let mut elements = list_elements(value.as_bytes()).peekable();
    elements.peek().is_some() && elements.all(is_directive)
}

fn is_directive(element: &[u8]) -> bool {
    const SECONDS: [&[u8]; 4] = [b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"];
    let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|&byte| is_token_byte(byte));
    let (name, argument) = match element.iter().position(|&byte| byte == b'=') {
        Some(at) => (&element[..at], Some(&element[at + 1..])),
        None => (element, None),
    };
    if SECONDS.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        return argument.is_some_and(|argument| !argument.is_empty() && argument.iter().all(u8::is_ascii_digit));
    }
    let is_quoted = |argument: &[u8]| {
        // Without escapes and commas, which no directive needs: fields are named in them.
        let inner = argument.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\""));
        inner.is_some_and(|inner| inner.iter().all(|&byte| byte == b' ' || is_token_byte(byte)))
    };
    is_token(name) && argument.is_none_or(|argument| is_token(argument) || is_quoted(argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives() {
        for good in [
            "no-cache",
            "public, max-age=31536000, immutable",
            "max-age=60,s-maxage=600 , stale-while-revalidate=30",
            "private=\"Set-Cookie\"",
            "x-own=1",
        ] {
            assert!(is_cache_control(good), "{good}");
        }
        for bad in [
            "",
            ",",
            "max-age",
            "max-age=",
            "max-age=1d",
            "MAX-AGE=-1",
            "max age=1",
            "no-cache; public",
            "a=\"b",
            "=1",
            "no-cache\r\nA: b",
            "ä",
        ] {
            assert!(!is_cache_control(bad), "{bad:?}");
        }
    }
}
