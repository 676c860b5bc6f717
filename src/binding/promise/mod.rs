//! What outlasts a call: promises, the stores that settle them, and their end with the thread.

mod activity;
pub mod attempts;
pub mod bridge;
pub mod environment;
pub mod handle;
mod health;
mod notes;
pub mod password;
