//! An acceptor without a server: its thread is the test's, and so are the workers.

use super::moving::Moving;
use super::{Acceptor, HoldOrder, Jobs, WAKER};
use crate::api::Router;
use crate::clock::Millis;
use crate::config::Limits;
use crate::engine::connection::transport::Transport;
use crate::engine::connection::{CloseReason, Connection, Restored, Role, Shared, Slot, Turn, Verdict, WorkerContext};
use crate::engine::pool::job::Job;
use crate::engine::pool::work_queue::{Consumer, queue};
use crate::engine::pool::worker::AcceptorHandle;
use crate::engine::slot::{Parked, Parking, Sched};
use crate::lifecycle::state::{SavedSide, SavedState, Snapshot};
use crate::{Carried, Client, Conversation, Incoming, Request, Response};
use crossbeam_channel::{bounded, unbounded};
use http1::Reject;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

struct Bench {
    acceptor: Acceptor,
    jobs: Consumer<Job>,
    shared: Arc<Shared>,
}

impl Bench {
    fn new() -> Bench {
        let limits = Limits { queue_timeout: Duration::from_secs(10), ..Limits::default() };
        let shared = Shared::for_test(limits, Router::new().get("/", |_| "hello\n"), None);
        let poll = mio::Poll::new().expect("a poller");
        let waker = mio::Waker::new(poll.registry(), WAKER).expect("a waker");
        let (messages, inbox) = unbounded();
        let to_acceptor = AcceptorHandle::new(messages, Arc::new(waker));
        let (workers, mut consumers) = queue(8, 1);
        let (streamers, _) = queue(1, 1);
        let jobs = Jobs { workers, streamers, status: None };
        let (_, commands) = unbounded();
        let acceptor = Acceptor::new(poll, Vec::new(), jobs, inbox, to_acceptor, commands, shared.clone());
        Bench { acceptor: acceptor.expect("a poller"), jobs: consumers.remove(0), shared }
    }

    /// A connection that is parked like that, and its client.
    fn connect(&mut self, transport: fn(OwnedFd) -> Transport, parked: Parked) -> (Arc<Slot>, UnixStream) {
        let (ours, client) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("an open socket");
        client.set_nonblocking(true).expect("an open socket");
        let connection = Connection::new(transport(ours.into()), None);
        let parking = Parking { parked, deadline: Millis::NEVER, sheddable_at: Millis::NEVER };
        let slot = self.acceptor.table.insert(None, |token| Slot::new(token, connection, parking)).clone();
        self.acceptor.watch(&slot);
        (slot, client)
    }

    /// What the acceptor does about what its poller says, and nothing else.
    fn take_events(&mut self) {
        let mut events = mio::Events::with_capacity(8);
        self.acceptor.poll.poll(&mut events, Some(Duration::ZERO)).expect("events");
        events.iter().filter(|event| event.token() != WAKER).for_each(|event| self.acceptor.event(event));
    }

    /// There is news for who has that token.
    fn wake(&mut self, token: usize) {
        self.acceptor.deliveries.wait(token);
        self.acceptor.deliver();
    }

    /// The next that a worker takes out of the channel, if there is any.
    fn job(&mut self) -> Option<Arc<Slot>> {
        match (!self.acceptor.jobs.is_empty()).then(|| self.jobs.next()).flatten()? {
            Job::Turn(slot) => Some(slot),
            Job::Deliveries(slots) => {
                self.acceptor.deliveries.served();
                assert_eq!(slots.len(), 1);
                slots.into_iter().next()
            }
            Job::Ended | Job::Sessions => panic!("nothing of a conversation has ended, or is due"),
        }
    }
}

const IDLE: Parked = Parked { shed: None, ..Parked::READING };

/// It waits for its client, and for news.
const SUBSCRIBED: Parked = Parked { on_wake: true, refusable: false, ..IDLE };

/// What the acceptor cannot answer through its transport is queued again with its answer, by the entry that stands in the
/// channel, or by another if a worker took that one meanwhile.
#[test]
fn what_waits_too_long_for_a_worker_is_answered_by_the_acceptor_or_by_that_worker() {
    for opaque in [false, true] {
        let mut bench = Bench::new();
        let transport = if opaque { Transport::opaque } else { Transport::new };
        let (slot, mut client) = bench.connect(transport, IDLE);
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("room");
        bench.take_events();
        assert_eq!(slot.load().sched(), Sched::Queued);
        bench.acceptor.now = bench.acceptor.now.after(Duration::from_secs(11));
        bench.acceptor.keep_deadlines();
        let mut answer = [0; 1000];
        let at_once = client.read(&mut answer);
        let entry = bench.job().expect("its entry");
        assert!(bench.job().is_none(), "there is one entry");
        if !opaque {
            assert!(answer.starts_with(b"HTTP/1.1 503 ") && slot.load().sched() == Sched::Expired);
            assert!(at_once.is_ok() && entry.begin().is_none(), "the entry is stale");
            assert_eq!(bench.shared.stats.total_refused(), 1);
            continue;
        }
        assert_eq!(at_once.expect_err("nothing was sent").kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(bench.shared.stats.total_refused(), 0, "its end is that worker's");
        assert!(slot.load().sched() == Sched::Queued && !slot.load().is_refusable(), "no second 503 is said");
        assert!(entry.begin().is_some(), "the entry is good");
        let mut work = WorkerContext::new(bench.shared.clone(), Role::Worker, 0, bench.shared.in_flight[0].clone());
        let verdict = entry.connection().as_mut().map(|it| it.drive(&mut work, &mut Turn::new(&|| false), true));
        let Some(Verdict::Park(parking)) = verdict else { panic!("{verdict:?}") };
        assert!(entry.park(parking));
        let read = client.read(&mut answer).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 503 ") && answer[..read].ends_with(b"\n"));
        assert_eq!(client.read(&mut answer).expect("FIN"), 0);
        let refused = CloseReason::Refused(Reject::Overloaded);
        let verdict = entry.connection().as_mut().map(|it| {
            drop(client);
            it.drive(&mut work, &mut Turn::new(&|| false), true)
        });
        assert_eq!(verdict, Some(Verdict::Close(refused)));
        assert_eq!((bench.shared.stats.total_refused(), bench.shared.stats.total_served()), (1, 0));
    }
}

#[test]
fn a_wake_finds_who_waits_for_it_and_nobody_else() {
    let mut bench = Bench::new();
    let (idle, _one) = bench.connect(Transport::new, IDLE);
    let (subscriber, _other) = bench.connect(Transport::new, SUBSCRIBED);
    bench.take_events();
    bench.wake(idle.token());
    assert!(bench.job().is_none() && idle.load().is_parked());
    bench.wake(subscriber.token());
    assert!(bench.job().is_some_and(|slot| Arc::ptr_eq(&slot, &subscriber)) && subscriber.begin().is_some());
    // A worker has it.
    bench.wake(subscriber.token());
    let parking = Parking { parked: SUBSCRIBED, deadline: Millis::NEVER, sheddable_at: Millis::NEVER };
    assert!(bench.job().is_none() && !subscriber.park(parking), "it looks again");
    subscriber.look_again();
    assert!(subscriber.park(parking));
    // Who comes after it has its place, and not its token.
    let stale = subscriber.token();
    bench.acceptor.close(&subscriber, CloseReason::Finished);
    let (next, _next) = bench.connect(Transport::new, SUBSCRIBED);
    bench.wake(stale);
    assert!(bench.job().is_none() && next.load().is_parked());
}

#[test]
fn a_wake_while_it_was_to_move_is_made_up_for_when_it_stays() {
    let mut bench = Bench::new();
    let (slot, _client) = bench.connect(Transport::new, SUBSCRIBED);
    bench.take_events();
    let parked = slot.load();
    assert!(slot.claim(parked, Sched::Running));
    slot.freeze(parked);
    let fd = slot.connection().as_ref().map(|connection| connection.socket().as_raw_fd()).expect("it is open");
    bench.acceptor.poll.registry().deregister(&mut mio::unix::SourceFd(&fd)).expect("it was registered");
    bench.wake(slot.token());
    assert!(bench.job().is_none());
    bench.acceptor.unfreeze(&Moving { id: 0, slot: slot.clone(), parked });
    assert!(slot.load().is_parked());
    bench.acceptor.deliver();
    assert!(bench.job().is_some_and(|job| Arc::ptr_eq(&job, &slot)));
}

/// A client of a conversation that its application can go on with, as it came from a predecessor, to be woken then.
fn talker(wake: Millis) -> (crate::push::Hub, Restored, UnixStream) {
    struct Chat;

    impl Conversation for Chat {
        type State = ();

        fn open(&self, _: &Client, _: &mut Request) -> Result<(), Response> {
            Ok(())
        }

        fn message(&self, _: &Client, (): &mut (), _: Incoming<'_>) {}

        fn save(&self, (): &()) -> Carried {
            Carried { version: 1, bytes: Vec::new() }
        }

        fn restore(&self, _: &Client, _: Carried) -> Option<()> {
            Some(())
        }
    }

    let hub = crate::push::Hub::new();
    let _ = hub.conversation("chat", Chat);
    let mut snapshot = Snapshot::samples().swap_remove(9);
    let SavedState::Conversing(saved) = &mut snapshot.state else { panic!("{snapshot:?}") };
    saved.unsent.clear();
    let SavedSide::Talker(client) = &mut saved.side else { panic!("{saved:?}") };
    (client.wake, client.close, client.topics) = (Some(wake.0), None, None);
    snapshot.deadline = Millis::now().after(Duration::from_secs(20)).0;
    let (ours, client) = UnixStream::pair().expect("a socket pair");
    ours.set_nonblocking(true).expect("an open socket");
    let restored = Connection::restore(snapshot, ours.into(), None, (Some(hub.inner()), hub.sessions()));
    (hub, restored.expect("it fits together"), client)
}

/// It waited for what was due when it was written down, up to 25 seconds.
#[test]
fn a_conversation_that_moved_is_woken_when_its_application_wants_it() {
    let mut bench = Bench::new();
    let wake = bench.acceptor.now.after(Duration::from_millis(500));
    let (_hub, restored, _client) = talker(wake);
    bench.acceptor.adopt(restored);
    let slot = bench.acceptor.table.iter().next().cloned().expect("it has a place");
    assert_eq!(slot.remaining(bench.acceptor.now), 500);
}

/// It was due, was parked to be moved, was due: as often as this thread could, until the successor took it.
#[test]
fn a_conversation_that_is_to_move_is_not_looked_at_again_and_again() {
    let mut bench = Bench::new();
    let wake = bench.acceptor.now;
    let (_hub, restored, _client) = talker(wake);
    bench.acceptor.adopt(restored);
    let slot = bench.acceptor.table.iter().next().cloned().expect("it has a place");
    assert!(slot.claim(slot.load(), Sched::Running));
    bench.acceptor.leave_unread(&slot);
    assert!(slot.load().is_parked());
    assert_eq!(slot.remaining(bench.acceptor.now), 1000);
}

/// Where every worker was in a call that did not end it was reset.
#[test]
fn a_client_whose_message_no_worker_takes_is_told_to_come_back_when_the_server_ends() {
    let mut bench = Bench::new();
    let (_hub, restored, mut client) = talker(bench.acceptor.now.after(Duration::from_secs(9)));
    bench.acceptor.adopt(restored);
    client.write_all(b"x").expect("room");
    bench.take_events();
    let slot = bench.acceptor.table.iter().next().cloned().expect("it has a place");
    assert_eq!(slot.load().sched(), Sched::Queued);
    assert!(!bench.acceptor.cut_parked());
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).expect("an end and no reset");
    assert_eq!(heard, b"\x88\x02\x03\xf4");
}

/// Its application heard of that with the next request, on an idle server never; and was saved beside that call.
#[test]
fn an_end_on_this_thread_is_a_job_for_a_worker_and_a_hold_waits_for_it() {
    let mut bench = Bench::new();
    let (hub, _restored, _client) = talker(bench.acceptor.now.after(Duration::from_secs(9)));
    let talker = hub.conversations().all().pop().expect("it is there");
    let conversations = bench.shared.conversations.clone();
    conversations.has_ended(talker, None);
    bench.acceptor.have_ends_told();
    let ended = (!bench.acceptor.jobs.is_empty()).then(|| bench.jobs.next()).flatten();
    assert!(matches!(ended, Some(Job::Ended)), "a worker is to be woken");
    bench.acceptor.have_ends_told();
    assert!(bench.acceptor.jobs.is_empty(), "once");
    // A worker has that job, and has not begun, or is in the call.
    let (answer, held) = bounded(1);
    let most = Duration::from_secs(9);
    let order = HoldOrder { answer, patience: most, most, within: most, cuts: false, version: None };
    bench.acceptor.ask_for_hold(order);
    bench.acceptor.may_begin_hold();
    assert!(bench.acceptor.hold.is_none());
    assert!(!conversations.tell_of_ended());
    bench.acceptor.may_begin_hold();
    assert!(bench.acceptor.hold.is_some());
    // One that arises in a hold is told before that is answered.
    let talker = hub.conversations().all().pop().expect("it is there");
    conversations.has_ended(talker, None);
    bench.acceptor.answer_hold();
    assert!(held.is_empty());
    bench.acceptor.have_ends_told();
    assert!(!bench.acceptor.jobs.is_empty() && matches!(bench.jobs.next(), Some(Job::Ended)));
    bench.acceptor.answer_hold();
    assert!(held.is_empty());
    assert!(!conversations.tell_of_ended());
    bench.acceptor.answer_hold();
    assert!(matches!(held.try_recv(), Ok(Ok(_))));
    // From here on the state is saved, and written.
    let talker = hub.conversations().all().pop().expect("it is there");
    conversations.has_ended(talker, None);
    bench.acceptor.have_ends_told();
    assert!(bench.acceptor.jobs.is_empty());
    bench.acceptor.resume();
    bench.acceptor.have_ends_told();
    assert!(!bench.acceptor.jobs.is_empty());
}
