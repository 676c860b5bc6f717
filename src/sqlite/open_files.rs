//! Which files this process has open, through this copy of SQLite and through anything else.
//!
//! POSIX gives locks to a process, not to who took them: two copies of SQLite in one process don't keep
//! each other out, and whoever closes a file drops the locks of all. SQLite knows of its own connections
//! alone; a second copy of it comes with another driver, or with another version of this package.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::lock::lock;

use super::filesystem;

/// Held by the store that opens its first connection. Apart from the list, for which closing must not wait.
static OPENING: Mutex<()> = Mutex::new(());
/// What open stores have open, each store's once.
static CLAIMED: Mutex<Vec<Arc<Claimed>>> = Mutex::new(Vec::new());

const OPEN_ELSEWHERE: &str = "this process has it open already (or its -wal or -shm), by other means than this copy of this package: a second copy or another version of it, better-sqlite3, node:sqlite, a plain file handle, or a driver whose own file was moved away from here. To close that would drop the locks that protect the database. Use one copy, or close the other first";
const LOG_IS_GONE: &str = "another driver of this process has it open, whose -wal or -shm was moved or deleted since. Close that driver first";

/// Tells a file from another that is later found under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The file's that is there now.
    #[cfg(unix)]
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::in_metadata(&metadata))
    }

    /// Windows doesn't let go of an open file's name.
    #[cfg(not(unix))]
    pub fn of(_path: &Path) -> Option<Self> {
        Some(Self { device: 0, inode: 0 })
    }

    #[cfg(unix)]
    fn in_metadata(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A file that must stay where it is while it is open.
#[derive(Debug, Clone)]
pub struct PlacedFile {
    path: PathBuf,
    identity: FileIdentity,
}

impl PlacedFile {
    /// The file that is there now.
    pub fn at(path: PathBuf) -> Option<Self> {
        FileIdentity::of(&path).map(|identity| Self { path, identity })
    }

    /// Whether another file, or none, is found in its place. Where nobody may look, it is still there.
    #[cfg(unix)]
    pub fn is_gone(&self) -> bool {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        match std::fs::metadata(&self.path) {
            Ok(found) => FileIdentity::in_metadata(&found) != self.identity,
            Err(error) => matches!(error.kind(), NotFound | NotADirectory),
        }
    }

    #[cfg(not(unix))]
    pub fn is_gone(&self) -> bool {
        false
    }
}

/// Tells whether a file was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    identity: FileIdentity,
    /// Seconds and nanoseconds. Other than the time of the last write, nobody can set it.
    changed: (i64, i64),
}

impl Contents {
    /// The file's that is there now.
    #[cfg(unix)]
    pub fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).ok()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Self { identity: FileIdentity::in_metadata(&metadata), changed })
    }

    #[cfg(not(unix))]
    pub fn of(path: &Path) -> Option<Self> {
        FileIdentity::of(path).map(|identity| Self { identity, changed: (0, 0) })
    }
}

/// A database as this process left it when it last moved a log into it.
pub type LeftContents = Arc<Mutex<Option<Contents>>>;

/// Whether this process has one of them open. Looks at each of its files: some 6 µs a file, once a driver.
#[cfg(unix)]
fn is_any_open(files: &[FileIdentity]) -> bool {
    let Ok(descriptors) = std::fs::read_dir("/dev/fd") else { return false };
    let mut open = descriptors.flatten().filter_map(|file| FileIdentity::of(&file.path()));
    open.any(|file| files.contains(&file))
}

/// Locks are each handle's own on Windows.
#[cfg(not(unix))]
fn is_any_open(_files: &[FileIdentity]) -> bool {
    false
}

/// A store that is about to open its first connection: meanwhile no other does.
pub struct Opening {
    _turn: MutexGuard<'static, ()>,
}

impl Opening {
    /// Waits for the others.
    pub fn begin() -> Self {
        Self { _turn: lock(&OPENING) }
    }

    /// Why nobody should open the database now. One reason is that this process has it open, and not through
    /// this copy of SQLite; or the log or the locks beside it, as a driver has whose file was moved without
    /// them.
    pub fn reason_against(&self, path: &Path) -> Option<&'static str> {
        let database = FileIdentity::of(path);
        let claimed: Vec<_> =
            lock(&CLAIMED).iter().filter(|store| store.database == database).cloned().collect();
        if !claimed.is_empty() {
            return claimed.iter().any(|store| store.has_lost_a_file()).then_some(LOG_IS_GONE);
        }
        let beside = filesystem::log_and_index(path).map(|file| FileIdentity::of(&file));
        let files: Vec<_> = beside.into_iter().chain([database]).flatten().collect();
        (!files.is_empty() && is_any_open(&files)).then_some(OPEN_ELSEWHERE)
    }

    /// The connection is open.
    pub fn finish(self, path: &Path) -> Claim {
        let database = FileIdentity::of(path);
        let mut open = lock(&CLAIMED);
        let sibling = open.iter().find(|store| store.database == database);
        let contents = sibling.map(|store| Arc::clone(&store.contents)).unwrap_or_default();
        let claimed = Arc::new(Claimed { database, contents, files: Mutex::default() });
        open.push(Arc::clone(&claimed));
        Claim(claimed)
    }
}

/// What a store has open.
#[derive(Debug)]
struct Claimed {
    database: Option<FileIdentity>,
    /// All stores' of this database.
    contents: LeftContents,
    /// While all of them should be where they are.
    files: Mutex<Vec<PlacedFile>>,
}

impl Claimed {
    fn has_lost_a_file(&self) -> bool {
        lock(&self.files).iter().any(PlacedFile::is_gone)
    }
}

/// What a store holds from its first connection to the end of its last.
#[derive(Debug)]
pub struct Claim(Arc<Claimed>);

impl Claim {
    /// From now on who opens the database too finds these files in their places, or none.
    pub fn keep_in_place(&self, files: &[PlacedFile]) {
        *lock(&self.0.files) = files.to_vec();
    }

    /// What all stores of the database share.
    pub fn contents(&self) -> LeftContents {
        Arc::clone(&self.0.contents)
    }

    /// The last connection is about to close, and to delete the log.
    pub fn let_go_of_files(&self) {
        lock(&self.0.files).clear();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&CLAIMED).retain(|claimed| !Arc::ptr_eq(claimed, &self.0));
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn contents_that_are_written_over_differ_though_size_and_time_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, "one").unwrap();
        let before = Contents::of(&path);
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        // A file system's clock ticks every few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::write(&path, "two").unwrap();
        std::fs::File::open(&path).unwrap().set_modified(modified).unwrap();
        assert_ne!(Contents::of(&path), before);
    }
}
