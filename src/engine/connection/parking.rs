//! What each state waits for while it is parked: the one place that says it.

use super::{Connection, Shared, State, writing::ResponseBody};
use crate::clock::Millis;
use crate::config::DRAIN_LINGER;
use crate::engine::slot::{FARTHEST, Parked, Parking, Shed};
use http1::head::is_blank;
use std::time::Duration;

/// A connection does not go for another before it has been waited for that long: its request, or the rest of it, may be on
/// the way.
const SHED_GRACE: Duration = Duration::from_secs(1);

impl Connection {
    /// How it is parked in the state that it is in, from now on. Events, deadlines, eviction, a move and a hold go by this
    /// and know no states.
    pub fn parking(&self, shared: &Shared, now: Millis) -> Parking {
        let limits = &shared.limits;
        // Nothing is woken by what it does not wait for, and nobody moves what has code of the application's.
        let nothing = Parked { movable: true, ..Parked::default() };
        let reads = Parked { on_readable: true, ..nothing };
        // What came, or its rest, may be on the way.
        let waited_for = |since: Millis| since.after(SHED_GRACE);
        let (parked, deadline, sheddable_at) = match &self.state {
            State::ReadingHead if self.begun.is_some() || !is_blank(&self.input) => {
                let since = self.begun.unwrap_or(now);
                let parked = Parked { refusable: true, shed: Some(Shed::Late), ..reads };
                (parked, since.after(limits.head_timeout), waited_for(since))
            }
            State::ReadingHead => {
                let ends = shared.is_draining() || self.last;
                let timeout = if ends { DRAIN_LINGER } else { limits.idle_timeout };
                let parked = Parked { refusable: true, shed: Some(Shed::Idle), ..reads };
                (parked, now.after(timeout), waited_for(now))
            }
            State::ReadingBody(collecting) => {
                let (deadline, _) = collecting.deadline(limits);
                // Where there is no room for more it is no use to be woken by more.
                let on_readable = collecting.collects || collecting.expects_continue;
                let wants_stream = collecting.waits.is_some();
                // A body that comes faster than its least rate moves its deadline on, and is not late.
                let in_time = Millis(deadline.0.saturating_sub(limits.body_timeout.as_millis() as u64));
                (Parked { on_readable, wants_stream, shed: Some(Shed::Late), ..reads }, deadline, waited_for(in_time))
            }
            State::AwaitingPermit(push) => {
                let parked = Parked { wants_stream: true, movable: false, ..nothing };
                (parked, push.since.after(limits.stream_wait), now)
            }
            State::Writing(writing) => {
                let movable = !matches!(writing.source, ResponseBody::Reader { .. });
                let parked = Parked { on_writable: true, movable, ..nothing };
                (parked, writing.window.ends().unwrap_or(now), now)
            }
            // Never in the way of a new one, and not idle: it is why the client is there.
            State::Subscribed(subscribed) => match &subscribed.blocked {
                Some(blocked) => (Parked { on_writable: true, ..nothing }, blocked.window.ends().unwrap_or(now), now),
                None => (Parked { on_wake: true, ..nothing }, subscribed.until.min(subscribed.ends), now),
            },
            // The same; and what its client says is for it, as long as that reads what it is told.
            State::Conversing(one) => match &one.blocked {
                Some(blocked) => {
                    let until = blocked.window.ends().unwrap_or(now);
                    (Parked { on_writable: true, ..nothing }, until, now)
                }
                None => (Parked { on_wake: true, ..reads }, one.until(), now),
            },
            State::Attached(attached) => match &attached.blocked {
                Some(blocked) => (Parked { on_writable: true, ..nothing }, blocked.window.ends().unwrap_or(now), now),
                // Heartbeats are its session's.
                None => (Parked { on_wake: true, ..nothing }, Millis::NEVER, now),
            },
            State::Awaiting(awaiting) => (Parked { on_wake: true, ..nothing }, awaiting.until, now),
            // After the last answer nothing is on the way.
            State::Lingering { until, .. } => (Parked { shed: Some(Shed::Idle), ..reads }, *until, now),
            // Only a worker may end it, which is on its way.
            State::Refused { until, .. } => (Parked { movable: false, ..reads }, *until, now),
        };
        Parking { parked, deadline: deadline.min(now.after(FARTHEST)), sheddable_at }
    }
}
