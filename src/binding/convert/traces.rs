//! What a traced call tells of itself beside its result: how much it is about, never what.

use crate::store::{EventsQuery, Operation, Query, ReplayQuery, Write};

/// Sessions or events that a call wrote or returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub rows: usize,
    /// The bytes of their texts.
    pub bytes: usize,
}

/// The session that a call is for, if it is for one.
pub fn session_id(operation: &Operation) -> Option<&str> {
    match operation {
        Operation::Write(write) => match write {
            Write::Session(session) => Some(&session.id),
            Write::Event(event) => Some(&event.session_id),
            Write::DeleteSession { id } => Some(id),
            Write::Events(_) | Write::Probe(_) | Write::Prune(_) | Write::Shrink(_) => None,
            Write::Compact(step) => Some(&step.session_id),
        },
        Operation::Read(query) => match query {
            Query::Session { id } => Some(id),
            Query::Events(EventsQuery { session_id, .. })
            | Query::Replay(ReplayQuery { session_id, .. }) => Some(session_id),
            Query::CountEvents { session_id, .. } => session_id.as_deref(),
            Query::Sessions(_)
            | Query::CountSessions(_)
            | Query::SessionsWithoutRecord { .. }
            | Query::Stats { .. }
            | Query::PruneCandidates(_)
            | Query::Prunable(_)
            | Query::Compactable(_)
            | Query::LiveBytes
            | Query::Backup { .. } => None,
        },
    }
}

/// What a call will have written if it succeeds. A deletion doesn't count what it deletes.
pub fn written(operation: &Operation) -> Option<Amount> {
    let Operation::Write(write) = operation else { return None };
    let bytes = match write {
        Write::Session(session) => session.text_bytes(),
        Write::Event(event) => event.text_bytes(),
        Write::Events(events) => {
            events.iter().fold(0, |bytes: usize, event| bytes.saturating_add(event.text_bytes()))
        }
        Write::DeleteSession { .. }
        | Write::Probe(_)
        | Write::Prune(_)
        | Write::Compact(_)
        | Write::Shrink(_) => return None,
    };
    Some(Amount { rows: write.rows(), bytes })
}
