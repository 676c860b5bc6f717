//! Sessions in a PostgreSQL database.
//!
//! | file | owns | thread |
//! | --- | --- | --- |
//! | `store` | the handle: takes calls on, opens, closes | JavaScript's |
//! | `queue` | what waits: order, ceiling, which reads wait for which writes | any, under its lock |
//! | `flight` | when the next batch may go out | any |
//! | `backend` | the runtime that hands out the work, and its retries | `persist-postgres` |
//! | `writer` | rounds of writes | `persist-postgres` |
//! | `reader` | reads | `persist-postgres` |
//! | `pool` | connections, and what broken ones may still do | `persist-postgres` |
//! | `connection` | how one is opened | `persist-postgres` |
//! | `retry` | pauses between attempts | any |
//! | `schema` | table layouts and their upgrade | `persist-postgres` |
//! | `queries` | the statements, and rows in and out | `persist-postgres` |
//! | `message` | statements and their values | any |
//! | `quote` | values as SQL | any |
//! | `wrap` | JSON that PostgreSQL can't work with | any |
//! | `failure` | sqlx's errors as ours, and what helps | any |
//! | `settings` | how to connect, out of what the user gave | JavaScript's |

mod backend;
mod connection;
mod failure;
mod flight;
mod message;
mod options;
mod pool;
mod queries;
mod queue;
mod quote;
mod reader;
mod retry;
mod schema;
mod settings;
mod store;
mod wrap;
mod writer;

pub use connection::PasswordSource;
pub use options::{DEFAULT_RETRY_TIMEOUT_MS, DEFAULT_SCHEMA, MAX_SCHEMA_BYTES, PostgresOptions};
pub use schema::schema_sql;
pub use settings::{Given, Password, Ssl, resolve};
pub use store::open;
