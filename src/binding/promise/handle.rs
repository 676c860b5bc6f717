//! The open store that a driver and its outstanding calls share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::binding::convert::outcomes::CallMetrics;
use crate::binding::convert::realm::Realm;
use crate::error::StoreError;
use crate::store::{
    Completion, Completions, LatencyHistogram, MetricsSnapshot, Operation, OperationResult,
    Outcome, SessionStore, Ticket,
};

use super::activity::{Active, Activity};

/// A call that has its promise.
pub struct Begun {
    at: Instant,
    active: Option<Active>,
}

/// When the last that holds it goes without a `close()`, as by garbage collection, a thread closes
/// the store; nothing waits for that, unless the system has no thread to give.
pub struct Handle {
    /// Where its values and errors belong.
    pub realm: Rc<Realm>,
    store: Arc<dyn SessionStore>,
    is_closed: Cell<bool>,
    has_waited: Cell<bool>,
    outstanding: Cell<u64>,
    rejected: Cell<u64>,
    latencies: RefCell<LatencyHistogram>,
    activity: Activity,
}

impl Handle {
    /// Takes over an open store.
    pub fn new(realm: Rc<Realm>, store: Arc<dyn SessionStore>) -> Self {
        Self {
            realm,
            store,
            is_closed: Cell::new(false),
            has_waited: Cell::new(false),
            outstanding: Cell::new(0),
            rejected: Cell::new(0),
            latencies: RefCell::default(),
            activity: Activity::default(),
        }
    }

    /// A call has its promise.
    pub fn begin(&self, operation: &Operation) -> Begun {
        self.outstanding.set(self.outstanding.get() + 1);
        let at = Instant::now();
        Begun { at, active: self.activity.begin(operation, at) }
    }

    /// A call wasn't answered at once.
    pub fn note_waiting(&self) {
        self.has_waited.set(true);
    }

    /// Whether all calls so far were answered at once, as they are in memory.
    pub fn answers_at_once(&self) -> bool {
        !self.has_waited.get()
    }

    /// The promise of a call is settled.
    pub fn end(&self, Begun { at, active }: Begun, is_rejected: bool) {
        let now = Instant::now();
        self.outstanding.set(self.outstanding.get().saturating_sub(1));
        self.rejected.set(self.rejected.get() + u64::from(is_rejected));
        self.latencies.borrow_mut().record(now.duration_since(at));
        if let Some(active) = active {
            self.activity.end(active, now);
        }
    }

    /// Whether no write and no `getSession` of this session is outstanding.
    pub fn is_at_rest(&self, session_id: &str) -> bool {
        self.activity.is_at_rest(session_id)
    }

    /// How long there has been no write and no `getSession`; `None` while one is outstanding. For
    /// good once it is closed.
    pub fn quiet(&self) -> Option<Duration> {
        if self.is_closed.get() { Some(Duration::MAX) } else { self.activity.quiet(Instant::now()) }
    }

    /// Whether calls are refused.
    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// How its calls do.
    pub fn call_metrics(&self) -> CallMetrics {
        CallMetrics {
            outstanding: self.outstanding.get(),
            rejected: self.rejected.get(),
            latencies: self.latencies.borrow().latencies(),
        }
    }

    /// As [`SessionStore::metrics`].
    pub fn store_metrics(&self) -> MetricsSnapshot {
        self.store.metrics()
    }

    /// As [`SessionStore::submit`], refused once it is closed or about to be.
    pub fn submit(&self, ticket: Ticket, operation: Operation) -> Option<OperationResult> {
        if self.is_closed.get() {
            return Some(Err(StoreError::Closed));
        }
        self.store.submit(ticket, operation)
    }

    /// As [`SessionStore::flush`].
    pub fn flush(&self, deadline: Instant) {
        self.store.flush(deadline);
    }

    /// Blocks until everything is written and the database is free.
    pub fn close(&self) {
        if !self.is_closed.replace(true) {
            self.store.close();
        }
    }

    /// As [`Self::close`], but on a thread: for a database that may be far away. Waits again if it
    /// is closed already. The completion is delivered unless there is a result at once.
    pub fn close_later(
        &self,
        ticket: Ticket,
        completions: Arc<dyn Completions>,
    ) -> Option<OperationResult> {
        self.is_closed.set(true);
        let store = Arc::clone(&self.store);
        let closing = spawn_closer(move || {
            store.close();
            completions.deliver(vec![Completion { ticket, result: Ok(Outcome::Stored) }]);
        });
        closing.err().map(|_| Err(StoreError::NO_THREAD))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_closed.get() {
            return;
        }
        let store = Arc::clone(&self.store);
        if spawn_closer(move || store.close()).is_err() {
            self.store.close();
        }
    }
}

fn spawn_closer(close: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("persist-close".to_owned()).spawn(close).map(drop)
}
