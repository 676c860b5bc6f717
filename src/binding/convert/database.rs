//! Which database a driver is of, as its user may see it: what was given, and never a secret.

use std::fmt::{self, Display, Formatter};

use napi::Env;
use napi::bindgen_prelude::{JsObjectValue, Object};

use crate::error::StoreError;
use crate::postgres::PostgresOptions;
use crate::sqlite::SqliteOptions;

use super::realm::Realm;

/// Why that host: mostly a connection string in a variable that isn't set.
const DEFAULT_HOST: &str = ", as no connectionString, host or PGHOST is given";

/// See the module's documentation.
#[derive(Debug)]
pub enum Database {
    /// A file.
    Sqlite {
        /// As it was given.
        filename: String,
    },
    /// A schema on a server.
    Postgres {
        /// Each host with its port, or a socket's path, in the order to try them.
        hosts: String,
        /// Whether nobody named a host.
        is_default_host: bool,
        /// The database's own name.
        database: String,
        /// Where the tables are.
        schema: String,
    },
}

impl From<&SqliteOptions> for Database {
    fn from(options: &SqliteOptions) -> Self {
        Self::Sqlite { filename: options.filename.clone() }
    }
}

impl From<&PostgresOptions> for Database {
    fn from(options: &PostgresOptions) -> Self {
        let hosts = options.settings.hosts.iter().map(|host| host.address.to_string());
        Self::Postgres {
            hosts: hosts.collect::<Vec<_>>().join(", "),
            is_default_host: options.settings.is_default_host,
            database: options.settings.database.clone(),
            schema: options.schema.clone(),
        }
    }
}

impl Display for Database {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { filename } => write!(formatter, "\"{filename}\""),
            Self::Postgres { hosts, is_default_host, database, schema } => {
                write!(formatter, "schema \"{schema}\" of database \"{database}\" at {hosts}")?;
                if *is_default_host { formatter.write_str(DEFAULT_HOST) } else { Ok(()) }
            }
        }
    }
}

impl Database {
    /// An error's message. Where that leaves open which database it is about, it names it.
    pub fn describe(&self, error: &StoreError) -> String {
        if error.is_about_a_database() { format!("{error} ({self})") } else { error.to_string() }
    }

    /// `{ filename }`, or `{ host, database, schema }`.
    pub fn to_js<'env>(&self, env: &'env Env, realm: &Realm) -> napi::Result<Object<'env>> {
        let mut shown = realm.object(env)?;
        match self {
            Self::Sqlite { filename } => shown.set_named_property("filename", filename.as_str())?,
            Self::Postgres { hosts, database, schema, .. } => {
                shown.set_named_property("host", hosts.as_str())?;
                shown.set_named_property("database", database.as_str())?;
                shown.set_named_property("schema", schema.as_str())?;
            }
        }
        Ok(shown)
    }
}
