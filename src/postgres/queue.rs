//! How the thread that a store works on takes its work off the backlog: writes in rounds, several
//! of them in flight at a time; sessions that are wanted, together; lists one by one.
//!
//! Shared by JavaScript's thread and that one.

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::error::StoreError;
use crate::store::{Backlog, Batch, BatchRules, PendingWrite, Query, Read, Ticket, Write};

use super::in_flight::InFlight;

/// One round stores at most this many rows of separate calls …
const MAX_ROUND_ROWS: usize = 1_000;
/// … and this many bytes; a larger write goes alone.
const MAX_ROUND_BYTES: usize = 8 * 1024 * 1024;
/// How many batches of a kind are in flight at most.
const MAX_BATCHES: usize = 8;
/// This many sessions are read together.
const MAX_LOOKUPS: usize = 500;

const RULES: BatchRules =
    BatchRules { max_rows: MAX_ROUND_ROWS, max_bytes: MAX_ROUND_BYTES, are_concurrent: true };

/// Writes that go out together.
#[derive(Debug)]
pub struct Round {
    /// In the order of the calls.
    pub writes: Vec<PendingWrite>,
    /// Names it when it is done with.
    pub sent: Instant,
}

/// A session that is wanted.
#[derive(Debug)]
pub struct Lookup {
    pub ticket: Ticket,
    pub id: String,
    /// When it was called.
    called_at: Instant,
    /// It is read with no more than this, itself included.
    max_together: usize,
}

/// Sessions to read together.
#[derive(Debug)]
pub struct Lookups {
    pub wanted: Vec<Lookup>,
    /// When the first of them was called.
    pub called_at: Instant,
    /// Names them when they are read.
    pub sent: Instant,
}

/// While calls are under way, the process shows at least so often that it runs.
pub const BEAT: Duration = Duration::from_millis(500);
/// A beat that comes later than this wasn't only late.
const LONGEST_PAUSE_OF_PULSE: Duration = Duration::from_millis(2_500);

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
    ending: Notify,
    /// Long reads leave a connection to the others.
    max_lists: usize,
}

#[derive(Debug)]
struct State {
    backlog: Backlog,
    rounds: InFlight,
    lookups: InFlight,
    ready_lookups: VecDeque<Lookup>,
    ready_lists: VecDeque<Read>,
    lists: usize,
    pulse: Pulse,
}

/// Notices time in which this process didn't run, as it was frozen: that is nobody's wait.
#[derive(Debug, Clone, Copy)]
struct Pulse {
    /// The last beat; none while nobody beats.
    last: Option<Instant>,
    /// When it last ran on after such a time.
    awake_since: Instant,
}

impl Pulse {
    /// Whether the process has just run on.
    fn has_missed_beats(&mut self, now: Instant) -> bool {
        let Some(last) = self.last else { return false };
        self.last = Some(now);
        let has_missed = now.duration_since(last) > LONGEST_PAUSE_OF_PULSE;
        if has_missed {
            self.awake_since = now;
        }
        has_missed
    }
}

impl Queue {
    /// For a pool of so many connections.
    pub fn new(max_connections: usize, max_queued_bytes: usize, retry_timeout: Duration) -> Self {
        let max_batches = MAX_BATCHES.min(max_connections);
        let state = State {
            backlog: Backlog::new(RULES, max_queued_bytes, retry_timeout, Instant::now()),
            rounds: InFlight::new(max_batches),
            lookups: InFlight::new(max_batches),
            ready_lookups: VecDeque::new(),
            ready_lists: VecDeque::new(),
            lists: 0,
            pulse: Pulse { last: None, awake_since: Instant::now() },
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            settled: Condvar::new(),
            ending: Notify::new(),
            max_lists: max_connections.saturating_sub(1).max(1),
        }
    }

    /// Accepts a write; see [`Backlog::push_write`].
    pub fn push_write(&self, ticket: Ticket, write: Write) -> Result<(), StoreError> {
        self.state.lock().backlog.push_write(ticket, write, Instant::now())?;
        self.changed.notify_one();
        Ok(())
    }

    /// Accepts a read.
    pub fn push_read(&self, ticket: Ticket, query: Query) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let read = Read { ticket, query, called_at: Instant::now() };
        if let Some(read) = state.backlog.push_read(read)? {
            state.make_ready(read);
            drop(state);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits for work.
    pub async fn next_work(&self) -> Work {
        loop {
            let deadline = match self.work_or_deadline(Instant::now()) {
                Ok(work) => return work,
                Err(deadline) => deadline,
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

    /// The work that there is, or when to look again if nothing comes.
    fn work_or_deadline(&self, now: Instant) -> Result<Work, Option<Instant>> {
        let mut state = self.state.lock();
        state.beat(now);
        let mut expired = state.backlog.take_expired(now);
        if !expired.is_empty() {
            let tickets = expired.iter().map(|pending| pending.ticket).collect();
            state.settle(&mut expired);
            drop(state);
            self.settled.notify_all();
            return Ok(Work::Expired(tickets));
        }
        if let Some(list) = state.take_list(self.max_lists) {
            return Ok(Work::List(list));
        }
        if let Some(lookups) = state.take_lookups(now) {
            return Ok(Work::Lookups(lookups));
        }
        if let Some(round) = state.take_round(now) {
            return Ok(Work::Round(round));
        }
        let last = state.backlog.last_deadline();
        let is_over = last.is_some_and(|last| last <= now);
        if state.backlog.is_closing() && (is_over || state.is_idle()) {
            return Ok(Work::End);
        }
        let rooms = [state.rounds.next_room(now), state.lookups.next_room(now)];
        let last = last.filter(|last| *last > now);
        Err(rooms.into_iter().chain([state.backlog.next_expiry(), last]).flatten().min())
    }

    /// These writes are done with, one way or another: what waited for them may be read.
    pub fn settle(&self, writes: &mut [PendingWrite]) {
        self.state.lock().settle(writes);
        self.settled.notify_all();
        self.changed.notify_one();
    }

    /// These go out again, before all others and with no more than so many together: one of them
    /// kept the rest from being stored.
    pub fn put_back(&self, writes: Vec<PendingWrite>, max_together: usize) {
        self.state.lock().backlog.put_back(writes, max_together);
        self.changed.notify_one();
    }

    /// As [`Self::put_back`], for reads of sessions.
    pub fn put_back_lookups(&self, lookups: Vec<Lookup>, max_together: usize) {
        let mut state = self.state.lock();
        for lookup in lookups.into_iter().rev() {
            state.ready_lookups.push_front(Lookup { max_together, ..lookup });
        }
    }

    /// How long trouble is ridden out.
    pub fn retry_timeout(&self) -> Duration {
        self.state.lock().backlog.timeout()
    }

    /// The database did what it was asked.
    pub fn note_success(&self) {
        self.state.lock().backlog.note_success(Instant::now());
    }

    /// The round that was sent then is done with, or goes on by itself.
    pub fn end_round(&self, sent: Instant) {
        self.state.lock().rounds.end(sent);
        self.changed.notify_one();
    }

    /// The sessions are read.
    pub fn end_lookups(&self, sent: Instant) {
        self.state.lock().lookups.end(sent);
        self.changed.notify_one();
    }

    /// The list is answered.
    pub fn end_list(&self) {
        self.state.lock().lists -= 1;
        self.changed.notify_one();
    }

    /// Until when a call that was accepted then may take; see [`Backlog::deadline`].
    pub fn deadline(&self, called_at: Instant) -> Instant {
        let mut state = self.state.lock();
        state.beat(Instant::now());
        state.backlog.deadline(called_at)
    }

    /// Somebody beats from now on, every [`BEAT`] or sooner.
    pub fn begin_beating(&self) {
        self.state.lock().pulse.last = Some(Instant::now());
    }

    /// The process runs.
    pub fn beat(&self) {
        self.state.lock().beat(Instant::now());
    }

    /// Nobody beats any more.
    pub fn end_beating(&self) {
        self.state.lock().pulse.last = None;
    }

    /// When the process last ran on after it had been frozen.
    pub fn awake_since(&self) -> Instant {
        self.state.lock().pulse.awake_since
    }

    /// How many of these writes, from the first on, have waited too long.
    pub fn count_expired(&self, writes: &[PendingWrite]) -> usize {
        let (mut state, now) = (self.state.lock(), Instant::now());
        state.beat(now);
        state.backlog.count_expired(writes, now)
    }

    /// Whether what takes long should come to its end.
    pub fn is_ending(&self) -> bool {
        self.state.lock().backlog.is_ending()
    }

    /// How many writes aren't settled, and how many bytes they are.
    pub fn queued(&self) -> (usize, usize) {
        self.state.lock().backlog.queued()
    }

    /// Nothing waits beyond the deadline from here on, however long it may otherwise. Returns the
    /// number of the last write that was accepted.
    pub fn end_by(&self, deadline: Instant) -> u64 {
        let last = self.state.lock().backlog.begin_flush(deadline);
        self.changed.notify_one();
        self.ending.notify_waiters();
        last
    }

    /// Blocks until every write accepted so far is settled, or until then. Nothing waits for longer
    /// from here on. `false`: something was waited for until then.
    pub fn flush(&self, deadline: Instant) -> bool {
        let awaited = self.end_by(deadline);
        let mut state = self.state.lock();
        let must_wait = !state.backlog.is_settled_up_to(awaited);
        let is_unsettled = |state: &mut State| !state.backlog.is_settled_up_to(awaited);
        // What isn't stored by then is lost with the process; it was never acknowledged.
        let _ = self.settled.wait_while_until(&mut state, is_unsettled, deadline);
        // At the deadline what waits is rejected, and settled by that.
        !must_wait || Instant::now() < deadline
    }

    /// Accepts nothing from here on, and hands back the reads that aren't under way.
    pub fn close(&self) -> Vec<Ticket> {
        let mut state = self.state.lock();
        let mut tickets = state.backlog.close();
        tickets.extend(mem::take(&mut state.ready_lists).into_iter().map(|read| read.ticket));
        tickets.extend(mem::take(&mut state.ready_lookups).into_iter().map(|it| it.ticket));
        drop(state);
        self.changed.notify_one();
        self.ending.notify_waiters();
        tickets
    }

    /// Waits until the store closes.
    pub async fn closing(&self) {
        self.until(Backlog::is_closing).await;
    }

    /// Waits until somebody waits for all to be done.
    pub async fn ending(&self) {
        self.until(Backlog::is_ending).await;
    }

    async fn until(&self, has_come: impl Fn(&Backlog) -> bool) {
        loop {
            let told = self.ending.notified();
            // What was told before isn't told again.
            if has_come(&self.state.lock().backlog) {
                return;
            }
            told.await;
        }
    }
}

impl State {
    fn beat(&mut self, now: Instant) {
        if self.pulse.has_missed_beats(now) {
            self.backlog.note_success(now);
        }
    }

    fn take_round(&mut self, now: Instant) -> Option<Round> {
        if !self.rounds.has_room(now) {
            return None;
        }
        let Batch { writes, .. } = self.backlog.take()?;
        self.rounds.start(now);
        Some(Round { writes, sent: now })
    }

    fn make_ready(&mut self, Read { ticket, query, called_at }: Read) {
        match query {
            Query::Session { id } => {
                let max_together = MAX_LOOKUPS;
                self.ready_lookups.push_back(Lookup { ticket, id, called_at, max_together });
            }
            query => self.ready_lists.push_back(Read { ticket, query, called_at }),
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
        self.lookups.start(now);
        let (mut wanted, mut max_together) = (Vec::new(), MAX_LOOKUPS);
        while let Some(next) = self.ready_lookups.front()
            && wanted.len() < max_together.min(next.max_together)
        {
            max_together = max_together.min(next.max_together);
            wanted.extend(self.ready_lookups.pop_front());
        }
        let called_at = wanted.iter().map(|lookup| lookup.called_at).min().unwrap_or(now);
        Some(Lookups { wanted, called_at, sent: now })
    }

    fn settle(&mut self, writes: &mut [PendingWrite]) {
        for read in self.backlog.settle(writes) {
            self.make_ready(read);
        }
    }

    fn is_idle(&self) -> bool {
        self.backlog.is_settled_whole()
            && self.rounds.is_empty()
            && self.lookups.is_empty()
            && self.lists == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use futures_util::FutureExt as _;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::filter::{EventsFilter, Order};
    use crate::model::{PageRequest, SessionEvent};
    use crate::store::EventsQuery;

    const LONG: Duration = Duration::from_secs(3_600);

    fn queue() -> Queue {
        Queue::new(10, 100_000, LONG)
    }

    fn event(session: &str, id: &str) -> Write {
        Write::Event(SessionEvent {
            id: id.to_owned(),
            session_id: session.to_owned(),
            ..SessionEvent::default()
        })
    }

    fn events_of(session: &str) -> Query {
        Query::Events(EventsQuery {
            session_id: session.to_owned(),
            filter: EventsFilter::default(),
            order: Order::default(),
            page: PageRequest { limit: 1, cursor: None, max_bytes: None },
        })
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

    fn lookups(queue: &Queue) -> Lookups {
        match next(queue) {
            Some(Work::Lookups(lookups)) => lookups,
            other => panic!("{other:?}"),
        }
    }

    fn end(queue: &Queue, mut round: Round) {
        queue.settle(&mut round.writes);
        queue.end_round(round.sent);
    }

    #[test]
    fn a_third_round_waits_for_company() {
        let queue = queue();
        for ticket in 0..3 {
            queue.push_write(Ticket(ticket), event(&ticket.to_string(), "a")).unwrap();
        }
        let first = round(&queue).unwrap();
        assert_eq!(first.writes.len(), 3);
        queue.push_write(Ticket(3), event("t", "b")).unwrap();
        let _second = round(&queue).unwrap();
        queue.push_write(Ticket(4), event("u", "c")).unwrap();
        queue.push_write(Ticket(5), event("v", "d")).unwrap();
        assert!(round(&queue).is_none());
        end(&queue, first);
        assert_eq!(round(&queue).unwrap().writes.len(), 2);
    }

    #[test]
    fn sessions_that_are_wanted_at_the_same_time_are_read_together() {
        let queue = queue();
        for ticket in 0..3 {
            queue.push_read(Ticket(ticket), Query::Session { id: ticket.to_string() }).unwrap();
        }
        assert!(matches!(next(&queue), Some(Work::Lookups(lookups)) if lookups.wanted.len() == 3));
    }

    #[test]
    fn lookups_that_are_put_back_go_out_first_and_fewer_together() {
        let queue = queue();
        let push = |ticket: usize| {
            queue.push_read(Ticket(ticket), Query::Session { id: ticket.to_string() }).unwrap();
        };
        let tickets = |lookups: &Lookups| -> Vec<usize> {
            lookups.wanted.iter().map(|lookup| lookup.ticket.0).collect()
        };
        (0..4).for_each(push);
        let first = lookups(&queue);
        push(4);
        queue.put_back_lookups(first.wanted, 2);
        queue.end_lookups(first.sent);
        let second = lookups(&queue);
        assert_eq!(tickets(&second), [0, 1]);
        queue.end_lookups(second.sent);
        let third = lookups(&queue);
        assert_eq!(tickets(&third), [2, 3]);
        queue.end_lookups(third.sent);
        assert_eq!(tickets(&lookups(&queue)), [4]);
    }

    #[test]
    fn a_read_waits_for_the_writes_that_it_must_see() {
        let queue = queue();
        queue.push_write(Ticket(0), event("s", "a")).unwrap();
        let written = round(&queue).unwrap();
        queue.push_read(Ticket(100), events_of("other")).unwrap();
        assert!(matches!(next(&queue), Some(Work::List(_))));
        queue.push_read(Ticket(100), events_of("s")).unwrap();
        assert!(next(&queue).is_none());
        end(&queue, written);
        assert!(matches!(next(&queue), Some(Work::List(_))));
    }

    #[test]
    fn what_waits_for_too_long_is_handed_back_and_holds_up_no_read() {
        let queue = Queue::new(8, 100_000, Duration::ZERO);
        queue.push_write(Ticket(7), event("s", "a")).unwrap();
        queue.push_read(Ticket(100), events_of("s")).unwrap();
        assert!(matches!(next(&queue), Some(Work::Expired(tickets)) if tickets == [Ticket(7)]));
        assert!(matches!(next(&queue), Some(Work::List(_))));
    }

    #[test]
    fn a_closed_queue_ends_when_all_is_done() {
        let queue = queue();
        queue.push_write(Ticket(0), event("s", "a")).unwrap();
        queue.push_read(Ticket(100), events_of("s")).unwrap();
        assert_eq!(queue.close(), [Ticket(100)]);
        assert_eq!(queue.push_write(Ticket(1), event("s", "b")), Err(StoreError::Closed));
        let last = round(&queue).unwrap();
        assert!(next(&queue).is_none());
        end(&queue, last);
        assert!(matches!(next(&queue), Some(Work::End)));
    }
}
