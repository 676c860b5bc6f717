//! Sessions in a PostgreSQL database.
//!
//! | file | owns | thread |
//! | --- | --- | --- |
//! | `store` | the handle: takes calls on, opens, closes | JavaScript's |
//! | `queue` | how work is taken off the backlog | any, under its lock |
//! | `in_flight` | when the next batch may go out | any |
//! | `runtime` | the threads that all stores of the process share, and when they end | any |
//! | `dispatcher` | hands out the work | `persist-postgres` |
//! | `backend` | what tasks share, and the attempts they make | `persist-postgres` |
//! | `writer` | rounds of writes | `persist-postgres` |
//! | `steps` | what a round is to the server, and why none waits for another in a circle | any |
//! | `deletion` | deletions, whole or in steps | `persist-postgres` |
//! | `compaction` | what streamed in many events becomes few | `persist-postgres` |
//! | `prune` | what has become too old or too much | `persist-postgres` |
//! | `probe` | whether sessions could be stored | `persist-postgres` |
//! | `reader` | reads | `persist-postgres` |
//! | `pool` | connections, and what broken ones may still do | `persist-postgres` |
//! | `addresses` | the addresses of a name, tried beside each other | `persist-postgres` |
//! | `connection` | how one is opened, and messages sent on it | `persist-postgres` |
//! | `retry` | what to do after an attempt has failed | any |
//! | `schema` | table layouts and their upgrade | `persist-postgres` |
//! | `statements` | what is asked of the server for each operation | `persist-postgres` |
//! | `select` | which rows, in which order: WHERE, ORDER BY, LIMIT | any |
//! | `table` | how rows of a table are read and stored | any |
//! | `rows` | rows as ours, checked | `persist-postgres` |
//! | `message` | statements and their values | any |
//! | `quote` | values as SQL | any |
//! | `wrap` | JSON that PostgreSQL can't work with | any |
//! | `failure` | sqlx's errors as ours, and what helps | any |
//! | `settings` | how to connect, out of what the user gave | JavaScript's |

mod addresses;
mod backend;
mod compaction;
mod connection;
mod deletion;
mod dispatcher;
mod failure;
mod in_flight;
mod message;
mod options;
mod pool;
mod probe;
mod prune;
mod queue;
mod quote;
mod reader;
mod retry;
mod rows;
mod runtime;
mod schema;
mod select;
mod settings;
mod statements;
mod steps;
mod store;
mod table;
mod wrap;
mod writer;

pub use connection::{Attempts, PasswordSource};
pub use options::{DEFAULT_RETRY_TIMEOUT_MS, DEFAULT_SCHEMA, MAX_SCHEMA_BYTES, PostgresOptions};
pub use schema::{row_level_security_sql, schema_sql};
pub use settings::{Given, Password, Ssl, resolve};
pub use store::open;

#[cfg(test)]
mod tests;
