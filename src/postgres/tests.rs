//! The store on a real server, without JavaScript. Each test has a schema of its own.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::runtime::{Builder, Runtime};

use crate::columns::OnDuplicate;
use crate::error::StoreError;
use crate::store::testing::{
    self, Collected, count, delete, event, get, insert, list, update, write,
};
use crate::store::{
    Completions, DEFAULT_MAX_QUEUED_BYTES, Operation, OperationResult, Outcome, SessionStore,
    Ticket,
};

use super::{Given, PostgresOptions, open, resolve};

/// For what should take no time at all.
const LONG: Duration = Duration::from_secs(30);
/// Between two looks at the server.
const PAUSE: Duration = Duration::from_millis(5);

/// The server that all tests use.
struct Server {
    url: String,
    /// Ends when its input does, which is when this process ends.
    _process: Option<Child>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| match std::env::var("TEST_DATABASE_URL") {
    Ok(url) => Server { url, _process: None },
    Err(_) => start_server(),
});

fn start_server() -> Server {
    let mut process = Command::new("node")
        .arg("scripts/postgres.mjs")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Node starts a PostgreSQL, unless TEST_DATABASE_URL names one");
    let mut url = String::new();
    let output = process.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut url).expect("a line of text");
    assert!(!url.is_empty(), "no PostgreSQL: run `npm ci`, or set TEST_DATABASE_URL to one's URL");
    Server { url: url.trim_end().to_owned(), _process: Some(process) }
}

/// A connection that isn't the store's.
struct Client {
    runtime: Runtime,
    connection: PgConnection,
}

impl Client {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(PgConnection::connect(&SERVER.url)).unwrap();
        Self { runtime, connection }
    }

    fn query(&mut self, sql: String) -> Vec<PgRow> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut self.connection);
        self.runtime.block_on(query).unwrap()
    }
}

struct Fixture {
    store: Arc<dyn SessionStore>,
    collected: Arc<Collected>,
    schema: String,
    client: Client,
}

/// A store whose tables are there already.
fn fixture(prepared_statements: bool) -> Fixture {
    let schema = format!("rust_{:016x}", RandomState::new().hash_one("schema"));
    let collected = Arc::new(Collected::default());
    let options = PostgresOptions {
        schema: schema.clone(),
        prepared_statements,
        ..options(&SERVER.url, LONG)
    };
    let store = open(options, None, None, Arc::clone(&collected) as Arc<dyn Completions>).unwrap();
    let fixture = Fixture { store, collected, schema, client: Client::new() };
    assert_eq!(fixture.call(get("none")), Ok(Outcome::Session(None)));
    fixture
}

fn options(url: &str, retry_timeout: Duration) -> PostgresOptions {
    let given = Given { connection_string: Some(url.into()), max: Some(4), ..Given::default() };
    let environment = |name: &str| std::env::var(name).ok();
    let settings = resolve(given, &environment, &|path| std::fs::read_to_string(path)).unwrap();
    PostgresOptions {
        settings,
        schema: super::DEFAULT_SCHEMA.to_owned(),
        migrate: true,
        prepared_statements: false,
        retry_timeout,
        max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES,
        on_duplicate_event: OnDuplicate::Replace,
    }
}

impl Fixture {
    fn submit(&self, ticket: usize, operation: Operation) {
        assert_eq!(self.store.submit(Ticket(ticket), operation), None);
    }

    fn call(&self, operation: Operation) -> OperationResult {
        testing::call(&*self.store, &self.collected, operation)
    }

    fn page_text(&self, session_id: &str) -> String {
        match self.call(list(session_id)) {
            Ok(Outcome::Page(page)) => page.arrays.concat(),
            other => panic!("{other:?}"),
        }
    }

    /// Runs SQL in which `$schema` is the store's.
    fn query(&mut self, sql: &str) -> Vec<PgRow> {
        self.client.query(sql.replace("$schema", &self.schema))
    }

    fn count_events(&mut self) -> String {
        let rows = self.query("SELECT count(*) FROM $schema.events");
        rows[0].try_get_raw(0).unwrap().as_str().unwrap().to_owned()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.store.close();
        if !std::thread::panicking() {
            self.query("DROP SCHEMA $schema CASCADE");
        }
    }
}

fn index(ticket: usize) -> i64 {
    i64::try_from(ticket).unwrap()
}

#[test]
fn the_writes_of_a_session_are_stored_in_their_order() {
    for prepared_statements in [false, true] {
        let fixture = fixture(prepared_statements);
        for ticket in 0..300 {
            // One of ten ids each, over and over.
            let session = format!("s{}", ticket % 3);
            let id = format!("{session} {}", ticket % 10);
            fixture.submit(ticket, write(event(&id, &session, index(ticket))));
        }
        assert!(fixture.store.flush(Instant::now() + LONG));
        let page = fixture.page_text("s0");
        let last: Vec<String> = (270..300)
            .filter(|ticket| ticket % 3 == 0)
            .map(|ticket| format!("{{\"index\":{ticket}}}"))
            .collect();
        assert_eq!(page.matches("\"payload\"").count(), last.len(), "{page}");
        assert!(last.iter().all(|payload| page.contains(payload)), "{page}");
        let stored = fixture.collected.stored();
        assert_eq!(stored.len(), 300);
        for session in 0..3 {
            let told = stored.iter().copied().filter(|ticket| ticket % 3 == session);
            assert!(told.is_sorted(), "{stored:?}");
        }
    }
}

#[test]
fn a_read_sees_what_was_submitted_before_it() {
    for prepared_statements in [false, true] {
        let fixture = fixture(prepared_statements);
        for ticket in 0..100 {
            fixture.submit(ticket, insert("s", index(ticket)));
        }
        assert_eq!(fixture.page_text("s").matches("\"payload\"").count(), 100);
        for agent in ["first", "second"] {
            fixture.submit(0, update("s", agent));
            let read = fixture.call(get("s"));
            let Ok(Outcome::Session(Some(session))) = read else { panic!("{read:?}") };
            assert!(session.contains(agent), "{session}");
        }
    }
}

#[test]
fn a_write_that_the_tables_refuse_leaves_its_neighbours() {
    let mut fixture = fixture(false);
    fixture.query("CREATE UNIQUE INDEX one ON $schema.events (session_id, event_index)");
    for ticket in 0..20 {
        fixture.submit(ticket, insert("s", index(ticket)));
    }
    fixture.submit(20, write(event("other", "s", 7)));
    fixture.submit(21, insert("s", 21));
    let refused = fixture.collected.take(Ticket(20));
    let Err(StoreError::Constraint { message, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(message, "UNIQUE constraint failed: events.session_id, events.event_index");
    assert_eq!(fixture.collected.take(Ticket(21)), Ok(Outcome::Stored));
    assert_eq!(fixture.collected.stored(), (0..20).collect::<Vec<_>>());
    assert_eq!(fixture.page_text("s").matches("\"payload\"").count(), 21);
}

#[test]
fn a_text_with_u0000_is_refused_alone() {
    let refusal = || Err(StoreError::Internal { reason: "a text holds U+0000" });
    for prepared_statements in [false, true] {
        let fixture = fixture(prepared_statements);
        for ticket in 0..10 {
            let id = if ticket == 5 { "\0".to_owned() } else { ticket.to_string() };
            fixture.submit(ticket, update(&id, "agent"));
        }
        assert_eq!(fixture.collected.take(Ticket(5)), refusal());
        for ticket in (0..10).filter(|ticket| *ticket != 5) {
            assert_eq!(fixture.collected.take(Ticket(ticket)), Ok(Outcome::Stored));
        }
        for ticket in 0..10 {
            let id = if ticket == 5 { "\0".to_owned() } else { ticket.to_string() };
            fixture.submit(ticket, get(&id));
        }
        assert_eq!(fixture.collected.take(Ticket(5)), refusal());
        for ticket in (0..10).filter(|ticket| *ticket != 5) {
            let read = fixture.collected.take(Ticket(ticket));
            assert!(matches!(read, Ok(Outcome::Session(Some(_)))), "{read:?}");
        }
    }
}

#[test]
fn a_write_whose_connection_is_lost_is_made_again() {
    let mut fixture = fixture(false);
    let mut other = Client::new();
    fixture.query("BEGIN");
    fixture.query("LOCK TABLE $schema.events IN ACCESS EXCLUSIVE MODE");
    fixture.submit(0, insert("s", 1));
    let end_writer = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO \"{}\".events%'
           AND pid <> pg_backend_pid()",
        fixture.schema
    );
    let deadline = Instant::now() + LONG;
    while other.query(end_writer.clone()).is_empty() {
        assert!(Instant::now() < deadline, "nobody waits for the lock");
        std::thread::sleep(PAUSE);
    }
    fixture.query("COMMIT");
    assert_eq!(fixture.collected.take(Ticket(0)), Ok(Outcome::Stored));
    assert_eq!(fixture.count_events(), "1");
}

#[test]
fn a_server_that_cannot_be_reached_is_given_up_in_time() {
    let collected = Arc::new(Collected::default());
    // Nobody may listen there without privileges.
    let options = options("postgres://nobody@127.0.0.1:1/none", Duration::from_millis(100));
    let store = open(options, None, None, Arc::clone(&collected) as Arc<dyn Completions>).unwrap();
    store.submit(Ticket(0), insert("s", 1));
    store.submit(Ticket(1), get("s"));
    for ticket in [Ticket(0), Ticket(1)] {
        let failed = collected.take(ticket);
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    }
    store.close();
}

#[test]
fn flush_returns_when_everything_is_stored() {
    let mut fixture = fixture(false);
    for ticket in 0..300 {
        fixture.submit(ticket, insert("s", index(ticket)));
    }
    assert!(fixture.store.flush(Instant::now() + LONG));
    assert_eq!(fixture.count_events(), "300");
}

#[test]
fn close_settles_everything_and_may_be_called_by_many() {
    let mut fixture = fixture(false);
    for ticket in 0..200 {
        fixture.submit(ticket, insert("s", index(ticket)));
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fixture.store.close());
        }
    });
    assert_eq!(fixture.collected.stored().len(), 200);
    assert_eq!(fixture.count_events(), "200");
    assert_eq!(fixture.store.submit(Ticket(1), insert("s", 1)), Some(Err(StoreError::Closed)));
    assert_eq!(fixture.store.submit(Ticket(1), list("s")), Some(Err(StoreError::Closed)));
}

#[test]
fn a_deletion_takes_what_was_called_before_it_and_leaves_what_was_called_after() {
    for prepared_statements in [false, true] {
        let fixture = fixture(prepared_statements);
        testing::check_order_of_a_deletion(&*fixture.store, &fixture.collected);
    }
}

#[test]
fn a_session_of_many_events_is_deleted_while_others_write() {
    for prepared_statements in [false, true] {
        let fixture = fixture(prepared_statements);
        testing::check_deletion_of_many_events(&*fixture.store, &fixture.collected);
    }
}

#[test]
fn events_in_one_call_are_stored_all_or_not_at_all() {
    for prepared_statements in [false, true] {
        let mut fixture = fixture(prepared_statements);
        fixture.query("ALTER TABLE $schema.events ADD CHECK (event_index <> 5)");
        testing::check_that_events_are_stored_whole(&*fixture.store, &fixture.collected);
    }
}

#[test]
fn a_role_that_may_not_delete_is_told_so() {
    let mut fixture = fixture(false);
    assert_eq!(fixture.call(insert("s", 1)), Ok(Outcome::Stored));
    fixture.query(
        "CREATE FUNCTION $schema.refuse() RETURNS trigger LANGUAGE plpgsql
           AS 'BEGIN RAISE insufficient_privilege; END';
         CREATE TRIGGER refuse BEFORE DELETE ON $schema.events
           FOR EACH ROW EXECUTE FUNCTION $schema.refuse()",
    );
    let refused = fixture.call(delete("s"));
    let Err(error @ StoreError::Database { .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(
        error.database_code().map(|code| code.as_str().to_owned()).as_deref(),
        Some("42501")
    );
    assert_eq!(fixture.call(count("s")), Ok(Outcome::Count(1)));
}
