//! Answering reads: sessions together, lists one by one.

use std::rc::Rc;
use std::time::Instant;

use crate::store::{EventsQuery, OperationResult, Outcome, Query, Ticket};

use super::backend::{Backend, Intent};
use super::queries::SessionsById;
use super::queue::Lookups;

/// Reads the sessions with these ids.
pub async fn look_up(
    backend: &Rc<Backend>,
    Lookups { wanted, accepted, .. }: &Lookups,
) -> Vec<(Ticket, OperationResult)> {
    let sessions = backend.with_retries(Intent::Read, *accepted, async |lease, statements| {
        let ids = wanted.iter().map(|(_, id)| id.as_str());
        statements.get_sessions(lease.connection(), ids).await
    });
    let result_of = |sessions: &SessionsById, id: &String| {
        sessions.get(id).cloned().transpose().map(Outcome::Session)
    };
    match sessions.await {
        Ok(sessions) => {
            wanted.iter().map(|(ticket, id)| (*ticket, result_of(&sessions, id))).collect()
        }
        Err(failure) => {
            wanted.iter().map(|(ticket, _)| (*ticket, Err(failure.error.clone()))).collect()
        }
    }
}

/// Reads part of a list.
pub async fn list(backend: &Rc<Backend>, query: &Query, accepted: Instant) -> OperationResult {
    let page = backend.with_retries(Intent::Read, accepted, async |lease, statements| {
        let connection = lease.connection();
        match query {
            Query::Events(EventsQuery { session_id, page }) => {
                statements.list_events(connection, session_id, page).await
            }
            Query::Sessions { page } => statements.list_sessions(connection, page).await,
            Query::Session { .. } => unreachable!("read together with others"),
        }
    });
    page.await.map(Outcome::Page).map_err(|failure| failure.error)
}
