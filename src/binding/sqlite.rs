//! The class `SQLiteSessionPersistDriver`.

use napi::Env;
use napi::bindgen_prelude::{This, Unknown};
use napi_derive::napi;

use crate::sqlite;

use super::driver::{self, Driver};
use super::environment::Environment;
use super::error::CallError;
use super::methods::{replay_methods, session_methods};
use super::options;
use super::replay::ReplayView;

/// Stores sessions in a SQLite file: every write is durable when its promise resolves, and
/// nothing blocks the event loop.
///
/// Several drivers, worker threads and processes may open the same file. Don't open it with
/// another copy of SQLite (`better-sqlite3`, `node:sqlite`) in the same process.
#[napi(js_name = "SQLiteSessionPersistDriver")]
pub struct SQLiteSessionPersistDriver {
    driver: Driver,
}

session_methods!(SQLiteSessionPersistDriver);
replay_methods!(SQLiteSessionPersistDriver);

#[napi]
impl SQLiteSessionPersistDriver {
    /// Opens the database, creating it, its tables or what an older layout lacks. Synchronous,
    /// like the driver it replaces; waits at most 5 seconds for another process's lock.
    ///
    /// @param options Default: a database in memory.
    /// @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: an option is wrong or misspelt.
    /// @throws {PersistError} `ERR_PERSIST_CANNOT_OPEN`, `ERR_PERSIST_NOT_A_DATABASE`,
    /// `ERR_PERSIST_FOREIGN_TABLE`, `ERR_PERSIST_BUSY`, `ERR_PERSIST_MOVED`: nothing in the file was changed.
    #[napi(constructor, ts_args_type = "options?: SQLiteSessionPersistDriverOptions")]
    pub fn new(env: &Env, this: This<'_>, options: Unknown<'_>) -> napi::Result<Self> {
        let environment = Environment::of(env)?;
        let open = || -> Result<_, CallError> {
            driver::require_new(this, "SQLiteSessionPersistDriver")?;
            let options = options::sqlite(options)?;
            Ok(sqlite::open(&options, environment.bridge.completions())?)
        };
        let store = open().map_err(|error| error.into_thrown(env))?;
        Ok(Self { driver: Driver::new(environment, store) })
    }

    /// Writes what is queued, lets running reads finish, rejects queued reads with
    /// `ERR_PERSIST_CLOSED`, and frees the file. Synchronous: when it returns, everything is
    /// durable and another driver, or `rm`, may have the file. A locked file is waited for at
    /// most `busyTimeoutMs`. Calls after it reject with `ERR_PERSIST_CLOSED`; a second
    /// `close()` does nothing.
    ///
    /// A driver needn't be closed: a process that ends, however it does, writes what is queued.
    #[napi]
    pub fn close(&self, env: &Env) -> napi::Result<()> {
        self.driver.close(env)
    }
}
