//! Which file it is: tells one from another that is found under the same name, and from itself
//! after somebody wrote to it.

use std::path::{Path, PathBuf};

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
#[derive(Debug)]
pub struct PlacedFile {
    path: PathBuf,
    pub identity: FileIdentity,
}

impl PlacedFile {
    /// The file that is there now.
    pub fn at(path: PathBuf) -> Option<Self> {
        FileIdentity::of(&path).map(|identity| Self { path, identity })
    }

    /// Whether another file, or none, is found in its place. Where nobody may look, it is still
    /// there.
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

/// Whether this process has one of them open, by whatever means. Looks at each file that it has
/// open: some 6 µs each, once a driver.
#[cfg(unix)]
pub fn is_any_open(files: &[FileIdentity]) -> bool {
    let Ok(descriptors) = std::fs::read_dir("/dev/fd") else { return false };
    let mut open = descriptors.flatten().filter_map(|file| FileIdentity::of(&file.path()));
    open.any(|file| files.contains(&file))
}

/// Locks are each handle's own on Windows.
#[cfg(not(unix))]
pub fn is_any_open(_files: &[FileIdentity]) -> bool {
    false
}

#[cfg(test)]
#[cfg(unix)]
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

    #[test]
    fn a_file_is_gone_when_it_is_moved_deleted_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [path, elsewhere] = ["a.db", "b.db"].map(|name| folder.path().join(name));
        std::fs::write(&path, "one").unwrap();
        let placed = PlacedFile::at(path.clone()).unwrap();
        assert!(!placed.is_gone());
        std::fs::rename(&path, &elsewhere).unwrap();
        assert!(placed.is_gone(), "moved");
        std::fs::write(&path, "two").unwrap();
        assert!(placed.is_gone(), "replaced");
        std::fs::rename(&elsewhere, &path).unwrap();
        assert!(!placed.is_gone(), "put back");
        std::fs::remove_file(&path).unwrap();
        assert!(placed.is_gone(), "deleted");
    }
}
