//! Space that comes back: what deleted rows have left free is given back in small steps, and on
//! request all at once.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::{DatabaseCode, StoreError};
use crate::store::{FileProgress, Outcome, Pace};

use super::failure;
use super::file::DatabaseFile;
use super::filesystem;
use super::prune::live_bytes;
use super::rows::count;

/// So long after the last deletion: who deletes more would only have pages moved that go soon.
const QUIET: Duration = Duration::from_millis(500);
/// So many free pages are kept, as the next rows will want some …
const MIN_FREE_PAGES: u64 = 256;
/// … or this part of those in use.
const FREE_PART: u64 = 8;
/// A VACUUM looks whether it should end after so many steps of SQLite's machine: one may copy a row of
/// any size.
const STEPS_BETWEEN_LOOKS: i32 = 100;

/// Gives space back after deletions.
#[derive(Debug)]
pub struct Vacuum {
    /// Whether the file can shrink in steps: the TypeScript drivers' can't.
    is_possible: bool,
    /// When rows were last deleted, if there may be something to do.
    deleted: Option<Instant>,
    pace: Pace,
}

impl Vacuum {
    /// Of the file that a connection has open.
    pub fn new(connection: &Connection) -> rusqlite::Result<Self> {
        const INCREMENTAL: u64 = 2;
        let mode = connection.pragma_query_value(None, "auto_vacuum", |row| count(row, 0))?;
        Ok(Self { is_possible: mode == INCREMENTAL, deleted: None, pace: Pace::default() })
    }

    /// Rows were deleted.
    pub fn note_deletion(&mut self) {
        if self.is_possible {
            self.deleted = Some(Instant::now());
        }
    }

    /// The file may have become one that can.
    pub fn note_shrunk(&mut self) {
        self.is_possible = true;
    }

    /// When there is something to do, if there may be.
    pub fn due(&self) -> Option<Instant> {
        self.deleted.map(|deleted| deleted + QUIET)
    }

    /// One step, unless somebody else has the lock. Returns how long it took; `None` if nothing is left
    /// to do.
    pub fn step(
        &mut self,
        connection: &Connection,
        verify: impl FnOnce() -> Result<(), StoreError>,
    ) -> Option<Duration> {
        let begun = Instant::now();
        match self.try_step(connection, verify) {
            Ok(true) => {
                let took = begun.elapsed();
                self.pace.note(took);
                Some(took)
            }
            Ok(false) => {
                self.deleted = None;
                None
            }
            // Whoever has the lock may delete more.
            Err(StoreError::Busy { .. }) => {
                self.note_deletion();
                Some(Duration::ZERO)
            }
            // The next deletion has another try.
            Err(_) => {
                self.deleted = None;
                None
            }
        }
    }

    fn try_step(
        &self,
        connection: &Connection,
        verify: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        connection.busy_timeout(Duration::ZERO).map_err(failure::store_error)?;
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
            .map_err(failure::store_error)?;
        // As for a write: not before the lock is ours.
        verify()?;
        let freed = self.free_some(&transaction).map_err(failure::store_error)?;
        transaction.commit().map_err(failure::store_error)?;
        Ok(freed)
    }

    /// Whether there was something to free.
    fn free_some(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| count(row, 0));
        let free = pragma("freelist_count")?;
        let used = pragma("page_count")?.saturating_sub(free);
        let too_many = free.saturating_sub(MIN_FREE_PAGES.max(used / FREE_PART));
        let pages = too_many.min(u64::try_from(self.pace.rows()).unwrap_or(u64::MAX));
        if pages == 0 {
            return Ok(false);
        }
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        // Each row is a page that is free now.
        while rows.next()?.is_some() {}
        Ok(true)
    }
}

/// Makes a file as small as can be, in place. Writers wait meanwhile. `is_over` may end that.
pub fn shrink(
    connection: &mut Connection,
    file: &DatabaseFile,
    busy_timeout: Duration,
    progress: &FileProgress,
    is_over: impl Fn() -> bool + Send + 'static,
) -> Result<Outcome, StoreError> {
    let bytes_before = size(connection).map_err(failure::store_error)?;
    require_room(file.path(), live_bytes(connection)?)?;
    progress.begin(filesystem::wal_path(file.path()));
    connection.busy_timeout(busy_timeout).map_err(failure::store_error)?;
    file.verify()?;
    connection
        .progress_handler(STEPS_BETWEEN_LOOKS, Some(is_over))
        .map_err(failure::store_error)?;
    let vacuumed =
        vacuum(connection).map_err(|error| failure::store_error_of_write(connection, error));
    connection.progress_handler(0, None::<fn() -> bool>).map_err(failure::store_error)?;
    vacuumed?;
    progress.finish();
    // Where somebody still reads, the file becomes smaller with a later checkpoint.
    let _ = file.empty_wal(connection);
    let bytes_after = size(connection).map_err(failure::store_error)?;
    Ok(Outcome::Shrunk { bytes_before, bytes_after })
}

/// Makes a database in memory as small as can be.
pub fn in_memory(connection: &Connection) -> rusqlite::Result<Outcome> {
    let bytes_before = size(connection)?;
    vacuum(connection)?;
    Ok(Outcome::Shrunk { bytes_before, bytes_after: size(connection)? })
}

/// Rewrites the database, and as one that can shrink in steps.
fn vacuum(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.execute_batch("VACUUM")
}

/// Of the database.
fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| count(row, 0));
    Ok(pragma("page_count")? * pragma("page_size")?)
}

/// SQLite writes a copy among the temporary files, and that into the log beside the file.
fn require_room(file: &Path, bytes: u64) -> Result<(), StoreError> {
    let temporary = std::env::temp_dir();
    for (folder, wanted) in
        [(filesystem::folder(file), bytes.saturating_mul(2)), (temporary.as_path(), bytes)]
    {
        if filesystem::free_bytes(folder).is_some_and(|free| free < wanted) {
            let database_code = DatabaseCode::Sqlite("SQLITE_FULL");
            return Err(StoreError::Full { needed: Some(wanted), database_code });
        }
    }
    Ok(())
}
