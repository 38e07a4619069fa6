//! Tokens: JSON Web Tokens (RFC 7519) of one kind, signed by HMAC with SHA-256.
//!
//! What could be read in two ways is refused, and so is what a token may ask for and nobody here does: another algorithm, or
//! none, `crit`, an audience (RFC 8725).

use super::token_keys::TokenKeys;
use crate::clock::wall_clock;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use pubsub::{BadTopic, Topic};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;

const ALGORITHM: &str = "HS256";
/// A claim with this has all topics there are or will be.
const ALL: &str = "*";
/// What clocks may differ by for a token that is to be good only later. One that has expired has.
const LEEWAY: f64 = 60.0;
/// The longest `sub`: it is kept with each Idempotency-Key.
const SUBJECT: usize = 255;

/// No clock is right that is before this: when the program was built, if whoever built it says so, and else when the oldest
/// compiler came out that builds it (Rust 1.88, 26 June 2025). A host without a battery begins in 1970, where no token has
/// expired.
pub const BUILT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => match u64::from_str_radix(text, 10) {
        Ok(built) if built > COMPILER => built,
        _ => COMPILER,
    },
    None => COMPILER,
};
const COMPILER: u64 = 1_750_896_000;

/// A token to be made: who has it may subscribe and publish to what it names, for a while. See [`TokenKeys`].
///
/// ```
/// use handover::{Token, TokenKeys};
/// use std::time::Duration;
///
/// let keys = TokenKeys::new([[7; 32]])?;
/// let token = Token::new(Duration::from_secs(60)).subject("ada").subscribe("kitchen").publish("*").sign(&keys);
/// assert_eq!(token.split('.').count(), 3);
/// # Ok::<(), handover::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[must_use]
pub struct Token {
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// Seconds since 1970.
    exp: u64,
    subscribe: Vec<String>,
    publish: Vec<String>,
}

impl Token {
    /// One that is good from now on for so long, in whole seconds, and names nothing yet.
    pub fn new(lifetime: Duration) -> Token {
        let exp = wall_clock().saturating_add(lifetime).as_secs();
        Token { sub: None, exp, subscribe: Vec::new(), publish: Vec::new() }
    }

    /// One more topic to subscribe to; `*` for all.
    pub fn subscribe(mut self, topic: impl Into<String>) -> Token {
        self.subscribe.push(topic.into());
        self
    }

    /// One more topic to publish to; `*` for all.
    pub fn publish(mut self, topic: impl Into<String>) -> Token {
        self.publish.push(topic.into());
        self
    }

    /// Whose it is, in at most 255 bytes: each has Idempotency-Keys of his own.
    pub fn subject(mut self, name: impl Into<String>) -> Token {
        self.sub = Some(name.into());
        self
    }

    /// Its text, by the first of these keys.
    pub fn sign(&self, keys: &TokenKeys) -> String {
        // Text and numbers cannot fail to be written.
        let claims = serde_json::to_vec(self).unwrap_or_default();
        signed(br#"{"alg":"HS256","typ":"JWT"}"#, &claims, keys)
    }

    /// What of it would be refused, or is no topic.
    pub(crate) fn wrong(&self) -> Option<String> {
        let topics = self.subscribe.iter().chain(&self.publish);
        let wrong = topics.filter_map(|name| Some((name, Topic::new("", name).err()?))).next();
        let wrong = wrong.map(|(name, wrong): (_, BadTopic)| format!("{name:.80?}: {wrong}"));
        wrong.or_else(|| self.sub.as_deref().and_then(wrong_subject).map(str::to_owned))
    }
}

fn signed(header: &[u8], claims: &[u8], keys: &TokenKeys) -> String {
    let text = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(keys.sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn wrong_subject(sub: &str) -> Option<&'static str> {
    // It stands beside others in a line of text.
    let fits = sub.len() <= SUBJECT && !sub.chars().any(char::is_control);
    (!fits).then_some("sub has more than 255 bytes, or control characters")
}

/// What a token says that is good.
#[derive(Debug, PartialEq)]
pub(super) struct Claims {
    subscribe: Vec<String>,
    publish: Vec<String>,
    subject: Option<String>,
    /// How long it is.
    pub lasts: Duration,
}

impl Claims {
    pub fn may_subscribe(&self, topic: &str) -> bool {
        names(&self.subscribe, topic)
    }

    pub fn may_publish(&self, topic: &str) -> bool {
        names(&self.publish, topic)
    }

    pub fn publishes(&self) -> bool {
        !self.publish.is_empty()
    }

    /// Whose Idempotency-Keys count.
    pub fn principal(&self) -> &str {
        self.subject.as_deref().unwrap_or_default()
    }
}

fn names(topics: &[String], topic: &str) -> bool {
    topics.iter().any(|name| name == topic || name == ALL)
}

/// Why a token is not good.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadToken {
    /// In words that go into an answer, and have nothing of the token.
    Invalid(&'static str),
    /// It cannot be known.
    Clock,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "stands")]
    crit: bool,
}

#[derive(Deserialize)]
struct Written {
    exp: Option<f64>,
    nbf: Option<f64>,
    sub: Option<String>,
    #[serde(default, deserialize_with = "stands")]
    aud: bool,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
}

/// Whatever is said.
fn stands<'d, D: Deserializer<'d>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Reads a token at that time since 1970.
pub(super) fn verify(token: &[u8], keys: &TokenKeys, now: Duration) -> Result<Claims, BadToken> {
    const FORM: BadToken = BadToken::Invalid("the token is not HEADER.CLAIMS.SIGNATURE in base64url");
    let mut parts = token.split(|&byte| byte == b'.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FORM);
    };
    let text = &token[..header.len() + 1 + claims.len()];
    // Without padding, and each text of bytes in one way only (RFC 7515 §2).
    let decoded = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| FORM);
    let (header, claims, signature) = (decoded(header)?, decoded(claims)?, decoded(signature)?);
    let header: Header = object(&header).ok_or(BadToken::Invalid("the header of the token is no object with alg"))?;
    if header.alg != ALGORITHM {
        return Err(BadToken::Invalid("alg of the token is not HS256"));
    }
    if header.crit {
        return Err(BadToken::Invalid("the token has crit, and nothing of that is understood here"));
    }
    if !keys.have_signed(text, &signature) {
        return Err(BadToken::Invalid("the token is signed by no key of this server"));
    }
    let allowed =
        "the claims of the token are no object with exp, a number, and lists of topics in subscribe and publish";
    let written: Written = object(&claims).ok_or(BadToken::Invalid(allowed))?;
    if written.aud {
        return Err(BadToken::Invalid("the token has aud, and is for somebody else"));
    }
    if let Some(wrong) = written.sub.as_deref().and_then(wrong_subject) {
        return Err(BadToken::Invalid(wrong));
    }
    let exp = written.exp.ok_or(BadToken::Invalid("the token has no exp"))?;
    if now.as_secs() < BUILT {
        return Err(BadToken::Clock);
    }
    let left = exp - now.as_secs_f64();
    if left <= 0.0 {
        return Err(BadToken::Invalid("the token has expired"));
    }
    if written.nbf.is_some_and(|nbf| nbf > now.as_secs_f64() + LEEWAY) {
        return Err(BadToken::Invalid("the token is not good yet"));
    }
    let Written { subscribe, publish, sub: subject, .. } = written;
    // What is too far away for a duration is as good as never.
    Ok(Claims { subscribe, publish, subject, lasts: Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX) })
}

/// An object; its fields in their order, without their names, would be one to serde as well.
fn object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(2_000_000_000);
    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    fn keys(byte: u8) -> TokenKeys {
        TokenKeys::new([[byte; 32]]).expect("a key")
    }

    fn made(header: &str, claims: &str) -> String {
        signed(header.as_bytes(), claims.as_bytes(), &keys(b'1'))
    }

    fn read(token: &str) -> Result<Claims, BadToken> {
        verify(token.as_bytes(), &keys(b'1'), NOW)
    }

    #[track_caller]
    fn refused(token: &str, says: &str) {
        match read(token) {
            Err(BadToken::Invalid(what)) => assert!(what.contains(says), "{token}: {what}"),
            other => panic!("{token}: {other:?}"),
        }
    }

    #[test]
    fn a_token_says_what_it_says() {
        let claims =
            read(&made(HEADER, r#"{"exp":2000000060,"nbf":2000000060,"sub":"ada","subscribe":["a","b"],"iat":0}"#));
        let claims = claims.expect("a token");
        assert_eq!((claims.lasts, claims.principal()), (Duration::from_secs(60), "ada"));
        assert!(claims.may_subscribe("a") && claims.may_subscribe("b") && !claims.may_subscribe("c"));
        assert!(!claims.may_publish("a") && !claims.publishes());
        let claims = read(&made(HEADER, r#" {"exp":2e9999,"publish":["*"]}"#));
        assert!(claims.is_err(), "a number that is none");
        let claims = read(&made(HEADER, r#" {"exp":2e300,"publish":["*"]}"#)).expect("a token");
        assert!(claims.may_publish("whatever") && claims.publishes() && !claims.may_subscribe("a"));
        assert_eq!((claims.lasts, claims.principal()), (Duration::MAX, ""));
    }

    /// RFC 7515, appendix A.1: made by somebody else.
    #[test]
    fn the_example_of_the_rfc_is_signed_as_we_do() {
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let keys = TokenKeys::new([BASE64_URL_SAFE_NO_PAD.decode(key).expect("base64url")]).expect("a key");
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
                     Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(verify(token.as_bytes(), &keys, NOW), Err(BadToken::Invalid("the token has expired")));
    }

    #[test]
    fn what_is_no_token_of_ours_is_refused() {
        let claims = r#"{"exp":2000000001,"subscribe":["*"]}"#;
        let good = made(HEADER, claims);
        let text = good.rsplit_once('.').expect("three parts").0;
        read(&good).expect("it is good");
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"HS256 "}"#,
            r#"{"alg":"HS384"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":""}"#,
        ] {
            refused(&made(header, claims), "alg of the token is not HS256");
        }
        for header in [r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, r#"{"alg":"HS256","crit":null}"#] {
            refused(&made(header, claims), "crit");
        }
        for header in
            ["", "{}", r#"["HS256",true]"#, r#"{"alg":"none","alg":"HS256"}"#, r#"{"alg":null}"#, r#"{"alg":"HS256"}x"#]
        {
            refused(&made(header, claims), "the header of the token");
        }
        for token in
            ["", ".", "..", "...", "a.b", &format!("{good}."), &format!(".{good}"), &format!("{good}.{good}"), text]
        {
            assert!(matches!(read(token), Err(BadToken::Invalid(_))), "{token}");
        }
        // Padding, another alphabet, bits that are thrown away, characters that are none.
        for end in ["=", "A", "AAAA", "!", " ", "+", "\n"] {
            assert!(matches!(read(&format!("{good}{end}")), Err(BadToken::Invalid(_))), "{good}{end}");
        }
        let (last, alphabet) =
            (good.as_bytes()[good.len() - 1], b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
        for other in alphabet.iter().filter(|other| **other != last) {
            assert!(read(&format!("{}{}", &good[..good.len() - 1], char::from(*other))).is_err(), "{other}");
        }
        refused(&format!("{text}."), "signed by no key");
        refused(&signed(HEADER.as_bytes(), claims.as_bytes(), &keys(b'2')), "signed by no key");
        assert!(verify(b"\xff\xfe.\x00.\xff", &keys(b'1'), NOW).is_err());
        // Every byte counts.
        for at in 0..good.len() {
            let mut changed = good.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(verify(&changed, &keys(b'1'), NOW).is_err(), "{at}");
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn claims_that_are_wrong_are_refused() {
        for (claims, says) in [
            (r#"{"subscribe":["a"]}"#, "no exp"),
            (r#"{"exp":null}"#, "no exp"),
            (r#"{"exp":2000000000}"#, "has expired"),
            (r#"{"exp":1999999999.9}"#, "has expired"),
            (r#"{"exp":-1}"#, "has expired"),
            (r#"{"exp":2000000600,"nbf":2000000061}"#, "not good yet"),
            (r#"{"exp":2000000600,"aud":"others"}"#, "aud"),
            (r#"{"exp":2000000600,"sub":"a\nb"}"#, "sub has"),
            (r#"{"exp":"2000000600"}"#, "the claims"),
            (r#"{"exp":2000000600,"subscribe":"a"}"#, "the claims"),
            (r#"{"exp":2000000600,"publish":[1]}"#, "the claims"),
            (r#"{"exp":2000000600,"publish":null}"#, "the claims"),
            (r#"{"exp":1,"exp":2000000600}"#, "the claims"),
            (r#"[2000000600,null,null,["a"],["a"]]"#, "the claims"),
            ("2000000600", "the claims"),
            ("", "the claims"),
        ] {
            refused(&made(HEADER, claims), says);
        }
        refused(&made(HEADER, &format!("{{\"exp\":2000000600,\"sub\":\"{}\"}}", "x".repeat(256))), "sub has");
    }

    #[test]
    fn a_clock_that_is_older_than_the_program_judges_nothing() {
        let token = made(HEADER, r#"{"exp":10,"subscribe":["a"]}"#);
        for now in [0, 5, BUILT - 1] {
            assert_eq!(verify(token.as_bytes(), &keys(b'1'), Duration::from_secs(now)), Err(BadToken::Clock));
        }
        assert!(wall_clock().as_secs() > BUILT, "or no test of tokens says anything");
    }

    #[test]
    fn what_we_make_we_read() {
        let token = Token::new(Duration::from_secs(60)).subject("ada").subscribe("a").publish("é");
        let claims = verify(token.sign(&keys(b'1')).as_bytes(), &keys(b'1'), wall_clock()).expect("a token");
        assert!(claims.may_subscribe("a") && claims.may_publish("é") && claims.principal() == "ada");
        assert!((58..=60).contains(&claims.lasts.as_secs()), "{:?}", claims.lasts);
        assert_eq!(token.wrong(), None);
        assert!(token.clone().publish("").wrong().is_some_and(|wrong| wrong.contains("a topic has 1 to 128 bytes")));
        assert!(token.subject("x".repeat(256)).wrong().is_some());
    }
}
