//! Whether sessions could be stored: a row in each table, in a transaction that is rolled back.

use std::rc::Rc;
use std::time::Instant;

use crate::error::{INSUFFICIENT_PRIVILEGE, StoreError};
use crate::store::Probe;

use super::backend::{Backend, Calls, GivenUp};
use super::connection::Timed;
use super::failure::Failure;
use super::statements::Statements;
use super::steps::Step;

/// Tries it.
pub async fn probe(
    backend: &Rc<Backend>,
    probe: &Probe,
    called_at: Instant,
) -> Result<(), GivenUp> {
    let probed = backend.with_retries(Calls::one(called_at), async |connection, statements| {
        connection.execute("BEGIN").await?;
        let stored = store(connection, statements, probe).await;
        if !stored.as_ref().is_err_and(|failure| failure.is_connection_lost) {
            connection.execute("ROLLBACK").await?;
        }
        stored.map_err(Failure::of_no_row)
    });
    // It stores nothing: no end waits for it.
    backend.unless_ending(probed).await.map_err(without_privilege_read_only)
}

async fn store(
    connection: &mut Timed<'_>,
    statements: &Statements,
    Probe { session, event }: &Probe,
) -> Result<(), Failure> {
    // The session first, as the SDK stores them: somebody's foreign key may ask for it.
    let steps = [Step::UpsertSessions(vec![session]), Step::UpsertEvents(vec![event])];
    for step in steps {
        for message in statements.messages(&[step]) {
            connection.fetch(message).await?;
        }
    }
    Ok(())
}

/// For a role that may not store a row, the database is read-only.
fn without_privilege_read_only(given_up: GivenUp) -> GivenUp {
    let error = match given_up.error {
        StoreError::Database { message, database_code }
            if database_code.as_str() == INSUFFICIENT_PRIVILEGE =>
        {
            StoreError::ReadOnly { reason: Some(message), database_code }
        }
        error => error,
    };
    GivenUp { error, ..given_up }
}
