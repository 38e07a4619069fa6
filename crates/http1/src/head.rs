//! The request head: where it ends, and what it says.
//!
//! [`Scanner`] finds the end of the head as bytes arrive, looking at each byte
//! once; [`Head::parse`] then reads the whole head once. Both decide from the
//! bytes alone, so a head cut anywhere has the same outcome as the whole.

use super::{REG_NAME, Reject, TARGET, TOKEN, is_same_name, list_elements, span_of, span_of_text, span_of_value};
use std::slice;
use tiny_http::Method;

/// A piece of the head, as offsets into its bytes. A head is at most 64 KiB − 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u16,
    /// Offset behind the last byte.
    pub end: u16,
}

impl Span {
    fn of(base: &[u8], part: &[u8]) -> Span {
        let start = part.as_ptr() as usize - base.as_ptr() as usize;
        Span { start: start as u16, end: (start + part.len()) as u16 }
    }

    /// The bytes it stands for.
    pub fn in_bytes(self, bytes: &[u8]) -> &[u8] {
        &bytes[usize::from(self.start)..usize::from(self.end)]
    }
}

/// One header field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The field name.
    pub name: Span,
    /// The field value, without surrounding white space.
    pub value: Span,
}

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the whole head.
    pub size: usize,
    /// Bytes of the request target.
    pub target: usize,
    /// Number of header fields.
    pub fields: usize,
}

/// Longer than every method that is registered.
const METHOD_ROOM: usize = 32;
/// What a request line can hold besides its target: a method, two spaces, `HTTP/1.1` and CRLF.
const REQUEST_LINE_SLACK: usize = METHOD_ROOM + 12;

/// Finds the end of a head incrementally.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    seen: usize,
    line_start: usize,
    lines: usize,
    /// Whether the line has a CR that no LF follows.
    bare_cr: bool,
}

impl Scanner {
    /// Whether it has looked at nothing of this head yet.
    pub fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// Looks at the bytes not yet seen; `buf` always starts where the head starts.
    ///
    /// Answers the length of the head once it is complete, `None` while it is not.
    pub fn scan(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Reject> {
        let window = &buf[..buf.len().min(limits.size)];
        let mut at = self.seen;
        loop {
            at += span_of_text(&window[at..]);
            let Some(&byte) = window.get(at) else { break };
            at += 1;
            if byte == b'\r' {
                // What is wrong is said when the line has ended, so that it is no matter how it was cut; whether a CR at
                // the end is bare the next byte will say.
                self.bare_cr |= window.get(at).is_some_and(|&next| next != b'\n');
            }
            if byte != b'\n' {
                continue;
            }
            let lf = at - 1;
            let line = &window[self.line_start..lf];
            // RFC 9112 §2.2: one empty line before the request line is forgiven.
            let leading = self.lines == 0 && line == b"\r" && lf == 1;
            if self.lines == 0 && !leading {
                self.check_request_line(&window[self.line_start..=lf], limits)?;
            }
            if line.last() != Some(&b'\r') {
                return Err(Reject::BareLf);
            }
            if self.bare_cr {
                return Err(Reject::BareCr);
            }
            self.line_start = lf + 1;
            if leading {
                continue;
            }
            if line.len() == 1 {
                return Ok(Some(lf + 1));
            }
            self.lines += 1;
        }
        self.seen = window.len() - usize::from(window.last() == Some(&b'\r'));
        if self.lines == 0 {
            self.check_request_line(&window[self.line_start..], limits)?;
        }
        if buf.len() >= limits.size {
            return Err(Reject::HeadTooLarge);
        }
        Ok(None)
    }

    fn check_request_line(&self, line: &[u8], limits: &HeadLimits) -> Result<(), Reject> {
        if line.len() <= limits.target + REQUEST_LINE_SLACK {
            return Ok(());
        }
        // Decided from bytes that have come whenever the line is too long, so that it is no matter how it was cut.
        match line[..=METHOD_ROOM.min(limits.target)].contains(&b' ') {
            true => Err(Reject::TargetTooLong),
            false => Err(Reject::MethodTooLong),
        }
    }
}

/// Whether `buf` holds nothing of a request yet: it is empty, or only the line end that some clients send after a body.
pub fn is_blank(buf: &[u8]) -> bool {
    matches!(buf, b"" | b"\r" | b"\r\n")
}

/// What a head says. Reused from request to request, so that parsing allocates nothing once warm.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The minor version: 0 or 1; `HTTP/1.7` counts as 1 (RFC 9110 §2.5).
    pub minor: u8,
    /// The request target as sent.
    pub target: Span,
    /// The path, still percent-encoded; `*` for `OPTIONS *`.
    pub path: Span,
    /// The query without its `?`.
    pub query: Option<Span>,
    /// The host that the request is for: the target's authority if it has one, else Host (RFC 9112 §3.3).
    pub host: Option<Span>,
    /// The header fields in order.
    pub fields: Vec<Field>,
    /// Whether the client wants the connection to live on (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Which fields that decide about the connection there may be: one look at the fields instead of one for each.
    pub present: Present,
}

/// Whether there is a field with a name as long as this one's; a name of another meaning is looked at in vain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Present {
    /// Connection.
    pub connection: bool,
    /// Content-Length or Transfer-Encoding.
    pub framing: bool,
    /// Expect.
    pub expect: bool,
}

impl Present {
    fn note(&mut self, name: &[u8]) {
        match name.len() {
            6 => self.expect = true,
            10 => self.connection = true,
            14 | 17 => self.framing = true,
            _ => {}
        }
    }
}

impl Default for Head {
    fn default() -> Head {
        Head {
            method: Method::Get,
            minor: 1,
            target: Span::default(),
            path: Span::default(),
            query: None,
            host: None,
            fields: Vec::new(),
            keep_alive: false,
            present: Present::default(),
        }
    }
}

impl Head {
    /// Reads a complete head, `bytes` being exactly what [`Scanner::scan`] found.
    pub fn parse(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<(), Reject> {
        self.read(bytes, limits).map(drop)
    }

    /// Reads the head in front of `buf` without a look at where it ends, and answers its length: most heads come whole
    /// and are right. `None` says only that somebody has to look, the [`Scanner`] first of all.
    pub fn parse_ahead(&mut self, buf: &[u8], limits: &HeadLimits) -> Option<usize> {
        let window = &buf[..buf.len().min(limits.size)];
        let read = self.read(window, limits);
        if read.is_err() {
            self.clear();
        }
        read.ok()
    }

    /// Says nothing any more, and keeps its room.
    fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Head { fields, ..Head::default() };
    }

    /// Reads the head that `bytes` begin with. It reads every byte of it, and where a line does not end as it should, or
    /// there is no more, it fails: so that what it answers is what the scanner would.
    fn read(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<usize, Reject> {
        self.clear();
        let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        let section = self.parse_request_line(bytes, &bytes[start..], limits)?;
        let (hosts, behind) = self.parse_fields(bytes, section, limits)?;
        self.check_host(bytes, hosts)?;
        self.keep_alive = self.wants_keep_alive(bytes);
        Ok(bytes.len() - behind.len())
    }

    /// Reads the line that `rest` begins with. Answers what is behind it.
    fn parse_request_line<'b>(
        &mut self,
        bytes: &[u8],
        rest: &'b [u8],
        limits: &HeadLimits,
    ) -> Result<&'b [u8], Reject> {
        let (method, behind) = rest.split_at(span_of(TOKEN, rest));
        let ([_, ..], [b' ', behind @ ..]) = (method, behind) else { return Err(Reject::RequestLine) };
        let visible = span_of(TARGET, behind);
        let target_end = match behind.get(visible) {
            Some(b' ') => visible,
            // Something that no target has; but first of all there have to be three parts.
            _ => {
                let end = behind.iter().position(|byte| matches!(byte, b' ' | b'\r'));
                end.filter(|&end| behind[end] == b' ').ok_or(Reject::RequestLine)?
            }
        };
        let (target, version) = (&behind[..target_end], &behind[target_end + 1..]);
        if target.is_empty() {
            return Err(Reject::RequestLine);
        }
        if target.len() > limits.target {
            return Err(Reject::TargetTooLong);
        }
        if method.len() + target.len() > limits.target + METHOD_ROOM {
            return Err(Reject::MethodTooLong);
        }
        let behind = self.parse_version(version)?;
        self.method = match method {
            b"GET" => Method::Get,
            // The bytes are a token, which is ASCII, so neither conversion can fail.
            _ => std::str::from_utf8(method).ok().and_then(|method| method.parse().ok()).ok_or(Reject::RequestLine)?,
        };
        if visible < target_end {
            return Err(Reject::Target);
        }
        self.target = Span::of(bytes, target);
        self.parse_target(bytes, target)?;
        Ok(behind)
    }

    /// Reads the version and the end of the line that `rest` begins with, and answers what is behind them. `HTTP/1.x` is
    /// x; another major version is 505, anything else 400 (RFC 9112 §2.3: exactly one digit each).
    fn parse_version<'b>(&mut self, rest: &'b [u8]) -> Result<&'b [u8], Reject> {
        match rest {
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                major @ b'0'..=b'9',
                b'.',
                minor @ b'0'..=b'9',
                b'\r',
                b'\n',
                behind @ ..,
            ] => {
                if *major != b'1' {
                    return Err(Reject::Version);
                }
                self.minor = u8::from(*minor != b'0');
                Ok(behind)
            }
            _ => Err(Reject::BadVersion),
        }
    }

    fn parse_target(&mut self, bytes: &[u8], target: &[u8]) -> Result<(), Reject> {
        match (&self.method, target) {
            // CONNECT alone has an authority for a target (RFC 9112 §3.2.3), and we are no proxy.
            (Method::Connect, _) => Err(Reject::MethodNotAllowed),
            (Method::Options, b"*") => {
                self.path = self.target;
                Ok(())
            }
            (_, [b'/', ..]) => {
                self.split_path(bytes, target);
                Ok(())
            }
            _ => {
                // absolute-form: a server accepts it from anyone, and it overrides Host (RFC 9112 §3.2.2).
                let scheme = target.iter().position(|&b| b == b':').ok_or(Reject::Target)?;
                let (scheme, rest) = target.split_at(scheme);
                let rest = rest.strip_prefix(b"://").ok_or(Reject::Target)?;
                if is_same_name(scheme, b"https") {
                    // RFC 9110 §7.4: it MUST have come over TLS, which is not spoken here. A gateway that ended TLS
                    // sends origin-form to an origin server (RFC 9112 §3.2.1).
                    return Err(Reject::Misdirected);
                }
                if !is_same_name(scheme, b"http") {
                    return Err(Reject::Target);
                }
                let end = rest.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                // RFC 9110 §4.2.1 and §4.2.4: an empty host is invalid, userinfo is not for requests.
                if authority.is_empty() || !is_host(authority) {
                    return Err(Reject::Target);
                }
                self.host = Some(Span::of(bytes, authority));
                self.split_path(bytes, path);
                Ok(())
            }
        }
    }

    fn split_path(&mut self, bytes: &[u8], path_and_query: &[u8]) {
        let question = path_and_query.iter().position(|&b| b == b'?');
        self.path = Span::of(bytes, &path_and_query[..question.unwrap_or(path_and_query.len())]);
        self.query = question.map(|at| Span::of(bytes, &path_and_query[at + 1..]));
    }

    /// Reads the lines that `rest` begins with, and the empty one (RFC 9112 §5). Answers what is behind them.
    fn parse_fields<'b>(
        &mut self,
        bytes: &[u8],
        mut rest: &'b [u8],
        limits: &HeadLimits,
    ) -> Result<(Hosts, &'b [u8]), Reject> {
        let mut hosts = Hosts::None;
        loop {
            if let [b'\r', b'\n', behind @ ..] = rest {
                return Ok((hosts, behind));
            }
            if self.fields.len() == limits.fields {
                return Err(Reject::TooManyHeaders);
            }
            let (name, behind) = rest.split_at(span_of(TOKEN, rest));
            let ([_, ..], [b':', behind @ ..]) = (name, behind) else { return Err(Reject::HeaderLine) };
            let (value, behind) = behind.split_at(span_of_value(behind));
            let [b'\r', b'\n', behind @ ..] = behind else { return Err(Reject::ControlCharacter) };
            rest = behind;
            // Of all that is white space here, spaces and tabs are what a value can have.
            let field = Field { name: Span::of(bytes, name), value: Span::of(bytes, value.trim_ascii()) };
            self.present.note(name);
            if name.len() == 4 && is_same_name(name, b"host") {
                hosts = hosts.and(field.value);
            }
            self.fields.push(field);
        }
    }

    fn check_host(&mut self, bytes: &[u8], hosts: Hosts) -> Result<(), Reject> {
        match hosts {
            Hosts::None if self.minor >= 1 => Err(Reject::MissingHost),
            Hosts::None => Ok(()),
            Hosts::One(host) if is_host(host.in_bytes(bytes)) => {
                self.host = self.host.or((host.start < host.end).then_some(host));
                Ok(())
            }
            Hosts::One(_) | Hosts::Several => Err(Reject::BadHost),
        }
    }

    fn wants_keep_alive(&self, bytes: &[u8]) -> bool {
        let mut keep_alive = self.minor >= 1;
        if !self.present.connection {
            return keep_alive;
        }
        for token in self.all(bytes, "connection").flat_map(list_elements) {
            if is_same_name(token, b"close") {
                return false;
            }
            keep_alive |= is_same_name(token, b"keep-alive");
        }
        keep_alive
    }

    /// The values of every field of that name, in order.
    pub fn all<'b>(&self, bytes: &'b [u8], name: &str) -> impl Iterator<Item = &'b [u8]> {
        Values { fields: self.fields.iter(), bytes, name }
    }
}

/// A head with its bytes: what conditions are evaluated on.
#[derive(Clone, Copy)]
pub struct Fields<'r> {
    /// What the bytes say.
    pub head: &'r Head,
    /// The bytes that were parsed.
    pub bytes: &'r [u8],
}

impl<'r> Fields<'r> {
    /// The method.
    pub fn method(self) -> &'r Method {
        &self.head.method
    }

    /// The values of every field of that name, in order.
    pub fn values(self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        self.head.all(self.bytes, name)
    }
}

/// The values of the fields of one name.
struct Values<'h, 'b, 'n> {
    fields: slice::Iter<'h, Field>,
    bytes: &'b [u8],
    name: &'n str,
}

impl<'b> Iterator for Values<'_, 'b, '_> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let (bytes, name) = (self.bytes, self.name.as_bytes());
        let field = self.fields.find(|field| field.name.in_bytes(bytes).eq_ignore_ascii_case(name))?;
        Some(field.value.in_bytes(bytes))
    }
}

/// The Host fields of a head.
#[derive(Clone, Copy)]
enum Hosts {
    None,
    One(Span),
    Several,
}

impl Hosts {
    fn and(self, value: Span) -> Hosts {
        match self {
            Hosts::None => Hosts::One(value),
            Hosts::One(_) | Hosts::Several => Hosts::Several,
        }
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2, RFC 3986 §3.2.2); empty is allowed, userinfo is not.
fn is_host(host: &[u8]) -> bool {
    let port = if host.first() == Some(&b'[') {
        let Some(close) = host.iter().position(|&b| b == b']') else {
            return false;
        };
        let literal = &host[1..close];
        let v6 = std::str::from_utf8(literal).is_ok_and(|l| l.parse::<std::net::Ipv6Addr>().is_ok());
        if !v6 {
            return false;
        }
        &host[close + 1..]
    } else {
        &host[reg_name(host)..]
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The length of the name that `host` begins with (RFC 3986 §3.2.2 and §2.1).
fn reg_name(host: &[u8]) -> usize {
    let mut end = 0;
    loop {
        end += span_of(REG_NAME, &host[end..]);
        match host[end..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => end += 3,
            _ => return end,
        }
    }
}

/// A head that was parsed, for tests and invariants.
#[cfg(any(test, fuzzing, feature = "invariants"))]
pub struct Sample {
    head: Head,
    bytes: Vec<u8>,
}

#[cfg(any(test, fuzzing, feature = "invariants"))]
impl Sample {
    /// One with these fields, if they can stand in one.
    pub fn new(method: &str, target: &str, fields: &[(&str, &[u8])]) -> Option<Sample> {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n").into_bytes();
        for (name, value) in fields {
            if value.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
                return None;
            }
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"\r\n");
        let mut head = Head::default();
        let limits = HeadLimits { size: 60_000, target: 100, fields: 100 };
        (bytes.len() < limits.size && head.parse(&bytes, &limits).is_ok()).then_some(Sample { head, bytes })
    }

    /// What conditions are evaluated on.
    pub fn fields(&self) -> Fields<'_> {
        Fields { head: &self.head, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 1024, target: 256, fields: 8 };

    fn outcome(bytes: &[u8], step: usize) -> Result<(String, String, u8, bool), Reject> {
        let mut scanner = Scanner::default();
        let mut have = 0;
        loop {
            have = (have + step).min(bytes.len());
            if let Some(length) = scanner.scan(&bytes[..have], &LIMITS)? {
                let mut head = Head::default();
                head.parse(&bytes[..length], &LIMITS)?;
                return Ok((
                    head.method.to_string(),
                    String::from_utf8_lossy(head.path.in_bytes(bytes)).into_owned(),
                    head.minor,
                    head.keep_alive,
                ));
            }
            assert!(have < bytes.len(), "never ends: {:?}", String::from_utf8_lossy(bytes));
        }
    }

    fn everywhere(bytes: &[u8]) -> Result<(String, String, u8, bool), Reject> {
        let whole = outcome(bytes, bytes.len());
        // Miri takes a thousand times as long; to see what is undefined it needs no step in particular.
        for step in (1..bytes.len()).step_by(if cfg!(miri) { 13 } else { 1 }) {
            assert_eq!(outcome(bytes, step), whole, "in steps of {step}");
        }
        whole
    }

    fn ok(method: &str, path: &str, minor: u8, keep: bool) -> Result<(String, String, u8, bool), Reject> {
        Ok((method.into(), path.into(), minor, keep))
    }

    #[test]
    fn requests_that_are_right() {
        assert_eq!(everywhere(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"), ok("GET", "/a", 1, true));
        assert_eq!(everywhere(b"\r\nGET / HTTP/1.0\r\n\r\n"), ok("GET", "/", 0, false));
        assert_eq!(
            everywhere(b"PURGE http://h:1/p HTTP/1.9\r\nHost:\t[::1]:80 \r\nConnection: TE, Close\r\n\r\n"),
            ok("PURGE", "/p", 1, false)
        );
        assert_eq!(everywhere(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"), ok("GET", "/", 0, true));
        assert_eq!(everywhere(b"OPTIONS * HTTP/1.1\r\nHost:\r\nX: \xff\r\n\r\n"), ok("OPTIONS", "*", 1, true));
    }

    #[test]
    fn requests_that_are_wrong() {
        let cases: &[(&[u8], Reject)] = &[
            (b"GET / HTTP/1.1\nHost: x\n\n", Reject::BareLf),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", Reject::BareCr),
            (b"GET /\r\n\r\n", Reject::RequestLine),
            (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", Reject::RequestLine),
            (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", Reject::BadVersion),
            (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", Reject::Version),
            (b"GET / http/1.1\r\nHost: x\r\n\r\n", Reject::BadVersion),
            (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", Reject::Target),
            (b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n", Reject::Target),
            (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", Reject::Target),
            (b"GET http://u@h/ HTTP/1.1\r\nHost: x\r\n\r\n", Reject::Target),
            (b"CONNECT h:1 HTTP/1.1\r\nHost: x\r\n\r\n", Reject::MethodNotAllowed),
            (b"GET / HTTP/1.1\r\nA: x\r\n\r\n", Reject::MissingHost),
            (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", Reject::BadHost),
            (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", Reject::BadHost),
            (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", Reject::HeaderLine),
            (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", Reject::HeaderLine),
            (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", Reject::HeaderLine),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", Reject::ControlCharacter),
            (b"GET / HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n", Reject::HeaderLine),
            (b"GET / HTTP/1.1\r\na:\r\nb:\r\nc:\r\nd:\r\ne:\r\nf:\r\ng:\r\nh:\r\ni:\r\n\r\n", Reject::TooManyHeaders),
            (b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Reject::RequestLine),
        ];
        for (bytes, reject) in cases {
            assert_eq!(everywhere(bytes), Err(*reject), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn limits_are_the_same_whole_and_in_pieces() {
        let long_target = [b"GET /", &[b'a'; 400][..], b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        assert_eq!(everywhere(&long_target), Err(Reject::TargetTooLong));
        let slightly_long = [b"GET /", &[b'a'; 256][..], b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        assert_eq!(everywhere(&slightly_long), Err(Reject::TargetTooLong));
        let large = [b"GET / HTTP/1.1\r\nHost: x\r\nA: ", &[b'a'; 1024][..], b"\r\n\r\n"].concat();
        assert_eq!(everywhere(&large), Err(Reject::HeadTooLarge));
    }
}
