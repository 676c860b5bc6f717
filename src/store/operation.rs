//! The operations of a store: what is written, what is read, what each touches, and what comes of
//! it.

use std::sync::Arc;

use crate::filter::{EventsFilter, Order, SessionsFilter};
use crate::model::{JsonText, Number, Page, PageRequest, SessionEvent, SessionRecord};
use crate::replay::{ReplayOptions, Window};

use super::compact::{CompactStep, Compacted};
use super::file_progress::FileProgress;
use super::probe::Probe;
use super::prune::{CandidatesQuery, PruneStep, Pruned};

/// One call of a driver.
#[derive(Debug)]
pub enum Operation {
    /// Changes what is stored.
    Write(Write),
    /// Reads what is stored.
    Read(Query),
}

/// What a write does.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "a variant's docs have its fields")
)]
pub enum Write {
    /// Inserts a session, or replaces the one with its id.
    Session(SessionRecord),
    /// Inserts an event, or replaces the one with its id.
    Event(SessionEvent),
    /// Inserts events, or replaces those with their ids, in order: all of them or none.
    Events(Vec<SessionEvent>),
    /// Deletes a session and all of its events.
    DeleteSession { id: String },
    /// Shows that these rows could be stored, and stores nothing.
    Probe(Box<Probe>),
    /// Deletes some of what has become too old or too much.
    Prune(Box<PruneStep>),
    /// Makes fewer events of some of a session's.
    Compact(Box<CompactStep>),
    /// Makes the file as small as can be. Of SQLite alone.
    Shrink(Arc<FileProgress>),
}

/// What a read wants.
#[derive(Debug)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "a variant's docs have its fields")
)]
pub enum Query {
    /// The session with this id, if there is one.
    Session { id: String },
    /// Sessions by `(created_at, id)`.
    Sessions(SessionsQuery),
    /// A session's events by `(event_index, id)`.
    Events(EventsQuery),
    /// What is replayed of a session, read from its end.
    Replay(ReplayQuery),
    /// How many sessions there are.
    CountSessions(SessionsFilter),
    /// How many events there are, of one session or of all.
    CountEvents { session_id: Option<String>, filter: EventsFilter },
    /// Ids of sessions that have events and no record, in order, after this one.
    SessionsWithoutRecord { after: Option<String>, limit: u64 },
    /// How much is stored.
    Stats { largest: u64 },
    /// Sessions that may have to be pruned.
    PruneCandidates(CandidatesQuery),
    /// What pruning would delete.
    Prunable(PruneStep),
    /// What compaction would do.
    Compactable(CompactStep),
    /// About how many bytes the rows take that there are, and not those that are gone.
    LiveBytes,
    /// To copy all of it into a file that isn't there yet. Of SQLite alone.
    Backup { filename: String, mode: u32, progress: Arc<FileProgress> },
}

/// Which page of the sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsQuery {
    /// Which of them.
    pub filter: SessionsFilter,
    /// From which end.
    pub order: Order,
    /// The page.
    pub page: PageRequest,
}

/// Which page of a session's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsQuery {
    /// The session.
    pub session_id: String,
    /// Which of its events.
    pub filter: EventsFilter,
    /// From which end.
    pub order: Order,
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "a variant's docs have its fields")
)]
pub enum ReplayForm {
    /// The text and the events.
    Replay,
    /// The events as if they were all there are: those of them that are wanted, in this order,
    /// without the first so many.
    Events { filter: EventsFilter, order: Order, offset: usize },
}

/// What is replayed of a session.
#[derive(Debug, PartialEq)]
pub struct Replay {
    /// As the SDK makes it of the events.
    pub text: String,
    /// JSON arrays, as those of a [`Page`].
    pub arrays: Vec<JsonText>,
    /// The index of the first stored event of which something is in the window.
    pub first_event_index: Number,
    /// The index of the last stored event.
    pub last_event_index: Number,
    /// Whether anything of the session is missing in the text.
    pub is_truncated: bool,
}

/// How much is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredAmount {
    /// Rows of `sessions`.
    pub sessions: u64,
    /// Rows of `events`.
    pub events: u64,
    /// Whether one of the two is an estimate, as a count would take too long.
    pub is_estimate: bool,
    /// Of the database file, or of the tables and their indexes.
    pub database_bytes: u64,
    /// Of the WAL, where there is one beside the database.
    pub wal_bytes: Option<u64>,
    /// What deleted rows have left free in the database file, or take up in the tables still.
    pub reclaimable_bytes: Option<u64>,
    /// The sessions with the most payload, if they were asked for.
    pub largest: Option<Vec<SessionAmount>>,
}

/// How much is stored of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAmount {
    /// The session.
    pub session_id: String,
    /// How many events it has.
    pub events: u64,
    /// The bytes of their payloads' texts.
    pub bytes: u64,
}

/// What a successful call gave.
#[derive(Debug, PartialEq)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "a variant's docs have its fields")
)]
pub enum Outcome {
    /// What was written is durable.
    Stored,
    /// The deletion is durable; whether there was anything to delete.
    Deleted(bool),
    /// The session as a JSON object.
    Session(Option<JsonText>),
    /// Part of a list.
    Page(Page),
    /// The replay of a session that has events.
    Replay(Option<Replay>),
    /// A number of rows.
    Count(u64),
    /// How much is stored.
    Stats(StoredAmount),
    /// What was pruned, or would be.
    Pruned(Pruned),
    /// What was compacted, or would be.
    Compacted(Compacted),
    /// How large the file was, and is.
    Shrunk { bytes_before: u64, bytes_after: u64 },
}

/// A part of what is stored, that a write touches or a query must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope<'call> {
    /// The record of a session.
    Session(&'call str),
    /// The events of a session.
    Events(&'call str),
    /// The event with this id, in whatever session.
    Event(&'call str),
    /// The records of all sessions.
    AllSessions,
    /// Everything that is stored.
    All,
}

impl Operation {
    /// Whether it may take as long as there is much stored.
    pub fn may_take_long(&self) -> bool {
        match self {
            Self::Write(write) => write.may_take_long(),
            Self::Read(query) => query.is_scan() || query.is_filtered(),
        }
    }

    /// Calls `visit` with each session whose course the call is part of, as writes and reads of its
    /// record are; lists and counts only look.
    pub fn each_active_session<'call>(&'call self, mut visit: impl FnMut(&'call str)) {
        match self {
            // Nobody's course.
            Self::Write(Write::Prune(_) | Write::Compact(_)) => {}
            Self::Write(write) => write.touches(|scope| match scope {
                Scope::Session(id) | Scope::Events(id) => visit(id),
                Scope::Event(_) | Scope::AllSessions | Scope::All => {}
            }),
            Self::Read(Query::Session { id }) => visit(id),
            Self::Read(_) => {}
        }
    }
}

impl Write {
    /// Calls `visit` with each scope that the write touches. `AllSessions` and `All` are never
    /// among them: they are what touches any part.
    pub fn touches<'write>(&'write self, mut visit: impl FnMut(Scope<'write>)) {
        let event = |event: &'write SessionEvent| {
            [Scope::Events(&event.session_id), Scope::Event(&event.id)]
        };
        match self {
            Self::Session(session) => visit(Scope::Session(&session.id)),
            Self::Event(inserted) => event(inserted).into_iter().for_each(visit),
            Self::Events(inserted) => inserted.iter().flat_map(event).for_each(visit),
            Self::DeleteSession { id } => {
                [Scope::Session(id), Scope::Events(id)].into_iter().for_each(visit);
            }
            Self::Prune(step) => {
                let scopes = |id: &'write String| [Scope::Session(id), Scope::Events(id)];
                step.sessions.iter().flat_map(scopes).for_each(visit);
            }
            Self::Compact(step) => {
                let id = &step.session_id;
                [Scope::Session(id), Scope::Events(id)].into_iter().for_each(visit);
            }
            Self::Probe(_) | Self::Shrink(_) => {}
        }
    }

    /// Calls `visit` with each event that it inserts.
    pub fn each_event<'write>(&'write self, visit: impl FnMut(&'write SessionEvent)) {
        match self {
            Self::Event(event) => std::slice::from_ref(event).iter().for_each(visit),
            Self::Events(events) => events.iter().for_each(visit),
            _ => {}
        }
    }

    /// Whether it may take more than one transaction. Until it ends, nothing else that touches what
    /// it touches is begun.
    pub fn may_take_long(&self) -> bool {
        matches!(self, Self::DeleteSession { .. } | Self::Shrink(_))
    }

    /// Whether it has a transaction of its own, in a backend that has several under way at a time or
    /// one after another.
    pub fn goes_alone(&self, are_concurrent: bool) -> bool {
        match self {
            Self::DeleteSession { .. } | Self::Probe(_) => are_concurrent,
            Self::Prune(_) | Self::Compact(_) | Self::Shrink(_) => true,
            Self::Session(_) | Self::Event(_) | Self::Events(_) => false,
        }
    }

    /// Whether rows go by it.
    pub fn deletes(&self) -> bool {
        matches!(self, Self::DeleteSession { .. } | Self::Prune(_) | Self::Compact(_))
    }

    /// Whether nothing is stored by it: the end of the store, or of the process, needn't wait.
    pub fn stores_nothing(&self) -> bool {
        matches!(self, Self::Probe(_) | Self::Prune(_) | Self::Compact(_) | Self::Shrink(_))
    }

    /// How many rows it stores, as far as the call itself tells.
    pub fn rows(&self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            Self::Session(_) | Self::Event(_) | Self::DeleteSession { .. } => 1,
            Self::Probe(_) | Self::Prune(_) | Self::Compact(_) | Self::Shrink(_) => 0,
        }
    }

    /// About how much memory it takes while it waits.
    pub fn bytes(&self) -> usize {
        let held = match self {
            Self::Session(session) => session.text_bytes(),
            Self::Event(event) => event.text_bytes(),
            Self::Events(events) => {
                let rows = std::mem::size_of::<SessionEvent>() * events.len();
                events.iter().fold(rows, |bytes, event| bytes.saturating_add(event.text_bytes()))
            }
            Self::DeleteSession { id } => id.len(),
            Self::Probe(_) => std::mem::size_of::<Probe>(),
            Self::Prune(step) => step.bytes(),
            Self::Compact(step) => step.session_id.len() + std::mem::size_of::<CompactStep>(),
            Self::Shrink(_) => 0,
        };
        std::mem::size_of::<Self>().saturating_add(held)
    }
}

impl Query {
    /// What it must see: every write of this scope that was called before it.
    pub fn scope(&self) -> Scope<'_> {
        match self {
            Self::Session { id } => Scope::Session(id),
            Self::Sessions(_) | Self::CountSessions(_) => Scope::AllSessions,
            Self::Events(EventsQuery { session_id, .. })
            | Self::Replay(ReplayQuery { session_id, .. })
            | Self::CountEvents { session_id: Some(session_id), .. } => Scope::Events(session_id),
            Self::CountEvents { session_id: None, .. }
            | Self::SessionsWithoutRecord { .. }
            | Self::Stats { .. }
            | Self::Compactable(_)
            | Self::PruneCandidates(_)
            | Self::Prunable(_)
            | Self::LiveBytes
            | Self::Backup { .. } => Scope::All,
        }
    }

    /// Whether it may read whole tables: it takes as long as they are large, and ends with the
    /// store.
    pub fn is_scan(&self) -> bool {
        match self {
            Self::CountSessions(_)
            | Self::CountEvents { .. }
            | Self::SessionsWithoutRecord { .. }
            | Self::Compactable(_)
            | Self::PruneCandidates(_)
            | Self::Prunable(_)
            | Self::LiveBytes
            | Self::Backup { .. } => true,
            Self::Stats { largest } => *largest > 0,
            Self::Session { .. } | Self::Sessions(_) | Self::Events(_) | Self::Replay(_) => false,
        }
    }

    /// Whether it is a list with a filter, which may pass over any number of rows.
    pub fn is_filtered(&self) -> bool {
        match self {
            Self::Sessions(asked) => asked.filter != SessionsFilter::default(),
            Self::Events(asked) => asked.filter != EventsFilter::default(),
            _ => false,
        }
    }
}

impl ReplayQuery {
    /// The window, in the form that is wanted.
    pub fn answer(&self, window: Option<Window>) -> Outcome {
        match &self.form {
            ReplayForm::Replay => Outcome::Replay(window.and_then(|window| self.replay(&window))),
            ReplayForm::Events { filter, order, offset } => {
                let arrays = window.map(|window| window.arrays(filter, *order, *offset));
                Outcome::Page(Page { arrays: arrays.unwrap_or_default(), next_cursor: None })
            }
        }
    }

    fn replay(&self, window: &Window) -> Option<Replay> {
        let (first_event_index, last_event_index) = window.indexes()?;
        let (text, is_whole) = window.text(self.options.max_chars);
        Some(Replay {
            text,
            arrays: window.arrays(&EventsFilter::default(), Order::default(), 0),
            first_event_index,
            last_event_index,
            is_truncated: window.is_truncated || !is_whole,
        })
    }
}
