//! Work that writes a file, as those who wait for it see it.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct FileProgress {
    /// The file that grows.
    unfinished: OnceLock<PathBuf>,
    /// How large it became.
    finished: OnceLock<u64>,
    is_cancelled: AtomicBool,
}

impl FileProgress {
    /// It is being written to this file.
    pub fn begin(&self, unfinished: PathBuf) {
        let _ = self.unfinished.set(unfinished);
    }

    /// How large it is so far, in bytes.
    pub fn bytes(&self) -> u64 {
        if let Some(bytes) = self.finished.get() {
            return *bytes;
        }
        let metadata = self.unfinished.get().and_then(|file| std::fs::metadata(file).ok());
        metadata.map_or(0, |metadata| metadata.len())
    }

    /// It is whole.
    pub fn finish(&self) {
        let _ = self.finished.set(self.bytes());
    }

    /// Nobody wants it any more.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether nobody wants it any more.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}
