//! A copy of the whole database, as of one moment, while others go on writing.
//!
//! `VACUUM INTO` copies inside one read transaction; SQLite's backup API would begin anew whenever
//! another connection writes. The copy is written beside its place, synced, and renamed.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::error::StoreError;
use crate::store::FileProgress;

use super::connection::why_no_file_can_be_there;
use super::failure;
use super::filesystem;

const IS_THERE: &str = "there is a file of that name already";

/// What SQLite takes for its own, beside a database, and deletes.
const SQLITES_OWN: [&str; 3] = ["-journal", "-wal", "-shm"];

/// A file that is removed, unless it was finished.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Copies the database into a file that isn't there yet. The connection's progress handler may end
/// that.
pub fn back_up(
    connection: &Connection,
    filename: &str,
    mode: u32,
    progress: &FileProgress,
) -> Result<(), StoreError> {
    let refused = |reason: String| StoreError::cannot_open(filename, reason);
    let target = filesystem::real_path(Path::new(filename));
    if let Some(reason) = why_no_file_can_be_there(&target) {
        return Err(refused(reason));
    }
    if target.exists() {
        return Err(refused(IS_THERE.to_owned()));
    }
    if SQLITES_OWN.iter().any(|end| filename.ends_with(end)) {
        return Err(refused("SQLite deletes files of such a name".to_owned()));
    }
    let unfinished = Unfinished(beside(&target));
    filesystem::create(&unfinished.0, mode);
    progress.begin(unfinished.0.clone());
    let path = unfinished.0.to_str().ok_or_else(|| refused("its path isn't UTF-8".to_owned()))?;
    connection.execute("VACUUM INTO ?1", [path]).map_err(|error| {
        match failure::primary_code(&error) {
            Some(rusqlite::ffi::SQLITE_CANTOPEN | rusqlite::ffi::SQLITE_READONLY) => {
                refused("no file can be made there".to_owned())
            }
            _ => failure::store_error_of_write(connection, error),
        }
    })?;
    progress.finish();
    finish(&unfinished.0, &target).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => refused(IS_THERE.to_owned()),
        kind => refused(kind.to_string()),
    })
}

/// Its name is as long whatever the target's is.
fn beside(target: &Path) -> PathBuf {
    let name = format!("backup-{:016x}.unfinished", RandomState::new().hash_one(0));
    filesystem::folder(target).join(name)
}

/// SQLite doesn't sync what it vacuums into.
fn finish(unfinished: &Path, target: &Path) -> io::Result<()> {
    // To be synced, Windows wants it open for writing.
    File::options().write(true).open(unfinished)?.sync_all()?;
    filesystem::rename_to_new(unfinished, target)?;
    filesystem::sync_folder(filesystem::folder(target))
}
