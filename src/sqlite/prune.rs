//! Pruning: whole sessions that nobody has used for long, and the oldest events of large ones.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::columns::{ColumnSpec, EVENTS, KNOWN_SESSIONS, Kind};
use crate::error::StoreError;
use crate::layout::Layout;
use crate::model::Page;
use crate::page::sql_count;
use crate::store::{Candidates, CandidatesQuery, Place, Prune, PruneStep, Pruned};

use super::failure;
use super::rows::count;
use super::table::has;

/// A session's age, where there is anything of it.
const AGE: &str = "coalesce(
    (SELECT created_at FROM events WHERE session_id = ?1 ORDER BY event_index DESC, id DESC LIMIT 1),
    (SELECT created_at FROM sessions WHERE id = ?1))";

/// What would go is looked at as far as a step at most does.
const MAX_ROWS: u64 = 1_000;

/// The statements, for the tables that were found.
#[derive(Debug)]
pub struct PruneStatements {
    is_idle: String,
    delete_events: String,
    delete_all_but_newest: String,
    delete_record: String,
    amount_of_session: String,
    amount_of_all_but_newest: String,
}

/// How many rows, and the bytes of their texts.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    rows: u64,
    bytes: u64,
}

impl PruneStatements {
    /// For tables of this layout.
    pub fn new(layout: &Layout) -> Self {
        let of = |specs: &[ColumnSpec], table| bytes(specs.iter().filter(|spec| has(table, spec)));
        let of_event = of(&EVENTS, layout.events.as_ref());
        let of_record = of(&KNOWN_SESSIONS, layout.sessions.as_ref());
        // By the place of the newest that goes: what is below it is found without counting again.
        let all_but_newest = "session_id = ?1 AND (event_index, id) <= (
               SELECT event_index, id FROM events WHERE session_id = ?1
               ORDER BY event_index DESC, id DESC LIMIT 1 OFFSET ?2)";
        let delete = |condition: &str| {
            format!(
                "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE {condition}
                   ORDER BY event_index, id LIMIT ?3) RETURNING {of_event}"
            )
        };
        Self {
            is_idle: format!(
                "SELECT 1 WHERE {AGE} < ?2 AND (?3 IS NULL OR
                   (SELECT destroyed_at FROM sessions WHERE id = ?1) < ?3)"
            ),
            // The second place is there for both.
            delete_events: delete("session_id = ?1 AND ?2 = 0"),
            delete_all_but_newest: delete(all_but_newest),
            delete_record: format!("DELETE FROM sessions WHERE id = ?1 RETURNING {of_record}"),
            amount_of_session: format!(
                "SELECT count(*), coalesce(sum({of_event}), 0)
                   + coalesce((SELECT {of_record} FROM sessions WHERE id = ?1), 0)
                 FROM events WHERE session_id = ?1"
            ),
            amount_of_all_but_newest: format!(
                "SELECT count(*), coalesce(sum({of_event}), 0) FROM events WHERE {all_but_newest}"
            ),
        }
    }

    /// Deletes what the step says, at most so many events, in the transaction that is open.
    pub fn prune(
        &self,
        connection: &Connection,
        PruneStep { sessions, what }: &PruneStep,
        max_rows: usize,
    ) -> rusqlite::Result<Pruned> {
        let mut pruned = Pruned::default();
        let max_rows = u64::try_from(max_rows).unwrap_or(u64::MAX);
        let mut left = sessions_that_may_go(connection, what)?;
        for id in sessions {
            let room = max_rows.saturating_sub(pruned.events + pruned.sessions);
            if room == 0 {
                break;
            }
            let is_whole = match what {
                Prune::Sessions { before, destroyed_before, .. } => {
                    if left == 0
                        || !self.is_idle(connection, id, *before, *destroyed_before)?
                        || has_young_event(connection, id, *before, room)?
                    {
                        pruned.handled += 1;
                        continue;
                    }
                    let is_whole = self.prune_session(connection, id, room, &mut pruned)?;
                    left -= u64::from(is_whole);
                    is_whole
                }
                Prune::Events { before: Some(before), .. }
                    if !self.is_idle(connection, id, *before, None)? =>
                {
                    true
                }
                Prune::Events { keep, .. } => {
                    let went =
                        self.delete(connection, &self.delete_all_but_newest, id, *keep, room)?;
                    pruned.note_events(went.rows, went.bytes);
                    went.rows < room
                }
            };
            if !is_whole {
                break;
            }
            pruned.handled += 1;
        }
        Ok(pruned)
    }

    /// Whether the session is gone, and not only some of its events.
    fn prune_session(
        &self,
        connection: &Connection,
        id: &str,
        max_rows: u64,
        pruned: &mut Pruned,
    ) -> rusqlite::Result<bool> {
        let went = self.delete(connection, &self.delete_events, id, 0, max_rows)?;
        pruned.note_events(went.rows, went.bytes);
        if went.rows == max_rows {
            return Ok(false);
        }
        let mut statement = connection.prepare_cached(&self.delete_record)?;
        let record = statement.query_row([id], |row| count(row, 0)).optional()?;
        pruned.bytes += record.unwrap_or_default();
        pruned.sessions += 1;
        Ok(true)
    }

    pub fn is_idle(
        &self,
        connection: &Connection,
        id: &str,
        before: i64,
        destroyed_before: Option<i64>,
    ) -> rusqlite::Result<bool> {
        connection.prepare_cached(&self.is_idle)?.exists(params![id, before, destroyed_before])
    }

    fn delete(
        &self,
        connection: &Connection,
        sql: &str,
        id: &str,
        keep: u64,
        max_rows: u64,
    ) -> rusqlite::Result<Amount> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![id, sql_count(keep), sql_count(max_rows)])?;
        let mut deleted = Amount::default();
        while let Some(row) = rows.next()? {
            deleted.rows += 1;
            deleted.bytes += count(row, 0)?;
        }
        Ok(deleted)
    }

    /// What the step would delete if it went on to its end.
    pub fn prunable(
        &self,
        connection: &Connection,
        PruneStep { sessions, what }: &PruneStep,
    ) -> Result<Pruned, StoreError> {
        let measure = || -> rusqlite::Result<Pruned> {
            let mut pruned = Pruned::default();
            let mut left = sessions_that_may_go(connection, what)?;
            for id in sessions {
                pruned.handled += 1;
                match what {
                    Prune::Sessions { before, destroyed_before, .. } => {
                        if left > 0
                            && self.is_idle(connection, id, *before, *destroyed_before)?
                            && !has_young_event(connection, id, *before, MAX_ROWS)?
                        {
                            left -= 1;
                            pruned.sessions += 1;
                            let mut asked = connection.prepare_cached(&self.amount_of_session)?;
                            let amount = asked.query_row([id], Amount::read)?;
                            pruned.note_events(amount.rows, amount.bytes);
                        }
                    }
                    Prune::Events { before: Some(before), .. }
                        if !self.is_idle(connection, id, *before, None)? => {}
                    Prune::Events { keep, .. } => {
                        let mut asked =
                            connection.prepare_cached(&self.amount_of_all_but_newest)?;
                        let amount =
                            asked.query_row(params![id, sql_count(*keep)], Amount::read)?;
                        pruned.note_events(amount.rows, amount.bytes);
                    }
                }
            }
            Ok(pruned)
        };
        measure().map_err(failure::store_error)
    }
}

/// Whether one of a session's oldest events, which would go first, is younger, though its newest isn't.
fn has_young_event(
    connection: &Connection,
    id: &str,
    before: i64,
    rows: u64,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM (SELECT created_at FROM events WHERE session_id = ?1
               ORDER BY event_index, id LIMIT ?3) WHERE created_at >= ?2 LIMIT 1",
        )?
        .exists(params![id, before, sql_count(rows)])
}

/// How many sessions may go before there are too few.
fn sessions_that_may_go(connection: &Connection, what: &Prune) -> rusqlite::Result<u64> {
    let Prune::Sessions { more_than: Some(max), .. } = what else { return Ok(u64::MAX) };
    let mut statement = connection.prepare_cached("SELECT count(*) FROM sessions")?;
    Ok(statement.query_row([], |row| count(row, 0))?.saturating_sub(*max))
}

/// Sessions that may have to go, as a page of their ids.
pub fn candidates(
    connection: &Connection,
    CandidatesQuery { of, after, limit }: &CandidatesQuery,
) -> Result<Page, StoreError> {
    let find = || -> rusqlite::Result<Vec<Place>> {
        let after_id = after.as_ref().map(|place| &place.id);
        let limit = sql_count(*limit);
        match of {
            Candidates::Idle { before, destroyed_before } => {
                let after_created_at = after.as_ref().map(|place| place.created_at);
                connection
                    .prepare_cached(
                        // Who was created later can't be older. The rest is looked at one by one.
                        "SELECT created_at, id FROM sessions AS record
                         WHERE created_at < ?1 AND typeof(created_at) = 'integer' AND (?2 IS NULL OR destroyed_at < ?2)
                           AND (?3 IS NULL OR (created_at, id) > (?3, ?4))
                           AND coalesce((SELECT created_at FROM events WHERE session_id = record.id
                             ORDER BY event_index DESC, id DESC LIMIT 1), created_at) < ?1
                         ORDER BY created_at, id LIMIT ?5",
                    )?
                    .query_map(
                        params![before, destroyed_before, after_created_at, after_id, limit],
                        |row| Ok(Place { created_at: row.get(0)?, id: row.get(1)? }),
                    )?
                    .collect()
            }
            Candidates::Large { max_events } => connection
                .prepare_cached(
                    "SELECT session_id FROM events WHERE ?2 IS NULL OR session_id > ?2
                     GROUP BY session_id HAVING count(*) > ?1 ORDER BY session_id LIMIT ?3",
                )?
                .query_map(params![sql_count(*max_events), after_id, limit], |row| {
                    Ok(Place { created_at: 0, id: row.get(0)? })
                })?
                .collect(),
        }
    };
    find().map(|places| Place::page(&places, *limit)).map_err(failure::store_error)
}

/// The pages that are in use. None of the WAL: they take the place of others.
pub fn live_bytes(connection: &Connection) -> Result<u64, StoreError> {
    let read = || -> rusqlite::Result<u64> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| count(row, 0));
        let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
        Ok(pages * pragma("page_size")?)
    };
    read().map_err(failure::store_error)
}

impl Amount {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { rows: count(row, 0)?, bytes: count(row, 1)? })
    }
}

/// The bytes of a row's texts.
fn bytes<'spec>(columns: impl Iterator<Item = &'spec ColumnSpec>) -> String {
    let texts = columns.filter(|column| column.kind != Kind::Integer);
    let lengths: Vec<String> =
        texts.map(|column| format!("coalesce(octet_length({}), 0)", column.name)).collect();
    lengths.join(" + ")
}
