//! The tables: recognising every layout in the field, and bringing older ones up to date.
//!
//! The tables are the TypeScript drivers', plus `extra_json`, a nullable column for the
//! fields of newer SDKs, and an index for listing sessions. Those drivers go on working.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;
use crate::layout::{
    Column, EVENT_COLUMNS, EVENT_INDEX_COLUMN, EXTRA_COLUMN, Layout, NEWER_SESSION_COLUMNS, Table,
};

use super::failure;

/// The types of the columns that older layouts lack.
const NEWER_COLUMN_TYPE: &str = "TEXT";

const CREATE_SESSIONS: &str = "CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  agent TEXT NOT NULL,
  agent_session_id TEXT NOT NULL,
  last_connection_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  destroyed_at INTEGER,
  sandbox_id TEXT,
  session_init_json TEXT,
  config_options_json TEXT,
  modes_json TEXT,
  extra_json TEXT
)";

const EVENT_DEFINITIONS: &str = "
  id TEXT PRIMARY KEY,
  event_index INTEGER NOT NULL,
  session_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  connection_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  payload_json TEXT NOT NULL,
  extra_json TEXT";

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
        apply(&transaction, &layout).map_err(failure::store_error)?;
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
        Some(Column { name, .. }) => Err(StoreError::CannotOpen {
            database: filename.to_owned(),
            reason: format!(
                "its table \"events\" is of an old layout, and has a generated column \"{name}\" that an upgrade would lose; drop that column first"
            ),
            database_code: None,
        }),
        None => Ok(()),
    }
}

fn apply(connection: &Connection, layout: &Layout) -> rusqlite::Result<()> {
    match &layout.sessions {
        None => connection.execute_batch(CREATE_SESSIONS)?,
        Some(sessions) => {
            for name in NEWER_SESSION_COLUMNS.into_iter().filter(|name| !sessions.has(name)) {
                connection.execute_batch(&format!(
                    "ALTER TABLE sessions ADD COLUMN {name} {NEWER_COLUMN_TYPE}"
                ))?;
            }
        }
    }
    match &layout.events {
        None => {
            connection.execute_batch(&format!("CREATE TABLE events ({EVENT_DEFINITIONS}\n)"))?
        }
        Some(events) if events.is_outdated() => rebuild_events(connection, events)?,
        Some(events) if !events.has(EXTRA_COLUMN) => {
            connection.execute_batch(&format!(
                "ALTER TABLE events ADD COLUMN {EXTRA_COLUMN} {NEWER_COLUMN_TYPE}"
            ))?;
        }
        Some(_) => {}
    }
    for (_, sql) in CREATE_INDEXES {
        connection.execute_batch(sql)?;
    }
    Ok(())
}

/// Copies the events into a table of the current layout: ids become text, an event without an
/// index gets its rank by time within the session. Columns, indexes and triggers that others
/// added are kept; not their CHECK constraints.
fn rebuild_events(connection: &Connection, events: &Table) -> rusqlite::Result<()> {
    let dependents = dependents_of_events(connection)?;
    let others: Vec<&Column> = events
        .columns
        .iter()
        .filter(|column| {
            !EVENT_COLUMNS.contains(&column.name.as_str())
                && column.name != EVENT_INDEX_COLUMN
                && column.name != EXTRA_COLUMN
        })
        .collect();
    let mut definitions = String::new();
    let mut copied = String::new();
    for column in others {
        definitions.push_str(&definition(column));
        copied.push_str(&format!(", {}", quoted(&column.name)));
    }
    let index = if events.has(EVENT_INDEX_COLUMN) { "event_index" } else { "NULL" };
    let extra = if events.has(EXTRA_COLUMN) { EXTRA_COLUMN } else { "NULL" };
    connection.execute_batch(&format!(
        "CREATE TABLE sandbox_agent_persist_events ({EVENT_DEFINITIONS}{definitions}\n);
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
