//! The open store that a driver and its outstanding calls share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use napi::Env;
use napi::bindgen_prelude::Unknown;

use crate::binding::convert::database::Database;
use crate::binding::convert::outcomes::{CallMetrics, HealthReport, LastError};
use crate::binding::convert::realm::{Kept, Realm};
use crate::binding::convert::traces;
use crate::error::StoreError;
use crate::store::{
    Completion, Completions, LatencyHistogram, MetricsSnapshot, Operation, OperationResult,
    Outcome, SessionStore, Ticket, Trouble,
};

use super::activity::{Active, Activity};
use super::health::{Health, Kind};

/// What calls are known by that nobody has made.
pub const RETENTION: &str = "retention";

/// A call that has its promise.
pub struct Begun {
    /// What users know it by.
    pub operation: &'static str,
    at: Instant,
    active: Option<Active>,
    kind: Kind,
    /// Whether it takes as long as there is much stored.
    may_take_long: bool,
    /// Where somebody is told of errors.
    session_id: Option<String>,
}

/// When the last that holds it goes without a `close()`, as by garbage collection, a thread closes
/// the store; nothing waits for that, unless the system has no thread to give.
pub struct Handle {
    /// Where its values and errors belong.
    pub realm: Rc<Realm>,
    /// Which database it is.
    pub database: Database,
    store: Arc<dyn SessionStore>,
    on_error: Option<Kept>,
    is_closed: Cell<bool>,
    has_waited: Cell<bool>,
    outstanding: Cell<u64>,
    rejected: Cell<u64>,
    latencies: RefCell<LatencyHistogram>,
    activity: Activity,
    health: RefCell<Health>,
    last_error: RefCell<Option<(Instant, LastError)>>,
}

impl Handle {
    /// Takes over an open store. `on_error` is told of errors.
    pub fn new(
        realm: Rc<Realm>,
        database: Database,
        store: Arc<dyn SessionStore>,
        on_error: Option<Kept>,
    ) -> Self {
        Self {
            realm,
            database,
            store,
            on_error,
            is_closed: Cell::new(false),
            has_waited: Cell::new(false),
            outstanding: Cell::new(0),
            rejected: Cell::new(0),
            latencies: RefCell::default(),
            activity: Activity::default(),
            health: RefCell::new(Health::new(Instant::now())),
            last_error: RefCell::default(),
        }
    }

    /// A call has its promise. `name` is what users know it by.
    pub fn begin(&self, name: &'static str, operation: &Operation) -> Begun {
        self.outstanding.set(self.outstanding.get() + 1);
        let at = Instant::now();
        let session_id = self.on_error.as_ref().and_then(|_| traces::session_id(operation));
        Begun {
            operation: name,
            at,
            active: self.activity.begin(operation, at),
            kind: Kind::of(operation),
            may_take_long: operation.may_take_long(),
            session_id: session_id.map(str::to_owned),
        }
    }

    /// A call wasn't answered at once.
    pub fn note_waiting(&self) {
        self.has_waited.set(true);
    }

    /// Whether all calls so far were answered at once, as they are in memory.
    pub fn answers_at_once(&self) -> bool {
        !self.has_waited.get()
    }

    /// The promise of a call is about to be settled; with which error of the store's, if with one.
    pub fn end(&self, begun: &mut Begun, error: Option<&StoreError>, is_rejected: bool) {
        let now = Instant::now();
        let took = now.duration_since(begun.at);
        self.outstanding.set(self.outstanding.get().saturating_sub(1));
        self.rejected.set(self.rejected.get() + u64::from(is_rejected));
        self.latencies.borrow_mut().record(took);
        if let Some(active) = begun.active.take() {
            self.activity.end(active, now);
        }
        match error {
            Some(error) if begun.kind.is_in_trouble(error) => {
                self.health.borrow_mut().note_failure(begun.kind, now);
                self.note_error(begun.operation, error, now);
            }
            Some(_) => {}
            None => {
                let took = (!begun.may_take_long).then_some(took);
                self.health.borrow_mut().note_success(begun.kind, took, now);
            }
        }
    }

    fn note_error(&self, operation: &'static str, error: &StoreError, now: Instant) {
        let message = self.database.describe(error);
        let last = LastError { code: error.code(), message, operation };
        self.last_error.replace(Some((now, last)));
    }

    /// There is trouble that no call has failed from.
    pub fn note_trouble(&self, Trouble { activity, error }: &Trouble) {
        self.note_error(activity.name(), error, Instant::now());
    }

    /// Tells whoever wants to hear of errors.
    pub fn tell(
        &self,
        env: &Env,
        error: &Unknown<'_>,
        operation: &'static str,
        session_id: Option<String>,
    ) -> napi::Result<()> {
        match &self.on_error {
            Some(on_error) => {
                self.realm.tell(env, on_error, error, operation, session_id.as_deref())
            }
            None => Ok(()),
        }
    }

    /// How it is, where the oldest calls of those outstanding were called then.
    pub fn health(&self, oldest: OldestCalls) -> HealthReport {
        let now = Instant::now();
        let waits = |call: Option<Instant>| call.map(|call| now.duration_since(call));
        let (state, since) = self.health.borrow().state(waits(oldest.of_short), now);
        let last_error = self.last_error.borrow();
        HealthReport {
            state: state.name(),
            since_ms: epoch_ms(since, now),
            last_error: last_error.as_ref().map(|(at, error)| (epoch_ms(*at, now), error.clone())),
            queued_calls: self.outstanding.get(),
            oldest_queued: waits(oldest.of_all).unwrap_or_default(),
        }
    }

    /// Whether no write and no `getSession` of this session is outstanding.
    pub fn is_at_rest(&self, session_id: &str) -> bool {
        self.activity.is_at_rest(session_id)
    }

    /// As [`Activity::watch_growth`].
    pub fn watch_growth(&self, events: f64) {
        self.activity.watch_growth(events);
    }

    /// As [`Activity::take_written`].
    pub fn take_written(&self) -> Option<Vec<String>> {
        self.activity.take_written()
    }

    /// As [`Activity::take_grown`].
    pub fn take_grown(&self) -> Vec<String> {
        self.activity.take_grown()
    }

    /// Whether this driver was called for the session within the last hour.
    pub fn was_used_lately(&self, session_id: &str) -> bool {
        self.activity.was_used_lately(session_id, Instant::now())
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

    /// As [`SessionStore::end_by`].
    pub fn end_by(&self, deadline: Instant) {
        self.store.end_by(deadline);
    }

    /// Blocks until everything is written and the database is free.
    pub fn close(&self) {
        if !self.note_closed() {
            self.store.close();
        }
    }

    /// Whether it was closed before.
    fn note_closed(&self) -> bool {
        self.health.borrow_mut().note_closed(Instant::now());
        self.is_closed.replace(true)
    }

    /// As [`Self::close`], but on a thread: for a database that may be far away. Waits again if it
    /// is closed already. The completion is delivered unless there is a result at once.
    pub fn close_later(
        &self,
        ticket: Ticket,
        completions: Arc<dyn Completions>,
    ) -> Option<OperationResult> {
        self.note_closed();
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

/// When the oldest of the outstanding calls were called.
#[derive(Debug, Clone, Copy, Default)]
pub struct OldestCalls {
    of_all: Option<Instant>,
    /// Of those that shouldn't take long, however much is stored.
    of_short: Option<Instant>,
}

impl OldestCalls {
    /// One more that is outstanding.
    pub fn add(&mut self, begun: &Begun) {
        let older = |oldest: &mut Option<Instant>| {
            *oldest = Some(oldest.map_or(begun.at, |oldest| oldest.min(begun.at)));
        };
        older(&mut self.of_all);
        if !begun.may_take_long {
            older(&mut self.of_short);
        }
    }
}

impl Begun {
    /// Whether its error is told of. That work in the background ends with the store is no trouble.
    pub fn is_worth_telling(&self, error: Option<&StoreError>) -> bool {
        self.operation != RETENTION || error != Some(&StoreError::Closed)
    }

    /// The session that it is for, where somebody is told of errors.
    pub fn take_session_id(&mut self) -> Option<String> {
        self.session_id.take()
    }
}

/// In milliseconds since 1970, rounded down as in `Date.now()`: never in the future.
fn epoch_ms(then: Instant, now: Instant) -> u64 {
    let elapsed = now.duration_since(then);
    let then = SystemTime::now().checked_sub(elapsed).unwrap_or(SystemTime::UNIX_EPOCH);
    let since_epoch = then.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn spawn_closer(close: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("persist-close".to_owned()).spawn(close).map(drop)
}
