//! What the tests of every store need: calls, and somebody who waits for their completions.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;
use crate::filter::{EventsFilter, Order, SessionsFilter};
use crate::model::{PageRequest, SessionEvent, SessionRecord};

use super::{
    Completion, Completions, EventsQuery, Operation, OperationResult, Outcome, Query, SessionStore,
    SessionsQuery, Ticket, Trouble, Write,
};

/// For what should take no time at all.
const LONG: Duration = Duration::from_secs(30);

/// Collects what is delivered.
#[derive(Default)]
pub struct Collected {
    batches: Mutex<Vec<Vec<Completion>>>,
    arrived: Condvar,
}

impl Completions for Collected {
    fn deliver(&self, batch: Vec<Completion>) {
        self.batches.lock().push(batch);
        self.arrived.notify_all();
    }

    fn warn_of_dropped_fields(&self) {
        panic!("tables of ours have the column");
    }

    fn report(&self, _trouble: Trouble) {}
}

impl Collected {
    /// Waits for the completion of a call and takes it.
    pub fn take(&self, ticket: Ticket) -> OperationResult {
        let mut batches = self.batches.lock();
        loop {
            for batch in batches.iter_mut() {
                if let Some(place) = batch.iter().position(|done| done.ticket == ticket) {
                    return batch.remove(place).result;
                }
            }
            let wait = self.arrived.wait_for(&mut batches, LONG);
            assert!(!wait.timed_out(), "{ticket:?} was never settled");
        }
    }

    /// How many calls were delivered together, of each delivery that wasn't taken.
    pub fn sizes(&self) -> Vec<usize> {
        self.batches.lock().iter().map(Vec::len).collect()
    }

    /// The tickets of what was delivered and not taken, all of it stored.
    pub fn stored(&self) -> Vec<usize> {
        let batches = self.batches.lock();
        let tickets = batches.iter().flatten().map(|done| {
            assert_eq!(done.result, Ok(Outcome::Stored));
            done.ticket.0
        });
        tickets.collect()
    }
}

/// Calls, and waits for the end of it.
pub fn call(
    store: &dyn SessionStore,
    collected: &Collected,
    operation: Operation,
) -> OperationResult {
    let ticket = Ticket(usize::MAX);
    store.submit(ticket, operation).unwrap_or_else(|| collected.take(ticket))
}

/// An event whose payload has its index.
pub fn event(id: &str, session_id: &str, index: i64) -> SessionEvent {
    SessionEvent {
        id: id.to_owned(),
        event_index: index,
        session_id: session_id.to_owned(),
        payload: format!("{{\"index\":{index}}}"),
        sender: "agent".to_owned(),
        ..SessionEvent::default()
    }
}

/// So many events of a session, from index 0.
pub fn events(session_id: &str, count: i64) -> Vec<SessionEvent> {
    (0..count).map(|index| event(&format!("{session_id}{index}"), session_id, index)).collect()
}

pub fn write(event: SessionEvent) -> Operation {
    Operation::Write(Write::Event(event))
}

pub fn insert(session_id: &str, index: i64) -> Operation {
    write(event(&format!("{session_id}{index}"), session_id, index))
}

pub fn insert_all(events: Vec<SessionEvent>) -> Operation {
    Operation::Write(Write::Events(events))
}

pub fn update(id: &str, agent: &str) -> Operation {
    Operation::Write(Write::Session(SessionRecord {
        id: id.to_owned(),
        agent: agent.to_owned(),
        ..SessionRecord::default()
    }))
}

pub fn delete(id: &str) -> Operation {
    Operation::Write(Write::DeleteSession { id: id.to_owned() })
}

pub fn get(id: &str) -> Operation {
    Operation::Read(Query::Session { id: id.to_owned() })
}

pub fn page(limit: u64) -> PageRequest {
    PageRequest { limit, cursor: None, max_bytes: None }
}

pub fn list(session_id: &str) -> Operation {
    Operation::Read(Query::Events(EventsQuery {
        session_id: session_id.to_owned(),
        filter: EventsFilter::default(),
        order: Order::default(),
        page: page(1_000),
    }))
}

pub fn list_sessions() -> Operation {
    let (filter, order) = (SessionsFilter::default(), Order::default());
    Operation::Read(Query::Sessions(SessionsQuery { filter, order, page: page(1_000) }))
}

pub fn count(session_id: &str) -> Operation {
    let session_id = Some(session_id.to_owned());
    Operation::Read(Query::CountEvents { session_id, filter: EventsFilter::default() })
}

/// A deletion takes what was called before it and leaves what was called after, of that session.
pub fn check_order_of_a_deletion(store: &dyn SessionStore, collected: &Collected) {
    let operations =
        [update("s", "agent"), insert("s", 1), insert("t", 1), delete("s"), insert("s", 2)];
    for (ticket, operation) in operations.into_iter().enumerate() {
        assert_eq!(store.submit(Ticket(ticket), operation), None);
    }
    assert_eq!(collected.take(Ticket(3)), Ok(Outcome::Deleted(true)));
    assert_eq!(call(store, collected, get("s")), Ok(Outcome::Session(None)));
    assert_eq!(call(store, collected, count("s")), Ok(Outcome::Count(1)));
    assert_eq!(call(store, collected, count("t")), Ok(Outcome::Count(1)));
    assert_eq!(call(store, collected, delete("none")), Ok(Outcome::Deleted(false)));
}

/// A session of more events than one transaction deletes goes all the same, whoever writes
/// meanwhile.
pub fn check_deletion_of_many_events(store: &dyn SessionStore, collected: &Collected) {
    for part in 0..2 {
        let all = (0..6_000).map(|index| event(&format!("{part} {index}"), "s", index));
        assert_eq!(call(store, collected, insert_all(all.collect())), Ok(Outcome::Stored));
    }
    let operations = [update("s", "agent"), delete("s"), insert("s", 1), insert("t", 1)];
    for (ticket, operation) in operations.into_iter().enumerate() {
        assert_eq!(store.submit(Ticket(ticket), operation), None);
    }
    assert_eq!(collected.take(Ticket(3)), Ok(Outcome::Stored));
    assert_eq!(call(store, collected, count("s")), Ok(Outcome::Count(1)));
    assert_eq!(collected.take(Ticket(1)), Ok(Outcome::Deleted(true)));
    assert_eq!(call(store, collected, get("s")), Ok(Outcome::Session(None)));
}

/// Of the events that are stored in one call either all are there or none, where the tables refuse
/// those with the index 5.
pub fn check_that_events_are_stored_whole(store: &dyn SessionStore, collected: &Collected) {
    for (ticket, count) in [(0, 10), (1, 5), (2, 0)] {
        store.submit(Ticket(ticket), insert_all(events(&ticket.to_string(), count)));
    }
    let refused = collected.take(Ticket(0));
    assert!(matches!(refused, Err(StoreError::Constraint { .. })), "{refused:?}");
    assert_eq!(collected.take(Ticket(1)), Ok(Outcome::Stored));
    assert_eq!(collected.take(Ticket(2)), Ok(Outcome::Stored));
    assert_eq!(call(store, collected, count("0")), Ok(Outcome::Count(0)));
    assert_eq!(call(store, collected, count("1")), Ok(Outcome::Count(5)));
}
