//! The tables: recognising every layout in the field, and bringing older ones up to date.
//!
//! They are the TypeScript drivers', with payloads as `json` in new ones. A schema that has all
//! that those of SDK 0.4 make is left alone: no lock, no privilege beyond using it.

use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::columns::{ColumnSpec, EVENT_INDEX, EVENTS, ID, Kind, SESSIONS, Since};
use crate::error::{DatabaseCode, INSUFFICIENT_PRIVILEGE, StoreError};
use crate::layout::{Column, Layout, Table};

use super::connection::Timed;
use super::failure::{Failure, Remedy};
use super::message::Message;
use super::quote;

/// A change that waits for a lock makes everybody behind it wait: it gives up soon, and comes back.
/// What the role, the database or the server allows a statement or a transaction: an upgrade of large
/// tables takes as long as it takes. Not every server has all of them.
const LIFT_TIMEOUTS: &str = "SELECT set_config(name, '0', true) FROM pg_settings \
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', \
      'transaction_timeout') AND setting <> '0'";
/// For each of two tables, the first of which is held while the second is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Between two tries to be the one that changes the schema.
const TURN_PAUSE: Duration = Duration::from_millis(50);

/// Where the tables are, and what may be done to them.
#[derive(Debug, Clone)]
pub struct Schema {
    name: String,
    may_migrate: bool,
}

impl Schema {
    pub fn new(name: String, may_migrate: bool) -> Self {
        Self { name, may_migrate }
    }

    /// The table's full name, quoted.
    pub fn table(&self, name: &str) -> String {
        format!("{}.{name}", quote::identifier(&self.name))
    }

    /// Makes what a layout lacks. Waits for others until the deadline.
    pub async fn bring_up_to_date(
        &self,
        connection: &mut Timed<'_>,
        layout: Layout,
        deadline: Instant,
    ) -> Result<Layout, Failure> {
        if is_current(&layout) {
            return Ok(layout);
        }
        if !self.may_migrate {
            return Err(Failure::of_call(self.outdated(&layout, "migrate is false", None)));
        }
        match self.upgrade(connection, deadline).await {
            Err(Failure { error: StoreError::Database { message, database_code }, .. })
                if database_code.as_str() == INSUFFICIENT_PRIVILEGE =>
            {
                let error = self.outdated(&layout, &message, Some(database_code));
                Err(Failure::of_call(error))
            }
            result => result,
        }
    }

    /// Looks at the catalog. Takes no lock on the tables.
    pub async fn inspect(&self, connection: &mut Timed<'_>) -> Result<Layout, Failure> {
        let schema = quote::text(&self.name);
        let mut tables = (None, None);
        for row in connection.fetch(Message::simple(COLUMNS_QUERY.replace("$1", &schema))).await? {
            let table = match text(&row, 0) {
                "sessions" => &mut tables.0,
                _ => &mut tables.1,
            };
            table.get_or_insert_with(|| Table { columns: Vec::new() }).columns.push(column(&row));
        }
        let has_indexes = !self.indexes(connection, SERVES_LISTS).await?.is_empty();
        let layout = Layout { sessions: tables.0, events: tables.1, has_indexes };
        match layout.foreign_table() {
            Some((table, reason)) => Err(Failure::of_call(StoreError::ForeignTable {
                container: format!("schema \"{}\"", self.name),
                kind: "schema",
                table,
                reason,
            })),
            None => Ok(layout),
        }
    }

    /// The unique indexes over the order of a session's events: a conflict there is one that the
    /// SDK resolves.
    pub async fn order_constraints(
        &self,
        connection: &mut Timed<'_>,
    ) -> Result<Vec<String>, Failure> {
        self.indexes(connection, REFUSES_CONFLICTS).await
    }

    async fn indexes(
        &self,
        connection: &mut Timed<'_>,
        condition: &str,
    ) -> Result<Vec<String>, Failure> {
        let query = INDEX_QUERY.replace("$1", &quote::text(&self.name));
        let rows = connection.fetch(Message::simple(query).sql(condition)).await?;
        Ok(rows.iter().map(|row| text(row, 0).to_owned()).collect())
    }

    /// One transaction, in which nobody else changes the schema.
    async fn upgrade(
        &self,
        connection: &mut Timed<'_>,
        deadline: Instant,
    ) -> Result<Layout, Failure> {
        loop {
            match self.try_upgrade(connection, deadline).await {
                Ok(layout) => return Ok(layout),
                Err(failure) if failure.is_connection_lost => return Err(failure),
                Err(failure) => {
                    connection.execute("ROLLBACK").await?;
                    if !is_passing(&failure) || Instant::now() >= deadline {
                        return Err(failure);
                    }
                    tokio::time::sleep(TURN_PAUSE).await;
                }
            }
        }
    }

    async fn try_upgrade(
        &self,
        connection: &mut Timed<'_>,
        deadline: Instant,
    ) -> Result<Layout, Failure> {
        connection.execute("BEGIN").await?;
        connection.execute(LIFT_TIMEOUTS).await?;
        let lock_timeout_ms = LOCK_TIMEOUT.as_millis();
        connection.execute(&format!("SET LOCAL lock_timeout = {lock_timeout_ms}")).await?;
        self.take_turn(connection, deadline).await?;
        // Another process may have been faster.
        let layout = self.inspect(connection).await?;
        if !is_current(&layout) {
            connection.execute(&self.locks(&layout)).await?;
            connection.execute(&self.changes(&layout)).await?;
        }
        let layout = self.inspect(connection).await?;
        connection.execute("COMMIT").await?;
        Ok(layout)
    }

    /// Asks instead of waiting: a session that waits for a lock inside a transaction holds up
    /// others.
    async fn take_turn(
        &self,
        connection: &mut Timed<'_>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let name = quote::text(&format!("sandbox-agent-persist {}", self.name));
        let question = format!("SELECT pg_try_advisory_xact_lock(hashtextextended({name}, 0))");
        let ask = || Message::simple(question.as_str());
        while connection.fetch(ask()).await?.first().map(|row| text(row, 0)) != Some("t") {
            if Instant::now() >= deadline {
                let reason = "another process is changing the schema".to_owned();
                return Err(Failure::of_call(StoreError::Unavailable {
                    timeout: None,
                    reason,
                    database_code: None,
                }));
            }
            tokio::time::sleep(TURN_PAUSE).await;
        }
        Ok(())
    }

    /// All locks are taken before the first change, so that none is held while another is waited
    /// for after a long one.
    fn locks(&self, layout: &Layout) -> String {
        let lacks_any = |table: &&Table, columns| table.lacking(columns).next().is_some();
        let sessions = layout.sessions.as_ref().filter(|table| lacks_any(table, &SESSIONS));
        let is_changed = |table: &&Table| table.is_outdated() || lacks_any(table, &EVENTS);
        let events = layout.events.as_ref().filter(is_changed);
        let lock = |name| format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE; ", self.table(name));
        sessions
            .map(|_| lock("sessions"))
            .into_iter()
            .chain(events.map(|_| lock("events")))
            .collect()
    }

    /// The statements that bring a layout up to date.
    fn changes(&self, layout: &Layout) -> String {
        let mut sql = String::new();
        if layout.sessions.is_none() && layout.events.is_none() {
            sql.push_str(&self.create_schema());
        }
        match &layout.sessions {
            None => sql.push_str(&self.create_table("sessions", &SESSIONS)),
            Some(sessions) => {
                // As the column beside them.
                let json = sessions.column("session_init_json");
                let json = json.map_or("json", |column| column.declared_type.as_str());
                for column in sessions.lacking(&SESSIONS) {
                    sql.push_str(&self.add_column("sessions", column, json));
                }
            }
        }
        match &layout.events {
            None => sql.push_str(&self.create_table("events", &EVENTS)),
            Some(events) => sql.push_str(&self.upgrade_events(events)),
        }
        sql.push_str(&self.create_indexes());
        sql
    }

    /// The order by time is that of the ids as they are: they become texts last.
    fn upgrade_events(&self, events: &Table) -> String {
        let table = self.table("events");
        let mut sql = String::new();
        let numbered = |column: &&ColumnSpec| column.since == Since::Numbered;
        for column in events.lacking(&EVENTS).filter(numbered) {
            sql.push_str(&self.add_column("events", column, "json"));
        }
        if events.column(EVENT_INDEX).is_none_or(|index| index.is_nullable) {
            sql.push_str(&format!(
                "UPDATE {table} AS event SET event_index = ranked.rank FROM (
                   SELECT id, row_number() OVER (PARTITION BY session_id ORDER BY created_at, id) AS rank
                   FROM {table}
                 ) AS ranked
                 WHERE event.id = ranked.id AND event.event_index IS NULL;
                 ALTER TABLE {table} ALTER COLUMN event_index SET NOT NULL;\n"
            ));
        }
        if events.has_integer_ids() {
            sql.push_str(&format!(
                "ALTER TABLE {table} ALTER COLUMN id DROP IDENTITY IF EXISTS;
                 ALTER TABLE {table} ALTER COLUMN id DROP DEFAULT;
                 ALTER TABLE {table} ALTER COLUMN id TYPE text USING id::text;\n"
            ));
        }
        let ours = |column: &&ColumnSpec| column.since == Since::Ours;
        for column in events.lacking(&EVENTS).filter(ours) {
            sql.push_str(&self.add_column("events", column, "json"));
        }
        sql
    }

    fn create_schema(&self) -> String {
        // Asked for only where it is missing: it takes a privilege even where it is there.
        let (name, literal) = (quote::identifier(&self.name), quote::text(&self.name));
        let statement = quote::text(&format!("CREATE SCHEMA {name}"));
        format!(
            "DO $do$ BEGIN
               IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = {literal}) THEN
                 EXECUTE {statement};
               END IF;
             END $do$;\n"
        )
    }

    fn create_table(&self, table: &str, columns: &[ColumnSpec]) -> String {
        let definition = |column: &ColumnSpec| {
            let constraint = match column {
                ColumnSpec { name: ID, .. } => " PRIMARY KEY",
                ColumnSpec { is_required: true, .. } => " NOT NULL",
                ColumnSpec { .. } => "",
            };
            format!("\n  {} {}{constraint}", column.name, declared_type(column.kind, "json"))
        };
        let definitions = columns.iter().map(definition).collect::<Vec<_>>().join(",");
        format!("CREATE TABLE IF NOT EXISTS {} ({definitions}\n);\n", self.table(table))
    }

    fn create_indexes(&self) -> String {
        format!(
            "CREATE INDEX IF NOT EXISTS idx_events_session_order ON {} (session_id, event_index, id);
CREATE INDEX IF NOT EXISTS idx_sessions_created_order ON {} (created_at, id);\n",
            self.table("events"),
            self.table("sessions"),
        )
    }

    /// `json` is the type of the documented columns that hold JSON. It may be empty in the rows
    /// that are there.
    fn add_column(&self, table: &str, column: &ColumnSpec, json: &str) -> String {
        let json = if column.since == Since::Ours { "json" } else { json };
        let (name, kind) = (column.name, declared_type(column.kind, json));
        format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {name} {kind};\n", self.table(table))
    }

    fn outdated(
        &self,
        layout: &Layout,
        why: &str,
        database_code: Option<DatabaseCode>,
    ) -> StoreError {
        let missing = missing_parts(layout).join(", ");
        let reason = format!(
            "the schema \"{}\" lacks {missing}, and it may not be added ({why}); run the SQL that postgresSchemaSql({:?}) returns",
            self.name, self.name
        );
        StoreError::SchemaOutdated { reason, database_code }
    }
}

/// The statements that make a schema from nothing, or add what SDK 0.2 and 0.3 didn't have. Running
/// them again changes nothing.
pub fn schema_sql(name: &str) -> String {
    let schema = Schema::new(name.to_owned(), true);
    let mut sql = schema.create_schema();
    for (table, columns) in [("sessions", &SESSIONS[..]), ("events", &EVENTS[..])] {
        sql.push_str(&schema.create_table(table, columns));
        let newer = [Since::Sdk04, Since::Ours];
        for column in columns.iter().filter(|column| newer.contains(&column.since)) {
            sql.push_str(&schema.add_column(table, column, "json"));
        }
    }
    sql.push_str(&schema.create_indexes());
    sql
}

/// The SQL that lets nobody have the rows of a schema's tables but their owner, and a role if one is
/// named, whatever rows others are granted. Running it again changes nothing; for another role it adds
/// that one.
pub fn row_level_security_sql(name: &str, role: Option<&str>) -> String {
    let schema = Schema::new(name.to_owned(), true);
    let mut sql = String::new();
    for table in ["sessions", "events"] {
        let full_name = schema.table(table);
        sql.push_str(&format!("ALTER TABLE {full_name} ENABLE ROW LEVEL SECURITY;\n"));
        if let Some(role) = role {
            sql.push_str(&policy_sql(name, table, role));
        }
    }
    if let Some(role) = role {
        let (schema, role) = (quote::identifier(name), quote::identifier(role));
        sql.push_str(&format!("GRANT USAGE ON SCHEMA {schema} TO {role};\n"));
    }
    sql
}

/// A role's own policy and grants for a table. The policy is never dropped: for that moment the role
/// would have no rows.
fn policy_sql(schema: &str, table: &str, role: &str) -> String {
    let full_name = Schema::new(schema.to_owned(), true).table(table);
    let policy = format!("sandbox_agent_persist {role}");
    // The server cuts a long name off, and so does the cast.
    let (literal, policy) = (quote::text(&policy), quote::identifier(&policy));
    let (role, class) = (quote::identifier(role), quote::text(&full_name));
    let block = quote::text(&format!(
        "BEGIN
  IF NOT EXISTS (SELECT FROM pg_policy
      WHERE polrelid = {class}::regclass AND polname = {literal}::name) THEN
    CREATE POLICY {policy} ON {full_name} TO {role} USING (true) WITH CHECK (true);
  END IF;
END"
    ));
    format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {full_name} TO {role};\nDO {block};\n")
}

/// Whether there is all that a driver of SDK 0.4 makes. Our own columns aren't worth a lock.
fn is_current(layout: &Layout) -> bool {
    layout.has_documented_columns() && layout.has_indexes
}

fn missing_parts(layout: &Layout) -> Vec<String> {
    let mut parts = Vec::new();
    let (sessions, events) = (&layout.sessions, &layout.events);
    for (name, table) in [("sessions", sessions), ("events", events)] {
        if table.is_none() {
            parts.push(format!("the table \"{name}\""));
        }
    }
    if let Some(sessions) = sessions {
        for column in sessions.lacking(&SESSIONS).filter(|column| column.since != Since::Ours) {
            parts.push(format!("the column \"sessions\".\"{}\"", column.name));
        }
    }
    if let Some(events) = events {
        if events.has_integer_ids() {
            parts.push("ids of events as text".to_owned());
        }
        if events.column(EVENT_INDEX).is_none_or(|index| index.is_nullable) {
            parts.push("the column \"events\".\"event_index\" with a value everywhere".to_owned());
        }
        if !layout.has_indexes {
            parts.push("the index \"idx_events_session_order\"".to_owned());
        }
    }
    parts
}

/// Whether it may succeed the next time: somebody held a lock, or made the same thing at once, as
/// drivers do that don't take turns.
fn is_passing(failure: &Failure) -> bool {
    let state = failure.error.database_code().map(DatabaseCode::as_str);
    failure.remedy == Remedy::Retry
        || matches!(state, Some("55P03" | "23505" | "42P06" | "42P07" | "42701" | "XX000"))
}

fn declared_type(kind: Kind, json: &str) -> &str {
    match kind {
        Kind::Text => "text",
        Kind::Integer => "bigint",
        Kind::Json => json,
    }
}

fn column(row: &PgRow) -> Column {
    let is_set = |index| text(row, index) == "t";
    let (is_not_null, has_default, is_generated) = (is_set(3), is_set(4), is_set(5));
    Column {
        name: text(row, 1).to_owned(),
        declared_type: text(row, 2).to_owned(),
        is_required: is_not_null && !has_default && !is_generated,
        is_nullable: !is_not_null,
        is_key: is_set(6),
        is_generated,
        default: None,
    }
}

fn text(row: &PgRow, index: usize) -> &str {
    row.try_get_raw(index).ok().and_then(|value| value.as_str().ok()).unwrap_or_default()
}

const COLUMNS_QUERY: &str = "
SELECT tables.relname, columns.attname, format_type(columns.atttypid, NULL),
  columns.attnotnull, columns.atthasdef OR columns.attidentity <> '', columns.attgenerated <> '',
  EXISTS (
    SELECT FROM pg_index AS keys
    WHERE keys.indrelid = tables.oid AND keys.indisprimary AND columns.attnum = ANY (keys.indkey)
  )
FROM pg_class AS tables
JOIN pg_namespace AS schemas ON schemas.oid = tables.relnamespace
JOIN pg_attribute AS columns ON columns.attrelid = tables.oid
WHERE schemas.nspname = $1 AND tables.relname IN ('sessions', 'events')
  AND columns.attnum > 0 AND NOT columns.attisdropped
ORDER BY tables.relname, columns.attnum";

/// The indexes of `events`, for one of the conditions below.
const INDEX_QUERY: &str = "
SELECT names.relname
FROM pg_index AS indexes
JOIN pg_class AS names ON names.oid = indexes.indexrelid
JOIN pg_class AS tables ON tables.oid = indexes.indrelid
JOIN pg_namespace AS schemas ON schemas.oid = tables.relnamespace
CROSS JOIN LATERAL (
  SELECT array_agg(columns.attname::text ORDER BY keys.place) = ARRAY['session_id', 'event_index']
  FROM unnest(indexes.indkey) WITH ORDINALITY AS keys (attnum, place)
  JOIN pg_attribute AS columns ON columns.attrelid = tables.oid AND columns.attnum = keys.attnum
  WHERE keys.place <= 2
) AS keys (are_the_order)
WHERE schemas.nspname = $1 AND tables.relname = 'events' AND indexes.indisvalid AND ";

/// By the name that the TypeScript drivers give it, or another that serves as well.
const SERVES_LISTS: &str = "(names.relname = 'idx_events_session_order' OR keys.are_the_order AND indexes.indpred IS NULL)";

const REFUSES_CONFLICTS: &str = "keys.are_the_order AND indexes.indisunique";
