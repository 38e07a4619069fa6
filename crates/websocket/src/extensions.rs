//! Which extension is agreed on (RFC 6455 §9.1): permessage-deflate (RFC 7692 §7.1), or none.

use http1::is_token_byte;

/// What is agreed to. Neither side keeps anything from message to message: a server may say so for both, whether it was
/// asked to or not (RFC 7692 §7.1.1).
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The same to a client that named the window which is used anyway: what it asked for has to be said (RFC 7692 §7.1.2.1).
const AGREED_WITH_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

/// The value of the answer's Sec-WebSocket-Extensions to these, the first offer that can be kept; `Some(None)` if there is
/// none, `None` if one of the fields is not in its form.
pub(crate) fn agree(fields: &[&[u8]]) -> Option<Option<&'static str>> {
    let mut agreed = None;
    for field in fields {
        let offers = Parser { rest: field }.offers()?;
        agreed = agreed.or_else(|| offers.iter().find_map(answer));
    }
    Some(agreed)
}

/// An extension with its parameters, some of which have values.
struct Extension<'f> {
    name: &'f [u8],
    parameters: Vec<(&'f [u8], Option<Vec<u8>>)>,
}

/// An offer has to be declined for a parameter that is unknown, stands twice or has a value that it cannot have (RFC 7692
/// §7.1), and for what cannot be kept.
fn answer(offer: &Extension<'_>) -> Option<&'static str> {
    if offer.name != b"permessage-deflate" {
        return None;
    }
    let mut agreed = AGREED;
    for (at, (name, value)) in offer.parameters.iter().enumerate() {
        if offer.parameters[..at].iter().any(|(before, _)| before == name) {
            return None;
        }
        match (*name, value) {
            (b"server_no_context_takeover" | b"client_no_context_takeover", None) => {}
            // The window is always of that size: a smaller one, which a client may want for itself, is none that can be
            // promised.
            (b"server_max_window_bits", Some(bits)) if bits == b"15" => agreed = AGREED_WITH_WINDOW,
            // What the client can do; it is asked for nothing.
            (b"client_max_window_bits", None) => {}
            (b"client_max_window_bits", Some(bits)) if is_window(bits) => {}
            _ => return None,
        }
    }
    Some(agreed)
}

/// 8 to 15, without a zero in front (RFC 7692 §7.1.2).
fn is_window(bits: &[u8]) -> bool {
    matches!(bits, [b'8' | b'9'] | [b'1', b'0'..=b'5'])
}

/// Reads a list of extensions: `token *( ";" token [ "=" ( token / quoted-string ) ] )`.
struct Parser<'f> {
    rest: &'f [u8],
}

impl<'f> Parser<'f> {
    fn offers(mut self) -> Option<Vec<Extension<'f>>> {
        let mut offers = Vec::new();
        loop {
            // Empty elements of a list mean nothing (RFC 9110 §5.6.1).
            while self.is_next(b',') {}
            if self.rest.is_empty() {
                return Some(offers);
            }
            let mut extension = Extension { name: self.token()?, parameters: Vec::new() };
            while self.is_next(b';') {
                let name = self.token()?;
                let value = if self.is_next(b'=') { Some(self.value()?) } else { None };
                extension.parameters.push((name, value));
            }
            offers.push(extension);
            if !self.rest.is_empty() && !self.is_next(b',') {
                return None;
            }
        }
    }

    /// Takes white space, that byte, and white space.
    fn is_next(&mut self, byte: u8) -> bool {
        self.rest = self.rest.trim_ascii_start();
        let behind = self.rest.strip_prefix(&[byte]);
        self.rest = behind.unwrap_or(self.rest).trim_ascii_start();
        behind.is_some()
    }

    fn token(&mut self) -> Option<&'f [u8]> {
        let end = self.rest.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest.trim_ascii_start();
        (!token.is_empty()).then_some(token)
    }

    /// A token, in quotes or not: what quotes hold has to be one too (RFC 6455 §9.1).
    fn value(&mut self) -> Option<Vec<u8>> {
        let Some(quoted) = self.rest.strip_prefix(b"\"") else { return self.token().map(<[u8]>::to_vec) };
        let (mut value, mut bytes) = (Vec::new(), quoted.iter());
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => value.push(*bytes.next()?),
                byte => value.push(*byte),
            }
        }
        self.rest = bytes.as_slice().trim_ascii_start();
        (!value.is_empty() && value.iter().all(|byte| is_token_byte(*byte))).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offer_that_can_be_kept_is_agreed_to() {
        let table = [
            ("", None),
            (" , ,", None),
            ("x-webkit-deflate-frame", None),
            ("permessage-deflate", Some(AGREED)),
            // Chromium and Firefox.
            ("permessage-deflate; client_max_window_bits", Some(AGREED)),
            ("permessage-deflate;client_max_window_bits=8", Some(AGREED)),
            ("permessage-deflate ; client_max_window_bits = \"1\\5\" ", Some(AGREED)),
            ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", Some(AGREED)),
            ("permessage-deflate; server_max_window_bits=15", Some(AGREED_WITH_WINDOW)),
            ("permessage-deflate; server_max_window_bits=\"15\"; client_max_window_bits", Some(AGREED_WITH_WINDOW)),
            // RFC 7692 §7.1.3: the first would be declined, the second is not.
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some(AGREED)),
            ("a, b; c=d, permessage-deflate", Some(AGREED)),
            ("permessage-deflate; server_max_window_bits=8", None),
            ("permessage-deflate; server_max_window_bits=14", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=015", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            ("permessage-deflate; client_max_window_bits=16", None),
            ("permessage-deflate; client_max_window_bits=08", None),
            ("permessage-deflate; client_max_window_bits=x", None),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_no_context_takeover=true", None),
            ("permessage-deflate; mystery", None),
            ("Permessage-Deflate", None),
        ];
        for (field, agreed) in table {
            assert_eq!(agree(&[field.as_bytes()]), Some(agreed), "{field}");
        }
        let declined = b"permessage-deflate; server_max_window_bits=9";
        assert_eq!(agree(&[declined, b"permessage-deflate"]), Some(Some(AGREED)));
        assert_eq!(agree(&[]), Some(None));
    }

    #[test]
    fn what_is_not_in_its_form_is_said_to_be() {
        for field in
            ["a b", "a;", "a; ", ";", "a;;b", "a; b=", "a; b=\"", "a; b=\"c", "a; b=\"\"", "a; b=\"c d\"", "a; b=\"c\\"]
        {
            assert_eq!(agree(&[field.as_bytes()]), None, "{field}");
            // Also behind an offer that is agreed to.
            assert_eq!(agree(&[b"permessage-deflate", field.as_bytes()]), None, "{field}");
        }
        for field in ["=", "\"a\"", "a=b", "a; b=c d", "a; =b", "a, b c", "a; b=\"c\" d", "a; \"b\"", "a/b"] {
            assert_eq!(agree(&[field.as_bytes()]), None, "{field}");
        }
    }
}
