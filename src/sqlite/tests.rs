//! The store as a backend of its own, without JavaScript.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rusqlite::Connection;

use crate::error::StoreError;
use crate::model::{PageRequest, SessionEvent, SessionRecord};
use crate::store::{
    Completion, Completions, EventsQuery, Operation, OperationResult, Outcome, Query, Row,
    SessionStore, Ticket,
};

use super::{Durability, SqliteOptions, open};

/// Collects what is delivered, and how many deliveries it took.
#[derive(Default)]
struct Collected {
    batches: Mutex<Vec<Vec<Completion>>>,
    arrived: Condvar,
}

impl Completions for Collected {
    fn deliver(&self, batch: Vec<Completion>) {
        self.batches.lock().unwrap().push(batch);
        self.arrived.notify_all();
    }

    fn warn_of_dropped_fields(&self) {
        panic!("a file always gets the column");
    }
}

impl Collected {
    /// Waits for the completion of a call and takes it.
    fn take(&self, ticket: Ticket) -> OperationResult {
        let mut batches = self.batches.lock().unwrap();
        loop {
            for batch in batches.iter_mut() {
                if let Some(at) = batch.iter().position(|completion| completion.ticket == ticket) {
                    return batch.remove(at).result;
                }
            }
            let (next, wait) = self.arrived.wait_timeout(batches, Duration::from_secs(30)).unwrap();
            assert!(!wait.timed_out(), "{ticket:?} was never settled");
            batches = next;
        }
    }
}

struct Fixture {
    store: Arc<dyn SessionStore>,
    collected: Arc<Collected>,
    filename: String,
    _folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    fixture_that_waits(Duration::from_millis(200))
}

fn fixture_that_waits(busy_timeout: Duration) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let filename = folder.path().join("a.db").to_str().unwrap().to_owned();
    let collected = Arc::new(Collected::default());
    let options = SqliteOptions { busy_timeout, ..options(&filename) };
    let store = open(&options, Arc::clone(&collected) as Arc<dyn Completions>).unwrap();
    Fixture { store, collected, filename, _folder: folder }
}

fn options(filename: &str) -> SqliteOptions {
    SqliteOptions {
        filename: filename.to_owned(),
        durability: Durability::Normal,
        busy_timeout: Duration::from_millis(200),
        ..SqliteOptions::default()
    }
}

impl Fixture {
    fn call(&self, operation: Operation) -> OperationResult {
        let ticket = Ticket(usize::MAX);
        self.store.submit(ticket, operation).unwrap_or_else(|| self.collected.take(ticket))
    }

    fn page_text(&self, session_id: &str) -> String {
        match self.call(list(session_id)) {
            Ok(Outcome::Page(page)) => page.arrays.concat(),
            other => panic!("{other:?}"),
        }
    }
}

fn insert(session_id: &str, index: i64) -> Operation {
    Operation::Write(Row::Event(event(session_id, index)))
}

fn event(session_id: &str, index: i64) -> SessionEvent {
    SessionEvent {
        id: format!("{session_id}{index}"),
        event_index: index,
        session_id: session_id.to_owned(),
        payload: "{}".to_owned(),
        sender: "agent".to_owned(),
        ..SessionEvent::default()
    }
}

fn list(session_id: &str) -> Operation {
    let page = PageRequest { limit: 1_000, cursor: None };
    Operation::Read(Query::Events(EventsQuery { session_id: session_id.to_owned(), page }))
}

fn update(id: &str) -> Operation {
    let session = SessionRecord { id: id.to_owned(), ..SessionRecord::default() };
    Operation::Write(Row::Session(session))
}

#[test]
fn writes_of_one_batch_are_delivered_at_once() {
    let fixture = fixture();
    for index in 0..500 {
        assert_eq!(fixture.store.submit(Ticket(0), insert("s", index)), None);
    }
    fixture.store.close();
    let batches = fixture.collected.batches.lock().unwrap();
    let delivered: usize = batches.iter().map(Vec::len).sum();
    assert_eq!(delivered, 500);
    assert!(batches.len() < 250, "{} deliveries", batches.len());
}

#[test]
fn a_list_sees_what_was_submitted_before_it() {
    let fixture = fixture();
    for index in 0..100 {
        fixture.store.submit(Ticket(0), insert("s", index));
    }
    assert_eq!(fixture.page_text("s").matches("\"id\"").count(), 100);
}

#[test]
fn a_session_is_read_at_once_unless_it_is_being_written() {
    let fixture = fixture();
    let get = || Operation::Read(Query::Session { id: "s".to_owned() });
    assert_eq!(fixture.store.submit(Ticket(1), get()), Some(Ok(Outcome::Session(None))));
    fixture.store.submit(Ticket(2), update("s"));
    assert!(matches!(fixture.call(get()), Ok(Outcome::Session(Some(_)))));
}

#[test]
fn a_write_that_the_tables_refuse_leaves_its_neighbours() {
    let fixture = fixture();
    Connection::open(&fixture.filename)
        .unwrap()
        .execute_batch("CREATE UNIQUE INDEX one ON events(session_id, event_index)")
        .unwrap();
    let other_id = SessionEvent { id: "other".to_owned(), ..event("s", 1) };
    fixture.store.submit(Ticket(1), insert("s", 1));
    fixture.store.submit(Ticket(2), Operation::Write(Row::Event(other_id)));
    fixture.store.submit(Ticket(3), insert("s", 2));
    assert_eq!(fixture.collected.take(Ticket(1)), Ok(Outcome::Stored));
    assert!(matches!(fixture.collected.take(Ticket(2)), Err(StoreError::Constraint { .. })));
    assert_eq!(fixture.collected.take(Ticket(3)), Ok(Outcome::Stored));
    assert_eq!(fixture.page_text("s").matches("\"id\"").count(), 2);
}

#[test]
fn a_locked_file_is_waited_for_as_long_as_it_may() {
    let fixture = fixture();
    let other = Connection::open(&fixture.filename).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(fixture.call(insert("s", 1)), Err(StoreError::Busy { .. })));
    fixture.store.submit(Ticket(1), insert("s", 2));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(fixture.collected.take(Ticket(1)), Ok(Outcome::Stored));
}

#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_while_its_lock_is_waited_for_gets_nothing() {
    let fixture = fixture_that_waits(Duration::from_secs(30));
    let other = Connection::open(&fixture.filename).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    fixture.store.submit(Ticket(1), insert("s", 1));
    // By then the writer waits, or else the test shows nothing.
    std::thread::sleep(Duration::from_millis(20));
    std::fs::rename(&fixture.filename, format!("{}.old", fixture.filename)).unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(fixture.collected.take(Ticket(1)), Err(StoreError::Moved));
}

#[test]
fn flush_returns_when_everything_is_durable() {
    let fixture = fixture();
    for index in 0..300 {
        fixture.store.submit(Ticket(0), insert("s", index));
    }
    fixture.store.flush(std::time::Instant::now());
    let other = Connection::open(&fixture.filename).unwrap();
    let count: i64 = other.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 300);
}

#[test]
fn close_settles_everything_and_may_be_called_by_many() {
    let fixture = fixture();
    for index in 0..200 {
        fixture.store.submit(Ticket(0), insert("s", index));
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fixture.store.close());
        }
    });
    let settled: usize = fixture.collected.batches.lock().unwrap().iter().map(Vec::len).sum();
    assert_eq!(settled, 200);
    assert_eq!(fixture.store.submit(Ticket(1), insert("s", 1)), Some(Err(StoreError::Closed)));
    assert_eq!(fixture.store.submit(Ticket(1), list("s")), Some(Err(StoreError::Closed)));
    assert!(!std::path::Path::new(&format!("{}-wal", fixture.filename)).exists());
}

#[cfg(unix)]
#[test]
fn a_file_that_the_process_has_open_otherwise_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let filename = folder.path().join("sessions.db");
    let other = std::fs::File::create(&filename).unwrap();
    let options = options(filename.to_str().unwrap());
    let open_it = || open(&options, Arc::new(Collected::default()));
    assert!(matches!(open_it(), Err(StoreError::CannotOpen { .. })));
    drop(other);
    let first = open_it().unwrap();
    // Of this copy of SQLite any number may be open.
    let second = open_it().unwrap();
    first.close();
    second.close();
    let _other = std::fs::File::open(&filename).unwrap();
    assert!(matches!(open_it(), Err(StoreError::CannotOpen { .. })));
}
