//! Pruning: whole sessions that nobody has used for long, and the oldest events of large ones. A step
//! is one statement. Of several processes one prunes at a time, and none waits for the others.

use std::rc::Rc;
use std::time::Duration;

use sqlx::postgres::PgRow;

use crate::columns::{CREATED_AT, EVENT_INDEX, ID, SESSION_ID};
use crate::error::StoreError;
use crate::model::Page;
use crate::page::sql_count;
use crate::store::{
    Candidates, CandidatesQuery, Outcome, Pace, PendingWrite, Place, Prune, PruneStep, Pruned,
};

use super::backend::{Backend, Calls, GivenUp};
use super::connection::Timed;
use super::failure::Failure;
use super::message::Message;
use super::quote;
use super::rows::{count, is_true, required};
use super::statements::{Statements, no_row};
use super::table::TableStatements;

/// What would go is looked at as far as a step at most does.
const MAX_ROWS: usize = 1_000;
/// Of each row, beside its values: its header, its numbers and its place on the page.
const ROW_OVERHEAD: u32 = 48;
/// About so many pages are looked at to know how large a row is.
const SAMPLED_PAGES: u32 = 100;

/// A step, alone in its round.
pub async fn prune(
    backend: &Rc<Backend>,
    step: &PruneStep,
    pending: &PendingWrite,
) -> Result<Outcome, GivenUp> {
    let pace = backend.prune_pace.get();
    let calls = Calls::one(pending.called_at);
    let pruned = backend.with_retries(calls, async |connection, statements| {
        statements.prune(connection, step, pace.rows()).await
    });
    // No end waits for it: what is left will be found again.
    let (pruned, took) = backend.unless_ending(pruned).await?;
    if !pruned.is_elsewhere {
        backend.metrics.note_commit(took);
        let mut pace: Pace = pace;
        pace.note(took);
        backend.prune_pace.set(pace);
    }
    Ok(Outcome::Pruned(pruned))
}

impl Statements {
    /// Deletes what the step says, at most so many events. Also says how long the server took.
    async fn prune(
        &self,
        connection: &mut Timed<'_>,
        step: &PruneStep,
        max_rows: usize,
    ) -> Result<(Pruned, Duration), Failure> {
        let rows = connection.fetch(self.prune_message(step, max_rows)).await?;
        let row = rows.last().ok_or_else(no_row)?;
        let read = || -> Result<(Pruned, Duration), StoreError> {
            let pruned = Pruned { is_elsewhere: !is_true(row, 5)?, ..read_pruned(row)? };
            Ok((pruned, Duration::from_millis(count(row, 4)?)))
        };
        read().map_err(Failure::of_call)
    }

    /// When a session's newest event was created, as an expression of the session's id.
    fn newest_created_at(&self, session_id: &str) -> String {
        format!(
            "(SELECT newest.{CREATED_AT} FROM {} AS newest WHERE newest.{SESSION_ID} = {session_id} \
               ORDER BY newest.{EVENT_INDEX} DESC, newest.{ID} DESC LIMIT 1)",
            self.events.name
        )
    }

    /// Whether nobody else prunes or compacts until the transaction ends, as an expression.
    pub fn upkeep_turn(&self) -> String {
        let name = quote::text(&format!("sandbox-agent-persist upkeep {}", self.events.name));
        format!("pg_try_advisory_xact_lock(hashtextextended({name}, 0))")
    }

    fn prune_message(&self, step: &PruneStep, max_rows: usize) -> Message {
        let (events, sessions) = (&self.events.name, &self.sessions.name);
        let turn = self.upkeep_turn();
        let message = self
            .dialect
            .message(&format!("WITH turn AS MATERIALIZED (SELECT {turn} AS is_ours), "));
        let message = self.push_judged(message, step, "(SELECT is_ours FROM turn)", max_rows);
        // What is locked may have been replaced meanwhile by an event of now.
        let (is_whole, message) = match &step.what {
            Prune::Sessions { before, .. } => (
                format!(
                    "NOT EXISTS (SELECT FROM {events} AS rest WHERE rest.{SESSION_ID} = judged.id \
                       AND rest.{ID} NOT IN (SELECT id FROM oldest))"
                ),
                push_oldest(message, events, "", max_rows)
                    .sql(&format!(" AND {CREATED_AT} < "))
                    .number(*before),
            ),
            Prune::Events { .. } => (
                "judged.event_id IN (SELECT id FROM oldest)".to_owned(),
                push_oldest(
                    message,
                    events,
                    &format!(" AND ({EVENT_INDEX}, {ID}) <= (judged.event_index, judged.event_id)"),
                    max_rows,
                ),
            ),
        };
        // Others may have been faster, which this statement doesn't see: it counts what it deletes.
        let records = match &step.what {
            Prune::Sessions { .. } => "SELECT id FROM whole",
            Prune::Events { .. } => "SELECT NULL::text WHERE false",
        };
        let (of_event, of_record) = (self.events.text_bytes(), self.sessions.text_bytes());
        message.sql(&format!(
            " ORDER BY {ID} FOR UPDATE), \
             deleted AS (DELETE FROM {events} AS stored \
               WHERE {ID} = ANY (ARRAY(SELECT id FROM locked)) \
               RETURNING stored.{SESSION_ID} AS session_id, {of_event} AS bytes), \
             whole AS MATERIALIZED (SELECT id FROM judged WHERE {is_whole}), \
             locked_records AS MATERIALIZED (SELECT {ID} FROM {sessions} \
               WHERE {ID} = ANY (ARRAY({records})) AND (SELECT count(*) FROM deleted) >= 0 \
               ORDER BY {ID} FOR UPDATE), \
             records AS (DELETE FROM {sessions} AS stored \
               WHERE {ID} = ANY (ARRAY(SELECT id FROM locked_records)) \
               RETURNING stored.{ID} AS id, {of_record} AS bytes) \
             SELECT (SELECT count(*) FROM wanted WHERE place < coalesce((SELECT min(place) FROM judged \
                 WHERE id NOT IN (SELECT id FROM whole)), 9223372036854775807))::text, \
               (SELECT count(*) FROM whole WHERE id = ANY (ARRAY({records})) \
                 AND (id IN (SELECT id FROM records) \
                   OR id IN (SELECT session_id FROM deleted)))::text, \
               (SELECT count(*) FROM deleted)::text, \
               (coalesce((SELECT sum(bytes) FROM deleted), 0) \
                 + coalesce((SELECT sum(bytes) FROM records), 0))::text, \
               (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000)::bigint::text, \
               (SELECT is_ours FROM turn)::text"
        ))
    }

    /// The sessions of the step as `wanted`, and those of them that the step is for as `judged`.
    fn push_judged(
        &self,
        message: Message,
        step: &PruneStep,
        condition: &str,
        max_rows: usize,
    ) -> Message {
        let (events, sessions) = (&self.events.name, &self.sessions.name);
        let newest = self.newest_created_at("wanted.id");
        let ids: Vec<Option<&str>> = step.sessions.iter().map(|id| Some(id.as_str())).collect();
        let message = message
            .sql("wanted AS MATERIALIZED (SELECT id, place FROM unnest(")
            .texts(&ids)
            .sql(&format!(
                "::text[]) WITH ORDINALITY AS wanted(id, place) WHERE {condition}), \
                 judged AS MATERIALIZED (SELECT wanted.id, wanted.place"
            ));
        match &step.what {
            Prune::Sessions { before, destroyed_before, more_than } => {
                let message = message
                    .sql(&format!(
                        " FROM wanted LEFT JOIN {sessions} AS record ON record.{ID} = wanted.id \
                         WHERE coalesce({newest}, record.{CREATED_AT}) < "
                    ))
                    .number(*before)
                    // One of the oldest, which would go first, may be younger though the newest isn't.
                    .sql(&format!(
                        " AND NOT EXISTS (SELECT FROM (SELECT stored.{CREATED_AT} AS created_at \
                           FROM {events} AS stored WHERE stored.{SESSION_ID} = wanted.id \
                           ORDER BY stored.{EVENT_INDEX}, stored.{ID} LIMIT "
                    ))
                    .number(sql_count(max_rows))
                    .sql(") AS oldest WHERE oldest.created_at >= ")
                    .number(*before)
                    .sql(")");
                let message = match destroyed_before {
                    Some(time) => message.sql(" AND record.destroyed_at < ").number(*time),
                    None => message,
                };
                let message = message.sql(" ORDER BY wanted.place");
                match more_than {
                    Some(max) => message
                        .sql(&format!(" LIMIT greatest((SELECT count(*) FROM {sessions}) - "))
                        .number(sql_count(*max))
                        .sql(", 0)), "),
                    None => message.sql("), "),
                }
            }
            Prune::Events { keep, before } => {
                let message = message
                .sql(&format!(
                    ", newest.event_index, newest.id AS event_id FROM wanted CROSS JOIN LATERAL ( \
                       SELECT stored.{EVENT_INDEX} AS event_index, stored.{ID} AS id \
                       FROM {events} AS stored WHERE stored.{SESSION_ID} = wanted.id \
                       ORDER BY stored.{EVENT_INDEX} DESC, stored.{ID} DESC LIMIT 1 OFFSET "
                ))
                .number(sql_count(*keep))
                .sql(") AS newest");
                match before {
                    Some(before) => {
                        message.sql(&format!(" WHERE {newest} < ")).number(*before).sql("), ")
                    }
                    None => message.sql("), "),
                }
            }
        }
    }

    /// What the step would delete if it went on to its end.
    pub async fn prunable(
        &self,
        connection: &mut Timed<'_>,
        step: &PruneStep,
    ) -> Result<Pruned, Failure> {
        let (events, sessions) = (&self.events.name, &self.sessions.name);
        let (of_event, of_record) = (self.events.text_bytes(), self.sessions.text_bytes());
        let (condition, count_sessions, bytes_of_records) = match step.what {
            Prune::Sessions { .. } => (
                String::new(),
                "(SELECT count(*) FROM judged)",
                format!(
                    "coalesce((SELECT sum({of_record}) FROM {sessions} AS stored \
                       WHERE stored.{ID} IN (SELECT id FROM judged)), 0)"
                ),
            ),
            Prune::Events { .. } => (
                format!(
                    " AND (stored.{EVENT_INDEX}, stored.{ID}) \
                       <= (judged.event_index, judged.event_id)"
                ),
                "0",
                "0".to_owned(),
            ),
        };
        let message = self.push_judged(self.dialect.message("WITH "), step, "true", MAX_ROWS);
        let message = message.sql(&format!(
            "amount AS (SELECT count(*) AS events, coalesce(sum({of_event}), 0) AS bytes \
               FROM judged JOIN {events} AS stored ON stored.{SESSION_ID} = judged.id{condition}) \
             SELECT (SELECT count(*) FROM wanted)::text, {count_sessions}::text, events::text, \
               (bytes + {bytes_of_records})::text FROM amount"
        ));
        let rows = connection.fetch(message).await?;
        read_pruned(rows.last().ok_or_else(no_row)?).map_err(Failure::of_call)
    }

    /// About how many bytes the rows take: their number, times the mean size of those on some pages. They
    /// are counted, as the server's own count comes late.
    pub async fn live_bytes(&self, connection: &mut Timed<'_>) -> Result<u64, Failure> {
        let of = |table: &TableStatements| {
            let (name, class) = (&table.name, quote::text(&table.name));
            format!(
                "(SELECT coalesce(avg({}), 0) + {ROW_OVERHEAD} FROM {name} AS stored \
                   TABLESAMPLE SYSTEM ((SELECT least(100, {SAMPLED_PAGES} * 100.0 \
                     / greatest(pg_relation_size({class}) / 8192, 1))))) \
                 * (SELECT count(*) FROM {name})",
                table.stored_bytes(),
            )
        };
        let message = self.dialect.message(&format!(
            "SELECT ({} + {})::bigint::text",
            of(&self.events),
            of(&self.sessions)
        ));
        let rows = connection.fetch(message).await?;
        count(rows.last().ok_or_else(no_row)?, 0).map_err(Failure::of_call)
    }

    /// Sessions that may have to go, as a page of their ids.
    pub async fn prune_candidates(
        &self,
        connection: &mut Timed<'_>,
        CandidatesQuery { of, after, limit }: &CandidatesQuery,
    ) -> Result<Page, Failure> {
        let (events, sessions) = (&self.events.name, &self.sessions.name);
        let message = match of {
            Candidates::Idle { before, destroyed_before } => {
                let newest = self.newest_created_at(&format!("record.{ID}"));
                // Who was created later can't be older. The rest is looked at one by one.
                let message = self
                    .dialect
                    .message(&format!(
                        "SELECT record.{CREATED_AT}::text, record.{ID}::text \
                         FROM {sessions} AS record WHERE record.{CREATED_AT} < "
                    ))
                    .number(*before);
                let message = match destroyed_before {
                    Some(time) => message.sql(" AND record.destroyed_at < ").number(*time),
                    None => message,
                };
                let message = match after {
                    Some(Place { created_at, id }) => message
                        .sql(&format!(" AND (record.{CREATED_AT}, record.{ID}) > ("))
                        .number(*created_at)
                        .sql(", ")
                        .text(id)
                        .sql(")"),
                    None => message,
                };
                message
                    .sql(&format!(" AND coalesce({newest}, record.{CREATED_AT}) < "))
                    .number(*before)
                    .sql(&format!(" ORDER BY record.{CREATED_AT}, record.{ID}"))
            }
            Candidates::Large { max_events } => {
                let message = self.dialect.message(&format!(
                    "SELECT '0', stored.{SESSION_ID}::text FROM {events} AS stored"
                ));
                let message = match after {
                    Some(Place { id, .. }) => {
                        message.sql(&format!(" WHERE stored.{SESSION_ID} > ")).text(id)
                    }
                    None => message,
                };
                message
                    .sql(&format!(" GROUP BY stored.{SESSION_ID} HAVING count(*) > "))
                    .number(sql_count(*max_events))
                    .sql(&format!(" ORDER BY stored.{SESSION_ID}"))
            }
        };
        let message = message.sql(" LIMIT ").number(sql_count(*limit));
        let rows = connection.fetch(message).await?;
        let places: Result<Vec<Place>, StoreError> = rows.iter().map(read_place).collect();
        Ok(Place::page(&places.map_err(Failure::of_call)?, *limit))
    }
}

/// The oldest events of `judged` sessions, at most so many, as `oldest`, and the beginning of those of
/// them that are `locked`.
fn push_oldest(message: Message, events: &str, condition: &str, max_rows: usize) -> Message {
    message
        .sql(&format!(
            "oldest AS MATERIALIZED (SELECT stored.id FROM judged CROSS JOIN LATERAL ( \
               SELECT {ID} AS id, {EVENT_INDEX} AS event_index FROM {events} \
               WHERE {SESSION_ID} = judged.id{condition} ORDER BY {EVENT_INDEX}, {ID} LIMIT "
        ))
        .number(sql_count(max_rows))
        .sql(") AS stored ORDER BY judged.place, stored.event_index, stored.id LIMIT ")
        .number(sql_count(max_rows))
        .sql(&format!(
            "), locked AS MATERIALIZED (SELECT {ID} AS id FROM {events} \
               WHERE {ID} = ANY (ARRAY(SELECT id FROM oldest))"
        ))
}

fn read_pruned(row: &PgRow) -> Result<Pruned, StoreError> {
    Ok(Pruned {
        handled: count(row, 0)?,
        sessions: count(row, 1)?,
        events: count(row, 2)?,
        bytes: count(row, 3)?,
        is_elsewhere: false,
    })
}

fn read_place(row: &PgRow) -> Result<Place, StoreError> {
    let created_at = required(row, 0, "session")?.parse().unwrap_or_default();
    Ok(Place { created_at, id: required(row, 1, "session")?.to_owned() })
}
