//! The connections of a store, all used on the thread that it works on.
//!
//! One that broke or was given up is remembered: before the next message goes out, on whichever
//! connection, the server process that it used is ended. Else an old value could still land there,
//! over a newer one, or reads pile up that nobody waits for any more.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::AbortHandle;

use crate::error::StoreError;
use crate::store::Metrics;

use super::connection::{Connection, Connector, Timed};
use super::failure::{Failure, Remedy};
use super::message::Message;
use super::settings::PoolLimits;
use super::wrap::Charset;

/// One that has been idle for longer is asked whether it still lives before it is used.
const CHECK_AFTER: Duration = Duration::from_secs(30);
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// From then on a new connection is tried beside one that doesn't answer.
const CHECK_HEAD_START: Duration = Duration::from_millis(500);
/// After a further connection was refused, the next is tried; meanwhile those that are open serve.
const REFUSAL_PAUSE: Duration = Duration::from_millis(500);
/// Of a process: it isn't done with its last message.
const BUSY: &str = " AND state <> 'idle'";
/// Between two looks whether a lost connection's server process has ended.
const ENDING_PAUSE: Duration = Duration::from_millis(20);

/// See the module's documentation.
pub struct Pool {
    connector: Connector,
    limits: PoolLimits,
    check_after: Duration,
    permits: Semaphore,
    /// The last is used first, so that those not needed grow old.
    idle: RefCell<Vec<Idle>>,
    /// Those that wait for a connection, the first to be served first.
    waiting: RefCell<VecDeque<Waiter>>,
    /// How many are in use, or asked whether they live.
    in_use: Cell<usize>,
    /// The tasks that open connections, for whoever waits by then; the oldest first.
    opening: RefCell<VecDeque<AbortHandle>>,
    /// How many of these haven't failed yet.
    hopeful: Cell<usize>,
    /// The tasks that ask connections whether they live.
    asking: RefCell<Vec<AbortHandle>>,
    is_closed: Cell<bool>,
    /// Why the last further connection was refused.
    refusal: RefCell<Option<StoreError>>,
    is_reaping: Cell<bool>,
    /// Marks of connections that broke or were given up.
    lost: RefCell<Vec<String>>,
    /// How many connections broke and have no successor yet.
    must_replace: Cell<u64>,
    metrics: Arc<Metrics>,
}

struct Idle {
    connection: Connection,
    since: Instant,
    /// Whether another broke since it was used.
    is_doubtful: bool,
}

/// Who waits for a connection.
type Waiter = oneshot::Sender<Result<(Connection, UseOfOne), Failure>>;

/// A connection in use. One that isn't given back is dropped, and the server told nothing: it may
/// be in the middle of something.
pub struct Lease<'pool> {
    pool: &'pool Rc<Pool>,
    connection: Option<Connection>,
    _use: UseOfOne,
    _permit: SemaphorePermit<'pool>,
}

/// Counts a connection that may yet be given back.
struct UseOfOne(Rc<Pool>);

impl UseOfOne {
    fn begin(pool: &Rc<Pool>) -> Self {
        pool.in_use.set(pool.in_use.get() + 1);
        Self(Rc::clone(pool))
    }
}

impl Drop for UseOfOne {
    fn drop(&mut self) {
        self.0.in_use.set(self.0.in_use.get() - 1);
        // If it isn't there any more, whoever waits for it needs another.
        self.0.open_for_who_waits();
    }
}

/// Counts an opening that hasn't failed yet: who waits may count on it.
struct Hope(Rc<Pool>);

impl Hope {
    fn begin(pool: &Rc<Pool>) -> Self {
        pool.hopeful.set(pool.hopeful.get() + 1);
        Self(Rc::clone(pool))
    }
}

impl Drop for Hope {
    fn drop(&mut self) {
        self.0.hopeful.set(self.0.hopeful.get() - 1);
    }
}

/// Somebody waits for a connection.
struct Wait<'pool> {
    pool: &'pool Rc<Pool>,
    is_over: bool,
}

impl Drop for Wait<'_> {
    /// Given up: what was being opened for it may hang, and keep others from being opened.
    fn drop(&mut self) {
        if !self.is_over {
            self.pool.abandon_one_opening();
        }
    }
}

impl Pool {
    pub fn new(
        connector: Connector,
        limits: PoolLimits,
        check_after: Option<Duration>,
        metrics: Arc<Metrics>,
    ) -> Rc<Self> {
        let permits = Semaphore::new(usize::try_from(limits.max).unwrap_or(usize::MAX));
        Rc::new(Self {
            connector,
            limits,
            check_after: check_after.unwrap_or(CHECK_AFTER),
            permits,
            idle: RefCell::default(),
            waiting: RefCell::default(),
            in_use: Cell::new(0),
            opening: RefCell::default(),
            hopeful: Cell::new(0),
            asking: RefCell::default(),
            is_closed: Cell::new(false),
            refusal: RefCell::default(),
            is_reaping: Cell::new(false),
            lost: RefCell::default(),
            must_replace: Cell::new(0),
            metrics,
        })
    }

    /// A connection: an idle one, or whichever is there first, of those that are in use, asked
    /// whether they live, or opened. It fails only where there is none of them.
    pub async fn lease(self: &Rc<Self>) -> Result<Lease<'_>, Failure> {
        let permit = self.permits.acquire().await.expect("never closed");
        let leased = |(connection, use_of_it)| Lease {
            pool: self,
            connection: Some(connection),
            _use: use_of_it,
            _permit: permit,
        };
        if let Some(connection) = self.take_fresh() {
            return Ok(leased((connection, UseOfOne::begin(self))));
        }
        let (waiter, served) = oneshot::channel();
        self.waiting.borrow_mut().push_back(waiter);
        let mut wait = Wait { pool: self, is_over: false };
        if self.ask_the_doubtful() == 0 {
            self.open_for_who_waits();
        }
        let served = served.await;
        wait.is_over = true;
        served.unwrap_or_else(|_| Err(Failure::lost("the pool ended".to_owned()))).map(leased)
    }

    /// Why there are no more connections, if the last further one was refused.
    pub fn refusal(&self) -> Option<StoreError> {
        self.refusal.borrow().clone()
    }

    /// An idle connection that nothing is known against, unless others wait already.
    fn take_fresh(&self) -> Option<Connection> {
        if !self.waiting.borrow().is_empty() {
            return None;
        }
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| !self.is_worn_out(&idle.connection));
        let is_fresh = |idle: &Idle| !idle.is_doubtful && idle.since.elapsed() < self.check_after;
        let at = idle.iter().rposition(is_fresh)?;
        Some(idle.remove(at).connection)
    }

    /// Asks all idle connections at once whether they live: a NAT or a balancer that has forgotten
    /// one has mostly forgotten them all. Those that answer serve who waits. How many there are.
    fn ask_the_doubtful(self: &Rc<Self>) -> usize {
        let doubtful = std::mem::take(&mut *self.idle.borrow_mut());
        let count = doubtful.len();
        for Idle { mut connection, .. } in doubtful {
            let use_of_it = UseOfOne::begin(self);
            let asking = tokio::task::spawn_local(async move {
                if connection.is_alive(CHECK_TIMEOUT).await {
                    use_of_it.0.give_to_who_waits(connection);
                }
            });
            self.asking.borrow_mut().push(asking.abort_handle());
        }
        if count > 0 {
            let pool = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(CHECK_HEAD_START).await;
                pool.make_room_for_who_waits();
            });
        }
        count
    }

    /// If somebody waits for an answer still, one of those that are asked makes room for a new one.
    fn make_room_for_who_waits(self: &Rc<Self>) {
        let unanswered = {
            let mut asking = self.asking.borrow_mut();
            asking.retain(|task| !task.is_finished());
            if self.waiting.borrow().iter().all(Waiter::is_closed) { None } else { asking.pop() }
        };
        if let Some(unanswered) = unanswered {
            unanswered.abort();
        }
    }

    /// Opens connections for those that wait, as many as there may be.
    fn open_for_who_waits(self: &Rc<Self>) {
        if self.is_closed.get() {
            return;
        }
        self.waiting.borrow_mut().retain(|waiter| !waiter.is_closed());
        let max = usize::try_from(self.limits.max).unwrap_or(usize::MAX);
        let opening = self.opening.borrow().len();
        let there_are = self.in_use.get() + self.idle.borrow().len() + opening;
        let wanted = self.waiting.borrow().len().saturating_sub(opening);
        for _ in 0..wanted.min(max.saturating_sub(there_are)) {
            let (pool, hope) = (Rc::clone(self), Hope::begin(self));
            let opening = tokio::task::spawn_local(async move { pool.open(hope).await });
            self.opening.borrow_mut().push_back(opening.abort_handle());
        }
    }

    /// A task's work.
    async fn open(self: &Rc<Self>, hope: Hope) {
        let opened = self.open_while_others_serve(hope).await;
        let this = tokio::task::id();
        self.opening.borrow_mut().retain(|task| task.id() != this);
        match opened {
            Some(Ok(connection)) => self.give_to_who_waits(connection),
            Some(Err(failure)) => self.fail_who_waits(&failure),
            None => {}
        }
    }

    /// The longest under way, if there are more than those that wait.
    fn abandon_one_opening(self: &Rc<Self>) {
        self.waiting.borrow_mut().retain(|waiter| !waiter.is_closed());
        if self.opening.borrow().len() > self.waiting.borrow().len()
            && let Some(oldest) = self.opening.borrow_mut().pop_front()
        {
            oldest.abort();
        }
    }

    /// Tries until it succeeds, or until there is nobody who waits, or nothing else to wait for.
    async fn open_while_others_serve(&self, hope: Hope) -> Option<Result<Connection, Failure>> {
        let mut hope = Some(hope);
        loop {
            let failure = match self.connect().await {
                Ok(connection) => return Some(Ok(connection)),
                Err(failure) => failure,
            };
            hope.take();
            let are_others = self.in_use.get() > 0 || !self.idle.borrow().is_empty();
            if !are_others && self.hopeful.get() == 0 {
                return Some(Err(failure));
            }
            self.refusal.replace(Some(failure.error));
            tokio::time::sleep(REFUSAL_PAUSE).await;
            if self.waiting.borrow().iter().all(Waiter::is_closed) {
                return None;
            }
        }
    }

    /// Serves the first that waits; if nobody does, the connection is idle.
    fn give_to_who_waits(self: &Rc<Self>, mut connection: Connection) {
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else { break };
            // In use already: nobody is to think that there is none.
            match waiter.send(Ok((connection, UseOfOne::begin(self)))) {
                Ok(()) => return,
                Err(Ok((unwanted, _))) => connection = unwanted,
                Err(Err(_)) => unreachable!("what was sent is what comes back"),
            }
        }
        let idle = Idle { connection, since: Instant::now(), is_doubtful: false };
        self.idle.borrow_mut().push(idle);
        if !self.is_reaping.replace(true) {
            let pool = Rc::clone(self);
            tokio::task::spawn_local(async move { pool.reap().await });
        }
    }

    /// There is no connection, and none to be had.
    fn fail_who_waits(&self, failure: &Failure) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waiter in waiting {
            let _ = waiter.send(Err(failure.clone()));
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let connection = self.connector.connect().await?;
        self.refusal.take();
        if let Some(left) = self.must_replace.get().checked_sub(1) {
            self.must_replace.set(left);
            self.metrics.note_reconnect();
        }
        Ok(connection)
    }

    fn note_lost(&self, mark: String) {
        self.lost.borrow_mut().push(mark);
        self.must_replace.set(self.must_replace.get() + 1);
    }

    /// Closes what is idle.
    pub async fn close(&self) {
        self.is_closed.set(true);
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        for Idle { connection, .. } in idle {
            connection.close().await;
        }
    }

    fn is_worn_out(&self, connection: &Connection) -> bool {
        self.limits.max_uses.is_some_and(|max| connection.uses >= max)
            || self.limits.max_lifetime.is_some_and(|max| connection.opened.elapsed() >= max)
    }

    fn give_back(self: &Rc<Self>, mut connection: Connection) {
        connection.uses += 1;
        self.give_to_who_waits(connection);
    }

    /// Closes connections as they grow too old, until none is left that may.
    async fn reap(&self) {
        while let Some(next) = self.next_reaping() {
            tokio::time::sleep_until(next.into()).await;
            let aged = self.take_aged();
            for Idle { connection, .. } in aged {
                connection.close().await;
            }
        }
        self.is_reaping.set(false);
    }

    fn next_reaping(&self) -> Option<Instant> {
        let idle = self.idle.borrow();
        let may_leave = idle.len() > usize::try_from(self.limits.min).unwrap_or(usize::MAX);
        let oldest = idle.iter().map(|idle| idle.since).min().filter(|_| may_leave)?;
        Some(oldest + self.limits.idle_timeout?)
    }

    fn take_aged(&self) -> Vec<Idle> {
        let Some(idle_timeout) = self.limits.idle_timeout else { return Vec::new() };
        let min = usize::try_from(self.limits.min).unwrap_or(usize::MAX);
        let mut idle = self.idle.borrow_mut();
        let mut aged = Vec::new();
        while idle.len() > min
            && let Some(at) = idle.iter().position(|idle| idle.since.elapsed() >= idle_timeout)
        {
            aged.push(idle.remove(at));
        }
        aged
    }
}

impl Lease<'_> {
    /// The connection, for messages that each have this much time.
    pub fn with_timeout(&mut self, timeout: Duration) -> Timed<'_> {
        let connection = self.connection.as_mut().expect("given back only at the end");
        connection.with_timeout(timeout)
    }

    /// Which characters the database can hold.
    pub fn charset(&self) -> Charset {
        self.connection.as_ref().expect("given back only at the end").charset
    }

    /// Makes sure, within this time, that nothing older can still land.
    pub async fn end_lost(&mut self, timeout: Duration) -> Result<(), Failure> {
        let ended = tokio::time::timeout(timeout, self.end_all_lost(timeout)).await;
        ended.unwrap_or_else(|_| Err(Failure::no_answer()))
    }

    async fn end_all_lost(&mut self, timeout: Duration) -> Result<(), Failure> {
        let lost = self.pool.lost.borrow().clone();
        for mark in lost {
            match end_process_of(&mark, self.with_timeout(timeout)).await {
                // What the server, or a pooler before it, won't even look at can't be ended.
                Err(failure) if failure.is_connection_lost || failure.is_passing() => {
                    return Err(failure);
                }
                _ => self.pool.lost.borrow_mut().retain(|other| *other != mark),
            }
        }
        Ok(())
    }

    /// The use of the connection has ended like this.
    pub fn give_back(mut self, failure: Option<&Failure>) {
        let connection = self.connection.take().expect("given back once");
        let is_lost = failure.is_some_and(|failure| failure.is_connection_lost);
        let is_elsewhere = failure.is_some_and(|failure| failure.remedy == Remedy::RetryElsewhere);
        if is_elsewhere {
            self.pool.connector.prefer_next_host();
        }
        if is_lost {
            self.pool.note_lost(connection.mark.clone());
        }
        if is_elsewhere {
            self.pool.idle.borrow_mut().clear();
        } else if is_lost {
            // What broke one, as a restart does, has mostly broken them all.
            self.pool.idle.borrow_mut().iter_mut().for_each(|idle| idle.is_doubtful = true);
        }
        if !is_lost && !is_elsewhere && !self.pool.is_worn_out(&connection) {
            self.pool.give_back(connection);
        }
    }
}

impl Drop for Lease<'_> {
    /// Given up in the middle, as by a timeout: what was sent may still be done.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.note_lost(connection.mark);
        }
    }
}

/// Ends the server process whose last message has this mark, and waits until it is gone. A role
/// that may not end it waits until it is done with that message.
async fn end_process_of(mark: &str, mut connection: Timed<'_>) -> Result<(), Failure> {
    let mut may_end = true;
    loop {
        let processes = on_processes("pid", mark, if may_end { "" } else { BUSY });
        let found = connection.fetch(processes).await.map_err(Failure::of_no_row)?;
        if found.is_empty() {
            return Ok(());
        }
        if may_end {
            let ended = on_processes("pg_terminate_backend(pid)", mark, "");
            match connection.fetch(ended).await {
                Err(failure) if !failure.is_connection_lost => may_end = false,
                ended => drop(ended?),
            }
        }
        tokio::time::sleep(ENDING_PAUSE).await;
    }
}

/// Asks about the processes whose last message has this mark; as who logged in, for a role that was
/// set for the session since may not see them. One statement: some poolers refuse SET beside others.
/// The processes are looked at after the role is set, as they depend on it.
fn on_processes(question: &str, mark: &str, condition: &str) -> Message {
    Message::simple("SELECT ")
        .sql(question)
        .sql(
            " FROM (SELECT set_config('role', 'none', true) AS role OFFSET 0) AS myself \
             CROSS JOIN LATERAL (SELECT pid, query, state FROM pg_stat_activity \
               WHERE myself.role IS NOT NULL OFFSET 0) AS activity \
             WHERE pid <> pg_backend_pid() AND query LIKE ",
        )
        .text(&format!("{mark}%"))
        .sql(condition)
}
