//! Native session store for the `sandbox-agent` SDK.
//!
//! Data flows one way, and each layer knows only the ones below it:
//!
//! ```text
//! binding   napi classes: argument checks, JSON text in and out, promises, errors
//!    ↓
//! store     the operations, what each touches, and what waits: knows neither JS nor SQL
//!    ↓
//! sqlite    connections, schema, statements, the writer thread
//! postgres  connections, schema, statements, rounds of writes
//!
//! replay    pure: what of a history an agent is given after a restore
//!
//! model, columns, filter, cursor, page, json, layout, error: pure, used by any layer
//! ```
//!
//! Threads: JavaScript's thread only ever queues work, and reads single rows by key.
//! Whatever may wait for a disk or a lock, or read many rows, runs on a thread of the
//! backend. Payloads cross every layer as JSON text and are never parsed here.

mod binding;
mod columns;
mod cursor;
mod error;
mod filter;
mod json;
mod layout;
mod model;
mod page;
mod postgres;
mod replay;
mod sqlite;
mod store;
