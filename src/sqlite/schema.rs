//! The tables: recognising every layout in the field, and bringing older ones up to date.
//!
//! The tables are the TypeScript drivers', plus `extra_json`, a nullable column for the
//! fields of newer SDKs, and an index for listing sessions. Those drivers go on working.

use rusqlite::{Connection, TransactionBehavior};

use crate::columns::{ColumnSpec, EVENT_INDEX, EVENTS, EXTRA, ID, Kind, SESSIONS};
use crate::error::StoreError;
use crate::layout::{Column, Layout, Table};

use super::failure;

/// The first is the TypeScript drivers' own.
const CREATE_INDEXES: [(&str, &str); 2] = [
    (
        "idx_events_session_order",
        "CREATE INDEX IF NOT EXISTS idx_events_session_order ON events(session_id, event_index, id)",
    ),
    (
        "idx_sessions_created_order",
        "CREATE INDEX IF NOT EXISTS idx_sessions_created_order ON sessions(created_at, id)",
    ),
];

/// Looks at a database without changing it. Refuses tables that aren't a session store's.
pub fn inspect(connection: &Connection, filename: &str) -> Result<Layout, StoreError> {
    let found = |table| find_table(connection, table);
    let sessions = found("sessions").map_err(|error| unreadable(error, filename))?;
    let events = found("events").map_err(|error| unreadable(error, filename))?;
    let has_indexes = has_indexes(connection).map_err(|error| unreadable(error, filename))?;
    let layout = Layout { sessions, events, has_indexes };
    match layout.foreign_table() {
        Some((table, reason)) => Err(StoreError::ForeignTable {
            container: format!("database \"{filename}\""),
            kind: "file",
            table,
            reason,
        }),
        None => Ok(layout),
    }
}

fn unreadable(error: rusqlite::Error, filename: &str) -> StoreError {
    if failure::primary_code(&error) == Some(rusqlite::ffi::SQLITE_NOTADB) {
        return StoreError::NotADatabase { filename: filename.to_owned() };
    }
    failure::store_error(error)
}

/// `None` where there is no such table; a view has columns too, but no key.
fn find_table(connection: &Connection, table: &str) -> rusqlite::Result<Option<Table>> {
    let mut statement = connection.prepare(
        "SELECT lower(name), type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)",
    )?;
    let columns = statement
        .query_map([table], |row| {
            let is_not_null: bool = row.get(2)?;
            let default: Option<String> = row.get(3)?;
            let key_position: i64 = row.get(4)?;
            let hidden: i64 = row.get(5)?;
            Ok(Column {
                name: row.get(0)?,
                declared_type: row.get(1)?,
                is_required: is_not_null && default.is_none() && hidden == 0,
                is_nullable: !is_not_null,
                is_key: key_position > 0,
                is_generated: hidden != 0,
                default,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((!columns.is_empty()).then_some(Table { columns }))
}

fn has_indexes(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?1")?;
    for (name, _) in CREATE_INDEXES {
        if !statement.exists([name])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates what is missing and rebuilds what is too old, in one transaction, or does nothing.
pub fn upgrade(connection: &mut Connection, filename: &str) -> Result<Layout, StoreError> {
    // Renaming the rebuilt table must not look into other people's views and triggers.
    connection.pragma_update(None, "legacy_alter_table", true).map_err(failure::store_error)?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failure::store_error)?;
    // Another process may have been faster.
    let layout = inspect(&transaction, filename)?;
    refuse_generated_columns(&layout, filename)?;
    if !layout.is_current() {
        let of_write = |error| failure::store_error_of_write(&transaction, error);
        apply(&transaction, &layout).map_err(of_write)?;
    }
    let layout = inspect(&transaction, filename)?;
    transaction.commit().map_err(failure::store_error)?;
    connection.pragma_update(None, "legacy_alter_table", false).map_err(failure::store_error)?;
    Ok(layout)
}

/// What is computed in an old table can't be carried over: SQLite doesn't tell how it is.
fn refuse_generated_columns(layout: &Layout, filename: &str) -> Result<(), StoreError> {
    let old_events = layout.events.as_ref().filter(|events| events.is_outdated());
    let generated =
        old_events.and_then(|events| events.columns.iter().find(|column| column.is_generated));
    match generated {
        Some(Column { name, .. }) => Err(StoreError::cannot_open(
            filename,
            format!(
                "its table \"events\" is of an old layout, and has a generated column \
                 \"{name}\" that an upgrade would lose; drop that column first"
            ),
        )),
        None => Ok(()),
    }
}

fn apply(connection: &Connection, layout: &Layout) -> rusqlite::Result<()> {
    match &layout.sessions {
        None => create_table(connection, "sessions", &SESSIONS)?,
        Some(sessions) => add_missing(connection, "sessions", &SESSIONS, sessions)?,
    }
    match &layout.events {
        None => create_table(connection, "events", &EVENTS)?,
        Some(events) if events.is_outdated() => rebuild_events(connection, events)?,
        Some(events) => add_missing(connection, "events", &EVENTS, events)?,
    }
    for (_, sql) in CREATE_INDEXES {
        connection.execute_batch(sql)?;
    }
    Ok(())
}

fn create_table(
    connection: &Connection,
    table: &str,
    columns: &[ColumnSpec],
) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("CREATE TABLE {table} ({}\n)", definitions(columns)))
}

fn add_missing(
    connection: &Connection,
    table: &str,
    columns: &[ColumnSpec],
    found: &Table,
) -> rusqlite::Result<()> {
    for column in found.lacking(columns) {
        let (name, kind) = (column.name, declared_type(column.kind));
        connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind}"))?;
    }
    Ok(())
}

fn definitions(columns: &[ColumnSpec]) -> String {
    let definition = |column: &ColumnSpec| {
        let constraint = match column {
            ColumnSpec { name: ID, .. } => " PRIMARY KEY",
            ColumnSpec { is_required: true, .. } => " NOT NULL",
            ColumnSpec { .. } => "",
        };
        format!("\n  {} {}{constraint}", column.name, declared_type(column.kind))
    };
    columns.iter().map(definition).collect::<Vec<_>>().join(",")
}

fn declared_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Json => "TEXT",
        Kind::Integer => "INTEGER",
    }
}

/// Copies the events into a table of the current layout: ids become text, an event without an
/// index gets its rank by time within the session. Columns, indexes and triggers that others
/// added are kept; not their CHECK constraints.
fn rebuild_events(connection: &Connection, events: &Table) -> rusqlite::Result<()> {
    let dependents = dependents_of_events(connection)?;
    let others: Vec<&Column> = events
        .columns
        .iter()
        .filter(|column| EVENTS.iter().all(|ours| ours.name != column.name))
        .collect();
    let mut definitions = definitions(&EVENTS);
    let mut copied = String::new();
    for column in others {
        definitions.push_str(&definition(column));
        copied.push_str(&format!(", {}", quoted(&column.name)));
    }
    let index = if events.has(EVENT_INDEX) { EVENT_INDEX } else { "NULL" };
    let extra = if events.has(EXTRA) { EXTRA } else { "NULL" };
    connection.execute_batch(&format!(
        "CREATE TABLE sandbox_agent_persist_events ({definitions}\n);
         INSERT INTO sandbox_agent_persist_events
           (id, event_index, session_id, created_at, connection_id, sender, payload_json, extra_json{copied})
         SELECT CAST(id AS TEXT),
           COALESCE({index}, ROW_NUMBER() OVER (PARTITION BY session_id ORDER BY created_at, id)),
           session_id, created_at, connection_id, sender, payload_json, {extra}{copied}
         FROM events;
         DROP TABLE events;
         ALTER TABLE sandbox_agent_persist_events RENAME TO events;"
    ))?;
    for sql in dependents {
        connection.execute_batch(&sql)?;
    }
    Ok(())
}

/// A column that somebody added, as it goes into the rebuilt table.
fn definition(column: &Column) -> String {
    let mut definition = format!(",\n  {}", quoted(&column.name));
    if !column.declared_type.is_empty() {
        definition.push(' ');
        definition.push_str(&quoted(&column.declared_type));
    }
    if !column.is_nullable {
        definition.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        definition.push_str(&format!(" DEFAULT ({default})"));
    }
    definition
}

/// The statements that made the indexes and triggers of `events`.
fn dependents_of_events(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT sql FROM sqlite_schema
             WHERE type IN ('index', 'trigger') AND lower(tbl_name) = 'events' AND sql IS NOT NULL
               AND name <> 'idx_events_session_order'",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
