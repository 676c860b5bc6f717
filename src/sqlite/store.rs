//! The handle of an open database: routes calls, and closes in order.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::error::{DatabaseCode, StoreError};
use crate::store::{
    self, Completions, Metrics, MetricsSnapshot, Operation, OperationResult, Outcome, Pace, Query,
    SessionStore, Ticket, Write,
};

use super::connection::{self, Access, Database, Location};
use super::failure;
use super::filesystem;
use super::options::SqliteOptions;
use super::queue::Queue;
use super::reader::{self, InlineReads, Readers};
use super::statements::Statements;
use super::writer::{self, Shared, Writer};

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
    statements: Statements,
    metrics: Metrics,
}

impl PrivateStore {
    fn open(options: &SqliteOptions) -> Result<Self, StoreError> {
        let (connection, layout) = connection::open_private(options)?;
        let statements = Statements::new(&layout, options.on_duplicate_event);
        let metrics = Metrics::default();
        Ok(Self { connection: Mutex::new(Some(connection)), statements, metrics })
    }
}

impl SessionStore for PrivateStore {
    fn submit(&self, _ticket: Ticket, operation: Operation) -> Option<OperationResult> {
        let connection = self.connection.lock();
        let Some(connection) = connection.as_ref() else { return Some(Err(StoreError::Closed)) };
        Some(match operation {
            Operation::Write(write) => {
                let begun = Instant::now();
                let applied = writer::apply(connection, &self.statements, &write, Pace::default());
                self.metrics.note_commit(begun.elapsed());
                self.metrics.note_stored(usize::from(applied.is_ok()));
                applied.map(|(outcome, _)| outcome).map_err(failure::store_error)
            }
            Operation::Read(query) => reader::answer(connection, &self.statements, &query),
        })
    }

    fn flush(&self, _deadline: Instant) -> bool {
        true
    }

    fn end_by(&self, _deadline: Instant) {}

    fn close(&self) {
        self.connection.lock().take();
    }

    fn metrics(&self) -> MetricsSnapshot {
        self.metrics.snapshot()
    }
}

/// A database in a file: writes go to the writer, lists to the readers, and a session is read
/// at once where that can't wait.
struct FileStore {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    completions: Arc<dyn Completions>,
    statements: Arc<Statements>,
    metrics: Arc<Metrics>,
    is_read_only: bool,
    /// Of a store that doesn't write: while it has the file open, no other file gets its inode.
    first_connection: Mutex<Option<Connection>>,
    /// Only in WAL mode, where a reader waits for nobody.
    inline_reads: Arc<InlineReads>,
    writer: Mutex<Option<JoinHandle<Connection>>>,
    location: Location,
}

impl FileStore {
    fn open(
        options: &SqliteOptions,
        completions: Arc<dyn Completions>,
    ) -> Result<Self, StoreError> {
        // The claim comes first, to be given up after the connection is closed if anything fails.
        let Database { location, connection, access, layout } = connection::open_file(options)?;
        let queue = Arc::new(Queue::new(options.max_queued_bytes, options.busy_timeout));
        let statements = Arc::new(Statements::new(&layout, options.on_duplicate_event));
        let metrics = Arc::new(Metrics::default());
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
        let (first_connection, writer) = match access {
            Access::ReadOnly => (Some(connection), None),
            Access::Wal | Access::RollbackJournal => {
                let shared = Shared {
                    queue: Arc::clone(&queue),
                    readers: Arc::clone(&readers),
                    completions: Arc::clone(&completions),
                    statements: Arc::clone(&statements),
                    metrics: Arc::clone(&metrics),
                    location: location.clone(),
                    busy_timeout: options.busy_timeout,
                    secure_delete: options.secure_delete,
                };
                let writer = Writer::new(connection, shared).map_err(failure::store_error)?;
                let thread = std::thread::Builder::new()
                    .name("persist-writer".to_owned())
                    .spawn(move || writer.work())
                    .map_err(|_| StoreError::NO_THREAD)?;
                (None, Some(thread))
            }
        };
        Ok(Self {
            queue,
            readers,
            completions,
            statements,
            metrics,
            is_read_only: access == Access::ReadOnly,
            first_connection: Mutex::new(first_connection),
            inline_reads,
            writer: Mutex::new(writer),
            location,
        })
    }

    fn write(&self, ticket: Ticket, write: Write) -> Result<(), StoreError> {
        if self.is_read_only {
            self.queue.check_open()?;
            let reason = filesystem::why_not_writable(self.location.file.path());
            return Err(StoreError::ReadOnly {
                reason: reason.map(str::to_owned),
                database_code: DatabaseCode::Sqlite("SQLITE_READONLY"),
            });
        }
        self.queue.push_write(ticket, write)
    }

    fn read(&self, ticket: Ticket, query: Query) -> Option<OperationResult> {
        match self.read_inline(&query) {
            Err(StoreError::Busy { .. }) | Ok(None) => {}
            Ok(Some(outcome)) => return Some(Ok(outcome)),
            Err(error) => return Some(Err(error)),
        }
        match self.queue.push_read(ticket, query) {
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
                let connection = self.inline_reads.lock();
                let Some(connection) = connection.as_ref() else { return Ok(None) };
                let session = self.statements.get_session(connection, id)?;
                Ok(Some(Outcome::Session(session)))
            }
            Query::Events(asked) => Ok(self.readers.take_ahead(asked).map(Outcome::Page)),
            _ => Ok(None),
        }
    }
}

impl SessionStore for FileStore {
    fn submit(&self, ticket: Ticket, operation: Operation) -> Option<OperationResult> {
        match operation {
            Operation::Write(write) => self.write(ticket, write).err().map(Err),
            Operation::Read(query) => self.read(ticket, query),
        }
    }

    fn flush(&self, _deadline: Instant) -> bool {
        self.queue.flush();
        true
    }

    fn end_by(&self, deadline: Instant) {
        self.queue.end_by(deadline);
    }

    fn close(&self) {
        store::reject_as_closed(&*self.completions, self.queue.close());
        let mut writer = self.writer.lock();
        // A panic of the writer has been delivered already.
        let written = writer.take().and_then(|thread| thread.join().ok());
        self.readers.join();
        self.inline_reads.lock().take();
        let read = self.first_connection.lock().take();
        self.location.file.close(written.or(read));
    }
    fn metrics(&self) -> MetricsSnapshot {
        let (writes, bytes) = self.queue.queued();
        self.metrics.snapshot().with_queue(writes, bytes)
    }
}
