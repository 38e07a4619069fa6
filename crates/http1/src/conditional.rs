//! Conditional requests (RFC 9110 §13). No I/O and no clock: what is compared arrives as arguments.

use crate::date;
use crate::head::Fields;
use tiny_http::Method;

/// What identifies the state of a representation (RFC 9110 §8.8).
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// A strong entity tag, with its quotes.
    pub etag: &'a str,
    /// Last-Modified in seconds since 1970, where there is one.
    pub modified: Option<u64>,
    /// Whether another state would have another date, a second apart; a date that was set says nothing of the kind.
    pub is_dated: bool,
}

/// What the preconditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on, as if there had been none.
    Proceed,
    /// 304: the client has it already.
    NotModified,
    /// 412: the state is not what the client thought.
    Failed,
}

/// Evaluates the preconditions in the order of RFC 9110 §13.2.2, If-Range excepted.
pub fn evaluate(request: Fields<'_>, validators: Validators<'_>) -> Verdict {
    let reads = matches!(request.method(), Method::Get | Method::Head);
    if has(request, "If-Match") {
        if !matches_any(request, "If-Match", validators.etag, Comparison::Strong) {
            return Verdict::Failed;
        }
    // "MUST ignore if the resource does not have a modification date available" (§13.1.4, and §13.1.3 below).
    } else if let (Some(date), Some(modified)) = (single_date(request, "If-Unmodified-Since"), validators.modified)
        && modified > date
    {
        return Verdict::Failed;
    }
    // Its mere presence makes If-Modified-Since irrelevant (§13.1.3), also when it lists nothing that we understand.
    if has(request, "If-None-Match") {
        return match matches_any(request, "If-None-Match", validators.etag, Comparison::Weak) {
            false => Verdict::Proceed,
            true if reads => Verdict::NotModified,
            true => Verdict::Failed,
        };
    }
    if reads
        && let (Some(date), Some(modified)) = (single_date(request, "If-Modified-Since"), validators.modified)
        && modified <= date
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether If-Range lets a Range field count (RFC 9110 §13.1.5); true where there is none.
///
/// `now` is in seconds since 1970. Two If-Range fields say nothing reliable, so the whole representation is sent.
pub fn if_range_holds(request: Fields<'_>, validators: Validators<'_>, now: u64) -> bool {
    let mut values = request.values("If-Range");
    let value = match (values.next(), values.next()) {
        (None, _) => return true,
        (Some(value), None) => value,
        (Some(_), Some(_)) => return false,
    };
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        return matches!(entity_tag(value), Some((tag, b"")) if tag.is(validators.etag, Comparison::Strong));
    }
    // An exact match is asked for, not "not later than"; and a date is a strong validator only once the second that
    // it names is over, since the file may have changed twice within it (§8.8.2.2).
    let holds = |modified: u64| parse_date(value) == Some(modified) && modified < now;
    validators.is_dated && validators.modified.is_some_and(holds)
}

fn has(request: Fields<'_>, name: &str) -> bool {
    request.values(name).next().is_some()
}

/// The date in a field that stands once and holds a valid one; otherwise the field MUST be ignored (RFC 9110 §13.1.3,
/// §13.1.4).
fn single_date(request: Fields<'_>, name: &str) -> Option<u64> {
    let mut values = request.values(name);
    let value = values.next()?;
    values.next().is_none().then(|| parse_date(value))?
}

/// Seconds since 1970; each of the three formats of RFC 9110 §5.6.7.
pub fn parse_date(value: &[u8]) -> Option<u64> {
    date::parse(value)
}

/// How entity tags are compared (RFC 9110 §8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag equals nothing.
    Strong,
    /// Weak or not, the opaque parts decide.
    Weak,
}

struct EntityTag<'v> {
    weak: bool,
    /// With its quotes.
    opaque: &'v [u8],
}

impl EntityTag<'_> {
    /// Whether it equals ours, which is strong.
    fn is(&self, ours: &str, comparison: Comparison) -> bool {
        self.opaque == ours.as_bytes() && !(self.weak && comparison == Comparison::Strong)
    }
}

/// Whether a field that is `*` or a list of entity tags has ours; `*` matches, since there is a representation.
fn matches_any(request: Fields<'_>, name: &str, ours: &str, comparison: Comparison) -> bool {
    request.values(name).any(|value| {
        if value == b"*" {
            return true;
        }
        // Not split at commas, which an opaque tag may hold. A malformed element ends the list: it matches nothing,
        // and that is the safe answer for both fields (200 or 412).
        let mut rest = value;
        loop {
            while let [b',' | b' ' | b'\t', tail @ ..] = rest {
                rest = tail;
            }
            let Some((tag, tail)) = entity_tag(rest) else { return false };
            if tag.is(ours, comparison) {
                return true;
            }
            match tail.trim_ascii_start() {
                tail @ ([] | [b',', ..]) => rest = tail,
                _ => return false,
            }
        }
    })
}

/// The entity tag at the front of `value` (RFC 9110 §8.8.3), and what follows. `W` is case-sensitive.
fn entity_tag(value: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let (weak, quoted) = match value.strip_prefix(b"W/") {
        Some(quoted) => (true, quoted),
        None => (false, value),
    };
    let inner = quoted.strip_prefix(b"\"")?;
    let length = inner.iter().position(|&byte| byte == b'"')?;
    let is_etagc = |&byte: &u8| byte == b'!' || (0x23..=0x7e).contains(&byte) || byte >= 0x80;
    if !inner[..length].iter().all(is_etagc) {
        return None;
    }
    let (opaque, rest) = quoted.split_at(length + 2);
    Some((EntityTag { weak, opaque }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Sample;

    fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Sample {
        let fields: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Sample::new(method, target, &fields).expect("a head")
    }

    // Sun, 06 Nov 1994 08:49:37 GMT
    const MODIFIED: u64 = 784_111_777;
    const OURS: Validators<'static> = Validators { etag: "\"a,b\"", modified: Some(MODIFIED), is_dated: true };
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn get(fields: &[(&str, &str)]) -> Verdict {
        evaluate(request("GET", "/", fields).fields(), OURS)
    }

    #[test]
    fn if_match_is_strong() {
        for (value, verdict) in [
            ("\"a,b\"", Verdict::Proceed),
            ("*", Verdict::Proceed),
            ("\"x\" , \"a,b\"", Verdict::Proceed),
            (",, \"x\",,\"a,b\"", Verdict::Proceed),
            ("W/\"a,b\"", Verdict::Failed),
            ("\"x\"", Verdict::Failed),
            ("\"x, a,b\"", Verdict::Failed),
            ("a,b", Verdict::Failed),
            ("\"a,b", Verdict::Failed),
            ("\"x\"\"a,b\"", Verdict::Failed),
            ("", Verdict::Failed),
            ("\"x\", *", Verdict::Failed),
        ] {
            assert_eq!(get(&[("If-Match", value)]), verdict, "{value}");
        }
        assert_eq!(get(&[("If-Match", "\"x\""), ("If-Match", "\"a,b\"")]), Verdict::Proceed);
    }

    #[test]
    fn if_none_match_is_weak() {
        for (value, verdict) in [
            ("\"a,b\"", Verdict::NotModified),
            ("W/\"a,b\"", Verdict::NotModified),
            ("*", Verdict::NotModified),
            ("\"x\", W/\"a,b\"", Verdict::NotModified),
            ("w/\"a,b\"", Verdict::Proceed),
            ("\"x\"", Verdict::Proceed),
            ("garbage, \"a,b\"", Verdict::Proceed),
            ("", Verdict::Proceed),
        ] {
            assert_eq!(get(&[("If-None-Match", value)]), verdict, "{value}");
        }
        assert_eq!(evaluate(request("POST", "/", &[("If-None-Match", "*")]).fields(), OURS), Verdict::Failed);
    }

    #[test]
    fn dates() {
        assert_eq!(get(&[("If-Modified-Since", BEFORE)]), Verdict::Proceed);
        assert_eq!(get(&[("If-Modified-Since", SAME)]), Verdict::NotModified);
        assert_eq!(get(&[("If-Modified-Since", AFTER)]), Verdict::NotModified);
        assert_eq!(get(&[("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT")]), Verdict::NotModified);
        assert_eq!(get(&[("If-Modified-Since", "Sun Nov  6 08:49:37 1994")]), Verdict::NotModified);
        assert_eq!(get(&[("If-Unmodified-Since", BEFORE)]), Verdict::Failed);
        assert_eq!(get(&[("If-Unmodified-Since", SAME)]), Verdict::Proceed);
        assert_eq!(evaluate(request("POST", "/", &[("If-Modified-Since", AFTER)]).fields(), OURS), Verdict::Proceed);
        for bad in ["yesterday", "", "Sun, 06 Nov 1994 08:49:37", "Sun, 99 Nov 1994 08:49:37 GMT", "784111777"] {
            assert_eq!(get(&[("If-Modified-Since", bad)]), Verdict::Proceed, "{bad}");
            assert_eq!(get(&[("If-Unmodified-Since", bad)]), Verdict::Proceed, "{bad}");
        }
    }

    #[test]
    fn a_doubled_date_is_ignored() {
        assert_eq!(get(&[("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)]), Verdict::Proceed);
        assert_eq!(get(&[("If-Unmodified-Since", BEFORE), ("If-Unmodified-Since", BEFORE)]), Verdict::Proceed);
    }

    #[test]
    fn order() {
        // If-Match makes If-Unmodified-Since irrelevant, If-None-Match does so for If-Modified-Since.
        assert_eq!(get(&[("If-Unmodified-Since", BEFORE), ("If-Match", "*")]), Verdict::Proceed);
        assert_eq!(get(&[("If-Modified-Since", AFTER), ("If-None-Match", "\"x\"")]), Verdict::Proceed);
        assert_eq!(get(&[("If-Modified-Since", AFTER), ("If-None-Match", "")]), Verdict::Proceed);
        // The state is checked before the cache.
        assert_eq!(get(&[("If-None-Match", "*"), ("If-Match", "\"x\"")]), Verdict::Failed);
        assert_eq!(get(&[("If-None-Match", "*"), ("If-Unmodified-Since", BEFORE)]), Verdict::Failed);
        assert_eq!(get(&[("If-None-Match", "*"), ("If-Match", "*")]), Verdict::NotModified);
    }

    #[test]
    fn without_a_modification_date_dates_are_ignored() {
        let ours = Validators { modified: None, ..OURS };
        for (name, date) in [("If-Modified-Since", AFTER), ("If-Unmodified-Since", BEFORE)] {
            assert_eq!(evaluate(request("GET", "/", &[(name, date)]).fields(), ours), Verdict::Proceed);
        }
        assert!(!if_range_holds(request("GET", "/", &[("If-Range", SAME)]).fields(), ours, u64::MAX));
    }

    #[test]
    fn if_range() {
        let holds = |value: &str, now: u64| {
            if_range_holds(request("GET", "/", &[("If-Range", value)]).fields(), OURS, MODIFIED + now)
        };
        assert!(if_range_holds(request("GET", "/", &[]).fields(), OURS, 0));
        assert!(holds("\"a,b\"", 0));
        assert!(!holds("W/\"a,b\"", 9));
        assert!(!holds("\"x\"", 9));
        assert!(!holds("\"a,b\", \"x\"", 9));
        assert!(!holds("*", 9));
        assert!(holds(SAME, 1));
        assert!(!holds(SAME, 0), "the second is not over");
        assert!(!holds(AFTER, 9));
        assert!(!holds(BEFORE, 9));
        let twice = request("GET", "/", &[("If-Range", "\"a,b\""), ("If-Range", "\"a,b\"")]);
        assert!(!if_range_holds(twice.fields(), OURS, 9));
    }
}
