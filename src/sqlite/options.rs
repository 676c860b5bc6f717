//! What can be chosen when a store is opened.

use std::time::Duration;

use crate::columns::OnDuplicate;
use crate::store::DEFAULT_MAX_QUEUED_BYTES;

/// A database that lives in this process's memory.
pub const IN_MEMORY_FILENAME: &str = ":memory:";
/// How long a locked database is waited for.
pub const DEFAULT_BUSY_TIMEOUT_MS: u32 = 30_000;

/// Sessions are nobody else's business.
pub const DEFAULT_FILE_MODE: u32 = 0o600;

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it survives a loss of power.
    #[default]
    Full,
    /// When it survives the end of the process; a loss of power may take the last commits.
    Normal,
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// A path; `:memory:`, the default, or the empty text for a temporary database.
    pub filename: String,
    /// Default: [`Durability::Full`].
    pub durability: Durability,
    /// Who may read and write a file that is made, as Unix has it. Default: [`DEFAULT_FILE_MODE`].
    pub file_mode: u32,
    /// Default: [`DEFAULT_BUSY_TIMEOUT_MS`].
    pub busy_timeout: Duration,
    /// Default: [`DEFAULT_MAX_QUEUED_BYTES`].
    pub max_queued_bytes: usize,
    /// Whether what is deleted is overwritten before its deletion is acknowledged. Default: no.
    pub secure_delete: bool,
    /// What becomes of an event whose id is stored already. Default: [`OnDuplicate::Replace`].
    pub on_duplicate_event: OnDuplicate,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            filename: IN_MEMORY_FILENAME.to_owned(),
            durability: Durability::default(),
            file_mode: DEFAULT_FILE_MODE,
            busy_timeout: Duration::from_millis(u64::from(DEFAULT_BUSY_TIMEOUT_MS)),
            max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES,
            secure_delete: false,
            on_duplicate_event: OnDuplicate::default(),
        }
    }
}

impl SqliteOptions {
    /// Whether the database is private to the connection that opens it.
    pub fn is_private(&self) -> bool {
        self.filename.is_empty() || self.filename == IN_MEMORY_FILENAME
    }
}
