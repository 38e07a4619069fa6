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

    /// The same as a client's frame (RFC 6455 §5.2), masked by what a server cannot leave out.
    pub fn write_frame(&self, size: usize, into: &mut Vec<u8>) {
        const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        match u16::try_from(size).expect("below 64 KiB") {
            short @ 0..126 => into.extend_from_slice(&[0x81, 0x80 | short as u8]),
            long => {
                into.extend_from_slice(&[0x81, 0x80 | 126]);
                into.extend_from_slice(&long.to_be_bytes());
            }
        }
        into.extend_from_slice(&MASK);
        let payload = into.len();
        self.write(size, into);
        into[payload..].iter_mut().zip(MASK.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
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
    fn a_frame_is_masked_and_says_its_length() {
        let message = Message { topic: 3, sequence: 4, nanos: 5 };
        for (size, head) in [(100, &[0x81, 0xe4][..]), (125, &[0x81, 0xfd]), (126, &[0x81, 0xfe, 0, 126])] {
            let mut frame = Vec::new();
            message.write_frame(size, &mut frame);
            let (before, payload) = frame.split_at(head.len() + 4);
            assert_eq!((&before[..head.len()], payload.len()), (head, size));
            let mask = before[head.len()..].iter().cycle();
            let text: Vec<u8> = payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(Message::read(&text), Some(message));
            assert_eq!(Message::read(payload), None);
        }
    }

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
