//! The options of `SQLiteSessionPersistDriver`.

use std::time::Duration;

use napi::ValueType;
use napi::bindgen_prelude::Unknown;

use crate::sqlite::{DEFAULT_FILE_MODE, Durability, SqliteOptions};

use super::error::CallError;
use super::options::Options;
use super::realm::Kept;
use super::values;

/// What SQLite counts to.
const MAX_BUSY_TIMEOUT_MS: u64 = 2_147_483_647;

const OPTIONS: [&str; 11] = [
    "filename",
    "durability",
    "fileMode",
    "busyTimeoutMs",
    "maxQueuedBytes",
    "secureDelete",
    "onDuplicateEvent",
    "retention",
    "maxSessions",
    "maxEventsPerSession",
    "onError",
];
/// Without these, the driver itself couldn't use the file.
const OWNERS_MODE: i64 = 0o600;
const ALL_MODES: i64 = 0o777;

const PATH: &str =
    "a path, not a URL (of a PostgreSQL database, PostgresSessionPersistDriver takes one)";

/// What was read.
#[derive(Default)]
pub struct SqliteArguments {
    /// Of the store.
    pub options: SqliteOptions,
    /// Is told of errors.
    pub on_error: Option<Kept>,
}

/// Reads the options of `SQLiteSessionPersistDriver`; what is missing has its default.
pub fn read(options: Unknown<'_>) -> Result<SqliteArguments, CallError> {
    if options.get_type()? == ValueType::Undefined {
        return Ok(SqliteArguments::default());
    }
    let mut result = SqliteOptions::default();
    let options = Options::of(options, "options")?.only(&OPTIONS, &[])?;
    if let Some(filename) = options.get("filename")? {
        result.filename = values::identifier(filename, "options.filename")?;
        // It isn't repeated anywhere: it may hold a password.
        if result.filename.contains("://") {
            return Err(CallError::expected("options.filename", PATH));
        }
    }
    let durabilities = [("full", Durability::Full), ("normal", Durability::Normal)];
    if let Some(durability) = options.choice("durability", &durabilities)? {
        result.durability = durability;
    }
    if let Some(mode) = options.get("fileMode")? {
        result.file_mode = file_mode(&mode)?;
    }
    if let Some(milliseconds) = options.whole_number("busyTimeoutMs", MAX_BUSY_TIMEOUT_MS)? {
        result.busy_timeout = Duration::from_millis(milliseconds);
    }
    if let Some(bytes) = options.whole_number("maxQueuedBytes", u64::MAX)? {
        result.max_queued_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    result.secure_delete = options.boolean("secureDelete")?.unwrap_or(false);
    result.on_duplicate_event = options.on_duplicate_event()?;
    Ok(SqliteArguments { options: result, on_error: options.function("onError")? })
}

/// A file's mode; the default one for `undefined`.
pub fn file_mode(value: &Unknown<'_>) -> Result<u32, CallError> {
    let given = match value.get_type()? {
        ValueType::Undefined => return Ok(DEFAULT_FILE_MODE),
        ValueType::Number => values::safe_integer(values::read_number(value)?),
        _ => None,
    };
    let is_usable =
        |mode: &i64| (OWNERS_MODE..=ALL_MODES).contains(mode) && mode & OWNERS_MODE == OWNERS_MODE;
    let mode = given.filter(is_usable).and_then(|mode| u32::try_from(mode).ok());
    let expected = "a file's mode from 0o600 to 0o777, such as 0o640";
    mode.ok_or_else(|| CallError::expected("options.fileMode", expected))
}
