//! What can be wrong with what the user gave.

use std::io;

/// Why there is no way to connect. Messages name the field and what was expected there;
/// they never repeat a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A field has a value that can't be used.
    #[error("{name} must be {expectation}")]
    Expected {
        /// The field as the user knows it: `poolConfig.port`, `connectionString's port`, `PGPORT`.
        name: String,
        /// What would have been right.
        expectation: &'static str,
    },

    /// A file that the connection string names can't be read.
    #[error("connectionString's {parameter} names a file that can't be read: {}", describe(*reason))]
    UnreadableFile {
        /// The parameter with the file's name.
        parameter: &'static str,
        /// What the system says.
        reason: io::ErrorKind,
    },

    /// Hosts and ports don't pair up.
    #[error("{name} must be one port, or one for each host: it has {ports} for {hosts} hosts")]
    PortCount {
        /// Where the ports come from.
        name: String,
        /// How many ports there are.
        ports: usize,
        /// How many hosts there are.
        hosts: usize,
    },

    /// Neither the configuration nor the environment has a user's name.
    #[error(
        "no user to connect as: poolConfig.user, connectionString's user and PGUSER are missing"
    )]
    NoUser,
}

/// The system's own words, where Rust has others.
fn describe(reason: io::ErrorKind) -> String {
    match reason {
        io::ErrorKind::NotFound => "there is none of that name".to_owned(),
        other => other.to_string(),
    }
}

impl SettingsError {
    pub(super) fn expected(name: impl Into<String>, expectation: &'static str) -> Self {
        Self::Expected { name: name.into(), expectation }
    }
}
