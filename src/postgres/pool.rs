//! The connections of a store, all used on the thread that it works on.
//!
//! One that broke or was given up is remembered: before the next message goes out, on whichever
//! connection, the server process that it used is ended. Else an old value could still land there,
//! over a newer one, or reads pile up that nobody waits for any more.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

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
    /// How many are in use.
    in_use: Cell<usize>,
    /// One is no longer in use.
    returned: Notify,
    /// When a connection was last refused while others were in use, and why.
    refusal: RefCell<Option<(Instant, StoreError)>>,
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
}

/// A connection in use. One that isn't given back is dropped, and the server told nothing: it may
/// be in the middle of something.
pub struct Lease<'pool> {
    pool: &'pool Rc<Pool>,
    connection: Option<Connection>,
    _use: UseOfOne<'pool>,
    _permit: SemaphorePermit<'pool>,
}

/// Counts a connection that is in use.
struct UseOfOne<'pool>(&'pool Pool);

impl<'pool> UseOfOne<'pool> {
    fn begin(pool: &'pool Pool) -> Self {
        pool.in_use.set(pool.in_use.get() + 1);
        Self(pool)
    }
}

impl Drop for UseOfOne<'_> {
    fn drop(&mut self) {
        self.0.in_use.set(self.0.in_use.get() - 1);
        self.0.returned.notify_waiters();
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
            in_use: Cell::new(0),
            returned: Notify::new(),
            refusal: RefCell::default(),
            is_reaping: Cell::new(false),
            lost: RefCell::default(),
            must_replace: Cell::new(0),
            metrics,
        })
    }

    /// A connection: an idle one that lives, or a new one. If there can't be another one, one that
    /// is in use is waited for.
    pub async fn lease(self: &Rc<Self>) -> Result<Lease<'_>, Failure> {
        let permit = self.permits.acquire().await.expect("never closed");
        loop {
            let returned = self.returned.notified();
            if !self.must_wait_for_others() {
                match self.idle_or_new().await {
                    Ok((connection, use_of_it)) => {
                        let connection = Some(connection);
                        return Ok(Lease {
                            pool: self,
                            connection,
                            _use: use_of_it,
                            _permit: permit,
                        });
                    }
                    // Others were given back meanwhile.
                    Err(_) if !self.idle.borrow().is_empty() => continue,
                    Err(failure) if self.in_use.get() == 0 => return Err(failure),
                    Err(failure) => {
                        self.refusal.replace(Some((Instant::now(), failure.error)));
                    }
                }
            }
            let _ = tokio::time::timeout(REFUSAL_PAUSE, returned).await;
        }
    }

    async fn idle_or_new(&self) -> Result<(Connection, UseOfOne<'_>), Failure> {
        let Some(idle) = self.take_idle() else {
            let connection = self.connect().await?;
            return Ok((connection, UseOfOne::begin(self)));
        };
        // Counts while it is asked, too: nobody is to think that there is none.
        let use_of_it = UseOfOne::begin(self);
        let connection = match self.is_doubtful(&idle) {
            true => self.check(idle).await?,
            false => idle.connection,
        };
        Ok((connection, use_of_it))
    }

    /// Why there are no more connections, if the last further one was refused.
    pub fn refusal(&self) -> Option<StoreError> {
        self.refusal.borrow().as_ref().map(|(_, error)| error.clone())
    }

    fn take_idle(&self) -> Option<Idle> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if !self.is_worn_out(&idle.connection) {
                return Some(idle);
            }
        }
    }

    fn is_doubtful(&self, idle: &Idle) -> bool {
        idle.since.elapsed() >= self.check_after
    }

    /// Whether all connections are in use, and a further one was refused just now.
    fn must_wait_for_others(&self) -> bool {
        let refused = self.refusal.borrow();
        let is_recent = refused.as_ref().is_some_and(|(at, _)| at.elapsed() < REFUSAL_PAUSE);
        is_recent && self.idle.borrow().is_empty() && self.in_use.get() > 0
    }

    /// The connection if it lives, else a new one. A NAT or a balancer that has forgotten it, has
    /// forgotten all that were idle for as long: they aren't asked any more.
    async fn check(&self, idle: Idle) -> Result<Connection, Failure> {
        let Idle { mut connection, since } = idle;
        let is_alive = {
            let mut answer = pin!(connection.is_alive(CHECK_TIMEOUT));
            match tokio::time::timeout(CHECK_HEAD_START, &mut answer).await {
                Ok(is_alive) => is_alive,
                Err(_) => tokio::select! {
                    is_alive = &mut answer => is_alive,
                    Ok(fresh) = self.connect() => {
                        self.forget_idle_since(since);
                        return Ok(fresh);
                    }
                },
            }
        };
        if is_alive {
            return Ok(connection);
        }
        self.forget_idle_since(since);
        self.connect().await
    }

    /// Those that weren't used after then.
    fn forget_idle_since(&self, then: Instant) {
        self.idle.borrow_mut().retain(|idle| idle.since > then);
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
        self.idle.borrow_mut().push(Idle { connection, since: Instant::now() });
        if !self.is_reaping.replace(true) {
            let pool = Rc::clone(self);
            tokio::task::spawn_local(async move { pool.reap().await });
        }
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
        if is_lost || is_elsewhere {
            // What broke one, as a restart does, has mostly broken them all.
            self.pool.idle.borrow_mut().clear();
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
