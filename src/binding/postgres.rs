//! The class `PostgresSessionPersistDriver`. Its methods' types are in `dts-header.d.ts`: they
//! have overloads, which generated types can't.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{This, Unknown};
use napi_derive::napi;

use crate::postgres::{self, PasswordSource};

use super::driver::{self, Driver};
use super::environment::Environment;
use super::error::CallError;
use super::methods::{replay_methods, session_methods};
use super::password::JsPasswords;
use super::postgres_options::{self, PostgresArguments};
use super::replay::ReplayView;
use super::{convert, warning};

/// Stores sessions in a PostgreSQL database: every write is committed when its promise resolves, and
/// nothing blocks the event loop.
///
/// Works through poolers such as PgBouncer, and rides out lost connections, restarts and fail-overs.
#[napi(js_name = "PostgresSessionPersistDriver")]
pub struct PostgresSessionPersistDriver {
    driver: Driver,
}

session_methods!(PostgresSessionPersistDriver);
replay_methods!(PostgresSessionPersistDriver);

#[napi]
impl PostgresSessionPersistDriver {
    /// Connects to nothing yet: the first call does, and looks at the schema.
    ///
    /// @param options Default: what node-postgres would take from the environment.
    /// @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: an option is wrong, misspelt, or can't be
    /// honoured.
    #[napi(constructor, ts_args_type = "options?: PostgresSessionPersistDriverOptions")]
    pub fn new(env: &Env, this: This<'_>, options: Unknown<'_>) -> napi::Result<Self> {
        let environment = Environment::of(env)?;
        let open = || -> Result<_, CallError> {
            driver::require_new(this, "PostgresSessionPersistDriver")?;
            let PostgresArguments { options, password_function } =
                postgres_options::postgres(env, options)?;
            for message in &options.settings.warnings {
                warning::emit(env, message)?;
            }
            let password_source = match password_function {
                Some(function) => {
                    let passwords = JsPasswords::new(env, function)?;
                    Some(Arc::new(passwords) as Arc<dyn PasswordSource>)
                }
                None => None,
            };
            Ok(postgres::open(options, password_source, environment.bridge.completions())?)
        };
        let store = open().map_err(|error| error.into_thrown(env))?;
        Ok(Self { driver: Driver::new(environment, store) })
    }

    /// Writes what is queued, lets running reads finish, rejects queued reads with
    /// `ERR_PERSIST_CLOSED`, and closes the connections. Resolves when that is done; a database that
    /// can't be reached is waited for at most `retryTimeoutMs`. A pool that was passed in is left as
    /// it is. Calls after it reject with `ERR_PERSIST_CLOSED`; a second `close()` waits for the first.
    ///
    /// A driver needn't be closed, but await your calls: a process that ends gives un-awaited writes
    /// five seconds to reach the database.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Unknown<'env>> {
        self.driver.close_later(env)
    }
}

/// The SQL that makes the tables and indexes of `PostgresSessionPersistDriver` in a schema, and adds
/// what SDK 0.2 and 0.3 didn't have. For those who run their own migrations, with `migrate: false`.
/// Running it again changes nothing.
///
/// @param schema Default: `"public"`.
/// @throws {TypeError} `ERR_PERSIST_INVALID_ARG`: not a name that the driver takes.
#[cfg_attr(test, allow(dead_code, reason = "registered in addons, which tests are not"))]
#[napi(ts_args_type = "schema?: string")]
pub fn postgres_schema_sql(env: &Env, schema: Unknown<'_>) -> napi::Result<String> {
    let name = || -> Result<String, CallError> {
        if convert::is_nullish(&schema)? {
            return Ok(postgres::DEFAULT_SCHEMA.to_owned());
        }
        postgres_options::check_schema(convert::identifier(schema, "schema")?)
    };
    let name = name().map_err(|error| error.into_thrown(env))?;
    Ok(postgres::schema_sql(&name))
}
