//! What a client likes best: Accept-Encoding and Accept (RFC 9110 §12.4 and §12.5).

use super::{is_same_name, is_token_byte, list_elements};

/// A content coding that a file can have beside it (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All there are, in the order that they are preferred in: by the size that is to be expected of text that was
    /// compressed as far as it goes, which files are that are compressed in advance.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// The name in Content-Encoding and in Accept-Encoding.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// Whether a name in Accept-Encoding means it: names ignore case, and `x-gzip` is gzip (RFC 9110 §8.4.1.3).
    fn is(self, name: &[u8]) -> bool {
        let alias = if self == Coding::Gzip { "x-gzip" } else { self.name() };
        is_same_name(name, self.name().as_bytes()) || is_same_name(name, alias.as_bytes())
    }
}

/// The codings that a client likes at least as well as no coding, the best first.
///
/// It is all that a request has to say about which variant of a file answers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    codings: [Option<Coding>; Coding::ALL.len()],
}

impl Ranking {
    /// Ranks the codings in `offered` by the values of Accept-Encoding; among equals, the order of `offered` decides.
    ///
    /// Without the field there are none: RFC 9110 §12.5.3 would allow all, but who does not name a coding mostly cannot
    /// read it. What is not an element of the grammar is ignored, and of two for one coding the second. Where nothing
    /// at all is acceptable (`identity;q=0`), nothing is ranked either, and the client gets the file as it is:
    /// §12.5.3 lets a server disregard the field, and that helps more than an error.
    pub fn of<'v>(values: impl Iterator<Item = &'v [u8]>, offered: &[Coding]) -> Ranking {
        let mut weights = [None; Coding::ALL.len()];
        let (mut identity, mut others) = (None, None);
        for (name, weight) in values.flat_map(list_elements).filter_map(weighted) {
            let slot = match Coding::ALL.into_iter().find(|coding| coding.is(name)) {
                Some(coding) => &mut weights[coding as usize],
                None if is_same_name(name, b"identity") => &mut identity,
                None if name == b"*" => &mut others,
                None => continue,
            };
            slot.get_or_insert(weight);
        }
        // What is not named has the weight of `*`; without one, no coding is acceptable and identity the last resort.
        let identity = identity.or(others).unwrap_or(0);
        let weight = |coding: Coding| weights[coding as usize].or(others).unwrap_or(0);
        let acceptable = |coding: Coding| weight(coding) > 0 && weight(coding) >= identity;
        let mut codings = [None; Coding::ALL.len()];
        let mut ranked = 0;
        for &coding in offered {
            if acceptable(coding) && !codings.contains(&Some(coding)) {
                // Behind those that are liked as well and were offered before.
                let liked = |other: &&Coding| weight(**other) >= weight(coding);
                let at = codings.iter().flatten().take_while(liked).count();
                codings.copy_within(at..ranked, at + 1);
                codings[at] = Some(coding);
                ranked += 1;
            }
        }
        Ranking { codings }
    }

    /// The codings, the best first.
    pub fn codings(self) -> impl Iterator<Item = Coding> {
        self.codings.into_iter().flatten()
    }

    /// Whether the coding is among them.
    pub fn has(self, coding: Coding) -> bool {
        self.codings.contains(&Some(coding))
    }
}

/// Whether the values of Accept allow HTML (RFC 9110 §12.5.1); without the field everything is allowed.
///
/// Of `text/html`, `text/*` and `*/*` the most precise one that is there decides, whatever the others say. What is no
/// media range is ignored.
pub fn accepts_html<'v>(values: impl Iterator<Item = &'v [u8]>) -> bool {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return true;
    }
    let weights = weights(values, [b"text/html", b"text/*", b"*/*"]);
    weights.into_iter().flatten().next().is_some_and(|weight| weight > 0)
}

/// Whether the values of Accept name `text/html` and like it at least as well as `text/plain`: so browsers ask for what they
/// are to show, and hardly anybody else. `*/*` and no Accept at all are content with either.
pub fn prefers_html<'v>(values: impl Iterator<Item = &'v [u8]>) -> bool {
    let [html, plain, text, all] = weights(values, [b"text/html", b"text/plain", b"text/*", b"*/*"]);
    let plain = plain.or(text).or(all).unwrap_or(0);
    html.is_some_and(|html| html > 0 && html >= plain)
}

/// What the values of Accept say of each of these media ranges by its name. Of several that are the same the largest counts,
/// since parameters may tell them apart that mean nothing here.
fn weights<'v, const N: usize>(values: impl Iterator<Item = &'v [u8]>, ranges: [&[u8]; N]) -> [Option<u16>; N] {
    let mut weights = [None; N];
    for (range, weight) in values.flat_map(list_elements).filter_map(media_range) {
        if let Some(at) = ranges.iter().position(|known| is_same_name(known, range)) {
            weights[at] = weights[at].max(Some(weight));
        }
    }
    weights
}

/// `type/subtype;parameter=value;q=0.5` without its parameters, and the weight in thousandths.
fn media_range(element: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let range = parts.next()?;
    match parts.find(|part| matches!(part, [b'q' | b'Q', b'=', ..])) {
        Some(parameter) => Some((range, weight(parameter)?)),
        None => Some((range, 1000)),
    }
}

/// `name` or `name;q=0.5`, the weight in thousandths.
fn weighted(element: &[u8]) -> Option<(&[u8], u16)> {
    let (name, weight) = match element.iter().position(|&byte| byte == b';') {
        None => (element, 1000),
        Some(at) => (element[..at].trim_ascii_end(), weight(element[at + 1..].trim_ascii_start())?),
    };
    (!name.is_empty() && name.iter().all(|&byte| is_token_byte(byte))).then_some((name, weight))
}

/// `q=0.5` in thousandths (RFC 9110 §12.4.2): 0 to 1 with up to three digits behind the point, and nothing else.
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), fraction @ ..] = parameter else { return None };
    let digits = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let thousandths = (0..3).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| u16::from(digit - b'0')));
    let weight = u16::from(whole - b'0') * 1000 + thousandths;
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Brotli, Gzip, Zstd};

    fn rank(values: &[&str], offered: &[Coding]) -> Vec<Coding> {
        Ranking::of(values.iter().map(|value| value.as_bytes()), offered).codings().collect()
    }

    #[test]
    fn weights_are_read_as_they_are_written() {
        for (text, expected) in [
            ("q=1", Some(1000)),
            ("q=0", Some(0)),
            ("Q=0.5", Some(500)),
            ("q=0.", Some(0)),
            ("q=1.", Some(1000)),
            ("q=0.001", Some(1)),
            ("q=0.123", Some(123)),
            ("q=1.000", Some(1000)),
            ("q=1.001", None),
            ("q=0.1234", None),
            ("q=1.0000", None),
            ("q=2", None),
            ("q=.5", None),
            ("q=-1", None),
            ("q=+1", None),
            ("q=00", None),
            ("q=0,5", None),
            ("q =1", None),
            ("q= 1", None),
            ("q=\"1\"", None),
            ("q=0.5;x", None),
            ("q", None),
            ("x=1", None),
            ("", None),
        ] {
            assert_eq!(weight(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn what_the_field_means() {
        let all = &Coding::ALL[..];
        for (value, expected) in [
            ("gzip, deflate, br, zstd", &[Brotli, Zstd, Gzip][..]),
            ("gzip", &[Gzip]),
            ("GZip", &[Gzip]),
            ("x-gzip", &[Gzip]),
            ("gzip;q=0, x-gzip", &[]),
            ("gzip;q=0.5, br;q=0.8", &[Brotli, Gzip]),
            ("br;q=0.5 , gzip;q=0.8", &[Gzip, Brotli]),
            ("gzip ; q=0.5", &[Gzip]),
            ("gzip;q=0", &[]),
            ("gzip;q=0.000", &[]),
            ("gzip;q=0.001", &[Gzip]),
            // Everything, or everything but.
            ("*", &[Brotli, Zstd, Gzip]),
            ("*;q=0", &[]),
            ("br;q=0, *", &[Zstd, Gzip]),
            ("gzip, *;q=0", &[Gzip]),
            ("gzip;q=0.5, *;q=0.8", &[Brotli, Zstd]),
            // No coding is a choice like others, once it is named.
            ("identity", &[]),
            ("identity, gzip;q=0.9", &[]),
            ("identity;q=0.5, gzip;q=0.9", &[Gzip]),
            ("identity;q=0.9, gzip;q=0.9", &[Gzip]),
            ("identity;q=0", &[]),
            ("identity;q=0, gzip;q=0.1", &[Gzip]),
            ("IDENTITY;q=1, *;q=0.5", &[]),
            // Nothing of the grammar.
            ("", &[]),
            (",, gzip ,", &[Gzip]),
            ("gzip;q=2, br", &[Brotli]),
            ("gzip;q=0.1234", &[]),
            ("gzip;level=1", &[]),
            ("gzip;", &[]),
            ("gz ip", &[]),
            ("br gzip", &[]),
            ("\"gzip\"", &[]),
            ("gzip;q=0, gzip", &[]),
            ("gzip, gzip;q=0", &[Gzip]),
            ("deflate, compress", &[]),
            ("gzip\u{e4}", &[]),
        ] {
            assert_eq!(rank(&[value], all), expected, "{value:?}");
        }
        assert_eq!(rank(&[], all), [], "no field");
        assert_eq!(rank(&["gzip;q=0.5", "br;q=0.4"], all), [Gzip, Brotli], "two fields are one list");
    }

    #[test]
    fn who_accepts_html() {
        assert!(accepts_html([].into_iter()));
        for (value, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("*/*", true),
            ("text/*", true),
            ("TEXT/HTML", true),
            ("text/html;charset=utf-8", true),
            ("text/html;level=1;q=0, text/html;q=0.1", true),
            ("text/html ; q=0.001", true),
            ("application/json", false),
            ("application/json, text/plain", false),
            ("image/*", false),
            ("text/html;q=0", false),
            ("text/html;q=0, */*", false),
            ("*/*;q=0", false),
            ("*/*;q=0, text/html", true),
            ("text/*;q=0, */*", false),
            ("text/html;q=2", false),
            ("text/html;q=2, */*", true),
            ("text", false),
            ("html", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(accepts_html([value.as_bytes()].into_iter()), expected, "{value:?}");
        }
        assert!(accepts_html([&b"application/json"[..], b"text/html"].into_iter()));
    }

    #[test]
    fn who_prefers_html() {
        assert!(!prefers_html([].into_iter()));
        for (value, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", true),
            ("text/html", true),
            ("Text/HTML;charset=utf-8", true),
            ("text/html, text/plain", true),
            ("text/html;q=0.8, text/plain;q=0.8", true),
            ("text/html;q=0.001", true),
            ("text/plain;q=0, text/*, text/html;q=0.1", true),
            ("text/html;q=0.7, text/plain;q=0.8", false),
            ("text/html;q=0.7, text/*;q=0.8", false),
            ("text/html;q=0.7, */*", false),
            ("text/html;q=0", false),
            ("text/html;q=2", false),
            ("*/*", false),
            ("text/*", false),
            ("application/json, text/plain, */*", false),
            ("image/avif,image/webp,*/*;q=0.8", false),
            ("", false),
        ] {
            assert_eq!(prefers_html([value.as_bytes()].into_iter()), expected, "{value:?}");
        }
        assert!(prefers_html([&b"text/plain;q=0.5"[..], b"text/html"].into_iter()), "two fields are one list");
    }

    #[test]
    fn only_what_is_offered_counts_and_its_order_among_equals() {
        assert_eq!(rank(&["*"], &[Gzip, Brotli]), [Gzip, Brotli]);
        assert_eq!(rank(&["br, gzip"], &[Gzip, Brotli]), [Gzip, Brotli]);
        assert_eq!(rank(&["br, gzip;q=0.9"], &[Gzip, Brotli]), [Brotli, Gzip]);
        assert_eq!(rank(&["br"], &[Gzip]), []);
        assert_eq!(rank(&["*"], &[]), []);
    }
}
