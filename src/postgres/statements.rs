//! The statements, for the tables that were found.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::columns::{
    self, CREATED_AT, EVENT_INDEX, EVENTS, ID, KNOWN_SESSIONS, OnDuplicate, SERVER_ID, SESSION_ID,
};
use crate::cursor::{List, Position};
use crate::error::StoreError;
use crate::filter::{Condition, EventsFilter, Order, SessionsFilter};
use crate::json;
use crate::layout::Layout;
use crate::model::{JsonText, Page};
use crate::page::{PageBuilder, SESSIONS_LIST, sql_count};
use crate::replay::{ReplayOptions, Window, WindowBuilder};
use crate::store::{EventsQuery, SessionAmount, SessionsQuery, StoredAmount, Write};

use super::connection::Timed;
use super::failure::{self, Failure};
use super::message::{Message, Protocol};
use super::quote;
use super::rows::{count, is_true, required, with_event, with_event_leniently, with_session};
use super::schema::Schema;
use super::select::{Dialect, ReadRow, RowStart, RowSteps, Select, of_session};
use super::steps::{self, Step};
use super::table::TableStatements;
use super::wrap::Charset;

/// Sessions as JSON objects, or why one can't be read.
pub type SessionsById = HashMap<String, Result<JsonText, StoreError>>;

/// A session of more events is deleted in steps.
const MAX_EVENTS_DELETED_AT_ONCE: usize = 10_000;
/// Rows of a table are counted up to here, and estimated beyond.
const MAX_ROWS_COUNTED: usize = 100_000;

/// See the module's documentation.
#[derive(Debug)]
pub struct Statements {
    pub dialect: Dialect,
    pub sessions: TableStatements,
    has_server_id: bool,
    pub events: TableStatements,
    on_duplicate_event: OnDuplicate,
    /// Names of unique indexes over `(session_id, event_index)`.
    order_constraints: Vec<String>,
}

/// What a deletion in one transaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The session is gone; whether there was anything of it.
    Whole { was_there: bool },
    /// It has too many events, and nothing was done.
    TooLarge,
}

/// What a step of a deletion came to.
#[derive(Debug)]
pub struct DeletedStep {
    /// How many events were found.
    pub found: u64,
    /// How many of them went: not those that others deleted at the same time.
    pub events: u64,
    /// The place of the last that was to go.
    pub last: Option<Position>,
    /// How long the server took.
    pub took_ms: u64,
}

impl Statements {
    /// The statements for a schema with this layout.
    pub fn new(
        schema: &Schema,
        layout: &Layout,
        order_constraints: Vec<String>,
        on_duplicate_event: OnDuplicate,
        protocol: Protocol,
        charset: Charset,
    ) -> Self {
        let (sessions, events) = (layout.sessions.as_ref(), layout.events.as_ref());
        let payload = events.and_then(|events| events.column("payload_json"));
        let payload_type = payload.map_or("json", |payload| payload.declared_type.as_str());
        let sessions = TableStatements::new(
            schema,
            "sessions",
            &KNOWN_SESSIONS,
            sessions,
            OnDuplicate::Replace,
            &protocol,
            charset,
        );
        let events = TableStatements::new(
            schema,
            "events",
            &EVENTS,
            events,
            on_duplicate_event,
            &protocol,
            charset,
        );
        Self {
            has_server_id: sessions.has(&SERVER_ID),
            sessions,
            events,
            on_duplicate_event,
            dialect: Dialect { protocol, payload_type: payload_type.to_owned() },
            order_constraints,
        }
    }

    /// Says of a conflict in the order of a session's events what the SDK looks for, where the
    /// server itself withholds the details.
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

    /// Whether a write holds fields that the tables have no column for.
    pub fn drops_fields_of(&self, write: &Write) -> bool {
        match write {
            Write::Session(session) => {
                session.extra_beside(self.has_server_id).is_some() && !self.sessions.has_extra()
            }
            Write::Event(event) => event.extra.is_some() && !self.events.has_extra(),
            Write::Events(events) => {
                !self.events.has_extra() && events.iter().any(|event| event.extra.is_some())
            }
            Write::DeleteSession { .. }
            | Write::Probe(_)
            | Write::Prune(_)
            | Write::Compact(_)
            | Write::Shrink(_) => false,
        }
    }

    /// The steps of a round.
    pub fn steps<'round>(&self, writes: impl Iterator<Item = &'round Write>) -> Vec<Step<'round>> {
        steps::steps(writes, self.on_duplicate_event)
    }

    /// The messages of these steps; one, unless statements are prepared.
    pub fn messages(&self, steps: &[Step<'_>]) -> Vec<Message> {
        match &self.dialect.protocol {
            Protocol::Prepared => {
                steps.iter().map(|step| self.push_step(Message::prepared(), step)).collect()
            }
            Protocol::Simple(prefix) => {
                let mut message = self.dialect.message("");
                if steps::rows(steps) > 1 {
                    message = message.sql(&prefix.of_several);
                }
                let pushed =
                    steps.iter().fold(message, |message, step| self.push_step(message, step));
                vec![pushed]
            }
        }
    }

    fn push_step(&self, message: Message, step: &Step<'_>) -> Message {
        match step {
            Step::UpsertEvents(events) => {
                let rows = events.iter().map(|event| columns::event_values(event));
                self.events.push_upsert(message, rows)
            }
            Step::UpsertSessions(sessions) => {
                let rows = sessions
                    .iter()
                    .map(|session| columns::session_values(session, self.has_server_id));
                self.sessions.push_upsert(message, rows)
            }
            Step::DeleteSession(id) => self.push_delete(message, id),
        }
    }

    /// Deletes a session of not too many events: these first, locked in the order of their ids.
    fn push_delete(&self, message: Message, id: &str) -> Message {
        let (events, sessions) = (&self.events.name, &self.sessions.name);
        message
            .sql(&format!(
                "WITH size AS (SELECT EXISTS (SELECT FROM {events} WHERE {SESSION_ID} = "
            ))
            .text(id)
            .sql(&format!(
                " OFFSET {MAX_EVENTS_DELETED_AT_ONCE}) AS is_large), \
                 locked AS (SELECT {ID} FROM {events} WHERE {SESSION_ID} = "
            ))
            .text(id)
            .sql(&format!(
                " AND NOT (SELECT is_large FROM size) ORDER BY {ID} FOR UPDATE), \
                 deleted AS (DELETE FROM {events} WHERE {ID} = ANY (ARRAY(SELECT {ID} FROM locked)) \
                   RETURNING 1), \
                 record AS (DELETE FROM {sessions} WHERE {ID} = "
            ))
            .text(id)
            .sql(
                " AND NOT (SELECT is_large FROM size) \
                   AND (SELECT count(*) FROM deleted) >= 0 RETURNING 1) \
                 SELECT is_large::text, ((SELECT count(*) FROM deleted) \
                   + (SELECT count(*) FROM record))::text FROM size",
            )
    }

    /// What the message of a deletion came to.
    pub fn deleted(rows: &[PgRow]) -> Result<Deleted, Failure> {
        let row = rows.last().ok_or_else(no_row)?;
        let read = || -> Result<Deleted, StoreError> {
            Ok(match is_true(row, 0)? {
                true => Deleted::TooLarge,
                false => Deleted::Whole { was_there: count(row, 1)? > 0 },
            })
        };
        read().map_err(Failure::of_call)
    }

    /// Deletes a session's oldest events after a place, at most so many. The place spares a look at
    /// what was deleted before and isn't vacuumed yet. That these are still of the session is a
    /// condition that no index knows: the planner, where it expects the session to be small, would
    /// look through all of it at each step.
    pub async fn delete_oldest_events(
        &self,
        connection: &mut Timed<'_>,
        session_id: &str,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<DeletedStep, Failure> {
        let events = &self.events.name;
        let message = self
            .dialect
            .message(&format!(
                "WITH oldest AS (SELECT {ID}, {EVENT_INDEX} FROM {events} AS stored \
                   WHERE {SESSION_ID} = "
            ))
            .text(session_id);
        let message = match after {
            Some(Position { order, id }) => message
                .sql(&format!(" AND ({EVENT_INDEX}, {ID}) > ("))
                .number(*order)
                .sql(", ")
                .text(id)
                .sql(")"),
            None => message,
        };
        let message = message
            .sql(&format!(" ORDER BY stored.{EVENT_INDEX}, stored.{ID} LIMIT "))
            .number(sql_count(limit))
            .sql(&format!(
                "), locked AS (SELECT {ID} FROM {events} \
                   WHERE {ID} = ANY (ARRAY(SELECT {ID} FROM oldest)) AND CASE WHEN {SESSION_ID} = "
            ))
            .text(session_id)
            .sql(&format!(
                " THEN true END ORDER BY {ID} FOR UPDATE), \
                 deleted AS (DELETE FROM {events} WHERE {ID} = ANY (ARRAY(SELECT {ID} FROM locked)) \
                   RETURNING 1), \
                 last AS (SELECT {EVENT_INDEX}, {ID} FROM oldest \
                   ORDER BY {EVENT_INDEX} DESC, {ID} DESC LIMIT 1) \
                 SELECT (SELECT count(*) FROM oldest)::text, \
                   (SELECT count(*) FROM deleted)::text, \
                   (SELECT {EVENT_INDEX} FROM last)::text, (SELECT {ID} FROM last)::text, \
                   (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000) \
                     ::bigint::text"
            ));
        let rows = connection.fetch(message).await?;
        let row = rows.last().ok_or_else(no_row)?;
        Ok(DeletedStep {
            found: count(row, 0).map_err(Failure::of_call)?,
            events: count(row, 1).map_err(Failure::of_call)?,
            last: last_position(row),
            took_ms: count(row, 4).unwrap_or_default(),
        })
    }

    /// The sessions with these ids, those that there are.
    pub async fn get_sessions<'id>(
        &self,
        connection: &mut Timed<'_>,
        ids: impl Iterator<Item = &'id str>,
    ) -> Result<SessionsById, Failure> {
        let rows = connection.fetch(self.sessions_by_id(ids)).await?;
        let sessions = rows.iter().map(|row| {
            let id = required(row, 0, "session").map_err(Failure::of_call)?.to_owned();
            Ok((id, with_session(row, json::session_text)))
        });
        sessions.collect()
    }

    fn sessions_by_id<'id>(&self, ids: impl Iterator<Item = &'id str>) -> Message {
        let message = self.dialect.message(&self.sessions.select);
        match self.dialect.protocol {
            Protocol::Prepared => {
                let ids: Vec<Option<&str>> = ids.map(Some).collect();
                message.sql(" WHERE id = ANY (").texts(&ids).sql(")")
            }
            Protocol::Simple(_) => {
                let in_list = |message: Message, (place, id)| {
                    message.sql(if place == 0 { "" } else { "," }).text(id)
                };
                ids.enumerate().fold(message.sql(" WHERE id IN ("), in_list).sql(")")
            }
        }
    }

    /// Sessions by `(created_at, id)`.
    pub async fn list_sessions(
        &self,
        connection: &mut Timed<'_>,
        SessionsQuery { filter, order, page }: &SessionsQuery,
    ) -> Result<Page, Failure> {
        let list = List { of: SESSIONS_LIST, question: filter.question(*order) };
        let mut builder = PageBuilder::new(list, page);
        let from = Select {
            sql: &self.sessions.select,
            conditions: filter.conditions().collect(),
            column: CREATED_AT,
            order: *order,
        };
        let (start, steps) = (builder.start().into(), RowSteps::of(page, &builder));
        from.each_row(connection, &self.dialect, start, steps, |row| {
            let mut read = None;
            let wants_more = with_session(row, |session| {
                read = Some(ReadRow::new(session.created_at, session.id, 0));
                builder.add_session(session)
            })?;
            Ok((wants_more, read))
        })
        .await?;
        Ok(builder.finish())
    }

    /// A session's events by `(event_index, id)`.
    pub async fn list_events(
        &self,
        connection: &mut Timed<'_>,
        EventsQuery { session_id, filter, order, page }: &EventsQuery,
    ) -> Result<Page, Failure> {
        let list = List { of: session_id, question: filter.question(*order) };
        let mut builder = PageBuilder::new(list, page);
        let from = self.events_of(session_id, filter.conditions(), *order);
        let (start, steps) = (builder.start().into(), RowSteps::of(page, &builder));
        from.each_row(connection, &self.dialect, start, steps, |row| {
            let mut read = None;
            let wants_more = with_event(row, |event| {
                read = Some(ReadRow::new(event.event_index, event.id, event.payload.len()));
                builder.add_event(event)
            })?;
            Ok((wants_more, read))
        })
        .await?;
        Ok(builder.finish())
    }

    /// The replay window of a session; `None` if it has no events. Reads backwards, in steps, and
    /// stops when the window is full.
    pub async fn replay(
        &self,
        connection: &mut Timed<'_>,
        session_id: &str,
        options: &ReplayOptions,
    ) -> Result<Option<Window>, Failure> {
        let mut window = WindowBuilder::new(options);
        let from = self.events_of(session_id, std::iter::empty(), Order::Newest);
        let start = RowStart { offset: 0, after: None };
        let steps = RowSteps::growing(usize::MAX);
        from.each_row(connection, &self.dialect, start, steps, |row| {
            let mut read = None;
            let pushed = with_event_leniently(row, |event| {
                read = Some(ReadRow::new(event.event_index, event.id, event.payload.len()));
                window.push(event)
            });
            let wants_more = pushed.or_else(|unreadable| window.skip().ok_or(unreadable))?;
            Ok((wants_more, read))
        })
        .await?;
        Ok(window.finish())
    }

    /// How many sessions there are.
    pub async fn count_sessions(
        &self,
        connection: &mut Timed<'_>,
        filter: &SessionsFilter,
    ) -> Result<u64, Failure> {
        let message = self.count_of(&self.sessions);
        let conditions: Vec<Condition<'_>> = filter.conditions().collect();
        fetch_count(connection, self.dialect.push_where(message, &conditions)).await
    }

    /// How many events there are, of one session or of all.
    pub async fn count_events(
        &self,
        connection: &mut Timed<'_>,
        session_id: Option<&str>,
        filter: &EventsFilter,
    ) -> Result<u64, Failure> {
        let of_session = session_id.map(of_session);
        let conditions: Vec<Condition<'_>> =
            of_session.into_iter().chain(filter.conditions()).collect();
        let message = self.count_of(&self.events);
        fetch_count(connection, self.dialect.push_where(message, &conditions)).await
    }

    fn count_of(&self, table: &TableStatements) -> Message {
        let select = format!("SELECT count(*)::text FROM {} AS stored", table.name);
        self.dialect.message(&select)
    }

    /// Ids of sessions that have events and no record, in order, as a JSON array. Leaps from
    /// session to session, whatever the number of their events.
    pub async fn sessions_without_record(
        &self,
        connection: &mut Timed<'_>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Page, Failure> {
        let (events, sessions) = (&self.events.name, &self.sessions.name);
        let first = format!("WITH RECURSIVE found(id) AS ((SELECT min(session_id) FROM {events}");
        let message = self.dialect.message(&first);
        let message = match after {
            Some(id) => message.sql(" WHERE session_id > ").text(id),
            None => message,
        };
        let message = message
            .sql(&format!(
                ") UNION ALL \
                 SELECT (SELECT min(session_id) FROM {events} WHERE session_id > found.id) \
                 FROM found WHERE found.id IS NOT NULL) \
                 SELECT id::text FROM found WHERE id IS NOT NULL \
                   AND NOT EXISTS (SELECT FROM {sessions} AS stored WHERE stored.id = found.id) \
                 LIMIT "
            ))
            .number(sql_count(limit));
        let rows = connection.fetch(message).await?;
        let ids: Result<Vec<&str>, StoreError> =
            rows.iter().map(|row| required(row, 0, "session")).collect();
        let array = serde_json::to_string(&ids.map_err(Failure::of_call)?).expect("texts");
        Ok(Page { arrays: vec![array], next_cursor: None })
    }

    /// How much is stored. Counts up to a bound, and scans only for the largest.
    pub async fn stored_amount(
        &self,
        connection: &mut Timed<'_>,
        largest: u64,
    ) -> Result<StoredAmount, Failure> {
        let message = self.dialect.message(&self.amount_query());
        let rows = connection.fetch(message).await?;
        let row = rows.last().ok_or_else(no_row)?;
        let mut amount = amount(row).map_err(Failure::of_call)?;
        if largest > 0 {
            amount.largest = Some(self.largest_sessions(connection, largest).await?);
        }
        Ok(amount)
    }

    /// Of both tables the count up to the bound, the planner's estimate, and the bytes.
    fn amount_query(&self) -> String {
        let (sessions, events) = (&self.sessions.name, &self.events.name);
        let counted = |table: &str| {
            let bound = MAX_ROWS_COUNTED + 1;
            format!(
                "(SELECT count(*) FROM (SELECT FROM {table} LIMIT {bound}) AS counted)::text, \
                 (SELECT reltuples::bigint FROM pg_class WHERE oid = {}::regclass)::text",
                quote::text(table)
            )
        };
        // As far as the server has counted: what is vacuumed already is free, and not in it.
        let dead = |table: &str| {
            format!(
                "(SELECT floor(pg_relation_size(oid)::numeric * pg_stat_get_dead_tuples(oid) \
                   / greatest(pg_stat_get_dead_tuples(oid) + pg_stat_get_live_tuples(oid), 1))::bigint \
                 FROM pg_class WHERE oid = {}::regclass)",
                quote::text(table)
            )
        };
        format!(
            "SELECT {}, {}, (pg_total_relation_size({}) + pg_total_relation_size({}))::text, \
               ({} + {})::text",
            counted(sessions),
            counted(events),
            quote::text(sessions),
            quote::text(events),
            dead(sessions),
            dead(events),
        )
    }

    async fn largest_sessions(
        &self,
        connection: &mut Timed<'_>,
        limit: u64,
    ) -> Result<Vec<SessionAmount>, Failure> {
        let message = self
            .dialect
            .message(&format!(
                "SELECT session_id::text, count(*)::text, \
                   sum(octet_length(payload_json::text))::text \
                 FROM {} AS stored GROUP BY stored.session_id \
                 ORDER BY sum(octet_length(payload_json::text)) DESC, stored.session_id LIMIT ",
                self.events.name
            ))
            .number(sql_count(limit));
        let rows = connection.fetch(message).await?;
        let amount = |row: &PgRow| -> Result<SessionAmount, StoreError> {
            let session_id = required(row, 0, "event")?.to_owned();
            Ok(SessionAmount { session_id, events: count(row, 1)?, bytes: count(row, 2)? })
        };
        rows.iter().map(|row| amount(row).map_err(Failure::of_call)).collect()
    }

    fn events_of<'query>(
        &'query self,
        session_id: &'query str,
        conditions: impl Iterator<Item = Condition<'query>>,
        order: Order,
    ) -> Select<'query> {
        let conditions = [of_session(session_id)].into_iter().chain(conditions).collect();
        Select { sql: &self.events.select, conditions, column: EVENT_INDEX, order }
    }
}

/// As if the connection were lost.
pub fn no_row() -> Failure {
    Failure::lost("the server gave no row".to_owned())
}

fn last_position(row: &PgRow) -> Option<Position> {
    let text = |column| row.try_get_raw(column).ok().and_then(|value| value.as_str().ok());
    Some(Position { order: text(2)?.parse().ok()?, id: text(3)?.to_owned() })
}

async fn fetch_count(connection: &mut Timed<'_>, message: Message) -> Result<u64, Failure> {
    let rows = connection.fetch(message).await?;
    count(rows.last().ok_or_else(no_row)?, 0).map_err(Failure::of_call)
}

fn amount(row: &PgRow) -> Result<StoredAmount, StoreError> {
    let bound = u64::try_from(MAX_ROWS_COUNTED).unwrap_or(u64::MAX);
    let rows = |counted: usize| -> Result<(u64, bool), StoreError> {
        let (count, estimate) = (count(row, counted)?, count(row, counted + 1)?);
        Ok(if count <= bound { (count, false) } else { (estimate.max(count), true) })
    };
    let ((sessions, are_sessions_estimated), (events, are_events_estimated)) = (rows(0)?, rows(2)?);
    Ok(StoredAmount {
        sessions,
        events,
        is_estimate: are_sessions_estimated || are_events_estimated,
        database_bytes: count(row, 4)?,
        wal_bytes: None,
        reclaimable_bytes: Some(count(row, 5)?),
        largest: None,
    })
}

#[cfg(test)]
mod tests;
