//! The steps of a round: what goes to the server in one message, and so in one transaction.
//!
//! # No deadlock
//!
//! Whoever waits for a row holds only rows that come before it, in one order: rows of `events` by
//! their ids, then rows of `sessions` by theirs. A round of upserts has one step a table, `events`
//! first, each sorted by id. A deletion is a round of its own, as which events it locks isn't known
//! before: its statement locks them sorted by id, and then the session. So transactions of ours, of
//! whatever driver and process, can't wait for each other in a circle.

use std::collections::BTreeMap;

use crate::columns::OnDuplicate;
use crate::model::{SessionEvent, SessionRecord};
use crate::store::Write;

/// One statement.
#[derive(Debug)]
pub enum Step<'round> {
    /// Inserts events, sorted by their ids, each once.
    UpsertEvents(Vec<&'round SessionEvent>),
    /// Inserts or replaces sessions, sorted by their ids, each once.
    UpsertSessions(Vec<&'round SessionRecord>),
    /// Deletes a session and its events.
    DeleteSession(&'round str),
}

/// Upserts that follow each other: they are one step a table, with one row for each id.
#[derive(Default)]
struct Upserts<'round> {
    events: BTreeMap<&'round str, &'round SessionEvent>,
    sessions: BTreeMap<&'round str, &'round SessionRecord>,
}

/// The steps of these writes, in order.
pub fn steps<'round>(
    writes: impl Iterator<Item = &'round Write>,
    on_duplicate_event: OnDuplicate,
) -> Vec<Step<'round>> {
    let mut steps = Vec::new();
    let mut upserts = Upserts::default();
    for write in writes {
        match write {
            Write::Session(session) => drop(upserts.sessions.insert(&session.id, session)),
            Write::Event(event) => upserts.push_event(event, on_duplicate_event),
            Write::Events(events) => {
                events.iter().for_each(|event| upserts.push_event(event, on_duplicate_event));
            }
            // In transactions of their own, or not here.
            Write::Probe(_) | Write::Prune(_) | Write::Compact(_) | Write::Shrink(_) => {}
            Write::DeleteSession { id } => {
                std::mem::take(&mut upserts).push_to(&mut steps);
                steps.push(Step::DeleteSession(id));
            }
        }
    }
    upserts.push_to(&mut steps);
    steps
}

impl<'round> Upserts<'round> {
    fn push_event(&mut self, event: &'round SessionEvent, on_duplicate: OnDuplicate) {
        let place = self.events.entry(&event.id);
        match on_duplicate {
            OnDuplicate::Replace => place.insert_entry(event).into_mut(),
            OnDuplicate::Keep => place.or_insert(event),
        };
    }

    fn push_to(self, steps: &mut Vec<Step<'round>>) {
        if !self.events.is_empty() {
            steps.push(Step::UpsertEvents(self.events.into_values().collect()));
        }
        if !self.sessions.is_empty() {
            steps.push(Step::UpsertSessions(self.sessions.into_values().collect()));
        }
    }
}

/// How many rows the steps store, as far as is known before.
pub fn rows(steps: &[Step<'_>]) -> usize {
    let rows = |step: &Step<'_>| match step {
        Step::UpsertEvents(events) => events.len(),
        Step::UpsertSessions(sessions) => sessions.len(),
        Step::DeleteSession(_) => 1,
    };
    steps.iter().map(rows).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::store::{Backlog, BatchRules, Ticket};

    fn event(session: &str, id: &str, index: i64) -> SessionEvent {
        SessionEvent {
            id: id.to_owned(),
            session_id: session.to_owned(),
            event_index: index,
            ..SessionEvent::default()
        }
    }

    fn session(id: &str) -> Write {
        Write::Session(SessionRecord { id: id.to_owned(), ..SessionRecord::default() })
    }

    #[test]
    fn the_first_of_an_id_wins_where_duplicates_are_kept_out() {
        let writes = [
            Write::Event(event("s", "a", 1)),
            Write::Events(vec![event("s", "b", 2), event("s", "b", 3), event("s", "a", 4)]),
        ];
        let steps = steps(writes.iter(), OnDuplicate::Keep);
        let [Step::UpsertEvents(events)] = steps.as_slice() else { panic!("{steps:?}") };
        let found: Vec<_> = events.iter().map(|event| (&*event.id, event.event_index)).collect();
        assert_eq!(found, [("a", 1), ("b", 2)]);
    }

    #[test]
    fn adjacent_upserts_are_one_step_a_table_sorted_by_id_and_the_last_wins() {
        let writes = [
            session("t"),
            Write::Event(event("s", "b", 1)),
            Write::Events(vec![event("s", "c", 2), event("s", "a", 3), event("s", "a", 4)]),
            session("s"),
            Write::Event(event("t", "b", 5)),
        ];
        let steps = steps(writes.iter(), OnDuplicate::Replace);
        let [Step::UpsertEvents(events), Step::UpsertSessions(sessions)] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        let found: Vec<_> = events.iter().map(|event| (&*event.id, event.event_index)).collect();
        assert_eq!(found, [("a", 4), ("b", 5), ("c", 2)]);
        assert_eq!(sessions.iter().map(|session| &*session.id).collect::<Vec<_>>(), ["s", "t"]);
        assert_eq!(rows(&steps), 5);
    }

    #[test]
    fn any_other_write_is_a_step_of_its_own_in_its_place() {
        let writes = [
            Write::Event(event("s", "a", 1)),
            Write::DeleteSession { id: "s".to_owned() },
            Write::Event(event("s", "a", 2)),
        ];
        assert!(matches!(
            steps(writes.iter(), OnDuplicate::Replace).as_slice(),
            [Step::UpsertEvents(_), Step::DeleteSession("s"), Step::UpsertEvents(_)]
        ));
    }

    /// A row, in the order that the documentation says they are locked in.
    type Lock = (u8, String);

    /// What a step locks, in order, where each event is in the session that is given.
    fn locks(step: &Step<'_>, session_of: &HashMap<String, String>) -> Vec<Lock> {
        match step {
            Step::UpsertEvents(events) => {
                events.iter().map(|event| (0, event.id.clone())).collect()
            }
            Step::UpsertSessions(sessions) => {
                sessions.iter().map(|session| (1, session.id.clone())).collect()
            }
            Step::DeleteSession(id) => {
                let of_session = session_of.iter().filter(|(_, session)| session == id);
                let mut locks: Vec<Lock> =
                    of_session.map(|(event, _)| (0, event.clone())).collect();
                locks.sort();
                locks.push((1, (*id).to_owned()));
                locks
            }
        }
    }

    proptest::proptest! {
        /// Whatever is called, and wherever events are by then: each transaction locks rows in the
        /// one order, so that no circle of waiting transactions can close.
        #[test]
        fn every_round_locks_in_one_order(
            calls in proptest::collection::vec((0_u8..4, 0_usize..5, 0_usize..5), 1..60),
            places in proptest::collection::vec(0_usize..5, 5),
        ) {
            let rules = BatchRules { max_rows: 9, max_bytes: 1_000_000, are_concurrent: true };
            let now = Instant::now();
            let mut backlog = Backlog::new(rules, usize::MAX, Duration::from_secs(9), now);
            for (ticket, (kind, left, right)) in calls.into_iter().enumerate() {
                let (left, right) = (left.to_string(), right.to_string());
                let write = match kind {
                    0 => Write::Event(event(&left, &right, 1)),
                    1 => Write::Events(vec![event(&left, &right, 1), event(&right, &left, 1)]),
                    2 => session(&left),
                    _ => Write::DeleteSession { id: left },
                };
                backlog.push_write(Ticket(ticket), write, now).unwrap();
            }
            let session_of: HashMap<String, String> = places
                .into_iter()
                .enumerate()
                .map(|(event, session)| (event.to_string(), session.to_string()))
                .collect();
            while let Some(mut batch) = backlog.take() {
                let writes = batch.writes.iter().map(|pending| &pending.write);
                let steps = steps(writes, OnDuplicate::Replace);
                let locked: Vec<Lock> =
                    steps.iter().flat_map(|step| locks(step, &session_of)).collect();
                proptest::prop_assert!(locked.is_sorted_by(|left, right| left < right));
                backlog.settle(&mut batch.writes);
            }
        }
    }
}
