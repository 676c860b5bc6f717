//! The statements, for the tables that were found. A connection prepares each once.

use rusqlite::Connection;

use crate::columns::{
    self, CREATED_AT, EVENT_INDEX, EVENTS, ID, KNOWN_SESSIONS, OnDuplicate, SERVER_ID,
};
use crate::cursor::{List, Start};
use crate::error::StoreError;
use crate::filter::{EventsFilter, Order, SessionsFilter};
use crate::json;
use crate::layout::Layout;
use crate::model::{JsonText, Page, SessionEvent, SessionRecord};
use crate::page::{PageBuilder, SESSIONS_LIST, sql_count};
use crate::replay::{ReplayOptions, Window, WindowBuilder};
use crate::store::{EventsQuery, SessionAmount, SessionsQuery, StoredAmount};

use super::failure;
use super::prune::PruneStatements;
use super::rows::{count, event_row, event_row_leniently, session_row};
use super::select::{Bound, Select, of_session};
use super::table::{Upsert, has, select, sessions_source};

/// How many statements a connection keeps prepared: those of one store, and some filters.
pub const MAX_PREPARED: usize = 64;
/// A session of more events is deleted in steps.
pub const MAX_EVENTS_DELETED_AT_ONCE: i64 = 10_000;
/// Rows of a table are counted up to here, and estimated beyond.
const MAX_ROWS_COUNTED: i64 = 100_000;

/// See the module's documentation.
#[derive(Debug)]
pub struct Statements {
    select_sessions: String,
    /// Of all events.
    pub select_events: String,
    count_sessions: String,
    get_session: String,
    has_server_id: bool,
    upsert_session: Upsert,
    upsert_event: Upsert,
    /// Of pruning.
    pub prune: PruneStatements,
}

impl Statements {
    /// The statements for tables of this layout.
    pub fn new(layout: &Layout, on_duplicate_event: OnDuplicate) -> Self {
        let (sessions, events) = (layout.sessions.as_ref(), layout.events.as_ref());
        let sessions_source = sessions_source(sessions);
        let select_sessions = select(sessions_source, &KNOWN_SESSIONS, sessions);
        Self {
            count_sessions: format!("SELECT count(*) FROM {sessions_source}"),
            get_session: format!("{select_sessions} WHERE {ID} = ?1"),
            select_sessions,
            select_events: select("events", &EVENTS, events),
            has_server_id: has(sessions, &SERVER_ID),
            upsert_session: Upsert::new(
                "sessions",
                &KNOWN_SESSIONS,
                sessions,
                OnDuplicate::Replace,
            ),
            upsert_event: Upsert::new("events", &EVENTS, events, on_duplicate_event),
            prune: PruneStatements::new(layout),
        }
    }

    /// The session with this id, as a JSON object.
    pub fn get_session(
        &self,
        connection: &Connection,
        id: &str,
    ) -> Result<Option<JsonText>, StoreError> {
        let mut text = None;
        let asked = Select::new(&self.get_session).with(Bound::Text(id));
        asked.each_row(connection, |row| {
            text = Some(json::session_text(&session_row(row)?));
            Ok(true)
        })?;
        Ok(text)
    }

    /// Sessions by `(created_at, id)`.
    pub fn list_sessions(
        &self,
        connection: &Connection,
        SessionsQuery { filter, order, page }: &SessionsQuery,
    ) -> Result<Page, StoreError> {
        let list = List { of: SESSIONS_LIST, question: filter.question(*order) };
        let mut page = PageBuilder::new(list, page);
        let start = page.start().clone();
        Select::new(&self.select_sessions)
            .filtered(filter.conditions())
            .in_order(CREATED_AT, *order, &start, page.rows_wanted())
            .each_row(connection, |row| Ok(page.add_session(&session_row(row)?)))?;
        Ok(page.finish())
    }

    /// A session's events by `(event_index, id)`.
    pub fn list_events(
        &self,
        connection: &Connection,
        EventsQuery { session_id, filter, order, page }: &EventsQuery,
    ) -> Result<Page, StoreError> {
        let list = List { of: session_id, question: filter.question(*order) };
        let mut page = PageBuilder::new(list, page);
        let start = page.start().clone();
        Select::new(&self.select_events)
            .filtered([of_session(session_id)])
            .filtered(filter.conditions())
            .in_order(EVENT_INDEX, *order, &start, page.rows_wanted())
            .each_row(connection, |row| Ok(page.add_event(&event_row(row)?)))?;
        Ok(page.finish())
    }

    /// The replay window of a session; `None` if it has no events. Reads no more rows than it
    /// takes.
    pub fn replay(
        &self,
        connection: &Connection,
        session_id: &str,
        options: &ReplayOptions,
    ) -> Result<Option<Window>, StoreError> {
        let mut window = WindowBuilder::new(options);
        Select::new(&self.select_events)
            .filtered([of_session(session_id)])
            .in_order(EVENT_INDEX, Order::Newest, &Start::default(), u64::MAX)
            .each_row(connection, |row| {
                event_row_leniently(row)
                    .map(|event| window.push(&event))
                    .or_else(|unreadable| window.skip().ok_or(unreadable))
            })?;
        Ok(window.finish())
    }

    /// How many sessions there are.
    pub fn count_sessions(
        &self,
        connection: &Connection,
        filter: &SessionsFilter,
    ) -> Result<u64, StoreError> {
        Select::new(&self.count_sessions).filtered(filter.conditions()).count(connection)
    }

    /// Stores an event.
    pub fn upsert_event(
        &self,
        connection: &Connection,
        event: &SessionEvent,
    ) -> rusqlite::Result<()> {
        self.upsert_event.run(connection, columns::event_values(event))
    }

    /// Stores a session.
    pub fn upsert_session(
        &self,
        connection: &Connection,
        session: &SessionRecord,
    ) -> rusqlite::Result<()> {
        let values = columns::session_values(session, self.has_server_id);
        self.upsert_session.run(connection, values)
    }
}

/// How many events there are, of one session or of all.
pub fn count_events(
    connection: &Connection,
    session_id: Option<&str>,
    filter: &EventsFilter,
) -> Result<u64, StoreError> {
    Select::new("SELECT count(*) FROM events")
        .filtered(session_id.map(of_session))
        .filtered(filter.conditions())
        .count(connection)
}

/// Ids of sessions that have events and no record, in order, as a JSON array. Leaps from session to
/// session, whatever the number of their events.
pub fn sessions_without_record(
    connection: &Connection,
    after: Option<&str>,
    limit: u64,
) -> Result<Page, StoreError> {
    let first = match after {
        Some(_) => "SELECT min(session_id) FROM events WHERE session_id > ?",
        None => "SELECT min(session_id) FROM events",
    };
    let sql = format!(
        "WITH RECURSIVE found(id) AS (
           {first}
           UNION ALL
           SELECT (SELECT min(session_id) FROM events WHERE session_id > found.id)
           FROM found WHERE found.id IS NOT NULL
         )
         SELECT id FROM found
         WHERE id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.id = found.id)
         LIMIT ?"
    );
    let mut ids = Vec::new();
    let mut asked = Select::new(&sql);
    if let Some(id) = after {
        asked = asked.with(Bound::Text(id));
    }
    asked.with(Bound::Integer(sql_count(limit))).each_row(connection, |row| {
        ids.push(row.get::<_, String>(0).map_err(failure::store_error)?);
        Ok(true)
    })?;
    let array = serde_json::to_string(&ids).expect("texts");
    Ok(Page { arrays: vec![array], next_cursor: None })
}

/// Whether a session has more events than are deleted at once.
pub fn is_large(connection: &Connection, session_id: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM events WHERE session_id = ?1 LIMIT 1 OFFSET ?2")?
        .exists((session_id, MAX_EVENTS_DELETED_AT_ONCE))
}

/// Deletes a session's record and all of its events. Returns how many rows went.
pub fn delete_session(connection: &Connection, session_id: &str) -> rusqlite::Result<usize> {
    let events = connection
        .prepare_cached("DELETE FROM events WHERE session_id = ?1")?
        .execute([session_id])?;
    let records =
        connection.prepare_cached("DELETE FROM sessions WHERE id = ?1")?.execute([session_id])?;
    Ok(events + records)
}

/// Deletes a session's oldest events. Returns how many went.
pub fn delete_oldest_events(
    connection: &Connection,
    session_id: &str,
    limit: usize,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM events WHERE id IN (
               SELECT id FROM events WHERE session_id = ?1 ORDER BY event_index, id LIMIT ?2
             )",
        )?
        .execute((session_id, sql_count(limit)))
}

/// How much is stored, but for the WAL. Counts up to a bound, and scans only for the largest.
pub fn stored_amount(connection: &Connection, largest: u64) -> Result<StoredAmount, StoreError> {
    let read = || -> rusqlite::Result<StoredAmount> {
        let (sessions, are_sessions_estimated) = count_or_estimate(connection, "sessions")?;
        let (events, are_events_estimated) = count_or_estimate(connection, "events")?;
        let pragma = |name| connection.pragma_query_value(None, name, |row| count(row, 0));
        let page_bytes = pragma("page_size")?;
        Ok(StoredAmount {
            sessions,
            events,
            is_estimate: are_sessions_estimated || are_events_estimated,
            database_bytes: pragma("page_count")? * page_bytes,
            wal_bytes: None,
            reclaimable_bytes: Some(pragma("freelist_count")? * page_bytes),
            largest: (largest > 0).then(|| largest_sessions(connection, largest)).transpose()?,
        })
    };
    read().map_err(failure::store_error)
}

/// The number of a table's rows, and whether it is an estimate: rows that were deleted in between
/// count too then.
fn count_or_estimate(connection: &Connection, table: &str) -> rusqlite::Result<(u64, bool)> {
    let count: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT ?1)"))?
        .query_row([MAX_ROWS_COUNTED + 1], |row| row.get(0))?;
    let is_counted = count <= MAX_ROWS_COUNTED;
    let rows = if is_counted {
        count
    } else {
        let span = format!("SELECT max(rowid) - min(rowid) + 1 FROM {table}");
        // A table of somebody else's making may have no row ids.
        let spanned = connection.query_row(&span, [], |row| row.get(0));
        spanned.unwrap_or(count).max(count)
    };
    Ok((u64::try_from(rows).unwrap_or_default(), !is_counted))
}

fn largest_sessions(connection: &Connection, limit: u64) -> rusqlite::Result<Vec<SessionAmount>> {
    connection
        .prepare_cached(
            "SELECT session_id, count(*), sum(octet_length(payload_json)) AS bytes
             FROM events GROUP BY session_id ORDER BY bytes DESC, session_id LIMIT ?1",
        )?
        .query_map([sql_count(limit)], |row| {
            Ok(SessionAmount {
                session_id: row.get(0)?,
                events: count(row, 1)?,
                bytes: count(row, 2)?,
            })
        })?
        .collect()
}
