//! The operations of a session store, without JavaScript and without SQL.

use std::time::Instant;

use crate::error::StoreError;
use crate::model::{JsonText, Number, Page, PageRequest, SessionEvent, SessionRecord};
use crate::replay::{ReplayOptions, Window};

/// One call of the SDK.
#[derive(Debug)]
pub enum Operation {
    /// Inserts a row or replaces the one with its id.
    Write(Row),
    /// Reads one session or part of a list.
    Read(Query),
}

/// What a write stores.
#[derive(Debug, Clone)]
pub enum Row {
    /// Goes into `sessions`.
    Session(SessionRecord),
    /// Goes into `events`.
    Event(SessionEvent),
}

/// What a read wants.
#[derive(Debug)]
pub enum Query {
    /// The session with this id, if there is one.
    Session { id: String },
    /// Sessions by `(created_at, id)`.
    Sessions { page: PageRequest },
    /// A session's events by `(event_index, id)`.
    Events(EventsQuery),
    /// What is replayed of a session, read from its end.
    Replay(ReplayQuery),
}

/// Which page of a session's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsQuery {
    /// The session.
    pub session_id: String,
    /// The page.
    pub page: PageRequest,
}

/// What is wanted of a session's replay window.
#[derive(Debug)]
pub struct ReplayQuery {
    /// The session.
    pub session_id: String,
    /// What the window may hold.
    pub options: ReplayOptions,
    /// In which form it is wanted.
    pub form: ReplayForm,
}

/// A form of a replay window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayForm {
    /// The text and the events.
    Replay,
    /// The events as if they were all there are, without the first so many.
    Events { offset: usize },
}

/// What is replayed of a session.
#[derive(Debug, PartialEq)]
pub struct Replay {
    /// As the SDK makes it of the events.
    pub text: String,
    /// JSON arrays, as those of a [`Page`].
    pub arrays: Vec<JsonText>,
    pub first_event_index: Number,
    pub last_event_index: Number,
    /// Whether anything of the session is missing in the text.
    pub is_truncated: bool,
}

impl ReplayQuery {
    /// The window, in the form that is wanted.
    pub fn answer(&self, window: Option<Window>) -> Outcome {
        match self.form {
            ReplayForm::Replay => Outcome::Replay(window.and_then(|window| self.replay(&window))),
            ReplayForm::Events { offset } => {
                let arrays = window.map(|window| window.arrays(offset)).unwrap_or_default();
                Outcome::Page(Page { arrays, next_cursor: None })
            }
        }
    }

    fn replay(&self, window: &Window) -> Option<Replay> {
        let (first_event_index, last_event_index) = window.indexes()?;
        let (text, is_whole) = window.text(self.options.max_chars);
        Some(Replay {
            text,
            arrays: window.arrays(0),
            first_event_index,
            last_event_index,
            is_truncated: window.is_truncated || !is_whole,
        })
    }
}

impl Row {
    /// Every text that it holds.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let texts: [Option<&String>; 9] = match self {
            Self::Event(SessionEvent {
                id,
                session_id,
                connection_id,
                sender,
                payload,
                extra,
                ..
            }) => [
                Some(id),
                Some(session_id),
                Some(connection_id),
                Some(sender),
                Some(payload),
                extra.as_ref(),
                None,
                None,
                None,
            ],
            Self::Session(session) => {
                let SessionRecord { id, agent, agent_session_id, last_connection_id, .. } = session;
                let SessionRecord {
                    sandbox_id, session_init, config_options, modes, extra, ..
                } = session;
                [
                    Some(id),
                    Some(agent),
                    Some(agent_session_id),
                    Some(last_connection_id),
                    sandbox_id.as_ref(),
                    session_init.as_ref(),
                    config_options.as_ref(),
                    modes.as_ref(),
                    extra.as_ref(),
                ]
            }
        };
        texts.into_iter().flatten().map(String::as_str)
    }

    /// About how much memory it takes while it waits.
    pub fn bytes(&self) -> usize {
        std::mem::size_of::<Self>() + self.texts().map(str::len).sum::<usize>()
    }
}

/// What a successful call gave.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The write is durable.
    Stored,
    /// The session as a JSON object.
    Session(Option<JsonText>),
    /// Part of a list.
    Page(Page),
    /// The replay of a session that has events.
    Replay(Option<Replay>),
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

    /// Called when fields that this version doesn't know by name were not stored, for want of a
    /// column. Warns the process once.
    fn warn_of_dropped_fields(&self);
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

    /// Writes what is queued, lets running reads finish, rejects queued ones, and frees the
    /// database. Blocks until that is done, by whichever thread. Calls after it give
    /// [`StoreError::Closed`].
    fn close(&self);
}
