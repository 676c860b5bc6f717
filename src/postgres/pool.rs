//! The connections of a store, all used on the thread that it works on.
//!
//! One that broke or was given up is remembered: before the next message goes out, on whichever
//! connection, the server process that it used is ended. Else an old value could still land there,
//! over a newer one, or reads pile up that nobody waits for any more.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::store::Metrics;

use super::connection::{Connection, Connector, Timed};
use super::failure::{Failure, Remedy};
use super::message::Message;
use super::settings::PoolLimits;

/// One that has been idle for longer is asked whether it still lives before it is used.
const CHECK_AFTER: Duration = Duration::from_secs(30);
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
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
    _permit: SemaphorePermit<'pool>,
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
            is_reaping: Cell::new(false),
            lost: RefCell::default(),
            must_replace: Cell::new(0),
            metrics,
        })
    }

    /// A connection: an idle one that lives, or a new one.
    pub async fn lease(self: &Rc<Self>) -> Result<Lease<'_>, Failure> {
        let permit = self.permits.acquire().await.expect("never closed");
        loop {
            let idle = self.idle.borrow_mut().pop();
            let connection = match idle {
                None => self.connect().await?,
                Some(Idle { mut connection, since }) => {
                    let is_usable = !self.is_worn_out(&connection)
                        && (since.elapsed() < self.check_after
                            || connection.is_alive(CHECK_TIMEOUT).await);
                    if !is_usable {
                        continue;
                    }
                    connection
                }
            };
            return Ok(Lease { pool: self, connection: Some(connection), _permit: permit });
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let connection = self.connector.connect().await?;
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

    /// Makes sure, within this time, that nothing older can still land.
    pub async fn end_lost(&mut self, timeout: Duration) -> Result<(), Failure> {
        let ended = tokio::time::timeout(timeout, self.end_all_lost(timeout)).await;
        ended.unwrap_or_else(|_| Err(Failure::no_answer()))
    }

    async fn end_all_lost(&mut self, timeout: Duration) -> Result<(), Failure> {
        let lost = self.pool.lost.borrow().clone();
        for mark in lost {
            end_process_of(&mark, self.with_timeout(timeout)).await?;
            self.pool.lost.borrow_mut().retain(|other| *other != mark);
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
/// set for the session since may not see them.
fn on_processes(question: &str, mark: &str, condition: &str) -> Message {
    Message::simple("SET LOCAL ROLE NONE; SELECT ")
        .sql(question)
        .sql(" FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE ")
        .text(&format!("{mark}%"))
        .sql(condition)
}
