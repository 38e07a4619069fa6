//! The thread that follows the stream into the log.
//!
//! Once a second, and whenever it has connected, it looks whether that still is the stream that it has followed: the same epoch,
//! not behind what was read, and in the place of the last message that message. A Redis that was emptied, or that a replica
//! without the last writes has replaced, is not. Then another epoch begins, for all hosts, and everybody who listens is told.

use super::redis::{Entry, Failure, Link, Standing};
use super::{Attempts, Bus, Side};
use crate::clock::boot_time;
use crate::push::hub::new_epoch;
use pubsub::{Followed, Position, Read, Rebase};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a message that the other connection knows of may take to this one.
const LATE: Duration = Duration::from_secs(3);
/// How often is tried to agree with the others, before it is said that it does not work.
const ATTEMPTS: usize = 8;
/// In how many places is looked for where two histories part.
const COMPARED: u64 = 2048;

/// Until the server has ended.
pub fn run(bus: &Bus, alone: bool) {
    let (mut alone, mut attempts) = (alone, Attempts::default());
    while let Some(link) = bus.connect(&mut attempts, |standing, reason| standing.reader = Side::Down(reason)) {
        // Before it is this process's, nothing may be read; but that there is a connection is known.
        bus.wait_until_ours(alone);
        match (Reader { bus, link, behind: None }).follow() {
            Ok(()) => {
                // Another process has it, and may give it back.
                bus.is_read_elsewhere();
                alone = false;
            }
            Err(failure) if attempts.may_be_silent(&failure) => {}
            Err(failure) => bus.set(|standing| standing.reader = Side::Down(failure.reason())),
        }
    }
}

struct Reader<'b> {
    bus: &'b Bus,
    link: Link,
    /// Since when the other connection knows of more than this one has heard.
    behind: Option<Instant>,
}

impl Reader<'_> {
    /// Follows, as long as this process has the log.
    fn follow(&mut self) -> Result<(), Failure> {
        loop {
            let Some(read) = self.agree()? else { return Ok(()) };
            self.bus.has_read(read);
            self.behind = None;
            let mut look = Instant::now() + LOOK;
            let (mut read, mut seen, mut waits) = (read, read.offset, false);
            // Until somebody has to look closer.
            while !self.bus.is_over() {
                let (entries, reached) = self.link.read_behind(seen, waits)?;
                if !waits {
                    // Not before it has read: one that may be asked how it stands may still refuse that.
                    self.bus.set(|standing| standing.reader = Side::Up);
                    waits = true;
                }
                let known = entries.iter().take_while(|entry| entry.epoch == read.epoch).count();
                let others = entries.len() > known;
                let nothing = entries.is_empty();
                if let Some(last) = entries[..known].last().map(|entry| entry.message.offset) {
                    let now = boot_time();
                    let messages =
                        entries.into_iter().take(known).map(|Entry { message, .. }| Followed { time: now, ..message });
                    if !self.bus.hub.follow(messages.collect(), now) {
                        return Ok(());
                    }
                    read.offset = last;
                    self.bus.has_read(read);
                } else if !self.bus.hub.may_follow() {
                    return Ok(());
                }
                if others {
                    self.see_who_they_are(read)?;
                    break;
                }
                if self.is_late(read, nothing)? {
                    break;
                }
                // Also behind what nobody of ours has put there.
                seen = reached.unwrap_or(seen);
                if Instant::now() >= look {
                    look = Instant::now() + LOOK;
                    let standing = self.link.look(read.offset)?;
                    if !is_the_same(&standing, &self.bus.hub.has_read()) {
                        break;
                    }
                    self.bus.hub.confirm();
                }
            }
            if self.bus.is_over() {
                return Ok(());
            }
        }
    }

    /// Entries of another epoch come: because that has begun, or because somebody has copied them there. Nobody reads behind
    /// these, so then another begins.
    fn see_who_they_are(&mut self, read: Position) -> Result<(), Failure> {
        let standing = self.link.look(read.offset)?;
        match is_the_same(&standing, &self.bus.hub.has_read()) {
            true => self.link.renew(&standing.epoch, new_epoch(), read.offset, read.offset),
            false => Ok(()),
        }
    }

    /// Whether the other connection knows of another epoch. One that has known for long of messages which do not come here says
    /// that this connection is dead.
    fn is_late(&mut self, read: Position, nothing: bool) -> Result<bool, Failure> {
        let remote = self.bus.standing().remote.as_ref().map(|remote| (remote.epoch, remote.offset));
        let Some((epoch, offset)) = remote else { return Ok(false) };
        if epoch != read.epoch {
            // It may have been asked before the one that we know began.
            let standing = self.link.look(read.offset)?;
            return Ok(!is_the_same(&standing, &self.bus.hub.has_read()));
        }
        if offset <= read.offset || !nothing {
            self.behind = None;
            return Ok(false);
        }
        match *self.behind.get_or_insert_with(Instant::now) {
            since if since.elapsed() > LATE => Err(Failure::Lost("messages are published and do not come".into())),
            _ => Ok(false),
        }
    }

    /// Sees to it that the log and the stream are one, whatever has happened. Answers how far the log has come; `None` if another
    /// process has it.
    fn agree(&mut self) -> Result<Option<Position>, Failure> {
        let mut mixed = None;
        for _ in 0..ATTEMPTS {
            let read = self.bus.hub.has_read();
            let heard = self.bus.hub.position();
            let standing = self.link.look(heard.offset)?;
            let Ok(epoch) = standing.epoch.parse::<u64>() else {
                // Whoever ticks begins one; so do we.
                self.bus.tick(&mut self.link)?;
                continue;
            };
            match plan(&standing, epoch, &read, heard) {
                Plan::GoOn => return Ok(Some(heard)),
                Plan::Renew { same } => {
                    let same = same.map_or_else(|| self.agreed(&read, heard), Ok)?;
                    self.link.renew(&standing.epoch, new_epoch(), heard.offset, same)?;
                }
                Plan::Rebase { keep, lineage, lost } => {
                    let Some(rebase) = self.rebase(&standing, epoch, keep, lineage, lost)? else {
                        // Once that may be because another has begun meanwhile.
                        if mixed.replace(epoch) == Some(epoch) {
                            self.link.renew(&standing.epoch, new_epoch(), standing.offset, standing.offset)?;
                        }
                        continue;
                    };
                    let last = rebase.last;
                    if lost {
                        self.bus.figures.epochs.fetch_add(1, Ordering::Relaxed);
                        log::warn!(
                            "bus: it is not the stream that was followed up to {heard}, or has lost something; going on at \
                             {epoch}-{last}, and all subscribers are told of a gap"
                        );
                    }
                    if !self.bus.hub.rebase(rebase, boot_time()) {
                        return Ok(None);
                    }
                    return Ok(Some(Position { epoch, offset: last }));
                }
            }
        }
        Err(Failure::Refused("the hosts do not agree on an epoch".into()))
    }

    /// How far nothing in the stream is other than what was read: what is missing there is nobody else's. Further back than
    /// there are marks nobody knows, and it counts as the same, so that nobody hears it again.
    fn agreed(&mut self, read: &Read, heard: Position) -> Result<u64, Failure> {
        let Some((first, _)) = read.marks.first() else { return Ok(heard.offset) };
        // The marks of what is retained are from far back, and between them is what was never read here.
        let from = (*first).max(heard.offset.saturating_sub(COMPARED));
        let there = self.link.tail(from.saturating_sub(1), Some(heard.offset), usize::MAX)?;
        let marks: std::collections::HashMap<u64, u64> = read.marks.iter().copied().collect();
        let other = |entry: &&Entry| marks.get(&entry.message.offset).is_some_and(|mark| *mark != entry.message.mark);
        Ok(there.iter().find(other).map_or(heard.offset, |entry| entry.message.offset - 1))
    }

    /// What the log goes on with. `None` if it has moved on meanwhile.
    fn rebase(
        &mut self,
        standing: &Standing,
        epoch: u64,
        keep: u64,
        lineage: Vec<Position>,
        lost: bool,
    ) -> Result<Option<Rebase>, Failure> {
        let mut entries = self.link.tail(keep, None, self.bus.settings.memory)?;
        // What another epoch has, which began since we looked.
        let foreign = |entry: &Entry| entry.epoch != epoch && entry.message.offset > standing.base;
        if entries.iter().any(foreign) {
            return Ok(None);
        }
        let last = entries.last().map_or(0, |entry| entry.message.offset).max(standing.offset);
        let oldest = entries.first().map_or(last + 1, |entry| entry.message.offset);
        // All that lies between is gone, or there is no room for it.
        let behind = if oldest > keep + 1 && oldest > standing.base.max(keep) + 1 { oldest - 1 } else { 0 };
        // A cold host does not know what was lost before this epoch, only that something may have been.
        let floor = if lost || keep == 0 { behind.max(standing.base).max(keep) } else { behind };
        if lost || keep == 0 || behind > 0 {
            let retained = self.link.retained()?;
            let before = retained.into_iter().filter(|entry| (keep + 1..oldest).contains(&entry.message.offset));
            entries.splice(0..0, before.collect::<Vec<_>>());
        }
        let now = boot_time();
        let messages = entries.into_iter().map(|Entry { time, message, .. }| {
            let age = standing.now.saturating_sub(time).max(0);
            Followed { time: now.saturating_sub(age), ..message }
        });
        Ok(Some(Rebase { epoch, lineage, keep, floor, last, messages: messages.collect() }))
    }
}

/// Whether that is the stream of which so much was read.
fn is_the_same(standing: &Standing, read: &Read) -> bool {
    let Some(position) = read.position else { return false };
    let mark = read.marks.last().filter(|(offset, _)| *offset == position.offset).map(|(_, mark)| *mark);
    standing.epoch == position.epoch.to_string()
        && standing.offset >= position.offset
        && match (mark, standing.mark) {
            (Some(ours), Some(theirs)) => ours == theirs,
            // What is not there any more was trimmed, if what is there came later.
            (Some(_), None) => standing.first > position.offset,
            // In our last place was none, or we do not know which.
            (None, _) => true,
        }
        && standing.first <= position.offset + 1
}

/// What is to be done to be one with the stream.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing.
    GoOn,
    /// Begin another epoch, since this one has two histories, or is behind what was heard of another. `same`: how far it is
    /// the same everywhere, where that is known.
    Renew { same: Option<u64> },
    /// Take over what is there, behind what is kept. `lost`: something may be missing.
    Rebase { keep: u64, lineage: Vec<Position>, lost: bool },
}

fn plan(standing: &Standing, epoch: u64, read: &Read, heard: Position) -> Plan {
    let Some(position) = read.position else {
        // A cold host reads the tail; one that was a log of its own goes on behind that.
        return match heard.offset {
            0 => Plan::Rebase { keep: 0, lineage: standing.lineage.clone(), lost: false },
            heard if standing.base < heard => Plan::Renew { same: Some(standing.offset) },
            heard => Plan::Rebase { keep: heard, lineage: standing.lineage.clone(), lost: true },
        };
    };
    if epoch == position.epoch {
        return match () {
            () if is_the_same(standing, read) => Plan::GoOn,
            // Trimmed behind a host that was too slow: the same stream, with a gap.
            () if standing.offset >= position.offset && standing.first > position.offset + 1 => {
                Plan::Rebase { keep: position.offset, lineage: Vec::new(), lost: false }
            }
            () => Plan::Renew { same: None },
        };
    }
    let mut lineage = standing.lineage.clone();
    match lineage.iter_mut().rfind(|known| known.epoch == position.epoch) {
        // Somebody has found where it parted.
        Some(known) => {
            known.offset = known.offset.min(position.offset);
            let keep = known.offset;
            match standing.base < position.offset {
                true => Plan::Renew { same: Some(standing.offset) },
                false => Plan::Rebase { keep, lineage, lost: true },
            }
        }
        // It was emptied, and nobody knows what was before.
        None if standing.base < position.offset => Plan::Renew { same: Some(standing.offset) },
        None => {
            lineage.push(position);
            Plan::Rebase { keep: position.offset, lineage, lost: true }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u64 = 9;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    /// A host that has read up to there, with a mark for each of the last two.
    fn read(offset: u64) -> Read {
        Read { position: Some(at(OURS, offset)), marks: vec![(offset - 1, 1), (offset, 2)] }
    }

    fn standing(epoch: u64, offset: u64, mark: Option<u64>) -> Standing {
        let (first, last) = (1, offset);
        Standing { epoch: epoch.to_string(), offset, first, last, mark, ..Standing::default() }
    }

    fn planned(standing: &Standing, read: &Read) -> Plan {
        let epoch = standing.epoch.parse().expect("a number");
        plan(standing, epoch, read, read.position.unwrap_or(at(1, 0)))
    }

    #[test]
    fn who_comes_back_to_the_same_stream_goes_on() {
        assert_eq!(planned(&standing(OURS, 10, Some(2)), &read(10)), Plan::GoOn);
        assert_eq!(planned(&standing(OURS, 500, Some(2)), &read(10)), Plan::GoOn);
        // Its last message was trimmed, and nothing behind it.
        let trimmed = Standing { first: 11, ..standing(OURS, 500, None) };
        assert_eq!(planned(&trimmed, &read(10)), Plan::GoOn);
    }

    #[test]
    fn what_was_trimmed_behind_a_slow_host_is_a_gap_in_the_same_epoch() {
        let trimmed = Standing { first: 300, ..standing(OURS, 500, None) };
        assert_eq!(planned(&trimmed, &read(10)), Plan::Rebase { keep: 10, lineage: Vec::new(), lost: false });
    }

    #[test]
    fn a_stream_that_has_lost_something_gets_another_epoch() {
        // A replica without the last writes; the same, and others have come since; one that was emptied by hand.
        let emptied = Standing { first: 0, last: 0, ..standing(OURS, 10, None) };
        for wrong in [standing(OURS, 7, None), standing(OURS, 12, Some(3)), emptied] {
            assert_eq!(planned(&wrong, &read(10)), Plan::Renew { same: None }, "{wrong:?}");
        }
    }

    #[test]
    fn in_another_epoch_what_is_the_same_everywhere_stays() {
        let (base, lineage) = (1_000_000, vec![at(OURS, 8)]);
        let other = Standing { base, lineage: lineage.clone(), ..standing(12, base + 3, None) };
        assert_eq!(planned(&other, &read(10)), Plan::Rebase { keep: 8, lineage, lost: true });
        // Who has read less than that knows no more.
        let lineage = vec![at(OURS, 5)];
        assert_eq!(planned(&other, &read(5)), Plan::Rebase { keep: 5, lineage, lost: true });
        // Emptied: nobody knows of what was before, and nothing has its places.
        let emptied = Standing { base, ..standing(12, base + 3, None) };
        assert_eq!(planned(&emptied, &read(10)), Plan::Rebase { keep: 10, lineage: vec![at(OURS, 10)], lost: true });
        // But where its places are ours already, others begin behind both.
        let begun_by_a_cold_host = standing(12, 3, None);
        assert_eq!(planned(&begun_by_a_cold_host, &read(10)), Plan::Renew { same: Some(3) });
    }

    #[test]
    fn a_cold_host_reads_the_tail() {
        let lineage = vec![at(3, 8)];
        let there = Standing { lineage: lineage.clone(), ..standing(OURS, 500, None) };
        assert_eq!(planned(&there, &Read::default()), Plan::Rebase { keep: 0, lineage, lost: false });
        // One that was a log of its own.
        assert_eq!(plan(&there, OURS, &Read::default(), at(1, 30)), Plan::Renew { same: Some(500) });
        let behind = Standing { base: 1_000_000, ..there };
        let Plan::Rebase { keep: 30, lost: true, .. } = plan(&behind, OURS, &Read::default(), at(1, 30)) else {
            panic!("it goes on behind its own");
        };
    }
}
