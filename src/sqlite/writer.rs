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
use crate::store::{Completion, Completions, Outcome};

use super::checkpointer::{self, Checkpointer};
use super::connection::Location;
use super::failure;
use super::queries;
use super::queue::{Queue, Row, Work, Write};
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
            checkpointer: Checkpointer::new(location),
            wal_pages,
            last_wal_pages: 0,
            checkpoint_at_pages: CHECKPOINT_PAGES,
            is_log_untended: false,
        })
    }

    /// Writes until the queue ends. Returns the connection, for the store to close last.
    pub fn run(mut self) -> Connection {
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

    fn write(&mut self, batch: Vec<Write>) {
        let results = catch_unwind(AssertUnwindSafe(|| commit_waiting(&self.connection, &batch)))
            .unwrap_or_else(|_| {
                let failed = Err(StoreError::Internal { reason: "the writer panicked" });
                vec![failed; batch.len()]
            });
        let bytes = batch.iter().map(|write| write.bytes).sum();
        if self.queue.settle(batch.len(), bytes) {
            self.readers.add_one();
        }
        let completions = batch
            .iter()
            .zip(results)
            .map(|(write, result)| Completion {
                ticket: write.ticket,
                result: result.map(|()| Outcome::Stored),
            })
            .collect();
        self.completions.deliver(completions);
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
            let _ = checkpointer::move_log(&self.connection);
        } else if pages >= self.checkpoint_at_pages {
            self.checkpointer.request();
            self.checkpoint_at_pages = pages + RETRY_CHECKPOINT_PAGES;
        }
    }
}

type WriteResult = Result<(), StoreError>;

/// Commits a batch, waiting for somebody else's lock as long as each write may wait.
fn commit_waiting(connection: &Connection, batch: &[Write]) -> Vec<WriteResult> {
    let mut results: Vec<Option<WriteResult>> = batch.iter().map(|_| None).collect();
    loop {
        let open: Vec<usize> = (0..batch.len()).filter(|&at| results[at].is_none()).collect();
        let Some(patience) = open.iter().map(|&at| batch[at].deadline).max() else { break };
        let writes: Vec<&Write> = open.iter().map(|&at| &batch[at]).collect();
        let soonest = writes.iter().map(|write| write.deadline).min().unwrap_or(patience);
        match commit(connection, &writes, soonest) {
            Ok(committed) => {
                for (at, result) in open.into_iter().zip(committed) {
                    results[at] = Some(result);
                }
            }
            Err(error) if failure::is_busy(&error) => {
                let now = Instant::now();
                let error = failure::store_error(error);
                for at in open.into_iter().filter(|&at| batch[at].deadline <= now) {
                    results[at] = Some(Err(error.clone()));
                }
                // SQLite waits by itself, but for locks that it takes for a deadlock.
                std::thread::sleep(BUSY_PAUSE);
            }
            // A reason that may lie in one of them: a disk too full for the largest, say.
            Err(_) if writes.len() > 1 => {
                for (at, write) in open.into_iter().zip(writes) {
                    results[at] = Some(commit_alone(connection, write));
                }
            }
            Err(error) => results[open[0]] = Some(Err(failure::store_error(error))),
        }
    }
    results.into_iter().map(|result| result.expect("the loop ends when all are set")).collect()
}

fn commit_alone(connection: &Connection, write: &Write) -> WriteResult {
    match commit(connection, &[write], write.deadline) {
        Ok(mut results) => results.remove(0),
        Err(error) => Err(failure::store_error(error)),
    }
}

/// One transaction. A write that the tables refuse has its own error and leaves no trace; the
/// others are stored. An `Err` of the whole means that nothing is.
fn commit(
    connection: &Connection,
    writes: &[&Write],
    busy_until: Instant,
) -> rusqlite::Result<Vec<WriteResult>> {
    let patience = busy_until.saturating_duration_since(Instant::now());
    connection.busy_timeout(patience)?;
    run_cached(connection, "BEGIN IMMEDIATE")?;
    let stored = store_each(connection, writes)
        .and_then(|results| run_cached(connection, "COMMIT").map(|()| results));
    if stored.is_err() && !connection.is_autocommit() {
        run_cached(connection, "ROLLBACK")?;
    }
    stored
}

fn store_each(connection: &Connection, writes: &[&Write]) -> rusqlite::Result<Vec<WriteResult>> {
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        match store(connection, &write.row) {
            // Some errors end the whole transaction.
            Err(error) if connection.is_autocommit() => return Err(error),
            Err(error) => results.push(Err(failure::store_error(error))),
            Ok(()) => results.push(Ok(())),
        }
    }
    Ok(results)
}

/// Stores one row, in the transaction that is open or else in its own.
pub fn store(connection: &Connection, row: &Row) -> rusqlite::Result<()> {
    match row {
        Row::Event(event) => queries::upsert_event(connection, event),
        Row::Session(session) => queries::upsert_session(connection, session),
    }
}

fn run_cached(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
