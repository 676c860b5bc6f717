//! The readers: lists, and whatever else must wait, on read-only connections and threads of
//! their own, made when they are first needed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use crate::error::StoreError;
use crate::store::{Completion, Completions, OperationResult, Outcome};

use super::connection::Location;
use super::failure;
use super::queries::ReadStatements;
use super::queue::{Query, Queue};

/// So that one huge page doesn't hold up every small one.
const MAX_READERS: usize = 2;

/// All readers of a store.
pub struct Readers {
    location: Location,
    busy_timeout: Duration,
    statements: Arc<ReadStatements>,
    queue: Arc<Queue>,
    completions: Arc<dyn Completions>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    pub fn new(
        location: Location,
        busy_timeout: Duration,
        statements: Arc<ReadStatements>,
        queue: Arc<Queue>,
        completions: Arc<dyn Completions>,
    ) -> Self {
        Self { location, busy_timeout, statements, queue, completions, threads: Mutex::default() }
    }

    /// Starts one more reader, unless there are enough.
    pub fn add_one(self: &Arc<Self>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
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
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // Panics are caught and delivered inside.
            let _ = thread.join();
        }
    }

    fn run(&self) {
        let mut connection = None;
        while let Some(read) = self.queue.next_read() {
            let result = catch_unwind(AssertUnwindSafe(|| self.read(&mut connection, &read.query)))
                .unwrap_or(Err(StoreError::Internal { reason: "a reader panicked" }));
            self.completions.deliver(vec![Completion { ticket: read.ticket, result }]);
        }
    }

    fn read(&self, connection: &mut Option<Connection>, query: &Query) -> OperationResult {
        if connection.is_none() {
            let opened = self.location.open_read_only(self.busy_timeout);
            *connection = Some(opened.map_err(failure::store_error)?);
        }
        let connection = connection.as_ref().expect("opened above");
        answer(connection, &self.statements, query)
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
        Query::Events { session_id, page } => {
            statements.list_events(connection, session_id, page).map(Outcome::Page)
        }
    }
}
