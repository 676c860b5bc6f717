//! Which files this process has open, through this copy of SQLite and through anything else.
//!
//! POSIX gives locks to a process, not to who took them: two copies of SQLite in one process don't keep
//! each other out, and whoever closes a file drops the locks of all. SQLite knows of its own connections
//! alone; a second copy of it comes with another driver, or with another version of this package.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use crate::lock::lock;

/// Held by the store that opens its first connection. Apart from the list, for which closing must not wait.
static OPENING: Mutex<()> = Mutex::new(());
/// The files of open stores, each as often as it is open.
static CLAIMED: Mutex<Vec<FileIdentity>> = Mutex::new(Vec::new());

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
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }

    /// Windows doesn't let go of an open file's name.
    #[cfg(not(unix))]
    pub fn of(_path: &Path) -> Option<Self> {
        Some(Self { device: 0, inode: 0 })
    }

    /// Whether this process has it open. Looks at each of its files: some 6 µs a file, once a driver.
    #[cfg(unix)]
    fn is_open(self) -> bool {
        let Ok(descriptors) = std::fs::read_dir("/dev/fd") else { return false };
        descriptors.flatten().any(|descriptor| Self::of(&descriptor.path()) == Some(self))
    }

    /// Locks are each handle's own on Windows.
    #[cfg(not(unix))]
    fn is_open(self) -> bool {
        false
    }
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

    /// Whether this process has the file open, and not through this copy of SQLite.
    pub fn is_open_elsewhere(&self, path: &Path) -> bool {
        FileIdentity::of(path).is_some_and(|file| !lock(&CLAIMED).contains(&file) && file.is_open())
    }

    /// The connection is open.
    pub fn finish(self, file: Option<FileIdentity>) -> Claim {
        lock(&CLAIMED).extend(file);
        Claim { file }
    }
}

/// What a store holds from its first connection to the end of its last.
#[derive(Debug)]
pub struct Claim {
    file: Option<FileIdentity>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = lock(&CLAIMED);
        if let Some(at) = claimed.iter().position(|claimed| Some(*claimed) == self.file) {
            claimed.swap_remove(at);
        }
    }
}
