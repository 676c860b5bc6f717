//! What can go wrong in a store, for any backend.
//!
//! No message ever holds a payload, a password, or a path that the caller didn't give.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// The SQLSTATE of what a role may not do.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";

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

/// What bounded the wait for somebody else's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockTimeout {
    /// The option `busyTimeoutMs`.
    BusyTimeout(Duration),
    /// What a constructor waits at most, whatever the option says: it blocks JavaScript's thread.
    Constructor(Duration),
}

impl LockTimeout {
    /// How long the wait may last.
    pub fn duration(self) -> Duration {
        match self {
            Self::BusyTimeout(duration) | Self::Constructor(duration) => duration,
        }
    }
}

impl Display for LockTimeout {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::BusyTimeout(limit) => {
                write!(formatter, "busyTimeoutMs ({}) allows", limit.as_millis())
            }
            Self::Constructor(limit) => {
                write!(formatter, "the {} seconds that a constructor waits", limit.as_secs())
            }
        }
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(
    not(test),
    expect(clippy::missing_docs_in_private_items, reason = "a variant's message has its fields")
)]
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
    #[error(
        "the database {}: {reason}",
        match .timeout {
            Some(limit) => format!("was not available for longer than retryTimeoutMs ({}) allows", limit.as_millis()),
            None => "is not available".to_owned(),
        }
    )]
    Unavailable {
        /// What was in vain; none while calls still wait.
        timeout: Option<Duration>,
        reason: String,
        database_code: Option<DatabaseCode>,
    },

    /// The database can be read but not written.
    #[error("the database is read-only{}", .reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
    ReadOnly {
        /// Known to those who looked.
        reason: Option<String>,
        database_code: DatabaseCode,
    },

    /// Somebody else held the database locked for too long.
    #[error(
        "the database stayed locked by another connection{}",
        .timeout.map(|limit| format!(" for longer than {limit}")).unwrap_or_default()
    )]
    Busy {
        /// Known to those who waited.
        timeout: Option<LockTimeout>,
        database_code: DatabaseCode,
    },

    /// There is no room on the disk.
    #[error("the disk is full{}", .needed
        .map(|bytes| format!(": this needs {bytes} bytes")).unwrap_or_default()
    )]
    Full {
        /// How many bytes must be free, where that is known.
        needed: Option<u64>,
        database_code: DatabaseCode,
    },

    /// What is given is more than can be stored at once, or handed back.
    #[error("{what} is too large: {size} {unit}, at most {max}")]
    TooLarge { what: &'static str, size: usize, max: usize, unit: &'static str },

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

    /// The system has no more of what we need.
    #[error("the system refused {what}; raise the limit ({limits})")]
    System { what: &'static str, limits: &'static str },

    /// A defect of this package.
    #[error("internal error: {reason}")]
    Internal { reason: &'static str },
}

impl StoreError {
    /// No thread could be started.
    pub const NO_THREAD: Self =
        Self::System { what: "a thread", limits: "ulimit -u, the container's pids" };
    /// No file or socket could be opened.
    pub const NO_OPEN_FILE: Self = Self::System { what: "an open file", limits: "ulimit -n" };

    /// A database that isn't opened, for a reason of ours.
    pub fn cannot_open(database: &str, reason: impl Into<String>) -> Self {
        Self::CannotOpen {
            database: database.to_owned(),
            reason: reason.into(),
            database_code: None,
        }
    }

    /// If it is a lock that wasn't given up in time: in what time.
    pub fn after(self, timeout: LockTimeout) -> Self {
        match self {
            Self::Busy { database_code, .. } => {
                Self::Busy { timeout: Some(timeout), database_code }
            }
            other => other,
        }
    }

    /// If it is a database that wasn't available in time: in what time.
    pub fn after_retries(self, timeout: Duration) -> Self {
        match self {
            Self::Unavailable { reason, database_code, .. } => {
                Self::Unavailable { timeout: Some(timeout), reason, database_code }
            }
            other => other,
        }
    }

    /// Whether the message leaves open which database it is about.
    pub fn is_about_a_database(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::ReadOnly { .. }
                | Self::Busy { .. }
                | Self::Full { .. }
                | Self::Moved
                | Self::Damaged { .. }
                | Self::Database { .. }
        )
    }

    /// Whether the database, or the way to it, is in trouble: not the call itself, nor a row of it,
    /// nor a caller that doesn't wait.
    pub fn is_of_the_store(&self) -> bool {
        !matches!(
            self,
            Self::Closed
                | Self::Overloaded { .. }
                | Self::TooLarge { .. }
                | Self::Corrupt { .. }
                | Self::Constraint { .. }
        )
    }

    /// Whether the role lacks a privilege.
    pub fn is_missing_privilege(&self) -> bool {
        self.database_code().is_some_and(|code| code.as_str() == INSUFFICIENT_PRIVILEGE)
    }

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
            Self::System { .. } => "ERR_PERSIST_SYSTEM",
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
            Self::ReadOnly { database_code, .. }
            | Self::Busy { database_code, .. }
            | Self::Full { database_code, .. }
            | Self::Damaged { database_code, .. }
            | Self::Constraint { database_code, .. }
            | Self::Database { database_code, .. } => Some(database_code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_stayed_is_reported_with_the_one_limit_that_passed() {
        let busy = |timeout| StoreError::Busy {
            timeout,
            database_code: DatabaseCode::Sqlite("SQLITE_BUSY"),
        };
        let message = |timeout| busy(None).after(timeout).to_string();
        assert_eq!(
            message(LockTimeout::BusyTimeout(Duration::from_millis(200))),
            "the database stayed locked by another connection for longer than busyTimeoutMs (200) \
             allows"
        );
        assert_eq!(
            message(LockTimeout::Constructor(Duration::from_secs(5))),
            "the database stayed locked by another connection for longer than the 5 seconds that a \
             constructor waits"
        );
        assert_eq!(busy(None).to_string(), "the database stayed locked by another connection");
    }

    #[test]
    fn a_database_that_calls_still_wait_for_is_not_one_that_was_waited_for_in_vain() {
        let away = StoreError::Unavailable {
            timeout: None,
            reason: "h:1: refused".to_owned(),
            database_code: None,
        };
        assert_eq!(away.to_string(), "the database is not available: h:1: refused");
        assert_eq!(
            away.after_retries(Duration::from_secs(30)).to_string(),
            "the database was not available for longer than retryTimeoutMs (30000) allows: \
             h:1: refused"
        );
    }

    #[test]
    fn what_the_system_refuses_comes_with_the_limit_to_raise() {
        assert_eq!(
            StoreError::NO_THREAD.to_string(),
            "the system refused a thread; raise the limit (ulimit -u, the container's pids)"
        );
        assert_eq!(StoreError::NO_OPEN_FILE.code(), "ERR_PERSIST_SYSTEM");
    }
}
