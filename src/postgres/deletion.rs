//! The deletion of a session: in one transaction, or, with more events than one should hold, in
//! steps of their own between other rounds: oldest events first, the record last, so that what is
//! left of it after a crash can be deleted again.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::cursor::Position;
use crate::error::{DatabaseCode, INSUFFICIENT_PRIVILEGE, StoreError};
use crate::store::Pace;

use super::backend::{Backend, Calls, GivenUp};
use super::connection::Timed;
use super::failure::Failure;
use super::retry::Decision;
use super::statements::{Deleted, Statements};
use super::steps::Step;

/// Deletes a session in one transaction, and says whether there was anything of it; `None` if it
/// has too many events for that. What a lost connection may have done counts as done: the session
/// is gone either way.
pub async fn delete_whole(
    backend: &Rc<Backend>,
    id: &str,
    called_at: Instant,
) -> Result<Option<bool>, GivenUp> {
    let mut may_have_been_done = false;
    let deleted = backend.with_retries(Calls::one(called_at), async |connection, statements| {
        let sent = Instant::now();
        let deleted = delete(connection, statements, id).await;
        may_have_been_done |= deleted.as_ref().is_err_and(|failure| failure.is_connection_lost);
        if let Ok(Deleted::Whole { .. }) = deleted {
            backend.metrics.note_commit(sent.elapsed());
            backend.metrics.note_stored(1);
        }
        deleted
    });
    Ok(match deleted.await? {
        Deleted::TooLarge => None,
        Deleted::Whole { was_there } => Some(was_there || may_have_been_done),
    })
}

async fn delete(
    connection: &mut Timed<'_>,
    statements: &Statements,
    id: &str,
) -> Result<Deleted, Failure> {
    let mut rows = Vec::new();
    for message in statements.messages(&[Step::DeleteSession(id)]) {
        rows = connection.fetch(message).await?;
    }
    Statements::deleted(&rows)
}

/// Deletes a session of many events.
pub async fn delete_in_steps(
    backend: &Rc<Backend>,
    id: &str,
    called_at: Instant,
) -> Result<(), GivenUp> {
    let mut kept = None;
    loop {
        let still_kept = delete_oldest(backend, id, called_at).await?;
        // What others have added meanwhile, and the record.
        if delete_whole(backend, id, called_at).await?.is_some() {
            return Ok(());
        }
        // What another process deletes at the same time is gone the next time.
        if still_kept.is_some() && still_kept == kept {
            return Err(failed(events_are_kept()));
        }
        kept = still_kept;
    }
}

/// Deletes events until a step finds fewer than it would take. Returns the last place of what it
/// found, if it could delete none of it.
async fn delete_oldest(
    backend: &Rc<Backend>,
    id: &str,
    called_at: Instant,
) -> Result<Option<Position>, GivenUp> {
    let (mut pace, mut last, mut deleted) = (Pace::default(), None, 0);
    loop {
        if backend.queue.is_ending() {
            return Err(failed(StoreError::Closed));
        }
        let rows = pace.rows();
        let step = backend.with_retries(Calls::one(called_at), async |connection, statements| {
            statements.delete_oldest_events(connection, id, last.as_ref(), rows).await
        });
        let step = step.await?;
        let took = Duration::from_millis(step.took_ms);
        backend.metrics.note_commit(took);
        deleted += step.events;
        last = step.last.or(last);
        let is_last = step.found < u64::try_from(rows).unwrap_or(u64::MAX);
        // Without a place, what isn't deleted would be found again and again.
        if is_last || (step.events == 0 && last.is_none()) {
            return Ok(last.filter(|_| deleted == 0));
        }
        pace.note(took);
    }
}

fn failed(error: StoreError) -> GivenUp {
    GivenUp { decision: Decision::Fail, error }
}

/// As if the role hadn't the privilege, which the server says by itself.
fn events_are_kept() -> StoreError {
    StoreError::Database {
        message: "a trigger or a policy keeps events from being deleted".to_owned(),
        database_code: DatabaseCode::Sqlstate(INSUFFICIENT_PRIVILEGE.to_owned()),
    }
}
