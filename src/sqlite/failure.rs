//! SQLite's errors as ours. Messages of SQLite name tables and columns, never values.

use rusqlite::{Connection, ffi};

use crate::error::{DatabaseCode, StoreError};

use super::filesystem;

/// What failed, in our terms.
pub fn store_error(error: rusqlite::Error) -> StoreError {
    let Some(code) = extended_code(&error) else {
        return match error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => {
                StoreError::Corrupt { what: "row".to_owned(), reason: "a column has another type" }
            }
            _ => StoreError::Internal { reason: "a statement was used wrongly" },
        };
    };
    if is_for_want_of_file_handles(&error) {
        return StoreError::NO_OPEN_FILE;
    }
    let database_code = DatabaseCode::Sqlite(code_name(code));
    match code & PRIMARY_CODE_MASK {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => StoreError::Busy { timeout: None, database_code },
        // The -shm couldn't get its room.
        _ if code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full { needed: None, database_code },
        ffi::SQLITE_FULL => StoreError::Full { needed: None, database_code },
        ffi::SQLITE_READONLY => StoreError::ReadOnly { reason: None, database_code },
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => {
            StoreError::Damaged { message: describe(&error), database_code }
        }
        // Whatever its author had it say, which may be the row's own values.
        _ if code == ffi::SQLITE_CONSTRAINT_TRIGGER => StoreError::Constraint {
            message: "a trigger of the table refuses the row".to_owned(),
            database_code,
        },
        ffi::SQLITE_CONSTRAINT => {
            StoreError::Constraint { message: describe(&error), database_code }
        }
        _ => StoreError::Database { message: describe(&error), database_code },
    }
}

/// As [`store_error`], of what the connection was about to write: a quota, or a limit of a file's
/// size, is a full disk of another kind, which SQLite doesn't know.
pub fn store_error_of_write(connection: &Connection, error: rusqlite::Error) -> StoreError {
    match store_error(error) {
        StoreError::Database { database_code, .. }
            if database_code.as_str().starts_with("SQLITE_IOERR")
                && filesystem::is_out_of_room(system_error(connection)) =>
        {
            StoreError::Full { needed: None, database_code }
        }
        error => error,
    }
}

/// The system's number of what last went wrong with a file of the connection's.
#[expect(unsafe_code, reason = "rusqlite has no safe way to ask")]
fn system_error(connection: &Connection) -> i32 {
    // SAFETY: the connection is open, and only read.
    let handle = unsafe { connection.handle() };
    // SAFETY: as above.
    unsafe { ffi::sqlite3_system_errno(handle) }
}

/// Whether somebody else's lock is the reason, which passes by itself.
pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(primary_code(error), Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED))
}

/// Whether SQLite couldn't open a file because nobody in this process can open any more.
pub fn is_for_want_of_file_handles(error: &rusqlite::Error) -> bool {
    primary_code(error) == Some(ffi::SQLITE_CANTOPEN) && filesystem::is_out_of_handles()
}

/// The error's code without its details.
pub fn primary_code(error: &rusqlite::Error) -> Option<i32> {
    extended_code(error).map(|code| code & PRIMARY_CODE_MASK)
}

/// SQLite's name of the error, such as `SQLITE_FULL`.
pub fn database_code(error: &rusqlite::Error) -> Option<DatabaseCode> {
    extended_code(error).map(|code| DatabaseCode::Sqlite(code_name(code)))
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.extended_code),
        other => other.sqlite_error().map(|failure| failure.extended_code),
    }
}

/// The low byte of an extended code is the primary one.
const PRIMARY_CODE_MASK: i32 = 0xff;

/// SQLite's own words.
pub fn describe(error: &rusqlite::Error) -> String {
    match error {
        // Of a file that can't be opened it has the path.
        rusqlite::Error::SqliteFailure(_, Some(message))
            if primary_code(error) != Some(ffi::SQLITE_CANTOPEN) =>
        {
            message.clone()
        }
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other
            .sqlite_error()
            .map_or_else(String::new, |failure| ffi::code_to_str(failure.extended_code).to_owned()),
    }
}

fn code_name(code: i32) -> &'static str {
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE => return "SQLITE_CONSTRAINT_UNIQUE",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => return "SQLITE_CONSTRAINT_PRIMARYKEY",
        ffi::SQLITE_CONSTRAINT_NOTNULL => return "SQLITE_CONSTRAINT_NOTNULL",
        ffi::SQLITE_CONSTRAINT_CHECK => return "SQLITE_CONSTRAINT_CHECK",
        ffi::SQLITE_CONSTRAINT_TRIGGER => return "SQLITE_CONSTRAINT_TRIGGER",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => return "SQLITE_CONSTRAINT_FOREIGNKEY",
        ffi::SQLITE_IOERR_WRITE => return "SQLITE_IOERR_WRITE",
        ffi::SQLITE_IOERR_READ => return "SQLITE_IOERR_READ",
        ffi::SQLITE_IOERR_SHORT_READ => return "SQLITE_IOERR_SHORT_READ",
        ffi::SQLITE_IOERR_FSYNC => return "SQLITE_IOERR_FSYNC",
        ffi::SQLITE_IOERR_SHMSIZE => return "SQLITE_IOERR_SHMSIZE",
        ffi::SQLITE_IOERR_SHMMAP => return "SQLITE_IOERR_SHMMAP",
        ffi::SQLITE_READONLY_DBMOVED => return "SQLITE_READONLY_DBMOVED",
        ffi::SQLITE_READONLY_DIRECTORY => return "SQLITE_READONLY_DIRECTORY",
        _ => {}
    }
    match code & PRIMARY_CODE_MASK {
        ffi::SQLITE_ERROR => "SQLITE_ERROR",
        ffi::SQLITE_INTERNAL => "SQLITE_INTERNAL",
        ffi::SQLITE_PERM => "SQLITE_PERM",
        ffi::SQLITE_ABORT => "SQLITE_ABORT",
        ffi::SQLITE_BUSY => "SQLITE_BUSY",
        ffi::SQLITE_LOCKED => "SQLITE_LOCKED",
        ffi::SQLITE_NOMEM => "SQLITE_NOMEM",
        ffi::SQLITE_READONLY => "SQLITE_READONLY",
        ffi::SQLITE_INTERRUPT => "SQLITE_INTERRUPT",
        ffi::SQLITE_IOERR => "SQLITE_IOERR",
        ffi::SQLITE_CORRUPT => "SQLITE_CORRUPT",
        ffi::SQLITE_FULL => "SQLITE_FULL",
        ffi::SQLITE_CANTOPEN => "SQLITE_CANTOPEN",
        ffi::SQLITE_PROTOCOL => "SQLITE_PROTOCOL",
        ffi::SQLITE_SCHEMA => "SQLITE_SCHEMA",
        ffi::SQLITE_TOOBIG => "SQLITE_TOOBIG",
        ffi::SQLITE_CONSTRAINT => "SQLITE_CONSTRAINT",
        ffi::SQLITE_MISMATCH => "SQLITE_MISMATCH",
        ffi::SQLITE_MISUSE => "SQLITE_MISUSE",
        ffi::SQLITE_NOLFS => "SQLITE_NOLFS",
        ffi::SQLITE_AUTH => "SQLITE_AUTH",
        ffi::SQLITE_RANGE => "SQLITE_RANGE",
        ffi::SQLITE_NOTADB => "SQLITE_NOTADB",
        _ => "SQLITE_UNKNOWN",
    }
}
