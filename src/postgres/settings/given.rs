//! What the user gave.

use std::fmt;

use super::secret::Secret;

/// The user's configuration by the names of `poolConfig`, nothing filled in. Numbers are
/// those of JavaScript, in the unit of their name; 0 means what it means to node-postgres.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `connectionString`, wherever it stood. What it speaks of hides the other fields.
    pub connection_string: Option<Secret>,
    /// `host`: a name, an address, the folder of a socket, or several of them, comma-separated.
    pub host: Option<String>,
    /// `port`; 0 is as good as missing.
    pub port: Option<u16>,
    /// `user`.
    pub user: Option<String>,
    /// `password`.
    pub password: Option<Password>,
    /// `database`.
    pub database: Option<String>,
    /// `ssl`.
    pub ssl: Option<Ssl>,
    /// `max`, the most connections at a time.
    pub max: Option<u32>,
    /// `min`, how many connections idle time doesn't close.
    pub min: Option<u32>,
    /// `idleTimeoutMillis`; 0 is never.
    pub idle_timeout_ms: Option<u64>,
    /// `connectionTimeoutMillis`; 0 is never.
    pub connection_timeout_ms: Option<u64>,
    /// `maxLifetimeSeconds`; 0 is without end.
    pub max_lifetime_s: Option<u64>,
    /// `maxUses`; 0 is without end.
    pub max_uses: Option<u64>,
    /// `application_name`.
    pub application_name: Option<String>,
    /// `fallback_application_name`, for when nobody gives an `application_name`.
    pub fallback_application_name: Option<String>,
    /// `statement_timeout`; 0, like `false`, leaves it to the server.
    pub statement_timeout_ms: Option<u64>,
    /// `query_timeout`; 0 is never.
    pub query_timeout_ms: Option<u64>,
    /// `lock_timeout`; 0, like `false`, leaves it to the server.
    pub lock_timeout_ms: Option<u64>,
    /// `idle_in_transaction_session_timeout`; 0, like `false`, leaves it to the server.
    pub idle_in_transaction_session_timeout_ms: Option<u64>,
    /// `keepAlive`.
    pub keep_alive: Option<bool>,
    /// `keepAliveInitialDelayMillis`; 0 leaves it to the system.
    pub keep_alive_initial_delay_ms: Option<u64>,
    /// `client_encoding`; nothing but UTF-8 can be honoured.
    pub client_encoding: Option<String>,
    /// `options`, the server's command line.
    pub options: Option<String>,
    /// Full names of what is given and has no effect here.
    pub without_effect: Vec<String>,
}

/// How a password is come by. `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// It is known.
    Text(String),
    /// JavaScript is asked for each connection.
    Function,
}

impl Password {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Function => None,
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Text(_) => "Text(***)",
            Self::Function => "Function",
        })
    }
}

/// `poolConfig.ssl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ssl {
    /// `false`: plain text.
    Off,
    /// `true`: encrypted, the server's certificate and name verified.
    On,
    /// An object.
    With {
        /// `rejectUnauthorized`, by default true: whether the server's certificate is verified.
        reject_unauthorized: bool,
        /// `ca`: PEM texts of authorities to trust.
        ca: Vec<String>,
        /// `cert`: the client's own certificate in PEM. Goes with `key`.
        cert: Option<String>,
        /// `key`: the private key of `cert` in PEM.
        key: Option<Secret>,
        /// `servername`: only the host's own name can be honoured.
        servername: Option<String>,
    },
}
