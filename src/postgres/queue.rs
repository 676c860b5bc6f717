//! What waits to be written and to be read, shared by JavaScript's thread and the store's own.
//!
//! Writes go out in rounds, several of them at a time. A write belongs to the lane of its session
//! and, an event, to that of its id. A lane is in at most one round that isn't done with, and
//! rounds are filled in the order of the calls: so the writes of a lane never overtake each other.
//! A read waits for the last write that it must see.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::StoreError;
use crate::lock::lock;
use crate::store::{EventsQuery, Query, ReplayQuery, Row, Ticket};

use super::flight::Flight;

/// One round takes at most this many writes …
const MAX_ROUND_WRITES: usize = 1_000;
/// … and this many bytes; a larger write goes alone.
const MAX_ROUND_BYTES: usize = 8 * 1024 * 1024;
/// How many batches of a kind are under way at most.
const MAX_BATCHES: usize = 8;
/// This many sessions are read together.
const MAX_LOOKUPS: usize = 500;
/// How many waiting writes are looked at for one round: those of lanes that are under way stay.
const MAX_WRITES_LOOKED_AT: usize = 4_000;

/// A write on its way.
#[derive(Debug)]
pub struct Write {
    pub ticket: Ticket,
    pub row: Row,
    /// Its place among all writes.
    number: u64,
    bytes: usize,
    lanes: Lanes,
    /// When it was called.
    pub accepted: Instant,
    /// It goes out with no more than this, itself included.
    max_together: usize,
}

/// What must not be overtaken, hashed: two that collide only wait for each other needlessly.
type Lanes = [u64; 2];

/// Writes that go out together.
#[derive(Debug)]
pub struct Round {
    /// In the order of the calls.
    pub writes: Vec<Write>,
    hold: Hold,
}

/// What a round keeps from others until it is done with.
#[derive(Debug)]
pub struct Hold {
    lanes: Vec<Lanes>,
    since: Instant,
}

/// A read on its way.
#[derive(Debug)]
pub struct Read {
    pub ticket: Ticket,
    pub query: Query,
    /// When it was called.
    pub accepted: Instant,
}

/// Sessions to read together, by their ids.
#[derive(Debug)]
pub struct Lookups {
    pub wanted: Vec<(Ticket, String)>,
    /// When the first of them was called.
    pub accepted: Instant,
    since: Instant,
}

/// What the store's thread should do next.
#[derive(Debug)]
pub enum Work {
    /// Write these.
    Round(Round),
    /// Read these.
    Lookups(Lookups),
    /// Answer this list.
    List(Read),
    /// These have waited too long; tell their callers.
    Expired(Vec<Ticket>),
    /// The store is closing, and everything is done or the time for it is up.
    End,
}

/// See the module's documentation. All methods may be called on any thread.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    settled: Condvar,
    hasher: RandomState,
    /// Long reads leave a connection to the others.
    max_lists: usize,
    max_queued_bytes: usize,
    retry_timeout: Duration,
}

#[derive(Debug)]
struct State {
    writes: VecDeque<Write>,
    /// Of all writes that are accepted and not settled.
    queued_bytes: usize,
    /// How many writes were ever accepted: the number of the last.
    accepted: u64,
    /// Whether a write goes to `sessions`, of each that isn't settled.
    unsettled: BTreeMap<u64, bool>,
    last_writes: LastWrites,
    busy_lanes: HashSet<u64>,
    rounds: Flight,
    lookups: Flight,
    held_reads: Vec<(Awaited, Read)>,
    ready_lookups: Vec<(Ticket, String, Instant)>,
    ready_lists: VecDeque<Read>,
    lists: usize,
    /// When the database last did what it was asked.
    last_success: Instant,
    /// Once the process is ending: nothing waits beyond this.
    last_deadline: Option<Instant>,
    is_closing: bool,
}

/// The last writes, not settled yet, of what a read might want.
#[derive(Debug, Default)]
struct LastWrites {
    events_of: HashMap<String, u64>,
    session: HashMap<String, u64>,
}

/// What a read waits for.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    /// This write; those of its lane before it are settled by then.
    Write(u64),
    /// All writes to `sessions` up to this one.
    SessionsUpTo(u64),
}

impl Queue {
    /// For a pool of so many connections.
    pub fn new(max_connections: usize, max_queued_bytes: usize, retry_timeout: Duration) -> Self {
        let max_batches = MAX_BATCHES.min(max_connections);
        let state = State {
            writes: VecDeque::new(),
            queued_bytes: 0,
            accepted: 0,
            unsettled: BTreeMap::new(),
            last_writes: LastWrites::default(),
            busy_lanes: HashSet::new(),
            rounds: Flight::new(max_batches),
            lookups: Flight::new(max_batches),
            held_reads: Vec::new(),
            ready_lookups: Vec::new(),
            ready_lists: VecDeque::new(),
            lists: 0,
            last_success: Instant::now(),
            last_deadline: None,
            is_closing: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            settled: Condvar::new(),
            hasher: RandomState::new(),
            max_lists: max_connections.saturating_sub(1).max(1),
            max_queued_bytes,
            retry_timeout,
        }
    }

    /// Accepts a write, unless too much waits already. The only write is never too much.
    pub fn push_write(&self, ticket: Ticket, row: Row) -> Result<(), StoreError> {
        let bytes = row.bytes();
        let lanes = self.lanes(&row);
        let mut state = self.lock();
        if state.is_closing {
            return Err(StoreError::Closed);
        }
        let is_only_one = state.unsettled.is_empty();
        if !is_only_one && state.queued_bytes.saturating_add(bytes) > self.max_queued_bytes {
            return Err(StoreError::Overloaded { max_queued_bytes: self.max_queued_bytes });
        }
        state.accepted += 1;
        state.queued_bytes = state.queued_bytes.saturating_add(bytes);
        let number = state.accepted;
        state.unsettled.insert(number, matches!(row, Row::Session(_)));
        state.last_writes.set(&row, number);
        let accepted = Instant::now();
        let max_together = MAX_ROUND_WRITES;
        let write = Write { ticket, row, number, bytes, lanes, accepted, max_together };
        state.writes.push_back(write);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Accepts a read.
    pub fn push_read(&self, read: Read) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.is_closing {
            return Err(StoreError::Closed);
        }
        match state.awaited(&read.query) {
            Some(awaited) => state.held_reads.push((awaited, read)),
            None => {
                state.make_ready(read);
                drop(state);
                self.changed.notify_one();
            }
        }
        Ok(())
    }

    /// Waits for work.
    pub async fn next_work(&self) -> Work {
        loop {
            let deadline = {
                let mut state = self.lock();
                let now = Instant::now();
                let expired = state.take_expired(now, self.retry_timeout);
                if !expired.is_empty() {
                    let tickets = expired.iter().map(|write| write.ticket).collect();
                    state.settle(&expired);
                    drop(state);
                    self.settled.notify_all();
                    return Work::Expired(tickets);
                }
                if let Some(list) = state.take_list(self.max_lists) {
                    return Work::List(list);
                }
                if let Some(lookups) = state.take_lookups(now) {
                    return Work::Lookups(lookups);
                }
                if let Some(round) = state.take_round(now) {
                    return Work::Round(round);
                }
                let is_over = state.last_deadline.is_some_and(|last| last <= now);
                if state.is_closing && (is_over || state.is_idle()) {
                    return Work::End;
                }
                let expiry = state
                    .writes
                    .front()
                    .map(|write| state.deadline(write.accepted, self.retry_timeout));
                let rooms = [state.rounds.next_room(now), state.lookups.next_room(now)];
                let last = state.last_deadline.filter(|last| *last > now);
                rooms.into_iter().chain([expiry, last]).flatten().min()
            };
            match deadline {
                Some(deadline) => {
                    let deadline = tokio::time::Instant::from_std(deadline);
                    // Woken by either, there is something to look at.
                    let _ = tokio::time::timeout_at(deadline, self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// These writes are done with, one way or another: what waited for them may be read.
    pub fn settle(&self, writes: &[Write]) {
        let mut state = self.lock();
        state.settle(writes);
        drop(state);
        self.settled.notify_all();
        self.changed.notify_one();
    }

    /// These go out again, before all others and with no more than so many together: one of them kept
    /// the rest from being stored.
    pub fn put_back(&self, writes: Vec<Write>, max_together: usize) {
        let mut state = self.lock();
        for write in writes.into_iter().rev() {
            state.writes.push_front(Write { max_together, ..write });
        }
    }

    /// How long trouble is ridden out.
    pub fn retry_timeout(&self) -> Duration {
        self.retry_timeout
    }

    /// The database did what it was asked.
    pub fn note_success(&self) {
        self.lock().last_success = Instant::now();
    }

    /// The round is done with, and its lanes are free for others.
    pub fn end_round(&self, hold: &Hold) {
        let mut state = self.lock();
        state.rounds.arrive(hold.since);
        for lane in hold.lanes.iter().flatten() {
            state.busy_lanes.remove(lane);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The sessions are read.
    pub fn end_lookups(&self, lookups: &Lookups) {
        self.lock().lookups.arrive(lookups.since);
        self.changed.notify_one();
    }

    /// The list is answered.
    pub fn end_list(&self) {
        self.lock().lists -= 1;
        self.changed.notify_one();
    }

    /// How long a call that was accepted then may take. While the database works, to have waited for
    /// one's turn is no outage.
    pub fn deadline(&self, accepted: Instant) -> Instant {
        self.lock().deadline(accepted, self.retry_timeout)
    }

    /// How many of these writes, from the first on, have waited too long.
    pub fn count_expired(&self, writes: &[Write]) -> usize {
        let state = self.lock();
        let now = Instant::now();
        let is_expired = |write: &&Write| state.deadline(write.accepted, self.retry_timeout) <= now;
        writes.iter().take_while(is_expired).count()
    }

    /// Blocks until every write accepted so far is settled, or until then. Nothing waits for longer
    /// from here on, however long it may. `false`: something was waited for until then.
    pub fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        state.last_deadline = Some(state.last_deadline.map_or(deadline, |last| last.min(deadline)));
        self.changed.notify_one();
        let awaited = state.accepted;
        let is_unsettled = |state: &mut State| state.unsettled.range(..=awaited).next().is_some();
        let must_wait = is_unsettled(&mut state);
        let patience = deadline.saturating_duration_since(Instant::now());
        // What isn't stored by then is lost with the process; it was never acknowledged.
        let _ = self.settled.wait_timeout_while(state, patience, is_unsettled);
        // At the deadline what waits is rejected, and settled by that.
        !must_wait || Instant::now() < deadline
    }

    /// Accepts nothing from here on, and hands back the reads that aren't under way.
    pub fn close(&self) -> Vec<Ticket> {
        let mut state = self.lock();
        state.is_closing = true;
        let held = mem::take(&mut state.held_reads).into_iter().map(|(_, read)| read.ticket);
        let lists = mem::take(&mut state.ready_lists).into_iter().map(|read| read.ticket);
        let lookups = mem::take(&mut state.ready_lookups).into_iter().map(|(ticket, ..)| ticket);
        drop(state);
        self.changed.notify_one();
        held.chain(lists).chain(lookups).collect()
    }

    fn lanes(&self, row: &Row) -> Lanes {
        match row {
            Row::Session(session) => [self.hasher.hash_one(("session", &session.id)); 2],
            Row::Event(event) => [
                self.hasher.hash_one(("session", &event.session_id)),
                self.hasher.hash_one(("event", &event.id)),
            ],
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn awaited(&self, query: &Query) -> Option<Awaited> {
        match query {
            Query::Session { id } => self.last_writes.session.get(id).copied().map(Awaited::Write),
            Query::Events(EventsQuery { session_id, .. })
            | Query::Replay(ReplayQuery { session_id, .. }) => {
                self.last_writes.events_of.get(session_id).copied().map(Awaited::Write)
            }
            Query::Sessions { .. } => {
                let awaited = Awaited::SessionsUpTo(self.accepted);
                (!self.is_settled(awaited)).then_some(awaited)
            }
        }
    }

    fn is_settled(&self, awaited: Awaited) -> bool {
        match awaited {
            Awaited::Write(number) => !self.unsettled.contains_key(&number),
            Awaited::SessionsUpTo(number) => {
                !self.unsettled.range(..=number).any(|(_, is_session)| *is_session)
            }
        }
    }

    /// The next writes that may go out, if there are any. Of a lane that is under way, or that an
    /// earlier write stayed behind for, nothing goes.
    fn take_round(&mut self, now: Instant) -> Option<Round> {
        if self.writes.is_empty() || !self.rounds.has_room(now) {
            return None;
        }
        let looked_at = self.writes.len().min(MAX_WRITES_LOOKED_AT);
        let mut blocked: HashSet<u64> = HashSet::new();
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        let (mut bytes, mut max_together) = (0_usize, MAX_ROUND_WRITES);
        for write in self.writes.drain(..looked_at) {
            let is_free = write
                .lanes
                .iter()
                .all(|lane| !self.busy_lanes.contains(lane) && !blocked.contains(lane));
            let fits = taken.is_empty()
                || (taken.len() < max_together.min(write.max_together)
                    && bytes + write.bytes <= MAX_ROUND_BYTES);
            if is_free && fits {
                bytes += write.bytes;
                max_together = max_together.min(write.max_together);
                taken.push(write);
            } else {
                blocked.extend(write.lanes);
                kept.push(write);
            }
        }
        for write in kept.into_iter().rev() {
            self.writes.push_front(write);
        }
        if taken.is_empty() {
            return None;
        }
        self.rounds.depart(now);
        let lanes: Vec<Lanes> = taken.iter().map(|write| write.lanes).collect();
        self.busy_lanes.extend(lanes.iter().flatten());
        Some(Round { writes: taken, hold: Hold { lanes, since: now } })
    }

    fn make_ready(&mut self, Read { ticket, query, accepted }: Read) {
        match query {
            Query::Session { id } => self.ready_lookups.push((ticket, id, accepted)),
            query => self.ready_lists.push_back(Read { ticket, query, accepted }),
        }
    }

    fn take_list(&mut self, max_lists: usize) -> Option<Read> {
        let list = (self.lists < max_lists).then(|| self.ready_lists.pop_front()).flatten()?;
        self.lists += 1;
        Some(list)
    }

    fn take_lookups(&mut self, now: Instant) -> Option<Lookups> {
        if self.ready_lookups.is_empty() || !self.lookups.has_room(now) {
            return None;
        }
        self.lookups.depart(now);
        let count = self.ready_lookups.len().min(MAX_LOOKUPS);
        let taken = self.ready_lookups.drain(..count);
        let (wanted, accepted): (Vec<_>, Vec<_>) =
            taken.map(|(ticket, id, accepted)| ((ticket, id), accepted)).unzip();
        let accepted = accepted.into_iter().min().unwrap_or(now);
        Some(Lookups { wanted, accepted, since: now })
    }

    fn settle(&mut self, writes: &[Write]) {
        for write in writes {
            self.unsettled.remove(&write.number);
            self.queued_bytes = self.queued_bytes.saturating_sub(write.bytes);
            self.last_writes.forget(&write.row, write.number);
        }
        if self.held_reads.is_empty() {
            return;
        }
        for (awaited, read) in mem::take(&mut self.held_reads) {
            if self.is_settled(awaited) {
                self.make_ready(read);
            } else {
                self.held_reads.push((awaited, read));
            }
        }
    }

    fn deadline(&self, accepted: Instant, retry_timeout: Duration) -> Instant {
        let deadline = accepted.max(self.last_success) + retry_timeout;
        self.last_deadline.map_or(deadline, |last| last.min(deadline))
    }

    /// The oldest writes, if they have waited for too long.
    fn take_expired(&mut self, now: Instant, retry_timeout: Duration) -> Vec<Write> {
        let is_expired = |write: &&Write| self.deadline(write.accepted, retry_timeout) <= now;
        let count = self.writes.iter().take_while(is_expired).count();
        self.writes.drain(..count).collect()
    }

    fn is_idle(&self) -> bool {
        self.unsettled.is_empty()
            && self.rounds.is_empty()
            && self.lookups.is_empty()
            && self.lists == 0
    }
}

impl LastWrites {
    fn set(&mut self, row: &Row, number: u64) {
        let (map, key) = self.entry(row);
        match map.get_mut(key) {
            Some(last) => *last = number,
            None => {
                map.insert(key.to_owned(), number);
            }
        }
    }

    fn forget(&mut self, row: &Row, number: u64) {
        let (map, key) = self.entry(row);
        if map.get(key) == Some(&number) {
            map.remove(key);
        }
    }

    fn entry<'row>(&mut self, row: &'row Row) -> (&mut HashMap<String, u64>, &'row str) {
        match row {
            Row::Event(event) => (&mut self.events_of, &event.session_id),
            Row::Session(session) => (&mut self.session, &session.id),
        }
    }
}

impl Round {
    /// Its writes, and what to end when they are done with.
    pub fn into_parts(self) -> (Vec<Write>, Hold) {
        (self.writes, self.hold)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use futures_util::FutureExt as _;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::model::{PageRequest, SessionEvent, SessionRecord};

    const LONG: Duration = Duration::from_secs(3_600);

    fn queue() -> Queue {
        Queue::new(10, 100_000, LONG)
    }

    fn event(session: &str, id: &str) -> Row {
        Row::Event(SessionEvent {
            id: id.to_owned(),
            session_id: session.to_owned(),
            ..SessionEvent::default()
        })
    }

    fn session(id: &str) -> Row {
        Row::Session(SessionRecord { id: id.to_owned(), ..SessionRecord::default() })
    }

    fn read(ticket: usize, query: Query) -> Read {
        Read { ticket: Ticket(ticket), query, accepted: Instant::now() }
    }

    fn events_of(session: &str) -> Read {
        let page = PageRequest { limit: 1, cursor: None };
        let session_id = session.to_owned();
        read(100, Query::Events(EventsQuery { session_id, page }))
    }

    /// The work that there is now.
    fn next(queue: &Queue) -> Option<Work> {
        static CLOCK: LazyLock<Runtime> =
            LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());
        let _guard = CLOCK.enter();
        queue.next_work().now_or_never()
    }

    fn round(queue: &Queue) -> Option<Round> {
        match next(queue) {
            Some(Work::Round(round)) => Some(round),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn tickets(round: &Round) -> Vec<usize> {
        round.writes.iter().map(|write| write.ticket.0).collect()
    }

    fn end(queue: &Queue, round: Round) {
        let (writes, hold) = round.into_parts();
        queue.settle(&writes);
        queue.end_round(&hold);
    }

    #[test]
    fn what_waits_goes_out_together_and_in_order() {
        let queue = queue();
        for ticket in 0..3 {
            queue.push_write(Ticket(ticket), event("s", &ticket.to_string())).unwrap();
        }
        assert_eq!(tickets(&round(&queue).unwrap()), [0, 1, 2]);
    }

    #[test]
    fn what_is_put_back_goes_out_first_and_in_smaller_rounds() {
        let queue = queue();
        for ticket in 0..2 {
            queue.push_write(Ticket(ticket), event(&ticket.to_string(), "a")).unwrap();
        }
        let (writes, hold) = round(&queue).unwrap().into_parts();
        queue.push_write(Ticket(2), event("2", "b")).unwrap();
        queue.put_back(writes, 1);
        queue.end_round(&hold);
        let first = round(&queue).unwrap();
        assert_eq!(tickets(&first), [0]);
        assert_eq!(tickets(&round(&queue).unwrap()), [2], "1 is of the same id as 0");
        end(&queue, first);
        assert_eq!(tickets(&round(&queue).unwrap()), [1]);
    }

    #[test]
    fn a_session_and_an_id_are_in_one_round_at_a_time() {
        let queue = queue();
        queue.push_write(Ticket(0), event("s", "a")).unwrap();
        let first = round(&queue).unwrap();
        queue.push_write(Ticket(1), event("s", "b")).unwrap();
        queue.push_write(Ticket(2), event("t", "a")).unwrap();
        queue.push_write(Ticket(3), event("t", "c")).unwrap();
        queue.push_write(Ticket(4), session("s")).unwrap();
        queue.push_write(Ticket(5), event("u", "d")).unwrap();
        assert_eq!(tickets(&round(&queue).unwrap()), [5], "3 would overtake 2, which waits for 0");
        end(&queue, first);
        assert_eq!(tickets(&round(&queue).unwrap()), [1, 2, 3, 4]);
    }

    #[test]
    fn sessions_that_are_wanted_at_the_same_time_are_read_together() {
        let queue = queue();
        for ticket in 0..3 {
            queue.push_read(read(ticket, Query::Session { id: ticket.to_string() })).unwrap();
        }
        assert!(matches!(next(&queue), Some(Work::Lookups(lookups)) if lookups.wanted.len() == 3));
    }

    #[test]
    fn a_read_waits_for_the_writes_that_it_must_see() {
        let queue = queue();
        queue.push_write(Ticket(0), event("s", "a")).unwrap();
        let written = round(&queue).unwrap();
        queue.push_read(events_of("other")).unwrap();
        assert!(matches!(next(&queue), Some(Work::List(_))));
        queue.push_read(events_of("s")).unwrap();
        assert!(next(&queue).is_none());
        end(&queue, written);
        assert!(matches!(next(&queue), Some(Work::List(_))));
    }

    #[test]
    fn a_list_of_sessions_waits_for_all_updates_before_it_and_none_after() {
        let queue = queue();
        let page = PageRequest { limit: 1, cursor: None };
        queue.push_write(Ticket(0), session("s")).unwrap();
        let first = round(&queue).unwrap();
        queue.push_read(read(9, Query::Sessions { page })).unwrap();
        queue.push_write(Ticket(1), session("t")).unwrap();
        let _second = round(&queue).unwrap();
        end(&queue, first);
        assert!(matches!(next(&queue), Some(Work::List(_))));
    }

    #[test]
    fn what_waits_for_too_long_is_handed_back_and_holds_up_no_read() {
        let queue = Queue::new(8, 100_000, Duration::ZERO);
        queue.push_write(Ticket(7), event("s", "a")).unwrap();
        queue.push_read(events_of("s")).unwrap();
        assert!(matches!(next(&queue), Some(Work::Expired(tickets)) if tickets == [Ticket(7)]));
        assert!(matches!(next(&queue), Some(Work::List(_))));
    }

    #[test]
    fn too_much_is_refused_but_never_the_only_write() {
        let queue = Queue::new(8, 1, LONG);
        queue.push_write(Ticket(0), event("s", "a")).unwrap();
        let second = queue.push_write(Ticket(1), event("s", "b"));
        assert_eq!(second, Err(StoreError::Overloaded { max_queued_bytes: 1 }));
        end(&queue, round(&queue).unwrap());
        queue.push_write(Ticket(2), event("s", "b")).unwrap();
    }

    #[test]
    fn a_closed_queue_ends_when_all_is_done() {
        let queue = queue();
        queue.push_write(Ticket(0), event("s", "a")).unwrap();
        queue.push_read(events_of("s")).unwrap();
        assert_eq!(queue.close(), [Ticket(100)]);
        assert_eq!(queue.push_write(Ticket(1), event("s", "b")), Err(StoreError::Closed));
        let last = round(&queue).unwrap();
        assert!(next(&queue).is_none());
        end(&queue, last);
        assert!(matches!(next(&queue), Some(Work::End)));
    }

    proptest::proptest! {
        #[test]
        fn no_lane_is_ever_overtaken(
            writes in proptest::collection::vec((0_usize..4, 0_usize..6), 1..60),
            steps in proptest::collection::vec(0_usize..3, 0..200),
        ) {
            let queue = queue();
            let mut waiting = writes.iter().enumerate();
            let mut under_way: Vec<Round> = Vec::new();
            let mut settled: Vec<usize> = Vec::new();
            let mut push = || waiting.next().map(|(ticket, (session, id))| {
                queue.push_write(Ticket(ticket), event(&session.to_string(), &id.to_string())).unwrap();
            });
            // At the end all that is left: push, take, end, in turns.
            for step in steps.into_iter().chain((0..600).map(|turn| turn % 3)) {
                match step {
                    0 => drop(push()),
                    1 => under_way.extend(round(&queue)),
                    _ if !under_way.is_empty() => {
                        let ended = under_way.remove(under_way.len() / 2);
                        settled.extend(tickets(&ended));
                        end(&queue, ended);
                    }
                    _ => {}
                }
            }
            proptest::prop_assert_eq!(settled.len(), writes.len());
            for of_lane in [|write: &(usize, usize)| write.0, |write: &(usize, usize)| write.1] {
                for lane in 0..6 {
                    let order: Vec<usize> =
                        settled.iter().copied().filter(|at| of_lane(&writes[*at]) == lane).collect();
                    proptest::prop_assert!(order.is_sorted(), "{order:?}");
                }
            }
        }
    }
}
