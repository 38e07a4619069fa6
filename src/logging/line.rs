//! A line of the log: what is said of a record, in each form. Every line names the process and the generation, since
//! several write to the same log.

use crate::clock::wall_clock;
use crate::config::{LogFormat, push_on_one_line};
use crate::generation::generation;
use log::{Level, Record};
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Appends it in that form, with the end of the line.
pub fn push_line(out: &mut String, format: LogFormat, record: &Record<'_>) {
    push_line_of(out, format, wall_clock(), record);
}

/// Of a process that has no log yet, and that may not know its generation.
pub fn push_early_line(out: &mut String, level: Level, generation: Option<u64>, message: fmt::Arguments<'_>) {
    let generation = generation.map_or_else(|| "?".to_owned(), |generation| generation.to_string());
    let _ = push_begin(out, wall_clock(), level, &generation);
    let _ = write!(OneLine(out), "{message}");
    out.push('\n');
}

fn push_line_of(out: &mut String, format: LogFormat, time: Duration, record: &Record<'_>) {
    // Writing into a string does not fail, and what a record has that does not let itself be shown is left out.
    let _ = match format {
        LogFormat::Text => push_text(out, time, record),
        LogFormat::Json => push_json(out, time, record),
    };
    out.push('\n');
}

/// `2026-01-31T23:59:59.042Z INFO  [4711.2] message`, and the target before the message below info, where one wants to know
/// what to put into `log_level`.
fn push_text(out: &mut String, time: Duration, record: &Record<'_>) -> fmt::Result {
    push_begin(out, time, record.level(), generation())?;
    if record.level() > Level::Info {
        write!(out, "{}: ", record.target())?;
    }
    write!(OneLine(out), "{}", record.args())
}

fn push_begin(out: &mut String, time: Duration, level: Level, generation: impl fmt::Display) -> fmt::Result {
    write!(out, "{} {level:5} [{}.{generation}] ", Timestamp(time), std::process::id())
}

/// `{"time":"…","level":"INFO","target":"handover::server","pid":4711,"generation":2,"message":"…"}`.
fn push_json(out: &mut String, time: Duration, record: &Record<'_>) -> fmt::Result {
    let (pid, generation, level) = (std::process::id(), generation(), record.level());
    let mut message = String::new();
    // What it has said until it failed.
    let _ = write!(message, "{}", record.args());
    let (target, message) = (Value::from(record.target()), Value::from(message));
    write!(
        out,
        "{{\"time\":\"{}\",\"level\":\"{level}\",\"target\":{target},\"pid\":{pid},\"generation\":{generation},\
         \"message\":{message}}}",
        Timestamp(time)
    )
}

/// Escapes control characters: a record stays one line, and what a client sent cannot forge another or talk to
/// the terminal.
struct OneLine<'s>(&'s mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_on_one_line(self.0, text);
        Ok(())
    }
}

/// RFC 3339 in UTC with milliseconds. `env_logger` would bring a time library for it.
pub struct Timestamp(Duration);

impl Timestamp {
    pub fn since_1970(time: Duration) -> Timestamp {
        Timestamp(time)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0;
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second, millis) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Days since 1970-01-01 as a date of the Gregorian calendar.
///
/// Years that begin on 1 March have their leap day last, so that months and years divide evenly: Howard Hinnant's
/// `civil_from_days`, <https://howardhinnant.github.io/date_algorithms.html>.
pub fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097); // of 400 years
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_in(format: LogFormat, level: Level, message: fmt::Arguments<'_>) -> String {
        let time = Duration::from_millis(1_769_903_999_042);
        let mut out = String::new();
        let record = Record::builder().level(level).target("handover::worker").args(message).build();
        push_line_of(&mut out, format, time, &record);
        out
    }

    fn line(level: Level, message: fmt::Arguments<'_>) -> String {
        line_in(LogFormat::Text, level, message)
    }

    #[test]
    fn a_line_has_time_level_process_generation_and_message() {
        let from = format!("[{}.1]", std::process::id());
        let info = line(Level::Info, format_args!("served={}", 3));
        assert_eq!(info, format!("2026-01-31T23:59:59.042Z INFO  {from} served=3\n"));
        let debug = line(Level::Debug, format_args!("x"));
        assert_eq!(debug, format!("2026-01-31T23:59:59.042Z DEBUG {from} handover::worker: x\n"));
    }

    #[test]
    fn a_record_cannot_make_two_lines() {
        assert!(line(Level::Warn, format_args!("a\r\n\x1b[1mb\tü")).ends_with(" a\\r\\n\\u{1b}[1mb\\tü\n"));
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date, "day {days}");
        }
    }

    #[test]
    fn a_line_of_json_has_the_same_and_nothing_else() {
        let line = line_in(LogFormat::Json, Level::Debug, format_args!("served={}", 3));
        let wanted = format!(
            "{{\"time\":\"2026-01-31T23:59:59.042Z\",\"level\":\"DEBUG\",\"target\":\"handover::worker\",\"pid\":{},\
             \"generation\":1,\"message\":\"served=3\"}}\n",
            std::process::id()
        );
        assert_eq!(line, wanted);
    }

    #[test]
    fn a_line_of_json_is_one_whatever_is_said() {
        let odd: String = (0..0x300).filter_map(char::from_u32).chain("\u{2028}\u{feff}\u{10ffff}".chars()).collect();
        let invalid = String::from_utf8_lossy(b"\xff\xc3(\x80\xed\xa0\x80").into_owned();
        let long = "\"\\\n\u{1f600}".repeat(300_000);
        for message in [odd, invalid, long, String::new(), "{\"level\":\"INFO\"}\n{".to_owned()] {
            let line = line_in(LogFormat::Json, Level::Error, format_args!("{message}"));
            assert_eq!(line.find('\n'), Some(line.len() - 1), "one line");
            let read: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(read["message"], message);
        }
    }
}
