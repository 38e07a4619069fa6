//! The keys that tokens are signed with, and the file that has them.

use crate::Error;
use crate::sys::regular_file;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// As long as what it makes: a shorter one is easier to guess than a signature (RFC 7518 §3.2).
const SHORTEST: usize = 32;
/// One that signs, and the one before it.
const MOST: usize = 2;
/// Bytes of a file. Larger is something else.
const FILE: u64 = 4096;
/// With or without what pads it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The keys of tokens (HMAC with SHA-256): one, or while it is replaced two. The first signs, and what either has signed is
/// good. Cheap to clone.
///
/// ```
/// use handover::{Publishers, Hub, Router, Subscribers, Token, TokenKeys};
/// use std::time::Duration;
///
/// let keys = TokenKeys::new(["32 bytes or more, by chance alone."])?;
/// let hub = Hub::new();
/// let rooms = hub.namespace("rooms").tokens(&keys).subscribers(Subscribers::Token).publishers(Publishers::Token);
/// let router = Router::new().mount_service("/rooms", rooms.service());
/// // For somebody who has logged in:
/// let token = Token::new(Duration::from_secs(3600)).subject("ada").subscribe("kitchen").publish("kitchen").sign(&keys);
/// # let _ = (router, token);
/// # Ok::<(), handover::Error>(())
/// ```
#[derive(Clone)]
pub struct TokenKeys(Arc<[Hmac<Sha256>]>);

impl TokenKeys {
    /// Of these bytes: at least 32 that nobody can guess, for each of one or two keys.
    ///
    /// # Errors
    /// A configuration error for a key that is too short, for none, and for more than two.
    pub fn new<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Result<TokenKeys, Error> {
        let keys: Vec<K> = keys.into_iter().collect();
        let keys = TokenKeys::of(keys.iter().map(AsRef::as_ref).zip(1..).map(|(key, number)| (number, key.to_vec())));
        keys.map_err(|what| Error::config(format_args!("the keys of tokens: {}", what.replace("line", "key"))))
    }

    /// As [`new`](TokenKeys::new) in the example of [`TokenKeys`], of a file: a key a line, in base64, as `openssl rand -base64 32` makes one. It is read once, and at a reload anew.
    ///
    /// # Errors
    /// A configuration error that says what is wrong with the file, and nothing of what is in it.
    pub fn read(path: impl AsRef<Path>) -> Result<TokenKeys, Error> {
        let path = path.as_ref();
        TokenKeys::read_file(path).map_err(|what| Error::config(format_args!("the key file {path:?}: {what}")))
    }

    pub(crate) fn read_file(path: &Path) -> Result<TokenKeys, String> {
        let too_large = format!("it has more than {FILE} bytes, and one or two keys have less");
        TokenKeys::parse(&regular_file::read(path, FILE, "it is not a regular file", &too_large)?)
    }

    fn parse(text: &[u8]) -> Result<TokenKeys, String> {
        let lines =
            text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).zip(1..).filter(|(line, _)| !line.is_empty());
        let decoded = |(line, number): (&[u8], usize)| {
            // It would be base64 as well, of other bytes than those that were meant.
            if line.len() >= 2 * SHORTEST && line.iter().all(u8::is_ascii_hexdigit) {
                return Err(format!("line {number} is hexadecimal, allowed is base64: openssl rand -base64 32"));
            }
            let key = BASE64.decode(line);
            let key = key
                .map_err(|_| format!("line {number} is no base64, allowed is a key a line: openssl rand -base64 32"))?;
            Ok((number, key))
        };
        TokenKeys::of(lines.map(decoded).collect::<Result<Vec<_>, String>>()?)
    }

    /// Of keys and where they stand.
    fn of(keys: impl IntoIterator<Item = (usize, Vec<u8>)>) -> Result<TokenKeys, String> {
        let prepared = |(number, key): (usize, Vec<u8>)| {
            if key.len() < SHORTEST {
                return Err(format!("line {number} has {} bytes of a key, allowed is {SHORTEST} or more", key.len()));
            }
            Hmac::new_from_slice(&key).map_err(|error| format!("line {number}: {error}"))
        };
        let keys: Vec<Hmac<Sha256>> = keys.into_iter().map(prepared).collect::<Result<_, String>>()?;
        match keys.len() {
            0 => Err("there is no key, allowed is one, or two while it is replaced".to_owned()),
            1..=MOST => Ok(TokenKeys(keys.into())),
            more => Err(format!("there are {more} keys, allowed is one, or {MOST} while it is replaced")),
        }
    }

    pub(super) fn sign(&self, text: &[u8]) -> Vec<u8> {
        let first = self.0.first().map(|key| key.clone().chain_update(text).finalize().into_bytes());
        first.map(|signature| signature.to_vec()).unwrap_or_default()
    }

    /// Whether one of them has signed it. How long that takes says nothing of how much of a signature is right.
    pub(super) fn have_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|key| key.clone().chain_update(text).verify_slice(signature).is_ok())
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=";
    const OTHER: &str = "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI=";

    fn parse(text: &str) -> Result<TokenKeys, String> {
        TokenKeys::parse(text.as_bytes())
    }

    #[test]
    fn a_file_has_a_key_a_line() {
        let raw = TokenKeys::new([[b'1'; 32]]).expect("a key");
        for text in [KEY.to_owned(), format!("{KEY}\r\n"), format!("\n {}\n\n", KEY.trim_end_matches('='))] {
            assert!(parse(&text).expect(&text).have_signed(b"text", &raw.sign(b"text")), "{text:?}");
        }
        let both = parse(&format!("{OTHER}\n{KEY}\n")).expect("two keys");
        assert!(both.have_signed(b"text", &raw.sign(b"text")) && both.have_signed(b"text", &both.sign(b"text")));
        assert!(!raw.have_signed(b"text", &both.sign(b"text")), "the first one signs");
        assert!(!raw.have_signed(b"text", b"") && !raw.have_signed(b"text", &raw.sign(b"text")[..31]));
    }

    #[test]
    fn a_file_that_is_wrong_is_told_in_a_line_without_what_is_in_it() {
        for (text, says) in [
            (String::new(), "there is no key"),
            ("\n\n".to_owned(), "there is no key"),
            ("MTEx\n".to_owned(), "line 1 has 3 bytes of a key, allowed is 32 or more"),
            (format!("{KEY}\n{}", &KEY[..40]), "line 2 has 30 bytes"),
            (format!("{KEY}\n{OTHER}\n{KEY}"), "there are 3 keys"),
            (format!("{KEY}{KEY}"), "line 1 is no base64"),
            ("correct horse battery staple, and then some".to_owned(), "line 1 is no base64"),
            ("é".repeat(40), "line 1 is no base64"),
            ("0123456789abcdef".repeat(4), "line 1 is hexadecimal"),
        ] {
            let what = parse(&text).expect_err(&text);
            assert!(what.contains(says) && !what.contains('\n') && !what.contains("MT"), "{text:?}: {what}");
        }
        let error = TokenKeys::new(["short"]).expect_err("short");
        assert!(error.is_config() && error.to_string().contains("key 1 has 5 bytes"), "{error}");
        assert!(TokenKeys::new([[0; 32]; 3]).is_err() && TokenKeys::new::<[u8; 32]>([]).is_err());
        assert_eq!(format!("{:?}", TokenKeys::new([[b'1'; 32]]).expect("a key")), "TokenKeys(1)");
    }
}
