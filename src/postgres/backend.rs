//! What the tasks of a store share, and the attempts that they make for their calls.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};

use crate::columns::OnDuplicate;
use crate::error::StoreError;
use crate::store::{
    Activity, Completion, Completions, Lasting, Metrics, NOTICEABLE, OperationResult, Pace, Ticket,
    Trouble,
};

use super::connection::Timed;
use super::failure::{Failure, Remedy};
use super::message::Protocol;
use super::pool::{Lease, Pool};
use super::queue::{BEAT, Queue};
use super::retry::{self, Decision, History};
use super::schema::Schema;
use super::statements::Statements;

/// An attempt that isn't answered is given up after this long: its server may be gone without a
/// word, and another may have taken its place.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// As [`ATTEMPT_TIMEOUT`], where whole tables may be read.
pub const SCAN_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// To rewrite a large table takes long, and nobody should have to begin it twice.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// See the module's documentation.
pub struct Backend {
    pub queue: Arc<Queue>,
    pub completions: Arc<dyn Completions>,
    pub metrics: Arc<Metrics>,
    pub pool: Rc<Pool>,
    pub schema: Schema,
    pub protocol: Protocol,
    pub on_duplicate_event: OnDuplicate,
    /// How many rows are pruned at a time.
    pub prune_pace: Cell<Pace>,
    pub attempt_timeout: Duration,
    /// As [`Self::attempt_timeout`], where whole tables may be read.
    pub scan_timeout: Duration,
    /// Under way or done, once somebody has called.
    pub opening: RefCell<Option<Opening>>,
    /// How the last attempt failed, until one succeeds: what calls that never had a turn are told.
    pub last_trouble: RefCell<Option<StoreError>>,
    /// How long no attempt succeeds.
    pub outage: Cell<Lasting>,
    /// How many retries are under way, and whether somebody beats for them.
    pub beating: Beating,
}

/// See [`Queue::beat`].
#[derive(Debug, Default)]
pub struct Beating {
    wanted_by: Cell<usize>,
    is_on: Cell<bool>,
}

/// Wants that somebody beats.
struct WantsBeats<'backend>(&'backend Beating);

impl Drop for WantsBeats<'_> {
    fn drop(&mut self) {
        self.0.wanted_by.set(self.0.wanted_by.get() - 1);
    }
}

/// What comes of looking at the schema.
pub type Opening = Shared<LocalBoxFuture<'static, Result<Rc<Statements>, Failure>>>;

/// Calls that attempts are made for together.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    count: usize,
    /// When the oldest was called.
    called_at: Instant,
    are_scans: bool,
}

impl Calls {
    /// So many, the oldest of which was called then.
    pub fn together(count: usize, called_at: Instant) -> Self {
        Self { count, called_at, are_scans: false }
    }

    /// One.
    pub fn one(called_at: Instant) -> Self {
        Self::together(1, called_at)
    }

    /// One that takes as long as tables are large.
    pub fn scan(called_at: Instant) -> Self {
        Self { are_scans: true, ..Self::one(called_at) }
    }
}

/// No attempt succeeded, and none is made any more.
#[derive(Debug)]
pub struct GivenUp {
    /// What is to be done about the calls: never another attempt at once.
    pub decision: Decision,
    /// How the last attempt failed.
    pub error: StoreError,
}

impl Backend {
    /// What the time was lost with, as far as it is known.
    pub fn trouble(&self) -> StoreError {
        let last = self.last_trouble.borrow().clone().or_else(|| self.pool.refusal());
        last.unwrap_or_else(|| Failure::no_answer().error)
    }

    /// Tells JavaScript how calls ended.
    pub fn deliver(&self, results: impl IntoIterator<Item = (Ticket, OperationResult)>) {
        let timeout = self.queue.retry_timeout();
        let completion = |(ticket, result): (Ticket, OperationResult)| {
            let result = result.map_err(|error| error.after_retries(timeout));
            Completion { ticket, result }
        };
        let batch: Vec<Completion> = results.into_iter().map(completion).collect();
        if !batch.is_empty() {
            self.completions.deliver(batch);
        }
    }

    /// Makes attempts for calls until one succeeds or it is decided otherwise.
    pub async fn with_retries<T>(
        self: &Rc<Self>,
        calls: Calls,
        mut attempt: impl AsyncFnMut(&mut Timed<'_>, &Statements) -> Result<T, Failure>,
    ) -> Result<T, GivenUp> {
        let begun = Instant::now();
        let _beats = self.want_beats();
        let mut history = History::new(calls.count, self.queue.retry_timeout());
        for pause in retry::pauses() {
            let failure = match self.attempt(calls, &mut attempt).await {
                Ok(done) => {
                    self.last_trouble.take();
                    self.outage.take();
                    self.queue.note_success();
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            if failure.is_passing() {
                self.note_outage(&failure.error, begun);
            }
            let deadline = self.queue.deadline(calls.called_at);
            let waits_since = begun.max(self.queue.awake_since());
            history.record(&failure, waits_since.elapsed(), Instant::now() >= deadline);
            match retry::decide(&failure, &history) {
                Decision::LookAgain => {
                    history.has_looked_again = true;
                    self.opening.take();
                }
                Decision::Retry => {
                    self.metrics.note_retry();
                    tokio::time::sleep_until(deadline.min(Instant::now() + pause).into()).await;
                }
                decision => return Err(GivenUp { decision, error: failure.error }),
            }
        }
        unreachable!("there is always another pause")
    }

    /// Somebody beats for as long as the result lives; a little longer, so that calls that follow each
    /// other need nobody new.
    fn want_beats(self: &Rc<Self>) -> WantsBeats<'_> {
        let Beating { wanted_by, is_on } = &self.beating;
        wanted_by.set(wanted_by.get() + 1);
        if !is_on.replace(true) {
            self.queue.begin_beating();
            let backend = Rc::clone(self);
            tokio::task::spawn_local(async move {
                while backend.beating.wanted_by.get() > 0 {
                    tokio::time::sleep(BEAT).await;
                    backend.queue.beat();
                }
                backend.queue.end_beating();
                backend.beating.is_on.set(false);
            });
        }
        WantsBeats(&self.beating)
    }

    /// An attempt has failed for a reason that passes; of what lasts, who listens is told.
    fn note_outage(&self, error: &StoreError, begun: Instant) {
        self.last_trouble.replace(Some(error.clone()));
        let mut outage = self.outage.get();
        if outage.note_since(begun, Instant::now(), NOTICEABLE) {
            let trouble = Trouble { activity: Activity::Retry, error: error.clone() };
            self.completions.report(trouble);
        }
        self.outage.set(outage);
    }

    async fn attempt<T>(
        self: &Rc<Self>,
        calls: Calls,
        attempt: &mut impl AsyncFnMut(&mut Timed<'_>, &Statements) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        // Before a connection is taken: the schema is opened on one of its own.
        let statements = self.in_time(calls.called_at, self.statements()).await?;
        let mut lease = self.in_time(calls.called_at, self.pool.lease()).await?;
        let deadline = self.queue.deadline(calls.called_at);
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = match calls.are_scans {
            true => self.scan_timeout,
            false => self.attempt_timeout.min(remaining),
        };
        let result = async {
            lease.end_lost(timeout).await?;
            attempt(&mut lease.with_timeout(timeout), &statements).await
        }
        .await;
        lease.give_back(result.as_ref().err());
        result
    }

    /// Waits for what others may be served with before, as long as the call may wait: while they
    /// are, that is no outage.
    async fn in_time<T>(
        &self,
        called_at: Instant,
        awaited: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut awaited = pin!(awaited);
        loop {
            let deadline = self.queue.deadline(called_at);
            match tokio::time::timeout_at(deadline.into(), &mut awaited).await {
                Ok(result) => return result,
                Err(_) if self.queue.deadline(called_at) > deadline => {}
                Err(_) => {
                    let in_vain = Failure::of_call(self.trouble());
                    return Err(Failure { remedy: Remedy::Retry, ..in_vain });
                }
            }
        }
    }

    /// The first to come has the schema looked at; the others wait for what is found. That goes on
    /// if nobody waits any more: to upgrade a large table takes longer than any call.
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

    /// Work that no end waits for: it is given up then.
    pub async fn unless_ending<T>(
        &self,
        work: impl Future<Output = Result<T, GivenUp>>,
    ) -> Result<T, GivenUp> {
        tokio::select! {
            done = work => done,
            () = self.queue.ending() => {
                Err(GivenUp { decision: Decision::Fail, error: StoreError::Closed })
            }
        }
    }

    async fn open_schema(&self) -> Result<Statements, Failure> {
        let deadline = self.queue.deadline(Instant::now());
        let leased = tokio::time::timeout_at(deadline.into(), self.pool.lease());
        let mut lease = leased.await.unwrap_or_else(|_| Err(Failure::no_answer()))?;
        let opened = self.open_schema_on(&mut lease, deadline).await;
        lease.give_back(opened.as_ref().err());
        opened
    }

    /// Looking has the time of an attempt; an upgrade takes as long as it takes, once it has its
    /// locks.
    async fn open_schema_on(
        &self,
        lease: &mut Lease<'_>,
        deadline: Instant,
    ) -> Result<Statements, Failure> {
        let found = self.schema.inspect(&mut lease.with_timeout(self.attempt_timeout)).await?;
        let mut for_upgrade = lease.with_timeout(UPGRADE_TIMEOUT);
        let layout = self.schema.bring_up_to_date(&mut for_upgrade, found, deadline).await?;
        let charset = lease.charset();
        let mut connection = lease.with_timeout(self.attempt_timeout);
        let order_constraints = self.schema.order_constraints(&mut connection).await?;
        Ok(Statements::new(
            &self.schema,
            &layout,
            order_constraints,
            self.on_duplicate_event,
            self.protocol.clone(),
            charset,
        ))
    }
}
