//! Whether a request becomes a WebSocket (RFC 6455 §4.2).

use crate::extensions;
use base64::Engine;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use http1::{is_same_name, list_elements};
use sha1_smol::Sha1;

/// What a request that may ask for a WebSocket is answered.
///
/// ```
/// use websocket::{Handshake, Offer};
///
/// let fields = [
///     ("Host", "server.example.com"),
///     ("Upgrade", "websocket"),
///     ("Connection", "keep-alive, Upgrade"),
///     ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
///     ("Sec-WebSocket-Protocol", "superchat, chat"),
///     ("Sec-WebSocket-Version", "13"),
/// ];
/// let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
/// let offer = Offer { protocols: &["chat", "superchat"], deflate: false };
/// let Handshake::Accepted(accepted) = Handshake::decide("GET", 1, fields, offer) else { panic!("it asks for one") };
/// assert_eq!(accepted.protocol, Some("superchat"));
/// let fields: Vec<_> = accepted.fields().collect();
/// assert!(fields.contains(&("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake<'o> {
    /// The request asks for no WebSocket: it is a request like any other.
    Ordinary,
    /// Answered by 101, and behind that by frames.
    Accepted(Accepted<'o>),
    /// Answered by an error.
    Refused(Refusal),
}

/// What a server has to offer; by default no subprotocol, and nothing compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer<'o> {
    /// The names of the subprotocols that it speaks. The client's order decides between several (RFC 6455 §1.9).
    pub protocols: &'o [&'o str],
    /// Whether messages may be compressed. Without the feature `deflate` they never are, whatever stands here.
    pub deflate: bool,
}

/// A WebSocket that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted<'o> {
    accept: String,
    /// The subprotocol, if the client named one that is offered. Without one a client that named some may close.
    pub protocol: Option<&'o str>,
    /// Whether messages may be compressed: what [`Limits::deflate`](crate::Limits::deflate) is to say.
    pub deflate: bool,
    extension: &'static str,
}

impl Accepted<'_> {
    /// The fields of the 101 that belong to the upgrade.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let protocol = self.protocol.map(|protocol| ("Sec-WebSocket-Protocol", protocol));
        let extension = self.deflate.then_some(("Sec-WebSocket-Extensions", self.extension));
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", &self.accept)]
            .into_iter()
            .chain(protocol)
            .chain(extension)
    }
}

/// Why there is no WebSocket. Each reason has a status and a name, as [`http1::Reject`] has.
///
/// ```
/// use websocket::{Handshake, Offer, Refusal};
///
/// // A proxy has left out the Upgrade.
/// let fields = [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")];
/// let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
/// let outcome = Handshake::decide("GET", 1, fields, Offer::default());
/// assert_eq!(outcome, Handshake::Refused(Refusal::NoUpgrade));
/// assert_eq!(Refusal::NoUpgrade.status(), 426);
/// assert!(Refusal::NoUpgrade.fields().contains(&("Upgrade", "websocket")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A key, and nothing that asks for an upgrade: mostly a proxy has left it out (RFC 6455 §4.2.1).
    NoUpgrade,
    /// Another version than 13, or none (RFC 6455 §4.4).
    Version,
    /// Another method than GET (RFC 6455 §4.2.1).
    Method,
    /// An Upgrade that Connection does not name (RFC 6455 §4.2.1, RFC 9110 §7.8).
    Connection,
    /// A key that is not 16 bytes in base64, or is not there (RFC 6455 §4.2.1).
    Key,
    /// A key or a version that is there twice (RFC 6455 §11.3.1 and §11.3.5).
    Repeated,
    /// Extensions that are not in the form that they have (RFC 6455 §9.1).
    Extensions,
}

impl Refusal {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        match self {
            Refusal::NoUpgrade | Refusal::Version => 426,
            // Not 405 for the method, which has to say what the resource allows: others it may.
            Refusal::Method | Refusal::Connection | Refusal::Key | Refusal::Repeated | Refusal::Extensions => 400,
        }
    }

    /// What its answer says besides.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self.status() {
            // RFC 9110 §15.5.22, which Connection belongs to (§7.8), and RFC 6455 §4.4.
            426 => &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")],
            _ => &[],
        }
    }

    /// The name, for the log and for the body of the answer.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NoUpgrade => "a WebSocket key without Upgrade: websocket",
            Refusal::Version => "WebSocket version not supported",
            Refusal::Method => "a WebSocket begins with GET",
            Refusal::Connection => "Upgrade without Connection: Upgrade",
            Refusal::Key => "malformed or missing Sec-WebSocket-Key",
            Refusal::Repeated => "repeated Sec-WebSocket-Key or Sec-WebSocket-Version",
            Refusal::Extensions => "malformed Sec-WebSocket-Extensions",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Is there, so often.
#[derive(Default)]
struct Once<'f> {
    value: Option<&'f [u8]>,
    twice: bool,
}

impl<'f> Once<'f> {
    fn put(&mut self, value: &'f [u8]) {
        self.twice |= self.value.replace(value).is_some();
    }
}

impl<'o> Handshake<'o> {
    /// Decides by the method, by the minor version of HTTP/1, and by the fields in their order (RFC 6455 §4.2.1). Who may
    /// open one (Origin, a token) is not looked at, nor whether the request has a body, which would stand before the frames.
    pub fn decide<'f>(
        method: &str,
        minor: u8,
        fields: impl IntoIterator<Item = (&'f [u8], &'f [u8])>,
        offer: Offer<'o>,
    ) -> Handshake<'o> {
        let (mut upgrade, mut connection) = (false, false);
        let (mut key, mut version) = (Once::default(), Once::default());
        let (mut protocol, mut extensions) = (None, Vec::new());
        for (name, value) in fields {
            let has = |wanted: &[u8]| list_elements(value).any(|element| is_same_name(element, wanted));
            if is_same_name(name, b"Upgrade") {
                // RFC 9110 §7.8: an Upgrade of HTTP/1.0 is ignored.
                upgrade |= minor >= 1 && has(b"websocket");
            } else if is_same_name(name, b"Connection") {
                connection |= has(b"upgrade");
            } else if is_same_name(name, b"Sec-WebSocket-Key") {
                key.put(value.trim_ascii());
            } else if is_same_name(name, b"Sec-WebSocket-Version") {
                version.put(value.trim_ascii());
            } else if is_same_name(name, b"Sec-WebSocket-Protocol") {
                let offered = |element: &[u8]| offer.protocols.iter().find(|name| name.as_bytes() == element).copied();
                protocol = protocol.or_else(|| list_elements(value).find_map(offered));
            } else if is_same_name(name, b"Sec-WebSocket-Extensions") {
                extensions.push(value);
            }
        }
        if !upgrade {
            return if key.value.is_some() { Handshake::Refused(Refusal::NoUpgrade) } else { Handshake::Ordinary };
        }
        let outcome = || {
            if method != "GET" {
                return Err(Refusal::Method);
            }
            if !connection {
                return Err(Refusal::Connection);
            }
            if key.twice || version.twice {
                return Err(Refusal::Repeated);
            }
            // Before the key: another version may have another one.
            if version.value != Some(b"13") {
                return Err(Refusal::Version);
            }
            let accept = key.value.and_then(accept).ok_or(Refusal::Key)?;
            let agreed = extensions::agree(&extensions).ok_or(Refusal::Extensions)?;
            let agreed = agreed.filter(|_| cfg!(feature = "deflate") && offer.deflate);
            let (deflate, extension) = (agreed.is_some(), agreed.unwrap_or_default());
            Ok(Accepted { accept, protocol, deflate, extension })
        };
        outcome().map_or_else(Handshake::Refused, Handshake::Accepted)
    }
}

/// What a server proves with that it has understood the key (RFC 6455 §4.2.2); `None` for what is no key.
fn accept(key: &[u8]) -> Option<String> {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    // Clients that put random letters together set bits in the last one that mean nothing; others take them.
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);
    // Room for what 24 letters can be.
    let mut nonce = [0; 18];
    if key.len() != 24 || BASE64.decode_slice(key, &mut nonce) != Ok(16) {
        return None;
    }
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update(GUID);
    Some(BASE64.encode(sha1.digest().bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn decide<'o>(method: &str, minor: u8, fields: &[(&str, &str)], offer: Offer<'o>) -> Handshake<'o> {
        Handshake::decide(method, minor, fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), offer)
    }

    /// Those of a good request, with some said otherwise: a field without a value is not there.
    fn with(others: &[(&str, &str)]) -> Handshake<'static> {
        let said = |name: &str| others.iter().any(|(other, _)| *other == name);
        let kept = GOOD.iter().filter(|(name, _)| !said(name));
        let fields: Vec<_> = kept.chain(others.iter().filter(|(_, value)| !value.is_empty())).copied().collect();
        decide("GET", 1, &fields, Offer::default())
    }

    #[test]
    fn what_is_refused_and_why() {
        use Refusal::*;
        let table: &[(&[(&str, &str)], Refusal)] = &[
            (&[("Upgrade", "")], NoUpgrade),
            (&[("Upgrade", "h2c")], NoUpgrade),
            (&[("Upgrade", "websockets")], NoUpgrade),
            (&[("Upgrade", ""), ("Connection", ""), ("Sec-WebSocket-Version", "")], NoUpgrade),
            (&[("Connection", "")], Connection),
            (&[("Connection", "close")], Connection),
            (&[("Connection", "keep-alive, Upgraded")], Connection),
            (&[("Sec-WebSocket-Version", "")], Version),
            (&[("Sec-WebSocket-Version", "8")], Version),
            (&[("Sec-WebSocket-Version", "013")], Version),
            (&[("Sec-WebSocket-Version", "13, 8")], Version),
            (&[("Sec-WebSocket-Version", "14"), ("Sec-WebSocket-Key", "x")], Version),
            (&[("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "13")], Repeated),
            (&[("Sec-WebSocket-Key", "")], Key),
            (&[("Sec-WebSocket-Key", "x")], Key),
            // 15, 17 and 18 bytes; without its end; with a letter that is none; a space within.
            (&[("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA")], Key),
            (&[("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAA=")], Key),
            (&[("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAAA")], Key),
            (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")], Key),
            (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ_==")], Key),
            (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZS Bub25jZQ=")], Key),
            (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ====")], Key),
            (
                &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")],
                Repeated,
            ),
            (&[("Sec-WebSocket-Extensions", "a b")], Extensions),
            (&[("Sec-WebSocket-Extensions", "fine"), ("Sec-WebSocket-Extensions", "not;")], Extensions),
        ];
        for (fields, refusal) in table {
            assert_eq!(with(fields), Handshake::Refused(*refusal), "{fields:?}");
        }
        for method in ["POST", "get", "HEAD"] {
            assert_eq!(decide(method, 1, &GOOD, Offer::default()), Handshake::Refused(Method));
        }
        let names = |refusal: Refusal| refusal.fields().iter().map(|(name, _)| *name).collect::<Vec<_>>();
        for refusal in [NoUpgrade, Version] {
            assert_eq!(refusal.status(), 426);
            assert_eq!(names(refusal), ["Upgrade", "Connection", "Sec-WebSocket-Version"]);
        }
        for refusal in [Method, Connection, Key, Repeated, Extensions] {
            assert_eq!((refusal.status(), names(refusal)), (400, vec![]));
        }
    }

    #[test]
    fn what_is_accepted_though_it_is_said_otherwise() {
        let table: &[&[(&str, &str)]] = &[
            &[],
            &[("Upgrade", "WebSocket")],
            &[("upgrade", "h2c, websocket"), ("Upgrade", "")],
            &[("Connection", "keep-alive, UPGRADE")],
            &[("Connection", "keep-alive"), ("Connection", " , upgrade")],
            &[("Sec-WebSocket-Key", " dGhlIHNhbXBsZSBub25jZQ==\t"), ("Sec-WebSocket-Version", " 13")],
            // Bits that mean nothing.
            &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZR==")],
            &[("Sec-WebSocket-Extensions", ""), ("Sec-WebSocket-Protocol", "a b, , \"c\"")],
            &[("Sec-WebSocket-Extensions", "x-unknown; a=\"b\"")],
        ];
        for fields in table {
            let Handshake::Accepted(accepted) = with(fields) else { panic!("{fields:?}") };
            assert_eq!((accepted.protocol, accepted.deflate), (None, false));
        }
    }

    #[test]
    fn http_1_0_upgrades_nothing() {
        assert_eq!(decide("GET", 0, &GOOD, Offer::default()), Handshake::Refused(Refusal::NoUpgrade));
        let without_key: Vec<_> = GOOD.into_iter().filter(|(name, _)| *name != "Sec-WebSocket-Key").collect();
        assert_eq!(decide("GET", 0, &without_key, Offer::default()), Handshake::Ordinary);
        for fields in [&[][..], &[("Upgrade", "h2c"), ("Connection", "Upgrade")], &[("Connection", "Upgrade")]] {
            assert_eq!(decide("POST", 1, fields, Offer::default()), Handshake::Ordinary);
        }
    }

    #[test]
    fn the_client_s_order_decides_among_subprotocols() {
        let protocols = |values: &[&str]| {
            let named = values.iter().map(|value| ("Sec-WebSocket-Protocol", *value));
            let fields: Vec<_> = GOOD.into_iter().chain(named).collect();
            match decide("GET", 1, &fields, Offer { protocols: &["a", "b"], deflate: false }) {
                Handshake::Accepted(accepted) => {
                    let said = accepted.fields().find(|(name, _)| *name == "Sec-WebSocket-Protocol");
                    assert_eq!(said.map(|(_, value)| value), accepted.protocol);
                    accepted.protocol
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(protocols(&["b, a"]), Some("b"));
        assert_eq!(protocols(&["c", "x,,a", "b"]), Some("a"));
        assert_eq!([protocols(&[]), protocols(&["c"]), protocols(&["A"])], [None; 3]);
    }

    #[test]
    fn what_the_answer_says() {
        let fields: Vec<_> = GOOD.into_iter().chain([("Sec-WebSocket-Extensions", "permessage-deflate")]).collect();
        for deflate in [false, true] {
            let Handshake::Accepted(accepted) = decide("GET", 1, &fields, Offer { deflate, ..Offer::default() }) else {
                panic!("it is a good one")
            };
            assert_eq!(accepted.deflate, deflate && cfg!(feature = "deflate"));
            let mut expected = vec![
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ];
            let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
            expected.extend(accepted.deflate.then_some(("Sec-WebSocket-Extensions", agreed)));
            assert_eq!(accepted.fields().collect::<Vec<_>>(), expected);
        }
    }
}
