//! Rows as ours, checked.

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::error::StoreError;
use crate::model::{EventRow, Number, SessionRow};

/// A session, of [`KNOWN_SESSIONS`](crate::columns::KNOWN_SESSIONS) in their order.
pub fn session_row<'row>(row: &'row Row<'_>) -> Result<SessionRow<'row>, StoreError> {
    let table = "session";
    Ok(SessionRow {
        id: text(row, 0, table)?,
        agent: text(row, 1, table)?,
        agent_session_id: text(row, 2, table)?,
        last_connection_id: text(row, 3, table)?,
        created_at: number(row, 4, table)?,
        destroyed_at: optional_number(row, 5, table)?,
        sandbox_id: optional_text(row, 6, table)?,
        session_init: optional_text(row, 7, table)?,
        config_options: optional_text(row, 8, table)?,
        modes: optional_text(row, 9, table)?,
        extra: optional_text(row, 10, table)?,
        server_id: optional_text(row, 11, table)?,
    })
}

/// An event, of [`EVENTS`](crate::columns::EVENTS) in their order.
pub fn event_row<'row>(row: &'row Row<'_>) -> Result<EventRow<'row>, StoreError> {
    let table = "event";
    event_row_with(row, text(row, 6, table)?, optional_text(row, 7, table)?)
}

/// As [`event_row`], but a payload that isn't text is an empty one, which isn't JSON.
pub fn event_row_leniently<'row>(row: &'row Row<'_>) -> Result<EventRow<'row>, StoreError> {
    let table = "event";
    let payload = text(row, 6, table).unwrap_or_default();
    event_row_with(row, payload, optional_text(row, 7, table).unwrap_or_default())
}

fn event_row_with<'row>(
    row: &'row Row<'_>,
    payload: &'row str,
    extra: Option<&'row str>,
) -> Result<EventRow<'row>, StoreError> {
    let table = "event";
    Ok(EventRow {
        id: text(row, 0, table)?,
        event_index: number(row, 1, table)?,
        session_id: text(row, 2, table)?,
        created_at: number(row, 3, table)?,
        connection_id: text(row, 4, table)?,
        sender: text(row, 5, table)?,
        payload,
        extra,
    })
}

fn text<'row>(row: &'row Row<'_>, column: usize, table: &str) -> Result<&'row str, StoreError> {
    optional_text(row, column, table)?.ok_or_else(|| corrupt(row, table, "a text is missing"))
}

fn optional_text<'row>(
    row: &'row Row<'_>,
    column: usize,
    table: &str,
) -> Result<Option<&'row str>, StoreError> {
    match row.get_ref(column) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Text(bytes)) => std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| corrupt(row, table, "a text is not UTF-8")),
        _ => Err(corrupt(row, table, "a text is not stored as text")),
    }
}

fn number(row: &Row<'_>, column: usize, table: &str) -> Result<Number, StoreError> {
    optional_number(row, column, table)?.ok_or_else(|| corrupt(row, table, "a number is missing"))
}

fn optional_number(
    row: &Row<'_>,
    column: usize,
    table: &str,
) -> Result<Option<Number>, StoreError> {
    match row.get_ref(column) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Integer(integer)) => Ok(Some(Number::Integer(integer))),
        Ok(ValueRef::Real(real)) if real.is_finite() => Ok(Some(Number::Real(real))),
        _ => Err(corrupt(row, table, "a number is not stored as a number")),
    }
}

/// Names the row by its id, the first column, if that can be read.
fn corrupt(row: &Row<'_>, table: &str, reason: &'static str) -> StoreError {
    let what = match row.get_ref(0).map(|id| id.as_str()) {
        Ok(Ok(id)) => format!("{table} \"{id}\""),
        _ => table.to_owned(),
    };
    StoreError::Corrupt { what, reason }
}

/// A number that is never negative.
pub fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or_default())
}
