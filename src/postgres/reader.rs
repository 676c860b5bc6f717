//! Answering a read.

use crate::store::{EventsQuery, OperationResult, Outcome, Query};

use super::backend::{Backend, Intent};

/// Reads what is wanted.
pub async fn answer(backend: &Backend, query: &Query) -> OperationResult {
    let answer = backend.with_retries(Intent::Read, async |lease, statements| {
        let connection = lease.connection();
        match query {
            Query::Session { id } => {
                statements.get_session(connection, id).await.map(Outcome::Session)
            }
            Query::Sessions { page } => {
                statements.list_sessions(connection, page).await.map(Outcome::Page)
            }
            Query::Events(EventsQuery { session_id, page }) => {
                statements.list_events(connection, session_id, page).await.map(Outcome::Page)
            }
        }
    });
    answer.await.map_err(|failure| failure.error)
}
