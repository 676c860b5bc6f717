//! The trait that a backend implements, and whom it tells how calls ended.

use std::time::Instant;

use crate::error::StoreError;

use super::metrics::MetricsSnapshot;
use super::operation::{Operation, Outcome};
use super::trouble::Trouble;

/// How a call ended.
pub type OperationResult = Result<Outcome, StoreError>;

/// Names a call until it is settled. Chosen by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub usize);

/// A call that was settled after [`SessionStore::submit`] had returned.
#[derive(Debug)]
pub struct Completion {
    /// The call.
    pub ticket: Ticket,
    /// How it ended.
    pub result: OperationResult,
}

/// Is told by a store, on any thread, how calls ended and what else there is to hear. Must not block.
pub trait Completions: Send + Sync {
    /// Called once for a batch; every ticket arrives exactly once.
    fn deliver(&self, batch: Vec<Completion>);

    /// Called when fields that this version doesn't know by name were not stored, for want of a
    /// column. Warns the process once.
    fn warn_of_dropped_fields(&self);

    /// There is trouble that no call has failed from. Told once for as long as it lasts.
    fn report(&self, trouble: Trouble);
}

/// How much may wait to be written, unless the user says otherwise.
pub const DEFAULT_MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// Tells those who called that the store was closed before their turn came.
pub fn reject_as_closed(completions: &dyn Completions, tickets: Vec<Ticket>) {
    if tickets.is_empty() {
        return;
    }
    let closed = |ticket| Completion { ticket, result: Err(StoreError::Closed) };
    completions.deliver(tickets.into_iter().map(closed).collect());
}

/// A store of sessions and events.
///
/// Every read sees every write submitted before it that touches what it reads.
pub trait SessionStore: Send + Sync {
    /// Takes on one call. Returns its result if it could be had at once, without waiting for
    /// a disk, a lock or a network; else `None`, and the completion is delivered later.
    fn submit(&self, ticket: Ticket, operation: Operation) -> Option<OperationResult>;

    /// Blocks until every write submitted so far is settled: the process is about to end. What is
    /// on another machine isn't waited for beyond the deadline. From the first flush on, all later
    /// ones together wait for locks as long as one call may. `false`: the deadline came first.
    fn flush(&self, deadline: Instant) -> bool;

    /// Nothing is waited for beyond the deadline from here on, however long it may otherwise: the end
    /// is near. Never waits itself.
    fn end_by(&self, deadline: Instant);

    /// Writes what is queued, lets running reads finish, rejects queued ones, and frees the
    /// database. Blocks until that is done, by whichever thread. Calls after it give
    /// [`StoreError::Closed`].
    fn close(&self);

    /// How the store does. Never waits for more than a lock that is held for moments.
    fn metrics(&self) -> MetricsSnapshot;
}
