//! Numbers as text, of digits only: the standard parser takes a `+`.

/// A decimal number; `None` also where the type cannot hold it.
pub fn decimal<N: TryFrom<u64>>(text: &str) -> Option<N> {
    parse(text.as_bytes(), 10)?.try_into().ok()
}

/// A number to that base. Never inlined: it would be compiled anew in every place.
#[inline(never)]
pub fn parse(text: &[u8], base: u32) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, &byte| {
        let digit = char::from(byte).to_digit(base)?;
        number.checked_mul(base.into())?.checked_add(digit.into())
    })
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
        assert_eq!((parse(b"fF", 16), parse(b"+f", 16)), (Some(255), None));
    }
}
