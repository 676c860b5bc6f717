//! Answering reads: sessions together, lists one by one.

use std::rc::Rc;
use std::time::Instant;

use crate::error::StoreError;
use crate::store::{OperationResult, Outcome, Query, Read};

use super::backend::{Backend, Calls, GivenUp};
use super::connection::Timed;
use super::failure::Failure;
use super::queue::Lookup;
use super::retry::Decision;
use super::statements::{SessionsById, Statements};

/// Reads the sessions together; or puts those back that may be read without the others.
pub async fn look_up(backend: &Rc<Backend>, wanted: Vec<Lookup>, called_at: Instant) {
    let count = wanted.len();
    let read =
        backend.with_retries(Calls::together(count, called_at), async |connection, statements| {
            let ids = wanted.iter().map(|lookup| lookup.id.as_str());
            statements.get_sessions(connection, ids).await
        });
    match read.await {
        Ok(sessions) => {
            let answers = wanted.iter().map(|lookup| (lookup.ticket, answer(&sessions, lookup)));
            backend.deliver(answers);
        }
        Err(GivenUp { decision: Decision::Split, .. }) => {
            backend.queue.put_back_lookups(wanted, count / 2);
        }
        Err(GivenUp { error, .. }) => {
            backend.deliver(wanted.iter().map(|lookup| (lookup.ticket, Err(error.clone()))));
        }
    }
}

/// One id may be wanted by several.
fn answer(sessions: &SessionsById, lookup: &Lookup) -> OperationResult {
    sessions.get(&lookup.id).cloned().transpose().map(Outcome::Session)
}

/// Reads part of a list, or a replay.
pub async fn list(backend: &Rc<Backend>, Read { ticket, query, called_at }: Read) {
    let calls = match query.is_scan() {
        true => Calls::scan(called_at),
        false => Calls::one(called_at),
    };
    let read = backend.with_retries(calls, async |connection, statements| {
        fetch(connection, statements, &query).await
    });
    let result = async { read.await.map_err(|given_up| given_up.error) };
    let result = match query.is_scan() {
        true => unless_closing(backend, result).await,
        false => result.await,
    };
    backend.deliver([(ticket, result)]);
}

/// What takes long ends when the store closes.
async fn unless_closing(
    backend: &Backend,
    result: impl Future<Output = OperationResult>,
) -> OperationResult {
    tokio::select! {
        result = result => result,
        () = backend.queue.closing() => Err(StoreError::Closed),
    }
}

async fn fetch(
    connection: &mut Timed<'_>,
    statements: &Statements,
    query: &Query,
) -> Result<Outcome, Failure> {
    match query {
        Query::Events(asked) => statements.list_events(connection, asked).await.map(Outcome::Page),
        Query::Sessions(asked) => {
            statements.list_sessions(connection, asked).await.map(Outcome::Page)
        }
        Query::Replay(asked) => {
            let window = statements.replay(connection, &asked.session_id, &asked.options).await;
            window.map(|window| asked.answer(window))
        }
        Query::CountSessions(filter) => {
            statements.count_sessions(connection, filter).await.map(Outcome::Count)
        }
        Query::CountEvents { session_id, filter } => {
            let count = statements.count_events(connection, session_id.as_deref(), filter).await;
            count.map(Outcome::Count)
        }
        Query::SessionsWithoutRecord { after, limit } => {
            let ids = statements.sessions_without_record(connection, after.as_deref(), *limit);
            ids.await.map(Outcome::Page)
        }
        Query::Backup { .. } => Err(Failure::of_call(StoreError::Internal {
            reason: "a server's database isn't copied into a file",
        })),
        Query::Stats { largest } => {
            statements.stored_amount(connection, *largest).await.map(Outcome::Stats)
        }
        Query::PruneCandidates(asked) => {
            statements.prune_candidates(connection, asked).await.map(Outcome::Page)
        }
        Query::Prunable(step) => statements.prunable(connection, step).await.map(Outcome::Pruned),
        Query::Compactable(step) => {
            statements.compactable(connection, step).await.map(Outcome::Compacted)
        }
        Query::LiveBytes => statements.live_bytes(connection).await.map(Outcome::Count),
        Query::Session { .. } => unreachable!("read together with others"),
    }
}
