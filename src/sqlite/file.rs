//! The files of a database, as one store has them open: the database, its -wal and its -shm. They
//! must stay in their places, and nothing else in the process may have them open.
//!
//! POSIX gives locks to a process, not to who took them: two copies of SQLite in one process don't
//! keep each other out, and whoever closes a file drops the locks of all. SQLite knows of its own
//! connections alone; a second copy of it comes with another driver, or with another version of
//! this package.

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::error::StoreError;

use super::failure;
use super::filesystem;
use super::identity::{self, Contents, FileIdentity, PlacedFile};

/// Held by the store that opens its first connection. Apart from the list, for which closing must
/// not wait.
static CLAIMING: Mutex<()> = Mutex::new(());
/// What the open stores have claimed, each store's once.
static CLAIMED: Mutex<Vec<Weak<DatabaseFile>>> = Mutex::new(Vec::new());

const OPEN_ELSEWHERE: &str = "this process has it open already (or its -wal or -shm), by other \
    means than this copy of this package: a second copy or another version of it, better-sqlite3, \
    node:sqlite, a plain file handle, or a driver whose own file was moved away from here. To \
    close that would drop the locks that protect the database. Use one copy, or close the other \
    first";
const WAL_IS_GONE: &str = "another driver of this process has it open, whose -wal or -shm was \
    moved or deleted since. Close that driver first";

/// What a store has claimed, from its first connection to the end of its last. Whoever has a
/// connection must have this too, and let go of it later.
#[derive(Debug)]
pub struct DatabaseFile {
    /// Without links, as SQLite has it: the -wal lies beside it.
    path: PathBuf,
    database: Option<FileIdentity>,
    /// What must stay in its place; nothing any more once the last connection closes.
    placed: RwLock<Vec<PlacedFile>>,
    /// The database as this process left it when it last ran a checkpoint: the same for all stores
    /// that have it open.
    contents: Arc<Mutex<Option<Contents>>>,
}

impl DatabaseFile {
    /// Has `open` make a store's first connection to the database, unless that would endanger
    /// another's locks. Waits for others who do the same.
    pub fn claim(
        filename: &str,
        path: PathBuf,
        open: impl FnOnce(&Path) -> Result<Connection, StoreError>,
    ) -> Result<(Arc<Self>, Connection), StoreError> {
        let _turn = CLAIMING.lock();
        if let Some(reason) = reason_against_opening(&path) {
            return Err(StoreError::cannot_open(filename, reason));
        }
        let connection = open(&path)?;
        Ok((Self::add(path), connection))
    }

    /// The size of the WAL, if there is one.
    pub fn wal_bytes(&self) -> Option<u64> {
        let wal = std::fs::metadata(filesystem::wal_path(&self.path));
        wal.ok().map(|metadata| metadata.len())
    }

    /// The connection is open, and with it the database file.
    fn add(path: PathBuf) -> Arc<Self> {
        let placed = PlacedFile::at(path.clone());
        let database = placed.as_ref().map(|file| file.identity);
        let siblings = stores_of(database);
        let contents = siblings.first().map(|store| Arc::clone(&store.contents));
        let file = Arc::new(Self {
            path,
            database,
            placed: RwLock::new(placed.into_iter().collect()),
            contents: contents.unwrap_or_default(),
        });
        CLAIMED.lock().push(Arc::downgrade(&file));
        file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first read in WAL mode has opened the -wal and the -shm, or made them. From now on it
    /// must be noticed if somebody deletes them, as another copy of SQLite does that closes the
    /// database last: the next process would make new ones.
    pub fn keep_wal_in_place(&self) {
        let beside = [filesystem::wal_path(&self.path), filesystem::shm_path(&self.path)];
        self.placed.write().extend(beside.into_iter().filter_map(PlacedFile::at));
        self.remember_contents();
    }

    /// Whether what is open is still what is found there: if not, what is written now would be
    /// lost, and what is read may be another's.
    ///
    /// Some 2 µs for each of at most three files.
    pub fn verify(&self) -> Result<(), StoreError> {
        if self.has_lost_a_file() { Err(StoreError::Moved) } else { Ok(()) }
    }

    /// Copies what nobody reads any more from the WAL into the database, without waiting for
    /// readers or the writer. A WAL that is copied whole starts over at the next commit. One that
    /// was deleted isn't copied: by now the database may have another.
    pub fn checkpoint(&self, connection: &Connection) -> Result<(), StoreError> {
        self.checkpoint_as(connection, "PRAGMA wal_checkpoint(PASSIVE)").map(drop)
    }

    /// Copies all of the WAL into the database, and empties it. Waits for readers and the writer as
    /// long as the connection does. Whether it is empty now.
    pub fn empty_wal(&self, connection: &Connection) -> Result<bool, StoreError> {
        self.checkpoint_as(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
    }

    /// Whether nobody was in the way.
    fn checkpoint_as(&self, connection: &Connection, pragma: &str) -> Result<bool, StoreError> {
        self.verify()?;
        let checkpoint = || -> rusqlite::Result<bool> {
            connection.prepare_cached(pragma)?.query_row([], |row| Ok(row.get::<_, i64>(0)? == 0))
        };
        let result = checkpoint().map_err(failure::store_error);
        self.remember_contents();
        result
    }

    /// Closes the store's last connection, if it still has one, and gives up the claim.
    ///
    /// SQLite's close runs a checkpoint and deletes the -wal and the -shm: by their names, and
    /// whatever is found there by now. So it only does that where it harms nobody.
    pub fn close(&self, last: Option<Connection>) {
        // Nobody who opens the database meanwhile should take their deletion for a loss.
        let placed = mem::take(&mut *self.placed.write());
        if let Some(connection) = last {
            if !self.may_checkpoint_on_close(&placed) {
                let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
                // Can't fail: SQLite knows it.
                let _ = connection.set_db_config(no_checkpoint, true);
            }
            drop(connection);
        }
        self.give_up();
    }

    /// Whether the WAL that we have open belongs to the database that is found there. One that was
    /// deleted does, and has nowhere else to go, unless there is another or somebody has written
    /// to the database.
    fn may_checkpoint_on_close(&self, placed: &[PlacedFile]) -> bool {
        if !placed.iter().any(PlacedFile::is_gone) {
            return true;
        }
        let wal = std::fs::metadata(filesystem::wal_path(&self.path));
        let has_no_other_wal = wal.map_or(true, |metadata| metadata.len() == 0);
        has_no_other_wal && *self.contents.lock() == Contents::of(&self.path)
    }

    fn has_lost_a_file(&self) -> bool {
        self.placed.read().iter().any(PlacedFile::is_gone)
    }

    /// We have just written to the database.
    fn remember_contents(&self) {
        *self.contents.lock() = Contents::of(&self.path);
    }

    fn give_up(&self) {
        CLAIMED.lock().retain(|claimed| !std::ptr::eq(claimed.as_ptr(), self));
    }
}

/// For a store that couldn't be opened to the end.
impl Drop for DatabaseFile {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Why nobody should open the database now. One reason is that this process has it open, and not
/// through this copy of SQLite; or the -wal or the -shm beside it, as a driver has whose file was
/// moved without them.
fn reason_against_opening(path: &Path) -> Option<&'static str> {
    let database = FileIdentity::of(path);
    let stores = stores_of(database);
    if !stores.is_empty() {
        return stores.iter().any(|store| store.has_lost_a_file()).then_some(WAL_IS_GONE);
    }
    let beside = [filesystem::wal_path(path), filesystem::shm_path(path)];
    let beside = beside.iter().map(|file| FileIdentity::of(file));
    let files: Vec<_> = beside.chain([database]).flatten().collect();
    (!files.is_empty() && identity::is_any_open(&files)).then_some(OPEN_ELSEWHERE)
}

/// The stores of this process that have the database open.
fn stores_of(database: Option<FileIdentity>) -> Vec<Arc<DatabaseFile>> {
    // The list is let go of before any store is: the last to let go of a store locks it.
    let mut stores: Vec<_> = CLAIMED.lock().iter().filter_map(Weak::upgrade).collect();
    stores.retain(|store| store.database == database);
    stores
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    struct Store {
        file: Arc<DatabaseFile>,
        connection: Connection,
    }

    fn open(path: &Path) -> Result<Store, StoreError> {
        let (file, connection) = DatabaseFile::claim("a.db", path.to_owned(), |path| {
            let connection = Connection::open(path).unwrap();
            connection
                .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS rows(x)")
                .unwrap();
            Ok(connection)
        })?;
        file.keep_wal_in_place();
        Ok(Store { file, connection })
    }

    impl Store {
        fn insert(&self) {
            self.connection.execute("INSERT INTO rows VALUES (1)", []).unwrap();
        }

        fn close(self) {
            self.file.close(Some(self.connection));
        }
    }

    /// Without a driver: what a process that comes later finds.
    fn count_rows(path: &Path) -> i64 {
        let connection = Connection::open(path).unwrap();
        connection.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)).unwrap()
    }

    fn database() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        (folder, path)
    }

    #[test]
    fn each_file_is_missed_until_it_is_put_back() {
        let (folder, path) = database();
        let store = open(&path).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        for placed in [path.clone(), filesystem::wal_path(&path), filesystem::shm_path(&path)] {
            assert_eq!(store.file.verify(), Ok(()));
            std::fs::rename(&placed, &elsewhere).unwrap();
            assert_eq!(store.file.verify(), Err(StoreError::Moved), "{placed:?}");
            std::fs::rename(&elsewhere, &placed).unwrap();
        }
    }

    #[test]
    fn a_checkpoint_leaves_what_took_the_place_of_the_wal() {
        let (_folder, path) = database();
        let store = open(&path).unwrap();
        store.insert();
        let before = std::fs::read(&path).unwrap();
        let wal = filesystem::wal_path(&path);
        std::fs::remove_file(&wal).unwrap();
        std::fs::write(&wal, "others'").unwrap();
        assert_eq!(store.file.checkpoint(&store.connection), Err(StoreError::Moved));
        store.close();
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read(&wal).unwrap(), b"others'");
    }

    #[test]
    fn a_deleted_wal_is_saved_at_the_close_also_after_a_siblings_checkpoint() {
        let (_folder, path) = database();
        let [store, sibling] = [open(&path).unwrap(), open(&path).unwrap()];
        store.insert();
        sibling.file.checkpoint(&sibling.connection).unwrap();
        store.insert();
        std::fs::remove_file(filesystem::wal_path(&path)).unwrap();
        sibling.close();
        store.close();
        assert_eq!(count_rows(&path), 2);
    }

    #[test]
    fn a_deleted_wal_is_not_written_over_what_others_have_stored_since() {
        let (folder, path) = database();
        let backup = folder.path().join("backup");
        let other = open(&backup).unwrap();
        other.insert();
        other.close();
        let store = open(&path).unwrap();
        for _ in 0..3 {
            store.insert();
        }
        std::fs::copy(&backup, &path).unwrap();
        std::fs::remove_file(filesystem::wal_path(&path)).unwrap();
        store.close();
        assert_eq!(count_rows(&path), 1);
    }

    #[test]
    fn nobody_else_opens_a_database_that_lost_its_wal_until_it_is_closed() {
        let (_folder, path) = database();
        let store = open(&path).unwrap();
        std::fs::remove_file(filesystem::wal_path(&path)).unwrap();
        assert!(matches!(open(&path), Err(StoreError::CannotOpen { .. })));
        // Others may still know the file: what counts is that its connections are closed.
        let file = Arc::clone(&store.file);
        store.close();
        open(&path).unwrap().close();
        drop(file);
    }

    #[test]
    fn a_claim_ends_with_its_store_though_nobody_closed_it() {
        let (_folder, path) = database();
        let Store { file, connection } = open(&path).unwrap();
        drop(connection);
        drop(file);
        // No store of ours has it open, so that this is somebody else.
        let _other = std::fs::File::open(&path).unwrap();
        assert!(matches!(open(&path), Err(StoreError::CannotOpen { .. })));
    }

    #[test]
    fn a_failed_claim_leaves_nothing() {
        let (_folder, path) = database();
        let failed = DatabaseFile::claim("a.db", path.clone(), |_| Err(StoreError::Closed));
        assert_eq!(failed.err(), Some(StoreError::Closed));
        assert!(stores_of(FileIdentity::of(&path)).is_empty());
        open(&path).unwrap().close();
    }

    #[test]
    fn claims_of_many_threads_wait_for_each_other() {
        let (_folder, path) = database();
        let keeper = open(&path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for at in 0..25 {
                        let store = open(&path).unwrap();
                        // Half of them end as stores do that fail to open.
                        if at % 2 == 0 {
                            store.close();
                        }
                    }
                });
            }
        });
        assert_eq!(stores_of(FileIdentity::of(&path)).len(), 1);
        keeper.close();
        assert!(stores_of(FileIdentity::of(&path)).is_empty());
    }
}
