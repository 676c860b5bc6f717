//! Sessions in a SQLite file.
//!
//! | file | owns | thread |
//! | --- | --- | --- |
//! | `store` | the handle: routes calls, opens, closes | JavaScript's |
//! | `queue` | what waits: order, ceiling, which reads wait for which writes | any, under its lock |
//! | `writer` | the write connection: group commit | `persist-writer` |
//! | `reader` | read-only connections for lists | `persist-reader` |
//! | `read_ahead` | the page that a scan will ask for next | any, under its lock |
//! | `checkpointer` | a connection that empties the WAL | `persist-checkpoint` |
//! | `connection` | how a file is opened, and what is never changed before it is known | the opener's |
//! | `schema` | table layouts and their upgrade | the opener's |
//! | `queries` | the statements, and rows in and out | the connection's |
//! | `failure` | SQLite's errors as ours | any |
//! | `open_files` | whether the process has the file open otherwise | the opener's |
//! | `filesystem` | whether a file lies on a network | the opener's |

mod checkpointer;
mod connection;
mod failure;
mod filesystem;
mod open_files;
mod options;
mod queries;
mod queue;
mod read_ahead;
mod reader;
mod schema;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub use options::{Durability, SqliteOptions};
pub use store::open;
