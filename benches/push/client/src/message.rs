//! What is published: which topic, which number, and when.

use rustix::time::{ClockId, clock_gettime};

/// `topic.sequence.nanoseconds.`, each of a fixed width, then as much filling as it takes.
pub const HEAD: usize = 6 + 1 + 10 + 1 + 20 + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: u32,
    /// From 1, for each topic.
    pub sequence: u64,
    /// CLOCK_MONOTONIC, which is one for all processes.
    pub nanos: u64,
}

pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Message {
    pub fn write(&self, size: usize, into: &mut Vec<u8>) {
        let text = format!("{:06}.{:010}.{:020}.", self.topic, self.sequence, self.nanos);
        into.extend_from_slice(text.as_bytes());
        into.resize(into.len() + size.saturating_sub(HEAD), b'x');
    }

    pub fn read(text: &[u8]) -> Option<Message> {
        if text.len() < HEAD || text[6] != b'.' || text[17] != b'.' || text[38] != b'.' {
            return None;
        }
        let topic = number(&text[..6])? as u32;
        Some(Message { topic, sequence: number(&text[7..17])?, nanos: number(&text[18..38])? })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, &digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_was_written() {
        let message = Message { topic: 999, sequence: 1_234_567_890, nanos: now() };
        let mut text = Vec::new();
        message.write(100, &mut text);
        assert_eq!((text.len(), Message::read(&text)), (100, Some(message)));
        assert_eq!(Message::read(&text[..HEAD]), Some(message));
        for cut in 0..HEAD {
            assert_eq!(Message::read(&text[..cut]), None);
            let mut wrong = text.clone();
            wrong[cut] = b'+';
            assert_eq!(Message::read(&wrong), None, "{cut}");
        }
    }
}
