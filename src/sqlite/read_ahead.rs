//! The page that a scan will ask for next, read while JavaScript parses the one before: then
//! the call is answered at once, without a thread to wake on either side.
//!
//! A page that was read ahead is handed out only if nothing was committed since, by anybody.
//! SQLite counts the commits that a connection didn't make itself; the connection that counts
//! for us makes none.

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::model::{Page, PageRequest};
use crate::store::EventsQuery;

/// Larger pages aren't kept: the memory isn't worth the hop.
const MAX_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// At most one page, the last that was read ahead. May be used on any thread.
#[derive(Debug, Default)]
pub struct ReadAhead {
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    query: EventsQuery,
    version: i64,
    page: Page,
}

/// What the database's state is called, as `connection` sees it now.
pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// What the page after `page` is asked for with, if the scan that asked for `page` is worth
/// reading ahead for: one that has gone on from a page before.
pub fn next_query(asked: &EventsQuery, page: &Page) -> Option<EventsQuery> {
    let is_scan = asked.page.cursor.is_some();
    let is_small = page.arrays.iter().map(String::len).sum::<usize>() <= MAX_KEPT_BYTES;
    let cursor = page.next_cursor.clone().filter(|_| is_scan && is_small)?;
    let page = PageRequest { cursor: Some(cursor), ..asked.page };
    Some(EventsQuery { page, ..asked.clone() })
}

impl ReadAhead {
    /// Keeps a page that was read after the database was at `version`.
    pub fn keep(&self, query: EventsQuery, version: i64, page: Page) {
        *self.kept.lock() = Some(Kept { query, version, page });
    }

    /// Whether this is the page that is kept.
    pub fn has(&self, query: &EventsQuery) -> bool {
        self.kept.lock().as_ref().is_some_and(|kept| kept.query == *query)
    }

    /// The page, if it is kept and the database is still at the version it was read at.
    pub fn take(&self, query: &EventsQuery, version: i64) -> Option<Page> {
        let kept = self.kept.lock().take()?;
        (kept.version == version && kept.query == *query).then_some(kept.page)
    }
}
