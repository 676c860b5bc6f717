//! How a file is opened: looked at first, changed only if it is ours.

use std::io::ErrorKind::PermissionDenied;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::error::{DatabaseCode, LockTimeout, StoreError};
use crate::layout::Layout;

use super::failure;
use super::file::DatabaseFile;
use super::filesystem;
use super::options::{Durability, SqliteOptions};
use super::place::Place;
use super::schema;
use super::statements::MAX_PREPARED;

/// How long opening may wait for somebody else's lock. It runs on JavaScript's thread.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A WAL that grew beyond this, as while others read it for long, is cut when it starts over.
const MAX_IDLE_WAL_BYTES: i64 = 64 * 1024 * 1024;
/// Between two tries of what SQLite's own busy handler doesn't cover.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// What better-sqlite3 uses; SQLite's own 2 MB make indexes of random ids thrash.
const CACHE_KIBIBYTES: i64 = 16_000;

/// What ends a path in a URI, or would be taken for an escape.
const ESCAPED_IN_URI: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');

/// How a database may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Written to a WAL beside it: readers never wait for the writer.
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
    /// Holds the claim: to be dropped after the last connection.
    pub location: Location,
    pub access: Access,
    pub layout: Layout,
}

/// Where a database is, and how to open one more connection to it.
#[derive(Debug, Clone)]
pub struct Location {
    pub file: Arc<DatabaseFile>,
    /// A file in a folder that can't be written, where SQLite can't have its lock files.
    is_immutable: bool,
}

impl Location {
    /// One more connection that may write.
    pub fn open_writable(&self, busy_timeout: Duration) -> Result<Connection, StoreError> {
        self.open(OpenFlags::SQLITE_OPEN_READ_WRITE, busy_timeout)
    }

    /// One more connection that only reads.
    pub fn open_read_only(&self, busy_timeout: Duration) -> Result<Connection, StoreError> {
        self.open(OpenFlags::SQLITE_OPEN_READ_ONLY, busy_timeout)
    }

    fn open(&self, flags: OpenFlags, busy_timeout: Duration) -> Result<Connection, StoreError> {
        // To open and close somebody else's file would drop the locks that this process has on it.
        self.file.verify()?;
        let opened = self.open_unverified(flags, busy_timeout).map_err(failure::store_error);
        // It may have been moved meanwhile.
        self.file.verify()?;
        opened
    }

    fn open_unverified(
        &self,
        flags: OpenFlags,
        busy_timeout: Duration,
    ) -> rusqlite::Result<Connection> {
        let connection = if self.is_immutable {
            open_immutable(self.file.path())?
        } else {
            open_hardened(self.file.path(), flags)?
        };
        connection.busy_timeout(busy_timeout)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIBIBYTES)?;
        Ok(connection)
    }
}

fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    open_hardened(Path::new(&immutable_uri(path)), flags)
}

/// Reads nothing of the file: where it lies, that may fail.
fn open_hardened(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_prepared_statement_cache_capacity(MAX_PREPARED);
    // No trust in what a file's schema may contain, and no foreign keys: the contract has none.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    // On macOS a sync is none without these; elsewhere they mean nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    Ok(connection)
}

/// A file that SQLite is to take for one that nobody changes. Its name needn't be UTF-8.
fn immutable_uri(path: &Path) -> String {
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), ESCAPED_IN_URI).to_string();
    let path = if cfg!(windows) { path.replace('\\', "/") } else { path };
    let root = if path.starts_with('/') { "" } else { "/" };
    format!("file://{root}{path}?immutable=1")
}

fn create_or_open(path: &Path) -> rusqlite::Result<Connection> {
    open_hardened(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
}

/// Opens a database that no other connection can see, in memory or in a temporary file.
pub fn open_private(options: &SqliteOptions) -> Result<(Connection, Layout), StoreError> {
    let mut connection =
        create_or_open(Path::new(&options.filename)).map_err(failure::store_error)?;
    let layout = schema::upgrade(&mut connection, &options.filename)?;
    set_secure_delete(&connection, options.secure_delete).map_err(failure::store_error)?;
    Ok((connection, layout))
}

/// Whether what a connection deletes is overwritten.
fn set_secure_delete(connection: &Connection, is_wanted: bool) -> rusqlite::Result<()> {
    // SQLite answers with what it does then.
    connection.pragma_update_and_check(None, "secure_delete", is_wanted, |_| Ok(()))
}

/// The number of the file system that a file lies on, if that isn't known here: it is taken for a
/// local one.
pub fn unknown_file_system(options: &SqliteOptions) -> Option<u32> {
    match filesystem::place(&filesystem::real_path(Path::new(&options.filename))) {
        Place::Unknown(number) if !options.is_private() => Some(number),
        _ => None,
    }
}

/// Opens a file. Blocks for at most [`OPEN_TIMEOUT`] on somebody else's lock.
pub fn open_file(options: &SqliteOptions) -> Result<Database, StoreError> {
    let path = filesystem::real_path(Path::new(&options.filename));
    let is_shared = filesystem::place(&path) == Place::Network;
    Opener::new(options, path, is_shared).open()
}

/// Opens one file.
struct Opener<'a> {
    options: &'a SqliteOptions,
    path: PathBuf,
    /// Whether the file lies on a network.
    is_shared: bool,
    lock_timeout: LockTimeout,
    deadline: Instant,
}

/// What the first connection has found.
struct Inspected {
    connection: Connection,
    layout: Layout,
    is_read_only: bool,
    is_immutable: bool,
}

impl<'a> Opener<'a> {
    fn new(options: &'a SqliteOptions, path: PathBuf, is_shared: bool) -> Self {
        let lock_timeout = if options.busy_timeout < OPEN_TIMEOUT {
            LockTimeout::BusyTimeout(options.busy_timeout)
        } else {
            LockTimeout::Constructor(OPEN_TIMEOUT)
        };
        let deadline = Instant::now() + lock_timeout.duration();
        Self { options, path, is_shared, lock_timeout, deadline }
    }

    fn open(&self) -> Result<Database, StoreError> {
        let name = &self.options.filename;
        if is_url(name) && !self.path.exists() {
            return Err(self.refused(format!(
                "filename is a path, and this is a URL; for a file of that very name write \
                 \"./{name}\""
            )));
        }
        if let Some(reason) = why_no_file_can_be_there(&self.path) {
            return Err(self.refused(reason));
        }
        self.claim_and_open().map_err(|error| error.after(self.lock_timeout))
    }

    fn claim_and_open(&self) -> Result<Database, StoreError> {
        // Lives longer than the connection, whatever fails.
        let (file, connection) =
            DatabaseFile::claim(&self.options.filename, self.path.clone(), |path| {
                filesystem::create(path, self.options.file_mode);
                create_or_open(path).map_err(|error| self.cannot_open(&error))
            })?;
        let Inspected { mut connection, layout, is_read_only, is_immutable } =
            self.inspect(connection)?;
        let location = || Location { file: Arc::clone(&file), is_immutable };
        if is_read_only {
            let access = Access::ReadOnly;
            return Ok(Database { connection, location: location(), access, layout });
        }
        let access = self.choose_journal_mode(&mut connection)?;
        let layout = self.upgrade(&mut connection, layout)?;
        set_secure_delete(&connection, self.options.secure_delete).map_err(failure::store_error)?;
        if access == Access::Wal {
            read_once(&connection).map_err(|error| self.cannot_open(&error))?;
            file.keep_wal_in_place();
        }
        Ok(Database { connection, location: location(), access, layout })
    }

    /// Looks at the tables, and changes nothing.
    fn inspect(&self, mut connection: Connection) -> Result<Inspected, StoreError> {
        let cannot_open = |error| self.cannot_open(&error);
        let is_read_only = connection.is_readonly("main").map_err(cannot_open)?;
        if is_read_only && self.has_no_wal() && is_in_wal_mode(&connection) {
            // Its readers would make a -wal that they can't delete.
            drop(connection);
            return self.inspect_immutable();
        }
        if self.is_shared {
            // If there is a WAL: alone, SQLite keeps the shm in its own memory, unshared.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(cannot_open)?;
        }
        // Until it is known to be ours, closing it must not even run a checkpoint.
        let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(no_checkpoint, true).map_err(cannot_open)?;
        let inspected = self.retry_while_busy(&mut connection, |connection| {
            schema::inspect(connection, &self.options.filename)
        });
        let layout = match inspected {
            Err(error) if is_for_want_of_lock_files(&error) && self.may_be_immutable() => {
                drop(connection);
                return self.inspect_immutable();
            }
            inspected => inspected?,
        };
        if is_read_only {
            self.check_readable(&layout)?;
        } else {
            connection.set_db_config(no_checkpoint, false).map_err(cannot_open)?;
        }
        Ok(Inspected { connection, layout, is_read_only, is_immutable: false })
    }

    fn inspect_immutable(&self) -> Result<Inspected, StoreError> {
        let connection = open_immutable(&self.path).map_err(|error| self.cannot_open(&error))?;
        let layout = schema::inspect(&connection, &self.options.filename)?;
        self.check_readable(&layout)?;
        Ok(Inspected { connection, layout, is_read_only: true, is_immutable: true })
    }

    /// A file that can't be written, and whose readers need no WAL.
    fn may_be_immutable(&self) -> bool {
        self.has_no_wal() && !filesystem::may_write(&self.path)
    }

    /// Nobody writes to it in WAL mode just now.
    fn has_no_wal(&self) -> bool {
        !filesystem::wal_path(&self.path).exists()
    }

    fn check_readable(&self, layout: &Layout) -> Result<(), StoreError> {
        if layout.is_readable() {
            return Ok(());
        }
        Err(self.refused(
            "its tables are missing or of an old layout, and the file is read-only; open it once \
             where it can be written",
        ))
    }

    /// Switches to the journal that is safe where the file lies.
    fn choose_journal_mode(&self, connection: &mut Connection) -> Result<Access, StoreError> {
        prepare_to_write(connection).map_err(|error| self.cannot_open(&error))?;
        let wanted = if self.is_shared { "DELETE" } else { "WAL" };
        let mode = self.retry_while_busy(connection, |connection| {
            // The switch fails at once, whatever the busy timeout, while others switch too.
            set_journal_mode(connection, wanted).map_err(failure::store_error)
        })?;
        if self.is_shared && mode == "wal" {
            return Err(self.refused(
                "it is in WAL mode on a network file system, where that corrupts it, and others \
                 have it open",
            ));
        }
        if self.is_shared {
            end_exclusive_locking(connection).map_err(failure::store_error)?;
        }
        let access = if mode == "wal" { Access::Wal } else { Access::RollbackJournal };
        set_durability(connection, access, self.options.durability)
            .map_err(failure::store_error)?;
        Ok(access)
    }

    /// Brings the tables up to date.
    fn upgrade(&self, connection: &mut Connection, found: Layout) -> Result<Layout, StoreError> {
        if found.is_current() {
            return Ok(found);
        }
        self.retry_while_busy(connection, |connection| {
            schema::upgrade(connection, &self.options.filename)
        })
    }

    /// Tries until it succeeds, fails for another reason than a lock, or the deadline has passed.
    /// SQLite's own wait for a lock is bounded by the same deadline.
    fn retry_while_busy<T>(
        &self,
        connection: &mut Connection,
        mut attempt: impl FnMut(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let timeout = self.deadline.saturating_duration_since(Instant::now());
            connection.busy_timeout(timeout).map_err(failure::store_error)?;
            match attempt(connection) {
                Err(StoreError::Busy { .. }) if Instant::now() < self.deadline => {
                    std::thread::sleep(RETRY_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// The error of a file that isn't opened, with our reason rather than SQLite's.
    fn refused(&self, reason: impl Into<String>) -> StoreError {
        StoreError::cannot_open(&self.options.filename, reason)
    }

    fn cannot_open(&self, error: &rusqlite::Error) -> StoreError {
        let database = self.options.filename.clone();
        let primary_code = failure::primary_code(error);
        if primary_code == Some(ffi::SQLITE_NOTADB) {
            return StoreError::NotADatabase { filename: database };
        }
        if failure::is_for_want_of_file_handles(error) {
            return StoreError::NO_OPEN_FILE;
        }
        let database_code = failure::database_code(error);
        if let (true, Some(database_code)) = (failure::is_busy(error), &database_code) {
            return StoreError::Busy { timeout: None, database_code: database_code.clone() };
        }
        // Not by opening it: closing it again would end the locks of other drivers in this process.
        let reason = match std::fs::metadata(&self.path) {
            Err(reason) if reason.kind() == PermissionDenied => reason.kind().to_string(),
            _ if self.path.exists() && !filesystem::may_read(&self.path) => {
                "the process may not read the file".to_owned()
            }
            _ if primary_code == Some(ffi::SQLITE_CANTOPEN) => {
                "SQLite cannot open or create the file; see that its folder can be written"
                    .to_owned()
            }
            _ => failure::describe(error),
        };
        StoreError::CannotOpen { database, reason, database_code }
    }
}

fn prepare_to_write(connection: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        // Before the first table, or it has no effect. Later it would only wait for a lock.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "cache_size", -CACHE_KIBIBYTES)
}

fn end_exclusive_locking(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "NORMAL")?;
    // The lock is given back at the end of the next read.
    read_once(connection)
}

fn set_durability(
    connection: &Connection,
    access: Access,
    durability: Durability,
) -> rusqlite::Result<()> {
    let synchronous = match (access, durability) {
        (_, Durability::Normal) => "NORMAL",
        (Access::Wal, Durability::Full) => "FULL",
        // The folder too: else a loss of power brings the deleted journal back.
        (_, Durability::Full) => "EXTRA",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "journal_size_limit", MAX_IDLE_WAL_BYTES)
}

/// A read of the file, which SQLite puts off until somebody asks for something.
fn read_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Whether the file's header asks for a WAL. It is read through SQLite's handle, without a lock:
/// whoever opens and closes the file otherwise drops this process's locks on it, and SQLite itself
/// makes the WAL as soon as it reads a row.
#[expect(unsafe_code, reason = "SQLite has no other way to look at the header alone")]
fn is_in_wal_mode(connection: &Connection) -> bool {
    const READ_VERSION_AT: i64 = 19;
    const WAL: u8 = 2;
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    let operation = ffi::SQLITE_FCNTL_FILE_POINTER;
    // SAFETY: the connection is open, and this operation stores a pointer where it is told to.
    let handle = unsafe { connection.handle() };
    // SAFETY: as above.
    let found = unsafe {
        ffi::sqlite3_file_control(handle, c"main".as_ptr(), operation, (&raw mut file).cast())
    };
    // SAFETY: null, or the connection's open file, which stays open for as long as it does.
    let methods = unsafe { file.as_ref() }.map(|file| file.pMethods);
    // SAFETY: null, or the VFS's own table of functions, which nobody ever frees.
    let methods = methods.and_then(|methods| unsafe { methods.as_ref() });
    let read = methods.and_then(|methods| methods.xRead).filter(|_| found == ffi::SQLITE_OK);
    let mut version = 0_u8;
    // SAFETY: the buffer has the one byte that is asked for.
    read.is_some_and(|read| unsafe {
        read(file, (&raw mut version).cast(), 1, READ_VERSION_AT) == ffi::SQLITE_OK
    }) && version == WAL
}

fn set_journal_mode(connection: &Connection, wanted: &str) -> rusqlite::Result<String> {
    let current: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if current.eq_ignore_ascii_case(wanted) {
        return Ok(current);
    }
    connection.pragma_update_and_check(None, "journal_mode", wanted, |row| row.get(0))
}

/// SQLite couldn't make or use its `-wal` and `-shm` beside a file that it can read.
fn is_for_want_of_lock_files(error: &StoreError) -> bool {
    error
        .database_code()
        .map(DatabaseCode::as_str)
        .is_some_and(|code| code == "SQLITE_CANTOPEN" || code.starts_with("SQLITE_READONLY"))
}

/// What other libraries take in a file's place. The name of a file may begin so, too.
fn is_url(name: &str) -> bool {
    ["file:", "sqlite:", "sqlite3:", "libsql:"].iter().any(|scheme| name.starts_with(scheme))
}

/// The reason, if there is one before anything is tried.
pub fn why_no_file_can_be_there(path: &Path) -> Option<String> {
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
        Opener::new(&options(path), path.to_owned(), is_shared).open()
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
    fn a_lock_is_waited_for_within_the_smaller_limit_and_the_error_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let other = open_as(&path, true).unwrap();
        other.connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
        match open_as(&path, true) {
            Err(StoreError::Busy { timeout: Some(limit), .. }) => {
                assert_eq!(limit, LockTimeout::BusyTimeout(Duration::from_millis(50)));
            }
            other => panic!("{other:?}"),
        }
        let default = SqliteOptions::default();
        assert_eq!(
            Opener::new(&default, path, true).lock_timeout,
            LockTimeout::Constructor(OPEN_TIMEOUT)
        );
    }

    #[test]
    fn a_path_survives_being_made_a_uri() {
        assert_eq!(immutable_uri(Path::new("/a b/%?#.db")), "file:///a b/%25%3F%23.db?immutable=1");
        assert_eq!(immutable_uri(Path::new("//a/b.db")), "file:////a/b.db?immutable=1");
    }
}
