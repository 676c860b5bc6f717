//! The options of `SQLiteSessionPersistDriver`.

use std::time::Duration;

use napi::ValueType;
use napi::bindgen_prelude::Unknown;

use crate::sqlite::{Durability, SqliteOptions};

use super::error::CallError;
use super::options::Options;
use super::realm::Kept;
use super::values;

/// What SQLite counts to.
const MAX_BUSY_TIMEOUT_MS: u64 = 2_147_483_647;

const OPTIONS: [&str; 5] = ["filename", "durability", "busyTimeoutMs", "maxQueuedBytes", "onError"];

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
    if let Some(durability) = options.get("durability")? {
        result.durability = match values::identifier(durability, "options.durability").as_deref() {
            Ok("full") => Durability::Full,
            Ok("normal") => Durability::Normal,
            _ => return Err(CallError::expected("options.durability", "\"full\" or \"normal\"")),
        };
    }
    if let Some(milliseconds) = options.whole_number("busyTimeoutMs", MAX_BUSY_TIMEOUT_MS)? {
        result.busy_timeout = Duration::from_millis(milliseconds);
    }
    if let Some(bytes) = options.whole_number("maxQueuedBytes", u64::MAX)? {
        result.max_queued_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    Ok(SqliteArguments { options: result, on_error: options.function("onError")? })
}
