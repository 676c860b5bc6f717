//! Rows as ours, checked. Every value comes as text.

use std::borrow::Cow;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::error::StoreError;
use crate::model::{EventRow, Number, SessionRow};

use super::wrap;

/// Hands on a session, of [`KNOWN_SESSIONS`](crate::columns::KNOWN_SESSIONS) in their order.
pub fn with_session<T>(
    row: &PgRow,
    use_row: impl FnOnce(&SessionRow<'_>) -> T,
) -> Result<T, StoreError> {
    let table = "session";
    let (init, options) = (optional_json(row, 7, table)?, optional_json(row, 8, table)?);
    let (modes, extra) = (optional_json(row, 9, table)?, optional_json(row, 10, table)?);
    Ok(use_row(&SessionRow {
        id: required(row, 0, table)?,
        agent: required(row, 1, table)?,
        agent_session_id: required(row, 2, table)?,
        last_connection_id: required(row, 3, table)?,
        created_at: number(row, 4, table)?,
        destroyed_at: optional_number(row, 5, table)?,
        sandbox_id: optional(row, 6, table)?,
        session_init: init.as_deref(),
        config_options: options.as_deref(),
        modes: modes.as_deref(),
        extra: extra.as_deref(),
        server_id: optional(row, 11, table)?,
    }))
}

/// Hands on an event, of [`EVENTS`](crate::columns::EVENTS) in their order.
pub fn with_event<T>(
    row: &PgRow,
    use_row: impl FnOnce(&EventRow<'_>) -> T,
) -> Result<T, StoreError> {
    let table = "event";
    let payload = optional_json(row, 6, table)?;
    let payload = payload.ok_or_else(|| corrupt(row, table, "its payload is missing"))?;
    let extra = optional_json(row, 7, table)?;
    Ok(use_row(&event_row(row, &payload, extra.as_deref())?))
}

/// As [`with_event`], but a payload that can't be read is an empty one, which isn't JSON.
pub fn with_event_leniently<T>(
    row: &PgRow,
    use_row: impl FnOnce(&EventRow<'_>) -> T,
) -> Result<T, StoreError> {
    let table = "event";
    let payload = optional_json(row, 6, table).ok().flatten().unwrap_or_default();
    let extra = optional_json(row, 7, table).ok().flatten();
    Ok(use_row(&event_row(row, &payload, extra.as_deref())?))
}

fn event_row<'row>(
    row: &'row PgRow,
    payload: &'row str,
    extra: Option<&'row str>,
) -> Result<EventRow<'row>, StoreError> {
    let table = "event";
    Ok(EventRow {
        id: required(row, 0, table)?,
        event_index: number(row, 1, table)?,
        session_id: required(row, 2, table)?,
        created_at: number(row, 3, table)?,
        connection_id: required(row, 4, table)?,
        sender: required(row, 5, table)?,
        payload,
        extra,
    })
}

fn optional<'row>(
    row: &'row PgRow,
    column: usize,
    table: &str,
) -> Result<Option<&'row str>, StoreError> {
    let value = row.try_get_raw(column).map_err(|_| corrupt(row, table, "a column is missing"))?;
    if sqlx::ValueRef::is_null(&value) {
        return Ok(None);
    }
    value.as_str().map(Some).map_err(|_| corrupt(row, table, "a text is not UTF-8"))
}

/// A text that must be there.
pub fn required<'row>(
    row: &'row PgRow,
    column: usize,
    table: &str,
) -> Result<&'row str, StoreError> {
    optional(row, column, table)?.ok_or_else(|| corrupt(row, table, "a text is missing"))
}

fn optional_json<'row>(
    row: &'row PgRow,
    column: usize,
    table: &str,
) -> Result<Option<Cow<'row, str>>, StoreError> {
    let Some(stored) = optional(row, column, table)? else { return Ok(None) };
    let original = wrap::original(stored);
    original.map(Some).ok_or_else(|| corrupt(row, table, "a wrapped text lost what it wraps"))
}

fn number(row: &PgRow, column: usize, table: &str) -> Result<Number, StoreError> {
    optional_number(row, column, table)?.ok_or_else(|| corrupt(row, table, "a number is missing"))
}

fn optional_number(row: &PgRow, column: usize, table: &str) -> Result<Option<Number>, StoreError> {
    let Some(text) = optional(row, column, table)? else { return Ok(None) };
    let integer = text.parse().map(Number::Integer).ok();
    let real = || text.parse().ok().filter(|real: &f64| real.is_finite()).map(Number::Real);
    let number = integer.or_else(real);
    number.map(Some).ok_or_else(|| corrupt(row, table, "a number is not stored as a number"))
}

/// Names the row by its id, the first column, if that can be read.
fn corrupt(row: &PgRow, table: &str, reason: &'static str) -> StoreError {
    let id = row.try_get_raw(0).ok().and_then(|id| id.as_str().ok());
    let what = id.map_or_else(|| table.to_owned(), |id| format!("{table} \"{id}\""));
    StoreError::Corrupt { what, reason }
}

/// A number that is never negative.
pub fn count(row: &PgRow, column: usize) -> Result<u64, StoreError> {
    match number(row, column, "count")? {
        Number::Integer(count) => Ok(u64::try_from(count).unwrap_or_default()),
        Number::Real(_) => Err(corrupt(row, "count", "a number is not whole")),
    }
}

/// Whether it is true.
pub fn is_true(row: &PgRow, column: usize) -> Result<bool, StoreError> {
    Ok(optional(row, column, "answer")? == Some("t")
        || optional(row, column, "answer")? == Some("true"))
}
