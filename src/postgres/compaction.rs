//! Compaction: what streamed in many events becomes few. A step reads, and does what comes of that, in one
//! transaction that sees one state of the store: where somebody has changed a row since, it is done again.

use std::rc::Rc;
use std::time::Instant;

use crate::columns::{EVENT_INDEX, ID, SESSION_ID};
use crate::page::sql_count;
use crate::replay::Merge;
use crate::store::{CompactRun, CompactStep, Compacted, Outcome, PendingWrite};

use super::backend::{Backend, Calls, GivenUp};
use super::connection::Timed;
use super::failure::Failure;
use super::message::Message;
use super::rows::{is_true, with_event_leniently};
use super::statements::{Statements, no_row};

/// Begins what sees one state of the store, whoever writes meanwhile.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";

/// A step, alone in its round.
pub async fn compact(
    backend: &Rc<Backend>,
    step: &CompactStep,
    pending: &PendingWrite,
) -> Result<Outcome, GivenUp> {
    let pace = backend.prune_pace.get();
    let calls = Calls::one(pending.called_at);
    let compacted = backend.with_retries(calls, async |connection, statements| {
        let begun = Instant::now();
        connection.execute(BEGIN).await?;
        let compacted = statements.compact(connection, step, pace.rows()).await;
        let is_lost = compacted.as_ref().is_err_and(|failure| failure.is_connection_lost);
        if !is_lost {
            let end = if compacted.is_ok() { "COMMIT" } else { "ROLLBACK" };
            connection.execute(end).await?;
        }
        compacted.map(|compacted| (compacted, begun.elapsed()))
    });
    // No end waits for it: what is left will be found again.
    let (compacted, took) = backend.unless_ending(compacted).await?;
    if compacted.gone > 0 {
        backend.metrics.note_commit(took);
    }
    Ok(Outcome::Compacted(compacted))
}

impl Statements {
    /// Does a step of at most so many rows in the transaction that is open.
    async fn compact(
        &self,
        connection: &mut Timed<'_>,
        step: &CompactStep,
        max_rows: usize,
    ) -> Result<Compacted, Failure> {
        let turn = connection.fetch(Message::simple("SELECT ").sql(&self.upkeep_turn())).await?;
        if !is_true(turn.last().ok_or_else(no_row)?, 0).map_err(Failure::of_call)? {
            return Ok(Compacted { is_elsewhere: true, ..Compacted::default() });
        }
        let (merges, compacted) = self.plan_compaction(connection, step, max_rows, false).await?;
        if !merges.is_empty() {
            self.lock_merged(connection, &merges).await?;
            connection.fetch(self.merge_message(&merges)).await?;
        }
        Ok(compacted)
    }

    /// What a step would do.
    pub async fn compactable(
        &self,
        connection: &mut Timed<'_>,
        step: &CompactStep,
    ) -> Result<Compacted, Failure> {
        const ROWS: usize = 1_000;
        self.plan_compaction(connection, step, ROWS, true).await.map(|(_, compacted)| compacted)
    }

    async fn plan_compaction(
        &self,
        connection: &mut Timed<'_>,
        step: &CompactStep,
        max_rows: usize,
        is_dry: bool,
    ) -> Result<(Vec<Merge>, Compacted), Failure> {
        let idle = connection.fetch(self.idle_message(&step.session_id, step.idle_before)).await?;
        if idle.is_empty() {
            return Ok((Vec::new(), Compacted::default()));
        }
        let message = self
            .dialect
            .message(&self.events.select)
            .sql(&format!(" WHERE stored.{SESSION_ID} = "))
            .text(&step.session_id);
        let message = match &step.from.after {
            Some(place) => message
                .sql(&format!(
                    " AND (stored.{EVENT_INDEX}, stored.{ID}) {} (",
                    if place.is_open { "<=" } else { "<" }
                ))
                .number(place.event_index)
                .sql(", ")
                .text(&place.id)
                .sql(")"),
            None => message,
        };
        let message = message
            .sql(&format!(" ORDER BY stored.{EVENT_INDEX} DESC, stored.{ID} DESC LIMIT "))
            .number(sql_count(max_rows));
        let rows = connection.fetch(message).await?;
        let mut run = CompactRun::new(step);
        for row in &rows {
            if with_event_leniently(row, |event| run.push(event)).is_err() {
                run.skip();
            }
        }
        Ok(run.finish(max_rows, rows.len(), is_dry))
    }

    /// The session's row, if its newest event is older than that.
    fn idle_message(&self, session_id: &str, before: i64) -> Message {
        self.dialect
            .message(&format!(
                "SELECT newest.{ID}::text FROM (SELECT stored.{ID}, stored.created_at \
                   FROM {} AS stored WHERE stored.{SESSION_ID} = ",
                self.events.name
            ))
            .text(session_id)
            .sql(&format!(
                " ORDER BY stored.{EVENT_INDEX} DESC, stored.{ID} DESC LIMIT 1) AS newest \
                 WHERE newest.created_at < "
            ))
            .number(before)
    }

    /// In the one order that all lock in.
    async fn lock_merged(
        &self,
        connection: &mut Timed<'_>,
        merges: &[Merge],
    ) -> Result<(), Failure> {
        let ids: Vec<Option<&str>> = merges
            .iter()
            .flat_map(|merge| merge.gone.iter().chain([&merge.id]))
            .map(|id| Some(id.as_str()))
            .collect();
        let message = self
            .dialect
            .message(&format!("SELECT FROM {} WHERE {ID} = ANY (", self.events.name))
            .texts(&ids)
            .sql(&format!("::text[]) ORDER BY {ID} FOR UPDATE"));
        connection.fetch(message).await.map(drop)
    }

    fn merge_message(&self, merges: &[Merge]) -> Message {
        let gone: Vec<Option<&str>> =
            merges.iter().flat_map(|merge| &merge.gone).map(|id| Some(id.as_str())).collect();
        let kept: Vec<Option<&str>> = merges.iter().map(|merge| Some(merge.id.as_str())).collect();
        let stored: Vec<_> =
            merges.iter().map(|merge| self.events.stored_json(&merge.payload)).collect();
        let payloads: Vec<Option<&str>> =
            stored.iter().map(|payload| Some(payload.as_ref())).collect();
        let events = &self.events.name;
        self.dialect
            .message(&format!("WITH gone AS (DELETE FROM {events} WHERE {ID} = ANY ("))
            .texts(&gone)
            .sql(&format!(
                "::text[])) UPDATE {events} AS stored SET payload_json = merged.payload::{} \
                 FROM unnest(",
                self.dialect.payload_type
            ))
            .texts(&kept)
            .sql("::text[], ")
            .texts(&payloads)
            .sql(&format!("::text[]) AS merged(id, payload) WHERE stored.{ID} = merged.id"))
    }
}
