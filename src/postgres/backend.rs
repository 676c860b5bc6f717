//! The store's own thread: a Tokio runtime on which connections live, and which hands out the work.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};

use crate::error::{DatabaseCode, StoreError};
use crate::store::{Completion, Completions, OperationResult, Ticket};

use super::connection::Connection;
use super::failure::{self, Failure, Remedy};
use super::pool::{Lease, Pool};
use super::queries::{Prefix, Statements};
use super::queue::{Lookups, Queue, Read, Round, Work};
use super::retry;
use super::schema::Schema;
use super::{reader, writer};

/// An attempt that isn't answered is given up after this long: its server may be gone without a word,
/// and another may have taken its place.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// To rewrite a large table takes long, and nobody should have to begin it twice.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// What the tasks of a store share.
pub struct Backend {
    pub queue: Arc<Queue>,
    pub completions: Arc<dyn Completions>,
    pub pool: Rc<Pool>,
    pub schema: Schema,
    /// `None` for prepared statements, which nothing can go before.
    pub statement_prefix: Option<Prefix>,
    pub attempt_timeout: Duration,
    /// Under way or done, once somebody has called.
    pub opening: RefCell<Option<Opening>>,
    /// How the last attempt failed, until one succeeds: what calls that never had a turn are told.
    pub last_trouble: RefCell<Option<StoreError>>,
}

/// What comes of looking at the schema.
pub type Opening = Shared<LocalBoxFuture<'static, Result<Rc<Statements>, Failure>>>;

/// What may be done about a call that keeps failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// It stands for several, one of which may be the reason: after some attempts they are split.
    Several,
    One,
}

/// After this many refusals that should have passed by themselves, the reason may be one of several
/// rows, as when a trigger raises them.
const MAX_SHARED_REFUSALS: u32 = 3;

impl Backend {
    /// Works until the queue ends.
    pub async fn run(self: Rc<Self>) {
        loop {
            match self.queue.next_work().await {
                Work::Round(round) => {
                    let backend = Rc::clone(&self);
                    tokio::task::spawn_local(async move { backend.write(round).await });
                }
                Work::Lookups(lookups) => {
                    let backend = Rc::clone(&self);
                    tokio::task::spawn_local(async move { backend.look_up(lookups).await });
                }
                Work::List(list) => {
                    let backend = Rc::clone(&self);
                    tokio::task::spawn_local(async move { backend.list(list).await });
                }
                Work::Expired(tickets) => {
                    let error = self.trouble();
                    self.deliver(tickets.into_iter().map(|ticket| (ticket, Err(error.clone()))));
                }
                Work::End => break,
            }
        }
        self.pool.close().await;
    }

    /// What the time was lost with, as far as it is known.
    fn trouble(&self) -> StoreError {
        self.last_trouble.borrow().clone().unwrap_or_else(|| Failure::no_answer().error)
    }

    async fn write(self: Rc<Self>, round: Round) {
        let (writes, hold) = round.into_parts();
        let tickets: Vec<Ticket> = writes.iter().map(|write| write.ticket).collect();
        // Dropped with what it holds: what it hasn't settled is settled as far as the queue goes.
        let unsettled = writer::Unsettled::new(&self.queue, writes);
        let written = AssertUnwindSafe(writer::write(&self, unsettled)).catch_unwind().await;
        if written.is_err() {
            let panicked = || Err(StoreError::Internal { reason: "the writer panicked" });
            // Those that were told already are no longer known.
            self.deliver(tickets.into_iter().map(|ticket| (ticket, panicked())));
        }
        self.queue.end_round(&hold);
    }

    async fn look_up(self: Rc<Self>, lookups: Lookups) {
        let read = AssertUnwindSafe(reader::look_up(&self, &lookups)).catch_unwind().await;
        self.deliver(read.unwrap_or_else(|_| {
            let panicked = |(ticket, _): &(Ticket, String)| (*ticket, Err(reader_panicked()));
            lookups.wanted.iter().map(panicked).collect()
        }));
        self.queue.end_lookups(&lookups);
    }

    async fn list(self: Rc<Self>, Read { ticket, query, accepted }: Read) {
        let result = AssertUnwindSafe(reader::list(&self, &query, accepted)).catch_unwind().await;
        self.deliver([(ticket, result.unwrap_or_else(|_| Err(reader_panicked())))]);
        self.queue.end_list();
    }

    /// Tells JavaScript how calls ended.
    pub fn deliver(&self, results: impl IntoIterator<Item = (Ticket, OperationResult)>) {
        let completion = |(ticket, result)| Completion { ticket, result };
        let batch: Vec<Completion> = results.into_iter().map(completion).collect();
        if !batch.is_empty() {
            self.completions.deliver(batch);
        }
    }

    /// Makes attempts until one succeeds, one fails for good, or the time is up for what was called
    /// then.
    pub async fn with_retries<T>(
        self: &Rc<Self>,
        parts: Parts,
        accepted: Instant,
        mut attempt: impl AsyncFnMut(&mut Lease<'_>, &Statements) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let (mut refusals, mut has_looked_again) = (0, false);
        for pause in retry::pauses() {
            let failure = match self.attempt(accepted, &mut attempt).await {
                Ok(done) => {
                    self.last_trouble.take();
                    self.queue.note_success();
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            if is_of_the_schema(&failure) && !has_looked_again {
                // Somebody changed the tables.
                has_looked_again = true;
                self.opening.take();
                continue;
            }
            if !matches!(failure.remedy, Remedy::Retry | Remedy::RetryElsewhere) {
                return Err(failure);
            }
            self.last_trouble.replace(Some(failure.error.clone()));
            refusals += u32::from(!failure.is_connection_lost);
            if parts == Parts::Several && refusals == MAX_SHARED_REFUSALS {
                return Err(Failure { remedy: Remedy::Split, ..failure });
            }
            // What the server has answered didn't only wait for its turn.
            let is_refused_for_long = refusals > 0 && begun.elapsed() >= self.queue.retry_timeout();
            let deadline = self.queue.deadline(accepted);
            if is_refused_for_long || Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + pause).into()).await;
        }
        unreachable!("there is always another pause")
    }

    async fn attempt<T>(
        self: &Rc<Self>,
        accepted: Instant,
        attempt: &mut impl AsyncFnMut(&mut Lease<'_>, &Statements) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // Before a connection is taken: the schema is opened on one of its own.
        let statements = self.in_time(accepted, self.statements()).await?;
        let mut lease = self.in_time(accepted, self.pool.lease()).await?;
        let remaining = self.queue.deadline(accepted).saturating_duration_since(Instant::now());
        let patience = self.attempt_timeout.min(remaining);
        lease.connection().patience = patience;
        let result = async {
            let ended = tokio::time::timeout(patience, lease.end_lost()).await;
            ended.unwrap_or_else(|_| Err(Failure::no_answer()))?;
            attempt(&mut lease, &statements).await
        }
        .await;
        lease.give_back(result.as_ref().err());
        result
    }

    /// Waits for what others may be served with before, as long as the call may wait: while they are,
    /// that is no outage.
    async fn in_time<T>(
        &self,
        accepted: Instant,
        awaited: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut awaited = pin!(awaited);
        loop {
            let deadline = self.queue.deadline(accepted);
            match tokio::time::timeout_at(deadline.into(), &mut awaited).await {
                Ok(result) => return result,
                Err(_) if self.queue.deadline(accepted) > deadline => {}
                Err(_) => {
                    let in_vain = Failure::of_call(self.trouble());
                    return Err(Failure { remedy: Remedy::Retry, ..in_vain });
                }
            }
        }
    }

    /// The first to come has the schema looked at; the others wait for what is found. That goes on if
    /// nobody waits any more: to upgrade a large table takes longer than any call.
    async fn statements(self: &Rc<Self>) -> Result<Rc<Statements>, Failure> {
        let opening = self.opening.borrow_mut().get_or_insert_with(|| self.start_opening()).clone();
        opening.await
    }

    fn start_opening(self: &Rc<Self>) -> Opening {
        let backend = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            let opened = backend.open_schema().await.map(Rc::new).map_err(Failure::of_no_row);
            if opened.is_err() {
                // The next attempt looks again.
                backend.opening.take();
            }
            opened
        });
        let panicked = || StoreError::Internal { reason: "opening the schema panicked" };
        task.map(move |opened| opened.unwrap_or_else(|_| Err(Failure::of_call(panicked()))))
            .boxed_local()
            .shared()
    }

    async fn open_schema(&self) -> Result<Statements, Failure> {
        let deadline = self.queue.deadline(Instant::now());
        let leased = tokio::time::timeout_at(deadline.into(), self.pool.lease());
        let mut lease = leased.await.unwrap_or_else(|_| Err(Failure::no_answer()))?;
        let opened = self.open_schema_on(lease.connection(), deadline).await;
        lease.give_back(opened.as_ref().err());
        opened
    }

    /// Looking has the time of an attempt; an upgrade takes as long as it takes, once it has its locks.
    async fn open_schema_on(
        &self,
        connection: &mut Connection,
        deadline: Instant,
    ) -> Result<Statements, Failure> {
        connection.patience = self.attempt_timeout;
        let found = self.schema.inspect(connection).await?;
        connection.patience = UPGRADE_TIMEOUT;
        let layout = self.schema.bring_up_to_date(connection, found, deadline).await?;
        connection.patience = self.attempt_timeout;
        let order_constraints = self.schema.order_constraints(connection).await?;
        let prefix = self.statement_prefix.clone();
        Ok(Statements::new(&self.schema, &layout, order_constraints, prefix))
    }
}

fn reader_panicked() -> StoreError {
    StoreError::Internal { reason: "a reader panicked" }
}

fn is_of_the_schema(failure: &Failure) -> bool {
    let state = failure.error.database_code().map(DatabaseCode::as_str);
    state.is_some_and(failure::is_of_the_schema)
}
