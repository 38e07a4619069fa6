//! Dates as RFC 9110 §5.6.7 has them, in seconds since 1970.

use crate::number;
use std::fmt;

/// 9999-12-31 23:59:59, the last second that can be named.
pub const LAST: u64 = 253_402_300_799;

const DAYS: [&[u8]; 7] = [b"Thursday", b"Friday", b"Saturday", b"Sunday", b"Monday", b"Tuesday", b"Wednesday"];
const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
const DAY: u64 = 24 * 60 * 60;

/// A date, written in the format that is sent: `Sun, 06 Nov 1994 08:49:37 GMT`. Behind the last one it is the last one.
#[derive(Clone, Copy, Debug)]
pub struct Date(pub u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = self.0.min(LAST);
        let (days, time) = (second / DAY, second % DAY);
        let (year, month, day) = civil(days);
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let name = text(&day_name(second)[..3]);
        let month = text(&MONTHS[3 * (month - 1)..3 * month]);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        write!(f, "{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

/// A date in any of the three formats; `None` for what is none, has the name of another day, or was before 1970. A year of
/// two digits is one of 1970 to 2069.
pub fn parse(text: &[u8]) -> Option<u64> {
    let comma = text.iter().position(|&byte| byte == b',').unwrap_or(0);
    let (name, rest) = text.split_at(comma);
    let (second, is_name) = if fits(text, b"___, __ ___ ____ __:__:__ GMT") {
        let second = second(number(&text[12..16])?, &text[8..11], number(&text[5..7])?, &text[17..25])?;
        (second, day_name(second)[..3] == *name)
    } else if fits(rest, b", __-___-__ __:__:__ GMT") {
        let year = number(&rest[9..11])?;
        let year = if year < 70 { 2000 + year } else { 1900 + year };
        let second = second(year, &rest[5..8], number(&rest[2..4])?, &rest[12..20])?;
        (second, day_name(second) == name)
    } else if fits(text, b"___ ___ __ __:__:__ ____") {
        let day = text[8..10].strip_prefix(b" ").unwrap_or(&text[8..10]);
        let second = second(number(&text[20..24])?, &text[4..7], number(day)?, &text[11..19])?;
        (second, day_name(second)[..3] == text[..3])
    } else {
        return None;
    };
    is_name.then_some(second)
}

fn day_name(second: u64) -> &'static [u8] {
    DAYS[(second / DAY % 7) as usize]
}

/// Whether the text is as long as the form, and what stands in it between the blanks.
fn fits(text: &[u8], form: &[u8]) -> bool {
    text.len() == form.len() && text.iter().zip(form).all(|(byte, wanted)| *wanted == b'_' || byte == wanted)
}

fn number(digits: &[u8]) -> Option<u64> {
    number::parse(digits, 10)
}

/// The time being `08:49:37`.
fn second(year: u64, month: &[u8], day: u64, time: &[u8]) -> Option<u64> {
    let month = 1 + MONTHS.chunks_exact(3).position(|name| name == month)?;
    let (hour, minute, second) = (number(&time[..2])?, number(&time[3..5])?, number(&time[6..])?);
    // A leap second may be written (RFC 9110 §5.6.7), and counts as the one before it.
    if year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days(year, month, day);
    // A day that its month does not have would be one of the next.
    (civil(days) == (year, month, day)).then_some(days * DAY + hour * 3600 + minute * 60 + second.min(59))
}

/// Days since 1970. Years begin in March, so that a leap day is the last of one: its months have 153 days in five.
fn days(year: u64, month: usize, day: u64) -> u64 {
    let month = month as u64;
    let year = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day;
    // From March 1st of year 0 to 1970 there are 719,468 days.
    (365 * year + year / 4 - year / 100 + year / 400 + day_of_year).saturating_sub(719_468 + 1)
}

/// Year, month and day of a number of days since 1970.
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (400 * era + year + u64::from(month <= 2), month as usize, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

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

    /// `httpdate` writes and reads them for many.
    #[test]
    fn every_day_is_what_another_writes_and_reads() {
        let last = LAST / DAY;
        assert!((0..=last).all(|day| {
            let (year, month, of_month) = civil(day);
            days(year, month, of_month) == day
        }));
        // All of one lifetime, many of the others, and the last; each at another time of the day.
        for day in (0..60_000).chain((60_000..last).step_by(97)).chain([last]) {
            let second = (day * DAY + day * 12_345 % DAY).min(LAST);
            let time = UNIX_EPOCH + Duration::from_secs(second);
            let text = httpdate::fmt_http_date(time);
            assert_eq!(Date(second).to_string(), text);
            assert_eq!(parse(text.as_bytes()), Some(second));
            assert_eq!(httpdate::parse_http_date(&text).ok(), Some(time));
        }
    }
}
