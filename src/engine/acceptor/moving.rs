//! Connections on their way to a successor, or from a predecessor.

use super::deliveries::TURN_COMES;
use super::holding::Hold;
use super::{Acceptor, DRAIN_TICK};
use crate::clock::Millis;
use crate::engine::connection::Slot;
use crate::engine::connection::{Connection, Restored};
use crate::engine::slot::{Notified, Parking, Readiness, Sched, Word};
use crate::engine::table::{ClientNet, Table};
use crate::lifecycle::link::{Link, MAX_DESCRIPTORS, Message, Sent, Snapshots, payload, test_point, test_time};
use crate::lifecycle::patience::Patience;
use crate::lifecycle::state::encode;
use http1::Reject;
use mio::unix::SourceFd;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Connections on their way to the successor at a time.
const UNACKNOWLEDGED: usize = 128;
/// The same where several go in one packet, and how many these are: fewer descriptors than a packet may have, of two each.
const UNACKNOWLEDGED_IN_BATCHES: usize = 1024;
const BATCH: usize = (MAX_DESCRIPTORS - 1) / 2;
/// What they are written in stands in the packet, and in no memfd, which might be what does not arrive. One that has more
/// goes alone.
const BATCH_BYTES: usize = 24 * 1024;

/// Connections of a predecessor that get their places before other clients are looked at again.
const ADOPTED: usize = 256;

/// How long the successor may say nothing while it has connections to acknowledge.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are looked at for some that can move, before those that cannot are left alone for a tick.
const LOOKS: usize = 8192;

/// Connections on their way to the successor.
pub(super) struct Migration {
    /// The version of the state to write. Without one nothing can move.
    pub(super) state: Option<u32>,
    batches: bool,
    pub(super) link: Link,
    /// For the next answer, while some are awaited.
    pub(super) patience: Patience,
    /// Whether it was over at the last look.
    pub(super) silent: bool,
    /// Told once when the successor does not answer any more.
    pub(super) stalled: Option<Box<dyn Fn() + Send>>,
    pub(super) next_id: u64,
    /// What a client waits for moves first.
    first: VecDeque<Arc<Slot>>,
    round: Round,
    /// Sent and not yet committed, mostly in the order in which they went.
    pub(super) moving: VecDeque<Moving>,
    /// Acknowledged, their COMMIT to be sent in this order.
    pub(super) commits: VecDeque<u64>,
    /// After a switch: this process serves no request any more, and stays until then for the case that its successor
    /// dies.
    pub(super) stands_by: Option<Millis>,
}

impl Migration {
    pub(super) fn new(
        state: Option<u32>,
        batches: bool,
        link: Link,
        stalled: Box<dyn Fn() + Send>,
        stands_by: Option<Millis>,
    ) -> Migration {
        Migration {
            state,
            batches,
            link,
            patience: Patience::new(test_time("HANDOVER_TEST_ACK_TIMEOUT", ACK_TIMEOUT)),
            silent: false,
            stalled: Some(stalled),
            next_id: 0,
            first: VecDeque::new(),
            round: Round::default(),
            moving: VecDeque::new(),
            commits: VecDeque::new(),
            stands_by,
        }
    }

    /// How many more may be on their way.
    fn room(&self) -> usize {
        let most = if self.batches { UNACKNOWLEDGED_IN_BATCHES } else { UNACKNOWLEDGED };
        most.saturating_sub(self.moving.len())
    }

    /// Says that these are the successor's. Answers those of which it was said.
    fn commit(&mut self) -> Vec<u64> {
        let some = if self.batches { self.commits.len() } else { 1 };
        let ids: Vec<u64> = self.commits.iter().take(some).copied().collect();
        let word = match &ids[..] {
            [] => return ids,
            [id] => Message::Commit(*id),
            ids => Message::Commits(ids.to_vec()),
        };
        test_point("predecessor-acked");
        match self.link.send(&word, &[]) {
            Ok(Sent::Yes) => {}
            // An error is the end of the link, which the thread that listens to it notices too.
            Ok(Sent::Later) | Err(_) => return Vec::new(),
        }
        test_point("predecessor-commit");
        self.commits.drain(..ids.len());
        self.goes_on();
        ids
    }

    /// Whether this process may end when nothing is left.
    pub(super) fn may_end(&self, now: Millis) -> bool {
        self.stands_by.is_none_or(|until| now >= until)
    }

    /// The successor stops as well: nobody takes over from it.
    pub(super) fn stands_by_no_more(&mut self, now: Millis) {
        self.stands_by = self.stands_by.map(|until| until.min(now));
    }

    /// The successor has read something, or answered.
    pub(super) fn goes_on(&mut self) {
        self.patience.renew();
        self.silent = false;
    }

    /// Whether the successor has been silent for too long, and nothing that it said is still on its way: what was
    /// received a moment ago has come here by the next look.
    fn has_stalled(&mut self) -> bool {
        if self.moving.is_empty() {
            self.goes_on();
        }
        let over = self.patience.is_over() && !self.link.has_unread();
        std::mem::replace(&mut self.silent, over) && over
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Moving> {
        let at = self.moving.iter().position(|moving| moving.id == id)?;
        self.moving.remove(at)
    }
}

/// The look for connections that can move: round the table, each time from where the last one ended. To begin anew would be
/// a look at all of them for each few that move.
#[derive(Default)]
struct Round {
    at: usize,
    /// When to go on, after a look that did not find as many as were wanted: this is asked at each event, and what parks
    /// says nothing.
    again: Millis,
}

impl Round {
    /// The next that can move, at most so many.
    fn next(
        &mut self,
        table: &Table,
        now: Millis,
        most: usize,
        mut can_move: impl FnMut(&Arc<Slot>) -> bool,
    ) -> Vec<Arc<Slot>> {
        let mut found = Vec::new();
        if most == 0 || now < self.again {
            return found;
        }
        for (behind, slot) in table.iter_from(self.at).take(LOOKS) {
            self.at = behind;
            if can_move(slot) {
                found.push(slot.clone());
                if found.len() == most {
                    return found;
                }
            }
        }
        self.again = now.after(Duration::from_millis(DRAIN_TICK));
        found
    }
}

pub(super) struct Moving {
    pub(super) id: u64,
    pub(super) slot: Arc<Slot>,
    /// As it was parked.
    pub(super) parked: Word,
}

impl Acceptor {
    /// Moves what is parked, and says COMMIT for what the successor has.
    pub(super) fn migrate(&mut self) {
        let Some(migration) = &mut self.migration else { return };
        loop {
            let ids = migration.commit();
            if ids.is_empty() {
                break;
            }
            let version = migration.state;
            for moving in ids.into_iter().filter_map(|id| migration.take(id)) {
                // Only our copy is closed: nothing is shut down, the description lives on in the successor.
                if let Some(connection) = moving.slot.connection().as_mut() {
                    connection.set_moved(&self.shared, version);
                }
                moving.slot.close();
                // As in `forget`, which cannot be called with the migration at hand.
                self.timers.forget(moving.slot.token());
                let source = self.table.remove(moving.slot.token());
                if !self.postponed.is_empty() {
                    self.freed.extend(source);
                }
                self.shared.stats.migrated();
            }
        }
        if migration.has_stalled()
            && let Some(stalled) = migration.stalled.take()
        {
            stalled();
        }
        if self.shared.is_draining() {
            return;
        }
        let movable = |slot: &Arc<Slot>| {
            slot.load().parked().is_some_and(|parked| parked.movable)
                && slot.connection().as_ref().is_some_and(|one| !one.ends_soon())
        };
        let (room, moves, batches) = (migration.room(), migration.state.is_some(), migration.batches);
        let mut some: Vec<Arc<Slot>> = migration.first.drain(..room.min(migration.first.len())).collect();
        some.retain(movable);
        some.extend(migration.round.next(&self.table, self.now, room - some.len(), movable));
        if !moves {
            some.iter().for_each(|slot| self.end_soon(slot));
            return;
        }
        let claimed = some.into_iter().filter_map(|slot| {
            let seen = slot.load();
            (seen.is_parked() && slot.claim(seen, Sched::Running)).then_some((slot, seen))
        });
        let claimed: Vec<(Arc<Slot>, Word)> = claimed.collect();
        for batch in claimed.chunks(if batches { BATCH } else { 1 }) {
            for (slot, seen) in self.move_batch(batch) {
                let deadline = Millis(self.now.0.saturating_add_signed(slot.remaining(self.now).into()));
                if let Some(parked) = seen.parked() {
                    slot.park_again(parked, deadline);
                }
            }
        }
    }

    /// Moves connections that are this thread's, each parked as said. Answers those that cannot move now.
    fn move_batch(&mut self, batch: &[(Arc<Slot>, Word)]) -> Vec<(Arc<Slot>, Word)> {
        if let [(slot, seen)] = batch {
            return if self.move_away(slot, *seen) { Vec::new() } else { batch.to_vec() };
        }
        let Some(migration) = &mut self.migration else { return batch.to_vec() };
        let version = migration.state.filter(|_| migration.stalled.is_some());
        let Some(version) = version else { return batch.to_vec() };
        let (mut moves, mut stays, mut large) = (Vec::new(), Vec::new(), Vec::new());
        let mut room = BATCH_BYTES;
        for (slot, seen) in batch {
            let guard = slot.connection();
            let deadline = Millis(self.now.0.saturating_add_signed(slot.remaining(self.now).into()));
            let written = guard.as_ref().and_then(|connection| {
                let (snapshot, file) = connection.snapshot(deadline, version)?;
                Some((encode(snapshot, version), file.is_some()))
            });
            match written {
                Some((snapshot, _)) if snapshot.len() > BATCH_BYTES => large.push((slot.clone(), *seen)),
                Some((snapshot, _)) if snapshot.len() > room => stays.push((slot.clone(), *seen)),
                Some((snapshot, file)) => {
                    room -= snapshot.len();
                    moves.push((slot, *seen, guard, file, snapshot));
                }
                None => stays.push((slot.clone(), *seen)),
            }
        }
        let snapshots = moves.iter_mut().map(|(.., file, snapshot)| (*file, std::mem::take(snapshot).into()));
        let snapshots = Snapshots(snapshots.collect());
        let connections = moves.iter().filter_map(|(_, _, guard, file, _)| Some((guard.as_ref()?, *file)));
        let descriptors = connections.flat_map(|(connection, file)| {
            let file = connection.file().filter(|_| file);
            [Some(connection.socket().as_fd()), file].into_iter().flatten()
        });
        let descriptors: Vec<_> = descriptors.collect();
        let sent = match descriptors.is_empty() {
            true => Ok(Sent::Later),
            false => send_connections(&migration.link, migration.next_id, &snapshots, &descriptors),
        };
        match sent {
            Ok(Sent::Yes) => {
                test_point("predecessor-sent");
                for (slot, parked, guard, ..) in moves {
                    // As in `move_away`.
                    if let Some(connection) = guard.as_ref()
                        && let Err(error) =
                            self.poll.registry().deregister(&mut SourceFd(&connection.socket().as_raw_fd()))
                    {
                        log::warn!("cannot stop watching a connection that moves: {error}");
                    }
                    drop(guard);
                    let id = migration.next_id;
                    migration.next_id += 1;
                    slot.freeze(parked);
                    migration.moving.push_back(Moving { id, slot: slot.clone(), parked });
                }
            }
            outcome => {
                if let Err(error) = outcome {
                    log::debug!("connections could not be sent to the successor: {error}");
                }
                stays.extend(moves.into_iter().map(|(slot, seen, ..)| (slot.clone(), seen)));
            }
        }
        large.retain(|(slot, seen)| !self.move_away(slot, *seen));
        stays.extend(large);
        stays
    }

    /// FREEZE and SEND for a connection that is this thread's, and was parked as said. `false` if it cannot move now.
    pub(super) fn move_away(&mut self, slot: &Arc<Slot>, parked: Word) -> bool {
        let Some(migration) = &mut self.migration else { return false };
        let Some(version) = migration.state else { return false };
        if migration.room() == 0 || migration.stalled.is_none() || self.shared.is_draining() {
            return false;
        }
        let guard = slot.connection();
        let Some(connection) = guard.as_ref().filter(|connection| !connection.ends_soon()) else { return false };
        let deadline = Millis(self.now.0.saturating_add_signed(slot.remaining(self.now).into()));
        let Some((snapshot, file)) = connection.snapshot(deadline, version) else { return false };
        let id = migration.next_id;
        match send_connection(&migration.link, id, connection, encode(snapshot, version), file) {
            Ok(Sent::Yes) => {
                test_point("predecessor-sent");
                // Closing our copy later would not be enough: epoll goes on reporting a description that lives
                // elsewhere. No event can come in between, since this thread is the one that asks for them.
                if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&connection.socket().as_raw_fd())) {
                    log::warn!("cannot stop watching a connection that moves: {error}");
                }
                drop(guard);
                migration.next_id += 1;
                slot.freeze(parked);
                migration.moving.push_back(Moving { id, slot: slot.clone(), parked });
                true
            }
            Ok(Sent::Later) => false,
            Err(error) => {
                log::debug!("a connection could not be sent to the successor: {error}");
                false
            }
        }
    }

    /// Whether the successor has the application's state, so that no request is for this process any more.
    pub(super) fn has_switched(&self) -> bool {
        self.migration.as_ref().is_some_and(|migration| migration.stands_by.is_some())
    }

    /// What stood in front of the workers, or in their channel, is moved unread: the successor has to answer it.
    pub(super) fn move_held(&mut self) {
        self.asked = None;
        self.shared.phase.hold(false);
        for slot in self.hold.take().into_iter().flat_map(Hold::into_slots) {
            self.leave_unread(&slot);
        }
    }

    /// Parks what has come and is for the successor to read. One that the successor has refused is told to come again.
    pub(super) fn leave_unread(&mut self, slot: &Arc<Slot>) {
        // As a worker takes it: this thread has its entry, or has claimed it.
        if slot.begin().is_none() && !matches!(slot.load().sched(), Sched::Running | Sched::RunningAgain) {
            return;
        }
        let seen = slot.look_again();
        let refused = {
            let mut guard = slot.connection();
            let Some(connection) = guard.as_mut() else { return };
            connection
                .ends_soon()
                .then(|| connection.give_up(Reject::Overloaded, &self.shared, self.now, self.date.field()))
        };
        match refused {
            Some(expiry) => self.act_on(slot, seen, expiry),
            None => self.park_unread(slot),
        }
    }

    fn park_unread(&mut self, slot: &Arc<Slot>) {
        let parking = slot.connection().as_ref().map(|connection| connection.parking(&self.shared, self.now));
        let Some(mut parking) = parking else { return };
        if slot.connection().as_ref().is_some_and(Connection::converses) {
            // What is due is for the successor to do as well. Until it has it, that is no reason to look again and again.
            parking.deadline = parking.deadline.max(self.now.after(TURN_COMES));
        }
        while !slot.park(parking) {
            slot.look_again();
        }
        self.timers.look_at(slot.token(), self.now, parking.deadline);
        if let Some(migration) = &mut self.migration {
            migration.first.push_back(slot.clone());
        }
    }

    /// The successor is gone: what it was to read is read here, and no event would tell of it again.
    pub(super) fn watch_anew(&mut self) {
        let slots: Vec<Arc<Slot>> = self.table.iter().filter(|slot| slot.load().is_parked()).cloned().collect();
        for slot in slots {
            let fd = slot.connection().as_ref().map(|connection| connection.socket().as_raw_fd());
            // One that has come back from its move is watched already.
            if let Some(fd) = fd {
                let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
            }
            self.watch(&slot);
            self.go_on_with_what_was_read(slot);
        }
    }

    /// A worker had read what it did not begin with any more. No event tells of that: it is not in the socket.
    pub(super) fn go_on_with_what_was_read(&mut self, slot: Arc<Slot>) {
        if slot.connection().as_ref().is_some_and(Connection::has_read) {
            self.notify(slot, Readiness { readable: true, ..Readiness::default() });
        }
    }

    /// A connection that cannot move ends politely: with its next response, or soon.
    pub(super) fn end_soon(&mut self, slot: &Slot) {
        if let Some(connection) = slot.connection().as_mut() {
            connection.end_soon();
            if connection.is_subscribed() && slot.load().is_parked() {
                // Its client is told to come back at once.
                slot.set_deadline(self.now);
            } else if connection.is_idle() && slot.load().is_parked() {
                slot.set_deadline(self.now.after(crate::config::DRAIN_LINGER));
            }
        }
        self.look_soon(slot);
    }

    /// A connection on its way stays here after all.
    pub(super) fn unfreeze(&mut self, moving: &Moving) {
        let slot = &moving.slot;
        let deadline = self.now.after(Duration::from_millis(slot.remaining(self.now).max(0) as u64));
        if let Some(parked) = moving.parked.parked() {
            slot.park_again(parked, deadline);
            if parked.wants_stream {
                // It was taken for gone, and no event need tell of it.
                self.streams.wait(slot.token(), &self.table);
            }
            if parked.on_wake {
                // What was said meanwhile has passed it by. Not now: what was refused is first to end soon.
                self.deliveries.wait(slot.token());
            }
        }
        // A look while it was away has left it without a timer.
        self.look_soon(slot);
        self.watch(slot);
    }

    /// Gives some of those a place that have come from the predecessor.
    pub(super) fn adopt_some(&mut self) {
        for _ in 0..ADOPTED {
            let Some(restored) = self.adopting.pop_front() else { return };
            let (source, bytes) = self.adopt(restored);
            self.gave(source, bytes);
        }
    }

    /// Goes on with a connection of the predecessor. Answers whose it is, and how much memory it brings.
    pub fn adopt(&mut self, restored: Restored) -> (Option<ClientNet>, usize) {
        let Restored { mut connection, deadline, ready } = restored;
        let (subscribes, waits) = (connection.is_subscribed(), connection.waits_for_application());
        let bytes = connection.bring_its_share(&self.shared);
        let source = connection.peer().map(ClientNet::of);
        // As in its state here; only its deadline was set before. Its application may want it earlier since then.
        let deadline = deadline.min(connection.wake_time());
        let parking = Parking { deadline, ..connection.parking(&self.shared, self.now) };
        let slot = self.table.insert(source, |token| Slot::new(token, connection, parking)).clone();
        // While this server stops, an idle one has less time than it was given there.
        self.look_soon(&slot);
        // Edge-triggered, so registering says at once what is ready already.
        self.watch(&slot);
        // Its application goes on with it in a turn, also where its client does not read.
        let ready_now = Readiness { readable: ready || waits, writable: waits, ..Readiness::default() };
        if subscribes {
            // Before what it is looked at for, or a message in between would be nobody's.
            let behind = slot.connection().as_mut().is_some_and(|connection| connection.enter_hub(slot.token()));
            if behind {
                self.deliveries.wait(slot.token());
            }
        }
        if (ready || waits) && matches!(slot.notify(ready_now), Notified::Enqueue(_)) {
            self.enqueue(slot);
        }
        (source, bytes)
    }
}

fn send_connections(
    link: &Link,
    first: u64,
    snapshots: &Snapshots,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Sent> {
    let (snapshots, memfd) = payload(snapshots.written()?)?;
    debug_assert!(memfd.is_none(), "they fit into a packet");
    link.send(&Message::Connections { first, snapshots }, descriptors)
}

fn send_connection(
    link: &Link,
    id: u64,
    connection: &Connection,
    snapshot: Vec<u8>,
    file: Option<BorrowedFd<'_>>,
) -> io::Result<Sent> {
    let (snapshot, memfd) = payload(snapshot)?;
    let message = Message::Connection { id, file: file.is_some(), snapshot };
    let mut descriptors = vec![connection.socket().as_fd()];
    descriptors.extend(file);
    descriptors.extend(memfd.as_ref().map(AsFd::as_fd));
    link.send(&message, &descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slot::Parked;

    fn table_of(connections: usize) -> Table {
        let mut table = Table::default();
        let parked = Parked { on_readable: true, ..Parked::default() };
        let parking = Parking { parked, deadline: Millis(1), sheddable_at: Millis(1) };
        for _ in 0..connections {
            let slot = table.insert(None, |token| Slot::new(token, Connection::for_test(), parking));
            // Only its place is looked at, and a descriptor for each might be too many.
            *slot.connection() = None;
        }
        table
    }

    #[test]
    fn to_move_so_many_takes_as_many_looks() {
        const CONNECTIONS: usize = 3000;
        let (mut table, mut round, mut looks) = (table_of(CONNECTIONS), Round::default(), 0);
        while table.len() > 0 {
            let found = round.next(&table, Millis(0), UNACKNOWLEDGED, |_| {
                looks += 1;
                true
            });
            assert!(!found.is_empty(), "{} are left", table.len());
            found.iter().for_each(|slot| _ = table.remove(slot.token()));
        }
        assert_eq!(looks, CONNECTIONS);
    }

    /// At each event it was looked at all of them anew.
    #[test]
    fn what_cannot_move_is_looked_at_once_a_tick_and_a_part_of_it() {
        let (table, mut round, mut looks) = (table_of(LOOKS + 10), Round::default(), 0);
        let mut look = |round: &mut Round, now| {
            let before = looks;
            let found = round.next(&table, Millis(now), UNACKNOWLEDGED, |slot| {
                looks += 1;
                Table::index_of(slot.token()) == LOOKS + 5
            });
            (found.len(), looks - before)
        };
        assert_eq!(look(&mut round, 0), (0, LOOKS));
        for now in 0..DRAIN_TICK {
            assert_eq!(look(&mut round, now), (0, 0));
        }
        assert_eq!(look(&mut round, DRAIN_TICK), (1, LOOKS), "from where the last one ended");
    }
}
