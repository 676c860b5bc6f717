//! Our methods' arguments and results: JavaScript's values as ours and back.

pub mod calling;
pub mod database;
pub mod error;
mod event_text;
mod json;
pub mod operations;
mod options;
pub mod outcomes;
pub mod postgres_options;
pub mod realm;
mod records;
pub mod replay_options;
pub mod replay_text;
mod requests;
pub mod sqlite_options;
pub mod traces;
pub mod values;
