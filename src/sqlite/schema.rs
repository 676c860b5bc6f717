//! The tables: recognising every layout in the field, and bringing older ones up to date.
//!
//! The tables are the TypeScript drivers', plus `extra_json`, a nullable column for the
//! fields of newer SDKs, and an index for listing sessions. Those drivers go on working.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;

use super::failure;

/// The columns of `sessions` that older layouts lack, and their types.
const NEWER_SESSION_COLUMNS: [(&str, &str); 4] = [
    ("sandbox_id", "TEXT"),
    ("config_options_json", "TEXT"),
    ("modes_json", "TEXT"),
    (EXTRA_COLUMN, "TEXT"),
];
/// What every layout of `sessions` has.
const SESSION_COLUMNS: [&str; 7] = [
    "id",
    "agent",
    "agent_session_id",
    "last_connection_id",
    "created_at",
    "destroyed_at",
    "session_init_json",
];
/// What every layout of `events` has.
const EVENT_COLUMNS: [&str; 6] =
    ["id", "session_id", "created_at", "connection_id", "sender", "payload_json"];
const EVENT_INDEX_COLUMN: &str = "event_index";
const EXTRA_COLUMN: &str = "extra_json";

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

/// What was found in a database.
#[derive(Debug)]
pub struct Layout {
    sessions: Option<Table>,
    events: Option<Table>,
    has_indexes: bool,
}

/// Columns that statements read if they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalColumns {
    pub sandbox_id: bool,
    pub config_options: bool,
    pub modes: bool,
    pub session_extra: bool,
    pub event_extra: bool,
}

#[derive(Debug)]
struct Table {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    name: String,
    declared_type: String,
    is_required: bool,
    is_nullable: bool,
    is_key: bool,
    is_generated: bool,
    /// An SQL expression.
    default: Option<String>,
}

impl Layout {
    /// Whether nothing needs to be created or changed.
    pub fn is_current(&self) -> bool {
        let sessions_are = self.sessions.as_ref().is_some_and(|sessions| {
            NEWER_SESSION_COLUMNS.iter().all(|(name, _)| sessions.has(name))
        });
        let events_are = self
            .events
            .as_ref()
            .is_some_and(|events| !needs_rebuild(events) && events.has(EXTRA_COLUMN));
        sessions_are && events_are && self.has_indexes
    }

    /// Whether every row can be read as it is.
    pub fn is_readable(&self) -> bool {
        self.sessions.is_some() && self.events.as_ref().is_some_and(|events| !needs_rebuild(events))
    }

    /// Which columns there are to read.
    pub fn optional_columns(&self) -> OptionalColumns {
        let session = |name| self.sessions.as_ref().is_some_and(|table| table.has(name));
        OptionalColumns {
            sandbox_id: session("sandbox_id"),
            config_options: session("config_options_json"),
            modes: session("modes_json"),
            session_extra: session(EXTRA_COLUMN),
            event_extra: self.events.as_ref().is_some_and(|table| table.has(EXTRA_COLUMN)),
        }
    }
}

impl Table {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn has_integer_ids(&self) -> bool {
        self.column("id").is_some_and(|id| id.declared_type.to_ascii_uppercase().contains("INT"))
    }

    fn has(&self, name: &str) -> bool {
        self.column(name).is_some()
    }
}

/// The oldest layouts number events in an integer column, or leave the order to the time.
fn needs_rebuild(events: &Table) -> bool {
    let has_integer_ids = events.has_integer_ids();
    let may_lack_an_index = events.column(EVENT_INDEX_COLUMN).is_none_or(|index| index.is_nullable);
    has_integer_ids || may_lack_an_index
}

/// Looks at a database without changing it. Refuses tables that aren't a session store's.
pub fn inspect(connection: &Connection, filename: &str) -> Result<Layout, StoreError> {
    let found = |table| find_table(connection, table);
    let sessions = found("sessions").map_err(|error| unreadable(error, filename))?;
    let events = found("events").map_err(|error| unreadable(error, filename))?;
    let refuse =
        |table, reason| StoreError::ForeignTable { filename: filename.to_owned(), table, reason };
    let known_session_columns: Vec<&str> = SESSION_COLUMNS
        .into_iter()
        .chain(NEWER_SESSION_COLUMNS.into_iter().map(|(name, _)| name))
        .collect();
    let why_foreign_sessions = |table: &Table| {
        why_foreign(table, &SESSION_COLUMNS, &known_session_columns)
            .or_else(|| table.has_integer_ids().then(|| "its ids are integers".to_owned()))
    };
    if let Some(reason) = sessions.as_ref().and_then(why_foreign_sessions) {
        return Err(refuse("sessions", reason));
    }
    let known_event_columns: Vec<&str> =
        EVENT_COLUMNS.into_iter().chain([EVENT_INDEX_COLUMN, EXTRA_COLUMN]).collect();
    if let Some(reason) =
        events.as_ref().and_then(|table| why_foreign(table, &EVENT_COLUMNS, &known_event_columns))
    {
        return Err(refuse("events", reason));
    }
    let has_indexes = has_indexes(connection).map_err(|error| unreadable(error, filename))?;
    Ok(Layout { sessions, events, has_indexes })
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

/// Why a table isn't one of ours, if it isn't.
fn why_foreign(table: &Table, needed: &[&str], known: &[&str]) -> Option<String> {
    if let Some(missing) = needed.iter().find(|name| !table.has(name)) {
        return Some(format!("it has no column \"{missing}\""));
    }
    let keys: Vec<&str> = table
        .columns
        .iter()
        .filter(|column| column.is_key)
        .map(|column| column.name.as_str())
        .collect();
    if keys != ["id"] {
        return Some("its primary key is not \"id\"".to_owned());
    }
    table
        .columns
        .iter()
        .find(|column| column.is_required && !known.contains(&column.name.as_str()))
        .map(|column| format!("it needs a value for a column \"{}\"", column.name))
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
    let old_events = layout.events.as_ref().filter(|events| needs_rebuild(events));
    let generated =
        old_events.and_then(|events| events.columns.iter().find(|column| column.is_generated));
    match generated {
        Some(Column { name, .. }) => Err(StoreError::CannotOpen {
            filename: filename.to_owned(),
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
            for (name, kind) in NEWER_SESSION_COLUMNS {
                if !sessions.has(name) {
                    connection
                        .execute_batch(&format!("ALTER TABLE sessions ADD COLUMN {name} {kind}"))?;
                }
            }
        }
    }
    match &layout.events {
        None => {
            connection.execute_batch(&format!("CREATE TABLE events ({EVENT_DEFINITIONS}\n)"))?
        }
        Some(events) if needs_rebuild(events) => rebuild_events(connection, events)?,
        Some(events) if !events.has(EXTRA_COLUMN) => {
            connection
                .execute_batch(&format!("ALTER TABLE events ADD COLUMN {EXTRA_COLUMN} TEXT"))?;
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
