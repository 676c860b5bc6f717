//! What can be chosen when a store is opened.

use std::time::Duration;

use crate::columns::OnDuplicate;

use super::settings::Settings;

/// Where tables are.
pub const DEFAULT_SCHEMA: &str = "public";
/// How long trouble that passes by itself is ridden out.
pub const DEFAULT_RETRY_TIMEOUT_MS: u32 = 30_000;
/// PostgreSQL cuts longer names off: two schemas might be one.
pub const MAX_SCHEMA_BYTES: usize = 63;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// How to connect.
    pub settings: Settings,
    /// The schema's name. Default: [`DEFAULT_SCHEMA`].
    pub schema: String,
    /// Whether what the schema lacks may be created. Default: true.
    pub migrate: bool,
    /// Named statements, on connections that no pooler shares. Default: false.
    pub prepared_statements: bool,
    /// Default: [`DEFAULT_RETRY_TIMEOUT_MS`].
    pub retry_timeout: Duration,
    /// Default: [`DEFAULT_MAX_QUEUED_BYTES`](crate::store::DEFAULT_MAX_QUEUED_BYTES).
    pub max_queued_bytes: usize,
    /// What becomes of an event whose id is stored already. Default: [`OnDuplicate::Replace`].
    pub on_duplicate_event: OnDuplicate,
}
