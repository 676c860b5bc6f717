//! The statements, and rows in and out. A connection prepares each once.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params, Row, params};

use crate::cursor::{self, Position};
use crate::error::StoreError;
use crate::json;
use crate::layout::OptionalColumns;
use crate::model::{
    EventRow, JsonText, Number, Page, PageRequest, SessionEvent, SessionRecord, SessionRow,
};
use crate::page::{PageBuilder, SESSIONS_LIST, sql_count};
use crate::replay::{ReplayOptions, Window, WindowBuilder};

use super::failure;

/// Inserts an event or replaces the one with its id.
pub const UPSERT_EVENT: &str = "INSERT INTO events
  (id, event_index, session_id, created_at, connection_id, sender, payload_json, extra_json)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT(id) DO UPDATE SET event_index = excluded.event_index, session_id = excluded.session_id,
  created_at = excluded.created_at, connection_id = excluded.connection_id, sender = excluded.sender,
  payload_json = excluded.payload_json, extra_json = excluded.extra_json";

/// Inserts a session or replaces the one with its id.
pub const UPSERT_SESSION: &str = "INSERT INTO sessions
  (id, agent, agent_session_id, last_connection_id, created_at, destroyed_at, sandbox_id,
   session_init_json, config_options_json, modes_json, extra_json)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT(id) DO UPDATE SET agent = excluded.agent, agent_session_id = excluded.agent_session_id,
  last_connection_id = excluded.last_connection_id, created_at = excluded.created_at,
  destroyed_at = excluded.destroyed_at, sandbox_id = excluded.sandbox_id,
  session_init_json = excluded.session_init_json, config_options_json = excluded.config_options_json,
  modes_json = excluded.modes_json, extra_json = excluded.extra_json";

/// The statements that read, for the columns that a database has.
#[derive(Debug)]
pub struct ReadStatements {
    session: String,
    sessions_from: String,
    sessions_after: String,
    events_from: String,
    events_after: String,
    events_newest_first: String,
}

impl ReadStatements {
    /// The statements for a database with these columns.
    pub fn new(columns: OptionalColumns) -> Self {
        let or_null = |name, exists| if exists { name } else { "NULL" };
        let sessions = format!(
            "SELECT id, agent, agent_session_id, last_connection_id, created_at, destroyed_at,
             session_init_json, {}, {}, {}, {} FROM sessions",
            or_null("sandbox_id", columns.sandbox_id),
            or_null("config_options_json", columns.config_options),
            or_null("modes_json", columns.modes),
            or_null("extra_json", columns.session_extra),
        );
        let events = format!(
            "SELECT id, event_index, session_id, created_at, connection_id, sender, payload_json, {}
             FROM events WHERE session_id = ?1",
            or_null("extra_json", columns.event_extra),
        );
        Self {
            session: format!("{sessions} WHERE id = ?1"),
            sessions_from: format!("{sessions} ORDER BY created_at, id LIMIT ?1 OFFSET ?2"),
            sessions_after: format!(
                "{sessions} WHERE (created_at, id) > (?2, ?3) ORDER BY created_at, id LIMIT ?1"
            ),
            events_from: format!("{events} ORDER BY event_index, id LIMIT ?2 OFFSET ?3"),
            events_after: format!(
                "{events} AND (event_index, id) > (?3, ?4) ORDER BY event_index, id LIMIT ?2"
            ),
            events_newest_first: format!("{events} ORDER BY event_index DESC, id DESC"),
        }
    }

    /// The session with this id, as a JSON object.
    pub fn get_session(
        &self,
        connection: &Connection,
        id: &str,
    ) -> Result<Option<JsonText>, StoreError> {
        let mut text = None;
        each_row(connection, &self.session, [id], |row| {
            let session = session_row(row)?;
            text = Some(json::session_text(&session));
            Ok(())
        })?;
        Ok(text)
    }

    /// Sessions by `(created_at, id)`.
    pub fn list_sessions(
        &self,
        connection: &Connection,
        request: &PageRequest,
    ) -> Result<Page, StoreError> {
        let start = cursor::parse(request.cursor.as_deref(), SESSIONS_LIST);
        let mut page = PageBuilder::new(SESSIONS_LIST, request.limit, start.offset);
        let rows_wanted = sql_count(page.rows_wanted());
        let mut add = |row: &Row<'_>| {
            page.add_session(&session_row(row)?);
            Ok(())
        };
        match &start.after {
            Some(Position { order, id }) => each_row(
                connection,
                &self.sessions_after,
                params![rows_wanted, order, id],
                &mut add,
            )?,
            None => each_row(
                connection,
                &self.sessions_from,
                params![rows_wanted, sql_count(start.offset)],
                &mut add,
            )?,
        }
        Ok(page.finish())
    }

    /// A session's events by `(event_index, id)`.
    pub fn list_events(
        &self,
        connection: &Connection,
        session_id: &str,
        request: &PageRequest,
    ) -> Result<Page, StoreError> {
        let start = cursor::parse(request.cursor.as_deref(), session_id);
        let mut page = PageBuilder::new(session_id, request.limit, start.offset);
        let rows_wanted = sql_count(page.rows_wanted());
        let mut add = |row: &Row<'_>| {
            page.add_event(&event_row(row)?);
            Ok(())
        };
        match &start.after {
            Some(Position { order, id }) => each_row(
                connection,
                &self.events_after,
                params![session_id, rows_wanted, order, id],
                &mut add,
            )?,
            None => each_row(
                connection,
                &self.events_from,
                params![session_id, rows_wanted, sql_count(start.offset)],
                &mut add,
            )?,
        }
        Ok(page.finish())
    }

    /// The replay window of a session; `None` if it has no events. Reads no more rows than it takes.
    pub fn replay(
        &self,
        connection: &Connection,
        session_id: &str,
        options: &ReplayOptions,
    ) -> Result<Option<Window>, StoreError> {
        let mut window = WindowBuilder::new(options);
        each_row_while(connection, &self.events_newest_first, [session_id], |row| {
            event_row_leniently(row)
                .map(|event| window.push(&event))
                .or_else(|unreadable| window.skip().ok_or(unreadable))
        })?;
        Ok(window.finish())
    }
}

/// Stores an event.
pub fn upsert_event(connection: &Connection, event: &SessionEvent) -> rusqlite::Result<()> {
    connection.prepare_cached(UPSERT_EVENT)?.execute(params![
        event.id,
        event.event_index,
        event.session_id,
        event.created_at,
        event.connection_id,
        event.sender,
        event.payload,
        event.extra,
    ])?;
    Ok(())
}

/// Stores a session.
pub fn upsert_session(connection: &Connection, session: &SessionRecord) -> rusqlite::Result<()> {
    connection.prepare_cached(UPSERT_SESSION)?.execute(params![
        session.id,
        session.agent,
        session.agent_session_id,
        session.last_connection_id,
        session.created_at,
        session.destroyed_at,
        session.sandbox_id,
        session.session_init,
        session.config_options,
        session.modes,
        session.extra,
    ])?;
    Ok(())
}

fn each_row(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut add: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    each_row_while(connection, sql, params, |row| add(row).map(|()| true))
}

fn each_row_while(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    mut wants_more: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(failure::store_error)?;
    let mut rows = statement.query(params).map_err(failure::store_error)?;
    while let Some(row) = rows.next().map_err(failure::store_error)? {
        if !wants_more(row)? {
            break;
        }
    }
    Ok(())
}

fn session_row<'row>(row: &'row Row<'_>) -> Result<SessionRow<'row>, StoreError> {
    let table = "session";
    Ok(SessionRow {
        id: text(row, 0, table)?,
        agent: text(row, 1, table)?,
        agent_session_id: text(row, 2, table)?,
        last_connection_id: text(row, 3, table)?,
        created_at: number(row, 4, table)?,
        destroyed_at: optional_number(row, 5, table)?,
        session_init: optional_text(row, 6, table)?,
        sandbox_id: optional_text(row, 7, table)?,
        config_options: optional_text(row, 8, table)?,
        modes: optional_text(row, 9, table)?,
        extra: optional_text(row, 10, table)?,
    })
}

fn event_row<'row>(row: &'row Row<'_>) -> Result<EventRow<'row>, StoreError> {
    let table = "event";
    event_row_with(row, text(row, 6, table)?, optional_text(row, 7, table)?)
}

/// As [`event_row`], but a payload that isn't text is an empty one, which isn't JSON.
fn event_row_leniently<'row>(row: &'row Row<'_>) -> Result<EventRow<'row>, StoreError> {
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
