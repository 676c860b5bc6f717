//! The handle of a database: takes calls on, and closes in order.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::StoreError;
use crate::store::{
    self, Completions, Metrics, MetricsSnapshot, Operation, OperationResult, SessionStore, Ticket,
};

use super::backend::{ATTEMPT_TIMEOUT, Backend, Beating, SCAN_TIMEOUT};
use super::connection::{Attempts, Connector, PasswordSource};
use super::dispatcher;
use super::message::{Prefix, Protocol};
use super::options::PostgresOptions;
use super::pool::Pool;
use super::queue::Queue;
use super::runtime::{self, Working};
use super::schema::Schema;

/// How long the rows of a round wait for a lock before they are sent apart.
const SHARED_LOCK_TIMEOUT_MS: u32 = 1_000;

/// A database on a server.
struct PostgresStore {
    queue: Arc<Queue>,
    completions: Arc<dyn Completions>,
    metrics: Arc<Metrics>,
    /// Until it is closed.
    working: Mutex<Option<Working>>,
}

/// What the handle and the store's work share.
struct Shared {
    queue: Arc<Queue>,
    completions: Arc<dyn Completions>,
    metrics: Arc<Metrics>,
}

/// Opens a store. Connects to nothing yet: the first call does.
pub fn open(
    options: PostgresOptions,
    password_source: Option<Arc<dyn PasswordSource>>,
    attempts: Option<Arc<dyn Attempts>>,
    completions: Arc<dyn Completions>,
) -> Result<Arc<dyn SessionStore>, StoreError> {
    let max_connections = usize::try_from(options.settings.pool.max).unwrap_or(usize::MAX);
    let queue =
        Arc::new(Queue::new(max_connections, options.max_queued_bytes, options.retry_timeout));
    let metrics = Arc::new(Metrics::default());
    let shared = Shared {
        queue: Arc::clone(&queue),
        completions: Arc::clone(&completions),
        metrics: Arc::clone(&metrics),
    };
    let working = runtime::spawn(move || {
        let connector = Connector::new(&options, password_source, attempts, origin());
        work(options, connector, shared)
    })?;
    Ok(Arc::new(PostgresStore { queue, completions, metrics, working: Mutex::new(Some(working)) }))
}

async fn work(
    options: PostgresOptions,
    connector: Connector,
    Shared { queue, completions, metrics }: Shared,
) {
    let settings = &options.settings;
    let check_after = settings.keep_alive.filter(|delay| !delay.is_zero());
    let backend = Backend {
        queue,
        completions,
        pool: Pool::new(connector, settings.pool, check_after, Arc::clone(&metrics)),
        metrics,
        protocol: protocol(&options),
        on_duplicate_event: options.on_duplicate_event,
        prune_pace: Cell::default(),
        attempt_timeout: settings.timeouts.query.unwrap_or(ATTEMPT_TIMEOUT),
        scan_timeout: settings.timeouts.query.unwrap_or(SCAN_TIMEOUT),
        schema: Schema::new(options.schema, options.migrate),
        opening: RefCell::default(),
        last_trouble: RefCell::default(),
        outage: Cell::default(),
        beating: Beating::default(),
    };
    dispatcher::run(Rc::new(backend)).await;
}

fn protocol(options: &PostgresOptions) -> Protocol {
    if options.prepared_statements {
        return Protocol::Prepared;
    }
    let timeouts = options.settings.timeouts_sql("LOCAL");
    let of_several = match options.settings.timeouts.lock {
        Some(_) => String::new(),
        // Not by SET: some poolers refuse it beside other statements.
        None => format!("SELECT set_config('lock_timeout', '{SHARED_LOCK_TIMEOUT_MS}', true); "),
    };
    Protocol::Simple(Prefix { timeouts, of_several })
}

/// Differs from driver to driver and from process to process.
fn origin() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

impl SessionStore for PostgresStore {
    fn submit(&self, ticket: Ticket, operation: Operation) -> Option<OperationResult> {
        let accepted = match operation {
            Operation::Write(write) => self.queue.push_write(ticket, write),
            Operation::Read(query) => self.queue.push_read(ticket, query),
        };
        accepted.err().map(Err)
    }

    fn flush(&self, deadline: Instant) -> bool {
        self.queue.flush(deadline)
    }

    fn end_by(&self, deadline: Instant) {
        self.queue.end_by(deadline);
    }

    fn close(&self) {
        store::reject_as_closed(&*self.completions, self.queue.close());
        // Held while it is waited for: another call waits too.
        let mut working = self.working.lock();
        if let Some(working) = working.take() {
            working.join();
        }
    }

    fn metrics(&self) -> MetricsSnapshot {
        let (writes, bytes) = self.queue.queued();
        self.metrics.snapshot().with_queue(writes, bytes)
    }
}
