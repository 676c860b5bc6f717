//! How a file is opened: looked at first, changed only if it is ours.

use std::io::ErrorKind::PermissionDenied;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::error::{DatabaseCode, StoreError};
use crate::layout::Layout;
use crate::lock::lock;

use super::failure;
use super::filesystem;
use super::open_files::{Claim, Contents, LeftContents, Opening, PlacedFile};
use super::options::{Durability, SqliteOptions};
use super::schema;

/// How long opening may wait for somebody else's lock. It runs on JavaScript's thread.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A log that grew beyond this, as while others read it for long, is cut when it starts over.
const MAX_IDLE_LOG_BYTES: i64 = 64 * 1024 * 1024;
/// Between two tries of what SQLite's own busy handler doesn't cover.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// What better-sqlite3 uses; SQLite's own 2 MB make indexes of random ids thrash.
const CACHE_KIBIBYTES: i64 = 16_000;

/// What ends a path in a URI, or would be taken for an escape.
const ESCAPED_IN_URI: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');

/// Where a database is, and how to open one more connection to it.
#[derive(Debug, Clone)]
pub struct Location {
    path: PathBuf,
    /// What the first connection has open.
    files: Vec<PlacedFile>,
    contents: LeftContents,
    /// A file in a folder that can't be written, where SQLite can't have its lock files.
    is_immutable: bool,
}

/// How a database may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Written to a log beside it: readers never wait for the writer.
    Wal,
    /// On a network: readers and the writer lock each other out.
    RollbackJournal,
    /// Not to be written.
    ReadOnly,
}

/// A database that was opened and found, or made, to be a session store.
#[derive(Debug)]
pub struct Database {
    /// May write unless access is read-only.
    pub connection: Connection,
    pub location: Location,
    pub access: Access,
    pub layout: Layout,
    /// Of a file, to be dropped after the last connection.
    pub claim: Option<Claim>,
}

impl Location {
    /// Before there is a connection.
    fn of(path: PathBuf) -> Self {
        Self { path, files: Vec::new(), contents: LeftContents::default(), is_immutable: false }
    }

    fn open(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if self.is_immutable {
            Connection::open_with_flags(
                immutable_uri(&self.path),
                OpenFlags::SQLITE_OPEN_READ_ONLY
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX
                    | OpenFlags::SQLITE_OPEN_URI,
            )?
        } else {
            Connection::open_with_flags(&self.path, flags)?
        };
        harden(&connection)?;
        Ok(connection)
    }

    /// One more connection that may write.
    pub fn open_writable(&self, busy_timeout: Duration) -> Result<Connection, StoreError> {
        self.open_one_more(OpenFlags::SQLITE_OPEN_READ_WRITE, busy_timeout)
    }

    /// One more connection that only reads.
    pub fn open_read_only(&self, busy_timeout: Duration) -> Result<Connection, StoreError> {
        self.open_one_more(OpenFlags::SQLITE_OPEN_READ_ONLY, busy_timeout)
    }

    fn open_one_more(
        &self,
        flags: OpenFlags,
        busy_timeout: Duration,
    ) -> Result<Connection, StoreError> {
        // To open and close somebody else's file would drop the locks that this process has on it.
        self.check_is_in_place()?;
        let opened = self.open_with_timeout(flags, busy_timeout).map_err(failure::store_error);
        // It may have been moved meanwhile.
        self.check_is_in_place()?;
        opened
    }

    fn open_with_timeout(
        &self,
        flags: OpenFlags,
        busy_timeout: Duration,
    ) -> rusqlite::Result<Connection> {
        let connection = self.open(flags)?;
        connection.busy_timeout(busy_timeout)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIBIBYTES)?;
        Ok(connection)
    }

    /// Whether what is open is still what is found there: if not, what is written now would be lost, and
    /// what is read may be another's.
    ///
    /// Some 2 µs for each of at most three files.
    pub fn check_is_in_place(&self) -> Result<(), StoreError> {
        if self.files.iter().any(PlacedFile::is_gone) { Err(StoreError::Moved) } else { Ok(()) }
    }

    /// Whoever deletes the log, as another copy of SQLite does that closes the database last, must be noticed;
    /// and whoever deletes its index, as the next process would make a new one.
    fn keep_log_in_place(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        // Both are there from the first read on.
        read_once(connection)?;
        let beside = filesystem::log_and_index(&self.path);
        self.files.extend(beside.into_iter().filter_map(PlacedFile::at));
        self.remember_contents();
        Ok(())
    }

    /// We have just written to the database.
    pub fn remember_contents(&self) {
        *lock(&self.contents) = Contents::of(&self.path);
    }

    /// Closes the last connection, by which SQLite moves its log into the database and deletes the log and
    /// its index: by their names, and whatever is found there by now.
    pub fn close(&self, connection: Connection) {
        if !self.may_move_log() {
            let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            // Can't fail: SQLite knows it.
            let _ = connection.set_db_config(no_checkpoint, true);
        }
        drop(connection);
    }

    /// Whether the log that we have open belongs to the database that is found there. One that was deleted
    /// does, and has nowhere else to go, unless there is another or somebody has written to the database.
    fn may_move_log(&self) -> bool {
        if self.check_is_in_place().is_ok() {
            return true;
        }
        let [log, _] = filesystem::log_and_index(&self.path);
        let is_empty = std::fs::metadata(log).map_or(true, |metadata| metadata.len() == 0);
        is_empty && *lock(&self.contents) == Contents::of(&self.path)
    }

    /// The files that were opened, in their places.
    pub fn files(&self) -> &[PlacedFile] {
        &self.files
    }

    fn has_wal_file(&self) -> bool {
        let [log, _] = filesystem::log_and_index(&self.path);
        log.exists()
    }
}

/// A file that SQLite is to take for one that nobody changes. Its name needn't be UTF-8.
fn immutable_uri(path: &Path) -> String {
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), ESCAPED_IN_URI).to_string();
    let path = if cfg!(windows) { path.replace('\\', "/") } else { path };
    let root = if path.starts_with('/') { "" } else { "/" };
    format!("file://{root}{path}?immutable=1")
}

/// No trust in what a file's schema may contain, and no foreign keys: the contract has none.
/// Reads nothing of the file: where it lies, that may fail.
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    // On macOS a sync is none without these; elsewhere they mean nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    Ok(())
}

/// Opens a database that no other connection can see, in memory or in a temporary file.
pub fn open_private(options: &SqliteOptions) -> Result<Database, StoreError> {
    let location = Location::of(PathBuf::from(&options.filename));
    let mut connection = location
        .open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
        .map_err(failure::store_error)?;
    let layout = schema::upgrade(&mut connection, &options.filename)?;
    Ok(Database { connection, location, access: Access::RollbackJournal, layout, claim: None })
}

/// Opens a file. Blocks for at most [`OPEN_TIMEOUT`] on somebody else's lock.
pub fn open_file(options: &SqliteOptions) -> Result<Database, StoreError> {
    let location = Location::of(filesystem::real_path(Path::new(&options.filename)));
    let is_shared = filesystem::is_shared(&location.path);
    open_location(options, location, is_shared)
}

fn open_location(
    options: &SqliteOptions,
    mut location: Location,
    is_shared: bool,
) -> Result<Database, StoreError> {
    let path = location.path.clone();
    let cannot_open = |error| cannot_open(&options.filename, &path, &error);
    if let Some(reason) = why_no_file_can_be_there(&path) {
        return Err(refused(options, reason));
    }
    let deadline = Instant::now() + OPEN_TIMEOUT.min(options.busy_timeout);
    let opening = Opening::begin();
    if let Some(reason) = opening.reason_against(&path) {
        return Err(refused(options, reason));
    }
    // Declared first, to be dropped after the connection if anything fails.
    let claim;
    let mut connection = location
        .open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
        .map_err(cannot_open)?;
    let claimed = opening.finish(&path);
    location.contents = claimed.contents();
    claim = Some(claimed);
    location.files.extend(PlacedFile::at(path.clone()));
    if is_shared {
        // If there is a log: alone, SQLite keeps its index in its own memory, unshared.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(cannot_open)?;
    }
    // Until it is known to be ours, closing it must not even move its log into the file.
    let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(no_checkpoint, true).map_err(cannot_open)?;
    let inspected = retry_while_busy(&mut connection, deadline, |connection| {
        schema::inspect(connection, &options.filename)
    });
    let layout = match inspected {
        Err(error)
            if is_for_want_of_lock_files(&error)
                && !location.has_wal_file()
                && !filesystem::may_write(&path) =>
        {
            drop(connection);
            return open_immutable(options, location, claim);
        }
        inspected => inspected?,
    };
    if connection.is_readonly("main").map_err(failure::store_error)? {
        return read_only(
            Database { connection, location, access: Access::ReadOnly, layout, claim },
            options,
        );
    }
    connection.set_db_config(no_checkpoint, false).map_err(cannot_open)?;
    if is_new(&connection).map_err(cannot_open)? {
        // Before the first table, or it has no effect. Later it would only wait for a lock.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(cannot_open)?;
    }
    connection.pragma_update(None, "cache_size", -CACHE_KIBIBYTES).map_err(cannot_open)?;
    let access = choose_journal(&mut connection, is_shared, deadline, options)?;
    let layout = if layout.is_current() {
        layout
    } else {
        retry_while_busy(&mut connection, deadline, |connection| {
            schema::upgrade(connection, &options.filename)
        })?
    };
    if access == Access::Wal {
        location.keep_log_in_place(&connection).map_err(cannot_open)?;
    }
    Ok(Database { connection, location, access, layout, claim })
}

fn is_new(connection: &Connection) -> rusqlite::Result<bool> {
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    Ok(pages == 0)
}

fn open_immutable(
    options: &SqliteOptions,
    location: Location,
    claim: Option<Claim>,
) -> Result<Database, StoreError> {
    let location = Location { is_immutable: true, ..location };
    let connection = location
        .open(OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| cannot_open(&options.filename, &location.path, &error))?;
    let layout = schema::inspect(&connection, &options.filename)?;
    read_only(Database { connection, location, access: Access::ReadOnly, layout, claim }, options)
}

fn read_only(database: Database, options: &SqliteOptions) -> Result<Database, StoreError> {
    if database.layout.is_readable() {
        return Ok(database);
    }
    Err(refused(
        options,
        "its tables are missing or of an old layout, and the file is read-only; open it once where it can be written",
    ))
}

/// Switches to the journal that is safe where the file lies.
fn choose_journal(
    connection: &mut Connection,
    is_shared: bool,
    deadline: Instant,
    options: &SqliteOptions,
) -> Result<Access, StoreError> {
    let wanted = if is_shared { "DELETE" } else { "WAL" };
    let mode = retry_while_busy(connection, deadline, |connection| {
        // The switch fails at once, whatever the busy timeout, while others switch too.
        set_journal_mode(connection, wanted).map_err(failure::store_error)
    })?;
    if is_shared && mode == "wal" {
        return Err(refused(
            options,
            "it is in WAL mode on a network file system, where that corrupts it, and others have it open",
        ));
    }
    if is_shared {
        connection.pragma_update(None, "locking_mode", "NORMAL").map_err(failure::store_error)?;
        // The lock is given back at the end of the next read.
        read_once(connection).map_err(failure::store_error)?;
    }
    let access = if mode == "wal" { Access::Wal } else { Access::RollbackJournal };
    let synchronous = match (access, options.durability) {
        (_, Durability::Normal) => "NORMAL",
        (Access::Wal, Durability::Full) => "FULL",
        // The folder too: else a loss of power brings the deleted journal back.
        (_, Durability::Full) => "EXTRA",
    };
    connection.pragma_update(None, "synchronous", synchronous).map_err(failure::store_error)?;
    connection
        .pragma_update(None, "journal_size_limit", MAX_IDLE_LOG_BYTES)
        .map_err(failure::store_error)?;
    Ok(access)
}

/// A read of the file, which SQLite puts off until somebody asks for something.
fn read_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

fn set_journal_mode(connection: &Connection, wanted: &str) -> rusqlite::Result<String> {
    let current: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if current.eq_ignore_ascii_case(wanted) {
        return Ok(current);
    }
    connection.pragma_update_and_check(None, "journal_mode", wanted, |row| row.get(0))
}

/// Tries until it succeeds, fails for another reason than a lock, or the deadline has passed.
/// SQLite's own wait for a lock is bounded by the same deadline.
fn retry_while_busy<T>(
    connection: &mut Connection,
    deadline: Instant,
    mut attempt: impl FnMut(&mut Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    loop {
        let patience = deadline.saturating_duration_since(Instant::now());
        connection.busy_timeout(patience).map_err(failure::store_error)?;
        match attempt(connection) {
            Err(StoreError::Busy { .. }) if Instant::now() < deadline => {
                std::thread::sleep(RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

/// The error of a file that isn't opened, with our reason rather than SQLite's.
fn refused(options: &SqliteOptions, reason: impl Into<String>) -> StoreError {
    StoreError::CannotOpen {
        database: options.filename.clone(),
        reason: reason.into(),
        database_code: None,
    }
}

/// SQLite couldn't make or use its `-wal` and `-shm` beside a file that it can read.
fn is_for_want_of_lock_files(error: &StoreError) -> bool {
    error
        .database_code()
        .map(DatabaseCode::as_str)
        .is_some_and(|code| code == "SQLITE_CANTOPEN" || code.starts_with("SQLITE_READONLY"))
}

fn why_no_file_can_be_there(path: &Path) -> Option<String> {
    let folder = filesystem::folder(path);
    if folder.metadata().is_err_and(|error| error.kind() == PermissionDenied) {
        Some(PermissionDenied.to_string())
    } else if !folder.is_dir() {
        Some("its folder does not exist".to_owned())
    } else if path.is_dir() {
        Some("it is a folder".to_owned())
    } else if path.exists() && !path.is_file() {
        // To open a pipe may take forever.
        Some("it is no regular file".to_owned())
    } else {
        None
    }
}

fn cannot_open(filename: &str, path: &Path, error: &rusqlite::Error) -> StoreError {
    if failure::primary_code(error) == Some(ffi::SQLITE_NOTADB) {
        return StoreError::NotADatabase { filename: filename.to_owned() };
    }
    if let (true, Some(database_code)) = (failure::is_busy(error), failure::database_code(error)) {
        return StoreError::Busy { database_code };
    }
    // Not by opening it: closing it again would end the locks of other drivers in this process.
    let reason = match std::fs::metadata(path) {
        Err(reason) if reason.kind() == PermissionDenied => reason.kind().to_string(),
        _ if failure::primary_code(error) == Some(ffi::SQLITE_CANTOPEN) => {
            "SQLite cannot open or create the file; see that its folder can be written".to_owned()
        }
        _ => failure::describe(error),
    };
    StoreError::CannotOpen {
        database: filename.to_owned(),
        reason,
        database_code: failure::database_code(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(filename: &Path) -> SqliteOptions {
        SqliteOptions {
            filename: filename.to_str().unwrap().to_owned(),
            busy_timeout: Duration::from_millis(50),
            ..SqliteOptions::default()
        }
    }

    fn journal_mode(path: &Path) -> String {
        let connection = Connection::open(path).unwrap();
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap()
    }

    fn open_as(path: &Path, is_shared: bool) -> Result<Database, StoreError> {
        open_location(&options(path), Location::of(path.to_owned()), is_shared)
    }

    #[test]
    fn a_local_file_is_kept_in_wal_mode_and_can_shrink() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let database = open_as(&path, false).unwrap();
        assert_eq!(database.access, Access::Wal);
        assert_eq!(journal_mode(&path), "wal");
        let vacuum: i64 =
            database.connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap();
        assert_eq!(vacuum, 2, "incremental");
    }

    #[test]
    fn a_file_on_a_network_stays_on_a_rollback_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let database = open_as(&path, true).unwrap();
        assert_eq!(database.access, Access::RollbackJournal);
        assert_eq!(journal_mode(&path), "delete");
    }

    #[test]
    fn a_wal_file_on_a_network_is_switched_back_if_nobody_else_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(open_as(&path, false).unwrap());
        let database = open_as(&path, true).unwrap();
        assert_eq!(database.access, Access::RollbackJournal);
        assert_eq!(journal_mode(&path), "delete", "and others may read it again");
    }

    #[test]
    fn a_wal_file_on_a_network_that_others_have_open_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let _other = open_as(&path, false).unwrap();
        assert!(open_as(&path, true).is_err());
        assert_eq!(journal_mode(&path), "wal");
    }

    #[test]
    fn a_path_survives_being_made_a_uri() {
        assert_eq!(immutable_uri(Path::new("/a b/%?#.db")), "file:///a b/%25%3F%23.db?immutable=1");
        assert_eq!(immutable_uri(Path::new("//a/b.db")), "file:////a/b.db?immutable=1");
    }
}
