//! Basic authentication (RFC 7617): from the Authorization of a request to who it is, or what it is told instead.

use super::users::{LONGEST_NAME, Users};
use super::verifier::{Claim, Verifier};
use crate::api::Request;
use crate::logging::rate_limit::log_rate_limited;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http1::is_same_name;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a password. Each round of SHA-crypt goes over all of it, so that what a client sends is what we compute.
const LONGEST_PASSWORD: usize = 256;
/// What name, colon and password take in base64.
const LONGEST: usize = (LONGEST_NAME + 1 + LONGEST_PASSWORD).div_ceil(3) * 4;
/// With or without what pads it: clients do both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Lets in who is in a file of users.
pub struct BasicAuth {
    challenge: String,
    file: Arc<UsersFile>,
    verifier: Arc<Verifier>,
}

/// A file of users, which several may share.
pub struct UsersFile {
    pub path: PathBuf,
    pub users: Users,
    /// Of the file, among those that the verifier knows.
    pub number: usize,
}

/// Who a request says it is, and whether it comes in.
pub struct Visitor {
    /// Also of one who is refused, for the log.
    pub name: Option<String>,
    pub refusal: Option<Refusal>,
}

/// Why a request does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody knows who it is, or the password is wrong.
    Unknown,
    /// There are two Authorizations, and perhaps two that somebody before us would take.
    Ambiguous,
    /// Too many wait to be verified.
    Busy,
}

impl Refusal {
    /// The status that answers it.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Unknown => 401,
            Refusal::Ambiguous => 400,
            Refusal::Busy => 429,
        }
    }
}

impl BasicAuth {
    /// For these users, under a realm of printable ASCII without quotes and backslashes.
    pub fn new(realm: &str, file: &Arc<UsersFile>, verifier: &Arc<Verifier>) -> BasicAuth {
        // RFC 7617 §2.1: so that a browser sends what was typed as UTF-8.
        let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
        BasicAuth { challenge, file: file.clone(), verifier: verifier.clone() }
    }

    /// What WWW-Authenticate asks for.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// For `--check`: whom it lets in.
    pub fn describe(&self) -> String {
        format!("for users of {:?} ({})", self.file.path, self.file.users.len())
    }

    /// Who has sent a request, and whether that one comes in.
    pub fn visitor(&self, request: &Request) -> Visitor {
        let mut visitor = Visitor { name: None, refusal: None };
        visitor.refusal = self.admit(request, &mut visitor.name).err();
        visitor
    }

    fn admit(&self, request: &Request, said: &mut Option<String>) -> Result<(), Refusal> {
        if request.header_values("Authorization").nth(1).is_some() {
            return Err(Refusal::Ambiguous);
        }
        let decoded = request.header_bytes("Authorization").and_then(decoded).ok_or(Refusal::Unknown)?;
        let colon = decoded.iter().position(|&byte| byte == b':').ok_or(Refusal::Unknown)?;
        let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
        let name = std::str::from_utf8(user).ok().filter(|name| name.len() <= LONGEST_NAME).ok_or(Refusal::Unknown)?;
        *said = Some(name.to_owned());
        // None is a control character (RFC 7617 §2), and bcrypt would read a NUL as the end.
        if decoded.iter().any(u8::is_ascii_control) || password.len() > LONGEST_PASSWORD {
            return Err(Refusal::Unknown);
        }
        let claim = Claim { file: self.file.number, user, password };
        let (what, refusal) = match self.verifier.check(&claim, || self.file.users.have(name, password)) {
            Some(true) => return Ok(()),
            Some(false) => ("no such user, or a wrong password", Refusal::Unknown),
            None => ("too many wait to be verified", Refusal::Busy),
        };
        let from = request.remote_addr().map_or(String::new(), |peer| format!(" from {}", peer.ip()));
        let (method, target) = (request.method(), request.shown_url());
        log_rate_limited!(warn, "{what}: {name:?}{from} ({method} {target:.200})");
        Err(refusal)
    }
}

/// What stands behind `Basic`, if that and no more is there.
fn decoded(field: &[u8]) -> Option<Vec<u8>> {
    let space = field.iter().position(|&byte| byte == b' ')?;
    let (scheme, credentials) = (&field[..space], field[space..].trim_ascii());
    if !is_same_name(scheme, b"Basic") || credentials.len() > LONGEST {
        return None;
    }
    BASE64.decode(credentials).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `ada` with "correct horse", and `bob`, whose password has a colon: "a:b".
    fn guard() -> BasicAuth {
        let hashed = |password: &[u8]| super::super::hash(password, 4).expect("something random");
        let text =
            format!("ada:{}\nbob:{}\nümit:{}\n", hashed(b"correct horse"), hashed(b"a:b"), hashed("ß".as_bytes()));
        let users = Users::parse(text.as_bytes(), Path::new("users")).expect("three users");
        let verifier = Verifier::new(4).expect("something random");
        let file = UsersFile { path: "users".into(), users, number: 0 };
        BasicAuth::new("the house", &Arc::new(file), &Arc::new(verifier))
    }

    fn admit(guard: &BasicAuth, fields: &str) -> (Result<(), Refusal>, Option<String>) {
        let head = format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        let visitor = guard.visitor(&Request::from_head(head.as_bytes()).expect("a head"));
        (visitor.refusal.map_or(Ok(()), Err), visitor.name)
    }

    fn basic(credentials: impl AsRef<[u8]>) -> String {
        format!("Authorization: Basic {}\r\n", BASE64.encode(credentials))
    }

    #[test]
    fn who_has_the_password_comes_in() {
        let guard = guard();
        for (credentials, user) in [("ada:correct horse", "ada"), ("bob:a:b", "bob"), ("ümit:ß", "ümit")] {
            for _ in 0..2 {
                assert_eq!(admit(&guard, &basic(credentials)), (Ok(()), Some(user.to_owned())), "{credentials}");
            }
        }
        let value = BASE64.encode("bob:a:b");
        for field in
            [format!("basic {value}"), format!("BASIC   {value} "), format!("Basic {}", value.trim_end_matches('='))]
        {
            assert_eq!(admit(&guard, &format!("authorization: {field}\r\n")).0, Ok(()), "{field}");
        }
        assert_eq!(guard.challenge(), "Basic realm=\"the house\", charset=\"UTF-8\"");
    }

    #[test]
    fn everybody_else_is_told_how() {
        let guard = guard();
        let refused = |fields: &str, user: Option<&str>| {
            assert_eq!(admit(&guard, fields), (Err(Refusal::Unknown), user.map(str::to_owned)), "{fields}");
        };
        for fields in ["", "Authorization: \r\n", "Authorization: Basic\r\n", "Authorization: Basic \r\n"] {
            refused(fields, None);
        }
        refused("Authorization: Basic YWRh*\r\n", None);
        refused(&basic("ada"), None);
        refused(&basic(""), None);
        refused(&basic("ada:correct horse").replace("Basic", "Bearer"), None);
        refused(&basic("ada:correct horse").replace("\r\n", ",\r\n"), None);
        refused(&basic("ada:wrong"), Some("ada"));
        refused(&basic("eve:correct horse"), Some("eve"));
        refused(&basic("ADA:correct horse"), Some("ADA"));
        refused(&basic("ada:"), Some("ada"));
        refused(&basic(":correct horse"), Some(""));
        refused(&basic("ada:correct horse\0"), Some("ada"));
        refused(&basic("a\nda:correct horse"), Some("a\nda"));
        refused(&basic(b"\xff:x"), None);
        refused(&basic("x".repeat(256) + ":x"), None);
        refused(&basic("x".repeat(255) + ":x"), Some(&"x".repeat(255)));
        refused(&basic("ada:".to_owned() + &"x".repeat(257)), Some("ada"));
        refused(&basic("ada:".to_owned() + &"x".repeat(4000)), None);
    }

    #[test]
    fn two_authorizations_are_none() {
        let guard = guard();
        let (right, wrong) = (basic("ada:correct horse"), basic("ada:wrong"));
        for fields in
            [format!("{right}{right}"), format!("{right}{wrong}"), format!("Authorization: Bearer x\r\n{right}")]
        {
            assert_eq!(admit(&guard, &fields), (Err(Refusal::Ambiguous), None), "{fields}");
        }
    }
}
