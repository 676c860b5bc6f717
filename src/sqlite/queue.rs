//! How the writer and the readers take their work off the backlog: a batch at a time, spinning
//! before they sleep.
//!
//! Shared by JavaScript's thread, the writer and the readers.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::StoreError;
use crate::store::{
    Backlog, Batch, BatchRules, EventsQuery, Patience, PendingWrite, Query, Read, Ticket, Write,
};

/// One transaction stores at most this many rows of separate calls …
const MAX_BATCH_ROWS: usize = 1_000;
/// … and this many bytes; a larger write goes alone.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// A thread that has just worked looks for more for this long before it sleeps: the answer to
/// what it delivered is usually on its way, and to be woken would take it nearly as long.
const SPIN: Duration = Duration::from_micros(100);

const RULES: BatchRules =
    BatchRules { max_rows: MAX_BATCH_ROWS, max_bytes: MAX_BATCH_BYTES, are_concurrent: false };

/// What the writer should do next.
#[derive(Debug)]
pub enum Work {
    /// Commit these.
    Batch(Batch),
    /// Nothing came for as long as the writer asked to be told of.
    Idle,
    /// The store is closing and everything is written.
    End,
}

/// What a reader should do next.
#[derive(Debug)]
pub enum Job {
    /// Answer a call.
    Answer(Read),
    /// Read the page that is probably asked for next.
    ReadAhead(EventsQuery),
}

impl Job {
    fn is_scan(&self) -> bool {
        matches!(self, Self::Answer(read) if read.query.is_scan())
    }
}

/// See the module's documentation. All methods may be called on any thread.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// Lengths of the queues, for spinning without the lock.
    waiting_writes: AtomicUsize,
    waiting_jobs: AtomicUsize,
    is_closing: AtomicBool,
    write_arrived: Condvar,
    job_arrived: Condvar,
    writes_settled: Condvar,
}

#[derive(Debug)]
struct State {
    backlog: Backlog,
    jobs: VecDeque<Job>,
    /// Whether a reader is at a scan: another waits, so that a reader is left for lists.
    is_scanning: bool,
    is_writer_parked: bool,
    parked_readers: usize,
    flushing: usize,
}

impl Queue {
    pub fn new(max_queued_bytes: usize, busy_timeout: Duration) -> Self {
        let backlog = Backlog::new(RULES, max_queued_bytes, busy_timeout, Instant::now());
        let state = State {
            backlog,
            jobs: VecDeque::new(),
            is_scanning: false,
            is_writer_parked: false,
            parked_readers: 0,
            flushing: 0,
        };
        Self {
            state: Mutex::new(state),
            waiting_writes: AtomicUsize::new(0),
            waiting_jobs: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            write_arrived: Condvar::new(),
            job_arrived: Condvar::new(),
            writes_settled: Condvar::new(),
        }
    }

    /// Accepts a write; see [`Backlog::push_write`].
    pub fn push_write(&self, ticket: Ticket, write: Write) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.backlog.push_write(ticket, write, Instant::now())?;
        self.waiting_writes.store(state.backlog.waiting(), Ordering::Relaxed);
        let must_wake = mem::take(&mut state.is_writer_parked);
        drop(state);
        if must_wake {
            self.write_arrived.notify_one();
        }
        Ok(())
    }

    /// Accepts a read. Returns whether no reader was free to take it.
    pub fn push_read(&self, ticket: Ticket, query: Query) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let read = Read { ticket, query, called_at: Instant::now() };
        let ready = state.backlog.push_read(read)?.map(Job::Answer);
        Ok(self.publish(state, ready))
    }

    /// Asks for a page that nobody waits for. A closing store refuses it.
    pub fn push_read_ahead(&self, query: EventsQuery) {
        let state = self.state.lock();
        if !state.backlog.is_closing() {
            self.publish(state, [Job::ReadAhead(query)]);
        }
    }

    /// Whether a write that this read must see is accepted but not settled.
    pub fn must_wait(&self, query: &Query) -> Result<bool, StoreError> {
        self.state.lock().backlog.must_wait(query)
    }

    /// Whether no read waits for a reader.
    pub fn has_no_reads(&self) -> bool {
        self.waiting_jobs.load(Ordering::Relaxed) == 0
    }

    /// Waits for work. `idle_after` asks to be told when there was none for that long.
    pub fn next_work(&self, idle_after: Option<Duration>) -> Work {
        // Who has something else to do doesn't wait at all.
        if idle_after != Some(Duration::ZERO) {
            spin_until(|| self.waiting_writes.load(Ordering::Relaxed) > 0);
        }
        let mut state = self.state.lock();
        loop {
            if let Some(batch) = state.backlog.take() {
                self.waiting_writes.store(state.backlog.waiting(), Ordering::Relaxed);
                return Work::Batch(batch);
            }
            if state.backlog.is_closing() && state.backlog.is_settled_whole() {
                return Work::End;
            }
            let is_awaited = idle_after.is_some() && state.is_something_long_awaited();
            if is_awaited || idle_after == Some(Duration::ZERO) {
                return Work::Idle;
            }
            state.is_writer_parked = true;
            let timeout = idle_after.unwrap_or(Duration::MAX);
            let has_timed_out = match Instant::now().checked_add(timeout) {
                Some(until) => self.write_arrived.wait_until(&mut state, until).timed_out(),
                None => {
                    self.write_arrived.wait(&mut state);
                    false
                }
            };
            state.is_writer_parked = false;
            let is_idle = state.backlog.waiting() == 0 && !state.backlog.is_closing();
            if has_timed_out && is_idle {
                return Work::Idle;
            }
        }
    }

    /// Adds to a batch what arrived since it was taken.
    pub fn take_more(&self, batch: &mut Batch) {
        if self.waiting_writes.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.backlog.take_more(batch);
        self.waiting_writes.store(state.backlog.waiting(), Ordering::Relaxed);
    }

    /// Until when a lock may be waited for.
    pub fn deadline_of(&self, patience: Patience) -> Instant {
        self.state.lock().backlog.deadline_of(patience)
    }

    /// How many of these writes, from the first on, may wait no longer.
    pub fn count_expired(&self, writes: &[PendingWrite]) -> usize {
        self.state.lock().backlog.count_expired(writes, Instant::now())
    }

    /// The database did what it was asked, for a write that isn't done with yet.
    pub fn note_success(&self) {
        self.state.lock().backlog.note_success(Instant::now());
    }

    /// These writes are done with, one way or another: what waited for them may be read. Returns
    /// whether more reads became ready than readers wait for them.
    pub fn settle(&self, writes: &mut [PendingWrite], is_success: bool) -> bool {
        let mut state = self.state.lock();
        if is_success {
            state.backlog.note_success(Instant::now());
        }
        let ready = state.backlog.settle(writes);
        if state.flushing > 0 {
            self.writes_settled.notify_all();
        }
        if ready.is_empty() {
            return false;
        }
        self.publish(state, ready.into_iter().map(Job::Answer))
    }

    /// Waits for a job; `None` when the store is closing.
    pub fn next_job(&self) -> Option<Job> {
        spin_until(|| self.waiting_jobs.load(Ordering::Relaxed) > 0);
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.take_job() {
                self.waiting_jobs.store(state.jobs.len(), Ordering::Relaxed);
                return Some(job);
            }
            if state.backlog.is_closing() {
                return None;
            }
            state.parked_readers += 1;
            self.job_arrived.wait(&mut state);
            state.parked_readers -= 1;
        }
    }

    /// The scan that a reader took is answered. It looks for its next job itself.
    pub fn end_scan(&self) {
        self.state.lock().is_scanning = false;
    }

    /// Blocks until every write accepted so far is settled. From the first flush on, locks are
    /// waited for no longer than one write may wait.
    pub fn flush(&self) {
        let mut state = self.state.lock();
        let deadline = Instant::now() + state.backlog.timeout();
        let awaited = state.backlog.begin_flush(deadline);
        self.write_arrived.notify_all();
        state.flushing += 1;
        while !state.backlog.is_settled_up_to(awaited) {
            self.writes_settled.wait(&mut state);
        }
        state.flushing -= 1;
    }

    /// Locks are waited for until then at most from here on.
    pub fn end_by(&self, deadline: Instant) {
        self.state.lock().backlog.begin_flush(deadline);
        self.write_arrived.notify_all();
    }

    /// Accepts nothing from here on, and hands back the reads that no reader has begun.
    pub fn close(&self) -> Vec<Ticket> {
        let mut state = self.state.lock();
        let mut tickets = state.backlog.close();
        self.waiting_writes.store(state.backlog.waiting(), Ordering::Relaxed);
        self.is_closing.store(true, Ordering::Relaxed);
        tickets.extend(answers(mem::take(&mut state.jobs)));
        self.waiting_jobs.store(0, Ordering::Relaxed);
        drop(state);
        self.write_arrived.notify_all();
        self.job_arrived.notify_all();
        tickets
    }

    /// Whether calls are still accepted.
    pub fn check_open(&self) -> Result<(), StoreError> {
        self.state.lock().backlog.check_open()
    }

    /// Whether the store is closing, for those who ask often.
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Whether what takes long should come to its end.
    pub fn is_ending(&self) -> bool {
        self.state.lock().backlog.is_ending()
    }

    /// How many writes aren't settled, and how many bytes they are.
    pub fn queued(&self) -> (usize, usize) {
        self.state.lock().backlog.queued()
    }

    /// Takes the reads that no reader has begun, for want of a reader.
    pub fn take_ready_reads(&self) -> Vec<Ticket> {
        let jobs = mem::take(&mut self.state.lock().jobs);
        self.waiting_jobs.store(0, Ordering::Relaxed);
        answers(jobs).collect()
    }

    /// Puts jobs up. Returns whether more are up than readers wait for them.
    fn publish(
        &self,
        mut state: MutexGuard<'_, State>,
        jobs: impl IntoIterator<Item = Job>,
    ) -> bool {
        let before = state.jobs.len();
        state.jobs.extend(jobs);
        let count = state.jobs.len() - before;
        let is_short_of_readers = count > 0 && state.jobs.len() > state.parked_readers;
        self.waiting_jobs.store(state.jobs.len(), Ordering::Relaxed);
        let to_wake = count.min(state.parked_readers);
        drop(state);
        for _ in 0..to_wake {
            self.job_arrived.notify_one();
        }
        is_short_of_readers
    }
}

impl State {
    fn take_job(&mut self) -> Option<Job> {
        let may_begin = |job: &Job| !(self.is_scanning && job.is_scan());
        let place = self.jobs.iter().position(may_begin)?;
        let job = self.jobs.remove(place)?;
        self.is_scanning |= job.is_scan();
        Some(job)
    }

    /// Whether somebody waits for the end of all, and what isn't done yet is what takes long.
    fn is_something_long_awaited(&self) -> bool {
        let backlog = &self.backlog;
        backlog.is_ending() && backlog.waiting() == 0 && !backlog.is_settled_whole()
    }
}

/// The calls among the jobs.
fn answers(jobs: VecDeque<Job>) -> impl Iterator<Item = Ticket> {
    jobs.into_iter().filter_map(|job| match job {
        Job::Answer(read) => Some(read.ticket),
        Job::ReadAhead(_) => None,
    })
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
