//! The Node addon: the only part that knows JavaScript.
//!
//! | file | owns |
//! | --- | --- |
//! | `sqlite` | the class `SQLiteSessionPersistDriver` |
//! | `postgres` | the class `PostgresSessionPersistDriver` |
//! | `replay` | replay options, the class `ReplayView`, `buildReplayText` |
//! | `methods` | the methods that the classes have in common |
//! | `driver` | what every driver class does with a call |
//! | `dispose` | `using` |
//! | `environment` | the state of one JavaScript thread: its drivers, and their end with it |
//! | `bridge` | promises: made on JavaScript's thread, settled there, woken once a batch |
//! | `json` | the engine's own `JSON.parse` and `JSON.stringify` |
//! | `convert` | JavaScript's values as ours and back |
//! | `event_text` | an event out of the engine's text of it |
//! | `options` | constructors' options, and SQLite's |
//! | `postgres_options` | PostgreSQL's, in node-postgres' names |
//! | `password` | passwords from a function of the user's |
//! | `warning` | warnings of the process |
//! | `error` | errors as JavaScript sees them |
//!
//! Everything here runs on the JavaScript thread of its environment, except what says
//! otherwise. A process has one environment for its main thread and one for each worker.

mod bridge;
mod convert;
mod dispose;
mod driver;
mod environment;
mod error;
mod event_text;
mod json;
mod methods;
mod options;
mod password;
mod postgres;
mod postgres_options;
mod replay;
mod sqlite;
mod warning;

/// The version of the addon, which is the package's: another one's isn't loaded.
#[napi_derive::napi]
#[cfg_attr(test, expect(dead_code, reason = "the addon's exports aren't made in tests"))]
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
