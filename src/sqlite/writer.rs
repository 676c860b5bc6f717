//! The writer: owns the write connection, on a thread of its own.
//!
//! Group commit without a timer: whatever waits when the writer becomes free is one
//! transaction. One session alone pays one commit, a hundred share one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::StoreError;
use crate::store::{Completion, Completions, Outcome, Row};

use super::checkpointer::{self, Checkpointer};
use super::connection::Location;
use super::failure;
use super::queries;
use super::queue::{Queue, Work, Write};
use super::reader::Readers;

/// The log is moved into the database from this size on: 16 MiB in pages of 4 KiB. From then on its
/// blocks are written over and over, which a disk syncs faster than blocks it must add. Smaller
/// logs move the pages that every batch touches too often.
const CHECKPOINT_PAGES: u32 = 4_000;
/// While others still read the log, it can't start over: how much more before the next try.
const RETRY_CHECKPOINT_PAGES: u32 = 1_000;
/// With nothing to write for this long, the log is moved whatever its size.
const IDLE_CHECKPOINT_AFTER: Duration = Duration::from_millis(500);

/// Between two tries to get a lock.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// The thread's own state.
pub struct Writer {
    connection: Connection,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    completions: Arc<dyn Completions>,
    checkpointer: Checkpointer,
    location: Location,
    /// The size of the log after the last commit; none without a log.
    wal_pages: Arc<AtomicU32>,
    last_wal_pages: u32,
    checkpoint_at_pages: u32,
    is_log_untended: bool,
}

impl Writer {
    /// Takes over the connection. `location` is where the checkpointer finds the file.
    pub fn new(
        mut connection: Connection,
        location: Location,
        queue: Arc<Queue>,
        readers: Arc<Readers>,
        completions: Arc<dyn Completions>,
    ) -> rusqlite::Result<Self> {
        let wal_pages = Arc::new(AtomicU32::new(0));
        let pages_after_commit = Arc::clone(&wal_pages);
        // Takes the place of SQLite's own checkpoint, inside a commit that somebody waits for.
        connection.wal_hook(Some(move |_: &mut _, pages| {
            pages_after_commit.store(u32::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            connection,
            queue,
            readers,
            completions,
            checkpointer: Checkpointer::new(location.clone()),
            location,
            wal_pages,
            last_wal_pages: 0,
            checkpoint_at_pages: CHECKPOINT_PAGES,
            is_log_untended: false,
        })
    }

    /// Writes until the queue ends. Returns the connection, for the store to close last.
    pub fn work(mut self) -> Connection {
        loop {
            let idle_after = self.is_log_untended.then_some(IDLE_CHECKPOINT_AFTER);
            match self.queue.next_work(idle_after) {
                Work::Batch(batch) => {
                    self.write(batch);
                    self.tend_log();
                }
                Work::Idle => {
                    self.checkpointer.request();
                    self.is_log_untended = false;
                }
                Work::End => break,
            }
        }
        self.checkpointer.stop();
        self.connection
    }

    fn write(&mut self, mut batch: Vec<Write>) {
        while !batch.is_empty() {
            let results = catch_unwind(AssertUnwindSafe(|| self.commit_first(&mut batch)))
                .unwrap_or_else(|_| {
                    vec![Err(StoreError::Internal { reason: "the writer panicked" }); batch.len()]
                });
            let done: Vec<Write> = batch.drain(..results.len()).collect();
            self.finish(&done, results);
        }
    }

    /// The results of the batch's first writes. While somebody else holds the lock, those that may wait no
    /// longer fail; they are the first, for deadlines follow the order of the calls.
    fn commit_first(&self, batch: &mut Vec<Write>) -> Vec<WriteResult> {
        match self.commit(batch) {
            Ok(results) => results,
            Err(error @ StoreError::Busy { .. }) => {
                let now = Instant::now();
                let expired = batch.iter().take_while(|write| write.deadline <= now).count();
                if expired == 0 {
                    // SQLite waits by itself, but for locks that it takes for a deadlock.
                    std::thread::sleep(BUSY_PAUSE);
                }
                vec![Err(error); expired]
            }
            Err(error) if batch.len() == 1 => vec![Err(error)],
            // The reason may lie in one of them: a disk too full for the largest, say.
            Err(_) => batch.iter().map(|write| self.commit_alone(write)).collect(),
        }
    }

    fn commit_alone(&self, write: &Write) -> WriteResult {
        self.transaction(write.deadline, || store_one(&self.connection, write)).flatten()
    }

    /// One transaction. A write that the tables refuse has its own error and leaves no trace; the
    /// others are stored. What arrives while the statements run joins in, as it costs no commit of
    /// its own then. An `Err` of the whole means that nothing is stored.
    fn commit(&self, batch: &mut Vec<Write>) -> Result<Vec<WriteResult>, StoreError> {
        let soonest = batch.first().map_or_else(Instant::now, |write| write.deadline);
        self.transaction(soonest, || {
            let mut results = Vec::with_capacity(batch.len());
            while let Some(write) = batch.get(results.len()) {
                results.push(store_one(&self.connection, write)?);
                if results.len() == batch.len() {
                    self.queue.take_more(batch);
                }
            }
            Ok(results)
        })
    }

    /// Runs statements in a transaction that waits for a lock until the deadline.
    fn transaction<T>(
        &self,
        deadline: Instant,
        statements: impl FnOnce() -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let patience = deadline.saturating_duration_since(Instant::now());
        self.connection.busy_timeout(patience).map_err(failure::store_error)?;
        let begun = self.run("BEGIN IMMEDIATE");
        // Not before the lock is ours: meanwhile whoever had it may have replaced the file. And if it can't
        // be had, this may be why.
        let is_in_place = self.location.check_is_in_place();
        let stored = is_in_place
            .and(begun)
            .and_then(|()| statements().map_err(failure::store_error))
            .and_then(|result| self.run("COMMIT").map(|()| result));
        if stored.is_err() && !self.connection.is_autocommit() {
            self.run("ROLLBACK")?;
        }
        stored
    }

    fn run(&self, sql: &str) -> Result<(), StoreError> {
        let run = || self.connection.prepare_cached(sql)?.execute([]).map(drop);
        run().map_err(failure::store_error)
    }

    fn finish(&self, writes: &[Write], results: Vec<WriteResult>) {
        let bytes = writes.iter().map(|write| write.bytes).sum();
        if self.queue.settle(writes.len(), bytes) {
            self.readers.add_one();
        }
        let completion = |(write, result): (&Write, WriteResult)| Completion {
            ticket: write.ticket,
            result: result.map(|()| Outcome::Stored),
        };
        self.completions.deliver(writes.iter().zip(results).map(completion).collect());
    }

    /// Most of the log is moved by another thread while we go on writing. What we added
    /// meanwhile is moved here, between two commits: only a log that is moved whole starts over.
    fn tend_log(&mut self) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        self.is_log_untended = pages > 0;
        let has_started_over = pages < self.last_wal_pages;
        self.last_wal_pages = pages;
        if has_started_over {
            self.checkpoint_at_pages = CHECKPOINT_PAGES;
        }
        if self.checkpointer.take_finished() && !has_started_over && pages > CHECKPOINT_PAGES {
            // What fails here is tried again when the log has grown some more.
            let _ = checkpointer::move_log(&self.location, &self.connection);
        } else if pages >= self.checkpoint_at_pages {
            self.checkpointer.request();
            self.checkpoint_at_pages = pages + RETRY_CHECKPOINT_PAGES;
        }
    }
}

type WriteResult = Result<(), StoreError>;

/// An `Err` of the whole has ended the transaction, as some errors do.
fn store_one(connection: &Connection, write: &Write) -> rusqlite::Result<WriteResult> {
    match store(connection, &write.row) {
        Err(error) if connection.is_autocommit() => Err(error),
        result => Ok(result.map_err(failure::store_error)),
    }
}

/// Stores one row, in the transaction that is open or else in its own.
pub fn store(connection: &Connection, row: &Row) -> rusqlite::Result<()> {
    match row {
        Row::Event(event) => queries::upsert_event(connection, event),
        Row::Session(session) => queries::upsert_session(connection, session),
    }
}
