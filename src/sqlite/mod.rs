//! Sessions in a SQLite file.
//!
//! | file | owns | thread |
//! | --- | --- | --- |
//! | `store` | the handle: routes calls, opens, closes | JavaScript's |
//! | `queue` | how writer and readers take their work off the backlog | any, under its lock |
//! | `writer` | the write connection: group commit | `persist-writer` |
//! | `deletion` | what is deleted in steps | `persist-writer` |
//! | `compaction` | what streamed in many events becomes few | `persist-writer` |
//! | `erasure` | what is deleted is gone before it is acknowledged | `persist-writer` |
//! | `prune` | what has become too old or too much | `persist-writer` |
//! | `vacuum` | space that comes back | `persist-writer` |
//! | `reader` | read-only connections for lists | `persist-reader` |
//! | `backup` | a copy of the database | `persist-reader` |
//! | `read_ahead` | the page that a scan will ask for next | any, under its lock |
//! | `checkpointer` | a connection that runs checkpoints | `persist-checkpoint` |
//! | `connection` | how a file is opened: looked at first, then changed | the opener's |
//! | `schema` | table layouts and their upgrade | the opener's |
//! | `statements` | what is asked of SQLite for each operation | the connection's |
//! | `select` | which rows, in which order: WHERE, ORDER BY, LIMIT | the connection's |
//! | `table` | how rows of a table are read and stored | the connection's |
//! | `rows` | rows as ours, checked | the connection's |
//! | `failure` | SQLite's errors as ours | any |
//! | `file` | what a store has open: claimed in the process, and still in its place | any |
//! | `identity` | which file it is that is found under a name | any |
//! | `place` | which file systems are on a network | any |
//! | `filesystem` | where a file lies, what is beside it | the opener's |

mod backup;
mod checkpointer;
mod compaction;
mod connection;
mod deletion;
mod erasure;
mod failure;
mod file;
mod filesystem;
mod identity;
mod options;
mod place;
mod prune;
mod queue;
mod read_ahead;
mod reader;
mod rows;
mod schema;
mod select;
mod statements;
mod store;
mod table;
mod vacuum;
mod writer;

#[cfg(test)]
mod tests;

pub use connection::unknown_file_system;
pub use options::{DEFAULT_FILE_MODE, Durability, SqliteOptions};
pub use store::open;
