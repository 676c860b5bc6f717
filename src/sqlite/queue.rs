//! What waits to be written and to be read, shared by JavaScript's thread, the writer and the
//! readers.
//!
//! Writes are numbered as they are accepted and settled in that order, so "every write before
//! this call" is one number. A read that must see writes still queued is held back until the
//! number of the last of them is settled; a read that needn't wait goes straight to a reader.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::StoreError;
use crate::lock::lock;
use crate::store::{EventsQuery, Query, ReplayQuery, Row, Ticket};

/// One transaction takes at most this many writes …
const MAX_BATCH_WRITES: usize = 1_000;
/// … and this many bytes; a larger write goes alone.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// A thread that has just worked looks for more for this long before it sleeps: the answer to
/// what it delivered is usually on its way, and to be woken would take it nearly as long.
const SPIN: Duration = Duration::from_micros(100);
/// Marks of settled writes are swept out when there are this many.
const MAX_SETTLED_MARKS: usize = 4_096;

/// A write on its way.
#[derive(Debug)]
pub struct Write {
    pub ticket: Ticket,
    pub row: Row,
    pub bytes: usize,
    /// How long a locked database may be waited for.
    pub deadline: Instant,
}

/// A read on its way.
#[derive(Debug)]
pub struct Read {
    /// The call that it answers; `None` where it is read ahead of one.
    pub ticket: Option<Ticket>,
    pub query: Query,
}

/// What the writer should do next.
#[derive(Debug)]
pub enum Work {
    /// Commit these.
    Batch(Vec<Write>),
    /// Nothing came for as long as the writer asked to be told of.
    Idle,
    /// The store is closing and everything is written.
    End,
}

/// See the module's documentation. All methods may be called on any thread.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// Lengths of the queues, for spinning without the lock.
    waiting_writes: AtomicUsize,
    waiting_reads: AtomicUsize,
    write_arrived: Condvar,
    read_arrived: Condvar,
    writes_settled: Condvar,
    max_queued_bytes: usize,
    busy_timeout: Duration,
}

#[derive(Debug, Default)]
struct State {
    writes: VecDeque<Write>,
    /// Of all writes that are accepted and not settled.
    queued_bytes: usize,
    /// How many writes were ever accepted: the number of the last.
    accepted: u64,
    /// How many of them are settled: every write up to this number.
    settled: u64,
    marks: Marks,
    /// By the number of the write they wait for; ready reads are never here.
    held_reads: Vec<(u64, Read)>,
    ready_reads: VecDeque<Read>,
    is_writer_parked: bool,
    parked_readers: usize,
    flushing: usize,
    /// Once the process is ending: no write waits for a lock beyond this.
    last_deadline: Option<Instant>,
    is_closing: bool,
}

/// The numbers of the last writes that touch what a read might want.
#[derive(Debug, Default)]
struct Marks {
    events_of: HashMap<String, u64>,
    session: HashMap<String, u64>,
    any_session: u64,
}

impl Queue {
    pub fn new(max_queued_bytes: usize, busy_timeout: Duration) -> Self {
        Self {
            state: Mutex::default(),
            waiting_writes: AtomicUsize::new(0),
            waiting_reads: AtomicUsize::new(0),
            write_arrived: Condvar::new(),
            read_arrived: Condvar::new(),
            writes_settled: Condvar::new(),
            max_queued_bytes,
            busy_timeout,
        }
    }

    /// Accepts a write, unless too much waits already. The only write is never too much.
    pub fn push_write(&self, ticket: Ticket, row: Row) -> Result<(), StoreError> {
        let bytes = row.bytes();
        let deadline = Instant::now() + self.busy_timeout;
        let mut state = self.lock();
        if state.is_closing {
            return Err(StoreError::Closed);
        }
        let deadline = state.last_deadline.map_or(deadline, |last| last.min(deadline));
        let is_only_one = state.accepted == state.settled;
        if !is_only_one && state.queued_bytes.saturating_add(bytes) > self.max_queued_bytes {
            return Err(StoreError::Overloaded { max_queued_bytes: self.max_queued_bytes });
        }
        state.accepted += 1;
        state.queued_bytes = state.queued_bytes.saturating_add(bytes);
        let number = state.accepted;
        state.marks.set(&row, number);
        state.writes.push_back(Write { ticket, row, bytes, deadline });
        self.waiting_writes.store(state.writes.len(), Ordering::Relaxed);
        let must_wake = mem::take(&mut state.is_writer_parked);
        drop(state);
        if must_wake {
            self.write_arrived.notify_one();
        }
        Ok(())
    }

    /// Accepts a read. Returns whether no reader was free to take it.
    pub fn push_read(&self, read: Read) -> Result<bool, StoreError> {
        let mut state = self.lock();
        if state.is_closing {
            return Err(StoreError::Closed);
        }
        let awaited = state.marks.of(&read.query);
        if awaited > state.settled {
            state.held_reads.push((awaited, read));
            return Ok(false);
        }
        state.ready_reads.push_back(read);
        let is_short_of_readers = state.ready_reads.len() > state.parked_readers;
        self.publish_reads(state, 1);
        Ok(is_short_of_readers)
    }

    /// Whether a write that this read must see is accepted but not settled.
    pub fn must_wait(&self, query: &Query) -> Result<bool, StoreError> {
        let state = self.lock();
        if state.is_closing {
            return Err(StoreError::Closed);
        }
        Ok(state.marks.of(query) > state.settled)
    }

    /// Whether no read waits for a reader.
    pub fn has_no_reads(&self) -> bool {
        self.waiting_reads.load(Ordering::Relaxed) == 0
    }

    /// Waits for work. `idle_after` asks to be told when there was none for that long.
    pub fn next_work(&self, idle_after: Option<Duration>) -> Work {
        spin_until(|| self.waiting_writes.load(Ordering::Relaxed) > 0);
        let mut state = self.lock();
        loop {
            if !state.writes.is_empty() {
                let mut batch = Vec::with_capacity(state.writes.len().min(MAX_BATCH_WRITES));
                fill_batch(&mut batch, &mut state.writes);
                self.waiting_writes.store(state.writes.len(), Ordering::Relaxed);
                return Work::Batch(batch);
            }
            if state.is_closing {
                return Work::End;
            }
            state.is_writer_parked = true;
            let timeout = idle_after.unwrap_or(Duration::MAX);
            let (woken, wait) = self
                .write_arrived
                .wait_timeout(state, timeout)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.is_writer_parked = false;
            if wait.timed_out() && state.writes.is_empty() && !state.is_closing {
                return Work::Idle;
            }
        }
    }

    /// Adds to a batch what arrived since it was taken.
    pub fn take_more(&self, batch: &mut Vec<Write>) {
        if self.waiting_writes.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut state = self.lock();
        fill_batch(batch, &mut state.writes);
        self.waiting_writes.store(state.writes.len(), Ordering::Relaxed);
    }

    /// The oldest writes of a batch are done with, one way or another: what waited for them may
    /// be read. Returns whether more reads became ready than readers wait for them.
    pub fn settle(&self, writes: usize, bytes: usize) -> bool {
        let mut state = self.lock();
        state.settled += u64::try_from(writes).expect("a batch is small");
        state.queued_bytes = state.queued_bytes.saturating_sub(bytes);
        let settled = state.settled;
        state.marks.sweep(settled);
        let (ready, held) = mem::take(&mut state.held_reads)
            .into_iter()
            .partition::<Vec<_>, _>(|(awaited, _)| *awaited <= settled);
        state.held_reads = held;
        let released = ready.len();
        state.ready_reads.extend(ready.into_iter().map(|(_, read)| read));
        if state.flushing > 0 {
            self.writes_settled.notify_all();
        }
        let is_short_of_readers = released > 0 && state.ready_reads.len() > state.parked_readers;
        self.publish_reads(state, released);
        is_short_of_readers
    }

    /// Waits for a read; `None` when the store is closing.
    pub fn next_read(&self) -> Option<Read> {
        spin_until(|| self.waiting_reads.load(Ordering::Relaxed) > 0);
        let mut state = self.lock();
        loop {
            if let Some(read) = state.ready_reads.pop_front() {
                self.waiting_reads.store(state.ready_reads.len(), Ordering::Relaxed);
                return Some(read);
            }
            if state.is_closing {
                return None;
            }
            state.parked_readers += 1;
            state = self.read_arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.parked_readers -= 1;
        }
    }

    /// Blocks until every write accepted so far is settled. From the first flush on, locks are
    /// waited for no longer than one write may wait.
    pub fn flush(&self) {
        let mut state = self.lock();
        state.last_deadline.get_or_insert(Instant::now() + self.busy_timeout);
        let awaited = state.accepted;
        state.flushing += 1;
        while state.settled < awaited {
            state = self.writes_settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.flushing -= 1;
    }

    /// Accepts nothing from here on, and hands back the reads that no reader has begun.
    pub fn close(&self) -> Vec<Ticket> {
        let mut state = self.lock();
        state.is_closing = true;
        let held = mem::take(&mut state.held_reads).into_iter().map(|(_, read)| read);
        let ready = mem::take(&mut state.ready_reads);
        self.waiting_reads.store(0, Ordering::Relaxed);
        drop(state);
        self.write_arrived.notify_all();
        self.read_arrived.notify_all();
        held.chain(ready).filter_map(|read| read.ticket).collect()
    }

    /// Whether calls are still accepted.
    pub fn check_open(&self) -> Result<(), StoreError> {
        if self.lock().is_closing { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Takes the reads that no reader has begun, for want of a reader.
    pub fn take_ready_reads(&self) -> Vec<Ticket> {
        let reads = mem::take(&mut self.lock().ready_reads);
        self.waiting_reads.store(0, Ordering::Relaxed);
        reads.into_iter().filter_map(|read| read.ticket).collect()
    }

    fn publish_reads(&self, state: MutexGuard<'_, State>, count: usize) {
        self.waiting_reads.store(state.ready_reads.len(), Ordering::Relaxed);
        let to_wake = count.min(state.parked_readers);
        drop(state);
        for _ in 0..to_wake {
            self.read_arrived.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Marks {
    fn set(&mut self, row: &Row, number: u64) {
        match row {
            Row::Event(event) => mark(&mut self.events_of, &event.session_id, number),
            Row::Session(session) => {
                mark(&mut self.session, &session.id, number);
                self.any_session = number;
            }
        }
    }

    fn of(&self, query: &Query) -> u64 {
        match query {
            Query::Session { id } => self.session.get(id).copied().unwrap_or_default(),
            Query::Sessions { .. } => self.any_session,
            Query::Events(EventsQuery { session_id, .. })
            | Query::Replay(ReplayQuery { session_id, .. }) => {
                self.events_of.get(session_id).copied().unwrap_or_default()
            }
        }
    }

    fn sweep(&mut self, settled: u64) {
        for marks in [&mut self.events_of, &mut self.session] {
            if marks.len() > MAX_SETTLED_MARKS {
                marks.retain(|_, number| *number > settled);
            }
        }
    }
}

/// Most calls are of a session that is known already, and cost no allocation.
fn mark(marks: &mut HashMap<String, u64>, key: &str, number: u64) {
    match marks.get_mut(key) {
        Some(mark) => *mark = number,
        None => {
            marks.insert(key.to_owned(), number);
        }
    }
}

/// Moves what fits into the batch. A write that is larger than a batch may be goes alone.
fn fill_batch(batch: &mut Vec<Write>, writes: &mut VecDeque<Write>) {
    let room = MAX_BATCH_WRITES.saturating_sub(batch.len());
    let mut bytes: usize = batch.iter().map(|write| write.bytes).sum();
    let count = writes
        .iter()
        .take(room)
        .take_while(|write| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(write.bytes);
            is_first || bytes <= MAX_BATCH_BYTES
        })
        .count();
    batch.extend(writes.drain(..count));
}

fn spin_until(is_ready: impl Fn() -> bool) {
    const LOOKS_PER_CLOCK_READING: u32 = 64;
    let end = Instant::now() + SPIN;
    while !is_ready() && Instant::now() < end {
        for _ in 0..LOOKS_PER_CLOCK_READING {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PageRequest, SessionEvent, SessionRecord};

    fn queue() -> Queue {
        Queue::new(10_000, Duration::ZERO)
    }

    fn event(session: &str, payload_bytes: usize) -> Row {
        Row::Event(SessionEvent {
            session_id: session.to_owned(),
            payload: "x".repeat(payload_bytes),
            ..SessionEvent::default()
        })
    }

    fn session(id: &str) -> Row {
        Row::Session(SessionRecord { id: id.to_owned(), ..SessionRecord::default() })
    }

    fn page() -> PageRequest {
        PageRequest { limit: 1, cursor: None }
    }

    fn events_of(session: &str) -> Read {
        let query = Query::Events(EventsQuery { session_id: session.to_owned(), page: page() });
        Read { ticket: Some(Ticket(100)), query }
    }

    fn batch(queue: &Queue) -> Vec<Write> {
        match queue.next_work(None) {
            Work::Batch(batch) => batch,
            other => panic!("{other:?}"),
        }
    }

    fn settle(queue: &Queue, batch: &[Write]) {
        queue.settle(batch.len(), batch.iter().map(|write| write.bytes).sum());
    }

    fn ready(queue: &Queue) -> usize {
        queue.lock().ready_reads.len()
    }

    #[test]
    fn all_that_waits_is_one_batch_in_order() {
        let queue = queue();
        for number in 0..5 {
            queue.push_write(Ticket(number), event("s", 1)).unwrap();
        }
        let tickets: Vec<_> = batch(&queue).iter().map(|write| write.ticket.0).collect();
        assert_eq!(tickets, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_batch_is_bounded_in_rows_and_in_bytes() {
        let queue = Queue::new(usize::MAX, Duration::ZERO);
        for number in 0..MAX_BATCH_WRITES + 1 {
            queue.push_write(Ticket(number), event("s", 1)).unwrap();
        }
        assert_eq!(batch(&queue).len(), MAX_BATCH_WRITES);
        assert_eq!(batch(&queue).len(), 1);
        for number in 0..3 {
            queue.push_write(Ticket(number), event("s", MAX_BATCH_BYTES)).unwrap();
            queue.push_write(Ticket(number), event("s", 1)).unwrap();
        }
        for _ in 0..6 {
            assert_eq!(batch(&queue).len(), 1, "a large write goes alone");
        }
    }

    #[test]
    fn what_arrives_before_the_commit_joins_the_batch_within_its_bounds() {
        let queue = Queue::new(usize::MAX, Duration::ZERO);
        queue.push_write(Ticket(0), event("s", 1)).unwrap();
        let mut taken = batch(&queue);
        queue.push_write(Ticket(1), event("s", 1)).unwrap();
        queue.push_write(Ticket(2), event("s", MAX_BATCH_BYTES)).unwrap();
        queue.take_more(&mut taken);
        queue.take_more(&mut taken);
        let tickets: Vec<_> = taken.iter().map(|write| write.ticket.0).collect();
        assert_eq!(tickets, [0, 1]);
    }

    #[test]
    fn a_read_waits_for_the_writes_of_its_session_only() {
        let queue = queue();
        queue.push_write(Ticket(0), event("a", 1)).unwrap();
        queue.push_read(events_of("b")).unwrap();
        assert_eq!(ready(&queue), 1);
        queue.push_read(events_of("a")).unwrap();
        assert_eq!(ready(&queue), 1);
        let written = batch(&queue);
        queue.push_write(Ticket(1), event("a", 1)).unwrap();
        settle(&queue, &written);
        assert_eq!(ready(&queue), 2, "later writes don't hold it back");
    }

    #[test]
    fn lists_of_sessions_wait_for_sessions_not_for_events() {
        let queue = queue();
        let sessions = || Read { ticket: Some(Ticket(9)), query: Query::Sessions { page: page() } };
        queue.push_write(Ticket(0), event("a", 1)).unwrap();
        queue.push_read(sessions()).unwrap();
        assert_eq!(ready(&queue), 1);
        queue.push_write(Ticket(1), session("a")).unwrap();
        let of = |id: &str| Query::Session { id: id.to_owned() };
        assert!(queue.must_wait(&of("a")).unwrap());
        assert!(!queue.must_wait(&of("b")).unwrap());
        queue.push_read(sessions()).unwrap();
        assert_eq!(ready(&queue), 1);
        let written = batch(&queue);
        settle(&queue, &written);
        assert_eq!(ready(&queue), 2);
        assert!(!queue.must_wait(&of("a")).unwrap());
    }

    #[test]
    fn the_ceiling_spares_the_only_write_and_falls_when_writes_settle() {
        let queue = queue();
        queue.push_write(Ticket(0), event("a", 50_000)).unwrap();
        let refused = queue.push_write(Ticket(1), event("a", 1));
        assert_eq!(refused, Err(StoreError::Overloaded { max_queued_bytes: 10_000 }));
        let written = batch(&queue);
        assert!(queue.push_write(Ticket(1), event("a", 1)).is_err(), "taken is not settled");
        settle(&queue, &written);
        queue.push_write(Ticket(1), event("a", 1)).unwrap();
    }

    #[test]
    fn closing_hands_back_reads_and_keeps_writes() {
        let queue = queue();
        queue.push_write(Ticket(0), event("a", 1)).unwrap();
        queue.push_read(events_of("a")).unwrap();
        queue.push_read(events_of("b")).unwrap();
        assert_eq!(queue.close().len(), 2);
        assert_eq!(queue.push_write(Ticket(1), event("a", 1)), Err(StoreError::Closed));
        assert!(queue.push_read(events_of("a")).is_err());
        assert_eq!(batch(&queue).len(), 1);
        assert!(matches!(queue.next_work(None), Work::End));
        assert!(queue.next_read().is_none());
    }

    #[test]
    fn marks_of_settled_writes_are_swept_out() {
        let queue = Queue::new(usize::MAX, Duration::ZERO);
        for number in 0..=MAX_SETTLED_MARKS {
            queue.push_write(Ticket(number), event(&number.to_string(), 1)).unwrap();
        }
        while queue.lock().settled <= MAX_SETTLED_MARKS as u64 {
            let written = batch(&queue);
            settle(&queue, &written);
        }
        assert!(queue.lock().marks.events_of.len() < MAX_SETTLED_MARKS);
    }
}
