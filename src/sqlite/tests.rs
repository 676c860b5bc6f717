//! The store as a backend of its own, without JavaScript.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::error::StoreError;
use crate::store::testing::{
    self, Collected, count, delete, event, get, insert, insert_all, list, list_sessions, update,
    write,
};
use crate::store::{Completions, Operation, OperationResult, Outcome, SessionStore, Ticket};

use super::{Durability, SqliteOptions, open};

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
        testing::call(&*self.store, &self.collected, operation)
    }

    fn page_text(&self, session_id: &str) -> String {
        match self.call(list(session_id)) {
            Ok(Outcome::Page(page)) => page.arrays.concat(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn writes_of_one_batch_are_delivered_at_once() {
    let fixture = fixture();
    for index in 0..500 {
        assert_eq!(fixture.store.submit(Ticket(0), insert("s", index)), None);
    }
    fixture.store.close();
    let sizes = fixture.collected.sizes();
    assert_eq!(sizes.iter().sum::<usize>(), 500);
    assert!(sizes.len() < 250, "{} deliveries", sizes.len());
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
    assert_eq!(fixture.store.submit(Ticket(1), get("s")), Some(Ok(Outcome::Session(None))));
    fixture.store.submit(Ticket(2), update("s", "agent"));
    assert!(matches!(fixture.call(get("s")), Ok(Outcome::Session(Some(_)))));
}

#[test]
fn a_write_that_the_tables_refuse_leaves_its_neighbours() {
    let fixture = fixture();
    Connection::open(&fixture.filename)
        .unwrap()
        .execute_batch("CREATE UNIQUE INDEX one ON events(session_id, event_index)")
        .unwrap();
    let other_id = event("other", "s", 1);
    fixture.store.submit(Ticket(1), insert("s", 1));
    fixture.store.submit(Ticket(2), write(other_id));
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

#[test]
fn a_lock_that_outlasts_the_timeout_is_reported_with_its_value() {
    let fixture = fixture();
    let other = Connection::open(&fixture.filename).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let message = fixture.call(insert("s", 1)).unwrap_err().to_string();
    assert!(message.contains("for longer than busyTimeoutMs (200) allows"), "{message}");
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
    let settled: usize = fixture.collected.sizes().iter().sum();
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

#[test]
fn a_deletion_takes_what_was_called_before_it_and_leaves_what_was_called_after() {
    let fixture = fixture();
    testing::check_order_of_a_deletion(&*fixture.store, &fixture.collected);
}

#[test]
fn a_session_of_many_events_is_deleted_while_others_write() {
    let fixture = fixture();
    testing::check_deletion_of_many_events(&*fixture.store, &fixture.collected);
}

#[test]
fn closing_ends_a_long_deletion_which_can_be_done_again() {
    let fixture = fixture();
    for session in 0..20 {
        let all = (0..10_000).map(|index| event(&format!("{session} {index}"), "s", index));
        assert_eq!(fixture.call(insert_all(all.collect())), Ok(Outcome::Stored));
    }
    fixture.store.submit(Ticket(1), delete("s"));
    fixture.store.submit(Ticket(2), insert("s", 1));
    fixture.store.close();
    assert_eq!(fixture.collected.take(Ticket(1)), Err(StoreError::Closed));
    assert_eq!(fixture.collected.take(Ticket(2)), Ok(Outcome::Stored), "it waited its turn");
    let again = Arc::new(Collected::default());
    let completions = Arc::clone(&again) as Arc<dyn Completions>;
    let store = open(&options(&fixture.filename), completions).unwrap();
    assert_eq!(testing::call(&*store, &again, delete("s")), Ok(Outcome::Deleted(true)));
    assert_eq!(testing::call(&*store, &again, count("s")), Ok(Outcome::Count(0)));
    store.close();
}

#[test]
fn events_in_one_call_are_stored_all_or_not_at_all() {
    let fixture = fixture();
    Connection::open(&fixture.filename)
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER five BEFORE INSERT ON events WHEN new.event_index = 5
             BEGIN SELECT RAISE(ABORT, 'no fives'); END",
        )
        .unwrap();
    testing::check_that_events_are_stored_whole(&*fixture.store, &fixture.collected);
}

#[test]
fn lists_of_sessions_see_deletions_called_before() {
    let fixture = fixture();
    fixture.store.submit(Ticket(0), update("s", "agent"));
    fixture.store.submit(Ticket(1), update("t", "agent"));
    fixture.store.submit(Ticket(2), delete("s"));
    let Ok(Outcome::Page(page)) = fixture.call(list_sessions()) else { panic!("no page") };
    assert!(page.arrays[0].contains("\"t\"") && !page.arrays[0].contains("\"s\""));
}
