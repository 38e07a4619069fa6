//! Seconds with decimals, as settings have them and messages say them.
//!
//! Digits and integers only: the standard library's parser and printer of floating point numbers take 28 KB, and
//! nothing else here needs them.

use crate::number::decimal;
use std::fmt;
use std::time::Duration;

/// Reads a decimal number of seconds; what is smaller than a nanosecond is cut off. `1e3` is TOML's.
pub fn parse(text: &str) -> Option<Duration> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => match exponent.strip_prefix('-') {
            Some(negative) => (number, 0_i32.checked_sub_unsigned(decimal(negative)?)?),
            None => (number, decimal(exponent.strip_prefix('+').unwrap_or(exponent))?),
        },
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut nanoseconds: u64 = 0;
    // The power of ten that a digit counts.
    let mut power = i32::try_from(whole.len()).ok()?.saturating_add(exponent).saturating_add(8);
    for byte in whole.bytes().chain(fraction.bytes()) {
        let digit = u64::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        if let (1.., Ok(power)) = (digit, u32::try_from(power)) {
            nanoseconds = nanoseconds.checked_add(10_u64.checked_pow(power)?.checked_mul(digit)?)?;
        }
        power = power.saturating_sub(1);
    }
    Some(Duration::from_nanos(nanoseconds))
}

/// Shows seconds with the decimals that they have, or rounded, half up, to a precision of 1 to 9: `{}` and `{:.1}`.
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut whole, mut fraction) = (self.0.as_secs(), self.0.subsec_nanos());
        let mut digits = f.precision().unwrap_or(9).clamp(1, 9);
        let unit = 10_u32.pow(9 - digits as u32);
        fraction = (fraction + unit / 2) / unit;
        if fraction == 10_u32.pow(digits as u32) {
            (whole, fraction) = (whole.saturating_add(1), 0);
        }
        if f.precision().is_none() {
            if fraction == 0 {
                return write!(f, "{whole}");
            }
            while fraction.is_multiple_of(10) {
                (fraction, digits) = (fraction / 10, digits - 1);
            }
        }
        write!(f, "{whole}.{fraction:0digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_as_floats_were() {
        for text in [
            "0", "00.50", "1", "1.", ".5", "1.5", "0.001", "10.25", "31536000", "1e3", "1.5e-3", "25E+1", "0.3", "",
            ".", "1.2.3", "e1", "1e", "x", "1.x", "1e1e1", " 1", "0e999999",
        ] {
            let as_float = text.parse::<f64>().ok().map(Duration::from_secs_f64);
            assert_eq!(parse(text), as_float, "{text}");
        }
        // Beyond what any setting allows.
        for text in ["99999999999999999999", "1e99", "1e2147483647", "18446744074"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("1e-2147483648"), Some(Duration::ZERO));
    }

    #[test]
    fn seconds_are_shown_as_floats_were() {
        for milliseconds in [0, 1, 10, 40, 49, 51, 99, 100, 240, 949, 951, 999, 1000, 1001, 1500, 9996, 86_400_000] {
            let time = Duration::from_millis(milliseconds);
            let float = time.as_secs_f64();
            assert_eq!(Seconds(time).to_string(), float.to_string());
            assert_eq!(format!("{:.1} {:.2}", Seconds(time), Seconds(time)), format!("{float:.1} {float:.2}"));
        }
        assert_eq!(Seconds(Duration::from_nanos(1)).to_string(), "0.000000001");
    }
}
