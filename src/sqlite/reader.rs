//! The readers: lists, and whatever else must wait, on read-only connections and threads of
//! their own, made when they are first needed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::error::{LockTimeout, StoreError};
use crate::model::Page;
use crate::store::{
    Completion, Completions, EventsQuery, OperationResult, Outcome, Query, Read, Ticket,
};

use super::backup;
use super::compaction;
use super::connection::Location;
use super::failure;
use super::prune;
use super::queue::{Job, Queue};
use super::read_ahead::{self, ReadAhead};
use super::statements::{self, Statements};

/// So that one huge page doesn't hold up every small one. Of scans there is one at a time.
const MAX_READERS: usize = 2;

/// A scan looks whether it should end after so many steps of SQLite's machine, about a millisecond.
const STEPS_BETWEEN_LOOKS: i32 = 20_000;
/// A step of a backup may copy a row of any size.
const STEPS_BETWEEN_LOOKS_OF_BACKUP: i32 = 100;

/// Of a step of compaction that only says what it would do.
const DRY_ROWS: usize = 1_000;

/// The connection that JavaScript's thread reads single rows on; `None` where that may wait.
pub type InlineReads = Mutex<Option<Connection>>;

/// All readers of a store.
pub struct Readers {
    location: Location,
    busy_timeout: Duration,
    statements: Arc<Statements>,
    queue: Arc<Queue>,
    completions: Arc<dyn Completions>,
    inline_reads: Arc<InlineReads>,
    ahead: ReadAhead,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    pub fn new(
        location: Location,
        busy_timeout: Duration,
        statements: Arc<Statements>,
        queue: Arc<Queue>,
        completions: Arc<dyn Completions>,
        inline_reads: Arc<InlineReads>,
    ) -> Self {
        Self {
            location,
            busy_timeout,
            statements,
            queue,
            completions,
            inline_reads,
            ahead: ReadAhead::default(),
            threads: Mutex::default(),
        }
    }

    /// The page of a session's events that was read ahead, if it still is what a reader would
    /// find. Runs on JavaScript's thread.
    pub fn take_ahead(&self, asked: &EventsQuery) -> Option<Page> {
        if !self.ahead.has(asked) {
            return None;
        }
        let page = self.ahead.take(asked, self.version()?)?;
        if let Some(next) = read_ahead::next_query(asked, &page) {
            self.queue.push_read_ahead(next);
        }
        Some(page)
    }

    fn version(&self) -> Option<i64> {
        let connection = self.inline_reads.lock();
        read_ahead::version(connection.as_ref()?).ok()
    }

    /// Starts one more reader, unless there are enough.
    pub fn add_one(self: &Arc<Self>) {
        let mut threads = self.threads.lock();
        if threads.len() == MAX_READERS {
            return;
        }
        let readers = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("persist-reader".to_owned())
            .spawn(move || readers.run());
        match thread {
            Ok(thread) => threads.push(thread),
            // The other reader takes it all.
            Err(_) if !threads.is_empty() => {}
            Err(_) => {
                drop(threads);
                self.fail_waiting();
            }
        }
    }

    /// Waits for the reads under way; the queue must be closed.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // Panics are caught and delivered inside.
            let _ = thread.join();
        }
    }

    fn run(&self) {
        let mut connection = None;
        while let Some(job) = self.queue.next_job() {
            let next = match job {
                Job::Answer(Read { ticket, query, .. }) => {
                    let is_scan = query.is_scan();
                    let next = self.answer(&mut connection, ticket, query);
                    if is_scan {
                        self.queue.end_scan();
                    }
                    next
                }
                Job::ReadAhead(query) => Some(query),
            };
            if let Some(query) = next.filter(|_| self.queue.has_no_reads()) {
                self.read_ahead(&mut connection, query);
            }
        }
    }

    /// Answers a call. Returns what will probably be asked for next.
    fn answer(
        &self,
        connection: &mut Option<Connection>,
        ticket: Ticket,
        query: Query,
    ) -> Option<EventsQuery> {
        let result = catch_unwind(AssertUnwindSafe(|| self.read(connection, &query)))
            .unwrap_or(Err(StoreError::Internal { reason: "a reader panicked" }))
            .map_err(|error| error.after(LockTimeout::BusyTimeout(self.busy_timeout)));
        let next = match (&query, &result) {
            (Query::Events(asked), Ok(Outcome::Page(page))) => read_ahead::next_query(asked, page),
            _ => None,
        };
        self.completions.deliver(vec![Completion { ticket, result }]);
        next
    }

    fn read_ahead(&self, connection: &mut Option<Connection>, asked: EventsQuery) {
        // First the version, then the page: what is committed between them spoils it.
        let Some(version) = self.version() else { return };
        let query = Query::Events(asked.clone());
        let result = catch_unwind(AssertUnwindSafe(|| self.read(connection, &query)));
        if let Ok(Ok(Outcome::Page(page))) = result {
            self.ahead.keep(asked, version, page);
        }
    }

    fn read(&self, connection: &mut Option<Connection>, query: &Query) -> OperationResult {
        if connection.is_none() {
            *connection = Some(self.location.open_read_only(self.busy_timeout)?);
        }
        let connection = connection.as_mut().expect("opened above");
        let mut result = match query.is_scan() || query.is_filtered() {
            true => self.scan(connection, query),
            false => answer(connection, &self.statements, query),
        };
        if let Ok(Outcome::Stats(amount)) = &mut result {
            amount.wal_bytes = self.location.file.wal_bytes();
        }
        self.location.file.verify()?;
        result
    }

    /// What may take as long as tables are large ends when the store closes.
    fn scan(&self, connection: &mut Connection, query: &Query) -> OperationResult {
        let queue = Arc::clone(&self.queue);
        let (steps, backup) = match query {
            Query::Backup { progress, .. } => {
                (STEPS_BETWEEN_LOOKS_OF_BACKUP, Some(Arc::clone(progress)))
            }
            _ => (STEPS_BETWEEN_LOOKS, None),
        };
        let is_cancelled = move || backup.as_ref().is_some_and(|progress| progress.is_cancelled());
        let watched = connection
            .progress_handler(steps, Some(move || queue.is_closing() || is_cancelled()))
            .map_err(failure::store_error);
        let result = watched.and_then(|()| answer(connection, &self.statements, query));
        connection.progress_handler(0, None::<fn() -> bool>).map_err(failure::store_error)?;
        result.map_err(|error| if self.queue.is_closing() { StoreError::Closed } else { error })
    }

    /// The system gives us no thread: nobody will ever take what waits.
    fn fail_waiting(&self) {
        for ticket in self.queue.take_ready_reads() {
            let result = Err(StoreError::NO_THREAD);
            self.completions.deliver(vec![Completion { ticket, result }]);
        }
    }
}

/// Reads what is wanted.
pub fn answer(connection: &Connection, statements: &Statements, query: &Query) -> OperationResult {
    match query {
        Query::Session { id } => statements.get_session(connection, id).map(Outcome::Session),
        Query::Sessions(asked) => statements.list_sessions(connection, asked).map(Outcome::Page),
        Query::Events(asked) => statements.list_events(connection, asked).map(Outcome::Page),
        Query::Replay(asked) => statements
            .replay(connection, &asked.session_id, &asked.options)
            .map(|window| asked.answer(window)),
        Query::CountSessions(filter) => {
            statements.count_sessions(connection, filter).map(Outcome::Count)
        }
        Query::CountEvents { session_id, filter } => {
            statements::count_events(connection, session_id.as_deref(), filter).map(Outcome::Count)
        }
        Query::SessionsWithoutRecord { after, limit } => {
            statements::sessions_without_record(connection, after.as_deref(), *limit)
                .map(Outcome::Page)
        }
        Query::Backup { filename, mode, progress } => {
            backup::back_up(connection, filename, *mode, progress).map(|()| Outcome::Stored)
        }
        Query::PruneCandidates(asked) => prune::candidates(connection, asked).map(Outcome::Page),
        Query::Prunable(step) => statements.prune.prunable(connection, step).map(Outcome::Pruned),
        Query::Compactable(step) => {
            compaction::compact(connection, statements, step, DRY_ROWS, true)
                .map(Outcome::Compacted)
                .map_err(failure::store_error)
        }
        Query::LiveBytes => prune::live_bytes(connection).map(Outcome::Count),
        Query::Stats { largest } => {
            statements::stored_amount(connection, *largest).map(Outcome::Stats)
        }
    }
}
