//! What each state waits for while it is parked: the one place that says it.

use super::{Connection, Services, State, writing::Source};
use crate::clock::Millis;
use crate::config::DRAIN_LINGER;
use crate::http::head::is_blank;
use crate::slot::{Parked, Parking, Shed};
use std::time::Duration;

/// A connection does not go for another before it has been waited for that long: its request, or the rest of it, may be on
/// the way.
const SHED_GRACE: Duration = Duration::from_secs(1);

impl Connection {
    /// How it is parked in the state that it is in, from now on. Events, deadlines, eviction, a move and a hold go by this
    /// and know no states.
    pub fn parking(&self, services: &Services, now: Millis) -> Parking {
        let limits = &services.limits;
        // Nothing is woken by what it does not wait for, and nobody moves what has code of the application's.
        let nothing = Parked { movable: true, ..Parked::default() };
        let reads = Parked { on_readable: true, ..nothing };
        let (parked, deadline) = match &self.state {
            State::Head if self.begun.is_some() || !is_blank(&self.input) => {
                let since = self.begun.unwrap_or(now);
                (Parked { refusable: true, shed: Some(Shed::Late), ..reads }, since.after(limits.head_timeout))
            }
            State::Head => {
                let ends = services.is_draining() || self.last;
                let timeout = if ends { DRAIN_LINGER } else { limits.idle_timeout };
                (Parked { refusable: true, shed: Some(Shed::Idle), ..reads }, now.after(timeout))
            }
            State::Body(collecting) => {
                let (deadline, _) = collecting.deadline(limits);
                // Where there is no room for more it is no use to be woken by more.
                let on_readable = collecting.collects || collecting.expects_continue;
                let wants_stream = collecting.waits.is_some();
                (Parked { on_readable, wants_stream, shed: Some(Shed::Late), ..reads }, deadline)
            }
            State::Waiting(push) => {
                (Parked { wants_stream: true, movable: false, ..nothing }, push.since.after(limits.stream_wait))
            }
            State::Writing(writing) => {
                let movable = !matches!(writing.source, Source::Reader { .. });
                (Parked { on_writable: true, movable, ..nothing }, writing.window.ends().unwrap_or(now))
            }
            State::Lingering { until, .. } => (Parked { shed: Some(Shed::Idle), ..reads }, *until),
            // Only a worker may end it, which is on its way.
            State::Abandoned { until, .. } => (Parked { movable: false, ..reads }, *until),
        };
        // What came, or its rest, may be on the way; after the last answer nothing is.
        let grace = if self.is_lingering() { now } else { now.after(SHED_GRACE) };
        // A body that comes faster than its least rate moves its deadline on, and is not late.
        let sheddable_at = match (&self.state, self.begun) {
            (State::Body(_), _) => {
                Millis(deadline.0.saturating_sub(limits.body_timeout.as_millis() as u64)).after(SHED_GRACE)
            }
            (State::Head, Some(begun)) => begun.after(SHED_GRACE),
            _ => grace,
        };
        Parking { parked, deadline, sheddable_at }
    }
}
