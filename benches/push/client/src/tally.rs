//! Order and number of what one subscriber got.

use crate::message::Message;

/// So many numbers that were jumped over are remembered, to tell a late one from a doubled one.
const HOLES: usize = 4096;

/// What all subscribers got, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Each number once, in whatever order.
    pub deliveries: u64,
    /// Never came, and nobody said so.
    pub missing: u64,
    /// Never came, but a gap was said before the next one.
    pub gapped: u64,
    pub doubled: u64,
    /// Came after a later one.
    pub misordered: u64,
    /// Of another topic.
    pub foreign: u64,
    /// Gaps that were said.
    pub gaps: u64,
}

#[derive(Debug)]
pub struct Tally {
    topic: u32,
    next: u64,
    holes: Vec<u64>,
    gap_said: bool,
}

impl Tally {
    pub fn new(topic: u32) -> Tally {
        Tally { topic, next: 1, holes: Vec::new(), gap_said: false }
    }

    pub fn topic(&self) -> u32 {
        self.topic
    }

    pub fn gap(&mut self, counts: &mut Counts) {
        self.gap_said = true;
        counts.gaps += 1;
    }

    /// Whether it is one more that it should get.
    pub fn message(&mut self, message: &Message, counts: &mut Counts) -> bool {
        if message.topic != self.topic {
            counts.foreign += 1;
            return false;
        }
        if message.sequence < self.next {
            let Some(hole) = self.holes.iter().position(|&hole| hole == message.sequence) else {
                counts.doubled += 1;
                return false;
            };
            self.holes.swap_remove(hole);
            counts.missing -= 1;
            counts.misordered += 1;
            counts.deliveries += 1;
            return true;
        }
        let jumped = message.sequence - self.next;
        if jumped > 0 && self.gap_said {
            counts.gapped += jumped;
        } else if jumped > 0 {
            counts.missing += jumped;
            let room = HOLES.saturating_sub(self.holes.len());
            self.holes.extend((self.next..message.sequence).rev().take(room));
        }
        self.gap_said = false;
        self.next = message.sequence + 1;
        counts.deliveries += 1;
        true
    }

    /// What has not come when nothing more will.
    pub fn end(&self, published: u64, counts: &mut Counts) {
        let tail = (published + 1).saturating_sub(self.next);
        *if self.gap_said { &mut counts.gapped } else { &mut counts.missing } += tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sequences: &[u64], published: u64) -> Counts {
        let (mut tally, mut counts) = (Tally::new(7), Counts::default());
        for &sequence in sequences {
            match sequence {
                0 => tally.gap(&mut counts),
                _ => _ = tally.message(&Message { topic: 7, sequence, nanos: 0 }, &mut counts),
            }
        }
        tally.end(published, &mut counts);
        counts
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        let none = Counts::default();
        assert_eq!(counts(&[1, 2, 3], 3), Counts { deliveries: 3, ..none });
        assert_eq!(counts(&[1, 3], 3), Counts { deliveries: 2, missing: 1, ..none });
        assert_eq!(counts(&[2, 3], 3), Counts { deliveries: 2, missing: 1, ..none });
        assert_eq!(counts(&[1, 2], 4), Counts { deliveries: 2, missing: 2, ..none });
        assert_eq!(counts(&[1, 2, 2, 3], 3), Counts { deliveries: 3, doubled: 1, ..none });
        assert_eq!(counts(&[1, 3, 2, 3], 3), Counts { deliveries: 3, misordered: 1, doubled: 1, ..none });
        assert_eq!(counts(&[1, 4, 3, 2], 4), Counts { deliveries: 4, misordered: 2, ..none });
        assert_eq!(counts(&[1, 0, 4], 4), Counts { deliveries: 2, gapped: 2, gaps: 1, ..none });
        assert_eq!(counts(&[1, 0, 2, 4], 4), Counts { deliveries: 3, missing: 1, gaps: 1, ..none });
        assert_eq!(counts(&[1, 0], 3), Counts { deliveries: 1, gapped: 2, gaps: 1, ..none });
        let (mut tally, mut all) = (Tally::new(7), none);
        assert!(!tally.message(&Message { topic: 8, sequence: 1, nanos: 0 }, &mut all));
        assert_eq!(all, Counts { foreign: 1, ..none });
    }
}
