//! The deletion of a session with more events than one transaction should hold: oldest events
//! first, the record last, so that what is left of it after a crash can be deleted again.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::store::{Pace, PendingWrite, Write};

use super::statements;

/// A deletion under way.
#[derive(Debug)]
pub struct Deletion {
    /// Its call.
    pub pending: PendingWrite,
    pace: Pace,
    /// When the last step began.
    begun: Instant,
}

impl Deletion {
    /// One that is to begin.
    pub fn new(pending: PendingWrite) -> Self {
        Self { pending, pace: Pace::default(), begun: Instant::now() }
    }

    /// Deletes some more, in the transaction that is open. Returns whether that was the rest.
    pub fn step(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let Write::DeleteSession { id } = &self.pending.write else {
            unreachable!("only deletions are begun")
        };
        self.begun = Instant::now();
        let deleted = statements::delete_oldest_events(connection, id, self.pace.rows())?;
        if deleted < self.pace.rows() {
            statements::delete_session(connection, id)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The last step is committed, which is most of what it takes. Returns how long it took.
    pub fn note_committed(&mut self) -> Duration {
        let took = self.begun.elapsed();
        self.pace.note(took);
        took
    }
}
