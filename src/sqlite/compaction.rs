//! Compaction: what streamed in many events becomes few.

use rusqlite::{Connection, params};

use crate::columns::{EVENT_INDEX, ID, SESSION_ID};
use crate::page::sql_count;
use crate::replay::Merge;
use crate::store::{CompactRun, CompactStep, Compacted};

use super::rows::event_row_leniently;
use super::statements::Statements;

/// Does a step of at most so many rows in the transaction that is open, or only says what it would do.
pub fn compact(
    connection: &Connection,
    statements: &Statements,
    step: &CompactStep,
    max_rows: usize,
    is_dry: bool,
) -> rusqlite::Result<Compacted> {
    let CompactStep { session_id, idle_before, .. } = step;
    if !statements.prune.is_idle(connection, session_id, *idle_before, None)? {
        return Ok(Compacted::default());
    }
    let (merges, compacted) = plan(connection, statements, step, max_rows, is_dry)?;
    if !is_dry {
        merges.iter().try_for_each(|merge| apply(connection, merge))?;
    }
    Ok(compacted)
}

fn plan(
    connection: &Connection,
    statements: &Statements,
    step: &CompactStep,
    max_rows: usize,
    is_dry: bool,
) -> rusqlite::Result<(Vec<Merge>, Compacted)> {
    let after = step.from.after.as_ref();
    let operator = if after.is_some_and(|place| place.is_open) { "<=" } else { "<" };
    let sql = format!(
        "{} WHERE {SESSION_ID} = ?1 AND (?2 IS NULL OR ({EVENT_INDEX}, {ID}) {operator} (?2, ?3))
         ORDER BY {EVENT_INDEX} DESC, {ID} DESC LIMIT ?4",
        statements.select_events
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let (index, id) = (after.map(|place| place.event_index), after.map(|place| &place.id));
    let mut rows = statement.query(params![step.session_id, index, id, sql_count(max_rows)])?;
    let (mut run, mut came) = (CompactRun::new(step), 0);
    while let Some(row) = rows.next()? {
        came += 1;
        match event_row_leniently(row) {
            Ok(event) => run.push(&event),
            Err(_) => run.skip(),
        }
    }
    Ok(run.finish(max_rows, came, is_dry))
}

fn apply(connection: &Connection, Merge { id, payload, gone, .. }: &Merge) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE events SET payload_json = ?2 WHERE id = ?1")?
        .execute([id, payload])?;
    let mut delete = connection.prepare_cached("DELETE FROM events WHERE id = ?1")?;
    gone.iter().try_for_each(|id| delete.execute([id]).map(drop))
}
