//! The statements, and rows in and out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::cursor::{self, Position};
use crate::error::StoreError;
use crate::json;
use crate::layout::{EXTRA_COLUMN, Layout, OptionalColumns, Table};
use crate::model::{
    EventRow, JsonText, Number, Page, PageRequest, SessionEvent, SessionRecord, SessionRow,
};
use crate::page::{PageBuilder, SESSIONS_LIST, sql_count};
use crate::replay::{ReplayOptions, Window, WindowBuilder};
use crate::store::Row;

use super::connection::Connection;
use super::failure::{self, Failure};
use super::message::Message;
use super::quote;
use super::schema::Schema;
use super::wrap;

/// Sessions as JSON objects, or why one can't be read.
pub type SessionsById = HashMap<String, Result<JsonText, StoreError>>;

/// The statements for the tables that were found.
#[derive(Debug)]
pub struct Statements {
    /// `None` for prepared statements.
    prefix: Option<Prefix>,
    sessions: Upsert,
    events: Upsert,
    select_sessions: String,
    select_events: String,
    columns: OptionalColumns,
    /// Names of unique indexes over `(session_id, event_index)`.
    order_constraints: Vec<String>,
}

/// What goes before a statement, in the same message and so in the same transaction.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// Sets the timeouts that the user gave.
    pub timeouts: String,
    /// Before a statement of several rows: one that somebody else has locked is soon found, and the
    /// others don't wait with it.
    pub of_several: String,
}

/// How rows go into a table.
#[derive(Debug)]
struct Upsert {
    table: String,
    columns: Vec<ColumnType>,
}

/// A column, and how its values are sent.
#[derive(Debug)]
struct ColumnType {
    name: &'static str,
    is_number: bool,
    /// As the table has it.
    declared_type: String,
}

const SESSION_COLUMNS: [&str; 10] = [
    "id",
    "agent",
    "agent_session_id",
    "last_connection_id",
    "created_at",
    "destroyed_at",
    "sandbox_id",
    "session_init_json",
    "config_options_json",
    "modes_json",
];
const EVENT_COLUMNS: [&str; 7] =
    ["id", "event_index", "session_id", "created_at", "connection_id", "sender", "payload_json"];
const NUMBER_COLUMNS: [&str; 3] = ["event_index", "created_at", "destroyed_at"];

/// The order that rows are read in, by a column and then the id.
#[derive(Clone, Copy)]
struct Order {
    column: &'static str,
    comes_after: &'static str,
    direction: &'static str,
}

const OLDEST_SESSION_FIRST: Order =
    Order { column: "stored.created_at", comes_after: ">", direction: "ASC" };
const OLDEST_EVENT_FIRST: Order =
    Order { column: "stored.event_index", comes_after: ">", direction: "ASC" };
const NEWEST_EVENT_FIRST: Order =
    Order { column: "stored.event_index", comes_after: "<", direction: "DESC" };

/// A replay reads few rows at first, as they may be large, …
const FIRST_REPLAY_STEP_ROWS: usize = 32;
/// … and then ever more, as each step costs a round trip, …
const REPLAY_STEP_GROWTH: usize = 4;
const MAX_REPLAY_STEP_ROWS: usize = 1_000;
/// … but about so many bytes, as far as the rows before tell.
const REPLAY_STEP_BYTES: usize = 8 * 1024 * 1024;

/// Where rows are read from.
struct RowStart {
    /// How many rows come before, counted only where there is no `after`.
    offset: usize,
    /// The row before, by the order's column and its id.
    after: Option<(Number, String)>,
}

impl From<cursor::Start> for RowStart {
    fn from(start: cursor::Start) -> Self {
        Self {
            offset: usize::try_from(start.offset).unwrap_or(usize::MAX),
            after: start.after.map(|Position { order, id }| (Number::Integer(order), id)),
        }
    }
}

/// A value of a row.
enum Value<'row> {
    Text(Option<Cow<'row, str>>),
    Number(Option<i64>),
}

impl Statements {
    /// The statements for a schema with this layout.
    pub fn new(
        schema: &Schema,
        layout: &Layout,
        order_constraints: Vec<String>,
        prefix: Option<Prefix>,
    ) -> Self {
        let is_prepared = prefix.is_none();
        let columns = layout.optional_columns();
        let select = |table: &str, names: &[&str], has_extra| {
            // The simple protocol sends texts anyway.
            let cast = if is_prepared { "::text" } else { "" };
            let names: Vec<String> = names.iter().map(|name| format!("{name}{cast}")).collect();
            let extra = if has_extra { format!("extra_json{cast}") } else { "NULL".to_owned() };
            format!("SELECT {}, {extra} FROM {} AS stored", names.join(", "), schema.table(table))
        };
        Self {
            prefix,
            sessions: Upsert::new(schema, "sessions", &SESSION_COLUMNS, layout.sessions.as_ref()),
            events: Upsert::new(schema, "events", &EVENT_COLUMNS, layout.events.as_ref()),
            select_sessions: select("sessions", &SESSION_COLUMNS, columns.session_extra),
            select_events: select("events", &EVENT_COLUMNS, columns.event_extra),
            columns,
            order_constraints,
        }
    }

    /// Says of a conflict in the order of a session's events what the SDK looks for, where the server
    /// itself withholds the details.
    pub fn explain(&self, failure: Failure) -> Failure {
        let is_of_order = |name: &String| self.order_constraints.contains(name);
        match failure.error {
            StoreError::Constraint { database_code, .. }
                if failure.constraint.as_ref().is_some_and(is_of_order) =>
            {
                let message = failure::unique_message("events", &["session_id", "event_index"]);
                Failure { error: StoreError::Constraint { message, database_code }, ..failure }
            }
            error => Failure { error, ..failure },
        }
    }

    /// Whether the row holds fields that the tables have no column for.
    pub fn drops_fields_of(&self, row: &Row) -> bool {
        match row {
            Row::Session(session) => session.extra.is_some() && !self.columns.session_extra,
            Row::Event(event) => event.extra.is_some() && !self.columns.event_extra,
        }
    }

    /// The messages that store these rows, the last of an id winning; one, unless statements are
    /// prepared. Both kinds are sorted by id, and events come first: messages that lock the same rows
    /// lock them in the same order.
    pub fn upsert<'row>(&self, rows: impl Iterator<Item = &'row Row>) -> Vec<Message> {
        let (mut sessions, mut events) = (BTreeMap::new(), BTreeMap::new());
        for row in rows {
            match row {
                Row::Session(session) => drop(sessions.insert(&session.id, session)),
                Row::Event(event) => drop(events.insert(&event.id, event)),
            }
        }
        let events: Vec<Vec<Value<'_>>> = events.into_values().map(event_values).collect();
        let sessions: Vec<Vec<Value<'_>>> = sessions.into_values().map(session_values).collect();
        let has_several = events.len() + sessions.len() > 1;
        let tables = [(&self.events, events), (&self.sessions, sessions)];
        let tables = tables.into_iter().filter(|(_, rows)| !rows.is_empty());
        let Some(prefix) = &self.prefix else {
            return tables.map(|(table, rows)| table.prepared(&rows)).collect();
        };
        let mut sql = prefix.timeouts.clone();
        if has_several {
            sql.push_str(&prefix.of_several);
        }
        for (table, rows) in tables {
            table.push_simple(&mut sql, &rows);
        }
        vec![Message::simple(sql)]
    }

    /// The sessions with these ids, those that there are.
    pub async fn get_sessions<'id>(
        &self,
        connection: &mut Connection,
        ids: impl Iterator<Item = &'id str>,
    ) -> Result<SessionsById, Failure> {
        let message = self.message().sql(&self.select_sessions);
        let message = if self.prefix.is_none() {
            message.sql(" WHERE id = ANY (").parameter(ids.collect::<Vec<&str>>()).sql(")")
        } else {
            let in_list =
                ids.enumerate().fold(message.sql(" WHERE id IN ("), |message, (n, id)| {
                    message.sql(if n == 0 { "" } else { "," }).text(id)
                });
            in_list.sql(")")
        };
        let rows = connection.fetch(message).await?;
        let sessions = rows.iter().map(|row| {
            let id = required(row, 0, "session").map_err(Failure::of_call)?.to_owned();
            Ok((id, with_session(row, json::session_text)))
        });
        sessions.collect()
    }

    /// Sessions by `(created_at, id)`.
    pub async fn list_sessions(
        &self,
        connection: &mut Connection,
        request: &PageRequest,
    ) -> Result<Page, Failure> {
        let start = cursor::parse(request.cursor.as_deref(), SESSIONS_LIST);
        let mut page = PageBuilder::new(SESSIONS_LIST, request.limit, start.offset);
        let message = self.message().sql(&self.select_sessions).sql(" WHERE true");
        let message = from_start(message, OLDEST_SESSION_FIRST, &start.into(), page.rows_wanted());
        for row in connection.fetch(message).await? {
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
        let message = self.message().sql(&self.select_events);
        let message = message.sql(" WHERE session_id = ").text(session_id);
        let message = from_start(message, OLDEST_EVENT_FIRST, &start.into(), page.rows_wanted());
        for row in connection.fetch(message).await? {
            with_event(&row, |event| page.add_event(event)).map_err(Failure::of_call)?;
        }
        Ok(page.finish())
    }

    /// The replay window of a session; `None` if it has no events. Reads backwards, in steps, and
    /// stops when the window is full.
    pub async fn replay(
        &self,
        connection: &mut Connection,
        session_id: &str,
        options: &ReplayOptions,
    ) -> Result<Option<Window>, Failure> {
        let mut window = WindowBuilder::new(options);
        let mut start = RowStart { offset: 0, after: None };
        let mut step = FIRST_REPLAY_STEP_ROWS;
        loop {
            let message = self.message().sql(&self.select_events);
            let message = message.sql(" WHERE session_id = ").text(session_id);
            let rows =
                connection.fetch(from_start(message, NEWEST_EVENT_FIRST, &start, step)).await?;
            let mut bytes = 0;
            for row in &rows {
                let pushed = with_event_leniently(row, |event| {
                    bytes += event.payload.len();
                    start.after = Some((event.event_index, event.id.to_owned()));
                    window.push(event)
                });
                let wants_more = pushed.or_else(|unreadable| {
                    start.after = None;
                    window.skip().ok_or(unreadable)
                });
                if !wants_more.map_err(Failure::of_call)? {
                    return Ok(window.finish());
                }
            }
            if rows.len() < step {
                return Ok(window.finish());
            }
            start.offset += rows.len();
            let room = REPLAY_STEP_BYTES / (bytes / rows.len()).max(1);
            step = (step * REPLAY_STEP_GROWTH).min(MAX_REPLAY_STEP_ROWS).min(room.max(1));
        }
    }

    fn message(&self) -> Message {
        match &self.prefix {
            Some(prefix) => Message::simple(prefix.timeouts.as_str()),
            None => Message::prepared(""),
        }
    }
}

impl Upsert {
    fn new(
        schema: &Schema,
        table: &'static str,
        names: &[&'static str],
        layout: Option<&Table>,
    ) -> Self {
        let column = |name: &'static str| {
            let declared_type = layout?.column(name)?.declared_type.clone();
            Some(ColumnType { name, is_number: NUMBER_COLUMNS.contains(&name), declared_type })
        };
        let columns = names.iter().copied().chain([EXTRA_COLUMN]).filter_map(column).collect();
        Self { table: schema.table(table), columns }
    }

    fn push_simple(&self, sql: &mut String, rows: &[Vec<Value<'_>>]) {
        sql.push_str(&format!("INSERT INTO {} ({}) VALUES ", self.table, self.names("")));
        for (number, row) in rows.iter().enumerate() {
            sql.push_str(if number == 0 { "(" } else { "),(" });
            // A field that there is no column for comes last, and is left out.
            for (place, value) in row.iter().take(self.columns.len()).enumerate() {
                if place > 0 {
                    sql.push(',');
                }
                value.push(sql);
            }
        }
        sql.push(')');
        sql.push_str(&self.on_conflict());
        sql.push(';');
    }

    /// One array a column: the statement is the same for any number of rows.
    fn prepared(&self, rows: &[Vec<Value<'_>>]) -> Message {
        let values: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{}::{}", column.name, column.declared_type))
            .collect();
        let values = values.join(", ");
        let insert =
            format!("INSERT INTO {} ({}) SELECT {values} FROM unnest(", self.table, self.names(""));
        let mut message = Message::prepared(insert);
        for (place, column) in self.columns.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let of_column = rows.iter().map(|row| &row[place]);
            message = if column.is_number {
                let numbers: Vec<Option<i64>> = of_column.map(Value::number).collect();
                message.sql(comma).parameter(numbers).sql("::bigint[]")
            } else {
                let texts: Vec<Option<&str>> = of_column.map(Value::text).collect();
                message.sql(comma).parameter(texts).sql("::text[]")
            };
        }
        let bytes = rows.iter().flatten().filter_map(Value::text).map(str::len).sum();
        let message = message.with_parameter_bytes(bytes);
        message.sql(&format!(") AS rows ({}){}", self.names(""), self.on_conflict()))
    }

    fn names(&self, prefix: &str) -> String {
        let names: Vec<String> =
            self.columns.iter().map(|column| format!("{prefix}{}", column.name)).collect();
        names.join(", ")
    }

    fn on_conflict(&self) -> String {
        let replaced = self.columns.iter().filter(|column| column.name != "id");
        let replaced: Vec<String> =
            replaced.map(|ColumnType { name, .. }| format!("{name} = excluded.{name}")).collect();
        format!(" ON CONFLICT (id) DO UPDATE SET {}", replaced.join(", "))
    }
}

impl Value<'_> {
    fn push(&self, sql: &mut String) {
        match self {
            Self::Text(Some(text)) => quote::push_text(sql, text),
            Self::Number(Some(number)) => {
                write!(sql, "{number}").expect("a String takes whatever is written");
            }
            Self::Text(None) | Self::Number(None) => sql.push_str("NULL"),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => text.as_deref(),
            Self::Number(_) => None,
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => *number,
            Self::Text(_) => None,
        }
    }
}

/// In the order of [`EVENT_COLUMNS`].
fn event_values(event: &SessionEvent) -> Vec<Value<'_>> {
    vec![
        text_value(&event.id),
        Value::Number(Some(event.event_index)),
        text_value(&event.session_id),
        Value::Number(Some(event.created_at)),
        text_value(&event.connection_id),
        text_value(&event.sender),
        json_value(Some(&event.payload)),
        json_value(event.extra.as_ref()),
    ]
}

/// In the order of [`SESSION_COLUMNS`].
fn session_values(session: &SessionRecord) -> Vec<Value<'_>> {
    vec![
        text_value(&session.id),
        text_value(&session.agent),
        text_value(&session.agent_session_id),
        text_value(&session.last_connection_id),
        Value::Number(Some(session.created_at)),
        Value::Number(session.destroyed_at),
        Value::Text(session.sandbox_id.as_deref().map(Cow::Borrowed)),
        json_value(session.session_init.as_ref()),
        json_value(session.config_options.as_ref()),
        json_value(session.modes.as_ref()),
        json_value(session.extra.as_ref()),
    ]
}

fn text_value(text: &str) -> Value<'_> {
    Value::Text(Some(text.into()))
}

fn json_value(json: Option<&JsonText>) -> Value<'_> {
    Value::Text(json.map(|json| wrap::stored(json)))
}

/// The rows from where a page starts, in order. A bare name would mean the text that is selected.
fn from_start(
    message: Message,
    order: Order,
    start: &RowStart,
    rows: impl TryInto<i64>,
) -> Message {
    let Order { column, comes_after, direction } = order;
    let message = match &start.after {
        Some((number, id)) => {
            let message = message.sql(&format!(" AND ({column}, stored.id) {comes_after} ("));
            let message = match number {
                Number::Integer(integer) => message.number(*integer),
                // As PostgreSQL prints and reads it.
                Number::Real(real) => message.sql(&format!("{real:?}")),
            };
            message.sql(", ").text(id).sql(")")
        }
        None => message,
    };
    let order = format!(" ORDER BY {column} {direction}, stored.id {direction} LIMIT ");
    let message = message.sql(&order).number(sql_count(rows));
    match start.after {
        None if start.offset > 0 => message.sql(" OFFSET ").number(sql_count(start.offset)),
        _ => message,
    }
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
    let payload = optional_json(row, 6, table)?;
    let payload = payload.ok_or_else(|| corrupt(row, table, "its payload is missing"))?;
    let extra = optional_json(row, 7, table)?;
    Ok(use_row(&event_row(row, &payload, extra.as_deref())?))
}

/// As [`with_event`], but a payload that can't be read is an empty one, which isn't JSON.
fn with_event_leniently<T>(
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
