//! The handle of an open database: routes calls, and closes in order.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{DatabaseCode, StoreError};
use crate::lock::lock;
use crate::store::{
    self, Completions, Operation, OperationResult, Outcome, Query, Row, SessionStore, Ticket,
};

use super::connection::{self, Access, Database, Location};
use super::failure;
use super::open_files::Claim;
use super::options::SqliteOptions;
use super::queries::ReadStatements;
use super::queue::{Queue, Read};
use super::reader::{self, InlineReads, Readers};
use super::writer::{self, Writer};

/// Opens a store. Blocks while it looks at the file, creates or upgrades its tables, and for up
/// to five seconds on somebody else's lock.
pub fn open(
    options: &SqliteOptions,
    completions: Arc<dyn Completions>,
) -> Result<Arc<dyn SessionStore>, StoreError> {
    if options.is_private() {
        Ok(Arc::new(PrivateStore::open(options)?))
    } else {
        Ok(Arc::new(FileStore::open(options, completions)?))
    }
}

/// A database that only this store can see. It never waits for a disk or a lock, so every call
/// is answered at once, on the caller's thread.
struct PrivateStore {
    connection: Mutex<Option<Connection>>,
    statements: ReadStatements,
}

impl PrivateStore {
    fn open(options: &SqliteOptions) -> Result<Self, StoreError> {
        let Database { connection, layout, .. } = connection::open_private(options)?;
        let statements = ReadStatements::new(layout.optional_columns());
        Ok(Self { connection: Mutex::new(Some(connection)), statements })
    }
}

impl SessionStore for PrivateStore {
    fn submit(&self, _ticket: Ticket, operation: Operation) -> Option<OperationResult> {
        let connection = lock(&self.connection);
        let Some(connection) = connection.as_ref() else { return Some(Err(StoreError::Closed)) };
        Some(match operation {
            Operation::Write(row) => writer::store(connection, &row)
                .map(|()| Outcome::Stored)
                .map_err(failure::store_error),
            Operation::Read(query) => reader::answer(connection, &self.statements, &query),
        })
    }

    fn flush(&self, _deadline: Instant) -> bool {
        true
    }

    fn close(&self) {
        lock(&self.connection).take();
    }
}

/// A database in a file: writes go to the writer, lists to the readers, and a session is read
/// at once where that can't wait.
struct FileStore {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    completions: Arc<dyn Completions>,
    statements: Arc<ReadStatements>,
    is_read_only: bool,
    /// Of a store that doesn't write: while it has the file open, no other file gets its inode.
    first_connection: Mutex<Option<Connection>>,
    /// Only in WAL mode, where a reader waits for nobody.
    inline_reads: Arc<InlineReads>,
    writer: Mutex<Option<JoinHandle<Connection>>>,
    location: Location,
    claim: Mutex<Option<Claim>>,
}

impl FileStore {
    fn open(
        options: &SqliteOptions,
        completions: Arc<dyn Completions>,
    ) -> Result<Self, StoreError> {
        // The claim comes first, to be dropped after the connection if anything fails.
        let Database { claim, connection, location, access, layout } =
            connection::open_file(options)?;
        let queue = Arc::new(Queue::new(options.max_queued_bytes, options.busy_timeout));
        let statements = Arc::new(ReadStatements::new(layout.optional_columns()));
        let inline_reads = match access {
            Access::Wal => Some(location.open_read_only(Duration::ZERO)?),
            Access::RollbackJournal | Access::ReadOnly => None,
        };
        let inline_reads = Arc::new(Mutex::new(inline_reads));
        let readers = Arc::new(Readers::new(
            location.clone(),
            options.busy_timeout,
            Arc::clone(&statements),
            Arc::clone(&queue),
            Arc::clone(&completions),
            Arc::clone(&inline_reads),
        ));
        if let Some(claim) = &claim {
            claim.keep_in_place(location.files());
        }
        let (first_connection, writer) = match access {
            Access::ReadOnly => (Some(connection), None),
            Access::Wal | Access::RollbackJournal => {
                let (queue, readers) = (Arc::clone(&queue), Arc::clone(&readers));
                let completions = Arc::clone(&completions);
                let writer = Writer::new(connection, location.clone(), queue, readers, completions)
                    .map_err(failure::store_error)?;
                let thread = std::thread::Builder::new()
                    .name("persist-writer".to_owned())
                    .spawn(move || writer.work())
                    .map_err(|_| StoreError::Internal { reason: "the system refused a thread" })?;
                (None, Some(thread))
            }
        };
        Ok(Self {
            queue,
            readers,
            completions,
            statements,
            is_read_only: access == Access::ReadOnly,
            first_connection: Mutex::new(first_connection),
            inline_reads,
            writer: Mutex::new(writer),
            location,
            claim: Mutex::new(claim),
        })
    }

    fn write(&self, ticket: Ticket, row: Row) -> Result<(), StoreError> {
        if self.is_read_only {
            self.queue.check_open()?;
            return Err(StoreError::ReadOnly {
                database_code: DatabaseCode::Sqlite("SQLITE_READONLY"),
            });
        }
        self.queue.push_write(ticket, row)
    }

    fn read(&self, ticket: Ticket, query: Query) -> Option<OperationResult> {
        match self.read_inline(&query) {
            Err(StoreError::Busy { .. }) | Ok(None) => {}
            Ok(Some(outcome)) => return Some(Ok(outcome)),
            Err(error) => return Some(Err(error)),
        }
        match self.queue.push_read(Read { ticket: Some(ticket), query }) {
            Err(error) => return Some(Err(error)),
            Ok(true) => self.readers.add_one(),
            Ok(false) => {}
        }
        None
    }

    /// What can be answered on the calling thread; `None` where the read would have to wait.
    fn read_inline(&self, query: &Query) -> Result<Option<Outcome>, StoreError> {
        if self.queue.must_wait(query)? {
            return Ok(None);
        }
        match query {
            Query::Session { id } => {
                let connection = lock(&self.inline_reads);
                let Some(connection) = connection.as_ref() else { return Ok(None) };
                let session = self.statements.get_session(connection, id)?;
                Ok(Some(Outcome::Session(session)))
            }
            Query::Events(asked) => Ok(self.readers.take_ahead(asked).map(Outcome::Page)),
            Query::Sessions { .. } | Query::Replay(_) => Ok(None),
        }
    }
}

impl SessionStore for FileStore {
    fn submit(&self, ticket: Ticket, operation: Operation) -> Option<OperationResult> {
        match operation {
            Operation::Write(row) => self.write(ticket, row).err().map(Err),
            Operation::Read(query) => self.read(ticket, query),
        }
    }

    fn flush(&self, _deadline: Instant) -> bool {
        self.queue.flush();
        true
    }

    fn close(&self) {
        store::reject_as_closed(&*self.completions, self.queue.close());
        let mut writer = lock(&self.writer);
        let connection = writer.take().map(JoinHandle::join);
        self.readers.join();
        lock(&self.inline_reads).take();
        let claim = lock(&self.claim).take();
        if let Some(claim) = &claim {
            claim.let_go_of_files();
        }
        // A panic of the writer has been delivered already.
        if let Some(Ok(connection)) = connection {
            self.location.close(connection);
        }
        lock(&self.first_connection).take();
        drop(claim);
    }
}
