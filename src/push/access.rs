//! Who may subscribe and publish, and by which token.

use super::hub::{Namespace, Publishers, Subscribers};
use super::origin::{is_local, is_old, may_come_from};
use super::question::{Wrong, pair, strictly_decoded};
use super::token::{BUILT, BadToken, Claims, verify};
use crate::api::Request;
use crate::clock::wall_clock;
use http1::is_same_name;
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// The cookie that a token may stand in.
const COOKIE: &str = "handover_token";
/// The parameter of the query.
const PARAMETER: &str = "token";

impl Namespace {
    /// What the token says of who subscribes, where one is needed.
    pub(super) fn may_subscribe(&self, request: &Request) -> Result<Option<Claims>, Wrong> {
        match self.subscribers {
            Subscribers::Anyone => Ok(None),
            Subscribers::Token => self.claims(request).map(Some),
        }
    }

    /// The same of who publishes.
    pub(super) fn may_publish(&self, request: &Request) -> Result<Option<Claims>, Wrong> {
        // A page can send a POST without being asked for, and without seeing the answer.
        if !may_come_from(request, &self.origins) {
            return Err(Wrong::new(403, "pages of that Origin may not publish here: see origins of [[push]]"));
        }
        let who = match self.publishers {
            Publishers::Anyone => return Ok(None),
            Publishers::Token => return self.claims(request).map(Some),
            Publishers::Local if is_local(request) => return Ok(None),
            Publishers::Local if is_old(request) => {
                "only clients of this host may publish, by HTTP/1.1: by 1.0 proxies pass on what others ask, without a word"
            }
            Publishers::Local => {
                "only clients of this host may publish: over a Unix socket or for a loopback host, no page and no proxy"
            }
            Publishers::Nobody => "nobody may publish here by HTTP: see publish of [[push]]",
        };
        Err(Wrong::new(403, who))
    }

    fn claims(&self, request: &Request) -> Result<Claims, Wrong> {
        let Some(token) = token(request)? else {
            let where_to = format!("a token is needed: as Authorization: Bearer, cookie {COOKIE} or {PARAMETER}=");
            return Err(Wrong::new(401, where_to).with_challenge("Bearer realm=\"push\""));
        };
        let Some(keys) = &self.keys else {
            return Err(Wrong::invalid_token("there are no keys for tokens here"));
        };
        verify(&token, keys, wall_clock()).map_err(|bad| match bad {
            BadToken::Invalid(what) => Wrong::invalid_token(what),
            BadToken::Clock => {
                static SAID: AtomicBool = AtomicBool::new(false);
                if !SAID.swap(true, Ordering::Relaxed) {
                    log::error!(
                        "no token is accepted until the clock of this host is set: it says {} s since 1970, and the \
                         program is of {BUILT} or later",
                        wall_clock().as_secs()
                    );
                }
                Wrong::new(503, "the clock of this host is not set, and no token can be judged by it")
            }
        })
    }
}

impl Wrong {
    fn invalid_token(what: &str) -> Wrong {
        Wrong::new(401, what).with_challenge("Bearer realm=\"push\", error=\"invalid_token\"")
    }

    /// The token is good, and not for that.
    pub(super) fn not_allowed(what: fmt::Arguments<'_>) -> Wrong {
        let wrong = Wrong::new(403, format!("the token does not let its owner {what}"));
        wrong.with_challenge("Bearer realm=\"push\", error=\"insufficient_scope\"")
    }
}

/// The token of a request, wherever it stands, if there is one and no more than one.
pub(crate) fn bearer(request: &Request) -> Option<Cow<'_, [u8]>> {
    token(request).ok().flatten()
}

/// The token of a request, wherever it stands. Two that differ mean two things.
fn token(request: &Request) -> Result<Option<Cow<'_, [u8]>>, Wrong> {
    let bearer = request.header_values("Authorization").filter_map(|value| {
        let (scheme, token) = value.split_at(value.iter().position(|&byte| byte == b' ').unwrap_or(value.len()));
        is_same_name(scheme, b"Bearer").then(|| token.trim_ascii())
    });
    let cookies = request.header_values("Cookie").flat_map(|value| value.split(|&byte| byte == b';'));
    let cookies = cookies.filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"="));
    let mut tokens: Vec<Cow<'_, [u8]>> = bearer.chain(cookies).map(Cow::Borrowed).collect();
    for (name, value) in request.query().unwrap_or_default().split('&').filter_map(pair) {
        if name == PARAMETER {
            let value = strictly_decoded(value, true);
            let value = value.map_err(|()| Wrong::new(400, "token= is not UTF-8 that is percent-encoded"))?;
            tokens.push(value.into_bytes().into());
        }
    }
    let first = tokens.pop();
    match first.as_ref().is_none_or(|first| tokens.iter().all(|other| other == first)) {
        true => Ok(first),
        false => {
            Err(Wrong::new(400, format!("tokens differ: of Authorization, cookie {COOKIE} and {PARAMETER}= give one")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(query: &str, fields: &str) -> Result<Option<String>, u16> {
        let head = format!("GET /events{query} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        let request = Request::from_head(head.as_bytes()).expect("a head");
        let token = token(&request).map_err(|wrong| wrong.status)?;
        Ok(token.map(|token| String::from_utf8(token.into_owned()).expect("UTF-8")))
    }

    #[test]
    fn a_token_stands_in_one_of_three_places() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        for fields in
            ["", "Authorization: Basic YTpi\r\n", "Authorization: Bearerx y\r\n", "Cookie: a=1; handover_tokens=x\r\n"]
        {
            assert_eq!(find("?tokens=1", fields), Ok(None), "{fields}");
        }
        assert_eq!(find("", "Authorization: Bearer a.b.c\r\n"), some("a.b.c"));
        assert_eq!(find("", "Authorization: bEARER   a.b.c\r\n"), some("a.b.c"));
        assert_eq!(find("", "Authorization: Bearer\r\n"), some(""));
        assert_eq!(find("", "Cookie: a=1;handover_token=a.b.c; c=2\r\nAuthorization: Basic x\r\n"), some("a.b.c"));
        assert_eq!(find("?topic=a&token=a%2Eb.c", ""), some("a.b.c"));
        assert_eq!(find("?token=", ""), some(""));
    }

    #[test]
    fn several_tokens_are_one_or_wrong() {
        let (bearer, cookie) = ("Authorization: Bearer a\r\n", "Cookie: handover_token=a\r\n");
        assert_eq!(find("?token=a&token=a", &format!("{bearer}{cookie}{bearer}")), Ok(Some("a".to_owned())));
        for (query, fields) in [
            ("?token=b", bearer),
            ("?token=b", cookie),
            ("?token=a&token=b", ""),
            ("", "Cookie: handover_token=a; handover_token=b\r\n"),
            ("", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"),
            ("", "Authorization: Bearer b\r\nCookie: handover_token=a\r\n"),
            ("?token=%ff", ""),
            ("?token=%2", ""),
        ] {
            assert_eq!(find(query, fields), Err(400), "{query} {fields}");
        }
    }
}
