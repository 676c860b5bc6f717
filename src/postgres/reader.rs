//! Answering reads: sessions together, lists one by one.

use std::rc::Rc;
use std::time::Instant;

use crate::store::{EventsQuery, OperationResult, Outcome, Query, Ticket};

use super::backend::{Backend, Parts};
use super::failure::{Failure, Remedy};
use super::queries::SessionsById;
use super::queue::Lookups;

/// Reads the sessions with these ids. One that the server can't even be asked for fails alone.
pub async fn look_up(
    backend: &Rc<Backend>,
    Lookups { wanted, accepted, .. }: &Lookups,
) -> Vec<(Ticket, OperationResult)> {
    let mut results = Vec::with_capacity(wanted.len());
    let mut parts = vec![wanted.as_slice()];
    while let Some(part) = parts.pop() {
        match look_up_together(backend, part, *accepted).await {
            Err(failure) if failure.remedy == Remedy::Split && part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(failure) => {
                results.extend(part.iter().map(|(ticket, _)| (*ticket, Err(failure.error.clone()))))
            }
            Ok(sessions) => results.extend(part.iter().map(|(ticket, id)| {
                let session = sessions.get(id).cloned().transpose();
                (*ticket, session.map(Outcome::Session))
            })),
        }
    }
    results
}

async fn look_up_together(
    backend: &Rc<Backend>,
    wanted: &[(Ticket, String)],
    accepted: Instant,
) -> Result<SessionsById, Failure> {
    let look_up = backend.with_retries(Parts::One, accepted, async |lease, statements| {
        let ids = wanted.iter().map(|(_, id)| id.as_str());
        statements.get_sessions(lease.connection(), ids).await
    });
    look_up.await
}

/// Reads part of a list, or a replay.
pub async fn list(backend: &Rc<Backend>, query: &Query, accepted: Instant) -> OperationResult {
    let read = backend.with_retries(Parts::One, accepted, async |lease, statements| {
        let connection = lease.connection();
        match query {
            Query::Events(EventsQuery { session_id, page }) => {
                statements.list_events(connection, session_id, page).await.map(Outcome::Page)
            }
            Query::Sessions { page } => {
                statements.list_sessions(connection, page).await.map(Outcome::Page)
            }
            Query::Replay(asked) => {
                let window = statements.replay(connection, &asked.session_id, &asked.options);
                window.await.map(|window| asked.answer(window))
            }
            Query::Session { .. } => unreachable!("read together with others"),
        }
    });
    read.await.map_err(|failure| failure.error)
}
