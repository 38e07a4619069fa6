//! Where a subscriber is, as it stands in an event's id.

use std::fmt;
use std::str::FromStr;

/// Everything of one epoch up to an offset was looked at, also if nothing of it was for this subscriber.
///
/// Written as `EPOCH-OFFSET`, both in decimal: letters, digits and `-` alone, since anything else makes browsers ask before
/// they reconnect across origins (WHATWG Fetch, CORS-safelisted request headers).
///
/// ```
/// let position: pubsub::Position = "7-42".parse()?;
/// assert_eq!((position.epoch, position.offset), (7, 42));
/// assert!("7-042".parse::<pubsub::Position>().is_err());
/// # Ok::<(), pubsub::BadPosition>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which life of the log. A cold start begins another, and so does whoever goes on without the last state of the one
    /// before.
    pub epoch: u64,
    /// The number of the message, from 1 on; 0 is before all of them.
    pub offset: u64,
}

/// Not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPosition;

impl fmt::Display for BadPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position is EPOCH-OFFSET, two numbers as they were given")
    }
}

impl std::error::Error for BadPosition {}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Position, BadPosition> {
        let (epoch, offset) = text.split_once('-').ok_or(BadPosition)?;
        // As it was written and in no other way, so that equal positions are equal texts.
        let number = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            if plain { text.parse().map_err(|_| BadPosition) } else { Err(BadPosition) }
        };
        Ok(Position { epoch: number(epoch)?, offset: number(offset)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for position in [
            Position { epoch: 0, offset: 0 },
            Position { epoch: u64::MAX, offset: u64::MAX },
            Position { epoch: 7, offset: 1 },
        ] {
            let text = position.to_string();
            assert_eq!(text.parse(), Ok(position));
            assert!(text.len() <= 41 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        }
    }

    #[test]
    fn what_nobody_wrote_is_no_position() {
        for text in
            ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "01-2", "1-02", "1 -2", "18446744073709551616-1", "a-b", "１-2"]
        {
            assert_eq!(text.parse::<Position>(), Err(BadPosition), "{text:?}");
        }
    }
}
