//! The operations of a session store, without JavaScript and without SQL.

use crate::error::StoreError;
use crate::model::{JsonText, Page, PageRequest, SessionEvent, SessionRecord};

/// One call of the SDK.
#[derive(Debug)]
pub enum Operation {
    /// The session with this id, if there is one.
    GetSession { id: String },
    /// Sessions by `(created_at, id)`.
    ListSessions { page: PageRequest },
    /// Inserts a session or replaces the one with its id.
    UpdateSession { session: SessionRecord },
    /// A session's events by `(event_index, id)`.
    ListEvents { session_id: String, page: PageRequest },
    /// Inserts an event or replaces the one with its id.
    InsertEvent { event: SessionEvent },
}

/// What a successful call gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write is durable.
    Stored,
    /// The session as a JSON object.
    Session(Option<JsonText>),
    /// Part of a list.
    Page(Page),
}

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

/// Receives what is settled, in batches, on any thread. Must not block.
pub trait Completions: Send + Sync {
    /// Called once for a batch; every ticket arrives exactly once.
    fn deliver(&self, batch: Vec<Completion>);
}

/// A store of sessions and events.
///
/// Every read sees every write submitted before it that touches what it reads.
pub trait SessionStore: Send + Sync {
    /// Takes on one call. Returns its result if it could be had at once, without waiting for
    /// a disk, a lock or a network; else `None`, and the completion is delivered later.
    fn submit(&self, ticket: Ticket, operation: Operation) -> Option<OperationResult>;

    /// Blocks until every write submitted so far is settled: the process is about to end. From
    /// the first flush on, all later ones together wait for locks as long as one call may.
    fn flush(&self);

    /// Writes what is queued, lets running reads finish, rejects queued ones, and frees the
    /// database. Blocks until that is done, by whichever thread. Calls after it give
    /// [`StoreError::Closed`].
    fn close(&self);
}
