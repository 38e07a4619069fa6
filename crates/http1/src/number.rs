//! Numbers from outside: digits and nothing else, where the standard parser takes a `+`.

use std::str::FromStr;

/// A decimal number; `None` also where the type cannot hold it.
pub fn decimal<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_nothing_else() {
        for (text, number) in [("0", Some(0)), ("007", Some(7)), ("255", Some(255)), ("256", None)] {
            assert_eq!(decimal::<u8>(text), number, "{text}");
        }
        for text in ["", "+1", "-1", "-0", " 1", "1 ", "1_0", "a", "１", "18446744073709551616"] {
            assert_eq!(decimal::<u64>(text), None, "{text}");
        }
    }
}
