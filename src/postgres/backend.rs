//! The store's own thread: a Tokio runtime on which connections live, and which hands out the work.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::OnceCell;

use crate::error::StoreError;
use crate::store::{Completion, Completions, OperationResult, Ticket};

use super::failure::{Failure, Remedy};
use super::pool::{Lease, Pool};
use super::queries::Statements;
use super::queue::{Lookups, Queue, Read, Round, Work};
use super::retry;
use super::schema::Schema;
use super::{reader, writer};

/// An attempt that isn't answered is given up after this long: its server may be gone without a word,
/// and another may have taken its place.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// What the tasks of a store share.
pub struct Backend {
    pub queue: Arc<Queue>,
    pub completions: Arc<dyn Completions>,
    pub pool: Rc<Pool>,
    pub schema: Schema,
    pub uses_prepared_statements: bool,
    /// Goes before every statement, where there are timeouts to set.
    pub statement_prefix: String,
    pub attempt_timeout: Duration,
    /// Found or made by whoever connects first.
    pub statements: OnceCell<Statements>,
    /// How the last attempt failed, until one succeeds: what calls that never had a turn are told.
    pub last_trouble: RefCell<Option<StoreError>>,
}

/// Whether an attempt changes anything: then it must not land late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Read,
    Write,
}

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

    fn trouble(&self) -> StoreError {
        let unknown = || StoreError::Unavailable {
            reason: "earlier calls are still waiting".to_owned(),
            database_code: None,
        };
        self.last_trouble.borrow().clone().unwrap_or_else(unknown)
    }

    async fn write(&self, round: Round) {
        let (writes, hold) = round.into_parts();
        let tickets: Vec<Ticket> = writes.iter().map(|write| write.ticket).collect();
        // Dropped with what it holds: what it hasn't settled is settled as far as the queue goes.
        let unsettled = writer::Unsettled::new(&self.queue, writes);
        let written = AssertUnwindSafe(writer::write(self, unsettled)).catch_unwind().await;
        if written.is_err() {
            let panicked = || Err(StoreError::Internal { reason: "the writer panicked" });
            // Those that were told already are no longer known.
            self.deliver(tickets.into_iter().map(|ticket| (ticket, panicked())));
        }
        self.queue.end_round(&hold);
    }

    async fn look_up(&self, lookups: Lookups) {
        let read = AssertUnwindSafe(reader::look_up(self, &lookups.wanted)).catch_unwind().await;
        self.deliver(read.unwrap_or_else(|_| {
            let panicked = |(ticket, _): &(Ticket, String)| (*ticket, Err(reader_panicked()));
            lookups.wanted.iter().map(panicked).collect()
        }));
        self.queue.end_lookups(&lookups);
    }

    async fn list(&self, Read { ticket, query }: Read) {
        let result = AssertUnwindSafe(reader::list(self, &query)).catch_unwind().await;
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

    /// Makes attempts until one succeeds, one fails for good, or the time is up.
    pub async fn with_retries<T>(
        &self,
        intent: Intent,
        mut attempt: impl AsyncFnMut(&mut Lease<'_>, &Statements) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = self.queue.deadline();
        for pause in retry::pauses() {
            let patience =
                self.attempt_timeout.min(deadline.saturating_duration_since(Instant::now()));
            let attempted = self.attempt(intent, deadline, &mut attempt);
            let failure = match tokio::time::timeout(patience, attempted).await {
                Ok(Ok(done)) => {
                    self.last_trouble.take();
                    return Ok(done);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::lost("no answer in time".to_owned()),
            };
            let may_pass = matches!(failure.remedy, Remedy::Retry | Remedy::RetryElsewhere);
            if may_pass {
                self.last_trouble.replace(Some(failure.error.clone()));
            }
            if !may_pass || Instant::now() + pause >= deadline.min(self.queue.deadline()) {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
        unreachable!("there is always another pause")
    }

    async fn attempt<T>(
        &self,
        intent: Intent,
        deadline: Instant,
        attempt: &mut impl AsyncFnMut(&mut Lease<'_>, &Statements) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut lease = self.pool.lease().await?;
        let result = async {
            if intent == Intent::Write {
                lease.end_lost().await?;
            }
            let statements = self.statements(&mut lease, deadline).await?;
            attempt(&mut lease, statements).await
        }
        .await;
        lease.give_back(result.as_ref().err(), intent == Intent::Write);
        result
    }

    /// The first to come looks at the schema; the others wait for what it finds.
    async fn statements(
        &self,
        lease: &mut Lease<'_>,
        deadline: Instant,
    ) -> Result<&Statements, Failure> {
        let connection = lease.connection();
        let open = async move || {
            let layout = self.schema.open(connection, deadline).await?;
            let prefix = self.statement_prefix.clone();
            Ok(Statements::new(&self.schema, &layout, self.uses_prepared_statements, prefix))
        };
        self.statements.get_or_try_init(open).await
    }
}

fn reader_panicked() -> StoreError {
    StoreError::Internal { reason: "a reader panicked" }
}
