//! The handle of a database: takes calls on, and closes in order.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use crate::error::StoreError;
use crate::lock::lock;
use crate::store::{
    self, Completions, Operation, OperationResult, Query, Row, SessionStore, Ticket,
};

use super::backend::{ATTEMPT_TIMEOUT, Backend};
use super::connection::{Connector, PasswordSource};
use super::options::PostgresOptions;
use super::pool::Pool;
use super::queries::Prefix;
use super::queue::{Queue, Read};
use super::schema::Schema;

/// How long the rows of a round wait for a lock before they are sent apart.
const SHARED_LOCK_TIMEOUT_MS: u32 = 1_000;

/// A database on a server.
struct PostgresStore {
    queue: Arc<Queue>,
    completions: Arc<dyn Completions>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Opens a store. Connects to nothing yet: the first call does.
pub fn open(
    options: PostgresOptions,
    password_source: Option<Arc<dyn PasswordSource>>,
    completions: Arc<dyn Completions>,
) -> Result<Arc<dyn SessionStore>, StoreError> {
    let max_connections = usize::try_from(options.settings.pool.max).unwrap_or(usize::MAX);
    let queue =
        Arc::new(Queue::new(max_connections, options.max_queued_bytes, options.retry_timeout));
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(|_| StoreError::Internal {
            reason: "the system refused what a thread needs: open files, mostly",
        })?;
    let (shared_queue, shared_completions) = (Arc::clone(&queue), Arc::clone(&completions));
    let thread = std::thread::Builder::new()
        .name("persist-postgres".to_owned())
        .spawn(move || run(runtime, options, password_source, shared_queue, shared_completions))
        .map_err(|_| StoreError::Internal { reason: "the system refused a thread" })?;
    Ok(Arc::new(PostgresStore { queue, completions, thread: Mutex::new(Some(thread)) }))
}

fn run(
    runtime: Runtime,
    options: PostgresOptions,
    password_source: Option<Arc<dyn PasswordSource>>,
    queue: Arc<Queue>,
    completions: Arc<dyn Completions>,
) {
    let connector = Connector::new(&options, password_source, origin());
    let settings = &options.settings;
    let check_after = settings.keep_alive.filter(|delay| !delay.is_zero());
    let statement_prefix = (!options.prepared_statements).then(|| Prefix {
        timeouts: settings.timeouts_sql("LOCAL"),
        of_several: match settings.timeouts.lock {
            Some(_) => String::new(),
            None => format!("SET LOCAL lock_timeout = {SHARED_LOCK_TIMEOUT_MS}; "),
        },
    });
    let backend = Backend {
        queue,
        completions,
        pool: Pool::new(connector, settings.pool, check_after),
        schema: Schema::new(options.schema, options.migrate),
        statement_prefix,
        attempt_timeout: settings.timeouts.query.unwrap_or(ATTEMPT_TIMEOUT),
        opening: RefCell::default(),
        last_trouble: RefCell::default(),
    };
    LocalSet::new().block_on(&runtime, Rc::new(backend).run());
    // A name that is still being looked up is waited for by nobody.
    runtime.shutdown_background();
}

/// Differs from driver to driver and from process to process.
fn origin() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

impl SessionStore for PostgresStore {
    fn submit(&self, ticket: Ticket, operation: Operation) -> Option<OperationResult> {
        let accepted = match operation {
            Operation::Write(row) => self.write(ticket, row),
            Operation::Read(query) => self.read(ticket, query),
        };
        accepted.err().map(Err)
    }

    fn flush(&self, deadline: Instant) -> bool {
        self.queue.flush(deadline)
    }

    fn close(&self) {
        store::reject_as_closed(&*self.completions, self.queue.close());
        let mut thread = lock(&self.thread);
        if let Some(thread) = thread.take() {
            // Panics of tasks are caught and delivered inside.
            let _ = thread.join();
        }
    }
}

impl PostgresStore {
    fn write(&self, ticket: Ticket, row: Row) -> Result<(), StoreError> {
        // It would end the message in the middle.
        if row.texts().any(|text| text.contains('\0')) {
            return Err(StoreError::Internal { reason: "a text holds U+0000" });
        }
        self.queue.push_write(ticket, row)
    }

    fn read(&self, ticket: Ticket, query: Query) -> Result<(), StoreError> {
        self.queue.push_read(Read { ticket, query, accepted: Instant::now() })
    }
}
