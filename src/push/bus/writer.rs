//! The thread that publishes, and that says once a second that this host is there.

use super::redis::{Failure, Link, Placed};
use super::{Attempts, Bus, Outgoing, Side};
use crate::config::BusDown;
use crate::push::hub::new_epoch;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use pubsub::{KEY_LIFETIME, PublishError};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Publications that are sent together.
const BATCH: usize = 128;
/// Between two ticks.
const TICK: Duration = Duration::from_secs(1);

/// Until the server has ended.
pub fn run(bus: &Bus, publications: &Receiver<Outgoing>, alone: bool) {
    let mut writer = Writer { bus, publications, held: Vec::new(), alone };
    let mut attempts = Attempts::default();
    while let Some(link) = bus.connect(&mut attempts, |standing, reason| standing.writer = Side::Down(reason)) {
        // Before it is this process's, it must not begin an epoch: what was heard is not known.
        bus.wait_until_ours(alone);
        let failure = writer.serve(link);
        if bus.is_over() {
            break;
        }
        if attempts.may_be_silent(&failure) {
            continue;
        }
        bus.set(|standing| standing.writer = Side::Down(failure.reason()));
        writer.refuse_what_waits();
    }
    writer.refuse_all();
}

struct Writer<'b> {
    bus: &'b Bus,
    publications: &'b Receiver<Outgoing>,
    /// Taken from the channel, and not yet sent.
    held: Vec<Outgoing>,
    alone: bool,
}

impl Writer<'_> {
    /// Publishes and ticks, as long as that works.
    fn serve(&mut self, mut link: Link) -> Failure {
        let mut due = Instant::now();
        loop {
            if self.bus.is_over() {
                return Failure::Lost("the server ends".into());
            }
            if Instant::now() >= due {
                due = Instant::now() + TICK;
                if let Err(failure) = self.tick(&mut link) {
                    match failure {
                        // It says no, and may say yes in a while: to hang up would not help.
                        Failure::Refused(reason) => {
                            self.bus.set(|standing| standing.writer = Side::Down(reason));
                            self.refuse_what_waits();
                        }
                        lost => return lost,
                    }
                }
            }
            if let Err(failure) = self.publish(&mut link, due) {
                return failure;
            }
        }
    }

    fn tick(&self, link: &mut Link) -> Result<(), Failure> {
        if !self.bus.is_ours(self.alone) {
            return Ok(());
        }
        let ticked = self.bus.tick(link)?;
        self.bus.set(|standing| {
            standing.writer = Side::Up;
            standing.remote = Some(ticked);
        });
        Ok(())
    }

    /// Whether what comes is sent now.
    fn sends(&self) -> bool {
        let standing = self.bus.standing();
        // What nobody reads back has no answer.
        matches!(standing.writer, Side::Up) && !matches!(standing.reader, Side::Down(_))
    }

    /// Sends what there is, or waits for some until then.
    fn publish(&mut self, link: &mut Link, until: Instant) -> Result<(), Failure> {
        if !self.sends() {
            if self.bus.standing().up == Some(false) {
                self.refuse_what_waits();
            }
            // Those that wait do so until their time is over, of which they know themselves.
            std::thread::sleep(Duration::from_millis(20).min(until.saturating_duration_since(Instant::now())));
            return Ok(());
        }
        if self.held.is_empty() {
            match self.publications.recv_deadline(until) {
                Ok(one) => self.held.push(one),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
            // That may have changed while nothing came.
            if !self.sends() {
                return Ok(());
            }
        }
        let more = BATCH.saturating_sub(self.held.len());
        self.held.extend(self.publications.try_iter().take(more));
        self.held.retain(|one| {
            let leaves = one.ticket.leaves();
            if !leaves {
                self.bus.waiting_bytes.fetch_sub(one.bytes, Ordering::AcqRel);
            }
            leaves
        });
        let batch = std::mem::take(&mut self.held);
        let bytes: usize = batch.iter().map(|one| one.bytes).sum();
        let outcome = self.send(link, &batch);
        self.bus.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
        outcome
    }

    fn send(&self, link: &mut Link, batch: &[Outgoing]) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let heard = self.bus.hub.heard();
        let how = (self.bus.settings.max_length, KEY_LIFETIME);
        let mut lost = link.send_publications(batch.iter(), new_epoch(), heard, how).err();
        for Outgoing { ticket, .. } in batch {
            if lost.is_some() {
                ticket.end(Err(PublishError::Unanswered));
                continue;
            }
            match link.placed() {
                Ok(Placed::At(position)) => self.bus.placed(ticket, position, false),
                Ok(Placed::Repeated(position)) => self.bus.placed(ticket, position, true),
                Ok(Placed::Partly(reason)) => {
                    self.bus.set(|standing| standing.writer = Side::Down(reason));
                    ticket.end(Err(PublishError::Unanswered));
                }
                Ok(Placed::Reused) => ticket.end(Err(PublishError::KeyReused)),
                Err(Failure::Refused(reason)) => {
                    // Before who hears of it looks whether it is up again.
                    self.bus.set(|standing| standing.writer = Side::Down(reason));
                    ticket.end(Err(PublishError::Unavailable));
                }
                Err(failure) => {
                    ticket.end(Err(PublishError::Unanswered));
                    lost = Some(failure);
                }
            }
        }
        lost.map_or(Ok(()), Err)
    }

    /// It is down: what waits is told so, unless it may go on waiting.
    fn refuse_what_waits(&mut self) {
        if self.bus.settings.down == BusDown::Refuse {
            self.refuse_all();
        }
    }

    fn refuse_all(&mut self) {
        let held = std::mem::take(&mut self.held);
        for one in held.into_iter().chain(self.publications.try_iter()) {
            self.bus.waiting_bytes.fetch_sub(one.bytes, Ordering::AcqRel);
            one.ticket.end(Err(PublishError::Unavailable));
        }
    }
}
