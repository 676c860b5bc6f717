//! Which servers to try, and which of them will do.

use std::fmt;

use super::error::SettingsError;
use super::sources::{Named, Sources};

/// PostgreSQL's own.
const DEFAULT_PORT: u16 = 5432;
/// As in node-postgres; libpq would try a socket first.
const DEFAULT_HOST: &str = "localhost";

/// A server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where it listens.
    pub address: Address,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On the network.
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// On a Unix domain socket, where TLS has no place.
    Socket {
        /// The folder of the socket `.s.PGSQL.<port>`.
        folder: String,
        /// The number in the socket's name.
        port: u16,
    },
}

impl Address {
    /// The host or the folder, and the port.
    pub fn parts(&self) -> (&str, u16) {
        match self {
            Self::Tcp { host, port } => (host, *port),
            Self::Socket { folder, port } => (folder, *port),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Socket { folder, port } => write!(formatter, "{folder}/.s.PGSQL.{port}"),
        }
    }
}

/// libpq's `target_session_attrs`: which of the hosts will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetSession {
    /// The first that answers.
    #[default]
    Any,
    /// One whose sessions can write.
    ReadWrite,
    /// One whose sessions can't.
    ReadOnly,
    /// One that isn't in recovery.
    Primary,
    /// One that is.
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// What names the hosts, if anything does.
pub(super) fn host_names(
    sources: &Sources<'_>,
    host: Option<String>,
) -> Result<Option<String>, SettingsError> {
    sources.bare_text("host", host, Some("PGHOST"))
}

/// The hosts in the order to try them; never none.
pub(super) fn hosts(
    sources: &Sources<'_>,
    names: Option<String>,
    port: Option<u16>,
) -> Result<Vec<Host>, SettingsError> {
    let names = names.as_deref().unwrap_or(DEFAULT_HOST);
    let count = names.split(',').count();
    let port = port.filter(|port| *port != 0).map(|port| port.to_string());
    let ports = match sources.text("port", port, Some("PGPORT"))? {
        Some(list) => ports(&list, count)?,
        None => vec![DEFAULT_PORT],
    };
    Ok(names.split(',').zip(ports.into_iter().cycle()).map(|(name, port)| at(name, port)).collect())
}

/// The connection string's, or that of `PGTARGETSESSIONATTRS`.
pub(super) fn target_session(sources: &Sources<'_>) -> Result<TargetSession, SettingsError> {
    let found = sources.parameter_or_variable("target_session_attrs", "PGTARGETSESSIONATTRS");
    let Some(Named { name, text }) = found else { return Ok(TargetSession::default()) };
    match text.as_str() {
        "any" => Ok(TargetSession::Any),
        "read-write" => Ok(TargetSession::ReadWrite),
        "read-only" => Ok(TargetSession::ReadOnly),
        "primary" => Ok(TargetSession::Primary),
        "standby" => Ok(TargetSession::Standby),
        "prefer-standby" => Ok(TargetSession::PreferStandby),
        _ => Err(SettingsError::expected(
            name,
            "any, read-write, read-only, primary, standby or prefer-standby",
        )),
    }
}

fn at(name: &str, port: u16) -> Host {
    let address = match name.trim() {
        _ if name.starts_with('/') => Address::Socket { folder: name.to_owned(), port },
        "" => Address::Tcp { host: DEFAULT_HOST.to_owned(), port },
        name => Address::Tcp { host: name.to_owned(), port },
    };
    Host { address }
}

/// One port for all hosts, or as many ports as hosts.
fn ports(list: &Named, hosts: usize) -> Result<Vec<u16>, SettingsError> {
    let ports: Option<Vec<u16>> = list.text.split(',').map(read_port).collect();
    let ports = ports.ok_or_else(|| {
        SettingsError::expected(&list.name, "a whole number from 1 to 65535, or a list of such")
    })?;
    if ports.len() == 1 || ports.len() == hosts {
        return Ok(ports);
    }
    Err(SettingsError::PortCount { name: list.name.clone(), ports: ports.len(), hosts })
}

/// In a list an empty port is the default one.
fn read_port(text: &str) -> Option<u16> {
    match text.trim() {
        "" => Some(DEFAULT_PORT),
        text => text.parse().ok().filter(|port| *port != 0),
    }
}
