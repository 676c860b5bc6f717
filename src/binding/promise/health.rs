//! Whether a driver can be counted on, told from how its calls end. Pure.

use std::time::{Duration, Instant};

use crate::error::StoreError;
use crate::store::{NOTICEABLE, Operation, Query, Write};

/// A failure that is longer ago says little of now: who takes a server out of traffic because of it
/// must put it back some time, and without traffic there is no call that could succeed.
const RECENT: Duration = Duration::from_secs(30);

/// How a driver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls do what they should.
    Ok,
    /// A call waits for long, or the last to end has failed, but not of late.
    Degraded,
    /// The last call to end has failed, just now.
    Failing,
    /// Calls are refused.
    Closed,
}

impl State {
    /// As users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Closed => "closed",
        }
    }
}

/// What a call says of the database when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// That it can be written, and so read too.
    Write,
    /// That it can be read.
    Read,
    /// As a write, whatever it is that keeps rows from being stored.
    Probe,
    /// As a write. That the role may not delete says nothing of other writes.
    Deletion,
    /// Whether the store can be kept small.
    Upkeep,
}

impl Kind {
    /// Of this operation.
    pub fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Write(Write::Probe(_)) => Self::Probe,
            Operation::Write(Write::DeleteSession { .. }) => Self::Deletion,
            Operation::Write(Write::Prune(_) | Write::Compact(_) | Write::Shrink(_))
            | Operation::Read(Query::PruneCandidates(_)) => Self::Upkeep,
            Operation::Write(_) => Self::Write,
            Operation::Read(_) => Self::Read,
        }
    }

    /// Whether a call that ended with this error shows that the database is in trouble.
    pub fn is_in_trouble(self, error: &StoreError) -> bool {
        match self {
            Self::Probe => *error != StoreError::Closed,
            Self::Deletion => error.is_of_the_store() && !error.is_missing_privilege(),
            Self::Write | Self::Read | Self::Upkeep => error.is_of_the_store(),
        }
    }
}

/// Failures without a success in between.
#[derive(Debug, Clone, Copy)]
struct Failures {
    first: Instant,
    last: Instant,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Health {
    writes: Option<Failures>,
    reads: Option<Failures>,
    upkeep: Option<Failures>,
    ok_since: Instant,
    closed: Option<Instant>,
}

impl Health {
    /// Of a driver that was opened now.
    pub fn new(now: Instant) -> Self {
        Self { writes: None, reads: None, upkeep: None, ok_since: now, closed: None }
    }

    /// A call has ended well, after this time; `None` where any time is all right.
    pub fn note_success(&mut self, kind: Kind, took: Option<Duration>, now: Instant) {
        let was_failing = match kind {
            Kind::Write | Kind::Probe | Kind::Deletion => {
                self.writes.take().is_some() | self.reads.take().is_some()
            }
            Kind::Read => self.reads.take().is_some(),
            Kind::Upkeep => self.upkeep.take().is_some(),
        };
        if was_failing || took.is_some_and(|took| took >= NOTICEABLE) {
            self.ok_since = now;
        }
    }

    /// A call has failed for a reason that lies with the database.
    pub fn note_failure(&mut self, kind: Kind, now: Instant) {
        let failures = match kind {
            Kind::Write | Kind::Probe | Kind::Deletion => &mut self.writes,
            Kind::Read => &mut self.reads,
            Kind::Upkeep => &mut self.upkeep,
        };
        failures.get_or_insert(Failures { first: now, last: now }).last = now;
    }

    /// Calls are refused from now on.
    pub fn note_closed(&mut self, now: Instant) {
        self.closed.get_or_insert(now);
    }

    /// How the driver is, and since when. `oldest` is how long the oldest call waits that shouldn't
    /// take long.
    pub fn state(&self, oldest: Option<Duration>, now: Instant) -> (State, Instant) {
        if let Some(closed) = self.closed {
            return (State::Closed, closed);
        }
        let failures = [self.writes, self.reads];
        let failures = failures.into_iter().flatten();
        let first = failures.clone().map(|failures| failures.first).min();
        let last = failures.map(|failures| failures.last).max();
        if let (Some(first), Some(last)) = (first, last) {
            return match now.duration_since(last) < RECENT {
                true => (State::Failing, first),
                false => (State::Degraded, last + RECENT),
            };
        }
        if let Some(upkeep) = self.upkeep {
            return (State::Degraded, upkeep.first);
        }
        match oldest.and_then(|oldest| oldest.checked_sub(NOTICEABLE)) {
            Some(late) => (State::Degraded, now.checked_sub(late).unwrap_or(now)),
            None => (State::Ok, self.ok_since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DatabaseCode;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_failure_counts_until_a_success_of_its_kind() {
        let start = Instant::now();
        let mut health = Health::new(start);
        assert_eq!(health.state(None, start), (State::Ok, start));
        health.note_failure(Kind::Write, start + SECOND);
        health.note_failure(Kind::Write, start + 2 * SECOND);
        health.note_success(Kind::Read, None, start + 3 * SECOND);
        assert_eq!(health.state(None, start + 3 * SECOND), (State::Failing, start + SECOND));
        health.note_success(Kind::Write, None, start + 4 * SECOND);
        assert_eq!(health.state(None, start + 5 * SECOND), (State::Ok, start + 4 * SECOND));
    }

    #[test]
    fn what_keeps_rows_out_is_trouble_for_a_probe_alone_and_a_missing_right_to_delete_for_none() {
        let code = |state: &str| DatabaseCode::Sqlstate(state.to_owned());
        let message = String::new;
        let refused = StoreError::Constraint { message: message(), database_code: code("23514") };
        let denied = StoreError::Database { message: message(), database_code: code("42501") };
        assert!(Kind::Probe.is_in_trouble(&refused) && !Kind::Write.is_in_trouble(&refused));
        assert!(Kind::Write.is_in_trouble(&denied) && !Kind::Deletion.is_in_trouble(&denied));
        assert!(!Kind::Probe.is_in_trouble(&StoreError::Closed));
    }

    #[test]
    fn a_write_that_succeeds_shows_that_reads_would() {
        let start = Instant::now();
        let mut health = Health::new(start);
        health.note_failure(Kind::Read, start);
        health.note_success(Kind::Write, None, start);
        assert_eq!(health.state(None, start).0, State::Ok);
    }

    #[test]
    fn a_failure_that_nothing_followed_weighs_less_with_time() {
        let start = Instant::now();
        let mut health = Health::new(start);
        health.note_failure(Kind::Write, start);
        let later = start + RECENT + SECOND;
        assert_eq!(health.state(None, later), (State::Degraded, start + RECENT));
    }

    #[test]
    fn upkeep_that_failed_degrades_until_it_succeeds() {
        let start = Instant::now();
        let mut health = Health::new(start);
        health.note_failure(Kind::Upkeep, start + SECOND);
        health.note_success(Kind::Write, None, start + 2 * SECOND);
        let later = start + 2 * RECENT;
        assert_eq!(health.state(None, later), (State::Degraded, start + SECOND));
        health.note_success(Kind::Upkeep, None, later);
        assert_eq!(health.state(None, later), (State::Ok, later));
    }

    #[test]
    fn a_call_that_waits_for_long_degrades_until_it_has_ended() {
        let start = Instant::now();
        let mut health = Health::new(start);
        let now = start + 10 * SECOND;
        assert_eq!(health.state(Some(SECOND), now).0, State::Ok);
        assert_eq!(health.state(Some(5 * SECOND), now), (State::Degraded, start + 7 * SECOND));
        health.note_success(Kind::Write, Some(5 * SECOND), now);
        assert_eq!(health.state(None, now), (State::Ok, now));
    }

    #[test]
    fn what_is_closed_is_nothing_else() {
        let start = Instant::now();
        let mut health = Health::new(start);
        health.note_failure(Kind::Write, start);
        health.note_closed(start + SECOND);
        assert_eq!(health.state(None, start + 2 * SECOND), (State::Closed, start + SECOND));
    }
}
