//! What is deleted is gone before its deletion is acknowledged, where that is asked for: SQLite overwrites
//! the pages, and the log, which may hold what they held, is emptied.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::store::{OperationResult, PendingWrite};

use super::file::DatabaseFile;

/// While somebody reads what the log holds, it can't be emptied: how long before the next try.
const PAUSE: Duration = Duration::from_millis(10);

/// Writes that are done, and how.
pub type Done = Vec<(PendingWrite, OperationResult)>;

/// Holds deletions back until the log is empty.
#[derive(Debug)]
pub struct Erasure {
    is_wanted: bool,
    /// How long the log is tried.
    limit: Duration,
    held: Done,
    since: Instant,
    next_try: Instant,
}

/// What a try came to.
#[derive(Debug)]
pub enum Erased {
    /// These are gone.
    All(Done),
    /// These are deleted; parts of them may still be in the log.
    NotInTime(Done),
    /// Somebody reads still.
    NotYet,
}

impl Erasure {
    /// Of a store in which deletions are held back, or not, for so long at most.
    pub fn new(is_wanted: bool, limit: Duration) -> Self {
        let now = Instant::now();
        Self { is_wanted, limit, held: Vec::new(), since: now, next_try: now }
    }

    /// Keeps what has deleted something, and gives the rest back.
    pub fn hold(&mut self, done: Done) -> Done {
        if !self.is_wanted {
            return done;
        }
        let is_deletion = |(pending, result): &(PendingWrite, OperationResult)| {
            pending.write.deletes() && result.is_ok()
        };
        let (held, rest): (Done, Done) = done.into_iter().partition(is_deletion);
        if !held.is_empty() {
            if self.held.is_empty() {
                self.since = Instant::now();
            }
            self.held.extend(held);
            self.next_try = Instant::now();
        }
        rest
    }

    /// When to try, if something is held.
    pub fn due(&self) -> Option<Instant> {
        (!self.held.is_empty()).then_some(self.next_try)
    }

    /// Tries to empty the log; for the last time where the end is near.
    pub fn try_now(
        &mut self,
        connection: &Connection,
        file: &DatabaseFile,
        is_ending: bool,
    ) -> Erased {
        let emptied = connection.busy_timeout(Duration::ZERO).is_ok()
            && file.empty_wal(connection) == Ok(true);
        if emptied {
            return Erased::All(std::mem::take(&mut self.held));
        }
        if is_ending || self.since.elapsed() >= self.limit {
            return Erased::NotInTime(std::mem::take(&mut self.held));
        }
        self.next_try = Instant::now() + PAUSE;
        Erased::NotYet
    }
}
