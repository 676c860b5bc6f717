//! How to connect, worked out from what the user gave: a connection string, `poolConfig`
//! and the `PG*` variables, read as node-postgres 8 reads them, plus libpq's lists of hosts.
//!
//! Pure: environment and files come in as closures. Where node-postgres would only fail
//! when it connects, an error here names the field. Nothing here prints a secret.

mod connection_string;
mod error;
mod given;
mod hosts;
mod resolve;
mod secret;
mod sources;
mod tls;

pub use given::{Given, Password, Ssl};
pub use hosts::{Address, TargetSession};
pub use resolve::{PoolLimits, Settings, resolve};
pub use tls::Tls;

#[cfg(test)]
mod tests;
