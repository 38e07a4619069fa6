//! Dates as RFC 9110 §5.6.7 has them, in seconds since 1970: `httpdate`'s, at the edges that it leaves to its user.

use httpdate::{fmt_http_date, parse_http_date};
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// 9999-12-31 23:59:59, the last second that can be named.
pub const LAST: u64 = 253_402_300_799;

/// A date, written in the format that is sent: `Sun, 06 Nov 1994 08:49:37 GMT`. Behind the last one, where `httpdate`
/// would panic, it is the last one.
#[derive(Clone, Copy, Debug)]
pub struct Date(pub u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fmt_http_date(UNIX_EPOCH + Duration::from_secs(self.0.min(LAST))))
    }
}

/// A date in any of the three formats; `None` for what is none, has the name of another day, or was before 1970. A year of
/// two digits is one of 1970 to 2069.
pub fn parse(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    // What is around a value was taken off by who read the field; `httpdate` would pass by more.
    if text.trim().len() != text.len() {
        return None;
    }
    // A leap second may be written (RFC 9110 §5.6.7), and counts as the one before it. Only behind a second is a blank.
    let date = parse_http_date(text).or_else(|_| parse_http_date(&text.replacen(":60 ", ":59 ", 1))).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn the_three_formats() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
        assert_eq!(parse(b"Wed Nov 16 08:49:37 1994"), Some(784_111_777 + 10 * DAY));
        assert_eq!(parse(b"Tuesday, 01-Jan-69 00:00:00 GMT"), parse(b"Tue, 01 Jan 2069 00:00:00 GMT"));
        assert_eq!(parse(b"Thursday, 01-Jan-70 00:00:00 GMT"), Some(0));
        assert_eq!(parse(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse(b"Fri, 31 Dec 9999 23:59:59 GMT"), Some(LAST));
        assert_eq!(Date(784_111_777).to_string(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(Date(u64::MAX).to_string(), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "Sun",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun,  6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Mon, 29 Feb 2100 08:49:37 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov 06 08:49:37 1994 ",
            "Sun Nov  0 08:49:37 1994",
            "784111777",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_leap_second_is_the_one_before_it() {
        for text in ["Sat, 31 Dec 2016 23:59:60 GMT", "Saturday, 31-Dec-16 23:59:60 GMT", "Sat Dec 31 23:59:60 2016"] {
            assert_eq!(parse(text.as_bytes()), parse(b"Sat, 31 Dec 2016 23:59:59 GMT"), "{text}");
            assert_eq!(parse(text.as_bytes()), Some(1_483_228_799), "{text}");
        }
    }

    #[test]
    fn every_day_is_read_as_it_was_written() {
        let last = LAST / DAY;
        // All of one lifetime, many of the others, and the last; each at another time of the day.
        for day in (0..60_000).chain((60_000..last).step_by(97)).chain([last]) {
            let second = (day * DAY + day * 12_345 % DAY).min(LAST);
            assert_eq!(parse(Date(second).to_string().as_bytes()), Some(second));
        }
    }
}
