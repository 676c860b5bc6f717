//! The readers: lists, and whatever else must wait, on read-only connections and threads of
//! their own, made when they are first needed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::error::StoreError;
use crate::lock::lock;
use crate::model::Page;
use crate::store::{Completion, Completions, EventsQuery, OperationResult, Outcome, Query, Ticket};

use super::connection::Location;
use super::queries::ReadStatements;
use super::queue::{Queue, Read};
use super::read_ahead::{self, ReadAhead};

/// So that one huge page doesn't hold up every small one.
const MAX_READERS: usize = 2;

/// The connection that JavaScript's thread reads single rows on; `None` where that may wait.
pub type InlineReads = Mutex<Option<Connection>>;

/// All readers of a store.
pub struct Readers {
    location: Location,
    busy_timeout: Duration,
    statements: Arc<ReadStatements>,
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
        statements: Arc<ReadStatements>,
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
            // Nobody waits for it: a closing store may refuse it.
            let _ = self.queue.push_read(Read { ticket: None, query: Query::Events(next) });
        }
        Some(page)
    }

    fn version(&self) -> Option<i64> {
        let connection = lock(&self.inline_reads);
        read_ahead::version(connection.as_ref()?).ok()
    }

    /// Starts one more reader, unless there are enough.
    pub fn add_one(self: &Arc<Self>) {
        let mut threads = lock(&self.threads);
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
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // Panics are caught and delivered inside.
            let _ = thread.join();
        }
    }

    fn run(&self) {
        let mut connection = None;
        while let Some(Read { ticket, query }) = self.queue.next_read() {
            let next = match ticket {
                Some(ticket) => self.answer(&mut connection, ticket, query),
                None => Some(query),
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
    ) -> Option<Query> {
        let result = catch_unwind(AssertUnwindSafe(|| self.read(connection, &query)))
            .unwrap_or(Err(StoreError::Internal { reason: "a reader panicked" }));
        let next = match (&query, &result) {
            (Query::Events(asked), Ok(Outcome::Page(page))) => read_ahead::next_query(asked, page),
            _ => None,
        };
        self.completions.deliver(vec![Completion { ticket, result }]);
        next.map(Query::Events)
    }

    fn read_ahead(&self, connection: &mut Option<Connection>, query: Query) {
        // First the version, then the page: what is committed between them spoils it.
        let Some(version) = self.version() else { return };
        let result = catch_unwind(AssertUnwindSafe(|| self.read(connection, &query)));
        if let (Query::Events(asked), Ok(Ok(Outcome::Page(page)))) = (query, result) {
            self.ahead.keep(asked, version, page);
        }
    }

    fn read(&self, connection: &mut Option<Connection>, query: &Query) -> OperationResult {
        if connection.is_none() {
            *connection = Some(self.location.open_read_only(self.busy_timeout)?);
        }
        let connection = connection.as_ref().expect("opened above");
        let result = answer(connection, &self.statements, query);
        self.location.check_is_in_place()?;
        result
    }

    /// The system gives us no thread: nobody will ever take what waits.
    fn fail_waiting(&self) {
        for ticket in self.queue.take_ready_reads() {
            let result = Err(StoreError::Internal { reason: "the system refused a thread" });
            self.completions.deliver(vec![Completion { ticket, result }]);
        }
    }
}

/// Reads what is wanted.
pub fn answer(
    connection: &Connection,
    statements: &ReadStatements,
    query: &Query,
) -> OperationResult {
    match query {
        Query::Session { id } => statements.get_session(connection, id).map(Outcome::Session),
        Query::Sessions { page } => statements.list_sessions(connection, page).map(Outcome::Page),
        Query::Events(EventsQuery { session_id, page }) => {
            statements.list_events(connection, session_id, page).map(Outcome::Page)
        }
        Query::Replay(asked) => statements
            .replay(connection, &asked.session_id, &asked.options)
            .map(|window| asked.answer(window)),
    }
}
