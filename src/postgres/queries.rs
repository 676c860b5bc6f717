//! The statements, and rows in and out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::cursor::{self, Position};
use crate::error::StoreError;
use crate::json;
use crate::layout::{Layout, OptionalColumns};
use crate::model::{
    EventRow, JsonText, Number, Page, PageRequest, SessionEvent, SessionRecord, SessionRow,
};
use crate::page::{PageBuilder, SESSIONS_LIST};
use crate::store::Row;

use super::connection::Connection;
use super::failure::Failure;
use super::quote::{push_optional_text, push_text, text};
use super::schema::Schema;
use super::wrap;

/// The statements for the tables that were found.
#[derive(Debug)]
pub struct Statements {
    /// Goes before every statement, in the same message and so in the same transaction.
    prefix: String,
    insert_sessions: String,
    replace_sessions: String,
    insert_events: String,
    replace_events: String,
    select_sessions: String,
    select_events: String,
    columns: OptionalColumns,
}

impl Statements {
    /// The statements for a schema with this layout; `prefix` goes before each.
    pub fn new(schema: &Schema, layout: &Layout, prefix: String) -> Self {
        let columns = layout.optional_columns();
        let (sessions, events) = (schema.table("sessions"), schema.table("events"));
        let session_extra = if columns.session_extra { ", extra_json" } else { "" };
        let event_extra = if columns.event_extra { ", extra_json" } else { "" };
        let replace_extra = |has| if has { ", extra_json = excluded.extra_json" } else { "" };
        let select_extra = |has| if has { "extra_json" } else { "NULL" };
        Self {
            prefix,
            insert_sessions: format!(
                "INSERT INTO {sessions} (id, agent, agent_session_id, last_connection_id, created_at, destroyed_at, sandbox_id, session_init_json, config_options_json, modes_json{session_extra}) VALUES "
            ),
            replace_sessions: format!(
                " ON CONFLICT (id) DO UPDATE SET agent = excluded.agent, agent_session_id = excluded.agent_session_id, last_connection_id = excluded.last_connection_id, created_at = excluded.created_at, destroyed_at = excluded.destroyed_at, sandbox_id = excluded.sandbox_id, session_init_json = excluded.session_init_json, config_options_json = excluded.config_options_json, modes_json = excluded.modes_json{};",
                replace_extra(columns.session_extra)
            ),
            insert_events: format!(
                "INSERT INTO {events} (id, event_index, session_id, created_at, connection_id, sender, payload_json{event_extra}) VALUES "
            ),
            replace_events: format!(
                " ON CONFLICT (id) DO UPDATE SET event_index = excluded.event_index, session_id = excluded.session_id, created_at = excluded.created_at, connection_id = excluded.connection_id, sender = excluded.sender, payload_json = excluded.payload_json{};",
                replace_extra(columns.event_extra)
            ),
            select_sessions: format!(
                "SELECT id, agent, agent_session_id, last_connection_id, created_at, destroyed_at, sandbox_id, session_init_json, config_options_json, modes_json, {} FROM {sessions}",
                select_extra(columns.session_extra)
            ),
            select_events: format!(
                "SELECT id, event_index, session_id, created_at, connection_id, sender, payload_json, {} FROM {events}",
                select_extra(columns.event_extra)
            ),
            columns,
        }
    }

    /// Whether the row holds fields that the tables have no column for.
    pub fn drops_fields_of(&self, row: &Row) -> bool {
        match row {
            Row::Session(session) => session.extra.is_some() && !self.columns.session_extra,
            Row::Event(event) => event.extra.is_some() && !self.columns.event_extra,
        }
    }

    /// The message that stores these rows, the last of an id winning. Both kinds are sorted by id,
    /// and events come first: messages that lock the same rows lock them in the same order.
    pub fn upsert<'row>(&self, rows: impl Iterator<Item = &'row Row>) -> String {
        let (mut sessions, mut events) = (HashMap::new(), HashMap::new());
        for row in rows {
            match row {
                Row::Session(session) => drop(sessions.insert(session.id.as_str(), session)),
                Row::Event(event) => drop(events.insert(event.id.as_str(), event)),
            }
        }
        let mut sql = self.prefix.clone();
        if !events.is_empty() {
            sql.push_str(&self.insert_events);
            push_rows(&mut sql, events, |sql, event| self.push_event(sql, event));
            sql.push_str(&self.replace_events);
        }
        if !sessions.is_empty() {
            sql.push_str(&self.insert_sessions);
            push_rows(&mut sql, sessions, |sql, session| self.push_session(sql, session));
            sql.push_str(&self.replace_sessions);
        }
        sql
    }

    fn push_event(&self, sql: &mut String, event: &SessionEvent) {
        push_text(sql, &event.id);
        push_number(sql, Some(event.event_index));
        push_field(sql, Some(&event.session_id));
        push_number(sql, Some(event.created_at));
        push_field(sql, Some(&event.connection_id));
        push_field(sql, Some(&event.sender));
        push_json(sql, Some(&event.payload));
        if self.columns.event_extra {
            push_json(sql, event.extra.as_ref());
        }
    }

    fn push_session(&self, sql: &mut String, session: &SessionRecord) {
        push_text(sql, &session.id);
        push_field(sql, Some(&session.agent));
        push_field(sql, Some(&session.agent_session_id));
        push_field(sql, Some(&session.last_connection_id));
        push_number(sql, Some(session.created_at));
        push_number(sql, session.destroyed_at);
        push_field(sql, session.sandbox_id.as_ref());
        push_json(sql, session.session_init.as_ref());
        push_json(sql, session.config_options.as_ref());
        push_json(sql, session.modes.as_ref());
        if self.columns.session_extra {
            push_json(sql, session.extra.as_ref());
        }
    }

    /// The session with this id, as a JSON object.
    pub async fn get_session(
        &self,
        connection: &mut Connection,
        id: &str,
    ) -> Result<Option<JsonText>, Failure> {
        let sql = format!("{}{} WHERE id = {}", self.prefix, self.select_sessions, text(id));
        let rows = connection.fetch(&sql).await?;
        let session = rows.first().map(|row| with_session(row, json::session_text)).transpose();
        session.map_err(Failure::of_call)
    }

    /// Sessions by `(created_at, id)`.
    pub async fn list_sessions(
        &self,
        connection: &mut Connection,
        request: &PageRequest,
    ) -> Result<Page, Failure> {
        let start = cursor::parse(request.cursor.as_deref(), SESSIONS_LIST);
        let mut page = PageBuilder::new(SESSIONS_LIST, request.limit, start.offset);
        let from = match &start.after {
            Some(position) => format!(" WHERE {}", follows("created_at", position)),
            None => String::new(),
        };
        let sql = format!("{}{}{from}", self.prefix, self.select_sessions);
        let sql = with_order(sql, "created_at", &start, &page);
        for row in connection.fetch(&sql).await? {
            with_session(&row, |session| page.add_session(session)).map_err(Failure::of_call)?;
        }
        Ok(page.finish())
    }

    /// A session's events by `(event_index, id)`.
    pub async fn list_events(
        &self,
        connection: &mut Connection,
        session_id: &str,
        request: &PageRequest,
    ) -> Result<Page, Failure> {
        let start = cursor::parse(request.cursor.as_deref(), session_id);
        let mut page = PageBuilder::new(session_id, request.limit, start.offset);
        let from = match &start.after {
            Some(position) => format!(" AND {}", follows("event_index", position)),
            None => String::new(),
        };
        let (prefix, select, id) = (&self.prefix, &self.select_events, text(session_id));
        let sql = format!("{prefix}{select} WHERE session_id = {id}{from}");
        let sql = with_order(sql, "event_index", &start, &page);
        for row in connection.fetch(&sql).await? {
            with_event(&row, |event| page.add_event(event)).map_err(Failure::of_call)?;
        }
        Ok(page.finish())
    }
}

fn push_rows<T>(sql: &mut String, rows: HashMap<&str, T>, push: impl Fn(&mut String, T)) {
    let mut rows: Vec<(&str, T)> = rows.into_iter().collect();
    rows.sort_unstable_by_key(|(id, _)| *id);
    for (number, (_, row)) in rows.into_iter().enumerate() {
        sql.push_str(if number == 0 { "(" } else { ",(" });
        push(sql, row);
        sql.push(')');
    }
}

fn push_field(sql: &mut String, value: Option<&String>) {
    sql.push(',');
    push_optional_text(sql, value.map(String::as_str));
}

fn push_json(sql: &mut String, json: Option<&JsonText>) {
    sql.push(',');
    push_optional_text(sql, json.map(|json| wrap::stored(json)).as_deref());
}

fn push_number(sql: &mut String, number: Option<i64>) {
    let written = match number {
        Some(number) => write!(sql, ",{number}"),
        None => write!(sql, ",NULL"),
    };
    written.expect("a String takes whatever is written");
}

fn follows(order: &str, position: &Position) -> String {
    format!("({order}, id) > ({}, {})", position.order, text(&position.id))
}

fn with_order(
    mut sql: String,
    order: &str,
    start: &cursor::Start,
    page: &PageBuilder<'_>,
) -> String {
    // PostgreSQL counts with signs; nobody has more rows than that.
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sql.push_str(&format!(" ORDER BY {order}, id LIMIT {}", count(page.rows_wanted())));
    if start.after.is_none() && start.offset > 0 {
        sql.push_str(&format!(" OFFSET {}", count(start.offset)));
    }
    sql
}

fn with_session<T>(
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
    }))
}

fn with_event<T>(row: &PgRow, use_row: impl FnOnce(&EventRow<'_>) -> T) -> Result<T, StoreError> {
    let table = "event";
    let (payload, extra) = (optional_json(row, 6, table)?, optional_json(row, 7, table)?);
    Ok(use_row(&EventRow {
        id: required(row, 0, table)?,
        event_index: number(row, 1, table)?,
        session_id: required(row, 2, table)?,
        created_at: number(row, 3, table)?,
        connection_id: required(row, 4, table)?,
        sender: required(row, 5, table)?,
        payload: payload.as_deref().ok_or_else(|| corrupt(row, table, "its payload is missing"))?,
        extra: extra.as_deref(),
    }))
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

fn required<'row>(row: &'row PgRow, column: usize, table: &str) -> Result<&'row str, StoreError> {
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
