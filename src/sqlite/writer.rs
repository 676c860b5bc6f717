//! The writer: owns the write connection, on a thread of its own.
//!
//! Group commit without a timer: whatever waits when the writer becomes free is one
//! transaction. One session alone pays one commit, a hundred share one. What takes long goes on in
//! steps, one after each batch.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{DatabaseCode, LockTimeout, StoreError};
use crate::store::{
    Activity, Batch, Completion, Completions, FileProgress, Lasting, Metrics, NOTICEABLE,
    OperationResult, Outcome, Pace, Patience, PendingWrite, Probe, Trouble, Write,
};

use super::checkpointer::Checkpointer;
use super::compaction;
use super::connection::Location;
use super::deletion::Deletion;
use super::erasure::{Done, Erased, Erasure};
use super::failure;
use super::queue::{Queue, Work};
use super::reader::Readers;
use super::statements::{self, Statements};
use super::vacuum::{self, Vacuum};

/// The WAL is checkpointed from this size on: 16 MiB in pages of 4 KiB. From then on its
/// blocks are written over and over, which a disk syncs faster than blocks it must add. Smaller
/// WALs checkpoint the pages that every batch touches too often.
const CHECKPOINT_PAGES: u32 = 4_000;
/// While others still read the WAL, it can't start over: how much more before the next try.
const RETRY_CHECKPOINT_PAGES: u32 = 1_000;
/// With nothing to write for this long, the WAL is checkpointed whatever its size.
const IDLE_CHECKPOINT_AFTER: Duration = Duration::from_millis(500);

/// Between two tries to get a lock.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Between two steps of a deletion the lock is free for as long as a step takes, and at most this
/// long. Other processes look for it ever less often while they wait, up to ten times a second:
/// from a lock that is only free for moments they would be shut out until the deletion is done.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// After this long without a lock, the writer looks whether it should go on waiting.
const LOCK_WAIT_SLICE: Duration = Duration::from_millis(500);
/// To get the lock takes longer than this only if somebody has it.
const LOCK_WAIT: Duration = Duration::from_millis(1);
/// A transaction that has deleted this many rows takes no further write on.
const MAX_ROWS_DELETED_IN_A_BATCH: usize = 10_000;

/// The thread's own state.
pub struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    checkpointer: Checkpointer,
    /// How long a lock is waited for already.
    lock_wait: Cell<Lasting>,
    /// What goes on in steps, the next first.
    deletions: VecDeque<Deletion>,
    /// How many rows are pruned at a time.
    prune_pace: Cell<Pace>,
    vacuum: Vacuum,
    erasure: Erasure,
    /// Until when the lock is left to other processes.
    rests_until: Instant,
    /// The size of the WAL after the last commit; none without a WAL.
    wal_pages: Arc<AtomicU32>,
    last_wal_pages: u32,
    checkpoint_at_pages: u32,
    is_checkpoint_due: bool,
}

/// What the writer shares with the rest of its store.
pub struct Shared {
    pub queue: Arc<Queue>,
    pub readers: Arc<Readers>,
    pub completions: Arc<dyn Completions>,
    pub statements: Arc<Statements>,
    pub metrics: Arc<Metrics>,
    /// Where the checkpointer finds the file.
    pub location: Location,
    /// How long a call may wait for a lock.
    pub busy_timeout: Duration,
    /// Whether deletions are acknowledged once nothing of them is left.
    pub secure_delete: bool,
}

/// How far a write has come in a transaction.
#[derive(Debug)]
enum Progress {
    Done(OperationResult),
    /// It is begun, and goes on in steps.
    Begun,
}

impl Writer {
    /// Takes over the connection.
    pub fn new(mut connection: Connection, shared: Shared) -> rusqlite::Result<Self> {
        let wal_pages = Arc::new(AtomicU32::new(0));
        let pages_after_commit = Arc::clone(&wal_pages);
        // Takes the place of SQLite's own checkpoint, inside a commit that somebody waits for.
        connection.wal_hook(Some(move |_: &mut _, pages| {
            pages_after_commit.store(u32::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            vacuum: Vacuum::new(&connection)?,
            erasure: Erasure::new(shared.secure_delete, shared.busy_timeout),
            connection,
            checkpointer: Checkpointer::new(
                shared.location.clone(),
                Arc::clone(&shared.completions),
            ),
            lock_wait: Cell::default(),
            shared: Arc::new(shared),
            deletions: VecDeque::new(),
            prune_pace: Cell::default(),
            rests_until: Instant::now(),
            wal_pages,
            last_wal_pages: 0,
            checkpoint_at_pages: CHECKPOINT_PAGES,
            is_checkpoint_due: false,
        })
    }

    /// Writes until the queue ends. Returns the connection, for the store to close last.
    pub fn work(mut self) -> Connection {
        loop {
            match self.shared.queue.next_work(self.idle_after()) {
                Work::Batch(batch) => self.write(batch),
                Work::Idle if self.has_no_steps() => {
                    self.checkpointer.request();
                    self.is_checkpoint_due = false;
                    continue;
                }
                Work::Idle => {}
                Work::End => break,
            }
            self.step_deletion();
            self.step_vacuum();
            self.step_erasure();
            self.checkpoint_if_due();
        }
        self.checkpointer.stop();
        self.connection
    }

    /// How long to wait for work, where there is something else to do then.
    fn idle_after(&self) -> Option<Duration> {
        let next_step = match self.vacuum.due() {
            _ if !self.deletions.is_empty() => Some(self.rests_until),
            due => due.map(|due| due.max(self.rests_until)),
        };
        let next_step = match (next_step, self.erasure.due()) {
            (Some(step), Some(erasure)) => Some(step.min(erasure)),
            (step, erasure) => step.or(erasure),
        };
        match next_step {
            Some(next) => Some(next.saturating_duration_since(Instant::now())),
            None => self.is_checkpoint_due.then_some(IDLE_CHECKPOINT_AFTER),
        }
    }

    /// Whether nothing goes on in steps.
    fn has_no_steps(&self) -> bool {
        self.deletions.is_empty() && self.vacuum.due().is_none() && self.erasure.due().is_none()
    }

    fn is_resting(&self) -> bool {
        Instant::now() < self.rests_until && !self.shared.queue.is_ending()
    }

    fn rest(&mut self, time: Duration) {
        self.rests_until = Instant::now() + time.min(LONGEST_REST);
    }

    fn write(&mut self, mut batch: Batch) {
        if let [PendingWrite { write: Write::Shrink(progress), .. }] = batch.writes.as_slice() {
            let progress = Arc::clone(progress);
            let result = catch_unwind(AssertUnwindSafe(|| self.shrink(&progress)));
            let result = result.unwrap_or_else(|_| Err(writer_panicked()));
            return self.finish(batch.writes.into_iter().zip([result]).collect());
        }
        while !batch.writes.is_empty() {
            let progress = catch_unwind(AssertUnwindSafe(|| self.commit_first(&mut batch)))
                .unwrap_or_else(|_| batch.writes.iter().map(|_| panicked()).collect());
            let mut done = Vec::with_capacity(progress.len());
            for (pending, progress) in batch.writes.drain(..progress.len()).zip(progress) {
                match progress {
                    Progress::Done(result) => {
                        self.note_deletion(&pending.write, &result);
                        done.push((pending, result));
                    }
                    Progress::Begun => self.deletions.push_back(Deletion::new(pending)),
                }
            }
            self.finish(done);
        }
    }

    /// Space may have become free.
    fn note_deletion(&mut self, write: &Write, result: &OperationResult) {
        if write.deletes() && result.is_ok() {
            self.vacuum.note_deletion();
        }
    }

    /// How far the batch's first writes have come. While somebody else holds the lock, those that
    /// may wait no longer fail; they are the first, for deadlines follow the order of the calls.
    fn commit_first(&self, batch: &mut Batch) -> Vec<Progress> {
        match self.commit(batch) {
            Ok(progress) => progress,
            Err(error @ StoreError::Busy { .. }) => {
                let expired = self.shared.queue.count_expired(&batch.writes);
                if expired == 0 {
                    // SQLite waits by itself, but for locks that it takes for a deadlock.
                    std::thread::sleep(BUSY_PAUSE);
                }
                let is_ending = self.shared.queue.is_ending();
                let failure = |pending: &PendingWrite| match pending.write.stores_nothing() {
                    true if is_ending => StoreError::Closed,
                    _ => error.clone(),
                };
                let expired = batch.writes[..expired].iter();
                expired.map(|pending| Progress::Done(Err(failure(pending)))).collect()
            }
            Err(error) if batch.writes.len() == 1 => vec![Progress::Done(Err(error))],
            // The reason may lie in one of them: a disk too full for the largest, say.
            Err(_) => batch.writes.iter().map(|pending| self.commit_alone(pending)).collect(),
        }
    }

    fn commit_alone(&self, pending: &PendingWrite) -> Progress {
        let applied = self.transaction(pending.patience(), |transaction| {
            self.apply_in_batch(transaction, pending)
        });
        match applied {
            Ok((progress, _)) => progress,
            Err(error) => Progress::Done(Err(error)),
        }
    }

    /// One transaction. A write that the tables refuse has its own error and leaves no trace; the
    /// others are stored. What arrives while the statements run joins in, as it costs no commit of
    /// its own then. An `Err` of the whole means that nothing is stored.
    fn commit(&self, batch: &mut Batch) -> Result<Vec<Progress>, StoreError> {
        let Some(patience) = batch.writes.first().map(PendingWrite::patience) else {
            return Ok(Vec::new());
        };
        let mut begun = Instant::now();
        let result = self.transaction(patience, |transaction| {
            begun = Instant::now();
            let mut progress = Vec::with_capacity(batch.writes.len());
            let mut deleted_rows = 0;
            while let Some(pending) = batch.writes.get(progress.len()) {
                let (of_write, deleted) = self.apply_in_batch(transaction, pending)?;
                progress.push(of_write);
                deleted_rows += deleted;
                if deleted_rows >= MAX_ROWS_DELETED_IN_A_BATCH {
                    break;
                }
                if progress.len() == batch.writes.len() {
                    self.shared.queue.take_more(batch);
                }
            }
            Ok(progress)
        });
        // In a transaction of its own, and to commit it is much of what it takes.
        if let [PendingWrite { write: Write::Prune(_) | Write::Compact(_), .. }] =
            batch.writes.as_slice()
        {
            let mut pace = self.prune_pace.get();
            pace.note(begun.elapsed());
            self.prune_pace.set(pace);
        }
        result
    }

    /// How far a write came, and how many rows it deleted. An `Err` of the whole has ended the
    /// transaction, as some errors do.
    fn apply_in_batch(
        &self,
        connection: &Connection,
        pending: &PendingWrite,
    ) -> rusqlite::Result<(Progress, usize)> {
        let statements = &self.shared.statements;
        if let Write::DeleteSession { id } = &pending.write
            && statements::is_large(connection, id)?
        {
            return Ok((Progress::Begun, 0));
        }
        match apply(connection, statements, &pending.write, self.prune_pace.get()) {
            Err(error) if connection.is_autocommit() => Err(error),
            Err(error) => {
                let error = failure::store_error_of_write(connection, error);
                Ok((Progress::Done(Err(error)), 0))
            }
            Ok((outcome, deleted)) => Ok((Progress::Done(Ok(outcome)), deleted)),
        }
    }

    /// Runs statements in a transaction that waits for a lock with this patience. Whatever ends it
    /// early, a panic too, rolls it back.
    fn transaction<T>(
        &self,
        patience: Patience,
        statements: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let begun_at = Instant::now();
        let begun = self.begin(patience);
        let locked_at = Instant::now();
        if begun.is_err() || locked_at - begun_at > LOCK_WAIT {
            self.shared.metrics.note_lock_wait();
        }
        // Not before the lock is ours: meanwhile whoever had it may have replaced the file. And if
        // it can't be had, this may be why.
        self.shared.location.file.verify()?;
        let transaction = begun?;
        let of_write = |error| failure::store_error_of_write(&self.connection, error);
        let result = statements(&transaction).map_err(of_write)?;
        transaction.commit().map_err(of_write)?;
        self.shared.metrics.note_commit(locked_at.elapsed());
        Ok(result)
    }

    /// A transaction that has the lock. Who listens is told of a long wait for it.
    fn begin(&self, patience: Patience) -> Result<Transaction<'_>, StoreError> {
        let begun_at = Instant::now();
        loop {
            let deadline = self.shared.queue.deadline_of(patience);
            let waits_since = Instant::now();
            let wait = deadline.saturating_duration_since(waits_since).min(LOCK_WAIT_SLICE);
            self.connection.busy_timeout(wait).map_err(failure::store_error)?;
            match Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate) {
                Ok(transaction) => {
                    self.lock_wait.take();
                    return Ok(transaction);
                }
                Err(error) => {
                    let error = failure::store_error(error);
                    self.note_lock_wait(&error, begun_at);
                    // SQLite doesn't wait for what it takes for a deadlock.
                    let has_waited = waits_since.elapsed() >= LOCK_WAIT_SLICE;
                    if !matches!(error, StoreError::Busy { .. }) || !has_waited {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn note_lock_wait(&self, error: &StoreError, begun_at: Instant) {
        if !matches!(error, StoreError::Busy { .. }) {
            return;
        }
        let mut lock_wait = self.lock_wait.get();
        if lock_wait.note_since(begun_at, Instant::now(), NOTICEABLE) {
            let trouble = Trouble { activity: Activity::Retry, error: error.clone() };
            self.shared.completions.report(trouble);
        }
        self.lock_wait.set(lock_wait);
    }

    /// Not in a transaction: it has one of its own.
    fn shrink(&mut self, progress: &Arc<FileProgress>) -> OperationResult {
        let (queue, of_caller) = (Arc::clone(&self.shared.queue), Arc::clone(progress));
        let is_over = move || queue.is_ending() || of_caller.is_cancelled();
        let file = &self.shared.location.file;
        let busy_timeout = self.shared.busy_timeout;
        let shrunk = vacuum::shrink(&mut self.connection, file, busy_timeout, progress, is_over);
        if shrunk.is_ok() {
            self.vacuum.note_shrunk();
        }
        shrunk
            .map_err(|error| if self.shared.queue.is_ending() { StoreError::Closed } else { error })
    }

    /// Gives some of the free space back, between other work.
    fn step_vacuum(&mut self) {
        let is_due = self.vacuum.due().is_some_and(|due| due <= Instant::now());
        if !is_due || self.is_resting() || !self.deletions.is_empty() {
            return;
        }
        if self.shared.queue.is_ending() {
            return;
        }
        let file = &self.shared.location.file;
        if let Some(took) = self.vacuum.step(&self.connection, || file.verify()) {
            self.rest(took);
        }
    }

    /// Acknowledges deletions once nothing of them is left.
    fn step_erasure(&mut self) {
        let is_ending = self.shared.queue.is_ending();
        if self.erasure.due().is_none_or(|due| due > Instant::now() && !is_ending) {
            return;
        }
        match self.erasure.try_now(&self.connection, &self.shared.location.file, is_ending) {
            Erased::NotYet => {}
            Erased::All(done) => self.acknowledge(done),
            Erased::NotInTime(done) => {
                let timeout = Some(LockTimeout::BusyTimeout(self.shared.busy_timeout));
                let database_code = DatabaseCode::Sqlite("SQLITE_BUSY");
                let error = StoreError::Busy { timeout, database_code };
                self.shared.completions.report(Trouble { activity: Activity::Erasure, error });
                self.acknowledge(done);
            }
        }
    }

    /// The next step of what takes long.
    fn step_deletion(&mut self) {
        if self.is_resting() {
            return;
        }
        let Some(mut deletion) = self.deletions.pop_front() else { return };
        match catch_unwind(AssertUnwindSafe(|| self.try_step(&mut deletion))) {
            Ok(None) => self.deletions.push_back(deletion),
            Ok(Some(result)) => {
                self.vacuum.note_deletion();
                self.finish(vec![(deletion.pending, result)]);
            }
            Err(_) => self.finish(vec![(deletion.pending, Err(writer_panicked()))]),
        }
    }

    /// How the deletion ended, if it did.
    fn try_step(&mut self, deletion: &mut Deletion) -> Option<OperationResult> {
        if self.shared.queue.is_ending() {
            return Some(Err(StoreError::Closed));
        }
        let patience = deletion.pending.patience();
        let step = self.transaction(patience, |transaction| deletion.step(transaction));
        match step {
            Ok(true) => Some(Ok(Outcome::Deleted(true))),
            Ok(false) => {
                self.rest(deletion.note_committed());
                self.shared.queue.note_success();
                None
            }
            Err(StoreError::Busy { .. })
                if Instant::now() < self.shared.queue.deadline_of(patience) =>
            {
                self.rest(BUSY_PAUSE);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    fn finish(&mut self, done: Done) {
        let done = self.erasure.hold(done);
        self.acknowledge(done);
    }

    fn acknowledge(&self, done: Done) {
        if done.is_empty() {
            return;
        }
        let (mut writes, results): (Vec<PendingWrite>, Vec<OperationResult>) =
            done.into_iter().unzip();
        let stored = results.iter().filter(|result| result.is_ok()).count();
        self.shared.metrics.note_stored(stored);
        if self.shared.queue.settle(&mut writes, stored > 0) {
            self.shared.readers.add_one();
        }
        let limit = LockTimeout::BusyTimeout(self.shared.busy_timeout);
        let completion = |(pending, result): (&PendingWrite, OperationResult)| Completion {
            ticket: pending.ticket,
            result: result.map_err(|error| error.after(limit)),
        };
        self.shared.completions.deliver(writes.iter().zip(results).map(completion).collect());
    }

    /// Most of the WAL is checkpointed by another thread while we go on writing. What we added
    /// meanwhile is checkpointed here, between two commits: only a WAL whose every page is in the
    /// database starts over.
    fn checkpoint_if_due(&mut self) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        self.is_checkpoint_due = pages > 0;
        let has_started_over = pages < self.last_wal_pages;
        self.last_wal_pages = pages;
        if has_started_over {
            self.checkpoint_at_pages = CHECKPOINT_PAGES;
        }
        if self.checkpointer.take_finished() && !has_started_over && pages > CHECKPOINT_PAGES {
            // What fails here is tried again when the WAL has grown some more.
            let _ = self.shared.location.file.checkpoint(&self.connection);
        } else if pages >= self.checkpoint_at_pages {
            self.checkpointer.request();
            self.checkpoint_at_pages = pages + RETRY_CHECKPOINT_PAGES;
        }
    }
}

fn writer_panicked() -> StoreError {
    StoreError::Internal { reason: "the writer panicked" }
}

fn panicked() -> Progress {
    Progress::Done(Err(writer_panicked()))
}

/// Does what a write says, in the transaction that is open or else in its own, whole or not at all.
/// Returns how many rows it deleted too.
pub fn apply(
    connection: &Connection,
    statements: &Statements,
    write: &Write,
    prune_pace: Pace,
) -> rusqlite::Result<(Outcome, usize)> {
    match write {
        Write::Event(event) => {
            statements.upsert_event(connection, event).map(|()| (Outcome::Stored, 0))
        }
        Write::Session(session) => {
            statements.upsert_session(connection, session).map(|()| (Outcome::Stored, 0))
        }
        Write::Events(events) => whole(connection, || {
            events.iter().try_for_each(|event| statements.upsert_event(connection, event))?;
            Ok((Outcome::Stored, 0))
        }),
        Write::DeleteSession { id } => whole(connection, || {
            let rows = statements::delete_session(connection, id)?;
            Ok((Outcome::Deleted(rows > 0), rows))
        }),
        Write::Prune(step) => whole(connection, || {
            let pruned = statements.prune.prune(connection, step, prune_pace.rows())?;
            Ok((Outcome::Pruned(pruned), 0))
        }),
        Write::Compact(step) => whole(connection, || {
            let rows = prune_pace.rows();
            let compacted = compaction::compact(connection, statements, step, rows, false)?;
            Ok((Outcome::Compacted(compacted), 0))
        }),
        // Of a database in memory.
        Write::Shrink(_) => vacuum::in_memory(connection).map(|outcome| (outcome, 0)),
        Write::Probe(rows) => probe(connection, statements, rows).map(|()| (Outcome::Stored, 0)),
    }
}

/// Stores a row in each table, and takes it back.
fn probe(
    connection: &Connection,
    statements: &Statements,
    Probe { session, event }: &Probe,
) -> rusqlite::Result<()> {
    whole(connection, || {
        statements.upsert_session(connection, session)?;
        statements.upsert_event(connection, event)?;
        connection.prepare_cached("ROLLBACK TO whole")?.execute([]).map(drop)
    })
}

/// Runs several statements as if they were one, which leaves no trace if it fails.
fn whole<T>(
    connection: &Connection,
    statements: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let run = |sql: &str| connection.prepare_cached(sql)?.execute([]).map(drop);
    run("SAVEPOINT whole")?;
    let result = statements().and_then(|result| run("RELEASE whole").map(|()| result));
    // Some errors have rolled everything back already.
    if result.is_err() && !connection.is_autocommit() {
        run("ROLLBACK TO whole")?;
        run("RELEASE whole")?;
    }
    result
}
