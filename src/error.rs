//! What can go wrong in a store, for any backend.
//!
//! No message ever holds a payload, a password, or a path that the caller didn't give.

/// A database's own name for what went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseCode {
    /// Such as `SQLITE_FULL`.
    Sqlite(&'static str),
    /// An SQLSTATE of five characters.
    Sqlstate(String),
}

impl DatabaseCode {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sqlite(name) => name,
            Self::Sqlstate(state) => state,
        }
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The driver was closed before the call, or before the call's turn came.
    #[error("the driver is closed")]
    Closed,

    /// Too many bytes wait to be written.
    #[error(
        "more than {max_queued_bytes} bytes (maxQueuedBytes) wait to be written; await earlier calls before making more"
    )]
    Overloaded { max_queued_bytes: usize },

    /// The database can't be opened.
    #[error("cannot open the database \"{database}\": {reason}")]
    CannotOpen { database: String, reason: String, database_code: Option<DatabaseCode> },

    /// The file holds something else than a database.
    #[error("\"{filename}\" is not a SQLite database")]
    NotADatabase { filename: String },

    /// A table that we need has a name in common with somebody else's.
    #[error(
        "the {container} has a table \"{table}\" that is not a session store's ({reason}); use another {kind}"
    )]
    ForeignTable {
        /// What holds the table, by its name: a database in a file, or a schema.
        container: String,
        /// What to use another of.
        kind: &'static str,
        table: &'static str,
        reason: String,
    },

    /// The tables are missing or of an old layout, and we were told not to touch them, or mayn't.
    #[error("{reason}")]
    SchemaOutdated { reason: String, database_code: Option<DatabaseCode> },

    /// The database server couldn't be reached, or couldn't be made to do it, in time.
    #[error("the database was not available for longer than retryTimeoutMs allows: {reason}")]
    Unavailable { reason: String, database_code: Option<DatabaseCode> },

    /// The database can be read but not written.
    #[error("the database is read-only")]
    ReadOnly { database_code: DatabaseCode },

    /// Somebody else held the database locked for too long.
    #[error(
        "the database stayed locked by another connection for longer than busyTimeoutMs allows, or, in the constructor, for 5 seconds"
    )]
    Busy { database_code: DatabaseCode },

    /// There is no room on the disk.
    #[error("the disk is full")]
    Full { database_code: DatabaseCode },

    /// A value is larger than can be stored and handed back.
    #[error("{what} is larger than can be handed back: {bytes} bytes, at most {max_bytes}")]
    TooLarge { what: &'static str, bytes: usize, max_bytes: usize },

    /// A stored row can't be read.
    #[error("the stored {what} cannot be read: {reason}")]
    Corrupt { what: String, reason: &'static str },

    /// The file isn't where it was opened: what is written now would be lost.
    #[error(
        "the database file, its -wal or its -shm was moved, deleted or replaced while it was open; close the driver and open the file anew"
    )]
    Moved,

    /// The file itself is damaged.
    #[error("the database file is damaged: {message}")]
    Damaged { message: String, database_code: DatabaseCode },

    /// A constraint of the table forbids the row. The SDK looks for the database's own
    /// words in this message, to try again with the next event index.
    #[error("{message}")]
    Constraint { message: String, database_code: DatabaseCode },

    /// Anything else that the database reports.
    #[error("the database failed: {message}")]
    Database { message: String, database_code: DatabaseCode },

    /// A defect of this package.
    #[error("internal error: {reason}")]
    Internal { reason: &'static str },
}

impl StoreError {
    /// The stable name that applications test for.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Closed => "ERR_PERSIST_CLOSED",
            Self::Overloaded { .. } => "ERR_PERSIST_OVERLOADED",
            Self::CannotOpen { .. } => "ERR_PERSIST_CANNOT_OPEN",
            Self::NotADatabase { .. } => "ERR_PERSIST_NOT_A_DATABASE",
            Self::ForeignTable { .. } => "ERR_PERSIST_FOREIGN_TABLE",
            Self::SchemaOutdated { .. } => "ERR_PERSIST_SCHEMA",
            Self::Unavailable { .. } => "ERR_PERSIST_UNAVAILABLE",
            Self::ReadOnly { .. } => "ERR_PERSIST_READ_ONLY",
            Self::Busy { .. } => "ERR_PERSIST_BUSY",
            Self::Full { .. } => "ERR_PERSIST_FULL",
            Self::TooLarge { .. } => "ERR_PERSIST_TOO_LARGE",
            Self::Corrupt { .. } | Self::Damaged { .. } => "ERR_PERSIST_CORRUPT",
            Self::Moved => "ERR_PERSIST_MOVED",
            Self::Constraint { .. } => "ERR_PERSIST_CONSTRAINT",
            Self::Database { .. } => "ERR_PERSIST_DATABASE",
            Self::Internal { .. } => "ERR_PERSIST_INTERNAL",
        }
    }

    /// The database's own name for it.
    pub fn database_code(&self) -> Option<&DatabaseCode> {
        match self {
            Self::CannotOpen { database_code, .. }
            | Self::SchemaOutdated { database_code, .. }
            | Self::Unavailable { database_code, .. } => database_code.as_ref(),
            Self::NotADatabase { .. } => Some(&DatabaseCode::Sqlite("SQLITE_NOTADB")),
            Self::ReadOnly { database_code }
            | Self::Busy { database_code }
            | Self::Full { database_code }
            | Self::Damaged { database_code, .. }
            | Self::Constraint { database_code, .. }
            | Self::Database { database_code, .. } => Some(database_code),
            _ => None,
        }
    }
}
