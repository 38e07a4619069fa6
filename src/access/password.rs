//! A hashed password, as a file of users has it: bcrypt, or SHA-crypt with SHA-256 or SHA-512.
//!
//! What is quick to compute is quick to guess, so the others are refused in words: plain text, MD5, SHA-1, DES.

use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha_crypt::{PasswordVerifier, ShaCrypt};
use std::io;
use std::ops::RangeInclusive;
use subtle::ConstantTimeEq;

/// What bcrypt may cost here, each step twice as much as the one before: 14 takes about a second, and on a small host
/// several, in which nobody else is verified.
pub const COSTS: RangeInclusive<u32> = 4..=14;
/// A twentieth of a second, and a part of a second on a small host.
pub const DEFAULT_COST: u32 = 10;
/// The same of SHA-crypt; it begins at what its own definition has for the least.
const ROUNDS: RangeInclusive<u32> = 1000..=1_000_000;
/// Where a hash does not say it.
const DEFAULT_ROUNDS: u32 = 5000;
/// bcrypt takes so many bytes of a password, and a NUL behind it if that is shorter.
const BCRYPT_BYTES: usize = 72;

/// Bits that are left over are for nothing: some programs set them in a salt.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// What a password is compared with.
pub struct Hashed(Scheme);

enum Scheme {
    Bcrypt {
        cost: u32,
        salt: [u8; 16],
        hash: [u8; 23],
    },
    /// As it stands in the file.
    Sha {
        bits: u16,
        rounds: u32,
        text: Box<str>,
    },
}

impl Hashed {
    /// Reads it, or says what it is instead; never what is in it.
    pub fn parse(text: &str) -> Result<Hashed, String> {
        let known = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix));
        if let Some(rest) = known {
            return bcrypt_of(rest);
        }
        for (prefix, bits) in [("$5$", 256), ("$6$", 512)] {
            if let Some(rest) = text.strip_prefix(prefix) {
                return sha_of(text, rest, bits);
            }
        }
        let is_des = text.len() == 13 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
        let what = match text {
            "" => "empty",
            text if text.starts_with("$apr1$") || text.starts_with("$1$") => "MD5",
            text if text.starts_with("{SHA}") || text.starts_with("{SSHA") => "SHA-1",
            text if text.starts_with("$2x$") => "bcrypt with the fault of 2011 ($2x$)",
            text if text.starts_with('$') => "hashed by something that is not known here",
            _ if is_des => "DES",
            _ => "plain text, or nothing that is known here",
        };
        Err(format!("is {what}, allowed is bcrypt, or SHA-256 or SHA-512 crypt"))
    }

    /// Whether it is of that password, in a time that says nothing of how much of it is right.
    pub fn is_of(&self, password: &[u8]) -> bool {
        match &self.0 {
            Scheme::Bcrypt { cost, salt, hash } => bcrypt(*cost, *salt, password).ct_eq(hash).into(),
            Scheme::Sha { text, .. } => ShaCrypt::default().verify_password(password, &**text).is_ok(),
        }
    }

    /// About what it takes to compute, in nanoseconds of the machine that it was measured on: to compare.
    pub fn weight(&self) -> u64 {
        match self.0 {
            Scheme::Bcrypt { cost, .. } => 60_000 << cost,
            Scheme::Sha { bits: 256, rounds, .. } => 200 * u64::from(rounds),
            Scheme::Sha { rounds, .. } => 250 * u64::from(rounds),
        }
    }
}

/// Hashes a password by bcrypt, with a salt of its own.
///
/// # Errors
/// There is nothing random to be had.
pub fn hash(password: &[u8], cost: u32) -> io::Result<String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    let hash = bcrypt(cost, salt, password);
    Ok(format!("$2y${cost:02}${}{}", BASE64.encode(salt), BASE64.encode(hash)))
}

/// What is longer counts as far as it goes, as everywhere else: a file that `htpasswd` has written lets in whom it lets in
/// there.
fn bcrypt(cost: u32, salt: [u8; 16], password: &[u8]) -> [u8; 23] {
    let mut key = [0; BCRYPT_BYTES];
    let length = password.len().min(BCRYPT_BYTES);
    key[..length].copy_from_slice(&password[..length]);
    let hash = bcrypt::bcrypt(cost, salt, &key[..(length + 1).min(BCRYPT_BYTES)]);
    std::array::from_fn(|at| hash[at])
}

/// `COST$SALT HASH`, without the space.
fn bcrypt_of(rest: &str) -> Result<Hashed, String> {
    let malformed = || "is no whole bcrypt hash: was the line cut?".to_owned();
    let (cost, rest) = rest.split_once('$').ok_or_else(malformed)?;
    let cost = Some(cost).filter(|cost| cost.len() == 2).and_then(http1::number::decimal).ok_or_else(malformed)?;
    let (salt, hash) = rest.split_at_checked(22).filter(|(_, hash)| hash.len() == 31).ok_or_else(malformed)?;
    let salt = BASE64.decode(salt).ok().and_then(|salt| salt.try_into().ok()).ok_or_else(malformed)?;
    let hash = BASE64.decode(hash).ok().and_then(|hash| hash.try_into().ok()).ok_or_else(malformed)?;
    if !COSTS.contains(&cost) {
        let (low, high) = COSTS.into_inner();
        return Err(format!("is bcrypt of cost {cost}, allowed is {low} to {high}"));
    }
    Ok(Hashed(Scheme::Bcrypt { cost, salt, hash }))
}

/// `[rounds=N$]SALT$HASH`
fn sha_of(text: &str, rest: &str, bits: u16) -> Result<Hashed, String> {
    let malformed = || format!("is no whole SHA-{bits} crypt hash: was the line cut?");
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        None => (Some(DEFAULT_ROUNDS), rest),
        Some(rest) => {
            let (rounds, rest) = rest.split_once('$').ok_or_else(malformed)?;
            (http1::number::decimal(rounds), rest)
        }
    };
    let Some(rounds) = rounds.filter(|rounds| ROUNDS.contains(rounds)) else {
        let (low, high) = ROUNDS.into_inner();
        return Err(format!("is SHA-{bits} crypt of a number of rounds that is not allowed: {low} to {high} are"));
    };
    let of_crypt = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
    let (salt, hash) = rest.split_once('$').ok_or_else(malformed)?;
    let length = if bits == 256 { 43 } else { 86 };
    if salt.is_empty() || salt.len() > 16 || !of_crypt(salt) || hash.len() != length || !of_crypt(hash) {
        return Err(malformed());
    }
    Ok(Hashed(Scheme::Sha { bits, rounds, text: text.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `htpasswd -nbB -C 5`, `mkpasswd -m bcrypt-a` and `-m bcrypt`, `mkpasswd -m sha512crypt` and `sha256crypt`, with
    /// `-R` too: what they make of "correct horse".
    const MADE: [&str; 6] = [
        "$2y$05$bMSs7rVpGhYVja2avUbQFuUXhRDYT665E.nmCkkK5gfI/PveopIzi",
        "$2a$05$PT5w8sWeOUHS4UCUW0iVxOrYPm9sPdULjcXQKEAyIDWZyn0U80Tda",
        "$2b$05$m3R/Pmb0ujzi0qwg.dOqqeGrup0hYcgizTj7/OwOEdfmdCog/mFcG",
        "$6$7E6Jm4lBxZ7Rzcjx$5E0zVnExQqwGj6Nm8YB79lh1IFvnMuEcmSkJYI2iywy.jsEzkfZ4E2UL.rut9uYhg6j2TbbtfKLYLhZ3moDlr0",
        "$5$HmhTUk38nFH.EoAT$tS23Ob6yOOOFpxoc9aW.slId2FQ0pvj0NqxjHPHOrF6",
        "$6$rounds=1234$GeknQhsDLg8DpaSj$bZYp4ETPW4Nhdmy9D47KhkOiWjYePKuEsv7OcUgEinkn84SbHYD/VpKkiJaUfCyqsihB7OXyn9KYPv93Fqc4R0",
    ];

    #[test]
    fn what_other_programs_have_hashed_is_of_their_password_alone() {
        for text in MADE {
            let hashed = Hashed::parse(text).unwrap_or_else(|what| panic!("{text}: {what}"));
            assert!(hashed.is_of(b"correct horse"), "{text}");
            for wrong in [&b""[..], b"correct hors", b"correct horse ", b"Correct horse", b"correct horse\0"] {
                assert!(!hashed.is_of(wrong), "{text}: {wrong:?}");
            }
        }
    }

    #[test]
    fn what_is_hashed_here_is_read_here() {
        let text = hash(b"correct horse", 4).expect("something random");
        assert!(text.starts_with("$2y$04$") && text.len() == 60, "{text}");
        assert!(Hashed::parse(&text).is_ok_and(|hashed| hashed.is_of(b"correct horse") && !hashed.is_of(b"wrong")));
        assert_ne!(text, hash(b"correct horse", 4).expect("something random"), "each has a salt of its own");
    }

    /// As `htpasswd -v` and nginx have it.
    #[test]
    fn of_a_long_password_bcrypt_takes_72_bytes() {
        let long = "x".repeat(100);
        let hashed = Hashed::parse("$2y$04$Thc/7VngqLJsyIRKJ9Yrv.5zyTQ0QH1XHGtPdbRnYQ2xUGiCFx8Ie").expect("a hash");
        assert!(hashed.is_of(long.as_bytes()) && hashed.is_of(&long.as_bytes()[..72]));
        assert!(!hashed.is_of(&long.as_bytes()[..71]));
    }

    #[test]
    fn what_is_not_allowed_is_named_without_what_is_in_it() {
        let bcrypt = MADE[0].to_owned();
        let sha = MADE[3].to_owned();
        for (text, says) in [
            (String::new(), "is empty"),
            ("secret".to_owned(), "is plain text"),
            ("$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00".to_owned(), "is MD5"),
            ("$1$abcdefgh$G7uMhQXk0EoOQHEPFjq2l0".to_owned(), "is MD5"),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=".to_owned(), "is SHA-1"),
            ("rqXexS6ZhobKA".to_owned(), "is DES"),
            ("$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7".to_owned(), "not known here"),
            (bcrypt.replace("$2y$", "$2x$"), "with the fault of 2011"),
            (bcrypt.replace("$05$", "$15$"), "is bcrypt of cost 15, allowed is 4 to 14"),
            (bcrypt.replace("$05$", "$03$"), "is bcrypt of cost 3"),
            (bcrypt.replace("$05$", "$5$"), "no whole bcrypt hash"),
            (bcrypt[..59].to_owned(), "no whole bcrypt hash"),
            (bcrypt.clone() + "x", "no whole bcrypt hash"),
            (bcrypt[..50].to_owned() + "!" + &bcrypt[51..], "no whole bcrypt hash"),
            (bcrypt[..28].to_owned() + "é" + &bcrypt[30..], "no whole bcrypt hash"),
            (sha.replace("$6$", "$6$rounds=999$"), "number of rounds"),
            (sha.replace("$6$", "$6$rounds=1000001$"), "number of rounds"),
            (sha.replace("$6$", "$6$rounds=x$"), "number of rounds"),
            (sha[..sha.len() - 1].to_owned(), "no whole SHA-512 crypt hash"),
            (sha.replace("$6$", "$5$"), "no whole SHA-256 crypt hash"),
            ("$6$".to_owned(), "no whole SHA-512 crypt hash"),
        ] {
            let what = Hashed::parse(&text).err().unwrap_or_else(|| panic!("{text} is read"));
            assert!(what.contains(says) && !what.contains('\n'), "{text}: {what}");
            assert!(text.len() < 6 || !what.contains(&text), "{text}: {what}");
        }
    }
}
